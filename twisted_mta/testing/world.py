r"""A world of agents and other hosts on one network, with one clock, one DNS and one seed.

::

    with World(seed=7) as world:
        agent = world.agent("example.test")
        hop = world.hop("far.example").defer(2).then_accept()
        world.latency = (0.01, 0.3)
        world.at(5, world.crash, agent)
        agent.submit(b"Subject: Hi\r\n\r\n", sender="", recipients=["bob@far.example"])
        world.advance(hours=1)

The same seed and the same calls give the same run, octet by octet: `World.digest` says so.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from twisted.internet.defer import Deferred, execute

from ..config import Listener
from ..interfaces import Executor
from ..queue.store.contract import Operation, Result, StoreError
from ..system.real_world import system_random
from .commits import Fate
from .fake_hop import FakeHop
from .machine import Machine
from .memory_mta import SMTP, MemoryMTA
from .resolver import FakeResolver
from .world_network import Cut, CutAt, Span, WorldNetwork, WorldResolver, drawn

__all__ = ["Cut", "CutAt", "Fate", "Span", "World"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

_WEEK = timedelta(days=7)


class World:
    """Agents and other hosts on one network, with one clock, one DNS and one seed.

    It is a context manager; at the end all agents lose their power, and nothing is waited for.

    Args:
        seed: of all that is drawn.
        tls: whether agents and hops offer STARTTLS. Exact replay is promised without it.

    Attributes:
        latency: the least and most seconds that octets, attempts to connect and answers of the DNS
            are on their way.
        commit_time: the least and most seconds of a transaction of a queue.
        disk_time: the least and most seconds of a call of a disk.
        down_time: seconds from the crash of an agent to its next start.
        network: connections and their faults (`world_network.WorldNetwork`).
        resolver: the DNS and its faults (`resolver.FakeResolver`).
        agents: by domain.
        hops: by address.
        committed: each is called with the domain of an agent, operations and results of each of its
            transactions that is durable, before the agent hears of it.
        crashed: each is called with the domain of an agent that has crashed, when its disks are as
            they will be found.
        transcript: a line for each thing that has happened; its first word is the time.
    """

    def __init__(self, seed: int = 0, *, tls: bool = False) -> None:
        self._seed = seed
        self._tls = tls
        self._random = system_random()
        self._random.seed(f"world {seed}")
        self.transcript: list[str] = []
        self.committed: list[Callable[[str, Sequence[Operation], Sequence[Result]], object]] = []
        self.crashed: list[Callable[[str], object]] = []
        self.network = WorldNetwork(self._random, self.note)
        self.resolver = FakeResolver()
        self.agents: dict[str, MemoryMTA] = {}
        self.hops: dict[str, FakeHop] = {}
        self.commit_time: Span = (0.0, 0.0)
        self.disk_time: Span = (0.0, 0.0)
        self.down_time = 5.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for agent in self.agents.values():
            agent.when_off = lambda: None
            agent.lose_power()
        self.network.settle()
        for bound in list(self.network.ports.values()):
            bound.stopListening()
        for ends in self.network.connections:
            ends[0].cut()  # type: ignore[attr-defined]
        for call in list(self.network.getDelayedCalls()):
            call.cancel()
        for agent in self.agents.values():
            agent.remove_directory()

    # What is in it.

    @property
    def latency(self) -> Span:
        """The least and most seconds that octets and answers are on their way."""
        return self.network.latency

    @latency.setter
    def latency(self, span: Span) -> None:
        self.network.latency = span

    def agent(self, domain: str, **settings: Any) -> MemoryMTA:
        """Start an agent for a domain, with an address and records of its own.

        Args:
            domain: the local domain.
            settings: of `MemoryMTA` and `Config`.
        """
        address = f"198.51.100.{self.network.machines + 1}"
        if not self._tls:
            endpoint = f"tcp:{SMTP[1]}:interface={address}"
            settings = {
                "listeners": (Listener(endpoint=endpoint, tls="none"),),
                "tls_certificate": None,
                **settings,
            }
        agent = MemoryMTA(
            domain=domain,
            seed=self._seed,
            reactor=self.network,
            resolver=self.resolver,
            file_executor=self._file_executor,
            resolver_of=lambda machine, resolver: WorldResolver(
                machine,
                resolver,
                self._random,
                lambda: self.latency,
                lambda what: self.note(domain, what),
            ),
            **settings,
        )
        assert agent.address == address
        self.agents[domain] = agent
        self._watch_commits(agent)
        directory = agent.directory
        agent.files.watch = lambda operation, path: self.note(
            domain, f"{operation} {path.replace(directory, '~')}"
        )
        agent.when_off = lambda: self._has_crashed(agent)
        agent.start()
        return agent

    def hop(self, *domains: str, address: str = "") -> FakeHop:
        """Return a new next hop for domains, at an address of its own.

        Args:
            domains: whose MX it is.
            address: by default one of 192.0.2.0/24.
        """
        address = address or f"192.0.2.{len(self.hops) + 1}"
        name = f"mx{len(self.hops) + 1}.example"
        hop = FakeHop(
            self.network,
            resolver=self.resolver,
            wall_time=lambda: 0.0,
            name=name,
        )
        if not self._tls:
            hop.no_tls()
        self.network.listenTCP(SMTP[1], hop, interface=address)
        self.hops[address] = hop
        records = "".join(f"{domain}. MX 10 {name}.\n" for domain in domains)
        self.resolver.add_zone(f"{name}. A {address}\n{records}")
        return hop

    # Time.

    def at(
        self, seconds: float, function: Callable[_P, Any], *args: _P.args, **kwargs: _P.kwargs
    ) -> None:
        """Call a function so many seconds from now."""
        self.network.callLater(seconds, function, *args, **kwargs)

    def advance(
        self,
        seconds: float | timedelta = 0.0,
        *,
        minutes: float = 0.0,
        hours: float = 0.0,
        days: float = 0.0,
    ) -> None:
        """Advance the clock, from each timer on the way to the next (`MemoryMTA.advance`)."""
        if isinstance(seconds, timedelta):
            seconds = seconds.total_seconds()
        self.network.advance(seconds + 60.0 * minutes + 3600.0 * hours + 86_400.0 * days)

    def advance_until(self, predicate: Callable[[], _T], limit: float | timedelta = _WEEK) -> _T:
        """Advance the clock to the first timer after which a predicate is true.

        Raises:
            TimeoutError: it was not true within the limit, in seconds.
        """
        seconds = limit.total_seconds() if isinstance(limit, timedelta) else limit
        end = self.network.seconds() + seconds
        self.network.settle()
        while not (result := predicate()):
            if not self.network.advance_to_next(end):
                raise TimeoutError(
                    f"found {predicate} not true within {seconds:g} s on the clock,"
                    " expected it to become true"
                )
        return result

    # Faults of agents; those of connections, names and disks are at `network`, `resolver` and
    # `MemoryMTA.files`.

    def crash(self, agent: MemoryMTA) -> None:
        """Cut the power of an agent now; as after each crash it starts again after `down_time`."""
        if agent.is_running:
            agent.lose_power()

    def crash_at_write(self, agent: MemoryMTA, writes: int) -> None:
        """Cut the power of an agent at the first call of its disk after so many."""
        if agent.is_running:
            agent.files.cut_power_in(writes)

    def crash_at_commit(self, agent: MemoryMTA, commits: int, *, durable: bool) -> None:
        """Cut the power of an agent at the first transaction after so many.

        Args:
            agent: the agent.
            commits: transactions that succeed before.
            durable: whether the transaction is on the disk.
        """
        fate = Fate.CRASH_AFTER if durable else Fate.CRASH_BEFORE
        agent.commits.next(fate, StoreError("crash"), after=commits)

    def fail_commit(self, agent: MemoryMTA, commits: int, *, durable: bool) -> None:
        """Let the first transaction after so many fail; the agent cannot know if it is durable."""
        fate = Fate.IN_DOUBT if durable else Fate.REFUSED
        agent.commits.next(fate, StoreError(os.strerror(errno.EIO)), after=commits)

    def _has_crashed(self, agent: MemoryMTA) -> None:
        self.note(agent.domain, "has lost its power")
        for watcher in self.crashed:
            watcher(agent.domain)
        self.at(self.down_time, self.start, agent)

    def start(self, agent: MemoryMTA) -> None:
        """Start an agent, unless it runs; where it cannot start, that counts as a crash."""
        if agent.is_running:
            return
        self.note(agent.domain, "starts")
        try:
            agent.boot()
        except Exception as error:
            self.note(agent.domain, f"cannot start: {type(error).__name__}")
            agent.lose_power()

    def restart(self, agent: MemoryMTA) -> None:
        """Stop an agent as SIGTERM does, and start it again once it has stopped."""
        if agent.can_stop:
            self.note(agent.domain, "stops")
            agent.end().addBoth(lambda _: self.start(agent))

    def step_clock(self, agent: MemoryMTA, seconds: float) -> None:
        """Set the wall clock of an agent ahead or back; timers go on as before."""
        self.note(agent.domain, f"wall clock {seconds:+g} s")
        agent.clock_offset += seconds

    def mend(self) -> None:
        """End all faults, and start all agents that are down."""
        self.network.mend()
        self.resolver.mend_all()
        for agent in self.agents.values():
            agent.files.mend()
            agent.commits.forget()
            self.start(agent)
        for hop in self.hops.values():
            hop.accept()

    # Replay.

    def note(self, who: str, what: str) -> None:
        """Add a line to the transcript."""
        self.transcript.append(f"{self.network.seconds():.6f} {who} {what}")

    def digest(self) -> str:
        """Return a digest of the transcript so far: equal runs have equal digests."""
        return hashlib.sha256("\n".join(self.transcript).encode()).hexdigest()

    # Executors.

    def _watch_commits(self, agent: MemoryMTA) -> None:
        commits, domain = agent.commits, agent.domain
        commits.seconds = lambda: drawn(self._random, self.commit_time)
        commits.early = lambda: self._random.random() < 0.5

        def written(operations: Sequence[Operation], results: Sequence[Result]) -> None:
            self.note(domain, "commits " + " ".join(type(each).__name__ for each in operations))
            for watcher in self.committed:
                watcher(domain, operations, results)

        commits.written = written

    def _file_executor(self, machine: Machine) -> Executor:
        def run(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Deferred[Any]:
            if not machine.is_up:
                return Deferred()
            seconds = drawn(self._random, self.disk_time)
            if not seconds:
                return self._unless_off(machine, function, *args, **kwargs)
            answer: Deferred[Any] = Deferred()
            machine.callLater(
                seconds,
                lambda: self._unless_off(machine, function, *args, **kwargs).chainDeferred(answer),
            )
            return answer

        return run

    @staticmethod
    def _unless_off(
        machine: Machine, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Deferred[Any]:
        """Call a function; the Deferred never fires if the machine has crashed meanwhile."""
        result: Deferred[Any] = execute(function, *args, **kwargs)
        if machine.is_up:
            return result
        result.addErrback(lambda failure: None)
        return Deferred()
