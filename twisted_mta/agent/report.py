"""Reads what an agent keeps, for its report and its metrics; nothing in it has to know of that."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial

from attrs import asdict

from ..admin.status import MOST_SUSPENDED, Connections, ProcessReport, State, SuspendedHop, Trouble
from ..queue.operator.tallies import AGES, OLDEST, REASONS
from ..system.accepting import for_connections, limit
from ..telemetry.metrics import Metrics, table
from .agent import Agent

_KEPT_BY_FACTORIES = (
    (table.CONNECTIONS_TAKEN, "connections_taken"),
    (table.EARLY_DATA, "violations"),
    (table.DOWNGRADES, "downgrades"),
)


def read_agent(metrics: Metrics, agent: Agent) -> None:
    """Have metrics read from an agent whatever it counts itself; once for each agent."""
    for listener, factory in zip(agent.config.listeners, agent.listeners.factories, strict=True):
        for metric, attribute in _KEPT_BY_FACTORIES:
            metrics.read(metric, partial(getattr, factory, attribute), listener.kind)
    metrics.read(table.COMMIT_BATCHES, lambda: sum(shard.commit.batches for shard in agent.shards))
    metrics.read(
        table.COMMIT_OPERATIONS, lambda: sum(shard.commit.committed for shard in agent.shards)
    )
    traffic, memory = agent.traffic, agent.memory
    metrics.read(table.NEXT_HOP_CONNECTIONS, lambda: traffic.connections, "opened")
    metrics.read(table.NEXT_HOP_CONNECTIONS, lambda: traffic.reused, "reused")
    metrics.read(table.NEXT_HOP_CONNECTIONS, lambda: traffic.unconnected, "failed")
    metrics.read(table.HANDSHAKES_FAILED, lambda: traffic.handshake_failures, "client")
    metrics.read(table.TLS_CLEAR_RETRIES, lambda: traffic.clear_retries)
    metrics.read(table.CREDENTIALS_REFUSED, lambda: traffic.credentials_refused)
    metrics.read(table.TLS_ALARMS, lambda: memory.alarms)
    for age in (*(name for name, _ in AGES), OLDEST):
        metrics.read(table.QUEUE_AGE, partial(_by_age, agent, age), age)
    for reason in REASONS:
        metrics.read(table.QUEUE_DEFERRED_FOR, partial(_by_reason, agent, reason), reason)
    metrics.read(table.TRACES_OPEN, lambda: len(agent.tracing.traces))
    metrics.read(table.NEXT_HOPS_SUSPENDED, lambda: len(agent.suspended()))


def _by_age(agent: Agent, age: str) -> int:
    return sum(shard.tallies.ages().get(age, 0) for shard in agent.shards)


def _by_reason(agent: Agent, reason: str) -> int:
    return sum(shard.tallies.reasons().get(reason, 0) for shard in agent.shards)


def process_report(
    agent: Agent,
    *,
    pid: int,
    state: State,
    started_at: float,
    names: Sequence[str],
    number: int | None = None,
) -> ProcessReport:
    """Return what the process of an agent says of itself.

    Args:
        agent: see there.
        pid: of this process.
        state: see `status.State`.
        started_at: wall time.
        names: of its listeners, in the order of the configuration: what `ports.Bound` says.
        number: which worker it is; None where there is one process.
    """
    queue: dict[str, int] = {}
    for shard in agent.shards:
        shard.commit.look()
        for name, count in asdict(shard.commit.census()).items():
            queue[name] = queue.get(name, 0) + count
    connections: dict[str, Connections] = {}
    for name, factory in zip(names, agent.listeners.factories, strict=False):
        here = Connections(
            factory.connections_open, factory.connections_taken, factory.max_connections
        )
        connections[name] = connections.get(name, Connections()) + here
    return ProcessReport(
        pid=pid,
        state=state,
        started_at=started_at,
        number=number,
        queue_open=bool(agent.shards) and all(shard.commit.is_open for shard in agent.shards),
        queue=queue,
        connections=connections,
        deliveries=sum(shard.runner.active for shard in agent.shards),
        metrics=agent.activity.metrics.snapshot(),
        recent=agent.activity.recent_messages(),
        suspended=tuple(
            SuspendedHop.shortened(
                next_hop=each.next_hop,
                seconds=each.seconds,
                times=each.times,
                last=str(each.cause.reply),
            )
            for each in agent.suspended()[:MOST_SUSPENDED]
        ),
        troubles=tuple(_troubles(agent)),
    )


def _troubles(agent: Agent) -> Iterator[Trouble]:
    shortage = agent.capacity.shortage()
    if shortage is not None:
        yield Trouble(kind=shortage.what, text=shortage.text, stops=True)
    why = scarce_descriptors()
    if why:
        yield Trouble(kind="descriptors", text=why, stops=True)
    if agent.resolver.trouble:
        yield Trouble(kind="dns", text=agent.resolver.trouble)
    for fault in agent.listeners.certificate_faults():
        yield Trouble(kind="certificate", text=fault)


def scarce_descriptors() -> str:
    """Say that connections which bring mail wait for descriptors; empty while they do not."""
    try:
        lowest = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return f"no descriptor is left for another connection: {error.strerror}"
    os.close(lowest)
    # open(2) gives the lowest number that is free: all below it are in use.
    if lowest < for_connections():
        return ""
    return (
        f"{lowest:,} of {limit():,} descriptors are in use (LimitNOFILE, ulimit -n), and the rest"
        " is for mail on its way: connections wait"
    )
