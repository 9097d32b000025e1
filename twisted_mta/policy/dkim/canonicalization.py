"""Canonicalization (RFC 6376 §3.4): header fields, and bodies while they stream by."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, Protocol

Canonicalization = Literal["simple", "relaxed"]

# Up to a CR LF that no white space follows.
_FIELD = re.compile(rb"(?:[^\r]++|\r(?!\n(?![ \t])))++(?:\r\n)?+|\r\n")
# RFC 5322 §4.5 allows it before the colon; a fold may be in it, which is removed first (§3.4.2).
_WHITE_SPACE = b" \t\r\n"
_TABS = bytes.maketrans(b"\t", b" ")


def split_fields(section: bytes) -> list[bytes]:
    """Return the fields of a header section as they came, each with all its lines and CR LF.

    Args:
        section: without the empty line behind the header.
    """
    return _FIELD.findall(section)


def field_name(field: bytes) -> bytes:
    """Return the name of a raw field in lower case, which is how names are compared."""
    name, colon, _ = field.partition(b":")
    return name.rstrip(_WHITE_SPACE).lower() if colon else b""


def relaxed_field(field: bytes) -> bytes:
    """Return the relaxed form of a raw field, with its CR LF (RFC 6376 §3.4.2)."""
    name, _, value = field.partition(b":")
    value = _one_space(value.replace(b"\r\n", b"")).strip(b" ")
    return b"%b:%b\r\n" % (name.rstrip(_WHITE_SPACE).lower(), value)


def relaxed_fields(section: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name of each field, in lower case, and its relaxed form; as `split_fields` does.

    It is the form of `relaxed_field`, for less. A field without a colon has no name.

    Args:
        section: without the empty line behind the header.
    """
    unfolded = section.replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ")
    lines = _one_space(unfolded).split(b"\r\n")
    if not lines[-1]:
        lines.pop()
    for line in lines:
        name, colon, value = line.partition(b":")
        name = name.rstrip(_WHITE_SPACE).lower()
        yield name if colon else b"", b"%b:%b\r\n" % (name, value.strip(b" "))


def _one_space(text: bytes) -> bytes:
    """Return ``text`` with every run of spaces and tabs as one space."""
    text = text.translate(_TABS)
    # Each pass halves the runs. It is several times faster than a regular expression.
    while b"  " in text:
        text = text.replace(b"  ", b" ")
    return text


def relaxed_body(body: bytes) -> bytes:
    """Return the relaxed form of a whole body (RFC 6376 §3.4.4), as signatures cover it."""
    text = _one_space(body).replace(b" \r\n", b"\r\n").removesuffix(b" ")
    end = content_end(text)
    return text[:end] + b"\r\n" if end else b""


class BodyCanonicalizer(Protocol):
    """The canonical form of a body that comes in pieces, cut anywhere.

    Empty lines at the end are left in: they are known only when the body has ended. No piece ends
    within a CR LF, and at most two octets are held back.
    """

    def feed(self, piece: bytes) -> bytes:
        """Return the canonical octets that ``piece`` completes."""
        ...

    def finish(self) -> bytes:
        """Return what is held back at the end of the body."""
        ...


class SimpleBody:
    """The body as it is (RFC 6376 §3.4.3)."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""  # or a CR

    def feed(self, piece: bytes) -> bytes:
        """Return the canonical octets that ``piece`` completes."""
        text = self._held + piece if self._held else piece
        if not text.endswith(b"\r"):
            self._held = b""
            return text
        self._held = b"\r"
        return text[:-1]

    def finish(self) -> bytes:
        """Return what is held back at the end of the body."""
        return self._held


class RelaxedBody:
    """White space as one space, and none at the end of a line (RFC 6376 §3.4.4)."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""  # or a space, a CR, or both

    def feed(self, piece: bytes) -> bytes:
        """Return the canonical octets that ``piece`` completes."""
        text = _one_space(self._held + piece if self._held else piece)
        end = len(text)
        if text.endswith(b"\r"):
            end -= 1
        if text.endswith(b" ", 0, end):
            end -= 1
        self._held = text[end:]
        return text[:end].replace(b" \r\n", b"\r\n")

    def finish(self) -> bytes:
        """Return what is held back at the end of the body."""
        return b"" if self._held == b" " else self._held


def body_canonicalizer(canonicalization: Canonicalization) -> BodyCanonicalizer:
    """Return a new canonicalizer for one body."""
    return RelaxedBody() if canonicalization == "relaxed" else SimpleBody()


def content_end(text: bytes) -> int:
    """Return where the line ends (CR LF) begin that end ``text``."""
    content = len(text.rstrip(b"\r\n"))
    count, odd = divmod(len(text) - content, 2)
    if not odd and text.endswith(b"\r\n" * count):
        return content
    # Only some of these CR and LF are pairs. NUL takes the place of each pair.
    tail = text[content:].replace(b"\r\n", b"\0")
    pairs = len(tail) - len(tail.rstrip(b"\0"))
    return len(text) - 2 * pairs
