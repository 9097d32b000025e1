"""Guessing is made slow: failed authentications are counted by account and by address.

The count is one over all workers (`recent`). An account is judged one attempt at a time, wherever
they come from: nobody gets more guesses by making them at once.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

from attrs import define, field, frozen

from ..interfaces import Clock, LimitKey, Limits
from .sliding_window import Recent, account_key, now_or_later

# Of one process. An attacker with a botnet has many addresses, and every failure is remembered:
# beyond this the oldest is forgotten early. One takes less than 1 KiB.
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
        timed: see `Recent`.
    """

    settings: ThrottleSettings
    _limits: Limits = field(alias="limits")
    _clock: Clock = field(alias="clock")
    _timed: bool = field(default=False, alias="timed")
    _failures: Recent = field(init=False)

    @_failures.default
    def _default_failures(self) -> Recent:
        return Recent(
            limits=self._limits,
            clock=self._clock,
            period=self.settings.period,
            most=_MOST_REMEMBERED,
            timed=self._timed,
        )

    def update(self, settings: ThrottleSettings) -> None:
        """Count by other settings from now on."""
        self.settings = settings
        self._failures.period = settings.period

    async def turn(self, account: str) -> Callable[[], None]:
        """Wait until nobody else is being judged as ``account``; return what ends the turn."""
        key = ("auth", account_key(account))
        await now_or_later(self._limits.wait(key, 1))
        return lambda: self._limits.give_back(key)

    async def allows(self, account: str, address: str | None) -> bool:
        """Whether there were not too many failures already."""
        for key, limit in self._keys(account, address):
            if not await self._failures.allows(key, limit):
                return False
        return True

    async def failed(self, account: str, address: str | None) -> None:
        """Count a failure."""
        for key, limit in self._keys(account, address):
            await self._failures.add(key, limit)

    def close(self) -> None:
        """Stop: no timer is left."""
        self._failures.close()

    def _keys(self, account: str, address: str | None) -> list[tuple[LimitKey, int]]:
        settings = self.settings
        keys: list[tuple[LimitKey, int]] = []
        if settings.per_address:
            keys.append((("auth failures", "address", _network(address)), settings.per_address))
        if settings.per_account and account:
            keys.append((("auth failures", "account", account_key(account)), settings.per_account))
        return keys


def _network(address: str | None) -> str:
    """Return what one customer of a provider has: an IPv4 address, or a /64 of IPv6."""
    if address is None:
        return "local"
    parsed = ip_address(address.partition("%")[0])
    if isinstance(parsed, IPv6Address):
        return str(IPv6Address(int(parsed) >> 64 << 64))
    return str(parsed)
