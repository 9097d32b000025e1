"""Writes to connections, gathered: all octets of one turn of the reactor are sent at its end.

`transport.write` leaves octets to the next turn of the reactor, with two calls of epoll and one
turn for each reply: a sixth of the time of the reactor's thread, measured with one message after
the other on 20 connections. TLS adds a timer for each reply.

Writing each reply at once is no better on a busy machine: the peer takes the processor in the
middle of our turn, and sends a command that wakes us for it alone. If peers get their replies
together, they send commands together, and the work of one turn serves many: × 1.2 messages a second
with one accepting process (docs/benchmark.rst).
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from OpenSSL.SSL import Error, WantReadError, ZeroReturnError
from twisted.internet._newtls import _BypassTLS
from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.protocols.tls import (
    BufferingTLSTransport,
    TLSMemoryBIOFactory,
    TLSMemoryBIOProtocol,
)
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer

from .timers import with_monotonic_time


class Outbox:
    """Octets for the connections of a process, until the end of the reactor's turn.

    Args:
        reactor: of the connections; None: that of the first connection.

    Attributes:
        writes: the number of calls of `write`; it does not change while no reply is written.
    """

    _log = Logger()

    def __init__(self, reactor: Any = None) -> None:
        self.writes = 0
        self._reactor = reactor
        self._held: dict[Any, bytes] = {}  # by transport, in the order of the first octet
        self._closing: dict[Any, Connection] = {}  # that end with this turn, by transport
        self._due = False  # `_empty` will be called at the end of this turn, or has not ended
        self._emptying = False

    def write(self, transport: Any, octets: bytes) -> None:
        """Write ``octets`` at the end of this turn; at once if the transport has no socket."""
        self.writes += 1
        connection = transport if isinstance(transport, Connection) else _below(transport)
        if connection is None:
            _write(transport, octets)
        else:
            self._hold(transport, connection, octets)

    def start_tls(self, transport: Any, creator: Any) -> None:
        """Begin a TLS handshake, whose octets are gathered as those of replies are.

        So the last reply and the end of TLS are one write, as are the end of a handshake and the
        reply to a command that came with it. What is gathered already is written in clear.

        Args:
            transport: of a protocol; it has no producer.
            creator: `IOpenSSLServerConnectionCreator` or `IOpenSSLClientConnectionCreator`.
        """
        if isinstance(transport, Connection):
            below = _BelowTLS(self, transport)
            in_clear = self._held.pop(transport, b"")
            if in_clear:
                self._hold(below, transport, in_clear)
            _start_tls(transport, creator, below)
        else:
            self._pass_on(transport)
            transport.startTLS(creator)

    def _hold(self, transport: Any, connection: Connection, octets: bytes) -> None:
        if not self._due:
            self._await_end(connection)
        self._held[transport] = self._held.get(transport, b"") + octets

    def _await_end(self, connection: Connection) -> None:
        """Be called at the end of this turn."""
        if self._reactor is None:
            # The clock of a factory may be that of a test.
            self._reactor = with_monotonic_time(connection.reactor)
        self._reactor.callLater(0, self._empty)
        self._due = True

    def release(self, transport: Any) -> None:
        """Write the gathered octets of ``transport`` now, before another operation on it."""
        self._pass_on(transport)
        if isinstance(transport, Connection) and transport.TLS and transport.connected:
            tls: Any = transport.protocol
            self._pass_on(tls.transport)

    def lose_connection(self, transport: Any, *, finished: bool = False) -> None:
        """Close ``transport`` after the gathered octets; the end of TLS is written with them.

        The connection is closed at the end of this turn at the earliest. Later, if the peer has
        something to do, which it perhaps never does.

        Args:
            transport: of a protocol.
            finished: whether the peer has sent all that it had to say. Then its answer to the end
                of TLS is not waited for, if the socket takes all octets now: it need not send one
                (RFC 8446 §6.1).
        """
        if isinstance(transport, Connection) and not transport.TLS:
            self._close(transport, transport)
            return
        self._pass_on(transport)
        transport.loseConnection()
        if finished and isinstance(transport, Connection) and transport.connected:
            tls: Any = transport.protocol
            if isinstance(tls, _OverTCP):
                tls.close_below()

    def _close(self, transport: Any, connection: Connection) -> None:
        """Close a connection at the end of this turn, behind the octets that are gathered then."""
        if connection.connected:
            if not self._due:
                self._await_end(connection)
            self._closing[transport] = connection

    def _end(self, connection: Connection, octets: bytes) -> None:
        """Write the last octets, and close the connection if its socket takes all of them now.

        `loseConnection` leaves that to the next turn, which takes two more calls of epoll and an
        event.
        """
        if connection._aborting:
            return
        if octets:  # the kernel sends them in one segment with the end of the connection
            octets = _written(connection, octets, _MORE)
        if (
            octets
            or has_unsent(connection)
            or connection.producer
            or connection._writeDisconnecting
        ):
            FileDescriptor.write(connection, octets)
            tls: Any = connection.protocol if connection.connected else None
            if not isinstance(tls, _OverTCP) or tls._lostTLSConnection:
                FileDescriptor.loseConnection(connection)
            # Otherwise TLS reads on, and closes behind the peer's end of it: unread, that would
            # reset the connection, and the kernel would drop what the peer has not taken yet.
        elif connection.connected:
            _drop_unread(connection)
            connection.connectionLost(_DONE)

    def _pass_on(self, transport: Any) -> None:
        """Write the gathered octets of ``transport``, into its TLS if it has one."""
        octets = self._held.pop(transport, None)
        if octets:
            _write(transport, octets)

    def write_now(self, transport: Any, octets: bytes) -> None:
        """Write ``octets`` behind those that are gathered, without waiting for the end of the turn.

        Under TLS only large ones do not wait.
        """
        self.release(transport)
        _write(transport, octets)

    def _empty(self) -> None:
        self._emptying = True
        try:
            while self._held or self._closing:
                transport = next(iter(self._held or self._closing))
                octets = self._held.pop(transport, b"")
                connection = self._closing.pop(transport, None)
                if connection is not None:
                    self._end(connection, octets)
                    continue
                try:
                    _write(transport, octets)
                except Exception:  # a failure of one connection does not affect the others
                    self._log.failure("a reply could not be written")
                    transport.abortConnection()
        finally:
            self._emptying = False
            self._due = bool(self._held or self._closing)
            if self._due:  # an abort or a protocol failed; the others go on
                self._reactor.callLater(0, self._empty)


_MORE = getattr(socket, "MSG_MORE", 0)  # only Linux has it
_DONE = Failure(ConnectionDone())
_DROPPED = 65_536  # octets
_RECORD = 16_384  # octets of content in a record of TLS, at the most (RFC 8446 §5.1)
_TOGETHER = 131_072  # octets below TLS that are written together, at the most
_LARGE = 4096
"""Octets below TLS that are written at once: they are content, not replies."""


def has_unsent(connection: Connection) -> bool:
    """Whether a connection has octets that its socket has not taken yet."""
    return bool(connection.dataBuffer or connection._tempDataBuffer)


def _drop_unread(connection: Connection) -> None:
    """Read what has come meanwhile, such as the peer's end of TLS directly behind QUIT.

    The kernel would answer it by a reset, which can destroy the last reply at the peer.
    """
    with contextlib.suppress(OSError):  # nothing has come, or the peer has gone
        connection.socket.recv(_DROPPED)


@implementer()  # none: Twisted would declare each once more, for each TLS protocol
class _BelowTLS:
    """The transport below TLS, whose small writes are gathered."""

    def __init__(self, outbox: Outbox, connection: Connection) -> None:
        self._outbox = outbox
        self._below = _BypassTLS(FileDescriptor, connection)
        self._connection = connection
        self.is_client: bool = connection._tlsClientDefault  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._below, name)

    def write(self, octets: bytes) -> None:
        if not octets:
            return  # Twisted passes on what a connection has to send without looking
        if len(octets) < _LARGE and not self._outbox._emptying:
            self._outbox._hold(self, self._connection, octets)
        else:
            self.write_now(self._outbox._held.pop(self, b"") + octets)

    def write_now(self, octets: bytes) -> None:
        octets = _written(self._connection, octets)
        if octets:
            self._below.write(octets)

    def loseConnection(self) -> None:
        self._outbox._close(self, self._connection)

    def abortConnection(self) -> None:
        self._outbox._pass_on(self)
        self._below.abortConnection()


class _OverTCP(TLSMemoryBIOProtocol):
    """TLS over a connection, whose small writes are gathered by an `Outbox`, not by itself."""

    def makeConnection(self, below: Any) -> None:
        """Begin the handshake: Twisted's own looks for interfaces of the transport to declare."""
        self._tlsConnection = self.factory._creatorCallable(self)
        self._appSendBuffer: list[bytes] = []
        self.transport = below
        self.connected = 1
        self.factory.registerProtocol(self)
        if below.is_client:  # a server waits for the first octets
            self._checkHandshakeStatus()  # type: ignore[no-untyped-call]

    def _write(self, octets: bytes) -> None:
        """Encrypt octets, and hand on all their records together: Twisted does so with each."""
        taken = 0
        while taken < len(octets) and not self._lostTLSConnection:
            try:
                taken += self._tlsConnection.send(octets[taken : taken + _RECORD])
            except WantReadError:  # in the middle of a handshake
                self._bufferedWrite(octets[taken:])  # type: ignore[no-untyped-call]
                break
            except Error:
                self._tlsShutdownFinished(Failure())  # type: ignore[no-untyped-call]
        if not self._lostTLSConnection:
            self._flushSendBIO()

    def _flushReceiveBIO(self) -> None:
        """Hand on what has come: Twisted's own asks for more until OpenSSL raises an exception."""
        tls = self._tlsConnection
        while not self._lostTLSConnection:
            try:
                octets = tls.recv(_TOGETHER)
            except WantReadError:
                break
            except ZeroReturnError:  # the peer has ended TLS
                self._shutdownTLS()  # type: ignore[no-untyped-call]
                self._tlsShutdownFinished(None)  # type: ignore[no-untyped-call]
            except Error:
                self._tlsShutdownFinished(Failure())  # type: ignore[no-untyped-call]
            else:
                if not self._aborted:
                    self.wrappedProtocol.dataReceived(octets)
                if getattr(tls, "drained", False):  # of a connection of ours
                    break
        self._flushSendBIO()

    def _flushSendBIO(self) -> None:
        try:
            while octets := self._tlsConnection.bio_read(_TOGETHER):
                self.transport.write(octets)  # type: ignore[union-attr]
                if len(octets) < _RECORD:
                    break
        except WantReadError:  # raised by pyOpenSSL where nothing is left
            pass

    def close_below(self) -> None:
        """Close the connection behind our end of TLS; later, if a handshake holds octets back."""
        if not self._appSendBuffer:
            self.transport.loseConnection()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End TLS, and let go of the transport below, which holds this object."""
        if self.disconnecting and not self._aborted:
            # We have ended TLS. A peer that closes without an answer to that is no error, of which
            # Twisted would make one, with the frames of its traceback.
            self._lostTLSConnection = True
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self.transport = None


def _start_tls(connection: Any, creator: Any, below: _BelowTLS) -> None:
    """Begin a TLS handshake as Twisted's `startTLS` does, with another transport below TLS.

    Twisted's own declares each interface of a connection for each TLS protocol, which takes half of
    its time, and gathers small writes by the clock of the installed reactor: that of the connection
    may be another.
    """
    wrapped: Any = None
    factory = TLSMemoryBIOFactory(
        creator, connection._tlsClientDefault, wrapped, connection.reactor
    )
    tls = _OverTCP(factory, connection.protocol, False)  # type: ignore[no-untyped-call]
    connection.protocol = tls
    connection.getHandle = tls.getHandle
    connection.getPeerCertificate = tls.getPeerCertificate
    directlyProvides(connection, ISSLTransport)
    connection.TLS = True
    tls.makeConnection(below)


def start_tls(transport: Any, creator: Any) -> None:
    """Begin a TLS handshake of a connection that has no outbox. See `Outbox.start_tls`."""
    Outbox(getattr(transport, "reactor", None)).start_tls(transport, creator)


def _below(transport: Any) -> Any:
    """Return the connection with a socket: the transport, or the one below its TLS; else None."""
    if isinstance(transport, Connection):
        return transport
    if isinstance(transport, BufferingTLSTransport):
        return _below(transport.transport)
    return None


def _write(transport: Any, octets: bytes) -> None:
    """Write ``octets`` by one system call, unless others wait to be written.

    What is not written so is left to the transport.
    """
    tls: Any = transport  # implicit TLS; otherwise no TLS or STARTTLS:
    if isinstance(transport, Connection):
        if not transport.TLS:
            octets = _written(transport, octets)
            if octets:
                transport.write(octets)
            return
        tls = transport.protocol if transport.connected else None
    elif isinstance(transport, _BelowTLS):
        transport.write_now(octets)
        return
    if isinstance(tls, _OverTCP):
        tls.write(octets)  # type: ignore[no-untyped-call]
    elif isinstance(tls, BufferingTLSTransport) and not getattr(tls._aggregator, "_buffer", True):
        # Bypass the aggregator, which holds small writes until the next turn, if it is empty.
        TLSMemoryBIOProtocol.write(tls, octets)
    elif octets:
        transport.write(octets)


def _written(connection: Connection, octets: bytes, flags: int = 0) -> bytes:
    """Write what the socket takes now; return the rest, b"" if the connection is aborted."""
    if connection._aborting:
        return b""
    if connection.connected and not connection.disconnecting and not has_unsent(connection):
        try:
            return octets[connection.socket.send(octets, flags) :]
        except OSError:  # nothing fits, or the connection is lost: the transport finds out which
            pass
    return octets
