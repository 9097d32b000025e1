"""The report of one process: the state of its agent, as the operator's questions need it."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import asdict

from ..agent.activity import Progress
from ..agent.agent import Agent
from ..agent.health import troubles
from ..mail.queue_id import QueueId
from ..queue.ids import time_of
from .report import (
    Connections,
    Destination,
    OperatorSuspensions,
    ProcessReport,
    RecentMessage,
    ReportedState,
    SuspendedByOperator,
    SuspendedHop,
    all_suspended,
    largest_destinations,
    longest_suspended,
)


def process_report(
    agent: Agent,
    *,
    pid: int,
    state: ReportedState,
    names: Sequence[str],
    number: int | None = None,
) -> ProcessReport:
    """Return the report of an agent's process.

    Args:
        agent: the agent.
        pid: the id of its process.
        state: of the process.
        names: of its ports, in the order of the configuration (`system.ports.Bound`).
        number: which worker it is; None: the only process.
    """
    queue: dict[str, int] = {}
    for shard in agent.shards:
        shard.commit.probe()
        census = shard.commit.census()
        its = asdict(census) if shard in agent.counted_shards else {"leased": census.leased}
        for name, count in its.items():
            queue[name] = queue.get(name, 0) + count
    waiting = agent.waiting_for_suspended()
    for_operator = agent.waiting_for_operator()
    in_force = agent.operator_suspensions.in_force
    connections: dict[str, Connections] = {}
    for name, factory in zip(names, agent.listeners.factories, strict=False):
        here = Connections(
            factory.connections_open, factory.connections_taken, factory.max_connections
        )
        connections[name] = connections.get(name, Connections()) + here
    return ProcessReport(
        pid=pid,
        state=state,
        started_at=agent.started_at,
        number=number,
        queue_open=bool(agent.shards) and all(shard.commit.is_open for shard in agent.shards),
        queue=queue,
        connections=connections,
        deliveries=sum(shard.runner.active for shard in agent.shards),
        metrics=agent.activity.metrics.snapshot(),
        recent=tuple(map(recent_message, agent.activity.recent())),
        suspended=longest_suspended(
            SuspendedHop.shortened(
                next_hop=each.next_hop,
                seconds=each.seconds,
                times=each.times,
                last=str(each.cause.reply),
                routed=each.routed,
                waiting=waiting.get(each.next_hop, 0),
            )
            for each in agent.suspended()
        ),
        suspended_by_operator=all_suspended(
            SuspendedByOperator(
                destination=each.name,
                since=each.since,
                until=each.until,
                reason=each.reason,
                by=each.by,
                waiting=for_operator.get(each.name, 0),
            )
            for each in in_force
        ),
        operator_suspensions=OperatorSuspensions(
            number=len(in_force),
            since=min((each.since for each in in_force), default=0.0),
            waiting=sum(for_operator.get(each.name, 0) for each in in_force),
        ),
        troubles=tuple(troubles(agent)),
        destinations=largest_destinations(
            Destination(
                domain=domain,
                recipients=each.recipients,
                deferred=each.deferred,
                held=each.held,
                since=time_of(QueueId(each.first)),
                reasons=each.reasons,
            )
            for shard in agent.counted_shards
            for domain, each in shard.tallies.domains().items()
        ),
        has_shared_queue=agent.has_shared_queue,
        webhooks=tuple(agent.webhooks.statuses()),
    )


def recent_message(progress: Progress) -> RecentMessage:
    """Return a message as reports have it, of bounded size."""
    return RecentMessage.shortened(
        id=str(progress.id),
        received_at=progress.received_at,
        reverse_path=progress.envelope.reverse_path,
        recipients=[recipient.mailbox for recipient in progress.envelope.recipients],
        size=progress.size,
        state=progress.state,
        last=progress.last,
    )
