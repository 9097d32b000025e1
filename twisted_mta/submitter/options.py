"""The options of sendmail, as programs use them."""

from __future__ import annotations

from collections.abc import Sequence

# Options with an argument, in the same word or the next one.
_WITH_VALUE = "BCFfhLNoOprRVX"
# Options whose argument, if any, stands in the same word.
_ATTACHED = "AbdeqQ"
_FLAGS = "GimnstUvx"
_EVENTS = ("SUCCESS", "FAILURE", "DELAY")
_MODES = {"m": "submit", "s": "smtp", "p": "list", "i": "aliases"}


class UsageError(Exception):
    """An option cannot be used; the text says why."""


class Options:
    """The command line.

    Args:
        words: the arguments.

    Attributes:
        mode: ``submit``, ``smtp``, ``list`` or ``aliases``, or ``nothing`` for ``-q``.
        recipients: the addresses among the arguments.
        from_header: whether the header names recipients (``-t``).
        dot_ends: whether a line with a single dot ends the message: not with ``-i``.
        sender: of ``-f`` or ``-r``; None: the user's address.
        name: the sender's full name; empty: the user's.
        notify: as NOTIFY (RFC 3461 §4.1); empty: the default.
        returned: as RET; empty: the default.
        envelope_id: of ``-V``.
        config: the settings file of ``-C``; empty: the usual one.
        verbose: whether to say what happens.

    Raises:
        UsageError: an option cannot be used.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.mode = "submit"
        self.recipients: list[str] = []
        self.from_header = False
        self.dot_ends = True
        self.sender: str | None = None
        self.name = ""
        self.notify = ""
        self.returned = ""
        self.envelope_id = ""
        self.config = ""
        self.verbose = False
        left = list(reversed(words))
        while left:
            word = left.pop()
            if word == "--":
                self.recipients += reversed(left)
                break
            if not word.startswith("-") or word == "-":
                left.append(word)
                # An address that looks like an option was probably made by another person than the
                # author of the command line.
                if any(each.startswith("-") for each in left):
                    raise UsageError("found an option behind an address, expected options first")
                self.recipients += reversed(left)
                break
            self._read(word[1:], left)

    def _read(self, letters: str, left: list[str]) -> None:
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in _FLAGS:
                self._flag(letter)
            elif letter in _ATTACHED:
                self._value(letter, letters)
                return
            elif letter in _WITH_VALUE:
                if not letters and not left:
                    raise UsageError(f"-{letter}: found no value, expected one")
                self._value(letter, letters or left.pop())
                return
            else:
                raise UsageError(f"found -{letter}, expected an option of sendmail")

    def _flag(self, letter: str) -> None:
        if letter == "i":
            self.dot_ends = False
        elif letter == "t":
            self.from_header = True
        elif letter == "v":
            self.verbose = True

    def _value(self, letter: str, value: str) -> None:
        if letter in "fr":
            self.sender = value.strip()
        elif letter == "F":
            self.name = value
        elif letter == "C":
            self.config = value
        elif letter == "V":
            self.envelope_id = value
        elif letter == "b":
            if value not in _MODES:
                raise UsageError(f"found -b{value}, expected -bm, -bs, -bp or -bi")
            self.mode = _MODES[value]
        elif letter == "q":
            self.mode = "nothing"
        elif letter == "o":
            # -oi and -oem are options of long ago; all others are for a daemon.
            if value == "i" or value == "ignoredots":
                self.dot_ends = False
        elif letter == "O":
            if value.lower().replace(" ", "") in ("ignoredots=true", "ignoredots"):
                self.dot_ends = False
        elif letter == "B":
            if value.upper() not in ("7BIT", "8BITMIME"):
                raise UsageError(f"found -B {value}, expected 7BIT or 8BITMIME")
        elif letter == "R":
            if value.upper() not in ("FULL", "HDRS"):
                raise UsageError(f"found -R {value}, expected full or hdrs")
            self.returned = value.upper()
        elif letter == "N":
            self.notify = _notify(value)


def _notify(value: str) -> str:
    """Return the value of NOTIFY (RFC 3461 §4.1)."""
    events = [each.strip().upper() for each in value.split(",")]
    if events != ["NEVER"] and not all(each in _EVENTS for each in events):
        raise UsageError(f"found -N {value}, expected never, or some of success,failure,delay")
    return ",".join(dict.fromkeys(events))
