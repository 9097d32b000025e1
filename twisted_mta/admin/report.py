"""The report of one process about itself, which crosses from a worker to its parent as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from attrs import asdict, evolve, field, frozen

from ..health.trouble import Trouble
from ..telemetry.metrics import Snapshot
from ..webhooks.status import WebhookStatus

MOST_MESSAGES = 50
"""How many recent messages a report holds."""

MOST_RECIPIENTS = 5
"""How many recipients of each are named in it."""

MOST_SUSPENDED = 50
"""How many suspended next hops a report names."""

MOST_SUSPENDED_BY_OPERATOR = 100
"""How many destinations that the operator has suspended a report names."""

MOST_DESTINATIONS = 50
"""How many domains with queued mail a report names."""

_LONGEST_ADDRESS = 320  # characters; RFC 5321 §4.5.3.1: 64 and 255, and the @
_LONGEST_ANSWER = 500  # characters of a peer's reply, which may be of a hundred lines


ReportedState = Literal["starting", "ready", "draining", "not answering", "ended"]
"""``ready``: its listeners take connections and its queue was opened. ``not answering``: it gave no
report in time. ``ended``: it was a worker's, and has no successor yet."""


STATES: tuple[ReportedState, ...] = ("starting", "ready", "draining", "not answering", "ended")


@frozen(kw_only=True)
class RecentMessage:
    """One of the last messages.

    Attributes:
        id: its queue id.
        received_at: wall time of acceptance, seconds since the epoch.
        reverse_path: None is the null reverse-path.
        recipients: the first `MOST_RECIPIENTS` of them.
        more: the number of other recipients.
        size: octets.
        state: one word: ``queued``, ``delivered``, ``failed``, …
        last: the last reply; empty before the first.
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
        """Return a message of bounded size, however long its addresses and its reply are."""
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
    """A suspended next hop: no session could be opened with it.

    Attributes:
        next_hop: its name: ``smtp:example.net``.
        seconds: until it is tried again.
        times: how often in a row it failed.
        last: the reason: the last reply.
        routed: whether the configuration names its hosts; else it is the exchangers of a domain.
        waiting: recipients that wait for it, as far as they were counted.
    """

    next_hop: str
    seconds: float
    times: int
    last: str
    routed: bool = False
    waiting: int = 0

    @classmethod
    def shortened(cls, *, next_hop: str, last: str, **rest: Any) -> SuspendedHop:
        """Return one of bounded size, however long its name and its reply are."""
        return cls(next_hop=next_hop[:_LONGEST_ADDRESS], last=last[:_LONGEST_ANSWER], **rest)


@frozen(kw_only=True)
class SuspendedByOperator:
    """A destination that the operator has suspended.

    Attributes:
        destination: a domain, or the name of a next hop.
        since: wall time.
        until: wall time; None: until the operator resumes it.
        reason: in the operator's words.
        by: the operator.
        waiting: recipients that wait for it, as far as they were counted.
    """

    destination: str
    since: float
    until: float | None = None
    reason: str = ""
    by: str = ""
    waiting: int = 0


@frozen(kw_only=True)
class OperatorSuspensions:
    """All destinations that the operator has suspended, where a report names some.

    Attributes:
        number: of them.
        since: wall time at which the first was suspended.
        waiting: recipients that wait for them, as far as they were counted.
    """

    number: int = 0
    since: float = 0.0
    waiting: int = 0


@frozen(kw_only=True)
class Destination:
    """A domain with mail in the queue.

    Attributes:
        domain: of the recipients.
        recipients: all of them.
        deferred: those that were tried before.
        held: those that the operator holds.
        since: the arrival of its first message, wall time.
        reasons: those that were tried before, by the reason of their deferral.
    """

    domain: str
    recipients: int
    deferred: int
    held: int
    since: float
    reasons: Mapping[str, int] = field(factory=dict)

    def __add__(self, other: Destination) -> Destination:
        reasons = dict(self.reasons)
        for name, count in other.reasons.items():
            reasons[name] = reasons.get(name, 0) + count
        return Destination(
            domain=self.domain,
            recipients=self.recipients + other.recipients,
            deferred=self.deferred + other.deferred,
            held=self.held + other.held,
            since=min(self.since, other.since),
            reasons=reasons,
        )


@frozen
class Connections:
    """The numbers of connections of a listener.

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
    """The state of one process.

    Attributes:
        pid: its process id.
        state: see `ReportedState`.
        started_at: wall time, seconds since the epoch.
        number: which worker, from 0; None: the only process.
        restarts: how often a worker of this number was started again; its parent knows.
        queue_open: whether the queue can be written to and read now.
        queue: numbers of its part of the queue, by the names of `queue.store.contract.Census`. Of a
            queue that the processes share, one of them reports all numbers; the others, how many
            recipients are leased to them.
        connections: by listener, as the log names it: ``smtp tcp 127.0.0.1:2525``.
        deliveries: transactions with next hops under way.
        metrics: a snapshot.
        recent: messages, the newest first, at most `MOST_MESSAGES`.
        suspended: next hops (`longest_suspended`).
        suspended_by_operator: destinations (`all_suspended`).
        operator_suspensions: all of them, in numbers.
        troubles: of this process.
        destinations: with most mail (`largest_destinations`).
        webhooks: of the settings, with what this process has for them.
        counted_at: wall time of ``queue``; None: now; 0: ``queue`` is not known.
        has_shared_queue: whether other processes have the same queue.
    """

    pid: int
    state: ReportedState
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
    suspended_by_operator: tuple[SuspendedByOperator, ...] = ()
    operator_suspensions: OperatorSuspensions = field(factory=OperatorSuspensions)
    troubles: tuple[Trouble, ...] = ()
    destinations: tuple[Destination, ...] = ()
    counted_at: float | None = None
    has_shared_queue: bool = False
    webhooks: tuple[WebhookStatus, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the report in plain types, for a pipe."""
        return {
            **asdict(self, filter=lambda attribute, _: attribute.name != "metrics"),
            "metrics": self.metrics.to_json(),
        }

    @classmethod
    def from_json(cls, written: Any) -> ProcessReport:
        """Read what `to_json` wrote.

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
                suspended_by_operator=tuple(
                    SuspendedByOperator(**each)
                    for each in written["suspended_by_operator"][:MOST_SUSPENDED_BY_OPERATOR]
                ),
                operator_suspensions=OperatorSuspensions(**written["operator_suspensions"]),
                troubles=tuple(Trouble(**each) for each in written["troubles"]),
                destinations=tuple(
                    Destination(**each) for each in written["destinations"][:MOST_DESTINATIONS]
                ),
                has_shared_queue=bool(written["has_shared_queue"]),
                webhooks=tuple(WebhookStatus(**each) for each in written["webhooks"]),
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"not the report of a process: {error!r}") from None


def largest_destinations(destinations: Iterable[Destination]) -> tuple[Destination, ...]:
    """Return each domain once, those with most mail first; at most `MOST_DESTINATIONS`."""
    sums: dict[str, Destination] = {}
    for each in destinations:
        known = sums.get(each.domain)
        sums[each.domain] = each if known is None else known + each
    ordered = sorted(sums.values(), key=lambda each: (-each.recipients, each.domain))
    return tuple(ordered[:MOST_DESTINATIONS])


def longest_suspended(
    suspended: Iterable[SuspendedHop], *, shared: bool = False
) -> tuple[SuspendedHop, ...]:
    """Return each next hop once, with its longest suspension; at most `MOST_SUSPENDED` of them.

    Those that most mail waits for are first, then those that failed most often.

    Args:
        suspended: next hops, of several processes or shards.
        shared: whether these have one queue, so that the same mail was counted in each.
    """
    longest: dict[str, SuspendedHop] = {}
    for each in suspended:
        known = longest.get(each.next_hop)
        if known is not None:
            longer = each if each.seconds > known.seconds else known
            waiting = known.waiting, each.waiting
            each = evolve(longer, waiting=max(waiting) if shared else sum(waiting))
        longest[each.next_hop] = each
    ordered = sorted(longest.values(), key=lambda each: (-each.waiting, -each.times, each.next_hop))
    return tuple(ordered[:MOST_SUSPENDED])


def all_suspended(suspended: Iterable[SuspendedByOperator]) -> tuple[SuspendedByOperator, ...]:
    """Return each destination once, with the mail of all processes that waits for it, by name.

    There are at most `MOST_SUSPENDED_BY_OPERATOR` of them, those that most mail waits for.
    """
    found: dict[str, SuspendedByOperator] = {}
    for each in suspended:
        known = found.get(each.destination)
        waiting = each.waiting + (0 if known is None else known.waiting)
        found[each.destination] = evolve(each, waiting=waiting)
    ordered = sorted(found.values(), key=lambda each: (-each.waiting, each.destination))
    named = ordered[:MOST_SUSPENDED_BY_OPERATOR]
    return tuple(sorted(named, key=lambda each: each.destination))


def all_suspensions(reports: Iterable[OperatorSuspensions]) -> OperatorSuspensions:
    """Return the numbers of several processes, which all have the same destinations."""
    some = [each for each in reports if each.number]
    return OperatorSuspensions(
        number=max((each.number for each in some), default=0),
        since=min((each.since for each in some), default=0.0),
        waiting=sum(each.waiting for each in some),
    )
