"""A count of recent events over all workers: each takes from a limit, and gives back in time.

When a worker dies, the parent's ledger gives back all that it has counted.
"""

from __future__ import annotations

import hashlib
from collections import deque

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from ..interfaces import Clock, LimitKey, Limits


@define(eq=False)
class SlidingWindow:
    """Counts the events of the last period, by key.

    Args:
        limits: where they are counted.
        clock: for the period.
        period: seconds.
        most: events that this process remembers; beyond it, the oldest is forgotten early.
        timed: whether an event is forgotten by a timer when its period ends (until `close`), and
            not only when the next event is counted.
    """

    _limits: Limits = field(alias="limits")
    _clock: Clock = field(alias="clock")
    period: float
    _most: int = field(alias="most")
    _timed: bool = field(default=False, alias="timed")
    _events: deque[tuple[float, LimitKey]] = field(factory=deque, init=False)  # by their end
    _ends: dict[LimitKey, deque[float]] = field(factory=dict, init=False)  # the same by key
    _timer: IDelayedCall | None = field(default=None, init=False)

    async def add(self, key: LimitKey, limit: int, number: int = 1) -> bool:
        """Count more events, all or none, if that keeps within ``limit``; return whether it did."""
        self._forget()
        taken = 0
        try:
            while taken < number and await now_or_later(self._limits.take(key, limit)):
                taken += 1
        finally:
            if taken < number:  # there is no room, or this was canceled
                for _ in range(taken):
                    self._limits.give_back(key)
        if taken < number:
            return False
        end = self._clock.seconds() + self.period
        for _ in range(number):
            self._events.append((end, key))
            self._ends.setdefault(key, deque()).append(end)
        while len(self._events) > self._most:
            self._forget_one()
        self._set_timer()
        return True

    def wait(self, key: LimitKey) -> float:
        """Return the seconds until an event of ``key`` that this process has counted is forgotten.

        Where other workers have counted too, room may be there earlier; where they have counted
        all, it is a whole period.
        """
        ends = self._ends.get(key)
        return max(0.0, ends[0] - self._clock.seconds()) if ends else self.period

    async def allows(self, key: LimitKey, limit: int) -> bool:
        """Whether one more event would keep within ``limit``."""
        self._forget()
        if not await now_or_later(self._limits.take(key, limit)):
            return False
        self._limits.give_back(key)
        return True

    @property
    def size(self) -> tuple[int, int]:
        """How many events are remembered, and how many can be."""
        return len(self._events), self._most

    def close(self) -> None:
        """Stop the timer."""
        self._timed = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        if self._timed and self._timer is None and self._events:
            end = self._events[0][0]
            delay = max(end - self._clock.seconds(), 0.0)
            self._timer = self._clock.callLater(delay, self._period_ended)

    def _period_ended(self) -> None:
        self._timer = None
        self._forget()
        self._set_timer()

    def _forget(self) -> None:
        now = self._clock.seconds()
        while self._events and self._events[0][0] <= now:
            self._forget_one()

    def _forget_one(self) -> None:
        _, key = self._events.popleft()
        ends = self._ends[key]
        ends.popleft()
        if not ends:
            del self._ends[key]
        self._limits.give_back(key)


async def now_or_later(taken: bool | Deferred[bool]) -> bool:
    """Return an answer of `Limits`, which may be a Deferred."""
    return await taken if isinstance(taken, Deferred) else taken


def hashed_name(account: str) -> str:
    """Return what stands for the name of an account in the key of a limit.

    It has one length, whatever name a client gives, and no such name is kept.
    """
    return hashlib.sha256(account.lower().encode()).hexdigest()[:32]
