"""A network in memory, on a clock that the test moves, with real TLS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
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


class MemoryTransport:
    """One end of a connection in memory, which behaves like a TCP transport of Twisted.

    Attributes:
        other: the other end.
        protocol: the protocol of this end.
        closed: called when the connection is over, after the protocol; None: nothing is.
        peak: the most octets that ever waited to be read by the other end.
    """

    BUFFER = 65_536  # waiting octets beyond which a producer is paused

    other: MemoryTransport
    protocol: Any
    closed: Callable[[Failure], None] | None = None

    def __init__(self, clock: Clock, *, client: bool, host: Any, peer: Any) -> None:
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

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._clock.callLater(0, self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False
        if self._waiting and self.connected and not self._held:
            octets = bytes(self._waiting)
            self._waiting.clear()
            self.other.protocol.dataReceived(octets)
        self._delivered()

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

    def __init__(self, producer: Any, clock: Clock) -> None:
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
    """

    def __init__(self) -> None:
        super().__init__()
        self.connections: list[tuple[MemoryTransport, MemoryTransport]] = []
        self.sources: list[tuple[str, int] | None] = []
        self.refusal: Exception = ConnectionRefusedError()
        self._listening: dict[tuple[str, int], list[Protocol] | None] = {}

    def listen(self, address: str, port: int, *servers: Protocol) -> None:
        """Connect the next clients to ``servers``, one each; later ones are refused."""
        waiting = self._listening.setdefault((address, port), [])
        assert waiting is not None
        waiting.extend(servers)

    def swallow(self, address: str, port: int) -> None:
        """Never answer attempts to connect to this address."""
        self._listening[address, port] = None

    def left_open(self) -> list[str]:
        """Return the connections that are open, and the timers (`inventory.Double`)."""
        peers = [ends[0].getPeer() for ends in self.connections if ends[0].connected]
        timers = [str(call) for call in self.getDelayedCalls()]
        return [*(f"connection to {peer}" for peer in peers), *timers]

    def settle(self) -> None:
        """Run all calls that are due, and those that become due meanwhile."""
        self.advance(0)

    def step(self) -> bool:
        """Run the next call that is due, alone; return whether there was one."""
        if not self.calls or self.calls[0].getTime() > self.seconds():
            return False
        call = self.calls.pop(0)
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
    ) -> _Connector:
        """Connect as a reactor does (`twisted.internet.interfaces.IReactorTCP`)."""
        connector = _Connector(
            _place(host, port),
            lambda connector: self._connect(connector, host, port, factory, timeout, bindAddress),
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
    ) -> None:
        self.sources.append(bindAddress)
        source = bindAddress[0] if bindAddress else ""
        servers = self._servers(host, port, source)
        factory.doStart()

        def fail(reason: Exception) -> None:
            factory.clientConnectionFailed(connector, Failure(reason))
            factory.doStop()

        def connect(server: Protocol) -> None:
            client = factory.buildProtocol(_place(host, port))
            connector.transport = self.join(client, server, host, port, source=source)
            connector.transport.closed = closed

        def closed(reason: Failure) -> None:
            connector.transport = None
            factory.clientConnectionLost(connector, reason)
            factory.doStop()

        if servers is None:
            call = self.callLater(timeout, fail, TimeoutError())
        elif servers:
            call = self.callLater(0, connect, servers.pop(0))
        else:
            call = self.callLater(0, fail, self.refusal)
        connector.stopConnecting = call.cancel
        factory.startedConnecting(connector)

    def _servers(self, host: str, port: int, source: str) -> list[Protocol] | None:
        """Return the servers that wait for a client; None: attempts to connect are not answered."""
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
        self, client: Any, server: Any, host: str, port: int, *, source: str = ""
    ) -> MemoryTransport:
        """Connect two protocols; return the client's end.

        Args:
            client: the end that connects.
            server: the other one.
            host: address of the server.
            port: of the server.
            source: address of the client; empty: of loopback.
        """
        here = self.client_address(host, source)
        there = _place(host, port)
        ends = (
            MemoryTransport(self, client=True, host=here, peer=there),
            MemoryTransport(self, client=False, host=there, peer=here),
        )
        self.connections.append(ends)
        for end, other, protocol in zip(ends, reversed(ends), (client, server), strict=True):
            end.other = other
            end.protocol = protocol
        server.makeConnection(ends[1])
        client.makeConnection(ends[0])
        return ends[0]


def address(host: str, port: int) -> IPv4Address | IPv6Address:
    """Return the address of a socket."""
    return (IPv6Address if ":" in host else IPv4Address)("TCP", host, port)


def _place(host: str, port: int) -> IPv4Address | IPv6Address | UNIXAddress:
    return UNIXAddress(host) if host.startswith("/") else address(host, port)
