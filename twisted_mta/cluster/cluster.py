"""This machine's membership of its cluster: it renews its lease, and exchanges credits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..interfaces import Clock, LimitKey, WallTime
from ..mail.printable import printable
from ..system.postgresql import PatientConnection
from . import exchange, failures
from .away import DatabaseAway
from .credits import Credits, Request
from .database import ClusterDatabase, Thread
from .exchange import Answer, Lapsed, channel_of
from .failures import Failures
from .machines import ClusterStatus, Machine, OwnMachine
from .schema import Database

BEAT = 2.0
"""Seconds between two renewals of the lease."""

_LOOK = 3  # beats between two looks at the other machines
_SWEEP = 30  # beats between two removals of what machines have left
_LOOK_AT_CLOCK = 0.25  # seconds between two looks at the standing, without the database


Release = Callable[[tuple[str, ...], int], Deferred[None] | None]
"""Closes idle connections, given the name of the next hop and how many may stay; None: at once."""


class Cluster:
    """One machine of a cluster.

    Args:
        machine: returns the random id of this machine, from its state directory; blocks.
        own: returns what the machine with that id says of itself.
        connect: returns the connection, given the id and what is called with notifications.
        period: returns the seconds for which they count.
        clock: for the beat.
        wall_time: to compare the clocks of the machines.

    Attributes:
        id: the random id of this machine; empty before the start.
        credits: of limits.
        machines: as they were seen last, this one included; empty before that.
        machines_at: when they were seen, by the clock.
        release: closes idle connections to a destination, of which credits are returned.
        counts: returns how many failed authentications each limit has counted here.
        problem: why the database was of no use at the last beat, printable; empty: it was.
    """

    _log = Logger()

    def __init__(
        self,
        machine: Callable[[], str],
        own: Callable[[str], OwnMachine],
        connect: Callable[[str, Callable[[], None]], ClusterDatabase],
        *,
        period: Callable[[], float],
        clock: Clock,
        wall_time: WallTime,
    ) -> None:
        self._read_machine = machine
        self._own_of = own
        self._connect = connect
        self.id = ""
        self._clock = clock
        self._wall_time = wall_time
        self.credits = Credits(clock=clock, wake=self.woken)
        self.machines: Sequence[Machine] = ()
        self.machines_at = 0.0
        self.release: Release = lambda name, left: None
        self.counts: Callable[[], Mapping[LimitKey, int]] = dict
        self.problem = ""
        self._period = period
        self._told: dict[LimitKey, int] = {}  # the counts that the others know
        self._read_until = 0.0  # of the counts of others, by the database's clock
        self._is_running = False
        self._registered: bool | None = None  # None: it has just started; False: it has lapsed
        self._is_busy = False
        self._is_woken = False
        self._has_heard = False
        self._beats = 0
        self._beat_due = False
        self._beating: IDelayedCall | None = None
        self._going: IDelayedCall | None = None
        self._looking: IDelayedCall | None = None

    # Its life.

    def start(self) -> None:
        """Join the others.

        Raises:
            OSError: the id of this machine cannot be read.
            ValueError: it is none.
        """
        self.id = self._read_machine()
        self._database = self._connect(self.id, self._heard)
        self._is_running = True
        self._database.start()
        self._beat()
        self._look()

    def stop(self) -> Deferred[None]:
        """Leave the others; fires when that is done, or impossible."""
        if not self._is_running:
            return succeed(None)
        self._is_running = False
        for timer in (self._beating, self._going, self._looking):
            if timer is not None and timer.active():
                timer.cancel()
        left: Deferred[None] = succeed(None)
        if self._registered is not None:
            left = self._database.run(exchange.leave, self.id)
        return left.addErrback(lambda failure: None).addCallback(lambda _: self._database.stop())

    # Beats.

    def woken(self) -> None:
        """Exchange credits soon: there is something to tell, or to hear."""
        self._is_woken = True
        if self._going is None and not self._is_busy and self._is_running:
            # In the next turn, with all that this one brings.
            self._going = self._clock.callLater(0, self._go)

    def _heard(self) -> None:
        """Ask again for what waits: another machine has returned some, or wants some."""
        self._has_heard = True
        self.woken()

    def _beat(self) -> None:
        self._beating = self._clock.callLater(BEAT, self._beat)
        self._beats += 1
        self._beat_due = True
        self.woken()

    def _look(self) -> None:
        """Go by the clock where the database does not answer."""
        self._looking = self._clock.callLater(_LOOK_AT_CLOCK, self._look)
        self.credits.look()
        impatient_at = self.credits.impatient_at
        if impatient_at is not None and self._clock.seconds() >= impatient_at:
            self.credits.repeat_impatient()
            self.woken()

    def _go(self) -> None:
        self._going = None
        if self._is_busy or not self._is_running:
            return
        self._is_busy, self._is_woken = True, False
        beat, self._beat_due = self._beat_due, False
        heard, self._has_heard = self._has_heard, False
        anew = self._registered is False
        requests = self.credits.requests(beat=beat, heard=heard, anew=anew)
        released = [
            self.release(each.key[1:], each.spare)
            for each in requests
            if each.returned and each.key[0] == "destination"
        ]
        waiting = [each for each in released if each is not None]
        if waiting:
            # Another machine may have as many connections as it has credits, and no more.
            DeferredList(waiting).addCallback(lambda _: self._exchange(requests, beat=beat))
        else:
            self._exchange(requests, beat=beat)

    def _exchange(self, requests: Sequence[Request], *, beat: bool) -> None:
        if not self._is_running:
            return
        begun = self._clock.seconds()
        starts = self._registered is None
        if self._registered:
            done = self._database.run(exchange.exchange, self.id, requests)
        else:
            done = self._database.run(
                _register_and_exchange,
                self._own_of(self.id),
                requests,
                starts=starts,
            )
        done.addCallbacks(
            self._exchanged, self._failed, callbackArgs=(begun, beat), errbackArgs=(requests,)
        )

    def _exchanged(self, answer: Answer, begun: float, beat: bool) -> None:
        self._is_busy = False
        self._registered = True
        self._mended()
        self.credits.exchanged(begun, answer.machines, answer.grants, answer.wanted)
        if beat and self._is_running:
            self._after_beat()
        if (self._is_woken or self.credits.has_news) and self._is_running:
            self.woken()

    def _failed(self, failure: Failure, requests: Sequence[Request]) -> None:
        self._is_busy = False
        self.credits.failed(requests)
        if failure.check(Lapsed):
            if self._is_running:
                self._registered = False
                self._log.warn(
                    "this machine was silent for too long, and the others went on without it"
                )
                self.woken()
            return
        if failure.check(DatabaseAway):
            self._note_problem(printable(failure.getErrorMessage()))
        else:
            self._log.failure("the limits of the cluster cannot be exchanged", failure)
            self._note_problem(printable(failure.getErrorMessage()))
        # The next beat tries again.

    def _note_problem(self, problem: str) -> None:
        if not self.problem:
            self._log.warn(
                "the limits of the cluster cannot be exchanged, and this machine goes on with its"
                " share of them: {error}",
                error=problem,
            )
        self.problem = problem or "unknown"

    def _mended(self) -> None:
        if self.problem:
            self.problem = ""
            self._log.info("the limits of the cluster are exchanged again")

    # The other machines.

    def status(self) -> ClusterStatus:
        """Return the machines, for people."""
        now = self._clock.seconds()
        return ClusterStatus(
            own=self.id,
            seen=now - self.machines_at if self.machines else None,
            machines=tuple(self.machines),
            limits=self.credits.standing.value,
            problem=self.problem,
        )

    def _after_beat(self) -> None:
        self._share_failures()
        if self._beats % _SWEEP == 0:
            self._database.run(exchange.sweep).addErrback(self._not_seen)
            self._database.run(failures.sweep).addErrback(self._not_seen)
        if self._beats % _LOOK == 1:
            seen = self._database.run(_see, self._own_of(self.id), self._wall_time)
            seen.addCallbacks(self._seen, self._not_seen)

    def _share_failures(self) -> None:
        counts = self.counts()
        changed = {key: count for key, count in counts.items() if count != self._told.get(key, 0)}
        changed.update((key, 0) for key in self._told if key not in counts)
        self._told.update(changed)
        shared = self._database.run(failures.share, self.id, changed, self._read_until)
        shared.addCallbacks(self._shared, self._not_shared, errbackArgs=(changed,))

    def _shared(self, result: tuple[Sequence[Failures], float]) -> None:
        read, self._read_until = result
        self._told = {key: count for key, count in self._told.items() if count}
        self.credits.failures.period = self._period()
        self.credits.failures.take(read, self._clock.seconds())

    def _not_shared(self, failure: Failure, changed: Mapping[LimitKey, int]) -> None:
        for key in changed:
            self._told[key] = -1  # what the others know is not known
        self._not_seen(failure)

    def _seen(self, machines: Sequence[Machine]) -> None:
        self.machines = machines
        self.machines_at = self._clock.seconds()

    def _not_seen(self, failure: Failure) -> None:
        if not failure.check(DatabaseAway):  # the beat says that
            self._log.failure("the machines of the cluster cannot be seen", failure)


def _register_and_exchange(
    database: Database, own: OwnMachine, requests: Sequence[Request], *, starts: bool
) -> Answer:
    exchange.register(database, own, starts=starts)
    return exchange.exchange(database, own.id, requests)


def _see(database: Database, own: OwnMachine, wall_time: WallTime) -> Sequence[Machine]:
    before = wall_time()
    there = exchange.now(database)
    ahead = (before + wall_time()) / 2 - there
    return exchange.machines(database, own, ahead)


def cluster_at(
    connect: Callable[[], PatientConnection],
    *,
    machine: Callable[[], str],
    own: Callable[[str], OwnMachine],
    period: Callable[[], float],
    thread: Thread,
    reactor: Any,
    wall_time: WallTime,
) -> Cluster:
    """Return this machine's membership of the cluster with a database.

    Args:
        connect: see `ClusterDatabase`.
        machine: see `Cluster`.
        own: see `Cluster`.
        period: see `Cluster`.
        thread: of the connection.
        reactor: IReactorTime and IReactorFDSet.
        wall_time: see `Cluster`.
    """

    def database(id: str, woken: Callable[[], None]) -> ClusterDatabase:
        return ClusterDatabase(
            connect,
            thread=thread,
            reactor=reactor,
            channel=channel_of(id),
            woken=woken,
        )

    return Cluster(machine, own, database, period=period, clock=reactor, wall_time=wall_time)
