"""Where the attachments of a message stand in its octets, and how its header describes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from attrs import frozen

from ..header import value_octets
from .encoded_words import decode_words
from .entity import LONGEST_BOUNDARY, Entity
from .parameters import ParametersField, read_parameters
from .safe_name import safe_name
from .sections import MOST_ENTITIES, Header, Piece, sections

_TYPE = re.compile(r"[!#$%&'*+\-.0-9a-z^_`{|}~]{1,127}/[!#$%&'*+\-.0-9a-z^_`{|}~]{1,127}")
_ENCODING = re.compile(rb"[ \t]*+([-\w]++)")
_BOUNDARY = re.compile(rb"[\t -~]+")
_LONGEST_FILENAME = 1024  # characters
_LONGEST_CONTENT_ID = 255

TEXTS = ("text/plain", "text/html")
"""The content types of the texts that mail clients show."""

MESSAGES = ("message/rfc822", "message/global", "message/news")
"""The content types of whole messages (RFC 2046 §5.2.1, RFC 6532 §3.7)."""

# Suffixes of attachments without a name. Python's own table depends on files of the system.
_SUFFIXES = {
    "application/gzip": ".gz",
    "application/json": ".json",
    "application/ms-tnef": ".dat",
    "application/pdf": ".pdf",
    "application/pgp-signature": ".asc",
    "application/pkcs7-signature": ".p7s",
    "application/xml": ".xml",
    "application/zip": ".zip",
    "image/gif": ".gif",
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "text/calendar": ".ics",
    "text/csv": ".csv",
    "text/html": ".html",
    "text/plain": ".txt",
    "text/xml": ".xml",
    **dict.fromkeys(MESSAGES, ".eml"),
}


@frozen
class AttachmentPart:
    """One attachment, as the header section of its part describes it.

    Attributes:
        number: its number among the attachments of the message, from 1.
        filename: its name, decoded and otherwise as the sender wrote it; None without one.
        safe_name: a name under which it can be created (`safe_name`); made from the number and the
            type if there is no name, or nothing is left of it.
        content_type: in lower case, ``application/pdf``.
        disposition: ``attachment``, ``inline``, another token in lower case, or empty without a
            Content-Disposition field (RFC 2183 §2).
        content_id: the Content-ID without angle brackets; None without one.
        encoding: the Content-Transfer-Encoding in lower case.
        start: the offset of its encoded octets in the message.
        end: the offset behind them.
    """

    number: int
    filename: str | None
    safe_name: str
    content_type: str
    disposition: str
    content_id: str | None
    encoding: str
    start: int
    end: int


def attachment_parts(
    chunks: Iterable[bytes], most: int = MOST_ENTITIES
) -> Iterator[AttachmentPart]:
    """Yield the attachments of a message: its leaf parts, in order, without the texts.

    A text is a part of type ``text/plain`` or ``text/html`` without a name, which is not declared
    an attachment. A message within is one part. What follows a multipart that is nested too deeply,
    or has no usable boundary, is one part, as it stands.

    Args:
        chunks: the message, in pieces of at most some 10 KiB. Lines end in CR LF or in LF.
        most: the number of body parts to parse.

    Raises:
        TooManyParts: there are more than ``most``.
    """
    lines = _Lines(chunks)
    number = start = end = offset = 0
    header: Header | None = None
    for section in sections(lines.chunks(), most, read_as_client):
        length = lines.length(section.octets)
        if isinstance(section, Piece) and not section.ignored:
            end = offset + length
        elif not isinstance(section, Piece):
            if header and (part := _described(header, number + 1, start, end)):
                number += 1
                yield part
            header = section if isinstance(section, Header) else None
            start = end = offset + length
        offset += length
    if header and (part := _described(header, number + 1, start, end)):
        yield part


class _Lines:
    """A message, given on with CR LF at the end of each line.

    It says what length in the message the octets had that were given on, in the same order.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self._given = bytearray()  # octets of the message whose length was not asked for
        self._carry = b""  # a CR that may begin a line end

    def chunks(self) -> Iterator[bytes]:
        """Yield the message."""
        for chunk in self._chunks:
            chunk = self._carry + chunk
            self._carry = b""
            if chunk.endswith(b"\r"):
                chunk, self._carry = chunk[:-1], b"\r"
            if chunk:
                self._given += chunk
                yield chunk.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        if self._carry:
            self._given += self._carry
            yield self._carry

    def length(self, octets: bytes) -> int:
        """Return the length in the message of the next octets that were given on."""
        given = self._given
        if not octets:
            return 0
        if given.find(b"\r") < 0:
            length = len(octets) - octets.count(b"\n")
        elif given.startswith(octets):
            length = len(octets)
        else:
            length = _original_length(given, octets)
        del given[:length]
        return length


def _original_length(given: bytearray, octets: bytes) -> int:
    """Return how many octets of ``given`` became ``octets``, where line ends are mixed."""
    length = 0
    for line in octets.splitlines(keepends=True):
        size = len(line)
        if line.endswith(b"\r\n") and not given.startswith(b"\r\n", length + size - 2):
            size -= 1
        length += size
    return length


def read_as_client(header: bytes, *, default: str, top_level: bool) -> Entity:
    """Return the entity of a header section, as a mail client reads it, which shows what it can."""
    field = parameters_field(header, "content-type")
    type = default if field is None else field.value.partition("(")[0].rstrip()
    if not _TYPE.fullmatch(type):
        type = "text/plain"  # RFC 2045 §5.2
    encodings = map(_ENCODING.match, value_octets(header, "content-transfer-encoding"))
    encoding = next(
        (match[1].decode("ascii", "replace").lower() for match in encodings if match), "7bit"
    )
    if field and type.startswith("multipart/"):
        boundary = field.parameters.get("boundary", "").rstrip().encode("utf-8", "replace")
        if 0 < len(boundary) <= LONGEST_BOUNDARY and _BOUNDARY.fullmatch(boundary):
            return Entity("multipart", top_level, type, encoding, boundary, typed=True)
    return Entity("leaf", top_level, type, encoding, typed=field is not None)


def parameters_field(header: bytes, name: str) -> ParametersField | None:
    """Return the first field with that name; None: there is none."""
    value = next(value_octets(header, name), None)
    return None if value is None else read_parameters(value)


def _described(header: Header, number: int, start: int, end: int) -> AttachmentPart | None:
    """Return the attachment with that header section; None: it is none."""
    section, entity = header.octets, header.entity
    if entity.kind == "multipart":
        return None
    disposition = parameters_field(section, "content-disposition") or ParametersField("", {})
    content_type = parameters_field(section, "content-type") or ParametersField("", {})
    # RFC 2183 §2.3; RFC 2046 §4.5.1 for the parameter that older clients write.
    filename = disposition.parameters.get("filename") or content_type.parameters.get("name")
    if not filename:
        filename = None
        if entity.type in TEXTS and disposition.value != "attachment":
            return None
    else:
        filename = filename[-_LONGEST_FILENAME:]
    default = f"attachment-{number}{_SUFFIXES.get(entity.type, '.bin')}"
    content_id = next(value_octets(section, "content-id"), None)
    return AttachmentPart(
        number,
        filename,
        safe_name(filename or "", default),
        entity.type,
        disposition.value[:_LONGEST_CONTENT_ID],
        None if content_id is None else _content_id(content_id),
        entity.encoding,
        start,
        end,
    )


def _content_id(value: bytes) -> str:
    return decode_words(value[:_LONGEST_CONTENT_ID]).strip().removeprefix("<").removesuffix(">")
