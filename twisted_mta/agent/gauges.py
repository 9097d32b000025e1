"""Metrics that are read from the parts of an agent, which count by themselves."""

from __future__ import annotations

from functools import partial

from ..config.reply_action import REPLY_ACTIONS
from ..queue.operator.tallies import AGES, OLDEST, REASONS
from ..system.accepting import limit
from ..system.process_use import descriptors_in_use, resident_memory
from ..telemetry.metrics import Metrics, table
from .agent import Agent
from .disks import Disks, Space

_COUNTED_BY_FACTORIES = (
    (table.CONNECTIONS_TAKEN, "connections_taken"),
    (table.EARLY_DATA, "violations"),
    (table.DOWNGRADES, "downgrades"),
)


def read_agent(agent: Agent) -> None:
    """Have the agent's metrics read the counts of its parts; called once for each agent."""
    metrics = agent.metrics
    for listener, factory in zip(agent.config.listeners, agent.listeners.factories, strict=True):
        for metric, attribute in _COUNTED_BY_FACTORIES:
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
    metrics.read(table.TLS_RESUMED, lambda: traffic.resumed)
    metrics.read(table.TLS_HANDSHAKE_RETRIES, lambda: traffic.handshake_retries)
    metrics.read(table.TLS_CLEAR_RETRIES, lambda: traffic.clear_retries)
    metrics.read(table.CREDENTIALS_REFUSED, lambda: traffic.credentials_refused)
    metrics.read(table.TOKEN_FAILURES, lambda: agent.tokens.failures)
    metrics.read(table.WEBHOOK_WAITING, partial(_events_waiting, agent))
    metrics.read(table.WEBHOOKS_FAILING, partial(_webhooks_failing, agent))
    for action in REPLY_ACTIONS:
        metrics.read(table.REPLY_ACTIONS, partial(_acted, agent, action), action)
    metrics.read(table.TLS_ALARMS, lambda: memory.alarms)
    for age in (*(name for name, _ in AGES), OLDEST):
        metrics.read(table.QUEUE_AGE, partial(_by_age, agent, age), age)
    for reason in REASONS:
        metrics.read(table.QUEUE_DEFERRED_FOR, partial(_by_reason, agent, reason), reason)
    agent.connections.count_session = partial(metrics.count, table.NEXT_HOP_SESSIONS)
    resolver, disks = agent.resolver, agent.disks
    metrics.read(table.LOOKUPS, lambda: resolver.answered, "answered")
    metrics.read(table.LOOKUPS, lambda: resolver.failed, "failed")
    for name in table.DISK_FREE.labels["of"]:
        metrics.read(table.DISK_FREE, partial(_octets, disks, name), name)
        metrics.read(table.INODES_FREE, partial(_inodes, disks, name), name)
    read_process(metrics)
    metrics.read(table.TRACES_OPEN, lambda: len(agent.tracing.traces))
    metrics.read(table.NEXT_HOPS_SUSPENDED, partial(_suspended, agent))


def read_process(metrics: Metrics) -> None:
    """Have metrics read what this process uses of the system."""
    metrics.read(table.MEMORY, resident_memory)
    metrics.read(table.DESCRIPTORS, descriptors_in_use)
    metrics.read(table.DESCRIPTORS_MOST, limit)


def _by_age(agent: Agent, age: str) -> int:
    return sum(shard.tallies.ages().get(age, 0) for shard in agent.counted_shards)


def _by_reason(agent: Agent, reason: str) -> int:
    return sum(shard.tallies.reasons().get(reason, 0) for shard in agent.counted_shards)


def _acted(agent: Agent, action: str) -> int:
    return agent.traffic.reply_actions[action]


def _events_waiting(agent: Agent) -> int:
    return sum(each.waiting for each in agent.webhooks.statuses())


def _webhooks_failing(agent: Agent) -> int:
    return sum(each.state != "ready" for each in agent.webhooks.statuses())


def _suspended(agent: Agent) -> int:
    return len({each.next_hop for each in agent.suspended()})


def _octets(disks: Disks, name: str) -> int | None:
    space = _space(disks, name)
    return None if space is None else space.octets


def _inodes(disks: Disks, name: str) -> int | None:
    space = _space(disks, name)
    return None if space is None else space.inodes


def _space(disks: Disks, name: str) -> Space | None:
    return disks.state if name == "state" else disks.maildir
