"""The message, or its header section, as a notice returns it to the sender.

Faults of the message are mended, so that any next hop takes the notice.
"""

from __future__ import annotations

import re

from attrs import frozen

from ...mail.body import MemoryBody
from ...mail.message import Message
from ..mime.conversion import to_seven_bit
from ..mime.conversion_plan import CannotConvert

_LARGEST_WHOLE = 50 * 1024  # octets of a message that is returned whole, as in Postfix by default
_LARGEST_HEADER = 64 * 1024  # octets of a returned header section
_MOST_ENTITIES = 100  # messages and body parts that are converted while the reactor waits

# The search starts at the beginning of a line only, not at each octet of a long one.
LONG_LINE = re.compile(rb"(?<![^\n])[^\n]{1000,}")
"""A line of more than 998 octets (RFC 5322 §2.1.1), with its CR."""

_UNFIT = re.compile(rb"\r(?!\n)|(?<!\r)\n|\x00")
# RFC 5322 §2.2, §2.2.3: fields, up to the first octets that no field has.
_FIELDS = re.compile(
    rb"(?:[\x21-\x39\x3b-\x7e]+[ \t]*:[^\r\n\x00]*\r\n(?:[ \t][^\r\n\x00]*\r\n)*)*"
)


@frozen
class Returned:
    """The octets of a message that a notice returns.

    Attributes:
        content: with CR LF line ends; empty if the message cannot be read.
        whole: Whether it is the whole message, not the header section alone.
    """

    content: bytes
    whole: bool

    @property
    def header(self) -> bytes:
        """The header section, without the empty line."""
        # With a line end before it, so that an empty first line is found too.
        section = (b"\r\n" + self.content).partition(b"\r\n\r\n")[0]
        return section[2:].removesuffix(b"\r\n") + b"\r\n" if len(section) > 2 else b""

    @property
    def has_utf8_header(self) -> bool:
        """Whether the header section is UTF-8 beyond ASCII."""
        header = self.header
        return not header.isascii() and _is_utf8(header)

    def part(self, *, international: bool) -> tuple[str, Returned]:
        """Return the content type of the part, and the octets that it allows.

        Args:
            international: Whether the type may be one of RFC 6533 §4. Those allow any encoding (RFC
                6532 §3.7), but message/rfc822 allows none (RFC 2045 §6.4): of a message with 8 bits
                in its header, or one that cannot be converted, only the header section is returned
                (RFC 3461 §4.3 allows to return less than RET=FULL asks for).
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
    """Return the message for a notice, not yet encoded.

    Args:
        message: a message of any size; its body is read.
        whole: Whether more than the header section may be returned.
    """
    try:
        small = len(message.trace) + message.body.size <= _LARGEST_WHOLE
        if whole and small and not message.envelope.binary:
            content = message.trace + b"".join(message.body.chunks())
            if not _UNFIT.search(content) and not LONG_LINE.search(content):
                return Returned(content, True)
        return Returned(_header(message), False)
    except OSError:
        return Returned(b"", False)


def _header(message: Message) -> bytes:
    """Return the header section, cut to its limit, with its faults mended."""
    header = b"\r\n" + message.trace  # so that an empty first line is found too
    for chunk in message.body.chunks():
        header += chunk[:_LARGEST_HEADER]
        if b"\r\n\r\n" in header or len(header) > _LARGEST_HEADER:
            break
    header = header.partition(b"\r\n\r\n")[0] + b"\r\n"
    if len(header) > _LARGEST_HEADER:
        header = header[: header.rfind(b"\r\n", 0, _LARGEST_HEADER) + 2]
    if message.envelope.binary:
        # RFC 3030 §3: a notice is no binary message. Octets that are no field may be content.
        fields = _FIELDS.match(header, 2)
        assert fields is not None  # the pattern matches the empty string too
        return fields[0]
    return _UNFIT.sub(b"?", header[2:])
