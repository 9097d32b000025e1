"""A scanner of the header section while a content streams by: hops, size, Delivered-To fields."""

from __future__ import annotations

import re
from collections.abc import Sequence

# RFC 5322 §3.6.7, with the white space that §4.5.7 (obs-received) allows before the colon: another
# program may count a field of that form as a hop, so it counts here. Lower case: see `feed`.
_RECEIVED = re.compile(rb"\r\nreceived[ \t]*:")

_LONGEST_LINE = 1000  # octets with the CR LF, RFC 5321 §4.5.3.1.6

# RFC 9228 (`message.delivery_fields`). A field ends before a line that does not begin with white
# space; `_OPEN_DELIVERED_TO` is one whose end is still unknown.
_NAME = b"\r\ndelivered-to"
_DELIVERED_TO = re.compile(
    _NAME + rb"[ \t]*:([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)(?=\r\n[^ \t])", re.IGNORECASE
)
_OPEN_DELIVERED_TO = re.compile(
    _NAME + rb"[ \t]*:([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)\r?\n?", re.IGNORECASE
)
# A message has a hundred hops at most (`IntakePolicy.max_hops`), and a host rarely writes more than
# one or two of these fields.
_MOST_DELIVERED_TO = 500


class HeaderScanner:
    """The properties of a header section, from a content in chunks cut anywhere.

    Attributes:
        hops: the number of Received fields so far (RFC 5321 §6.3).
        size: octets of the header section so far, without the empty line behind it.
        is_ascii: Whether it is ASCII so far.
        ended: Whether the empty line was seen; nothing changes after it.
    """

    __slots__ = ("_carry", "_delivered_to", "ended", "hops", "is_ascii", "size")

    def __init__(self) -> None:
        self.hops = 0
        self.size = 0
        self.is_ascii = True
        self.ended = False
        # The octets that the next chunk may complete. It starts as a line end before the content,
        # so that the first line begins like any other, even if it is the empty line.
        self._carry = b"\r\n"
        self._delivered_to: dict[bytes, None] = {}

    @property
    def delivered_to(self) -> Sequence[bytes]:
        """The values of the Delivered-To fields as received, each once; at most 500."""
        values = list(self._delivered_to)
        if last := _OPEN_DELIVERED_TO.fullmatch(self._carry):
            values.append(last[1])
        return values

    def feed(self, chunk: bytes) -> None:
        """Add the next chunk of the content."""
        if self.ended:
            return
        text = self._carry + chunk
        start = self.size - len(self._carry)
        end = text.find(b"\r\n\r\n")
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
        if b"\r\nreceived" in section:
            self.hops += len(_RECEIVED.findall(section))
        open_field = b""
        if _NAME in section:
            self._keep_delivered_to(behind)
            open_field = b"" if self.ended else text[section.rfind(_NAME) :]
        if (
            open_field
            and len(open_field) <= _LONGEST_LINE
            and _OPEN_DELIVERED_TO.fullmatch(open_field)
        ):
            self._carry = open_field
        else:
            self._carry = b"" if self.ended else _unfinished(text)

    def _keep_delivered_to(self, text: bytes) -> None:
        for field in _DELIVERED_TO.finditer(text):
            if len(self._delivered_to) == _MOST_DELIVERED_TO:
                return
            if len(field[1]) <= _LONGEST_LINE:
                self._delivered_to[field[1]] = None


def _unfinished(text: bytes) -> bytes:
    """Return the end of ``text`` in which a field name or the empty line may be incomplete."""
    line = text[max(0, text.rfind(b"\r\n")) :]
    # Of a line whose name was counted, or is none, only a CR matters that may begin its end.
    if len(line) > _LONGEST_LINE or not line.startswith(b"\r\n") or _RECEIVED.match(line.lower()):
        return line[-1:]
    return line
