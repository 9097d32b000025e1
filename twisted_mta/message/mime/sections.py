"""The MIME structure of a content (RFC 2045, RFC 2046), read while the content streams by.

`sections` cuts a content into header sections, pieces of bodies, and delimiters. Joined again they
are the content, octet for octet. A header section is kept whole in memory, a body is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from attrs import frozen

from .content_reader import LONGEST_HEADER, ContentReader, OpenMultipart
from .entity import Entity, read_entity

# Multiparts inside one another. Python's own parser recurses, and fails at some hundred.
_DEEPEST = 30
_PIECE = 65_536  # octets that are searched at a time
MOST_ENTITIES = 5_000
"""Messages and body parts of one content."""


class TooManyParts(ValueError):
    """A content has more messages and body parts than are parsed."""


@frozen
class Header:
    """A header section with the empty line behind it, if there is one.

    Attributes:
        number: its number, from 0, which a leaf or opaque body shares.
        octets: as received.
        entity: the properties of the body behind it.
    """

    number: int
    octets: bytes
    entity: Entity


@frozen
class Piece:
    """A piece of a body, of one octet or more.

    Attributes:
        number: the number of the body.
        octets: as received.
        ignored: Whether it belongs to the preamble or epilogue of a multipart, which readers do not
            show (RFC 2046 §5.1.1).
    """

    number: int
    octets: bytes
    ignored: bool


@frozen
class Delimiter:
    """A delimiter line with the line end before it, which belongs to it (RFC 2046 §5.1.1).

    Attributes:
        number: its number.
        octets: as received.
        multipart: the number of the header section of its multipart.
        closing: Whether it is the last delimiter of that multipart.
    """

    number: int
    octets: bytes
    multipart: int
    closing: bool


Section = Header | Piece | Delimiter


class EntityReader(Protocol):
    """A function that reads the entity which a header section declares, as `read_entity` does."""

    def __call__(self, header: bytes, *, default: str, top_level: bool) -> Entity:
        """Return the entity."""
        ...


def sections(
    chunks: Iterable[bytes], most: int = MOST_ENTITIES, read: EntityReader = read_entity
) -> Iterator[Section]:
    """Yield the sections of a content, in time proportional to its size.

    A delimiter of an outer multipart ends the inner ones too.

    Args:
        chunks: the content.
        most: the number of messages and body parts to parse.
        read: reads the header sections.

    Raises:
        TooManyParts: there are more than ``most``.
    """
    reader = ContentReader(_pieces(chunks))
    default, top_level = "text/plain", True
    number = entities = 0
    while True:
        entities += 1
        if entities > most:
            raise TooManyParts(f"it has more than {most} parts")
        octets, end = reader.header()
        entity = read(octets, default=default, top_level=top_level)
        if end == "length":
            entity = entity.made_opaque(f"it has a header section of over {LONGEST_HEADER} octets")
        if entity.kind == "multipart" and len(reader.multiparts) >= _DEEPEST:
            entity = entity.made_opaque(f"it has multiparts nested more than {_DEEPEST} deep")
        yield Header(number, octets, entity)
        if entity.kind == "message" and end == "line":
            number += 1
            default, top_level = "text/plain", True
            continue
        ignored = entity.kind == "multipart"
        if ignored:
            # RFC 2046 §5.1.5
            inner = "message/rfc822" if entity.type == "multipart/digest" else "text/plain"
            reader.enter(OpenMultipart(entity.boundary, inner, number))
            number += 1
        while True:
            for piece in reader.body():
                yield Piece(number, piece, ignored)
            delimiter = reader.delimiter
            if delimiter is None:
                return
            number += 1
            multipart = reader.multiparts[delimiter.level].number
            yield Delimiter(number, delimiter.octets, multipart, delimiter.closing)
            number += 1
            reader.leave(delimiter.level if delimiter.closing else delimiter.level + 1)
            if not delimiter.closing:
                break
            ignored = True
        default, top_level = reader.multiparts[-1].default, False


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        for start in range(0, len(chunk), _PIECE):
            yield chunk[start : start + _PIECE]
