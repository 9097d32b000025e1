"""Live traces: who wants to read along is told what sessions say, line by line, as they say it.

As long as nobody does, a session looks at one attribute for each line or write, and that is all.
When a trace is opened, the sessions that there are are told of it, and those that come ask.

Nobody waits for a reader. Between sessions and each reader stands a `Buffer` of bounded length:
what finds no room there is lost, and how much that was is said in its place.
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
"""That may be open at a time."""

_MOST_LINES = 2000  # in a buffer
_TOGETHER = 500  # lines that are handed on at a time
_DELAY = 0.05  # seconds that lines are gathered for
_HELD = 200  # lines of a session that may come to match yet

Direction = Literal["in", "out"]

Event = Mapping[str, Any]
"""A line, as JSON: ``at`` (wall time), ``session``, ``direction``, ``peer``, ``who``, ``text``."""

_PATH = re.compile(r"(MAIL FROM|RCPT TO): ?<(?:@[^:>]*:)?([^>]*)>", re.IGNORECASE)


@frozen(kw_only=True)
class About:
    """What is known of a session.

    Attributes:
        direction: ``in`` where a client came to us, ``out`` where we went to a server.
        peer: who is at the other end, for people.
        address: of a client; None where it is not known.
        names: what a server may be called: its name, its address, either with its port.
    """

    direction: Direction
    peer: str
    address: str | None = None
    names: tuple[str, ...] = ()


@frozen(kw_only=True)
class Filter:
    """Which sessions are wanted: those that everything said here is true of.

    Attributes:
        direction: None: both.
        client: the network that clients come from; then only those.
        next_hop: what a server is called; then only those.
        sender: the reverse-path, or ``@`` and its domain; empty is the null one.
        recipient: a forward-path, or ``@`` and its domain.
    """

    direction: Direction | None = None
    client: str | None = None
    next_hop: str | None = None
    sender: str | None = None
    recipient: str | None = None

    @classmethod
    def parse(cls, said: Mapping[str, str]) -> Filter:
        """Return what a query says.

        Raises:
            ValueError: something in it cannot be; which, and why, printable.
        """
        for name in said:
            if name not in fields_dict(cls):
                raise ValueError(f"no filter {printable(name)}")
        direction = said.get("direction")
        if direction not in (None, "in", "out"):
            raise ValueError("direction: in or out")
        client = said.get("client")
        if client is not None:
            try:
                client = str(ip_network(client))
            except ValueError:
                raise ValueError(
                    f"no network of clients: {printable(client)}; 192.0.2.0/24 or 2001:db8::1"
                    " would do"
                ) from None
        return cls(
            direction=direction,  # type: ignore[arg-type]
            client=client,
            next_hop=_lower(said.get("next_hop")),
            sender=_lower(said.get("sender")),
            recipient=_lower(said.get("recipient")),
        )

    def to_json(self) -> dict[str, str]:
        """Return what `parse` reads."""
        return asdict(self, filter=lambda _, value: value is not None)

    def wants(self, about: About) -> bool:
        """Whether lines of a session may be wanted."""
        if self.direction is not None and about.direction != self.direction:
            return False
        if self.client is not None and not (
            about.direction == "in" and about.address and _covers(self.client, about.address)
        ):
            return False
        if self.next_hop is None:
            return True
        return about.direction == "out" and self.next_hop in map(str.lower, about.names)


def _lower(text: str | None) -> str | None:
    return None if text is None else text.strip().removeprefix("<").removesuffix(">").lower()


def _covers(network: str, address: str) -> bool:
    try:
        return ip_address(address.partition("%")[0]) in ip_network(network)
    except ValueError:
        return False


def _is(pattern: str, mailbox: str) -> bool:
    mailbox = mailbox.lower()
    return mailbox.endswith(pattern) if pattern[:1] == "@" else mailbox == pattern


class Buffer:
    """Lines on their way to a reader.

    Args:
        clock: gathers them for a moment.
        deliver: takes some lines, and how many were lost since the last ones.
        ready: whether the reader takes any now; `flush` says when it does again.

    Attributes:
        lost: how many lines found no room, in all.
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
        """Take a line, or lose it."""
        if len(self._events) >= _MOST_LINES:
            self.lose(1)
            return
        self._events.append(event)
        self._wake()

    def lose(self, count: int) -> None:
        """Lines were lost on the way here."""
        self.lost += count
        self._missing += count
        self._wake()

    def flush(self) -> None:
        """Hand on what there is, as far as the reader takes it."""
        if self._closed or not self._ready() or not (self._events or self._missing):
            return
        some = [self._events.popleft() for _ in range(min(_TOGETHER, len(self._events)))]
        missing, self._missing = self._missing, 0
        self._deliver(some, missing)
        if self._events:
            self._wake()

    def close(self) -> None:
        """Hand on nothing more."""
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
    """A trace that is open in this process.

    Attributes:
        filter: which sessions.
        buffer: where their lines go.
    """

    filter: Filter
    buffer: Buffer


@define(eq=False)
class _Speech:
    """One session, as one trace sees it."""

    trace: Trace
    matched: bool = False
    sender: bool = False
    held: deque[Event] = field(factory=lambda: deque(maxlen=_HELD))

    def line(self, line: Line, event: Event) -> None:
        wanted = self.trace.filter
        if wanted.sender is None and wanted.recipient is None:
            self.trace.buffer.put(event)
            return
        found = _PATH.match(line.text) if line.speaker == "client" else None
        if found and found[1][0] in "Mm":
            # Another transaction: what was said before the first is told with the first that
            # matches.
            self.matched = False
            self.sender = wanted.sender is None or _is(wanted.sender, found[2])
            self.matched = self.sender and wanted.recipient is None
        elif found and self.sender and wanted.recipient is not None:
            self.matched = self.matched or _is(wanted.recipient, found[2])
        if not self.matched:
            self.held.append(event)
            return
        while self.held:
            self.trace.buffer.put(self.held.popleft())
        self.trace.buffer.put(event)


class Overheard:
    """One session, as all traces that want it see it: call it with each line."""

    def __init__(self, tracing: Tracing, about: About, number: str) -> None:
        self.about = about
        self._tracing = tracing
        self._number = number
        self._speeches: dict[Trace, _Speech] = {}

    def __call__(self, line: Line) -> None:
        """Tell a line."""
        event = {
            "at": self._tracing.wall_time(),
            "session": self._number,
            "direction": self.about.direction,
            "peer": printable(self.about.peer),
            "who": line.speaker,
            "text": line.text,
        }
        for speech in tuple(self._speeches.values()):
            speech.line(line, event)

    def join(self, traces: Iterable[Trace]) -> bool:
        """Be told to those traces that want it, and to no others; says whether there are any."""
        before = self._speeches
        self._speeches = {
            trace: before.get(trace) or _Speech(trace)
            for trace in traces
            if trace.filter.wants(self.about)
        }
        return bool(self._speeches)


class Tracing:
    """The traces that are open in one process.

    Args:
        clock: for their buffers.
        wall_time: when lines were said.
        name: of this process, where there are several.

    Attributes:
        traces: by the name that whoever opened them gave.
        changed: called when one was opened or closed: has all sessions `attach` anew.
        wall_time: see there.
    """

    def __init__(self, *, clock: Clock, wall_time: WallTime, name: str = "") -> None:
        self.traces: dict[int, Trace] = {}
        self.changed: Callable[[], object] = lambda: None
        self.wall_time = wall_time
        self._clock = clock
        self._name = name
        self._sessions = 0

    def open(
        self, name: int, wanted: Filter, deliver: Callable[[Sequence[Event], int], object]
    ) -> None:
        """Open a trace.

        Args:
            name: to close it by.
            wanted: which sessions.
            deliver: takes some lines, and how many were lost since the last ones.
        """
        self.traces[name] = Trace(wanted, Buffer(clock=self._clock, deliver=deliver))
        self.changed()

    def close(self, name: int) -> None:
        """Close a trace, if it is open."""
        trace = self.traces.pop(name, None)
        if trace is not None:
            trace.buffer.close()
            self.changed()

    def attach(self, overheard: Overheard | None, about: Callable[[], About]) -> Overheard | None:
        """Return what a session is to tell its lines to; None: nobody wants them.

        Args:
            overheard: what it told them to before.
            about: says what is known of the session.
        """
        if not self.traces:
            return None
        if overheard is None:
            self._sessions += 1
            overheard = Overheard(self, about(), f"{self._name}{self._sessions}")
        return overheard if overheard.join(self.traces.values()) else None
