"""Suspending and resuming destinations for the operator (`queue.operator.suspended`).

The store remembers them; every process of the MTA takes over what it has there, at once where it is
told, and at its start. Of a queue that several machines share, each looks at it every five seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..interfaces import Clock, WallTime
from ..mail.printable import printable
from ..queue.operator.operations import (
    CountWaiting,
    ReadSuspended,
    Resume,
    Suspend,
    Suspended,
    WaitingCounts,
)
from ..queue.operator.suspended import (
    LONGEST_REASON,
    MOST_SUSPENDED,
    SuspendedDestination,
    read_destination,
)
from ..system.slices import Pace
from .shard import Shard

MOST_COUNTED = 100_000
"""Recipients of a domain that are counted when the operator asks."""

_TOGETHER = 200  # domains whose recipients are counted at once: some 10 ms for the database
_LONGEST_COUNT = 10.0  # seconds; domains that are left then are not counted


class OperatorSuspensions:
    """The suspended destinations of one process.

    Args:
        shards: returns its shards.
        counted: returns those whose mail this process counts: of a queue that several processes
            share, one process makes the mail due.
        wall_time: for the begin and the end of a suspension.
        pace: how the domains of a next hop are looked up.
        clock: for how long mail is counted.
    """

    _log = Logger()

    def __init__(
        self,
        shards: Callable[[], Sequence[Shard]],
        *,
        counted: Callable[[], Sequence[Shard]],
        wall_time: WallTime,
        pace: Pace,
        clock: Clock,
    ) -> None:
        self._shards = shards
        self._counted = counted
        self._wall_time = wall_time
        self._pace = pace
        self._clock = clock

    @property
    def in_force(self) -> Sequence[SuspendedDestination]:
        """Those that are in force in this process, by name."""
        shards = self._shards()
        return shards[0].runner.suspended_destinations if shards else ()

    async def suspend(
        self, shard: Shard, destination: str, *, seconds: float | None, reason: str, by: str
    ) -> SuspendedDestination:
        """Write to the store that a destination is suspended.

        Args:
            shard: any.
            destination: as the operator wrote it (`read_destination`).
            seconds: for how long; None: until it is resumed.
            reason: in the operator's words.
            by: the operator.

        Raises:
            ValueError: an argument cannot be used; the message is printable.
            StoreError: it cannot be written.
        """
        name, now = read_destination(destination), self._wall_time()
        if len(reason) > LONGEST_REASON:
            raise ValueError(
                f"found a reason of {len(reason):,} characters, expected at most {LONGEST_REASON}"
            )
        there: Suspended = await shard.commit.perform(ReadSuspended())
        others = [each for each in there.destinations if each.name != name]
        if sum(not each.ends_by(now) for each in others) >= MOST_SUSPENDED:
            raise ValueError(f"{MOST_SUSPENDED:,} destinations are suspended; resume some first")
        until = None if seconds is None else now + seconds
        suspended = SuspendedDestination(name, now, until, reason, by)
        await shard.commit.perform(Suspend(suspended))
        self._log.info(
            "{destination} is suspended by the operator{_until}: by={by} reason={reason}",
            destination=printable(name),
            _until="" if seconds is None else f" for {seconds:.0f} s",
            by=printable(by or "unknown"),
            reason=printable(reason),
        )
        return suspended

    async def resume(
        self, shard: Shard, destination: str | None, *, by: str
    ) -> Sequence[SuspendedDestination]:
        """Write to the store that a destination, or all (None), are resumed; return which were.

        Raises:
            ValueError: it is no destination.
            StoreError: it cannot be written.
        """
        name = None if destination is None else read_destination(destination)
        resumed: Suspended = await shard.commit.perform(Resume(name))
        for each in resumed.destinations:
            self._log.info(
                "{destination} is resumed by the operator: by={by}",
                destination=printable(each.name),
                by=printable(by or "unknown"),
            )
        return resumed.destinations

    async def take(self, resumed: Sequence[str] = (), *, by: str = "") -> None:
        """Take over what the store has; mail of destinations that were resumed is due at once.

        Args:
            resumed: their names.
            by: the operator.

        Raises:
            StoreError: it cannot be read.
        """
        shards = self._shards()
        if not shards:
            return
        read: Suspended = await shards[0].commit.perform(ReadSuspended())
        for shard in shards:
            shard.runner.take_suspended(read.destinations)
        for shard in self._counted() if resumed else ():
            # Not awaited: there may be much mail.
            retried = Deferred.fromCoroutine(self._retry(shard, resumed, by))
            retried.addErrback(self._not_retried)

    async def _retry(self, shard: Shard, names: Sequence[str], by: str) -> None:
        domains = await self._pace.work(shard.runner.domains_of_destinations(names))
        await shard.runner.retry_domains(domains, by=by)

    def _not_retried(self, failure: Failure) -> None:
        if not failure.check(CancelledError):  # at a stop
            self._log.failure("mail for resumed destinations waits for its retry time", failure)

    async def waiting(self, shard: Shard, names: Sequence[str]) -> Mapping[str, int]:
        """Return how many recipients wait in a shard for destinations, by name.

        Of very many domains, those are not counted that are left after `_LONGEST_COUNT`.

        Raises:
            StoreError: they cannot be counted.
        """
        counts = dict.fromkeys(names, 0)
        deadline = self._clock.seconds() + _LONGEST_COUNT
        for name in names:
            domains: Sequence[str] = [name]
            if not SuspendedDestination(name, 0.0).is_domain:
                domains = await self._pace.work(shard.runner.domains_of_destinations([name]))
            # Other mail is committed in between.
            for first in range(0, len(domains), _TOGETHER):
                if self._clock.seconds() >= deadline:
                    return counts
                asked = CountWaiting(tuple(domains[first : first + _TOGETHER]), MOST_COUNTED)
                counted: WaitingCounts = await shard.commit.perform(asked)
                counts[name] += sum(counted.by_domain.values())
        return counts
