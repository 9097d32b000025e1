"""Guessing is made slow: failed authentications are counted by account and by address.

What is counted is an `interfaces.Limits` credit for each failure, given back when the period is
over; so the count is one over all workers, exact, and kept by the parent. A worker that dies takes
the failures that it has counted with it. An account is judged one attempt at a time, wherever they
come from: nobody gets more guesses by making them at once.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from ..interfaces import Clock, LimitKey, Limits

# Of one process. An attacker with a botnet has many addresses, and every failure is remembered:
# beyond this the oldest is forgotten early. One takes about 1 KiB with its key and its timer.
_MOST_REMEMBERED = 10_000


@frozen(kw_only=True)
class ThrottleSettings:
    """How many failures there may be.

    Attributes:
        per_account: in the period; 0 is any number.
        per_address: likewise.
        period: seconds.
        delay: seconds that the answer to the first failure of a session is held back; to the
            second twice as long, and so on.
        longest_delay: the most of it.
    """

    per_account: int = 20
    per_address: int = 50
    period: float = 600.0
    delay: float = 1.0
    longest_delay: float = 5.0

    def delay_after(self, failures: int) -> float:
        """Return for how long to hold back an answer, in a session with that many failures."""
        return min(self.delay * failures, self.longest_delay)


@define(eq=False)
class Throttle:
    """Counts failures.

    Args:
        settings: may be changed at any time.
        limits: where they are counted.
        clock: for the period.
        timed: whether failures are forgotten when their time comes, by a timer that `close` ends,
            and not when the next one is counted.
    """

    settings: ThrottleSettings
    _limits: Limits = field(alias="limits")
    _clock: Clock = field(alias="clock")
    _timed: bool = field(default=False, alias="timed")
    _remembered: deque[tuple[float, LimitKey]] = field(factory=deque, init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)

    async def turn(self, account: str) -> Callable[[], None]:
        """Wait until nobody else is being judged as ``account``; return what ends the turn."""
        key = ("auth", _digest(account))
        await _now_or_later(self._limits.wait(key, 1))
        return lambda: self._limits.give_back(key)

    async def allows(self, account: str, address: str | None) -> bool:
        """Whether there were not too many failures already."""
        self._forget()
        for key, limit in self._keys(account, address):
            if not await _now_or_later(self._limits.take(key, limit)):
                return False
            self._limits.give_back(key)
        return True

    async def failed(self, account: str, address: str | None) -> None:
        """Count a failure."""
        until = self._clock.seconds() + self.settings.period
        for key, limit in self._keys(account, address):
            if await _now_or_later(self._limits.take(key, limit)):
                self._remembered.append((until, key))
        while len(self._remembered) > _MOST_REMEMBERED:
            self._limits.give_back(self._remembered.popleft()[1])
        self._wait()

    def close(self) -> None:
        """Stop: no timer is left."""
        self._timed = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _keys(self, account: str, address: str | None) -> list[tuple[LimitKey, int]]:
        settings = self.settings
        keys: list[tuple[LimitKey, int]] = []
        if settings.per_address:
            keys.append((("auth failures", "address", _network(address)), settings.per_address))
        if settings.per_account and account:
            keys.append((("auth failures", "account", _digest(account)), settings.per_account))
        return keys

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


async def _now_or_later(taken: bool | Deferred[bool]) -> bool:
    return await taken if isinstance(taken, Deferred) else taken


def _digest(account: str) -> str:
    # Of one length, whatever a client says; and no name of it is kept.
    return hashlib.sha256(account.lower().encode()).hexdigest()[:32]


def _network(address: str | None) -> str:
    """Return what one customer of a provider has: an IPv4 address, or a /64 of IPv6."""
    if address is None:
        return "local"
    parsed = ip_address(address.partition("%")[0])
    if isinstance(parsed, IPv6Address):
        return str(IPv6Address(int(parsed) >> 64 << 64))
    return str(parsed)
