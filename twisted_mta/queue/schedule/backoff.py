"""When to try again, and until when: recipients deferred, next hops out of reach. Pure."""

from __future__ import annotations

from attrs import frozen

from ...interfaces import Random
from ...mail.message import Message
from ...smtp.extension.deliverby import DeliverBy

_JITTER = 0.1  # of the delay, to each side: what failed together need not come back together


@frozen
class Backoff:
    """Exponential back-off with jitter (RFC 5321 §4.5.4.1).

    Attributes:
        minimum: seconds to the second attempt.
        maximum: seconds between two attempts at the most.
    """

    minimum: float = 300.0
    maximum: float = 3600.0

    def delay(self, attempts: int, random: Random) -> float:
        """Return how many seconds to wait after so many attempts in vain: between the two."""
        # 2**30 of any minimum is beyond any maximum; more would overflow in the end.
        delay = min(self.maximum, self.minimum * 2.0 ** min(attempts - 1, 30))
        least = max(min(self.minimum, self.maximum), delay * (1 - _JITTER))
        most = min(self.maximum, delay * (1 + _JITTER))
        return least + (most - least) * random.random()

    def next_attempt(
        self, *, attempts: int, now: float, expires_at: float, random: Random
    ) -> float:
        """Return the wall time of the next attempt.

        Args:
            attempts: how many there were, this one included.
            now: wall time.
            expires_at: wall time of the last attempt: nothing is put off beyond it.
            random: what the jitter is drawn from.
        """
        return max(now, min(now + self.delay(attempts, random), expires_at))


def expiry(message: Message, lifetime: float | None) -> float:
    """Return the wall time after which a recipient that could not be served is returned.

    Args:
        message: which has a time of its own, and may have come with ``BY=…;R`` (RFC 2852 §4.1).
        lifetime: seconds that hold for its next hop instead; None: none do.
    """
    expires_at = message.expires_at if lifetime is None else message.released_at + lifetime
    by = DeliverBy.of(message.envelope.parameters)
    return min(expires_at, by.seconds) if by is not None and by.returned else expires_at
