"""Targets that could not be connected to lately, passed over while a next hop has others."""

from __future__ import annotations

from ..interfaces import Clock
from ..mail.next_hop import Target

_EQUAL = 12  # times as long: each message chooses among equal exchangers, and would meet it often
_MOST = 1000  # entries; beyond, those whose time is over are dropped


class UnreachableTargets:
    """Addresses and ports to which connecting failed, each for a number of seconds.

    Args:
        clock: monotonic time.
        seconds: for which a target stays here; 12 times as long if it has equals.
    """

    def __init__(self, clock: Clock, *, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._until: dict[tuple[str, int], float] = {}

    def add(self, target: Target) -> None:
        """Pass over ``target`` from now on."""
        now = self._clock.seconds()
        if len(self._until) >= _MOST:
            self._until = {key: until for key, until in self._until.items() if until > now}
        seconds = self._seconds * _EQUAL if target.equal else self._seconds
        self._until[target.address, target.port] = now + seconds

    def seconds_left(self, target: Target) -> float:
        """Return for how many seconds ``target`` is still passed over, 0 where it is not."""
        until = self._until.get((target.address, target.port), 0.0)
        return max(0.0, until - self._clock.seconds())

    def clear(self) -> None:
        """Forget all targets."""
        self._until.clear()
