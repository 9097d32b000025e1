"""The policy that validates the ARC chains of mail from strangers."""

from __future__ import annotations

from collections.abc import Sequence

from ...interfaces import WallTime
from ...message.authentication_results import MethodResult
from ..dkim.key_lookup import TextResolver
from ..dkim.message_reading import TOO_LONG, MessageReading
from ..dkim.reading_policy import ReadingPolicy
from ..examination import Examination
from .chain import is_in_chain
from .validation import ChainResult, ChainValidation

NAME = "arc"
"""The name of the policy, and of the method in Authentication-Results."""

FAILED = (MethodResult(NAME, "temperror", "the chain could not be validated in time"),)
"""What is recorded where the policy fails, or has no answer in time."""

_TOO_LONG = ChainResult("fail", TOO_LONG)
_NONE = (MethodResult(NAME, "none"),)


class ARCPolicy(ReadingPolicy[ChainValidation]):
    """Validates ARC chains; never refuses.

    It concludes the examination with the result of the chain, and notes there whether the newest
    seal is of a trusted sealer.

    Args:
        resolver: for the keys.
        wall_time: for expired signatures.
        trusted_sealers: domains; one stands for those below it too.
    """

    def __init__(
        self, resolver: TextResolver, wall_time: WallTime, trusted_sealers: Sequence[str] = ()
    ) -> None:
        super().__init__(resolver, wall_time)
        self._trusted = tuple(trusted_sealers)

    def begin(self, examination: Examination, message: MessageReading) -> ChainValidation | None:
        """Read the chain; None where there is none, or its result is known from the header."""
        if message.header is None:
            self._conclude(examination, _TOO_LONG)
            return None
        if not is_in_chain(message.header):
            examination.conclude(NAME, _NONE)
            return None
        validation = ChainValidation(message.header, message.bodies, self._wall_time())
        if validation.known is not None:
            self._conclude(examination, validation.known)
            return None
        return validation

    async def end(self, examination: Examination, reading: ChainValidation) -> None:
        """Conclude the examination with the result of the chain."""
        self._conclude(examination, await reading.result())

    def _conclude(self, examination: Examination, result: ChainResult) -> None:
        if result.result in ("pass", "temperror") and self._trusts(result):
            # What a trusted chain changes is that mail which fails DMARC goes among junk instead of
            # being refused. So a chain that cannot be validated for now has the same effect.
            examination.trusted_chain = result.sealers[0]
        examination.conclude(NAME, [method_result(result, examination.session.address)])

    def _trusts(self, result: ChainResult) -> bool:
        newest = result.sealers[0]
        return any(newest == each or newest.endswith(f".{each}") for each in self._trusted)


def method_result(result: ChainResult, client: str | None) -> MethodResult:
    """Return the result for Authentication-Results (RFC 8617 §10).

    Args:
        result: of a chain.
        client: the IP address that the message came from; None on a UNIX socket.
    """
    properties = []
    if result.oldest_pass is not None:
        properties.append(("header.oldest-pass", str(result.oldest_pass)))
        if client is not None:
            properties.append(("smtp.remote-ip", client))
    comment = f"newest of {len(result.sealers)}: {result.sealers[0]}" if result.sealers else ""
    return MethodResult(NAME, result.result, result.reason, tuple(properties), comment)
