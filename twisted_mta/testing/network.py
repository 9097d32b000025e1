"""A network in memory, on a clock that the test moves, with real TLS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from math import inf
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.base import DelayedCall
from twisted.internet.error import (
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    TimeoutError,
)
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

_MOST_CALLS = 1_000_000
"""Calls at one time of the clock, above which a test would wait for ever."""

_MANY_STALE = 256  # entries of calls that were made, cancelled or moved, kept among the timers


class NeverQuiet(RuntimeError):
    """Calls that are due at one time of the clock do not come to an end, e.g. 0 s after another."""


class MemoryTransport:
    """One end of a connection in memory, which behaves like a TCP transport of Twisted.

    Attributes:
        other: the other end.
        protocol: the protocol of this end.
        closed: called when the connection is over, after the protocol; None: nothing is.
        peak: the most octets that ever waited to be read by the other end.
        latency: seconds that octets are on their way.
    """

    BUFFER = 65_536  # waiting octets beyond which a producer is paused

    other: MemoryTransport
    protocol: Any
    closed: Callable[[Failure], None] | None = None
    latency: float = 0.0

    def __init__(self, clock: Any, *, client: bool, host: Any, peer: Any) -> None:
        self.peak = 0
        self.connected = True
        self.disconnecting = False
        self._clock = clock
        self._client = client
        self._host = host
        self._peer = peer
        self._waiting = bytearray()
        self._scheduled = False
        self._held = False
        self._producer: Any = None
        self._producer_paused = False
        self._poll: _Poll | None = None
        self._tls: Any = None

    # Called by a protocol.

    def write(self, data: bytes) -> None:
        """Send octets, through TLS if it was started."""
        if self._tls is not None:
            if self.connected:
                self._tls.write(data)
        else:
            self.write_raw(data)

    def writeSequence(self, data: list[bytes]) -> None:
        """Send several pieces as one."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close when all octets are sent; under TLS, with its closing alert."""
        if self._tls is not None:
            if self.connected and not self.disconnecting:
                self._tls.loseConnection()
        else:
            self.lose_raw()

    def abortConnection(self) -> None:
        """Close now; waiting octets are lost."""
        if self.connected:
            self._waiting.clear()
            self.disconnecting = True
            self._clock.callLater(0, self._over, ConnectionAborted(), ConnectionLost())

    def startTLS(self, contextFactory: Any, normal: bool = True) -> None:
        """Start TLS between the protocol and this connection."""
        factory = TLSMemoryBIOFactory(
            contextFactory,
            self._client,
            None,  # type: ignore[arg-type]
            self._clock,
        )
        self._tls = factory.protocol(factory, self.protocol, False)
        self.protocol = self._tls
        self._tls.makeConnection(_Raw(self))

    def getHandle(self) -> Any:
        """Return the OpenSSL connection; None in clear."""
        return self._tls.getHandle() if self._tls is not None else None

    def getHost(self) -> Any:
        """Return the address of this end."""
        return self._host

    def getPeer(self) -> Any:
        """Return the address of the other end."""
        return self._peer

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Do nothing: no octets are delayed."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Do nothing: no connection breaks unnoticed."""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let ``producer`` write as fast as the other end reads."""
        poll = None
        if not streaming:
            producer = poll = _Poll(producer, self._clock)
        if self._tls is not None:
            self._tls.registerProducer(producer, True)
        else:
            self.register_raw(producer, True)
        self._poll = poll
        if poll is not None and self.connected:
            poll.resumeProducing()

    def unregisterProducer(self) -> None:
        """Forget the producer."""
        if self._poll is not None:
            self._poll.pauseProducing()
            self._poll = None
        if self._tls is not None:
            self._tls.unregisterProducer()
        else:
            self.unregister_raw()

    # Below TLS.

    def write_raw(self, data: bytes) -> None:
        """Send octets without TLS."""
        if not self.connected or self.disconnecting:
            return
        self._waiting += data
        self.peak = max(self.peak, len(self._waiting))
        if self._producer is not None and len(self._waiting) > self.BUFFER:
            self._producer_paused = True
            self._producer.pauseProducing()
        self._schedule()

    def lose_raw(self) -> None:
        """Close when all octets are sent."""
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            self._schedule()

    def register_raw(self, producer: Any, streaming: bool) -> None:
        """Let ``producer`` write as fast as the other end reads."""
        if self._producer is not None or not streaming:
            raise RuntimeError("a transport has one producer, and it has to be a streaming one")
        self._producer = producer
        if not self.connected:
            producer.stopProducing()

    def unregister_raw(self) -> None:
        """Forget the producer."""
        self._producer = None
        self._producer_paused = False

    def pauseProducing(self) -> None:
        """Stop reading from the other end."""
        self.other._held = True

    def resumeProducing(self) -> None:
        """Read from the other end again."""
        self.other._held = False
        self.other._schedule()

    # When a machine crashes.

    def is_of(self, clock: Any) -> bool:
        """Whether this end is open, and on that machine."""
        return self.connected and self._clock is clock

    def vanish(self) -> None:
        """Be gone without a word to the protocol of this end; the other loses the connection."""
        self.connected = False
        self._waiting.clear()
        self.other._waiting.clear()
        self.other._clock.callLater(0, self.other._peer_vanished)

    def _peer_vanished(self) -> None:
        if self.connected:
            self._over(ConnectionLost(), ConnectionLost())

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._clock.callLater(self.latency, self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False
        if self._waiting and self.connected and not self._held:
            octets = bytes(self._waiting)
            self._waiting.clear()
            self._hand_over(octets)
        self._delivered()

    def _hand_over(self, octets: bytes) -> None:
        """Let the other end read octets that have arrived."""
        self.other.protocol.dataReceived(octets)

    def _delivered(self) -> None:
        if not self.connected:
            return
        if self._producer is not None and self._producer_paused and not self._waiting:
            self._producer_paused = False
            self._producer.resumeProducing()
        if self.disconnecting and not self._waiting and self._producer is None:
            self._over(ConnectionDone(), ConnectionDone())

    def _over(self, here: Exception, there: Exception) -> None:
        for end, reason in ((self, here), (self.other, there)):
            if end.connected:
                end.connected = False
                if end._producer is not None:
                    end._producer.stopProducing()
                failure = Failure(reason)
                end.protocol.connectionLost(failure)
                if end.closed is not None:
                    end.closed(failure)


class _Poll:
    """A streaming producer that asks a pull producer for more, once in each turn of the clock.

    Args:
        producer: `IPullProducer`.
        clock: of the turns.
    """

    def __init__(self, producer: Any, clock: Any) -> None:
        self._producer = producer
        self._clock = clock
        self._call: Any = None

    def resumeProducing(self) -> None:
        """Ask until it is paused."""
        if self._call is None:
            self._call = self._clock.callLater(0, self._ask)

    def pauseProducing(self) -> None:
        """Ask no more for now."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def stopProducing(self) -> None:
        """Tell the producer that the connection is lost."""
        self.pauseProducing()
        self._producer.stopProducing()

    def _ask(self) -> None:
        self._call = self._clock.callLater(0, self._ask)
        self._producer.resumeProducing()


class _Raw:
    """A `MemoryTransport` below its TLS."""

    def __init__(self, transport: MemoryTransport) -> None:
        self._transport = transport
        self.write = transport.write_raw
        self.loseConnection = transport.lose_raw
        self.registerProducer = transport.register_raw
        self.unregisterProducer = transport.unregister_raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Connector:
    """An attempt to connect, and the connection (`twisted.internet.interfaces.IConnector`)."""

    stopConnecting: Callable[[], None]

    def __init__(self, destination: Any, connect: Callable[[_Connector], None]) -> None:
        self.transport: MemoryTransport | None = None
        self._destination = destination
        self._connect = connect

    def connect(self) -> None:
        """Connect, also once more after a failure."""
        self._connect(self)

    def disconnect(self) -> None:
        """End the connection, or the attempt."""
        if self.transport is None:
            self.stopConnecting()
        else:
            self.transport.loseConnection()

    def getDestination(self) -> Any:
        """Return the address of the server."""
        return self._destination


class MemoryNetwork(Clock):
    """A reactor for clients: it connects them to servers in memory, on a clock that the test moves.

    Attributes:
        connections: the client's and the server's end of each connection, in order.
        sources: the ``bindAddress`` of each attempt to connect, in order.
        refusal: the error of an attempt to connect to an address without a server.
        transport_class: the ends of its connections.
    """

    transport_class: type[MemoryTransport] = MemoryTransport

    def __init__(self) -> None:
        super().__init__()
        del self.calls  # of `Clock`; here they are in a heap
        self.connections: list[tuple[MemoryTransport, MemoryTransport]] = []
        self.sources: list[tuple[str, int] | None] = []
        self.refusal: Exception = ConnectionRefusedError()
        self._listening: dict[tuple[str, int], list[tuple[Protocol, Any]] | None] = {}
        self._heap: list[tuple[float, int, DelayedCall]] = []
        self._pushed = 0  # entries so far: those of one time are in this order
        self._pending = 0  # calls that are neither made nor cancelled

    # `IReactorTime`. A heap: `Clock` sorts all its calls for each one that is added.

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kw: object
    ) -> DelayedCall:
        """Call ``callable`` in ``delay`` seconds on the clock; calls at one time in this order."""
        call = DelayedCall(
            self.seconds() + delay, callable, args, kw, self._cancelled, self._push, self.seconds
        )
        self._pending += 1
        self._push(call)
        return call

    def getDelayedCalls(self) -> Sequence[DelayedCall]:
        """Return the calls that are pending, in their order."""
        calls = [entry[2] for entry in sorted(self._heap) if self._is_valid(*entry)]
        return sorted(dict.fromkeys(calls), key=DelayedCall.getTime)

    def _push(self, call: DelayedCall) -> None:
        """Add a call, at its time of now; an entry from before it was moved has another time."""
        if len(self._heap) > 2 * self._pending + _MANY_STALE:
            self._heap = [entry for entry in self._heap if self._is_valid(*entry)]
            heapify(self._heap)
        self._pushed += 1
        heappush(self._heap, (call.time, self._pushed, call))

    def _cancelled(self, call: DelayedCall) -> None:
        self._pending -= 1

    @staticmethod
    def _is_valid(time: float, number: int, call: DelayedCall) -> bool:
        return call.time == time and bool(call.active())

    def _next_call(self) -> DelayedCall | None:
        """Return the first call, which is on top of the heap then; None: there is none."""
        while self._heap:
            entry = self._heap[0]
            call = entry[2]
            if self._is_valid(*entry):
                if not call.delayed_time:
                    return call
                call.activate_delay()  # it was put off since it was pushed
                heappop(self._heap)
                self._push(call)
            else:
                heappop(self._heap)
        return None

    def listen(self, address: str, port: int, *servers: Protocol, clock: Any = None) -> None:
        """Connect the next clients to ``servers``, one each; later ones are refused.

        Args:
            address: of the servers.
            port: of the servers.
            servers: their protocols.
            clock: the machine that they run on (`machine.Machine`); None: none that crashes.
        """
        waiting = self._listening.setdefault((address, port), [])
        assert waiting is not None
        waiting.extend((server, clock or self) for server in servers)

    def swallow(self, address: str, port: int) -> None:
        """Never answer attempts to connect to this address."""
        self._listening[address, port] = None

    def left_open(self) -> list[str]:
        """Return the connections that are open, and the timers (`inventory.Double`)."""
        peers = [ends[0].getPeer() for ends in self.connections if ends[0].connected]
        timers = [str(call) for call in self.getDelayedCalls()]
        return [*(f"connection to {peer}" for peer in peers), *timers]

    def settle(self) -> None:
        """Run all calls that are due, and those that become due meanwhile.

        Raises:
            NeverQuiet: they do not come to an end.
        """
        self.advance(0)

    def advance(self, amount: float) -> None:
        """Advance the clock by ``amount`` seconds, from each timer on the way to the next.

        Each call sees the time for which it was set, and so do the octets that it sends; what they
        lead to has happened before the next timer.

        Raises:
            NeverQuiet: calls that are due at one time do not come to an end.
        """
        assert amount >= 0, f"found {amount}, expected 0 seconds or more"
        end = self.seconds() + amount
        while self.advance_to_next(end):
            pass
        self.rightNow = end

    def jump(self, amount: float) -> None:
        """Set the clock ahead by ``amount`` seconds at once, as a suspended machine finds it.

        Timers on the way are late: all of them fire at the end.

        Raises:
            NeverQuiet: they do not come to an end.
        """
        assert amount >= 0, f"found {amount}, expected 0 seconds or more"
        self.rightNow += amount
        self.settle()

    def advance_to_next(self, end: float = inf) -> bool:
        """Advance the clock to its next timer, at most to ``end``, and run all that is due then.

        Returns:
            Whether there was a timer until then; the clock stays where it is if not.

        Raises:
            NeverQuiet: calls that are due at that time do not come to an end.
        """
        first = self._next_call()
        if first is None or first.time > end:
            return False
        self.rightNow = max(self.rightNow, first.time)
        for _ in range(_MOST_CALLS):
            if not self.step():
                return True
        raise NeverQuiet(
            f"found {_MOST_CALLS:,} calls at {self.rightNow:g} s on the clock, expected an end of"
            f" them; the next is {self._next_call()}"
        )

    def step(self) -> bool:
        """Run the next call that is due, alone; return whether there was one."""
        call = self._next_call()
        if call is None or call.time > self.rightNow:
            return False
        heappop(self._heap)
        self._pending -= 1
        call.called = 1
        call.func(*call.args, **call.kw)
        return True

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30,
        bindAddress: tuple[str, int] | None = None,
        *,
        clock: Any = None,
    ) -> _Connector:
        """Connect as a reactor does (`twisted.internet.interfaces.IReactorTCP`).

        Besides, ``clock`` is the machine of the client (`machine.Machine`).
        """
        connector = _Connector(
            _place(host, port),
            lambda connector: self._connect(
                connector, host, port, factory, timeout, bindAddress, clock or self
            ),
        )
        connector.connect()
        return connector

    def _connect(
        self,
        connector: _Connector,
        host: str,
        port: int,
        factory: Any,
        timeout: float,
        bindAddress: tuple[str, int] | None,
        clock: Any,
    ) -> None:
        self.sources.append(bindAddress)
        source = bindAddress[0] if bindAddress else ""
        factory.doStart()

        def fail(reason: Exception) -> None:
            factory.clientConnectionFailed(connector, Failure(reason))
            factory.doStop()

        def connect(server: Protocol, server_clock: Any) -> None:
            if not getattr(server_clock, "is_up", True):
                return fail(self.refusal)
            client = factory.buildProtocol(_place(host, port))
            connector.transport = self.join(
                client, server, host, port, source=source, clocks=(clock, server_clock)
            )
            connector.transport.closed = closed
            return None

        def closed(reason: Failure) -> None:
            connector.transport = None
            factory.clientConnectionLost(connector, reason)
            factory.doStop()

        def arrive() -> None:
            servers = self._servers(host, port, source)
            if servers is None:
                call = clock.callLater(timeout, fail, TimeoutError())
            elif servers:
                call = clock.callLater(0, connect, *servers.pop(0))
            else:
                call = clock.callLater(0, fail, self.refusal)
            connector.stopConnecting = call.cancel

        delay = self._connecting_time(host)
        if delay:
            connector.stopConnecting = clock.callLater(delay, arrive).cancel
        else:
            arrive()
        factory.startedConnecting(connector)

    def _connecting_time(self, host: str) -> float:
        """Return the seconds that the next attempt to connect is on its way to a host."""
        return 0.0

    def _servers(self, host: str, port: int, source: str) -> list[tuple[Protocol, Any]] | None:
        """Return the servers that wait for a client, each with its clock.

        None: attempts to connect are not answered.
        """
        return self._listening.get((host, port), [])

    def listen_unix(self, path: str, *servers: Protocol) -> None:
        """Connect the next clients of a UNIX socket to ``servers``, one each."""
        self.listen(path, 0, *servers)

    def connectUNIX(
        self, address: str, factory: Any, timeout: float = 30, checkPID: bool = False
    ) -> _Connector:
        """Connect as a reactor does (`twisted.internet.interfaces.IReactorUNIX`)."""
        return self.connectTCP(address, 0, factory, timeout)

    def client_address(self, host: str, source: str = "") -> IPv4Address | IPv6Address:
        """Return the address of the next client that connects to ``host``."""
        loopback = "::1" if ":" in host else "127.0.0.1"
        return address(source or loopback, 50_000 + len(self.connections))

    def join(
        self,
        client: Any,
        server: Any,
        host: str,
        port: int,
        *,
        source: str = "",
        clocks: tuple[Any, Any] | None = None,
    ) -> MemoryTransport:
        """Connect two protocols; return the client's end.

        Args:
            client: the end that connects.
            server: the other one.
            host: address of the server.
            port: of the server.
            source: address of the client; empty: of loopback.
            clocks: the machines of the client and the server; None: none that crashes.
        """
        here = self.client_address(host, source)
        there = _place(host, port)
        client_clock, server_clock = clocks or (self, self)
        ends = (
            self.transport_class(client_clock, client=True, host=here, peer=there),
            self.transport_class(server_clock, client=False, host=there, peer=here),
        )
        self.connections.append(ends)
        for end, other, protocol in zip(ends, reversed(ends), (client, server), strict=True):
            end.other = other
            end.protocol = protocol
        self._joined(*ends)
        server.makeConnection(ends[1])
        client.makeConnection(ends[0])
        return ends[0]

    def _joined(self, client: Any, server: Any) -> None:
        """Prepare the two ends of a new connection, on which nothing was sent."""


def address(host: str, port: int) -> IPv4Address | IPv6Address:
    """Return the address of a socket."""
    return (IPv6Address if ":" in host else IPv4Address)("TCP", host, port)


def _place(host: str, port: int) -> IPv4Address | IPv6Address | UNIXAddress:
    return UNIXAddress(host) if host.startswith("/") else address(host, port)
