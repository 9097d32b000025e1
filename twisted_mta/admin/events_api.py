"""The steps of mail over HTTP, as server-sent events, until the client hangs up.

    GET /v1/events    ``?types=`` selects some: accepted, delivered, deferred, bounced, expired,
                      removed, held; by commas

The last events are kept, within bounds, for all clients together: as long as a client reads, and a
moment longer, so that one that connects again with Last-Event-ID misses nothing. A client that is
too slow, or was away for too long, gets an event ``lost``.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable

from attrs import define, frozen
from twisted.internet.interfaces import IDelayedCall

from ..interfaces import Clock
from ..mail.events import TYPES, MailEvent, described
from .http import EVENTS, Outlet, Request, Response, Stream, error_response

PATH = "/v1/events"

Subscribe = Callable[[Callable[[MailEvent], object]], Callable[[], None]]
"""Calls a function with each event; returns a function that ends that."""

_MOST_KEPT = 2_000  # events
_MOST_OCTETS = 4 << 20  # of all of them
_MOST_CLIENTS = 16
_GATHERED = 0.1  # seconds for which events wait for others
_ALIVE = 15.0  # seconds between two comments, by which proxies and clients see that it goes on
_LINGERING = 60.0  # seconds for which events are kept after the last client
_BATCH = 100  # events written in one go


@frozen
class _Kept:
    """An event that is kept.

    Attributes:
        number: from 1.
        type: of `TYPES`.
        octets: as they are sent.
    """

    number: int
    type: str
    octets: bytes


@define(eq=False)
class _Client:
    """A client.

    Attributes:
        outlet: where events are written.
        types: that it wants.
        next: the number of the next event to look at.
    """

    outlet: Outlet
    types: frozenset[str]
    next: int


class EventsAPI:
    """Answers requests for `PATH`.

    Args:
        subscribe: see `service.MailTransferAgent.subscribe`.
        name: a text that no other start has; event ids begin with it.
        clock: for gathering, and for signs of life.
    """

    def __init__(self, subscribe: Subscribe, *, name: Callable[[], str], clock: Clock) -> None:
        self._subscribe = subscribe
        self._make_name = name
        self._name = ""
        self._clock = clock
        self._kept: deque[_Kept] = deque()
        self._octets = 0
        self._last = 0  # the number of the last event
        self._clients: list[_Client] = []
        self._unsubscribe: Callable[[], None] | None = None
        self._flushing: IDelayedCall | None = None
        self._alive: IDelayedCall | None = None
        self._lingering: IDelayedCall | None = None
        self._stopped = False

    def answer(self, request: Request) -> Response | Stream:
        """Answer a request."""
        written = request.parameters.get("types")
        types = frozenset(TYPES if written is None else written.split(","))
        unknown = sorted(types.difference(TYPES))
        if unknown:
            return error_response(
                f"types: found {unknown[0]}, expected some of {', '.join(TYPES)}", 400
            )
        if self._stopped:
            return error_response("the MTA stops", 503)
        if len(self._clients) >= _MOST_CLIENTS:
            return error_response(
                f"{_MOST_CLIENTS} clients read events; end one of them",
                503,
                headers={"Retry-After": "10"},
            )
        last = request.only_field("last-event-id")
        return Stream(lambda outlet: self._begin(outlet, types, last), content_type=EVENTS)

    def stop(self) -> None:
        """End all timers and the subscription; clients are let go with their connections."""
        self._stopped = True
        for timer in (self._flushing, self._alive, self._lingering):
            if timer is not None and timer.active():
                timer.cancel()
        self._flushing = self._alive = self._lingering = None
        self._forget()

    def _begin(self, outlet: Outlet, types: frozenset[str], last: str) -> Callable[[], object]:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if self._unsubscribe is None:
            self._name = self._make_name()
            self._unsubscribe = self._subscribe(self._take)
        name, _, number = last.rpartition("-")
        client = _Client(outlet, types, self._last + 1)
        outlet.write(b"retry: 2000\n\n")
        if last:
            known = name == self._name and number.isascii() and number.isdecimal()
            if known and len(number) < 16 and int(number) <= self._last:
                client.next = int(number) + 1
            else:
                outlet.write(_lost(None))
        self._clients.append(client)
        outlet.resumed = lambda: self._write(client)
        self._write(client)
        if self._alive is None:
            self._alive = self._clock.callLater(_ALIVE, self._say_alive)

        def end() -> None:
            self._clients.remove(client)
            if not self._clients and not self._stopped:
                self._lingering = self._clock.callLater(_LINGERING, self._forget)

        return end

    def _forget(self) -> None:
        self._lingering = None
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        self._kept.clear()
        self._octets = 0
        self._last = 0

    def _take(self, event: MailEvent) -> None:
        self._last += 1
        id = f"{self._name}-{self._last}"
        data = json.dumps(described(event))
        octets = f"id: {id}\nevent: {event.type}\ndata: {data}\n\n".encode("ascii")
        self._kept.append(_Kept(self._last, event.type, octets))
        self._octets += len(octets)
        while len(self._kept) > _MOST_KEPT or self._octets > _MOST_OCTETS:
            self._octets -= len(self._kept.popleft().octets)
        if self._flushing is None and self._clients:
            self._flushing = self._clock.callLater(_GATHERED, self._flush)

    def _flush(self) -> None:
        self._flushing = None
        for client in list(self._clients):
            self._write(client)

    def _write(self, client: _Client) -> None:
        """Write what a client has not got, as long as it reads."""
        if not client.outlet.ready:
            return
        first = self._kept[0].number if self._kept else self._last + 1
        if client.next < first:
            client.outlet.write(_lost(first - client.next))
            client.next = first
        while client.outlet.ready and client.next <= self._last:
            start = client.next - first
            some = [
                self._kept[start + each]
                for each in range(min(_BATCH, self._last + 1 - client.next))
            ]
            client.next += len(some)
            octets = b"".join(each.octets for each in some if each.type in client.types)
            if octets:
                client.outlet.write(octets)

    def _say_alive(self) -> None:
        self._alive = None
        for client in self._clients:
            if client.outlet.ready:
                client.outlet.write(b":\n\n")
        if self._clients:
            self._alive = self._clock.callLater(_ALIVE, self._say_alive)


def _lost(number: int | None) -> bytes:
    """Return the event that says how many events were lost; None: it is not known."""
    return f"event: lost\ndata: {json.dumps({'lost': number})}\n\n".encode("ascii")
