"""The status of all processes together, as the page, the tool and programs get it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from attrs import asdict, field, frozen

from ..cluster.machines import ClusterStatus
from ..health.trouble import Trouble
from ..mail.printable import printable
from ..telemetry.metrics import Snapshot
from ..webhooks.status import WebhookStatus
from .report import (
    Connections,
    Destination,
    OperatorSuspensions,
    RecentMessage,
    ReportedState,
    SuspendedByOperator,
    SuspendedHop,
)

VERSION = 1
"""Of the JSON; it rises when a key changes its meaning or goes away."""


@frozen(kw_only=True)
class ProcessStatus:
    """A row of the table of processes; the names are those of `ProcessReport`."""

    number: int | None
    pid: int
    state: ReportedState
    started_at: float
    restarts: int
    queue_open: bool
    connections: Connections
    accepted: int
    deliveries: int
    queue: Mapping[str, int] = field(factory=dict)
    counted_at: float | None = None

    @property
    def name(self) -> str:
        """The name for people."""
        return "the process" if self.number is None else f"worker {self.number}"


@frozen(kw_only=True)
class Status:
    """The state of all processes together.

    Attributes:
        hostname: our name.
        version: of twisted-mta.
        started_at: wall time, seconds since the epoch.
        now: wall time of this report.
        queue: numbers of messages and recipients by state, in the order to show them:
            ``messages``, …
        ages: numbers of recipients by age, as far as they were counted (`table.QUEUE_AGE`).
        reasons: numbers of deferred recipients by reason (`table.QUEUE_DEFERRED_FOR`), likewise.
        local_submission: numbers of files of ``twisted-mta-sendmail`` (`table.LOCAL_WAITING`).
        counters: numbers since the start: ``accepted``, ``delivered``, ``deferred``, ``failed``, …
        recent: messages, the newest first.
        suspended: next hops (`report.longest_suspended`).
        suspended_by_operator: destinations (`report.all_suspended`).
        operator_suspensions: all of these, in numbers.
        destinations: domains with mail in the queue (`report.largest_destinations`).
        state: of all processes together.
        troubles: the worst first: those because of which no mail is accepted.
        incomplete: what the numbers of the queue leave out, or have from before; one line each.
        healthy: whether a queue is open.
        listeners: the bound ports, as the log names them.
        connections: by listener.
        deliveries: transactions with next hops under way.
        processes: those that work on mail.
        metrics: the sum over all processes, including those that have ended.
        webhooks: the URLs that are told of events.
        cluster: the machines with the same queue; None: it is that of this machine alone.
    """

    hostname: str
    version: str
    started_at: float
    now: float
    queue: Mapping[str, int]
    counters: Mapping[str, int]
    recent: tuple[RecentMessage, ...] = ()
    suspended: tuple[SuspendedHop, ...] = ()
    suspended_by_operator: tuple[SuspendedByOperator, ...] = ()
    operator_suspensions: OperatorSuspensions = field(factory=OperatorSuspensions)
    destinations: tuple[Destination, ...] = ()
    state: ReportedState = "ready"
    troubles: tuple[Trouble, ...] = ()
    incomplete: tuple[str, ...] = ()
    healthy: bool = True
    listeners: tuple[str, ...] = ()
    connections: Mapping[str, Connections] = field(factory=dict)
    deliveries: int = 0
    processes: tuple[ProcessStatus, ...] = ()
    metrics: Snapshot = field(factory=Snapshot)
    ages: Mapping[str, int] = field(factory=dict)
    reasons: Mapping[str, int] = field(factory=dict)
    local_submission: Mapping[str, int] = field(factory=dict)
    webhooks: tuple[WebhookStatus, ...] = ()
    cluster: ClusterStatus | None = None

    @property
    def unready(self) -> str:
        """Why no connections should be sent here now; empty: they may."""
        return "; ".join(each.text for each in self.troubles if each.stops)

    @property
    def brief(self) -> str:
        """A line for service managers: whether it is ready, and the worst trouble."""
        if not self.troubles:
            return self.state
        worst, *others = self.troubles
        more = f", and {len(others)} more" if others else ""
        begin = "not ready" if worst.stops else self.state
        return printable(f"{begin}: {worst.text}{more}")

    def to_json(self) -> dict[str, Any]:
        """Return the status in plain types, as ``/v1/status`` documents them."""
        return {
            "version": VERSION,
            "program": self.version,
            "hostname": self.hostname,
            "state": self.state,
            "ready": not self.unready,
            "unready": self.unready,
            "troubles": [asdict(each) for each in self.troubles],
            "incomplete": list(self.incomplete),
            "healthy": self.healthy,
            "started_at": self.started_at,
            "now": self.now,
            "listeners": list(self.listeners),
            "queue": dict(self.queue),
            "ages": dict(self.ages),
            "reasons": dict(self.reasons),
            "local_submission": dict(self.local_submission),
            "counters": dict(self.counters),
            "deliveries": self.deliveries,
            "connections": {name: asdict(each) for name, each in self.connections.items()},
            "processes": [asdict(process) for process in self.processes],
            "suspended": [asdict(each) for each in self.suspended],
            "suspended_by_operator": [asdict(each) for each in self.suspended_by_operator],
            "operator_suspensions": asdict(self.operator_suspensions),
            "destinations": [asdict(each) for each in self.destinations],
            "webhooks": [asdict(each) for each in self.webhooks],
            "cluster": None if self.cluster is None else self.cluster.to_json(),
            "recent": [asdict(message) for message in self.recent],
        }


_LABELS = {
    "leased": "in delivery or next in line",
    "failures": "unreported failures",
    "5m": "up to 5 min",
    "1h": "up to 1 h",
    "4h": "up to 4 h",
    "1d": "up to 1 day",
    "5d": "up to 5 days",
    "dns": "DNS",
    "tls": "TLS",
    "over_limit": "over an account's limit",
    "early_data": "early data",
    "waiting": "waiting to be taken in",
    "set_aside": "set aside",
    "tls_downgrades": "TLS downgrades",
    "tls_alarms": "TLS alarms",
    "credentials_refused": "credentials refused",
}


def label(name: str) -> str:
    """Return the name for people of a number in `Status`: of its queue, ages, reasons, counters."""
    return _LABELS.get(name, name)


def short_duration(seconds: float) -> str:
    """Return a duration for people, in its two largest units: ``1 d 2 h``, ``1 min 5 s``."""
    whole = max(0, round(seconds))
    counts = (
        (whole // 86400, "d"),
        (whole // 3600 % 24, "h"),
        (whole // 60 % 60, "min"),
        (whole % 60, "s"),
    )
    largest = next((place for place, (count, _) in enumerate(counts) if count), 3)
    words = [f"{count} {unit}" for count, unit in counts[largest : largest + 2] if count]
    return " ".join(words) or "0 s"


def moment(time: float) -> str:
    """Return a wall time for people, in UTC: ``2026-09-21 14:13:20``."""
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M:%S}"
