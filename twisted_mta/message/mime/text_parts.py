"""The texts of a message as mail clients show them: the parts that are no attachments, decoded."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from .attachment_parts import TEXTS, parameters_field, read_as_client
from .decoding import decoded_chunks
from .encoded_words import decoded
from .sections import MOST_ENTITIES, Header, Piece, sections

_PIECE = 65_536  # octets


@frozen
class TextPart:
    """One text of a message.

    Attributes:
        content_type: ``text/plain`` or ``text/html``.
        text: decoded by its transfer encoding and its charset; lines end in LF. What cannot be
            decoded is U+FFFD.
    """

    content_type: str
    text: str


def text_parts(
    content: bytes, most: int = MOST_ENTITIES, *, longest: int | None = None
) -> Iterator[TextPart]:
    """Yield the texts of a message, in order, in time proportional to its size.

    They are those parts that `attachment_parts` leaves out: of type ``text/plain`` or
    ``text/html``, without a name, and not declared an attachment (RFC 2183 §2).

    Args:
        content: the whole message. Lines end in CR LF or in LF.
        most: the number of body parts to parse.
        longest: encoded octets of one text, of which no more is decoded, but for one piece of some
            64 KiB; None: no limit.

    Raises:
        TooManyParts: there are more than ``most``.
    """
    header: Header | None = None
    pieces: list[bytes] = []
    kept = 0
    for section in sections(_lines(content), most, read_as_client):
        if isinstance(section, Piece):
            if header is not None and not section.ignored and (longest is None or kept < longest):
                pieces.append(section.octets)
                kept += len(section.octets)
            continue
        if header is not None:
            yield _text(header, pieces)
        header = section if isinstance(section, Header) and _is_text(section) else None
        pieces, kept = [], 0
    if header is not None:
        yield _text(header, pieces)


def _lines(content: bytes) -> Iterator[bytes]:
    """Yield a message in pieces, each line with CR LF."""
    start = 0
    while start < len(content):
        end = start + _PIECE
        if content[end - 1 : end] == b"\r":  # with its LF
            end += 1
        piece = content[start:end]
        yield piece.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        start = end


def _is_text(header: Header) -> bool:
    if header.entity.kind == "multipart" or header.entity.type not in TEXTS:
        return False
    disposition = parameters_field(header.octets, "content-disposition")
    content_type = parameters_field(header.octets, "content-type")
    if disposition and (
        disposition.value == "attachment" or disposition.parameters.get("filename")
    ):
        return False
    return not (content_type and content_type.parameters.get("name"))


def _text(header: Header, pieces: list[bytes]) -> TextPart:
    content_type = parameters_field(header.octets, "content-type")
    charset = content_type.parameters.get("charset", "") if content_type else ""
    octets = b"".join(decoded_chunks(header.entity.encoding, pieces))
    text = decoded(octets, charset).replace("\r\n", "\n")
    return TextPart(header.entity.type, text)
