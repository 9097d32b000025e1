"""What of a message goes back to its sender in a report, and as what.

Whatever is wrong with it is mended, so that the report is a message like any other, and one that
any next hop takes.
"""

from __future__ import annotations

import re

from attrs import frozen

from ...mail.body import MemoryBody
from ...mail.message import Message
from ..mime.conversion import to_seven_bit
from ..mime.conversion_plan import CannotConvert

_WHOLE = 50 * 1024  # octets up to which a message comes back whole, as Postfix does by default
_HEADERS = 64 * 1024  # octets of the header section that come back otherwise
_MOST_ENTITIES = 100  # messages and body parts that are converted while nothing else happens

# Looked for where a line begins, not from each octet of one that is nearly as long.
LONG_LINE = re.compile(rb"(?<![^\n])[^\n]{1000,}")
"""A line of more than 998 octets (RFC 5322 §2.1.1), with its CR."""

_UNFIT = re.compile(rb"\r(?!\n)|(?<!\r)\n|\x00")
# RFC 5322 §2.2, §2.2.3: fields in order, as far as they have nothing in them that no field has.
_FIELDS = re.compile(
    rb"(?:[\x21-\x39\x3b-\x7e]+[ \t]*:[^\r\n\x00]*\r\n(?:[ \t][^\r\n\x00]*\r\n)*)*"
)


@frozen
class Returned:
    """What goes back of a message.

    Attributes:
        content: with CR LF line ends; empty where nothing can be read of it.
        whole: whether that is all of it, and not its header section alone.
    """

    content: bytes
    whole: bool

    @property
    def header(self) -> bytes:
        """Its header section, without the empty line."""
        # So that the empty line is found where it is the first.
        section = (b"\r\n" + self.content).partition(b"\r\n\r\n")[0]
        return section[2:].removesuffix(b"\r\n") + b"\r\n" if len(section) > 2 else b""

    @property
    def has_utf8_header(self) -> bool:
        """Whether its header section has other octets than ASCII, and all of it is UTF-8."""
        header = self.header
        return not header.isascii() and _is_utf8(header)

    def part(self, *, international: bool) -> tuple[str, Returned]:
        """Return the content type that it stands under, and what can stand there.

        Args:
            international: whether it may be one of RFC 6533 §4. They may have any encoding (RFC
                6532 §3.7), and message/rfc822 none (RFC 2045 §6.4): of what has 8 bits in header
                fields, or cannot be converted, no more goes back than the header section (RFC 3461
                §4.3: a sender who asks for all of it may get less).
        """
        if international and _is_utf8(self.header):
            return "message/global" if self.whole else "message/global-headers", self
        if self.whole:
            try:
                body = to_seven_bit(MemoryBody(self.content), _MOST_ENTITIES)
                return "message/rfc822", Returned(b"".join(body.chunks()), True)
            except CannotConvert:
                pass
        return "text/rfc822-headers", Returned(self.header, False)


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def returned(message: Message, *, whole: bool) -> Returned:
    """Return what goes back of a message, as octets of any kind in lines of any length.

    Args:
        message: of whatever size; its body is read.
        whole: whether more than its header section may go back.
    """
    try:
        small = len(message.trace) + message.body.size <= _WHOLE
        if whole and small and not message.envelope.binary:
            content = message.trace + b"".join(message.body.chunks())
            if not _UNFIT.search(content) and not LONG_LINE.search(content):
                return Returned(content, True)
        return Returned(_header(message), False)
    except OSError:
        return Returned(b"", False)


def _header(message: Message) -> bytes:
    """Return the header section, as much of it as goes back, whatever is wrong with it mended."""
    header = b"\r\n" + message.trace  # so that the empty line is found where it is the first
    for chunk in message.body.chunks():
        header += chunk[:_HEADERS]
        if b"\r\n\r\n" in header or len(header) > _HEADERS:
            break
    header = header.partition(b"\r\n\r\n")[0] + b"\r\n"
    if len(header) > _HEADERS:
        header = header[: header.rfind(b"\r\n", 0, _HEADERS) + 2]
    if message.envelope.binary:
        # RFC 3030 §3: a report is no binary message. What is no field may be content already.
        fields = _FIELDS.match(header, 2)
        assert fields is not None  # it matches nothing at all too
        return fields[0]
    return _UNFIT.sub(b"?", header[2:])
