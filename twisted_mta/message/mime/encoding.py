"""Quoted-printable and base64 (RFC 2045 §6.7, §6.8), encoded while the octets stream by."""

from __future__ import annotations

import re
from binascii import b2a_base64, b2a_qp
from typing import Protocol

_CHARACTERS = 76  # of a line, at most
_OCTETS = 57  # that make a line of base64
_TOO_LONG = re.compile(rb"^([^\r\n]{74,75})(=(?:20|09)\r)$", re.MULTILINE)
_DASHED_TOO_LONG = re.compile(rb"\n=2D-([^\r\n]{73,})")
# Quoted-printable makes 3 octets of 1, base64 4 of 3: with more than one octet in six over 127,
# quoted-printable is longer, and no easier to read.
_MOSTLY_ASCII = 6
_LONGEST_LINE = 4096  # octets of a line that are encoded at a time


def is_mostly_ascii(octets: int, high: int) -> bool:
    """Whether quoted-printable suits ``octets`` octets of which ``high`` are over 127."""
    return high * _MOSTLY_ASCII <= octets


class Encoder(Protocol):
    """An encoder of the octets of one body."""

    @property
    def octets(self) -> int:
        """The number of octets whose encoded form was returned."""
        ...

    def feed(self, octets: bytes) -> bytes:
        """Add octets; return the encoded form as far as it is certain."""
        ...

    def end(self) -> bytes:
        """Return the rest of the encoded form."""
        ...

    @property
    def line_end(self) -> bytes:
        """The end of the last line where no delimiter follows; it adds nothing to the body."""
        ...


class Base64:
    """Base64 in lines of 76 characters; the last has no line end, as a delimiter brings one."""

    def __init__(self) -> None:
        self.octets = 0
        self._rest = b""

    def feed(self, octets: bytes) -> bytes:
        """Add octets; return the full lines."""
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
        """The end of the last line."""
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
    """Quoted-printable. Line ends stay line ends; CR and LF outside them are encoded.

    No encoded line begins with two dashes, like a delimiter (RFC 2046 §5.1.1), not even the second
    part of a long line.
    """

    def __init__(self) -> None:
        self.octets = 0
        self._broken = False
        self._line = b""  # the beginning of a line, not yet encoded

    def feed(self, octets: bytes) -> bytes:
        """Add octets; return the complete lines."""
        octets = self._line + octets
        end = octets.rfind(b"\r\n") + 2
        if end >= 2:
            lines, self._line = octets[:end], octets[end:]
            return self._quoted(lines)
        self._line = octets
        if len(octets) <= _LONGEST_LINE:
            return b""
        # The last octet may be the CR of a line end.
        self._line = octets[-1:]
        return _open(self._quoted(octets[:-1])) + b"=\r\n"

    def end(self) -> bytes:
        """Return the last line, which has no line end."""
        line, self._line = self._line, b""
        self._broken = bool(line)
        return _open(self._quoted(line))

    @property
    def line_end(self) -> bytes:
        """The end of the last line: nothing after a line end, else a soft line break."""
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
    # Python ends soft line breaks like the first line end; without one, in LF alone.
    encoded = encoded.replace(b"=\n", b"=\r\n")
    if b"=20\r" in encoded or b"=09\r" in encoded:
        # Python encodes white space at the end of a line even where the line has no room for it.
        encoded = _TOO_LONG.sub(rb"\1=\r\n\2", encoded)
    return _without_dashes(encoded)


def _without_dashes(encoded: bytes) -> bytes:
    """Return encoded lines so that none begins with two dashes."""
    if b"--" not in encoded:
        return encoded
    return _DASHED_TOO_LONG.sub(_broken, (b"\n" + encoded).replace(b"\n--", b"\n=2D-"))[1:]


def _broken(match: re.Match[bytes]) -> bytes:
    rest = match[1]
    return b"\n=2D-=\r\n" + (b"=2D" + rest[1:] if rest.startswith(b"--") else rest)


def _open(encoded: bytes) -> bytes:
    """Return encoded text whose last line has room for the ``=`` of a soft line break."""
    start = encoded.rfind(b"\n") + 1
    if len(encoded) - start < _CHARACTERS:
        return encoded
    position = start + _CHARACTERS - 3
    while b"=" in encoded[position - 2 : position]:  # not inside the characters of one octet
        position -= 1
    return encoded[:position] + b"=\r\n" + _without_dashes(encoded[position:])
