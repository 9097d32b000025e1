"""Machines of a cluster in one process, on a clock, with a real database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from tests.queue.store.test_postgresql import server
from twisted_mta.cluster.away import DatabaseAway
from twisted_mta.cluster.cluster import Cluster
from twisted_mta.cluster.exchange import channel_of
from twisted_mta.cluster.machines import OwnMachine
from twisted_mta.cluster.schema import scripts, upgrade
from twisted_mta.interfaces import LimitKey
from twisted_mta.workers.machine_limits import MachineLimits


def connect() -> psycopg.Connection[tuple[Any, ...]]:
    """Return a connection to the tables of the cluster."""
    return _Overheard.connect(
        server().url, autocommit=True, options="-c search_path=twisted_mta -c lock_timeout=2000"
    )


class _Overheard(psycopg.Connection[tuple[Any, ...]]):
    """A connection that knows which channels it has notified: the real way takes some time."""

    def execute(self, query: Any, params: Any = None, **kwargs: Any) -> Any:
        if "pg_notify" in str(query):
            NOTIFIED.append(params[0])
        return super().execute(query, params, **kwargs)


NOTIFIED: list[str] = []


class InlineDatabase:
    """A `cluster.database.ClusterDatabase` whose calls run at once.

    Attributes:
        away: whether the database cannot be reached.
    """

    def __init__(self, machine: str, woken: Callable[[], None]) -> None:
        self.connection = connect()
        upgrade(self.connection, scripts())
        self._channel = channel_of(machine)
        self.away = False
        self._woken = woken

    def start(self) -> None: ...

    def stop(self) -> None:
        self.connection.close()

    def run(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Deferred[Any]:
        if self.away:
            return fail(DatabaseAway("it is away"))
        try:
            return succeed(function(self.connection, *args, **kwargs))
        except Exception:
            return fail()

    def hear(self) -> bool:
        """Pass on the notifications that have come; return whether there were any."""
        if self._channel not in NOTIFIED:
            return False
        NOTIFIED[:] = [each for each in NOTIFIED if each != self._channel]
        self._woken()
        return True


class Member:
    """A machine, with the limits of its one process.

    Attributes:
        cluster: its membership.
        limits: its limits.
        database: its connection.
        taken: how often each limit was taken, and not given back.
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self.cluster = Cluster(
            lambda: name,
            lambda id: OwnMachine(
                id=id, hostname=f"{id}.example", version="1", workers=1, settings="same"
            ),
            self._connect,
            period=lambda: 60.0,
            clock=clock,
            wall_time=lambda: 0.0,
        )
        self.limits = MachineLimits(self.cluster.credits, clock=clock)
        self.cluster.credits.serve = self.limits.ledger.serve
        self.cluster.counts = self.limits.failures
        self.taken: dict[LimitKey, int] = {}
        self.cluster.start()

    def _connect(self, id: str, woken: Callable[[], None]) -> Any:
        self.database = InlineDatabase(id, woken)
        return self.database

    def wait(self, key: LimitKey, limit: int) -> None:
        """Wait for a credit."""
        answer = self.limits.wait(key, limit)
        if isinstance(answer, Deferred):
            answer.addCallback(lambda _: self._took(key)).addErrback(lambda _: None)
        else:
            self._took(key)

    def take(self, key: LimitKey, limit: int) -> list[bool]:
        """Take a credit; the answer is in the list, once it is there."""
        answers: list[bool] = []
        answer = self.limits.take(key, limit)
        deferred = answer if isinstance(answer, Deferred) else succeed(answer)
        deferred.addCallback(answers.append)
        deferred.addCallback(lambda _: self._took(key) if answers[0] else None)
        return answers

    def _took(self, key: LimitKey) -> None:
        self.taken[key] = self.taken.get(key, 0) + 1

    def give_back(self, key: LimitKey) -> None:
        """Give a credit back."""
        self.taken[key] -= 1
        self.limits.give_back(key)

    def die(self) -> None:
        """End without a word."""
        self.database.away = True
        self.stop()

    def stop(self) -> None:
        """End in order."""
        self.limits.close()
        self.cluster.stop()
        self.database.connection.close()


class Members:
    """All machines.

    Attributes:
        clock: of all of them; the database has its own.
    """

    def __init__(self) -> None:
        NOTIFIED.clear()
        self.clock = Clock()
        self.members: list[Member] = []

    def join(self, *names: str) -> list[Member]:
        """Let machines join, and hear of each other."""
        joined = [Member(name, self.clock) for name in names]
        self.members += joined
        self.pass_time(4)
        return joined

    def settle(self) -> None:
        """Let all exchanges take place that follow from each other."""
        for _ in range(200):
            self.clock.advance(0)
            heard = [each.database.hear() for each in self.members if not each.database.away]
            now = self.clock.seconds()
            if not any(heard) and all(
                call.getTime() > now for call in self.clock.getDelayedCalls()
            ):
                return
        raise AssertionError("the exchanges do not end")

    def pass_time(self, seconds: float) -> None:
        """Let time pass for the machines."""
        for _ in range(int(seconds * 4)):
            self.clock.advance(0.25)
            self.settle()

    def close(self) -> None:
        """End all."""
        for each in self.members:
            if not each.database.connection.closed:
                each.stop()
