"""Run a plan in a world, with the oracle watching; the same plan gives the same run."""

from __future__ import annotations

import errno
import os
import tempfile
import traceback
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher

from twisted_mta.agent.agent import Agent
from twisted_mta.agent.environment import Environment
from twisted_mta.config.tables import QueueSettings
from twisted_mta.queue.store.contract import StoreError, StoreFull
from twisted_mta.testing import FakeHop, MemoryMTA, World
from twisted_mta.testing.world_network import Cut

from .client import Sender
from .dialogue import Dialogues
from .oracle import Oracle, Violation
from .plan import (
    AGENTS,
    ALIAS,
    DISCARDED,
    HOPS,
    MEMBERS,
    MENDED,
    Plan,
    Step,
    content,
    message_id,
)

_DRAINED = 2 * 3600.0  # seconds after all faults in which all mail has an end
_STARTED_ANEW = 4  # one run of so many starts all agents anew at its end
_LOOK = 60.0  # seconds between two looks at the queues
_EXPECTED = (OSError, StoreError, StoreFull)
"""What the log of an agent may have: the faults that were put in."""


@frozen
class Result:
    """The end of a run.

    Attributes:
        plan: that was run.
        violations: of the promise.
        digest: of the transcript.
        transcript: line by line.
        counts: messages, acknowledged recipients, attempts, crashes, seconds on the clock.
    """

    plan: Plan
    violations: Sequence[Violation]
    digest: str
    transcript: Sequence[str]
    counts: Mapping[str, int]

    @property
    def kinds(self) -> Sequence[str]:
        """The kinds of violations, each once."""
        return tuple(dict.fromkeys(each.kind for each in self.violations))


class Run:
    """One run of a plan.

    Args:
        plan: the plan.
        world: in which it runs.
        aliases: the path of the file of aliases.
    """

    def __init__(self, plan: Plan, world: World, aliases: str) -> None:
        self._plan = plan
        self._world = world
        self.crashes = 0
        self.hops: dict[str, FakeHop] = {domain: world.hop(domain) for domain in HOPS}
        self._addresses = dict(zip(HOPS, world.hops, strict=True))
        # One domain has a second exchanger, which is that of another.
        first, second = (hop.name for hop in list(self.hops.values())[1:])
        world.resolver.add_zone(f"{HOPS[1]}. MX 10 {first}.\n{HOPS[1]}. MX 20 {second}.\n")
        names: dict[str, str] = {}
        self.oracle = Oracle(names)
        world.network.watchers.append(Dialogues(self.oracle))
        world.committed.append(
            lambda domain, operations, results: self.oracle.committed(
                world.agents[domain], operations, results
            )
        )
        world.crashed.append(self._crashed)
        latency, commit, disk = plan.speed
        world.latency = (latency / 10, latency)
        world.commit_time = (commit / 10, commit)
        world.disk_time = (disk / 10, disk)
        queue = QueueSettings(
            retry_minimum=20.0,
            retry_maximum=120.0,
            lifetime=plan.lifetime,
            delay_warning=plan.lifetime / 4,
            small_body=1024,
        )
        for number, domain in enumerate(AGENTS[: plan.agents]):
            settings: dict[str, Any] = {
                "queue": queue,
                "routes": {DISCARDED: "discard:"},
                "relay_from": ("127.0.0.0/8", "198.51.100.0/24"),
                "patience": Environment().patience,
            }
            if number == 0:
                settings["aliases"] = aliases
            if number == 2:
                settings["routes"] = {"*": f"smtp://{next(iter(names))}"}
            agent = world.agent(domain, **settings)
            names[agent.address] = self._addresses[domain] = agent.address
            names[agent.address] = domain

    def _crashed(self, domain: str) -> None:
        self.crashes += 1
        self.oracle.crashed(self._world.agents[domain])

    def schedule(self, steps: Sequence[Step]) -> None:
        """Put the steps on the clock."""
        for step in steps:
            self._world.at(step.at, self._do, step)

    def _do(self, step: Step) -> None:
        self._world.note("plan", str(step).strip())
        getattr(self, f"do_{step.what}")(*step.arguments)

    def _agent(self, domain: str) -> MemoryMTA:
        return self._world.agents[domain]

    # Traffic.

    def do_send(
        self,
        agent: str,
        number: int,
        sender: str,
        recipients: Sequence[str],
        size: int,
        notify: str,
    ) -> None:
        """Send a message to an agent by SMTP."""
        octets = content(number, size)
        self.oracle.offered(octets)
        Sender(
            self._world.network,
            self._addresses[agent],
            sender,
            recipients,
            octets,
            notify,
            lambda accepted: self.oracle.promised(message_id(number), accepted),
        ).send()

    def do_submit(
        self,
        agent: str,
        number: int,
        sender: str,
        recipients: Sequence[str],
        size: int,
        notify: str,
    ) -> None:
        """Submit a message as an application does; where it is refused, nothing was promised."""
        octets = content(number, size)
        self.oracle.offered(octets)
        if self._agent(agent).is_running:
            submitted: Deferred[Any] = self._agent(agent).mta.submit(
                octets, sender=sender, recipients=recipients, notify=notify or None
            )
            submitted.addCallbacks(
                lambda _: self.oracle.promised(message_id(number), recipients),
                lambda failure: None,
            )

    def do_act(self, action: str, agent: str, number: int) -> None:
        """Hold, release, retry or remove a message at an agent, as its operator."""
        queue = self._agent(agent).mta.queue
        if self._agent(agent).is_running:
            done: Deferred[Any] = getattr(queue, action)(to=f"m{number}r*")
            done.addErrback(lambda failure: self.oracle.in_doubt(number))

    def do_suspend(self, agent: str, destination: str, seconds: float) -> None:
        """Suspend a destination at an agent for a time, as its operator."""
        if self._agent(agent).is_running:
            self._ignore_errors(self._suspend(self._agent(agent).mta.agent, destination, seconds))

    def do_resume(self, agent: str, destination: str) -> None:
        """Resume a destination at an agent, or all if it is empty, as its operator."""
        if self._agent(agent).is_running:
            self._ignore_errors(self._resume(self._agent(agent).mta.agent, destination or None))

    @staticmethod
    async def _suspend(agent: Agent, destination: str, seconds: float) -> None:
        suspensions = agent.operator_suspensions
        await suspensions.suspend(
            agent.shards[0], destination, seconds=seconds, reason="by plan", by="sim"
        )
        await suspensions.take([], by="sim")

    @staticmethod
    async def _resume(agent: Agent, destination: str | None) -> None:
        suspensions = agent.operator_suspensions
        resumed = await suspensions.resume(agent.shards[0], destination, by="sim")
        await suspensions.take([each.name for each in resumed], by="sim")

    @staticmethod
    def _ignore_errors(action: Coroutine[Any, Any, None]) -> None:
        # The agent may crash, and its queue may be closed, at any moment.
        Deferred.fromCoroutine(action).addErrback(lambda failure: None)

    # Faults.

    def do_crash(self, agent: str) -> None:
        """Cut the power of an agent."""
        self._world.crash(self._agent(agent))

    def do_crash_at_write(self, agent: str, writes: int) -> None:
        """Cut the power of an agent at a call of its disk."""
        self._world.crash_at_write(self._agent(agent), writes)

    def do_crash_at_commit(self, agent: str, commits: int, durable: bool) -> None:
        """Cut the power of an agent at a transaction."""
        self._world.crash_at_commit(self._agent(agent), commits, durable=durable)

    def do_fail_commit(self, agent: str, commits: int, durable: bool) -> None:
        """Let a transaction fail."""
        self._world.fail_commit(self._agent(agent), commits, durable=durable)

    def do_disk_error(self, agent: str, operation: str, error: str, after: int) -> None:
        """Let a call of the disk fail."""
        number = getattr(errno, error)
        self._agent(agent).files.fail_next(
            operation, OSError(number, os.strerror(number)), after=after
        )

    def do_disk_full(self, agent: str, octets: int, seconds: float) -> None:
        """Let only so many octets fit on the disk for a time."""
        files = self._agent(agent).files
        files.capacity = files.used + octets
        self._world.at(seconds, setattr, files, "capacity", None)

    def do_restart(self, agent: str) -> None:
        """Stop and start an agent."""
        self._world.restart(self._agent(agent))

    def do_clock(self, agent: str, seconds: float) -> None:
        """Set a wall clock ahead or back."""
        self._world.step_clock(self._agent(agent), seconds)

    def do_names(self, domain: str, how: str, seconds: float) -> None:
        """Let lookups of a domain fail for a time."""
        resolver = self._world.resolver
        if how == "silent":
            resolver.hold(domain)
            self._world.at(seconds, resolver.release, domain)
        else:
            if how == "denied":
                resolver.deny(domain)
            else:
                resolver.fail(domain, how)
            self._world.at(seconds, resolver.mend, domain)

    def do_hop(self, domain: str, act: str, times: int, stage: Any, to: str) -> None:
        """Let a next hop misbehave."""
        hop = self.hops[domain]
        if act == "refuse":
            hop.refuse(times, "550 5.7.1 By plan", at=stage, to=to)
        elif act in ("defer", "close"):
            code = "451 4.3.0" if act == "defer" else "421 4.3.2"
            hop.defer(times, f"{code} By plan", at=stage, to=to)
        else:
            getattr(hop, act)(times, at=stage)

    def do_slow(self, domain: str, seconds: float) -> None:
        """Let a next hop take its time for each reply."""
        self.hops[domain].slow(seconds)

    def do_cut_next(self, domain: str, at: Any, octets: int) -> None:
        """Break the next connection to a host."""
        if domain in self._addresses:
            self._world.network.cut_next(self._addresses[domain], Cut(at, octets))

    def do_cut_all(self, domain: str) -> None:
        """Break all connections of a host."""
        self._world.network.cut_all(self._addresses[domain])

    def do_part(self, domain: str, seconds: float) -> None:
        """Let a host be out of reach for a time."""
        network = self._world.network
        network.part(self._addresses[domain])
        self._world.at(seconds, network.rejoin, self._addresses[domain])

    def do_loss(self, part: float, seconds: float) -> None:
        """Let a part of all connections break for a time."""
        self._world.network.loss = part
        self._world.at(seconds, setattr, self._world.network, "loss", 0.0)

    def do_silent_crashes(self, part: float, seconds: float) -> None:
        """Let a part of the peers of an agent not hear of its crashes, for a time."""
        self._world.network.silent_crashes = part
        self._world.at(seconds, setattr, self._world.network, "silent_crashes", 0.0)

    # The end.

    def finish(self) -> None:
        """End all faults, let everything be delivered, start anew, and judge."""
        world = self._world
        world.mend()
        for hop in self.hops.values():
            hop.slow(0.0)
        agents = list(world.agents.values())
        world.advance(world.down_time + 1)  # one may have crashed just now
        for agent in agents:
            agent.mta.queue.release(all=True).addErrback(lambda failure: None)
            self.do_resume(agent.domain, "")  # wall clocks that were set back prolong suspensions
        end = world.network.seconds() + _DRAINED
        while any(_in_queue(each) for each in agents) and world.network.seconds() < end:
            world.advance(_LOOK)
        queued = self._queued(agents)
        for name, recipient in queued:
            self.oracle.note("stuck", f"{name} for {recipient}")
        if not self._plan.seed % _STARTED_ANEW:
            for agent in agents:
                world.crash(agent)
            world.advance(world.down_time + _LOOK)
            self._look_at_disks(agents, queued)
        self.oracle.judge(
            agents,
            list(self.hops.values()),
            queued,
            faultless=not any(step.is_fault for step in self._plan.steps),
        )

    def _look_at_disks(
        self, agents: Sequence[MemoryMTA], queued: Mapping[tuple[str, str], None]
    ) -> None:
        """Look for body files that are left after a start without mail, and for lost ones."""
        for agent in agents:
            left = agent.files.names(f"{agent.directory}/body") if not queued else []
            if left:
                self.oracle.note("a body file is left", f"{agent.domain}: {', '.join(left)}")
            census = agent.mta.agent.shards[0].store.census()
            if census.quarantined:
                self.oracle.note("quarantined", f"{census.quarantined} messages of {agent.domain}")

    def _queued(self, agents: Sequence[MemoryMTA]) -> dict[tuple[str, str], None]:
        queued: dict[tuple[str, str], None] = {}
        for agent in agents:
            if not _in_queue(agent):
                continue
            listed: list[Any] = []
            agent.mta.queue.list().addCallback(listed.extend)
            self._world.advance(10)
            for message in listed:
                name = self.oracle.name_of(agent.domain, message["id"])
                for recipient in message["recipients"]:
                    queued[name, recipient["address"]] = None
        return queued


def _in_queue(agent: MemoryMTA) -> int:
    return agent.mta.agent.shards[0].store.census().recipients


def run(plan: Plan) -> Result:
    """Run a plan from its begin to the verdict."""
    errors: list[Mapping[str, Any]] = []

    def observe(event: Any) -> None:
        failure = event.get("log_failure")
        if failure is not None and not failure.check(*_EXPECTED):
            errors.append(event)

    globalLogPublisher.addObserver(observe)
    try:
        with World(seed=plan.seed) as world:
            simulated = Run(plan, world, _aliases())
            oracle = simulated.oracle
            try:
                simulated.schedule(plan.steps)
                world.advance(MENDED)
                simulated.finish()
            except Exception:
                oracle.note("an exception", traceback.format_exc(limit=-6))
            for event in errors:
                oracle.note("an error in the log", event["log_failure"].getTraceback()[-1500:])
            counts = {
                "messages": oracle.messages,
                "acknowledged": len(oracle.acknowledged),
                "attempts": oracle.attempts,
                "crashes": simulated.crashes,
                "seconds": int(world.network.seconds()),
            }
            return Result(plan, oracle.violations, world.digest(), world.transcript, counts)
    finally:
        globalLogPublisher.removeObserver(observe)


_made: list[str] = []


def _aliases() -> str:
    """Return the path of the file of aliases, made once in this process."""
    if not _made or not os.path.exists(_made[0]):
        directory = tempfile.mkdtemp(prefix="simulation-")
        path = os.path.join(directory, "aliases")
        with open(path, "w", encoding="ascii") as file:
            file.write(f"{ALIAS.partition('@')[0]}: {', '.join(MEMBERS)}\n")
        _made[:] = [path]
    return _made[0]
