"""What octets demand of a transport: 8 bits, bare CR or LF, NUL, long lines."""

from __future__ import annotations

import codecs

from attrs import define, field

_ASCII = bytes(range(128))
_LONGEST_LINE = 998  # octets without CR LF, RFC 5322 §2.1.1


@define
class Measure:
    """The properties of octets that arrive in chunks cut anywhere.

    Attributes:
        octets: the number of octets.
        high: the number of octets over 127.
        bare: Whether there is a NUL, or a CR or LF outside a line end.
        long: Whether a line has more than 998 octets.
        utf8: Whether the octets are UTF-8.
    """

    octets: int = 0
    high: int = 0
    bare: bool = False
    long: bool = False
    utf8: bool = True
    _decoder: codecs.IncrementalDecoder = field(
        factory=lambda: codecs.getincrementaldecoder("utf-8")()
    )
    _carry: bytes = b""  # a CR that may begin a line end
    _line: int = 0  # octets of the last, unfinished line

    @property
    def faulty(self) -> bool:
        """Whether the octets are anything but ASCII in lines."""
        return self.bare or self.high > 0

    def feed(self, octets: bytes) -> None:
        """Add the next octets."""
        self.octets += len(octets)
        if not octets.isascii():
            self.high += len(octets.translate(None, _ASCII))
        if self.utf8 and self.high:
            self._decode(octets)
        octets = self._carry + octets
        self._carry = b""
        if octets.endswith(b"\r"):
            octets, self._carry = octets[:-1], b"\r"
        self._measure_lines(octets)

    def end(self) -> Measure:
        """Finish: no octets follow. Return the measure itself."""
        self._measure_lines(self._carry)
        self._carry = b""
        if self.utf8 and self.high:
            self._decode(b"", final=True)
        return self

    def _decode(self, octets: bytes, *, final: bool = False) -> None:
        try:
            self._decoder.decode(octets, final)
        except UnicodeDecodeError:
            self.utf8 = False

    def _measure_lines(self, octets: bytes) -> None:
        breaks = octets.count(b"\r\n")
        if octets.count(b"\r") != breaks or octets.count(b"\n") != breaks or b"\0" in octets:
            self.bare = True
        if self.long:
            return
        if not breaks:
            self._line += len(octets)
            self.long = self._line > _LONGEST_LINE
            return
        first, last = octets.find(b"\r\n"), octets.rfind(b"\r\n")
        before, self._line = self._line + first, len(octets) - last - 2
        self.long = max(before, self._line) > _LONGEST_LINE or _has_long_line(octets, first, last)


def _has_long_line(octets: bytes, first: int, last: int) -> bool:
    """Whether a line between the line ends at ``first`` and ``last`` is too long."""
    position = first
    while position < last:
        # The last line end within reach; most lines are short, so the strides are long.
        stride = octets.rfind(b"\r\n", position + 1, position + _LONGEST_LINE + 4)
        if stride < 0:
            return True
        position = stride
    return False
