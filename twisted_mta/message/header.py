"""The header section of a message (RFC 5322 §2.1), read as far as an MTA needs to.

Pure. The content stays as it was received; fields that we add are kept beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

# RFC 5322 §3.6.7 with the white space that §4.5.7 (obs-received) allows before the colon: some
# program on the way may count the field in that form, so we do. Lower case: see `feed`.
_RECEIVED = re.compile(rb"\r\nreceived[ \t]*:")

_LINE = 1000  # octets of a line with its CR LF, RFC 5321 §4.5.3.1.6

# RFC 9228 (`message.trace.passed`). It ends where a line follows that does not begin with
# white space; `_OPEN_DELIVERED_TO` is one of which that is not known yet.
_NAME = b"\r\ndelivered-to"
_DELIVERED_TO = re.compile(
    _NAME + rb"[ \t]*:([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)(?=\r\n[^ \t])", re.IGNORECASE
)
_OPEN_DELIVERED_TO = re.compile(
    _NAME + rb"[ \t]*:([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)\r?\n?", re.IGNORECASE
)
# A hundred hops at most (`IntakePolicy.max_hops`), and few hosts write more than one or two.
_MOST_DELIVERED_TO = 500

_FOLD = re.compile(rb"\r?\n(?=[ \t])")
_LINE_END = re.compile(rb"\r?\n")
_EMPTY_LINE = re.compile(rb"\n(?=\r?\n(?![ \t]))")
_LAST_LINE_END = re.compile(rb"\r?\n(?![ \t])")
_COLON = rb"(?:[ \t]++|\r?\n[ \t])*+:"
_LONGEST_VALUE = 16_384
# RFC 5322 §2.2: field-name = 1*ftext (printable ASCII but the colon), and obsolete white space.
_FIELD = re.compile(rb"([\x21-\x39\x3b-\x7e]+)[ \t]*:(.*)", re.DOTALL)


class HeaderScanner:
    """Measures the header section of a message while its content streams by.

    Attributes:
        received: how many Received fields there are so far: the hops (RFC 5321 §6.3).
        size: octets of the header section so far, without the empty line that ends it.
        is_ascii: whether all of that is ASCII.
        ended: whether that line was seen; nothing changes any more after it.
    """

    __slots__ = ("_carry", "_delivered_to", "ended", "is_ascii", "received", "size")

    def __init__(self) -> None:
        self.received = 0
        self.size = 0
        self.is_ascii = True
        self.ended = False
        # What the next chunk may complete. Before the content stands a line end that is not there,
        # so that the first line begins like every other, and the empty line may be the first.
        self._carry = b"\r\n"
        self._delivered_to: dict[bytes, None] = {}

    @property
    def delivered_to(self) -> Sequence[bytes]:
        """What the Delivered-To fields say, as it was written, each once; up to 500 of them."""
        found = list(self._delivered_to)
        if last := _OPEN_DELIVERED_TO.fullmatch(self._carry):
            found.append(last[1])
        return found

    def feed(self, chunk: bytes) -> None:
        """Take the next piece of the content, however it was cut."""
        if self.ended:
            return
        text = self._carry + chunk
        start = self.size - len(self._carry)
        end = text.find(b"\r\n\r\n")
        if end >= 0:
            self.ended = True
            self.size = start + end + 2
            # The end of the last field is where another line begins.
            section, behind = text[: end + 2].lower(), text[: end + 3]
        else:
            self.size = start + len(text)
            section, behind = text.lower(), text
        if self.is_ascii and not section.isascii():
            self.is_ascii = False
        if b"\r\nreceived" in section:
            self.received += len(_RECEIVED.findall(section))
        open_field = b""
        if _NAME in section:
            self._keep_delivered_to(behind)
            open_field = b"" if self.ended else text[section.rfind(_NAME) :]
        if open_field and len(open_field) <= _LINE and _OPEN_DELIVERED_TO.fullmatch(open_field):
            self._carry = open_field
        else:
            self._carry = b"" if self.ended else _unfinished(text)

    def _keep_delivered_to(self, text: bytes) -> None:
        for found in _DELIVERED_TO.finditer(text):
            if len(self._delivered_to) == _MOST_DELIVERED_TO:
                return
            if len(found[1]) <= _LINE:
                self._delivered_to[found[1]] = None


def _unfinished(text: bytes) -> bytes:
    """Return the end of ``text`` in which a field name or the empty line may not be complete."""
    line = text[max(0, text.rfind(b"\r\n")) :]
    # Of a line whose name is counted, or can be none, only a CR matters that begins its end.
    if len(line) > _LINE or not line.startswith(b"\r\n") or _RECEIVED.match(line.lower()):
        return line[-1:]
    return line


def fields(header: bytes) -> Iterator[tuple[str, str]]:
    r"""Yield (name, value) of the fields in ``header``, in order, until the empty line.

    Values are unfolded (RFC 5322 §2.2.3) and stripped; octets that are not UTF-8 become U+FFFD.
    Both are what a stranger wrote: escape them before they go anywhere. Lines that are no field are
    left out, and a line may end in LF alone.
    """
    for line in _LINE_END.split(_FOLD.sub(b"", header)):
        if not line:
            return
        found = _FIELD.match(line)
        if found:
            yield found[1].decode("ascii"), found[2].decode("utf-8", "replace").strip()


def values(section: bytes, name: str) -> Iterator[str]:
    """Yield the values of the fields called ``name`` (in any case) of a header section.

    They are as `fields` has them, but cut off at 16 KiB. Other fields cost next to nothing, however
    many there are.
    """
    section = b"\n" + section
    start = re.compile(b"\n" + re.escape(name.lower().encode("ascii")) + _COLON)
    for found in start.finditer(section.lower()):
        value = section[found.end() : found.end() + _LONGEST_VALUE]
        last = _LAST_LINE_END.search(value)
        value = _FOLD.sub(b"", value[: last.start()] if last else value)
        yield value.decode("utf-8", "replace").strip()


def field(header: bytes, name: str) -> str | None:
    """Return the value of the first field called ``name`` (in any case), or None.

    It is looked for up to the empty line, and cut off at 16 KiB.
    """
    end = _EMPTY_LINE.search(b"\n" + header)
    return next(values(header[: end.start()] if end else header, name), None)
