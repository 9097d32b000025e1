"""When to try again, pure: a recipient that was deferred, or a next hop that cannot be reached."""

from __future__ import annotations

from attrs import frozen

from ..interfaces import Random

_JITTER = 0.1  # of the delay, to both sides: what failed together need not come back together


@frozen
class Schedule:
    """Exponential back-off with jitter (RFC 5321 §4.5.4.1).

    Attributes:
        minimum: seconds to the second attempt.
        maximum: seconds between two attempts at the most.
    """

    minimum: float = 300.0
    maximum: float = 3600.0

    @property
    def longest(self) -> float:
        """Seconds that `delay` never goes beyond."""
        return self.maximum * (1 + _JITTER)

    def delay(self, attempts: int, random: Random) -> float:
        """Return how many seconds to wait after so many attempts in vain."""
        # 2**30 of any minimum is beyond any maximum; more would overflow in the end.
        delay = min(self.maximum, self.minimum * 2.0 ** min(attempts - 1, 30))
        return delay * (1 + _JITTER * (2 * random.random() - 1))

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
