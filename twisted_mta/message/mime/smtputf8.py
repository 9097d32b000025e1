"""What of a message needs SMTPUTF8 on its way (RFC 6531 §3.2): header sections outside ASCII."""

from __future__ import annotations

from ...mail.body import Body, MemoryBody
from .sections import Header, Piece, TooManyParts, sections

# What is looked into while nothing else happens: octets, and messages and body parts. It takes a
# few milliseconds; what has more of them may have such fields.
_LARGEST = 65_536
_MOST_ENTITIES = 100


def needs_smtputf8(body: Body) -> bool:
    """Whether a content that is not ASCII may have header fields that are not.

    Those of body parts count as much as those on top. A body that is not in memory, or is large, or
    has many parts, is not read for this: it may.
    """
    if not isinstance(body, MemoryBody) or body.size > _LARGEST:
        return True
    message = False
    try:
        for section in sections(body.chunks(), _MOST_ENTITIES):
            if isinstance(section, Header):
                if not section.octets.isascii():
                    return True
                # One that is not looked into: message/global (RFC 6532 §3.7) among them.
                entity = section.entity
                message = entity.kind != "message" and entity.type.startswith("message/")
            elif message and isinstance(section, Piece) and not section.octets.isascii():
                return True
    except TooManyParts:
        return True
    return False
