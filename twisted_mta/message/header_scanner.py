"""A scanner of the header section while a content streams by: hops, size, two kinds of fields."""

from __future__ import annotations

import re
from collections.abc import Sequence

from attrs import frozen

# RFC 5322 §3.6.7, with the white space that §4.5.7 (obs-received) allows before the colon: another
# program may count a field of that form as a hop, so it counts here. Lower case: see `feed`.
_RECEIVED = re.compile(rb"\r\nreceived[ \t]*:")

_EMPTY_LINE = b"\r\n\r\n"  # with the line end before it

_LONGEST_LINE = 1000  # octets with the CR LF, RFC 5321 §4.5.3.1.6


@frozen(eq=False)
class _Tracked:
    """A field whose values are kept.

    A field ends before a line that does not begin with white space; ``open`` is one whose end is
    still unknown.
    """

    start: bytes
    whole: re.Pattern[bytes]
    open: re.Pattern[bytes]

    @classmethod
    def named(cls, name: bytes) -> _Tracked:
        start = b"\r\n" + name
        value = start + rb"[ \t]*:([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)"
        return cls(
            start,
            re.compile(value + rb"(?=\r\n[^ \t])", re.IGNORECASE),
            re.compile(value + rb"\r?\n?", re.IGNORECASE),
        )


_DELIVERED_TO = _Tracked.named(b"delivered-to")  # RFC 9228 (`message.delivery_fields`)
_TLS_REQUIRED = _Tracked.named(b"tls-required")  # RFC 8689 §3
_TRACKED = (_DELIVERED_TO, _TLS_REQUIRED)

# A message has a hundred hops at most (`IntakePolicy.max_hops`), and a host rarely writes more than
# one or two of these fields.
_MOST_VALUES = 500


class HeaderScanner:
    """The properties of a header section, from a content in chunks cut anywhere.

    Attributes:
        hops: the number of Received fields so far (RFC 5321 §6.3).
        size: octets of the header section so far, without the empty line behind it.
        is_ascii: Whether it is ASCII so far.
        ended: Whether the empty line was seen; nothing changes after it.
    """

    __slots__ = ("_carry", "_values", "ended", "hops", "is_ascii", "size")

    def __init__(self) -> None:
        self.hops = 0
        self.size = 0
        self.is_ascii = True
        self.ended = False
        # The octets that the next chunk may complete. It starts as a line end before the content,
        # so that the first line begins like any other, even if it is the empty line.
        self._carry = b"\r\n"
        self._values: dict[_Tracked, dict[bytes, None]] = {}

    @property
    def delivered_to(self) -> Sequence[bytes]:
        """The values of the Delivered-To fields as received, each once; at most 500."""
        return self._values_of(_DELIVERED_TO)

    @property
    def tls_optional(self) -> bool:
        """Whether there is ``TLS-Required: No`` (RFC 8689 §3), and no field that contradicts it."""
        values = self._values_of(_TLS_REQUIRED)
        return len(values) == 1 and values[0].strip().lower() == b"no"

    def _values_of(self, field: _Tracked) -> Sequence[bytes]:
        if not self._values and not self._carry:
            return ()  # nearly always
        values = dict(self._values.get(field, {}))
        if self._carry and (last := field.open.fullmatch(self._carry)):
            values[last[1]] = None
        return list(values)

    def feed(self, chunk: bytes) -> None:
        """Add the next chunk of the content."""
        if self.ended:
            return
        empty_line = chunk.find(_EMPTY_LINE)
        if empty_line >= 0:  # the header ends there or, across the chunks, earlier
            chunk = chunk[: empty_line + len(_EMPTY_LINE)]
        text = self._carry + chunk
        start = self.size - len(self._carry)
        end = text.find(_EMPTY_LINE)
        if end >= 0:
            self.ended = True
            self.size = start + end + 2
            # The last field ends where the empty line begins.
            section, behind = text[: end + 2].lower(), text[: end + 3]
        else:
            self.size = start + len(text)
            section, behind = text.lower(), text
        if self.is_ascii and not section.isascii():
            self.is_ascii = False
        # Not `in`, which takes three times as long for octets: it raises, and drops, an exception.
        if section.find(b"\r\nreceived") >= 0:
            self.hops += len(_RECEIVED.findall(section))
        found = [field for field in _TRACKED if section.find(field.start) >= 0]
        for field in found:
            self._keep(field, behind)
        if self.ended:
            self._carry = b""
        else:
            self._carry = _open_field(found, section, text) or _unfinished(text)

    def _keep(self, field: _Tracked, text: bytes) -> None:
        values = self._values.setdefault(field, {})
        for match in field.whole.finditer(text):
            if len(values) == _MOST_VALUES:
                return
            if len(match[1]) <= _LONGEST_LINE:
                values[match[1]] = None


def _open_field(found: Sequence[_Tracked], section: bytes, text: bytes) -> bytes:
    """Return the end of ``text`` where it is a field of ``found`` that may go on; else b""."""
    for field in found:
        last = text[section.rfind(field.start) :]
        if len(last) <= _LONGEST_LINE and field.open.fullmatch(last):
            return last
    return b""


def _unfinished(text: bytes) -> bytes:
    """Return the end of ``text`` in which a field name or the empty line may be incomplete."""
    line = text[max(0, text.rfind(b"\r\n")) :]
    # Of a line whose name was counted, or is none, only a CR matters that may begin its end.
    if len(line) > _LONGEST_LINE or not line.startswith(b"\r\n") or _RECEIVED.match(line.lower()):
        return line[-1:]
    return line
