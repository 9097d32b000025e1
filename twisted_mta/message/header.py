"""Fields of a header section (RFC 5322 §2.2): names and values, read leniently."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from functools import lru_cache

_FOLD = re.compile(rb"\r?\n(?=[ \t])")
_LINE_END = re.compile(rb"\r?\n")
_EMPTY_LINE = re.compile(rb"\n(?=\r?\n(?![ \t]))")
_LAST_LINE_END = re.compile(rb"\r?\n(?![ \t])")
# The first line of a field, and all that begin with white space (RFC 5322 §2.2.3).
_RAW_FIELD = re.compile(rb"[^\n]*+\n?(?:[ \t][^\n]*+\n?)*+")
# White space before the colon, also folded; one class of octets takes a tenth of the time of two
# alternatives.
_COLON = rb"[ \t\r\n]*+(?<!\n):"
_LONGEST_VALUE = 16_384  # octets
# RFC 5322 §2.2: field-name = 1*ftext (printable ASCII but the colon), and obsolete white space.
_FIELD = re.compile(rb"([\x21-\x39\x3b-\x7e]+)[ \t]*:(.*)", re.DOTALL)


def fields(header: bytes) -> Iterator[tuple[str, str]]:
    r"""Yield (name, value) of the fields in ``header``, in order, until the empty line.

    Values are unfolded (RFC 5322 §2.2.3) and stripped; octets that are not UTF-8 become U+FFFD.
    Escape both before they go anywhere: a stranger wrote them. Lines that are no field are left
    out, and a line may end in LF alone.
    """
    for line in _LINE_END.split(_FOLD.sub(b"", header)):
        if not line:
            return
        field = _FIELD.match(line)
        if field:
            yield field[1].decode("ascii"), field[2].decode("utf-8", "replace").strip()


def values(section: bytes, name: str) -> Iterator[str]:
    """Yield the values of the fields called ``name`` (in any case) of a header section.

    They are those of `fields`, but cut off at 16 KiB. Other fields cost next to nothing, however
    many there are.
    """
    for value in value_octets(section, name):
        yield value.decode("utf-8", "replace").strip()


def value_octets(section: bytes, name: str) -> Iterator[bytes]:
    """Yield the same values as `values`, as octets: unfolded, and not stripped."""
    section = b"\n" + section
    for match in _start_of(name).finditer(section.lower()):
        value = section[match.end() : match.end() + _LONGEST_VALUE]
        last = _LAST_LINE_END.search(value)
        yield _FOLD.sub(b"", value[: last.start()] if last else value)


@lru_cache(maxsize=64)  # of the names that the program looks for
def _start_of(name: str) -> re.Pattern[bytes]:
    return re.compile(b"\n" + re.escape(name.lower().encode("ascii")) + _COLON)


def field(header: bytes, name: str) -> str | None:
    """Return the value of the first field called ``name`` (in any case); None: there is none.

    The search ends at the empty line, the value at 16 KiB.
    """
    end = _EMPTY_LINE.search(b"\n" + header)
    return next(values(header[: end.start()] if end else header, name), None)


def raw_fields(section: bytes) -> Iterator[bytes]:
    """Yield each field of a header section as it came, with the lines that continue it."""
    for match in _RAW_FIELD.finditer(section):
        if match[0]:
            yield match[0]


def raw_fields_but(section: bytes, names: Container[str]) -> Iterator[bytes]:
    """Yield what `raw_fields` does, without the fields of some names, in lower case."""
    for each in raw_fields(section):
        name = each.partition(b":")[0].rstrip(b" \t").decode("latin-1").lower()
        if name not in names:
            yield each


class Header:
    """A header section, read leniently as `fields` does.

    Names are given and compared in any case. ``bytes(header)`` is the section as it came, each
    field with its CR LF, without the empty line.
    """

    def __init__(self, section: bytes) -> None:
        self._section = section

    def __bytes__(self) -> bytes:
        return self._section

    def __getitem__(self, name: str) -> str | None:
        return next(values(self._section, name), None)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self[name] is not None

    def get_all(self, name: str) -> tuple[str, ...]:
        """Return the values of all fields with that name, in order, each cut off at 16 KiB."""
        return tuple(values(self._section, name))

    def items(self) -> tuple[tuple[str, str], ...]:
        """Return (name, value) of all fields, in order."""
        return tuple(fields(self._section))
