"""What policies about signatures share of one message: its fields, and the hashes of its body."""

from __future__ import annotations

from attrs import field, frozen

from ...message.header import Header
from ..examination import Examination
from .body_hashes import BodyHashes
from .signed_header import SignedHeader

MOST_LINES = 10_000
"""Lines of a header section with which signatures are verified."""


@frozen
class MessageReading:
    """A message that is read once for several policies.

    Attributes:
        header: its fields; None: it has more than `MOST_LINES` lines.
        bodies: the hashes of its body.
    """

    header: SignedHeader | None
    bodies: BodyHashes = field(factory=BodyHashes)

    @classmethod
    def of(cls, examination: Examination, header: Header) -> MessageReading:
        """Return the reading of the message of a transaction."""
        known = examination.memory.get(cls)
        if not isinstance(known, cls):
            section = bytes(header)
            whole = section.count(b"\n") <= MOST_LINES
            known = examination.memory[cls] = cls(SignedHeader(section) if whole else None)
        return known
