r"""A case: the input of one execution, as values and as a file that people can read.

    target session
    knobs 1 0 0 1
    choices 0 2 6
    > EHLO client.example\r\n
    > MAIL FROM:<a@client.example>\r\nRCPT TO:<b@mx.example>\r\n

The target says what its knobs and pieces mean; choices are drawn one after the other, again from
the beginning when they are used up. Octets stand with the escapes of Python.
"""

from __future__ import annotations

from attrs import frozen


class Unreadable(ValueError):
    """A file does not hold a case; says why."""


@frozen
class Case:
    """What one execution is made of.

    Attributes:
        target: the name of the target that it is for.
        knobs: settings, small numbers that are never negative; those that lack are 0.
        choices: what is decided while it runs, likewise.
        pieces: octets in the order in which they are handed over.
    """

    target: str
    knobs: tuple[int, ...] = ()
    choices: tuple[int, ...] = ()
    pieces: tuple[bytes, ...] = ()

    def knob(self, place: int, values: int) -> int:
        """Return one of ``values`` numbers from 0."""
        return self.knobs[place] % values if place < len(self.knobs) else 0

    @property
    def size(self) -> int:
        """Octets in all pieces."""
        return sum(map(len, self.pieces))

    def text(self) -> str:
        """Return the file that holds it."""
        lines = [f"target {self.target}"]
        for name, numbers in (("knobs", self.knobs), ("choices", self.choices)):
            if numbers:
                lines.append(" ".join([name, *map(str, numbers)]))
        lines += [f"> {_escaped(piece)}" for piece in self.pieces]
        return "\n".join(lines) + "\n"

    @classmethod
    def parse(cls, text: str) -> Case:
        """Return the case that a file holds; lines that begin with ``#`` are comments.

        Raises:
            Unreadable: it holds none.
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
    # Line ends, what is not printable ASCII, and a space that nobody would see are escaped.
    text = octets.decode("latin-1").encode("unicode_escape").decode("ascii")
    return text[:-1] + "\\x20" if text.endswith(" ") else text


def _octets(text: str) -> bytes:
    return text.encode("ascii").decode("unicode_escape").encode("latin-1")
