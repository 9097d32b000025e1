"""What one process says of itself, and what that comes to for all of them together.

A `ProcessReport` crosses from a worker to its parent as JSON; `merge` makes a `Status` of all
reports, which the page shows, the tool prints, and `/readyz` answers by.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from attrs import asdict, field, frozen

from ..telemetry.metrics import Snapshot, added, table
from ..telemetry.metrics.table import Metric

VERSION = 1
"""Of the JSON; it is raised when something in it changes its meaning or goes away."""

MOST_MESSAGES = 50
"""How many recent messages a report holds."""

MOST_RECIPIENTS = 5
"""How many recipients of each are named there."""

MOST_SUSPENDED = 50
"""How many of the next hops that are left alone a report names."""

_LONGEST_ADDRESS = 320  # characters; RFC 5321 §4.5.3.1: 64 and 255, and the @
_LONGEST_ANSWER = 500  # characters of a peer's reply, which may be of a hundred lines

State = Literal["starting", "ready", "draining", "not answering", "ended"]
"""``ready``: its listeners take connections and its queue was opened. ``ended``: of a worker whose
successor is not there yet."""

STATES: tuple[State, ...] = ("starting", "ready", "draining", "not answering", "ended")


@frozen(kw_only=True)
class Trouble:
    """Something that keeps mail from being taken or from leaving, and has to be seen.

    Attributes:
        kind: one of `table.TROUBLES`.
        text: what was found and what it means, one line.
        stops: whether no mail is taken because of it.
    """

    kind: str
    text: str
    stops: bool = False


@frozen(kw_only=True)
class RecentMessage:
    """A message that came not long ago.

    Attributes:
        id: its queue id.
        received_at: wall time of acceptance, seconds since the epoch.
        reverse_path: whom it is from; None is the null reverse-path.
        recipients: whom it is for; the first of them where they are many.
        more: how many recipients there are besides.
        size: octets.
        state: one word: ``queued``, ``delivered``, ``failed``, …
        last: the last answer that it got; empty before the first.
    """

    id: str
    received_at: float
    reverse_path: str | None
    recipients: tuple[str, ...]
    more: int = 0
    size: int
    state: str
    last: str = ""

    @classmethod
    def shortened(
        cls,
        *,
        reverse_path: object | None,
        recipients: Sequence[object],
        last: str,
        **rest: Any,
    ) -> RecentMessage:
        """Return a message of bounded size, whatever was said about it."""
        return cls(
            reverse_path=None if reverse_path is None else str(reverse_path)[:_LONGEST_ADDRESS],
            recipients=tuple(
                str(recipient)[:_LONGEST_ADDRESS] for recipient in recipients[:MOST_RECIPIENTS]
            ),
            more=max(0, len(recipients) - MOST_RECIPIENTS),
            last=last[:_LONGEST_ANSWER],
            **rest,
        )


@frozen(kw_only=True)
class SuspendedHop:
    """A next hop that is left alone, because it cannot be reached.

    Attributes:
        next_hop: which: ``smtp:example.net``.
        seconds: for how long yet.
        times: how often in a row it could not be reached.
        last: why; the last answer.
    """

    next_hop: str
    seconds: float
    times: int
    last: str

    @classmethod
    def shortened(cls, *, next_hop: str, last: str, **rest: Any) -> SuspendedHop:
        """Return one of bounded size, whatever was said."""
        return cls(next_hop=next_hop[:_LONGEST_ADDRESS], last=last[:_LONGEST_ANSWER], **rest)


@frozen
class Connections:
    """The connections of a listener.

    Attributes:
        open: now.
        taken: since the process was started.
        most: that may be open at a time, in all processes together; 0: not known.
    """

    open: int = 0
    taken: int = 0
    most: int = 0

    def __add__(self, other: Connections) -> Connections:
        return Connections(
            self.open + other.open, self.taken + other.taken, max(self.most, other.most)
        )


@frozen(kw_only=True)
class ProcessReport:
    """What one process says of itself.

    Attributes:
        pid: its process id.
        state: see `State`.
        started_at: wall time, seconds since the epoch.
        number: which worker, from 0; None where one process does everything.
        restarts: how often a worker of this number was started again; its parent's word.
        queue_open: whether the queue takes and gives messages now.
        queue: its part of the queue, by the names of `queue.store.contract.Census`.
        connections: by listener, as a start names it: ``smtp tcp 127.0.0.1:2525``.
        deliveries: transactions with next hops under way.
        metrics: what it has counted.
        recent: the newest first, at most `MOST_MESSAGES`.
        suspended: those longest gone first, at most `MOST_SUSPENDED`.
        troubles: what is wrong there.
        counted_at: wall time at which ``queue`` was true; None: now; 0: it is not known at all.
    """

    pid: int
    state: State
    started_at: float
    number: int | None = None
    restarts: int = 0
    queue_open: bool = True
    queue: Mapping[str, int] = field(factory=dict)
    connections: Mapping[str, Connections] = field(factory=dict)
    deliveries: int = 0
    metrics: Snapshot = field(factory=Snapshot)
    recent: tuple[RecentMessage, ...] = ()
    suspended: tuple[SuspendedHop, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    counted_at: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it in plain types, for a pipe."""
        return {
            **asdict(self, filter=lambda attribute, _: attribute.name != "metrics"),
            "metrics": self.metrics.to_json(),
        }

    @classmethod
    def from_json(cls, written: Any) -> ProcessReport:
        """Return what `to_json` wrote.

        Raises:
            ValueError: it has another shape.
        """
        try:
            if written["state"] not in STATES:
                raise ValueError("no such state")
            number = written["number"]
            return cls(
                pid=int(written["pid"]),
                state=written["state"],
                started_at=float(written["started_at"]),
                number=None if number is None else int(number),
                restarts=int(written["restarts"]),
                queue_open=bool(written["queue_open"]),
                queue={str(name): int(count) for name, count in written["queue"].items()},
                connections={
                    str(name): Connections(int(each["open"]), int(each["taken"]), int(each["most"]))
                    for name, each in written["connections"].items()
                },
                deliveries=int(written["deliveries"]),
                metrics=Snapshot.from_json(written["metrics"]),
                recent=tuple(
                    RecentMessage(**{**each, "recipients": tuple(each["recipients"])})
                    for each in written["recent"][:MOST_MESSAGES]
                ),
                suspended=tuple(
                    SuspendedHop(**each) for each in written["suspended"][:MOST_SUSPENDED]
                ),
                troubles=tuple(Trouble(**each) for each in written["troubles"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not the report of a process: {error!r}") from None


@frozen(kw_only=True)
class Process:
    """A row of the table of processes; the names are those of `ProcessReport`."""

    number: int | None
    pid: int
    state: State
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
        """What people call it."""
        return "the process" if self.number is None else f"worker {self.number}"


@frozen(kw_only=True)
class Status:
    """How the whole of it stands.

    Attributes:
        hostname: our name.
        version: of twisted-mta.
        started_at: wall time, seconds since the epoch.
        now: wall time of this report.
        queue: messages or recipients by state, in the order to show them: ``messages``, …
        ages: recipients by the time since they came, as far as was counted (`table.QUEUE_AGE`).
        reasons: recipients that were deferred, by why (`table.QUEUE_DEFERRED_FOR`), likewise.
        counters: since the start, likewise: ``accepted``, ``delivered``, ``deferred``, ``failed``.
        recent: newest first.
        suspended: next hops that are left alone, those longest gone first; a bounded number.
        state: of all processes together.
        unready: why connections should not be sent here now; empty: they may.
        troubles: what is wrong, those first because of which no mail is taken.
        incomplete: what the numbers of the queue leave out, or have from before; one line each.
        healthy: whether a queue is open.
        listeners: what is bound, as a start names it.
        connections: by listener, where it was said.
        deliveries: transactions with next hops under way.
        processes: those that work on mail.
        metrics: the sum over all processes, those that are gone included.
    """

    hostname: str
    version: str
    started_at: float
    now: float
    queue: Mapping[str, int]
    counters: Mapping[str, int]
    recent: tuple[RecentMessage, ...] = ()
    suspended: tuple[SuspendedHop, ...] = ()
    state: State = "ready"
    unready: str = ""
    troubles: tuple[Trouble, ...] = ()
    incomplete: tuple[str, ...] = ()
    healthy: bool = True
    listeners: tuple[str, ...] = ()
    connections: Mapping[str, Connections] = field(factory=dict)
    deliveries: int = 0
    processes: tuple[Process, ...] = ()
    metrics: Snapshot = field(factory=Snapshot)
    ages: Mapping[str, int] = field(factory=dict)
    reasons: Mapping[str, int] = field(factory=dict)

    @property
    def more_troubles(self) -> list[str]:
        """What is wrong besides what ``unready`` says."""
        return [each.text for each in self.troubles if each.text not in self.unready]

    def to_json(self) -> dict[str, Any]:
        """Return it in plain types, as ``/v1/status`` documents them."""
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
            "counters": dict(self.counters),
            "deliveries": self.deliveries,
            "connections": {name: asdict(each) for name, each in self.connections.items()},
            "processes": [asdict(process) for process in self.processes],
            "suspended": [asdict(each) for each in self.suspended],
            "recent": [asdict(message) for message in self.recent],
        }


_COUNTERS = {
    "accepted": (table.MESSAGES_ACCEPTED, {}),
    "delivered": (table.OUTCOMES, {"outcome": "delivered"}),
    "deferred": (table.OUTCOMES, {"outcome": "deferred"}),
    "failed": (table.OUTCOMES, {"outcome": "failed"}),
    "early_data": (table.EARLY_DATA, {}),
    "tls_downgrades": (table.DOWNGRADES, {}),
    "tls_alarms": (table.TLS_ALARMS, {}),
    "credentials_refused": (table.CREDENTIALS_REFUSED, {}),
}


_LABELS = {
    "leased": "in delivery",
    "failures": "unreported failures",
    "5m": "up to 5 min",
    "1h": "up to 1 h",
    "4h": "up to 4 h",
    "1d": "up to 1 day",
    "5d": "up to 5 days",
    "dns": "DNS",
    "tls": "TLS",
    "early_data": "early data",
    "tls_downgrades": "TLS downgrades",
    "tls_alarms": "TLS alarms",
    "credentials_refused": "credentials refused",
}


def label(name: str) -> str:
    """Return what people call a number of a `Status`: of its queue, ages, reasons, counters."""
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
    """Return what the reports of all processes come to.

    Args:
        reports: one for each process, those included that did not answer.
        hostname: our name.
        version: of twisted-mta.
        now: wall time.
        started_at: wall time; None takes the earliest of the reports.
        metrics: of all processes, those that are gone included; None adds up the reports.
        listeners: what is bound.
        wanted_listeners: how many listeners there are to be.
        troubles: besides those in the reports.
    """
    if started_at is None:
        started_at = min((report.started_at for report in reports), default=now)
    processes = tuple(
        _process(report) for report in sorted(reports, key=lambda each: each.number or 0)
    )
    connections = _connections(reports)
    all_troubles = _troubles(reports, processes, connections, troubles)
    unready = _unready(processes)
    if not unready and len(listeners) < wanted_listeners:
        unready = f"{len(listeners)} of {wanted_listeners} listeners listen"
    if not unready:
        unready = "; ".join(each.text for each in all_troubles if each.stops)
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
        suspended=longest_suspended(each for report in reports for each in report.suspended),
        state=_state(processes),
        unready=unready,
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
    )


def _by_label(metrics: Snapshot, metric: Metric) -> Mapping[str, int]:
    """Return what a gauge with one label shows, in the order of the table, where it shows it."""
    shown = {values[0]: int(number) for values, number in metrics.series(metric)}
    (names,) = metric.labels.values()
    return {name: shown[name] for name in names if name in shown}


def gauges(status: Status) -> Snapshot:
    """Return what a status says in numbers, as metrics."""
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
    }
    for state in STATES:
        numbers[(table.PROCESSES, state)] = sum(
            process.state == state for process in status.processes
        )
    for kind in table.TROUBLES:
        numbers[(table.TROUBLE, kind)] = int(any(each.kind == kind for each in status.troubles))
    kinds = table.CONNECTIONS_OPEN.labels["kind"]
    for name, connections in status.connections.items():
        kind = name.partition(" ")[0]
        key = (table.CONNECTIONS_OPEN, kind if kind in kinds else table.OTHER)
        numbers[key] = numbers.get(key, 0) + connections.open
    return Snapshot(numbers)


def _process(report: ProcessReport) -> Process:
    connections = Connections()
    for each in report.connections.values():
        connections += each
    return Process(
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


def _at_work(process: Process) -> bool:
    return process.state in ("ready", "draining") and process.queue_open


def _unready(processes: Sequence[Process]) -> str:
    """Say why new connections should not come here; empty: they may.

    A worker that has died or hangs is no reason while another takes its place.
    """
    for process in processes:
        if process.state == "draining":
            return "draining"
        if process.state == "ready" and not process.queue_open:
            return f"the queue of {process.name} is closed"
        if process.state == "starting" and not process.restarts:
            return f"{process.name} is starting"
    if any(process.state == "ready" for process in processes):
        return ""
    return "; ".join(f"{process.name} is {process.state}" for process in processes) or "no process"


def _state(processes: Sequence[Process]) -> State:
    for state in ("draining", "ready", "starting"):
        if any(process.state == state for process in processes):
            return state
    return "not answering"


def _troubles(
    reports: Sequence[ProcessReport],
    processes: Sequence[Process],
    connections: Mapping[str, Connections],
    troubles: Sequence[Trouble],
) -> tuple[Trouble, ...]:
    """Return all that is wrong, each once, those first because of which no mail is taken."""
    found = list(troubles)
    for process in processes:
        if process.state == "ready" and not process.queue_open:
            text = f"the queue of {process.name} is closed"
            found.append(Trouble(kind="queue", text=text, stops=True))
        elif process.state in ("not answering", "ended") or (
            process.state == "starting" and process.restarts
        ):
            text = f"{process.name} {_CONDITIONS[process.state]}"
            found.append(Trouble(kind="workers", text=text))
    for name, each in connections.items():
        if each.open >= each.most > 0:
            text = f"all {each.most:,} connections of {name} are in use (max_connections)"
            found.append(Trouble(kind="connections", text=text, stops=True))
    at_work = [report for report in reports if report.state == "ready"]
    for report in at_work:
        found += report.troubles
    return tuple(sorted(dict.fromkeys(found), key=lambda each: not each.stops))


_CONDITIONS: Mapping[State, str] = {
    "not answering": "is not answering",
    "ended": "has ended, and its successor is not there yet",
    "starting": "is starting",
}


def _incomplete(processes: Iterable[Process]) -> Iterator[str]:
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


def longest_suspended(suspended: Iterable[SuspendedHop]) -> tuple[SuspendedHop, ...]:
    """Return each next hop once, with its longest suspension; at most `MOST_SUSPENDED` of them.

    Those that failed most often are first.
    """
    longest: dict[str, SuspendedHop] = {}
    for each in suspended:
        known = longest.get(each.next_hop)
        if known is None or each.seconds > known.seconds:
            longest[each.next_hop] = each
    ordered = sorted(longest.values(), key=lambda each: (-each.times, each.next_hop))
    return tuple(ordered[:MOST_SUSPENDED])


def _connections(reports: Iterable[ProcessReport]) -> Mapping[str, Connections]:
    sums: dict[str, Connections] = {}
    for report in reports:
        for name, connections in report.connections.items():
            sums[name] = sums.get(name, Connections()) + connections
    return sums
