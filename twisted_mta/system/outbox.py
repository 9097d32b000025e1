"""Writing to connections: what is said in one turn of the reactor goes out together, when it ends.

`transport.write` leaves octets to the reactor's next turn, which costs two calls to epoll and one
turn for each reply: a sixth of the time of the reactor's thread, measured with one message after
the other on 20 connections. Under TLS there is a timer for each reply, too.

To write each reply where it is made is no better on a busy machine: the peer that is answered takes
the processor from us in the middle of our turn, and sends a command that we then wake up for alone.
Answered together, peers send together, and all that is done once a turn is done for many of them:
with one process accepting, × 1.2 messages a second (docs/benchmark.rst).
"""

from __future__ import annotations

from typing import Any

from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOProtocol

from .timers import with_monotonic_time


class Outbox:
    """What the connections of a process have to say, until the turn of the reactor ends.

    Args:
        reactor: of the connections' sockets; None: learned from the first.

    Attributes:
        writes: how often something was put in; it stands still where nobody is answered.
    """

    _log = Logger()

    def __init__(self, reactor: Any = None) -> None:
        self.writes = 0
        self._reactor = reactor
        self._held: dict[Any, bytes] = {}  # by transport, in the order of the first octet

    def write(self, transport: Any, octets: bytes) -> None:
        """Have ``octets`` written when this turn ends; now, where no socket is below."""
        self.writes += 1
        held = self._held.get(transport)
        if held is not None:
            self._held[transport] = held + octets
            return
        connection = _below(transport)
        if connection is None:
            _write(transport, octets)
            return
        if not self._held:
            if self._reactor is None:
                # The clock of a factory may be another, that of a test.
                self._reactor = with_monotonic_time(connection.reactor)
            self._reactor.callLater(0, self._empty)
        self._held[transport] = octets

    def release(self, transport: Any) -> None:
        """Write now what is held for ``transport``: something else is about to be done with it."""
        octets = self._held.pop(transport, None)
        if octets:
            _write(transport, octets)

    def _empty(self) -> None:
        for transport in list(self._held):
            try:
                self.release(transport)
            except Exception:  # one connection's fault is not to silence the others
                self._log.failure("what was to be said could not be written")
                transport.abortConnection()


def start_tls(transport: Any, creator: Any) -> None:
    """Begin a handshake; all that TLS has to say is written at once.

    Args:
        transport: of a protocol; nothing is held for it.
        creator: what makes our end of it (`IOpenSSLServerConnectionCreator`, or the client's).
    """
    transport.startTLS(creator)
    if isinstance(transport, Connection):
        tls: Any = transport.protocol
        tls.transport = _AtOnce(tls.transport, transport)


class _AtOnce:
    """What TLS writes to: as it was, but for `write`."""

    def __init__(self, below: Any, connection: Connection) -> None:
        self._below = below
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._below, name)

    def write(self, octets: bytes) -> None:
        octets = _written(self._connection, octets)
        if octets:
            self._below.write(octets)


def _below(transport: Any) -> Any:
    """Return the connection with a socket that a transport is, or has below its TLS; or None."""
    if isinstance(transport, Connection):
        return transport
    if isinstance(transport, BufferingTLSTransport):
        return _below(transport.transport)
    return None


def _write(transport: Any, octets: bytes) -> None:
    """Write ``octets``, by one system call if nothing else waits to be written.

    Where the octets do not fit, or anything is unusual, they are left to the transport.
    """
    tls: Any = transport  # from the first octet; or by STARTTLS, or never:
    if isinstance(transport, Connection):
        tls = transport.protocol if transport.TLS and transport.connected else None
        if not transport.TLS:
            octets = _written(transport, octets)
    if isinstance(tls, BufferingTLSTransport) and not getattr(tls._aggregator, "_buffer", True):
        # Past what gathers small writes until the next turn, unless something is there already.
        TLSMemoryBIOProtocol.write(tls, octets)
    elif octets:
        transport.write(octets)


def _written(connection: Connection, octets: bytes) -> bytes:
    """Write what can be written now; return the rest, if anybody waits for it."""
    if connection._aborting:
        return b""
    if (
        connection.connected
        and not connection.disconnecting
        and not connection.dataBuffer
        and not connection._tempDataBuffer
    ):
        sent: Any = connection.writeSomeData(octets)
        if isinstance(sent, int) and sent > 0:
            return octets[sent:]
    return octets
