"""Pools of source addresses: which address a message leaves from, and how many may today.

The addresses of a pool take turns. An address that warms up has a number of messages for each day
(in UTC); a message that finds no address waits for the next day, and never leaves from another.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from attrs import define, frozen
from twisted.internet.defer import Deferred

from ..config import SourceAddress, SourcePool
from ..interfaces import Executor, WallTime
from ..mail.next_hop import NextHop

_DAY = 86400
_PORTIONS = 100  # of a day's number: a process takes one at a time
_MOST_REFUSED = 10_000  # pairs of an address and a next hop that refused it


class Counts(Protocol):
    """The messages of a day, counted by all processes (`sent_counts.SentCounts`)."""

    def take(self, address: str, day: int, limit: int, wanted: int) -> int:
        """Count some messages more, within a limit; return how many."""
        ...

    def counted(self, day: int) -> dict[str, int]:
        """Return the messages of a day that were counted, by address."""
        ...


@frozen
class Choice:
    """The addresses that a message may leave from.

    Attributes:
        addresses: one of each family at most; empty: it waits.
        day: for which they were counted, since the epoch.
    """

    addresses: tuple[SourceAddress, ...]
    day: int

    @property
    def helos(self) -> tuple[tuple[str, str], ...]:
        """Our names in EHLO, by address, where they have one of their own."""
        return tuple((each.address, each.helo) for each in self.addresses if each.helo is not None)


@define
class _Taken:
    """The messages of a day that this process has counted for an address, and not sent."""

    day: int
    left: int = 0
    used_up: bool = False


class SourcePools:
    """The pools of one process.

    Args:
        counts: of all processes; None: no address warms up.
        executor: runs what blocks.
        wall_time: the time of day.
        seconds: the monotonic time.
    """

    def __init__(
        self,
        counts: Counts | None = None,
        *,
        executor: Executor | None = None,
        wall_time: WallTime,
        seconds: Callable[[], float],
    ) -> None:
        self._counts = counts
        self._executor = executor
        self._wall_time = wall_time
        self._seconds = seconds
        self._pools: dict[str, SourcePool] = {}
        self._turns: dict[tuple[str, int], int] = {}
        self._taken: dict[str, _Taken] = {}
        self._refused: dict[tuple[str, NextHop], float] = {}

    def use(self, pools: Iterable[SourcePool]) -> None:
        """Put other pools in force."""
        self._pools = {each.name: each for each in pools}
        for taken in self._taken.values():
            taken.used_up = False  # the numbers may be higher now

    @property
    def today(self) -> int:
        """The day since the epoch, in UTC."""
        return int(self._wall_time() // _DAY)

    def tomorrow(self) -> tuple[float, str]:
        """Return the seconds until the next day begins, and that day for people."""
        begins = (self.today + 1) * _DAY
        named = f"{datetime.fromtimestamp(begins, UTC):%Y-%m-%d %H:%M} UTC"
        # A second later: a timer may ring a little early by the wall clock.
        return begins - self._wall_time() + 1.0, named

    async def choose(self, name: str, next_hop: NextHop, avoid: Collection[str] = ()) -> Choice:
        """Choose the addresses that a message leaves from, and count it for each.

        `give_back` those that it does not leave from.

        Args:
            name: of the pool.
            next_hop: where the message goes.
            avoid: addresses that are not to be chosen.

        Raises:
            OSError: the counts cannot be written; as does `sqlite3.Error`.
        """
        day = self.today
        chosen = []
        for version in (4, 6):
            found = await self._of_family(name, version, day, next_hop, avoid)
            if found is not None:
                chosen.append(found)
        return Choice(tuple(chosen), day)

    async def _of_family(
        self, name: str, version: int, day: int, next_hop: NextHop, avoid: Collection[str]
    ) -> SourceAddress | None:
        pool = self._pools.get(name)
        addresses = [each for each in pool.address if each.version == version] if pool else []
        turn = self._turns.get((name, version), 0)
        for step in range(len(addresses)):
            each = addresses[(turn + step) % len(addresses)]
            if each.address in avoid or self._is_refused(each.address, next_hop):
                continue
            limit = each.limit(day)
            if limit is None or await self._take(each.address, day, limit):
                self._turns[name, version] = (turn + step + 1) % len(addresses)
                return each
        return None

    async def _take(self, address: str, day: int, limit: int) -> bool:
        taken = self._taken.get(address)
        if taken is None or taken.day != day:
            taken = self._taken[address] = _Taken(day)
        if taken.left:
            taken.left -= 1
            return True
        if taken.used_up or not limit or self._counts is None:
            return False
        wanted = max(1, limit // _PORTIONS)
        granted: int = await self._run(self._counts.take, address, day, limit, wanted)
        if not granted:
            taken.used_up = True
            return False
        taken.left += granted - 1
        return True

    def give_back(self, choice: Choice, used: str | None) -> None:
        """Take back the count of each chosen address that a message did not leave from.

        Args:
            choice: of `choose`.
            used: the address that it has left from; None: from none.
        """
        for each in choice.addresses:
            taken = self._taken.get(each.address)
            if each.address == used or taken is None or taken.day != choice.day:
                continue
            if each.limit(choice.day) is not None:
                taken.left += 1

    def avoid(self, address: str, next_hop: NextHop, seconds: float) -> None:
        """Do not choose an address for a next hop that has refused it, for a time."""
        if len(self._refused) == _MOST_REFUSED:
            del self._refused[next(iter(self._refused))]
        self._refused[address, next_hop.shared] = self._seconds() + seconds

    def _is_refused(self, address: str, next_hop: NextHop) -> bool:
        if not self._refused:
            return False
        until = self._refused.get((address, next_hop.shared))
        return until is not None and self._seconds() < until

    async def standing(self, name: str, next_hop: NextHop) -> list[dict[str, Any]]:
        """Return the addresses of a pool, each with the messages of today, in plain types.

        ``sent`` includes what a process has counted and not sent yet, up to a hundredth of
        ``limit``.

        Raises:
            OSError: the counts cannot be read; as does `sqlite3.Error`.
        """
        day, pool = self.today, self._pools.get(name)
        counted: dict[str, int] = {}
        limited = pool is not None and any(each.limit(day) is not None for each in pool.address)
        if self._counts is not None and limited:
            counted = await self._run(self._counts.counted, day)
        return [
            {
                "address": each.address,
                "helo": each.helo,
                "limit": each.limit(day),
                "sent": counted.get(each.address, 0) - self._left(each.address, day),
                "refused": self._is_refused(each.address, next_hop),
            }
            for each in (pool.address if pool else ())
        ]

    def _left(self, address: str, day: int) -> int:
        taken = self._taken.get(address)
        return taken.left if taken is not None and taken.day == day else 0

    def _run(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        assert self._executor is not None
        return self._executor(function, *args)

    @property
    def names(self) -> Sequence[str]:
        """The names of the pools."""
        return tuple(self._pools)
