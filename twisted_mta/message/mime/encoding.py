"""The content transfer encodings that make 7 bits of 8 (RFC 2045 §6.7, §6.8), as octets stream by.

Pure.
"""

from __future__ import annotations

import re
from binascii import b2a_base64, b2a_qp
from typing import Protocol

_OCTETS = 57  # of a line of base64: 76 characters, the most there may be
_CHARACTERS = 76
_TOO_LONG = re.compile(rb"^([^\r\n]{74,75})(=(?:20|09)\r)$", re.MULTILINE)
_DASHED_TOO_LONG = re.compile(rb"\n=2D-([^\r\n]{73,})")
# Quoted-printable makes 3 octets of 1, base64 4 of 3: with more octets over 127 than this it is
# the longer one, and no easier to read either.
_MOSTLY_ASCII = 6
_LONGEST_LINE = 4096  # octets of a line that are encoded at a time


def is_mostly_ascii(octets: int, high: int) -> bool:
    """Whether of so many octets so few are over 127 that quoted-printable is the one for them."""
    return high * _MOSTLY_ASCII <= octets


class Encoder(Protocol):
    """Encodes the octets of one body."""

    @property
    def octets(self) -> int:
        """How many of them are in what was returned."""
        ...

    def feed(self, octets: bytes) -> bytes:
        """Return as much as is known of the encoded form of what came so far."""
        ...

    def end(self) -> bytes:
        """Return the rest of it."""
        ...

    @property
    def line_end(self) -> bytes:
        """What ends the last line where no delimiter does; it adds nothing to the body."""
        ...


class Base64:
    """Lines of 76 characters, the last one without a line end: what follows brings it."""

    def __init__(self) -> None:
        self.octets = 0
        self._rest = b""

    def feed(self, octets: bytes) -> bytes:
        """Return the lines that are full."""
        octets = self._rest + octets
        whole = len(octets) // _OCTETS * _OCTETS
        self._rest = octets[whole:]
        return self._lines(octets[:whole])

    def end(self) -> bytes:
        """Return the last line."""
        rest, self._rest = self._rest, b""
        return self._lines(rest)

    @property
    def line_end(self) -> bytes:
        """What ends the last line."""
        return b"\r\n"

    def _lines(self, octets: bytes) -> bytes:
        if not octets:
            return b""
        encoded = b2a_base64(octets, newline=False)
        start = b"\r\n" if self.octets else b""
        self.octets += len(octets)
        return start + b"\r\n".join(
            encoded[at : at + _CHARACTERS] for at in range(0, len(encoded), _CHARACTERS)
        )


class QuotedPrintable:
    """Line ends stay what they are; CR and LF outside them are encoded.

    No line of it begins with two dashes, so that none can be taken for a delimiter (RFC 2046
    §5.1.1): not even where a long line is broken before them.
    """

    def __init__(self) -> None:
        self.octets = 0
        self._broken = False
        self._line = b""  # the beginning of a line, not encoded yet

    def feed(self, octets: bytes) -> bytes:
        """Return the lines that are complete."""
        octets = self._line + octets
        end = octets.rfind(b"\r\n") + 2
        if end >= 2:
            lines, self._line = octets[:end], octets[end:]
            return self._quoted(lines)
        self._line = octets
        if len(octets) <= _LONGEST_LINE:
            return b""
        # Its last octet may be the CR of a line end.
        self._line = octets[-1:]
        return _open(self._quoted(octets[:-1])) + b"=\r\n"

    def end(self) -> bytes:
        """Return the last line, which has no line end."""
        line, self._line = self._line, b""
        self._broken = bool(line)
        return _open(self._quoted(line))

    @property
    def line_end(self) -> bytes:
        """What ends the last line: nothing, where that has its end; else a soft line break."""
        return b"=\r\n" if self._broken else b""

    def _quoted(self, octets: bytes) -> bytes:
        self.octets += len(octets)
        return _quoted(octets)


def _quoted(octets: bytes) -> bytes:
    breaks = octets.count(b"\r\n")
    if octets.count(b"\r") == breaks == octets.count(b"\n"):
        encoded = b2a_qp(octets, istext=True)
    else:
        lines = [line and b2a_qp(line, istext=False) for line in octets.split(b"\r\n")]
        encoded = b"\r\n".join(lines)
    # Soft line breaks are of the kind of the first line end; without any they are mere LF.
    encoded = encoded.replace(b"=\n", b"=\r\n")
    if b"=20\r" in encoded or b"=09\r" in encoded:
        # White space at the end of a line is encoded when there may be no room for that any more.
        encoded = _TOO_LONG.sub(rb"\1=\r\n\2", encoded)
    return _without_dashes(encoded)


def _without_dashes(encoded: bytes) -> bytes:
    """Return encoded lines none of which begins with two dashes."""
    if b"--" not in encoded:
        return encoded
    return _DASHED_TOO_LONG.sub(_broken, (b"\n" + encoded).replace(b"\n--", b"\n=2D-"))[1:]


def _broken(found: re.Match[bytes]) -> bytes:
    rest = found[1]
    return b"\n=2D-=\r\n" + (b"=2D" + rest[1:] if rest.startswith(b"--") else rest)


def _open(encoded: bytes) -> bytes:
    """Return encoded text whose last line has room for the ``=`` of a soft line break."""
    start = encoded.rfind(b"\n") + 1
    if len(encoded) - start < _CHARACTERS:
        return encoded
    at = start + _CHARACTERS - 3
    while b"=" in encoded[at - 2 : at]:  # never within the three characters of one octet
        at -= 1
    return encoded[:at] + b"=\r\n" + _without_dashes(encoded[at:])
