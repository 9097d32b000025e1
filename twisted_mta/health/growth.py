"""By how much a count that never falls has grown in the last hours."""

from __future__ import annotations

from ..interfaces import Clock

_LATELY = 6 * 3600.0  # seconds without growth, after which it does not count any more


class Growth:
    """A count that is looked at now and then.

    Args:
        clock: for the hours.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._base: int | None = None
        self._last = 0
        self._grown_at = 0.0

    def of(self, count: int) -> int:
        """Return by how much it has grown; what there is at the first look is no growth."""
        now = self._clock.seconds()
        if self._base is None or count < self._last or now - self._grown_at > _LATELY:
            if self._base is None or count <= self._last:
                self._base = count
            else:
                self._base = self._last
        if count != self._last:
            self._last, self._grown_at = count, now
        return count - self._base
