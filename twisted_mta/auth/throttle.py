"""A brake on guessed passwords: failed authentications are counted by account and by address.

The counts hold for all workers together. An account is judged one attempt at a time, wherever they
come from, so parallel attempts gain no guesses.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv6Address, ip_address

from attrs import define, field, frozen

from ..interfaces import Clock, LimitKey, Limits
from .sliding_window import SlidingWindow, hashed_name, now_or_later

# Failures that one process remembers. A botnet has many addresses; beyond this number the oldest
# failure is forgotten early. One takes less than 1 KiB, all of them less than 10 MiB.
_MOST_REMEMBERED = 10_000


@frozen(kw_only=True)
class ThrottleSettings:
    """How many authentications may fail.

    Attributes:
        per_account: failures in a period; 0 is any number.
        per_address: likewise, from one IPv4 address or IPv6 /64.
        period: seconds.
        delay: seconds by which the reply to the first failure of a session is delayed; the second
            takes twice as long, and so on.
        longest_delay: seconds.
    """

    per_account: int = 20
    per_address: int = 50
    period: float = 600.0
    delay: float = 1.0
    longest_delay: float = 5.0

    def delay_after(self, failures: int) -> float:
        """Return the delay in seconds of the reply to that failure of a session, from 1."""
        return min(self.delay * failures, self.longest_delay)


@define(eq=False)
class Throttle:
    """Counts failed authentications, and refuses further attempts beyond a limit.

    Args:
        settings: changed by `update`.
        limits: where failures are counted.
        clock: for the period.
        timed: as for `SlidingWindow`.
    """

    settings: ThrottleSettings
    _limits: Limits = field(alias="limits")
    _clock: Clock = field(alias="clock")
    _timed: bool = field(default=False, alias="timed")
    _failures: SlidingWindow = field(init=False)

    @_failures.default
    def _default_failures(self) -> SlidingWindow:
        return SlidingWindow(
            limits=self._limits,
            clock=self._clock,
            period=self.settings.period,
            most=_MOST_REMEMBERED,
            timed=self._timed,
        )

    def update(self, settings: ThrottleSettings) -> None:
        """Apply other settings from now on."""
        self.settings = settings
        self._failures.period = settings.period

    @property
    def size(self) -> tuple[int, int]:
        """How many failures are remembered, and how many can be."""
        return self._failures.size

    async def turn(self, account: str) -> Callable[[], None]:
        """Wait until no other attempt on ``account`` is judged; return what ends the turn."""
        key = ("auth", hashed_name(account))
        await now_or_later(self._limits.wait(key, 1))
        return lambda: self._limits.give_back(key)

    async def allows(self, account: str, address: str | None) -> bool:
        """Whether neither the account nor the address has too many failures."""
        for key, limit in self._keys(account, address):
            if not await self._failures.allows(key, limit):
                return False
        return True

    async def failed(self, account: str, address: str | None) -> None:
        """Count a failure."""
        for key, limit in self._keys(account, address):
            await self._failures.add(key, limit)

    def close(self) -> None:
        """Stop the timer."""
        self._failures.close()

    def _keys(self, account: str, address: str | None) -> list[tuple[LimitKey, int]]:
        settings = self.settings
        keys: list[tuple[LimitKey, int]] = []
        if settings.per_address:
            keys.append((("auth failures", "address", _network(address)), settings.per_address))
        if settings.per_account and account:
            keys.append((("auth failures", "account", hashed_name(account)), settings.per_account))
        return keys


def _network(address: str | None) -> str:
    """Return the network of one customer of a provider: an IPv4 address, or a /64 of IPv6."""
    if address is None:
        return "local"
    parsed = ip_address(address.partition("%")[0])
    if isinstance(parsed, IPv6Address):
        # Those that IPv4 is mapped into (RFC 4291 §2.5.5.2) are one /64.
        return str(parsed.ipv4_mapped or IPv6Address(int(parsed) >> 64 << 64))
    return str(parsed)
