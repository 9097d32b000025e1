"""The client's end of a connection, for dialogues written as coroutines."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener, IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

_VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}


@implementer(IOpenSSLClientConnectionCreator)
class ClientContext:
    """TLS that asks nothing of the server's certificate; ``version`` is the only one offered."""

    def __init__(self, version: str) -> None:
        self._context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self._context.set_min_proto_version(_VERSIONS[version])
        self._context.set_max_proto_version(_VERSIONS[version])

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Return a new connection (called by Twisted)."""
        return SSL.Connection(self._context, None)


@implementer(IHandshakeListener)
class SMTPClientEnd(Protocol):
    """Writes what it is told, and hands out what comes, line by line (`transcript.Wire`).

    Attributes:
        unread: what came and was not asked for yet.
        lost: fires when the connection is over.
        over: whether it is.
    """

    transport: Any

    def __init__(self, tls_version: str = "1.3") -> None:
        self.unread = bytearray()
        self.lost: Deferred[None] = Deferred()
        self.over = False
        self._version = tls_version
        self._reading: Deferred[None] | None = None
        self._handshake: Deferred[None] | None = None

    async def send(self, octets: bytes) -> None:
        """Write octets in one piece."""
        self.transport.write(octets)

    async def line(self) -> bytes | None:
        """Return the next line without its CR LF, None if the connection closed before."""
        while (end := self.unread.find(b"\r\n")) < 0:
            if self.over:
                return None
            self._reading = Deferred()
            await self._reading
        line = bytes(self.unread[:end])
        del self.unread[: end + 2]
        return line

    async def start_tls(self) -> None:
        """Return when a handshake has completed; raises what made it fail."""
        self._handshake = Deferred()
        self.transport.startTLS(ClientContext(self._version))
        await self._handshake

    def abort(self) -> None:
        """End the connection, if it is not over."""
        if self.transport is not None and not self.over:
            self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """Keep what comes."""
        self.unread += data
        self._wake()

    def handshakeCompleted(self) -> None:
        """Go on under TLS (`IHandshakeListener`)."""
        handshake, self._handshake = self._handshake, None
        if handshake is not None:
            handshake.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Say so to whoever waits."""
        self.over = True
        self._wake()
        handshake, self._handshake = self._handshake, None
        if handshake is not None:
            handshake.errback(reason)
        self.lost.callback(None)

    def _wake(self) -> None:
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.callback(None)
