"""Live traces: the dialogue of sessions, line by line, for operators who open a trace.

While no trace is open, a session tests one attribute for each line. When a trace is opened, all
sessions attach to it; new sessions attach at their start.

No session waits for a reader. Each reader has a `Buffer` of bounded length: lines that do not fit
are lost, and their number is reported in their place.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any, Literal

from attrs import asdict, define, field, fields_dict, frozen
from twisted.internet.interfaces import IDelayedCall

from ..interfaces import Clock, WallTime
from ..mail.printable import printable
from ..smtp.conversation import Line

MOST_TRACES = 10
"""Traces that may be open at a time."""

_MOST_LINES = 2000  # in a buffer
_BATCH = 500  # lines that are delivered at a time
_DELAY = 0.05  # seconds for which lines are gathered
_HELD = 200  # lines of a session that is kept until it matches

Direction = Literal["in", "out"]

Event = Mapping[str, Any]
"""A line, as JSON: ``at`` (wall time), ``session``, ``direction``, ``peer``, ``who``, ``text``."""

_PATH = re.compile(r"(MAIL FROM|RCPT TO): ?<(?:@[^:>]*:)?([^>]*)>", re.IGNORECASE)


@frozen(kw_only=True)
class SessionEnds:
    """The end points of a session, which filters match.

    Attributes:
        direction: ``in``: a client with us; ``out``: we with a server.
        peer: the other end, for people.
        address: of a client; None: not known.
        names: of a server: its name and its address, each also with the port.
    """

    direction: Direction
    peer: str
    address: str | None = None
    names: tuple[str, ...] = ()


@frozen(kw_only=True)
class Filter:
    """Selects sessions: all conditions that are not None have to match.

    Attributes:
        direction: None: both.
        client: the network of the client.
        next_hop: a name or address of the server.
        sender: the reverse-path, or ``@`` and its domain; empty: the null one.
        recipient: a forward-path, or ``@`` and its domain.
    """

    direction: Direction | None = None
    client: str | None = None
    next_hop: str | None = None
    sender: str | None = None
    recipient: str | None = None

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> Filter:
        """Return the filter of a query.

        Raises:
            ValueError: a name is unknown or a value is not valid; the message is printable.
        """
        for name in query:
            if name not in fields_dict(cls):
                raise ValueError(
                    f"{printable(name)}: no such filter; expected {', '.join(fields_dict(cls))}"
                )
        direction = query.get("direction")
        if direction not in (None, "in", "out"):
            raise ValueError(f"direction: found {printable(direction)}, expected in or out")
        client = query.get("client")
        if client is not None:
            try:
                client = str(ip_network(client))
            except ValueError:
                raise ValueError(
                    f"client: found {printable(client)}, expected a network such as 192.0.2.0/24"
                    " or 2001:db8::1"
                ) from None
        return cls(
            direction=direction,  # type: ignore[arg-type]
            client=client,
            next_hop=_canonical(query.get("next_hop")),
            sender=_canonical(query.get("sender")),
            recipient=_canonical(query.get("recipient")),
        )

    def to_json(self) -> dict[str, str]:
        """Return the query that `parse` reads."""
        return asdict(self, filter=lambda _, value: value is not None)

    def matches(self, ends: SessionEnds) -> bool:
        """Whether a session matches, apart from sender and recipient."""
        if self.direction is not None and ends.direction != self.direction:
            return False
        if self.client is not None and not (
            ends.direction == "in" and ends.address and _covers(self.client, ends.address)
        ):
            return False
        if self.next_hop is None:
            return True
        return ends.direction == "out" and self.next_hop in map(str.lower, ends.names)


def _canonical(text: str | None) -> str | None:
    return None if text is None else text.strip().removeprefix("<").removesuffix(">").lower()


def _covers(network: str, address: str) -> bool:
    try:
        return ip_address(address.partition("%")[0]) in ip_network(network)
    except ValueError:
        return False


def _matches(pattern: str, mailbox: str) -> bool:
    mailbox = mailbox.lower()
    return mailbox.endswith(pattern) if pattern[:1] == "@" else mailbox == pattern


class Buffer:
    """Lines that wait for a reader, gathered for a moment.

    Args:
        clock: for the moment.
        deliver: takes lines, and the number of lines lost since the last call.
        ready: whether the reader takes lines now; call `flush` when it does again.

    Attributes:
        lost: the number of all lost lines.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        deliver: Callable[[Sequence[Event], int], object],
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        self.lost = 0
        self._clock = clock
        self._deliver = deliver
        self._ready = ready
        self._events: deque[Event] = deque()
        self._missing = 0
        self._timer: IDelayedCall | None = None
        self._closed = False

    def put(self, event: Event) -> None:
        """Add a line; it is lost if the buffer is full."""
        if len(self._events) >= _MOST_LINES:
            self.lose(1)
            return
        self._events.append(event)
        self._wake()

    def lose(self, count: int) -> None:
        """Count lines that were lost before they came here."""
        self.lost += count
        self._missing += count
        self._wake()

    def flush(self) -> None:
        """Deliver lines if the reader is ready."""
        if self._closed or not self._ready() or not (self._events or self._missing):
            return
        batch = [self._events.popleft() for _ in range(min(_BATCH, len(self._events)))]
        missing, self._missing = self._missing, 0
        self._deliver(batch, missing)
        if self._events:
            self._wake()

    def close(self) -> None:
        """Deliver nothing more."""
        self._closed = True
        self._events.clear()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _wake(self) -> None:
        if self._timer is None and not self._closed:
            self._timer = self._clock.callLater(_DELAY, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self.flush()


@define(eq=False)
class Trace:
    """A trace that is open in this process."""

    filter: Filter
    buffer: Buffer


@define(eq=False)
class _TraceOfSession:
    """One session in one trace: held back until a transaction matches sender and recipient.

    Attributes:
        trace: the trace.
        matched: whether the current transaction matches.
        sender_matched: whether its reverse-path matches.
        held: lines that are delivered with the first match.
    """

    trace: Trace
    matched: bool = False
    sender_matched: bool = False
    held: deque[Event] = field(factory=lambda: deque(maxlen=_HELD))

    def line(self, line: Line, event: Event) -> None:
        """Deliver a line, or hold it back."""
        filter = self.trace.filter
        if filter.sender is None and filter.recipient is None:
            self.trace.buffer.put(event)
            return
        path = _PATH.match(line.text) if line.speaker == "client" else None
        if path and path[1][0] in "Mm":  # MAIL: another transaction
            self.sender_matched = filter.sender is None or _matches(filter.sender, path[2])
            self.matched = self.sender_matched and filter.recipient is None
        elif path and self.sender_matched and filter.recipient is not None:
            self.matched = self.matched or _matches(filter.recipient, path[2])
        if not self.matched:
            self.held.append(event)
            return
        while self.held:
            self.trace.buffer.put(self.held.popleft())
        self.trace.buffer.put(event)


class TracedSession:
    """One session in all traces that it matches: called with each line."""

    def __init__(self, tracing: Tracing, ends: SessionEnds, number: str) -> None:
        self.ends = ends
        self._tracing = tracing
        self._number = number
        self._traces: dict[Trace, _TraceOfSession] = {}

    def __call__(self, line: Line) -> None:
        """Pass a line to the traces."""
        event = {
            "at": self._tracing.wall_time(),
            "session": self._number,
            "direction": self.ends.direction,
            "peer": printable(self.ends.peer),
            "who": line.speaker,
            "text": line.text,
        }
        for trace in tuple(self._traces.values()):
            trace.line(line, event)

    def join(self, traces: Iterable[Trace]) -> bool:
        """Attach to those traces that match, and to no others; return whether there are any."""
        before = self._traces
        self._traces = {
            trace: before.get(trace) or _TraceOfSession(trace)
            for trace in traces
            if trace.filter.matches(self.ends)
        }
        return bool(self._traces)


class Tracing:
    """The open traces of one process.

    Args:
        clock: for buffers.
        wall_time: for the times of lines.
        name: prefix of session numbers, if there are several processes.

    Attributes:
        traces: by the name that `open` was called with.
        changed: called after a trace was opened or closed; all sessions then `attach` again.
        wall_time: for the times of lines.
    """

    def __init__(self, *, clock: Clock, wall_time: WallTime, name: str = "") -> None:
        self.traces: dict[int, Trace] = {}
        self.changed: Callable[[], object] = lambda: None
        self.wall_time = wall_time
        self._clock = clock
        self._name = name
        self._sessions = 0

    def open(
        self, name: int, filter: Filter, deliver: Callable[[Sequence[Event], int], object]
    ) -> None:
        """Open a trace.

        Args:
            name: for `close`.
            filter: selects sessions.
            deliver: takes lines, and the number of lines lost since the last call.
        """
        self.traces[name] = Trace(filter, Buffer(clock=self._clock, deliver=deliver))
        self.changed()

    def close(self, name: int) -> None:
        """Close a trace, if it is open."""
        trace = self.traces.pop(name, None)
        if trace is not None:
            trace.buffer.close()
            self.changed()

    def attach(
        self, traced: TracedSession | None, ends: Callable[[], SessionEnds]
    ) -> TracedSession | None:
        """Return what a session calls with each line; None: no trace matches.

        Args:
            traced: the result of the last call for this session.
            ends: returns the end points of the session.
        """
        if not self.traces:
            return None
        if traced is None:
            self._sessions += 1
            traced = TracedSession(self, ends(), f"{self._name}{self._sessions}")
        return traced if traced.join(self.traces.values()) else None
