"""The policy that verifies the signatures of mail from strangers."""

from __future__ import annotations

from ...message.authentication_results import MethodResult
from ..examination import Examination
from .message_reading import TOO_LONG, MessageReading
from .reading_policy import ReadingPolicy
from .verification import Verification

NAME = "dkim"
"""The name of the policy, and of the method in Authentication-Results."""

FAILED = (MethodResult(NAME, "temperror", "the signatures could not be verified in time"),)
"""What is recorded where the policy fails, or has no answer in time."""

_TOO_LONG = MethodResult(NAME, "policy", TOO_LONG)


class DKIMPolicy(ReadingPolicy[Verification]):
    """Verifies DKIM signatures; never refuses.

    It concludes the examination with one result for each signature, or with ``none``.
    """

    def begin(self, examination: Examination, message: MessageReading) -> Verification | None:
        """Read the signatures; None where there is none."""
        if message.header is None:
            examination.conclude(NAME, [_TOO_LONG])
            return None
        verification = Verification(message.header, message.bodies, self._wall_time())
        if not verification.is_signed:
            examination.conclude(NAME, [MethodResult(NAME, "none")])
            return None
        return verification

    async def end(self, examination: Examination, reading: Verification) -> None:
        """Conclude the examination with the result of each signature."""
        results = await reading.results()
        examination.conclude(NAME, [each.method_result() for each in results])
