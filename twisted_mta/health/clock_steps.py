"""Steps of the wall clock, seen against the monotonic clock."""

from __future__ import annotations

from collections.abc import Iterator

from ..interfaces import Clock, WallTime
from .trouble import Trouble

_STEP = 2.0  # seconds; less is a clock that is kept right
_SLEW = 0.001  # seconds a second: adjtime(3) and NTP slew by half of that
_SHOWN = 600.0  # seconds


class ClockSteps:
    """Compares the clocks each time that it is asked.

    Args:
        clock: the monotonic one.
        wall_time: the time of day.
    """

    def __init__(self, *, clock: Clock, wall_time: WallTime) -> None:
        self._clock = clock
        self._wall_time = wall_time
        self._looked: float | None = None  # by the clock
        self._offset = 0.0  # of the wall clock
        self._step = 0.0
        self._stepped: float | None = None  # by the clock

    def troubles(self) -> Iterator[Trouble]:
        """Yield that the wall clock was set, for a while after it was."""
        now = self._clock.seconds()
        offset = self._wall_time() - now
        if self._looked is not None:
            step = offset - self._offset
            if abs(step) > _STEP + _SLEW * (now - self._looked):
                self._step, self._stepped = step, now
        self._looked, self._offset = now, offset
        if self._stepped is not None and now - self._stepped <= _SHOWN:
            where = "ahead" if self._step > 0 else "back"
            yield Trouble(
                kind="clock",
                text=f"the wall clock was set {where} by {abs(self._step):,.0f} s, or the machine"
                f" slept, {now - self._stepped:.0f} s ago",
            )
