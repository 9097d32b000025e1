"""The policy that verifies the signatures of mail from strangers."""

from __future__ import annotations

from collections.abc import Callable

from ...interfaces import WallTime
from ...message.authentication_results import MethodResult
from ...message.header import Header
from ..answers import Answers, EnvelopeView
from ..examination import Examination, PolicySession
from .key_lookup import TextResolver
from .message_reading import TOO_LONG, MessageReading
from .verification import Verification

NAME = "dkim"
"""The name of the policy, and of the method in Authentication-Results."""

FAILED = (MethodResult(NAME, "temperror", "the signatures could not be verified in time"),)
"""What is recorded where the policy fails, or has no answer in time."""

_TOO_LONG = MethodResult(NAME, "policy", TOO_LONG)


class DKIMPolicy:
    """Verifies DKIM signatures; never refuses.

    It concludes the examination with one result for each signature, or with ``none``.

    Args:
        resolver: for the keys.
        wall_time: for expired signatures.
    """

    def __init__(self, resolver: TextResolver, wall_time: WallTime) -> None:
        self._resolver = resolver
        self._wall_time = wall_time

    def header(self, session: PolicySession, envelope: EnvelopeView, header: Header) -> Answers:
        """Begin to look up the keys."""
        if session.examination is not None:
            self._verification(session.examination, header)
        return None

    def body(
        self, session: PolicySession, envelope: EnvelopeView, header: Header
    ) -> Callable[[bytes], object] | None:
        """Return what takes the body for its hashes, if this message needs any."""
        examination = session.examination
        if examination is None or self._verification(examination, header) is None:
            return None
        return MessageReading.of(examination, header).bodies.reader()

    async def message(
        self, session: PolicySession, envelope: EnvelopeView, content: object
    ) -> Answers:
        """Conclude the examination."""
        examination = session.examination
        verification = None if examination is None else examination.memory.get(self)
        if examination is not None and isinstance(verification, Verification):
            results = await verification.results()
            examination.conclude(NAME, [each.method_result() for each in results])
        return None

    def _verification(self, examination: Examination, header: Header) -> Verification | None:
        """Return the verification of a message; None where there is none."""
        if self in examination.memory:
            known = examination.memory[self]
            return known if isinstance(known, Verification) else None
        examination.memory[self] = None
        reading = MessageReading.of(examination, header)
        if reading.header is None:
            examination.conclude(NAME, [_TOO_LONG])
            return None
        verification = Verification(reading.header, reading.bodies, self._wall_time())
        if not verification.is_signed:
            examination.conclude(NAME, [MethodResult(NAME, "none")])
            return None
        verification.look_up(self._resolver)
        examination.memory[self] = verification
        return verification
