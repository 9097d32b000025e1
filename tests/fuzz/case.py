r"""A case: the input of one execution, as values and as a readable file.

    target session
    knobs 1 0 0 1
    choices 0 2 6
    > EHLO client.example\r\n
    > MAIL FROM:<a@client.example>\r\nRCPT TO:<b@mx.example>\r\n

The target defines its knobs and pieces. Choices are taken one after the other, and from the first
again after the last. Octets are written with the escapes of Python.
"""

from __future__ import annotations

from attrs import frozen


class Unreadable(ValueError):
    """A file is not a case; the message says why."""


@frozen
class Case:
    """The input of one execution.

    Attributes:
        target: the name of its target.
        knobs: settings, as small numbers from 0; missing ones are 0.
        choices: decisions during the execution, likewise.
        pieces: octets, in the order in which the code under test gets them.
    """

    target: str
    knobs: tuple[int, ...] = ()
    choices: tuple[int, ...] = ()
    pieces: tuple[bytes, ...] = ()

    def knob(self, place: int, values: int) -> int:
        """Return a knob as a number below ``values``."""
        return self.knobs[place] % values if place < len(self.knobs) else 0

    @property
    def size(self) -> int:
        """The octets of all pieces."""
        return sum(map(len, self.pieces))

    def text(self) -> str:
        """Return the text of its file."""
        lines = [f"target {self.target}"]
        for name, numbers in (("knobs", self.knobs), ("choices", self.choices)):
            if numbers:
                lines.append(" ".join([name, *map(str, numbers)]))
        lines += [f"> {_escaped(piece)}" for piece in self.pieces]
        return "\n".join(lines) + "\n"

    @classmethod
    def parse(cls, text: str) -> Case:
        """Return the case in the text of a file; lines that begin with ``#`` are comments.

        Raises:
            Unreadable: the text is not a case.
        """
        target = ""
        numbers: dict[str, tuple[int, ...]] = {}
        pieces = []
        for line in text.split("\n"):
            word, _, rest = line.partition(" ")
            try:
                if word == "target":
                    target = rest
                elif word in ("knobs", "choices"):
                    numbers[word] = tuple(abs(int(number)) for number in rest.split())
                elif word == ">":
                    pieces.append(_octets(rest))
                elif line and not line.startswith("#"):
                    raise Unreadable(f"not a line of a case: {line[:60]!r}")
            except (ValueError, UnicodeError) as error:
                raise Unreadable(f"{line[:60]!r}: {error}") from None
        return cls(target, numbers.get("knobs", ()), numbers.get("choices", ()), tuple(pieces))


def _escaped(octets: bytes) -> str:
    # Line ends, all but printable ASCII, and a trailing space are escaped.
    text = octets.decode("latin-1").encode("unicode_escape").decode("ascii")
    return text[:-1] + "\\x20" if text.endswith(" ") else text


def _octets(text: str) -> bytes:
    return text.encode("ascii").decode("unicode_escape").encode("latin-1")
