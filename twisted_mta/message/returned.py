"""What of a message goes back to its sender in a report, and as what.

Whatever is wrong with it is mended, so that the report is a message like any other.
"""

from __future__ import annotations

import re

from attrs import frozen

from ..envelope import Message

_WHOLE = 50 * 1024  # octets up to which a message comes back whole, as Postfix does by default
_HEADERS = 64 * 1024  # octets of the header section that come back otherwise
LONGEST_LINE = 998  # octets without CR LF, RFC 5322 §2.1.1

# With its CR; looked for where a line begins, not from each octet of one that is nearly as long.
LONG_LINE = re.compile(rb"(?<![^\n])[^\n]{%d,}" % (LONGEST_LINE + 2))
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
    def has_utf8_header(self) -> bool:
        """Whether its header section has other octets than ASCII."""
        return not self.content.partition(b"\r\n\r\n")[0].isascii()

    def media_type(self, *, international: bool) -> str:
        """Return what it stands under (RFC 6522 §4, RFC 6533 §4)."""
        if self.whole:
            return "message/global" if international else "message/rfc822"
        return "message/global-headers" if international else "text/rfc822-headers"


def returned(message: Message, *, whole: bool) -> Returned:
    """Return what goes back of a message.

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
        header += chunk
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
