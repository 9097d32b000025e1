"""What policies about signatures share of one message: its fields, and the hashes of its body."""

from __future__ import annotations

from attrs import field, frozen

from ...message.header import Header
from ..examination import Examination
from .body_hashes import BodyHashes
from .signed_header import SignedHeader

_MOST_LINES = 10_000
_MOST_OCTETS = 262_144  # each of ten signatures may cover all of them, which takes 20 ms

TOO_LONG = f"the header has more than {_MOST_LINES} lines or {_MOST_OCTETS >> 10} KiB"
"""Why no signature is verified with a header section."""


@frozen
class MessageReading:
    """A message that is read once for several policies.

    Attributes:
        header: its fields; None: it is `TOO_LONG`.
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
            whole = len(section) <= _MOST_OCTETS and section.count(b"\n") <= _MOST_LINES
            known = examination.memory[cls] = cls(SignedHeader(section) if whole else None)
        return known
