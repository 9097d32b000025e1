"""The reports of all processes merged into one `Status`, and its numbers as metrics."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ..health.trouble import KINDS, Trouble, ordered
from ..mail.counted import counted
from ..mail.printable import printable
from ..telemetry.metrics import Snapshot, added, table
from ..telemetry.metrics.table import Metric
from ..webhooks.status import merged as merged_webhooks
from ..webhooks.status import troubles as troubles_of_webhooks
from .report import (
    MOST_MESSAGES,
    STATES,
    Connections,
    OperatorSuspensions,
    ProcessReport,
    ReportedState,
    SuspendedByOperator,
    SuspendedHop,
    all_suspended,
    all_suspensions,
    largest_destinations,
    longest_suspended,
)
from .status import ProcessStatus, Status, moment

_COUNTERS = {
    "accepted": (table.MESSAGES_ACCEPTED, {}),
    "delivered": (table.OUTCOMES, {"outcome": "delivered"}),
    "deferred": (table.OUTCOMES, {"outcome": "deferred"}),
    "failed": (table.OUTCOMES, {"outcome": "failed"}),
    "early_data": (table.EARLY_DATA, {}),
    "tls_downgrades": (table.DOWNGRADES, {}),
    "tls_alarms": (table.TLS_ALARMS, {}),
    "credentials_refused": (table.CREDENTIALS_REFUSED, {}),
    "over_limit": (table.ACCOUNT_LIMITS, {}),
}


_NEARLY = 0.9  # of the connections of a listener
_NAMED_HOPS = 3  # in the text of a trouble
_LONGEST_REPLY = 120  # characters of the last reply of each


def merge(
    reports: Sequence[ProcessReport],
    *,
    hostname: str,
    version: str,
    now: float,
    started_at: float | None = None,
    metrics: Snapshot | None = None,
    listeners: Sequence[str] = (),
    wanted_listeners: int = 0,
    troubles: Sequence[Trouble] = (),
) -> Status:
    """Return the status of all processes together.

    Args:
        reports: one for each process, including those that did not answer.
        hostname: our name.
        version: of twisted-mta.
        now: wall time.
        started_at: wall time; None: the earliest of the reports.
        metrics: of all processes, including those that have ended; None: the sum of the reports.
        listeners: the bound ports.
        wanted_listeners: how many ports are to be bound.
        troubles: besides those in the reports.
    """
    if started_at is None:
        started_at = min((report.started_at for report in reports), default=now)
    processes = tuple(
        _process(report) for report in sorted(reports, key=lambda each: each.number or 0)
    )
    connections = _connections(reports)
    suspended = longest_suspended(
        (each for report in reports for each in report.suspended),
        shared=any(report.has_shared_queue for report in reports),
    )
    by_operator = all_suspended(each for report in reports for each in report.suspended_by_operator)
    suspensions = all_suspensions(report.operator_suspensions for report in reports)
    webhooks = merged_webhooks(each for report in reports for each in report.webhooks)
    all_troubles = ordered(
        (
            *troubles,
            *_of_processes(processes),
            *_of_listeners(connections, processes, len(listeners), wanted_listeners),
            *_of_next_hops(suspended),
            *_of_operator(by_operator, suspensions),
            *troubles_of_webhooks(webhooks, now),
            *(each for report in reports if report.state == "ready" for each in report.troubles),
        )
    )
    total = added(report.metrics for report in reports) if metrics is None else metrics
    newest = heapq.nlargest(
        MOST_MESSAGES,
        (message for report in reports for message in report.recent),
        key=lambda message: (message.received_at, message.id),
    )
    return Status(
        hostname=hostname,
        version=version,
        started_at=started_at,
        now=now,
        queue=_sums(report.queue for report in reports),
        counters={
            name: int(total.total(metric, **labels)) for name, (metric, labels) in _COUNTERS.items()
        },
        recent=tuple(newest),
        suspended=suspended,
        suspended_by_operator=by_operator,
        operator_suspensions=suspensions,
        destinations=largest_destinations(
            each for report in reports for each in report.destinations
        ),
        state=_state(processes),
        troubles=all_troubles,
        incomplete=tuple(_incomplete(processes)),
        healthy=any(_at_work(process) for process in processes),
        listeners=tuple(listeners),
        connections=connections,
        deliveries=sum(report.deliveries for report in reports),
        processes=processes,
        metrics=total,
        ages=_by_label(total, table.QUEUE_AGE),
        reasons=_by_label(total, table.QUEUE_DEFERRED_FOR),
        local_submission=_by_label(total, table.LOCAL_WAITING),
        webhooks=webhooks,
    )


def _by_label(metrics: Snapshot, metric: Metric) -> Mapping[str, int]:
    """Return the values of a gauge with one label, in the order of the table."""
    shown = {values[0]: int(number) for values, number in metrics.series(metric)}
    (names,) = metric.labels.values()
    return {name: shown[name] for name in names if name in shown}


def gauges(status: Status) -> Snapshot:
    """Return the numbers of a status as metrics."""
    queue = status.queue
    numbers: dict[Any, float] = {
        (table.READY,): int(not status.unready),
        (table.START_TIME,): status.started_at,
        (table.DELIVERIES_ACTIVE,): status.deliveries,
        (table.QUEUE_MESSAGES,): queue.get("messages", 0),
        (table.QUEUE_RECIPIENTS,): queue.get("recipients", 0),
        (table.QUEUE_DEFERRED,): queue.get("deferred", 0),
        (table.QUEUE_LEASED,): queue.get("leased", 0),
        (table.QUEUE_QUARANTINED,): queue.get("quarantined", 0),
        (table.QUEUE_HELD,): queue.get("held", 0),
        (table.QUEUE_FAILURES,): queue.get("failures", 0),
        (table.DESTINATIONS_SUSPENDED,): status.operator_suspensions.number,
    }
    for state in STATES:
        numbers[(table.PROCESSES, state)] = sum(
            process.state == state for process in status.processes
        )
    for name, kind_of_trouble in KINDS.items():
        for severity in kind_of_trouble.severities:
            numbers[(table.TROUBLE, name, severity)] = sum(
                (each.kind, each.severity) == (name, severity) for each in status.troubles
            )
    if status.cluster is not None:
        alive = sum(each.alive for each in status.cluster.machines)
        numbers[(table.MACHINES, "alive")] = alive
        numbers[(table.MACHINES, "silent")] = len(status.cluster.machines) - alive
    kinds = table.CONNECTIONS_OPEN.labels["kind"]
    for name, connections in status.connections.items():
        kind = name.partition(" ")[0]
        key = (table.CONNECTIONS_OPEN, kind if kind in kinds else table.OTHER)
        numbers[key] = numbers.get(key, 0) + connections.open
    return Snapshot(numbers)


def _process(report: ProcessReport) -> ProcessStatus:
    connections = Connections()
    for each in report.connections.values():
        connections += each
    return ProcessStatus(
        number=report.number,
        pid=report.pid,
        state=report.state,
        started_at=report.started_at,
        restarts=report.restarts,
        queue_open=report.queue_open,
        connections=connections,
        accepted=int(report.metrics.total(table.MESSAGES_ACCEPTED)),
        deliveries=report.deliveries,
        queue=report.queue,
        counted_at=report.counted_at,
    )


def _at_work(process: ProcessStatus) -> bool:
    return process.state in ("ready", "draining") and process.queue_open


def _state(processes: Sequence[ProcessStatus]) -> ReportedState:
    for state in ("draining", "ready", "starting"):
        if any(process.state == state for process in processes):
            return state
    return "not answering"


def _of_processes(processes: Sequence[ProcessStatus]) -> Iterator[Trouble]:
    """Yield the troubles of the processes themselves.

    A worker that has ended or hangs refuses no mail while another takes its place.
    """
    works = any(process.state in ("ready", "draining") for process in processes)
    if not processes:
        yield Trouble(kind="workers", text="no process", severity="critical", stops=True)
    for process in processes:
        name = process.name
        if process.state == "draining":
            yield Trouble(kind="drain", text="draining", stops=True)
        elif process.state == "ready":
            if not process.queue_open:
                yield Trouble(
                    kind="queue", subject=name, text=f"the queue of {name} is closed", stops=True
                )
        elif process.state == "starting" and not process.restarts:
            yield Trouble(kind="start", subject=name, text=f"{name} is starting", stops=True)
        else:
            yield Trouble(
                kind="workers",
                subject=name,
                text=f"{name} {_CONDITIONS[process.state]}",
                severity="warning" if works else "critical",
                stops=not works,
            )


def _of_listeners(
    connections: Mapping[str, Connections],
    processes: Sequence[ProcessStatus],
    listening: int,
    wanted: int,
) -> Iterator[Trouble]:
    """Yield the troubles of ports: those that do not listen, and those with many connections."""
    if listening < wanted and all(process.state == "ready" for process in processes):
        text = f"{listening} of {wanted} listeners listen"
        yield Trouble(kind="listeners", text=text, stops=True)
    for name, each in connections.items():
        if each.open >= each.most > 0:
            text = f"all {each.most:,} connections of {name} are in use (max_connections)"
            yield Trouble(kind="connections", subject=name, text=text, stops=True)
        elif each.open >= _NEARLY * each.most > 0:
            text = f"{each.open:,} of {each.most:,} connections of {name} are in use"
            yield Trouble(kind="connections", subject=name, text=text, severity="warning")


def _of_next_hops(suspended: Sequence[SuspendedHop]) -> Iterator[Trouble]:
    """Yield that next hops are suspended: those of routes, and the exchangers of domains."""
    for routed, subject in ((True, "routes"), (False, "exchangers")):
        hops = [each for each in suspended if each.routed is routed]
        if hops:
            waiting = sum(each.waiting for each in hops)
            named = [_suspension(each) for each in hops[:_NAMED_HOPS]]
            if len(hops) > len(named):
                named.append("and others")
            several = len(hops) > 1
            are = counted(len(hops), "next hop is", "next hops are")
            wait = counted(waiting, "recipient waits", "recipients wait")
            yield Trouble(
                kind="next_hops",
                subject=subject,
                text=f"{are} suspended, and {wait} for {'them' if several else 'it'}:"
                f" {'; '.join(named)}",
                severity="warning" if routed else "info",
            )


def _of_operator(
    suspended: Sequence[SuspendedByOperator], suspensions: OperatorSuspensions
) -> Iterator[Trouble]:
    """Yield that the operator has suspended destinations."""
    if not suspensions.number:
        return
    number, waiting = suspensions.number, suspensions.waiting
    named = [_suspended_destination(each) for each in suspended[:_NAMED_HOPS]]
    if number > len(named):
        named.append("and others")
    several = number > 1
    are = counted(number, "destination is", "destinations are")
    wait = counted(waiting, "recipient waits", "recipients wait")
    yield Trouble(
        kind="suspended_destinations",
        text=f"{are} suspended by the operator since {moment(suspensions.since)} UTC, and {wait}"
        f" for {'them' if several else 'it'}: {'; '.join(named)}",
    )


def _suspended_destination(each: SuspendedByOperator) -> str:
    until = "until it is resumed" if each.until is None else f"until {moment(each.until)} UTC"
    reason = f": {each.reason[:_LONGEST_REPLY]}" if each.reason else ""
    return printable(f"{each.destination} ({until}{reason})")


def _suspension(hop: SuspendedHop) -> str:
    waiting = counted(hop.waiting, "recipient")
    return printable(f"{hop.next_hop} ({waiting}: {hop.last[:_LONGEST_REPLY]})")


def _incomplete(processes: Iterable[ProcessStatus]) -> Iterator[str]:
    for process in processes:
        if process.counted_at is None:
            continue
        condition = _CONDITIONS.get(process.state, "")
        if process.counted_at:
            at = f"{datetime.fromtimestamp(process.counted_at, UTC):%Y-%m-%d %H:%M:%S} UTC"
            yield f"{process.name} {condition}: its part of the queue is that of {at}"
        else:
            yield f"{process.name} {condition}: its part of the queue is not counted"


def _sums(numbers: Iterable[Mapping[str, int]]) -> Mapping[str, int]:
    sums: dict[str, int] = {}
    for each in numbers:
        for name, number in each.items():
            sums[name] = sums.get(name, 0) + number
    return sums


def _connections(reports: Iterable[ProcessReport]) -> Mapping[str, Connections]:
    sums: dict[str, Connections] = {}
    for report in reports:
        for name, connections in report.connections.items():
            sums[name] = sums.get(name, Connections()) + connections
    return sums


_CONDITIONS: Mapping[ReportedState, str] = {
    "not answering": "is not answering",
    "ended": "has ended, and its successor is not there yet",
    "starting": "is starting",
}
