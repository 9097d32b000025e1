"""Back-off: when a deferred recipient, or a suspended next hop, is tried again, and until when."""

from __future__ import annotations

from attrs import frozen

from ...interfaces import Random
from ...mail.message import Message
from ...smtp.extension.deliverby import DeliverBy

_JITTER = 0.1  # of the delay, up or down: recipients that failed together need not come together


@frozen
class Backoff:
    """Exponential back-off with jitter (RFC 5321 §4.5.4.1).

    Attributes:
        minimum: seconds from the first attempt to the second.
        maximum: seconds between two attempts at most.
    """

    minimum: float = 300.0
    maximum: float = 3600.0

    def delay(self, attempts: int, random: Random) -> float:
        """Return the seconds to wait after so many attempts: between the two limits."""
        # 2**30 times any minimum is beyond any maximum; larger powers overflow in the end.
        delay = min(self.maximum, self.minimum * 2.0 ** min(attempts - 1, 30))
        least = max(min(self.minimum, self.maximum), delay * (1 - _JITTER))
        most = min(self.maximum, delay * (1 + _JITTER))
        return least + (most - least) * random.random()

    def next_attempt(
        self, *, attempts: int, now: float, expires_at: float, random: Random
    ) -> float:
        """Return the wall time of the next attempt.

        Args:
            attempts: the number of attempts, with the one that has just failed.
            now: wall time.
            expires_at: wall time of the last attempt; none is later.
            random: the source of the jitter.
        """
        return max(now, min(now + self.delay(attempts, random), expires_at))


def expiry(message: Message, lifetime: float | None) -> float:
    """Return the wall time after which an undelivered recipient is returned to the sender.

    Args:
        message: has an expiry of its own, and may have a return time (``BY=…;R``, RFC 2852 §4.1).
        lifetime: seconds from its release that hold for the next hop instead; None: the message's.
    """
    expires_at = message.expires_at if lifetime is None else message.released_at + lifetime
    parameters = message.envelope.parameters
    by = DeliverBy.of(parameters) if parameters else None
    return min(expires_at, by.seconds) if by is not None and by.returned else expires_at
