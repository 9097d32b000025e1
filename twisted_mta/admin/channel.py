"""Connections of HTTP, with bounds on what clients can use of the process.

``twisted.web`` reads the requests and writes the responses. This file bounds the rest: the number
of connections, the time for a request to arrive and for a response to be read, the requests of one
connection in one turn of the reactor (one), and the share of the reactor's time that responses
take.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request

_PIECE = 8192  # octets that are read at once, and after which a response waits for its reader
_REST = 3.0  # times what a response took, until the next: responses get a quarter of the time
_LONGEST_REST = 0.25  # seconds
_LONGEST_NUMBER = 20  # octets of a Content-Length


@frozen(kw_only=True)
class Bounds:
    """What clients may use.

    Attributes:
        connections: at a time. For one more, the connection closes that has waited longest for its
            client; where none waits, the new one is refused.
        per_peer: likewise, from one address.
        body: octets of a request's body; a longer one closes the connection.
        idle: seconds until a request begins.
        request: seconds from its first octet to its last.
        reading: seconds for a client to read what was written.
        streaming: likewise, for a response in pieces: a person may read it page by page.
    """

    connections: int = 64
    per_peer: int = 32
    body: int = 1 << 20
    idle: float = 60.0
    request: float = 20.0
    reading: float = 30.0
    streaming: float = 600.0


class Lane:
    """The line of requests: one in a turn of the reactor, and a share of its time for all.

    Args:
        clock: a reactor.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: deque[Callable[[], object]] = deque()
        self._resting: IDelayedCall | None = None
        self._rests_until = 0.0

    @property
    def crowded(self) -> bool:
        """Whether other requests wait."""
        return bool(self._waiting)

    def enter(self, work: Callable[[], object]) -> None:
        """Do ``work``, at once or when its turn has come."""
        self._waiting.append(work)
        if self._resting is None:
            self._go_on()

    def _go_on(self) -> None:
        self._resting = None
        rest = self._rests_until - self._clock.seconds()
        if rest <= 0:
            self._do(self._waiting.popleft())
            rest = 0.0 if not self._waiting else self._rests_until - self._clock.seconds()
        if self._waiting:
            # However the clock jumps, no request waits for long.
            self._resting = self._clock.callLater(min(max(rest, 0.0), _LONGEST_REST), self._go_on)

    def _do(self, work: Callable[[], object]) -> None:
        began = self._clock.seconds()
        try:
            work()
        finally:
            now = self._clock.seconds()
            self._rests_until = now + min(max(_REST * (now - began), 0.0), _LONGEST_REST)


class Connections:
    """The connections of one site.

    Args:
        bounds: for all of them.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._peers: dict[Channel, str] = {}  # the longest waiting first

    def admit(self, channel: Channel, peer: str) -> bool:
        """Count a connection in, if there is room, or if another one can be closed for it."""
        candidates = [each for each, other in self._peers.items() if other == peer]
        if len(candidates) < self.bounds.per_peer:
            if len(self._peers) < self.bounds.connections:
                self._peers[channel] = peer
                return True
            peers = list(self._peers.values())
            largest = max(dict.fromkeys(peers), key=peers.count)
            candidates = [each for each, other in self._peers.items() if other == largest]
        idle = next((each for each in candidates if each.waits), None)
        if idle is None:
            return False
        self.left(idle)
        idle.give_way()
        self._peers[channel] = peer
        return True

    def waits(self, channel: Channel) -> None:
        """Note that a connection begins to wait for its client."""
        peer = self._peers.pop(channel, None)
        if peer is not None:
            self._peers[channel] = peer

    def left(self, channel: Channel) -> None:
        """Count a connection out."""
        self._peers.pop(channel, None)


class Channel(HTTPChannel):
    """One connection. It reads the next request when the response to the last one is written.

    Attributes:
        waits: whether it waits for its client, within a request or before one.
        streams: whether the response under way is written in pieces, as the client reads.
    """

    transport: Any
    site: Any
    requests: list[Any]
    persistent: Any
    length: int | None
    callLater: Any
    _handlingRequest: bool
    _waitingForTransport: bool
    _dataBuffer: list[bytes]
    _networkProducer: Any

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waits = True
        self.streams = False
        self._begun = False  # whether octets of a request have come
        self._closing = False  # octets that come now are dropped
        self._unread = False  # a response is complete, and not read yet
        self._late: Callable[[], object] = self.give_way
        self._next_turn: IDelayedCall | None = None

    @property
    def _connections(self) -> Connections:
        connections: Connections = self.site.connections
        return connections

    # Called by Twisted.

    def connectionMade(self) -> None:
        """Begin, if there is room for one more connection."""
        self.transport.bufferSize = _PIECE
        super().connectionMade()  # type: ignore[no-untyped-call]
        peer = getattr(self.transport.getPeer(), "host", "")
        if self._connections.admit(self, peer):
            self._within(self._connections.bounds.idle, self.give_way)
        else:
            self._refuse("503 Service Unavailable", "too many connections", "Retry-After: 1\r\n")

    def dataReceived(self, data: bytes) -> None:
        """Take octets of a request; they do not extend its time."""
        if self._closing:
            return
        if self.waits and not self._begun:
            self._begun = True
            self._within(self._connections.bounds.request, self._too_slow)
        LineReceiver.dataReceived(self, data)

    def headerReceived(self, line: bytes) -> bool:
        """Take a header field (`HTTPChannel` would raise an error at a number of 5,000 digits)."""
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and len(value.strip()) > _LONGEST_NUMBER:
            self._too_long()
            return False
        taken: bool = super().headerReceived(line)  # type: ignore[no-untyped-call]
        return taken

    def lineLengthExceeded(self, line: bytes) -> None:
        """Refuse a request whose URL or header field is too long (called by Twisted)."""
        self._refuse("431 Request Header Fields Too Large", "a line of the request is too long")

    def allHeadersReceived(self) -> None:
        """Check the length of the body."""
        request: Any = self.requests[-1]
        allow = getattr(request, "allow", None)  # Twisted's own, in tests
        most = max(self._connections.bounds.body, 0 if self.length == 0 or not allow else allow())
        if self.length is not None and self.length > most:
            self._too_long()
            return
        super().allHeadersReceived()  # type: ignore[no-untyped-call]

    def allContentReceived(self) -> None:
        """Answer the complete request."""
        if self._closing:
            return
        self.waits = self._begun = False
        super().allContentReceived()  # type: ignore[no-untyped-call]

    def requestDone(self, request: Request) -> None:
        """Let the next request wait until the complete response is written."""
        self.requests.remove(request)
        self.streams = False
        if not self.persistent:
            self._close()
        elif self._waitingForTransport:
            self._unread = True
            self._within(self._connections.bounds.reading, self.transport.abortConnection)
        else:
            self._go_on_soon()

    def pauseProducing(self) -> None:
        """Wait for the client to read (called by Twisted)."""
        super().pauseProducing()  # type: ignore[no-untyped-call]
        bounds = self._connections.bounds
        seconds = bounds.streaming if self.streams else bounds.reading
        self._within(seconds, self.transport.abortConnection)

    def resumeProducing(self) -> None:
        """Go on: the client has read (called by Twisted)."""
        self.setTimeout(None)  # type: ignore[no-untyped-call]
        super().resumeProducing()  # type: ignore[no-untyped-call]
        if self._unread:
            self._unread = False
            self._go_on_soon()

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Refuse a request that cannot be read, and all that follows."""
        self._refuse("400 Bad Request", "this is not a request of HTTP/1.1")

    def timeoutConnection(self) -> None:
        """End the wait whose time is over (called by Twisted)."""
        self._late()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Count it out."""
        self._closing = True
        self._connections.left(self)
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    # Ours.

    def give_way(self) -> None:
        """Close without a response: no request is under way."""
        self._closing = True
        self.transport.abortConnection()

    def renew(self) -> None:
        """Let the rest of a long request come in the time that a request has."""
        if not self._closing:
            self._within(self._connections.bounds.request, self._too_slow)

    def too_long(self) -> None:
        """Refuse a body that is longer than allowed."""
        self._too_long()

    def _go_on_soon(self) -> None:
        # Not at once: other connections have their turn between two requests of one.
        self._next_turn = self.callLater(0, self._go_on)

    def _go_on(self) -> None:
        self._next_turn = None
        self._handlingRequest = False
        self.waits = True
        self._connections.waits(self)
        self._within(self._connections.bounds.idle, self.give_way)
        self._networkProducer.resumeProducing()
        data = b"".join(self._dataBuffer)
        self._dataBuffer = []
        self.setLineMode(data)  # type: ignore[no-untyped-call]

    def _within(self, seconds: float, late: Callable[[], object]) -> None:
        self._late = late
        self.setTimeout(seconds)  # type: ignore[no-untyped-call]

    def _too_slow(self) -> None:
        self._refuse("408 Request Timeout", "the request did not come in time")

    def _too_long(self) -> None:
        self._refuse("413 Content Too Large", "the request is too long")

    def _refuse(self, status: str, text: str, fields: str = "") -> None:
        """Refuse a request without reading it, and close."""
        if self._closing:
            return
        self._closing = True
        body = f'{{"error": "{text}"}}\n'
        self.transport.write(
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{fields}"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode("ascii")
        )
        self._close()

    def _close(self) -> None:
        """Close once the client has read what was written, within its time."""
        self._closing = True
        self._within(self._connections.bounds.reading, self.transport.abortConnection)
        self.loseConnection()  # type: ignore[no-untyped-call]
