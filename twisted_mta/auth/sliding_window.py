"""What happened of late, counted over all workers: a credit for each, given back in time.

A worker that dies takes what it has counted with it: the ledger has it free then.
"""

from __future__ import annotations

import hashlib
from collections import deque

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from ..interfaces import Clock, LimitKey, Limits


@define(eq=False)
class Recent:
    """Counts what happened within a period.

    Args:
        limits: where it is counted.
        clock: for the period.
        period: seconds.
        most: how much is remembered, by this process; beyond it the oldest is forgotten early.
        timed: whether it is forgotten when its time comes, by a timer that `close` ends, and not
            when the next is counted.
    """

    _limits: Limits = field(alias="limits")
    _clock: Clock = field(alias="clock")
    period: float
    _most: int = field(alias="most")
    _timed: bool = field(default=False, alias="timed")
    _remembered: deque[tuple[float, LimitKey]] = field(factory=deque, init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)

    async def add(self, key: LimitKey, limit: int) -> bool:
        """Count one more, if that keeps within ``limit``; says whether it did."""
        self._forget()
        if not await now_or_later(self._limits.take(key, limit)):
            return False
        self._remembered.append((self._clock.seconds() + self.period, key))
        while len(self._remembered) > self._most:
            self._limits.give_back(self._remembered.popleft()[1])
        self._wait()
        return True

    async def allows(self, key: LimitKey, limit: int) -> bool:
        """Whether one more would keep within ``limit``."""
        self._forget()
        if not await now_or_later(self._limits.take(key, limit)):
            return False
        self._limits.give_back(key)
        return True

    def close(self) -> None:
        """Stop: no timer is left."""
        self._timed = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        if self._timed and self._timer is None and self._remembered:
            until = self._remembered[0][0]
            self._timer = self._clock.callLater(
                max(until - self._clock.seconds(), 0.0), self._time_has_come
            )

    def _time_has_come(self) -> None:
        self._timer = None
        self._forget()
        self._wait()

    def _forget(self) -> None:
        now = self._clock.seconds()
        while self._remembered and self._remembered[0][0] <= now:
            self._limits.give_back(self._remembered.popleft()[1])


async def now_or_later(taken: bool | Deferred[bool]) -> bool:
    """Return an answer of `Limits`."""
    return await taken if isinstance(taken, Deferred) else taken


def account_key(account: str) -> str:
    """Return what stands for an account in a key.

    Of one length, whatever a client says; and no name of its making is kept.
    """
    return hashlib.sha256(account.lower().encode()).hexdigest()[:32]
