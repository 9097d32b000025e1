"""Transfer encodings (RFC 2045 §6), undone while the octets stream by; what is wrong is skipped."""

from __future__ import annotations

import re
from binascii import Error, a2b_base64, a2b_qp, a2b_uu
from collections.abc import Iterable, Iterator

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_NOT_BASE64 = bytes(sorted(frozenset(range(256)) - frozenset(_ALPHABET)))
_LONGEST_LINE = 65_536  # octets that are kept until a line ends
_UU_BEGIN = re.compile(rb"begin(?:-base64)? [0-7]{3,4} ")


def decoded_chunks(encoding: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the content of a body, of which ``chunks`` are the encoded octets.

    Args:
        encoding: ``base64``, ``quoted-printable``, ``x-uuencode`` or one of its other names, in
            lower case. With any other the octets are yielded as they are.
        chunks: cut anywhere.
    """
    match encoding:
        case "base64":
            return _base64(chunks)
        case "quoted-printable":
            return _quoted_printable(chunks)
        case "x-uuencode" | "uuencode" | "x-uue" | "uue":
            return _uuencode(chunks)
    return iter(chunks)


def _base64(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Decode base64; octets outside the alphabet are ignored, and padding ends it (§6.8)."""
    rest = b""
    for chunk in chunks:
        text = rest + chunk.translate(None, _NOT_BASE64)
        end = text.find(b"=")
        if end >= 0 and end % 4 < 2:  # no padding there
            text = text.replace(b"=", b"")
            end = -1
        whole = len(text) // 4 * 4 if end < 0 else end
        rest = text[whole:]
        if end >= 0:
            yield from _last_base64(text[:end])
            return
        if whole:
            yield a2b_base64(text[:whole])
    yield from _last_base64(rest)


def _last_base64(text: bytes) -> Iterator[bytes]:
    # One character alone is less than an octet.
    text = text[: len(text) - (len(text) % 4 == 1)]
    if text:
        yield a2b_base64(text + b"=" * (-len(text) % 4))


def _quoted_printable(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Decode quoted-printable (§6.7)."""
    rest = b""
    for chunk in chunks:
        text = rest + chunk
        whole = text.rfind(b"\n") + 1
        if not whole and len(text) > _LONGEST_LINE:
            # Not inside the characters of one octet, nor in a soft line break.
            whole = len(text) - 3
            equals = text.rfind(b"=", whole - 3, whole)
            whole = equals if equals > 0 else whole
        rest = text[whole:]
        if whole:
            yield a2b_qp(text[:whole])
    if rest:
        yield a2b_qp(rest)


def _uuencode(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Decode uuencoded lines between ``begin`` and ``end``; without ``begin``, decode nothing."""
    begun = False
    for line in _lines(chunks):
        if not begun:
            begun = bool(_UU_BEGIN.match(line))
        elif line.rstrip() == b"end":
            return
        elif octets := _uu_line(line):
            yield octets


def _uu_line(line: bytes) -> bytes:
    try:
        octets = a2b_uu(line)
    except Error:
        # Some encoders write more than the length at the beginning of the line says.
        try:
            octets = a2b_uu(line[: ((line[0] - 32 & 63) * 4 + 5) // 3])
        except Error:
            return b""
    # Python fills a short line up with zeros. A content must not be larger than its encoded form.
    return octets[: len(line.rstrip(b"\r\n")) * 3 // 4]


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines with their ends; of a very long one, only pieces."""
    rest = b""
    for chunk in chunks:
        lines = (rest + chunk).splitlines(keepends=True)
        rest = b""
        if lines and not lines[-1].endswith(b"\n") and len(lines[-1]) <= _LONGEST_LINE:
            rest = lines.pop()
        yield from lines
    if rest:
        yield rest
