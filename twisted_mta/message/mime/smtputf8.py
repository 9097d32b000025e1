"""Whether a content needs SMTPUTF8 on its way: header sections outside ASCII (RFC 6531 §3.2)."""

from __future__ import annotations

from ...mail.body import Body, MemoryBody
from .sections import Header, Piece, TooManyParts, sections

# Octets, and messages and body parts, that are examined while the reactor waits: a few
# milliseconds. A larger content counts as one that needs SMTPUTF8.
_LARGEST = 65_536
_MOST_ENTITIES = 100


def needs_smtputf8(body: Body) -> bool:
    """Whether a content beyond ASCII may have header fields beyond ASCII.

    The header sections of body parts count like the first. A body that is in a file, or large, or
    has many parts is not examined: it may have such fields.
    """
    if not isinstance(body, MemoryBody) or body.size > _LARGEST:
        return True
    unparsed_message = False
    try:
        for section in sections(body.chunks(), _MOST_ENTITIES):
            if isinstance(section, Header):
                if not section.octets.isascii():
                    return True
                # A message type that `sections` does not parse, as message/global (RFC 6532 §3.7).
                entity = section.entity
                unparsed_message = entity.kind != "message" and entity.type.startswith("message/")
            elif unparsed_message and isinstance(section, Piece) and not section.octets.isascii():
                return True
    except TooManyParts:
        return True
    return False
