"""The client's end of a connection: as coroutines, and as plain calls on a memory network."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.python.failure import Failure
from zope.interface import implementer

from .network import MemoryNetwork
from .tls import ClientContext


@implementer(IHandshakeListener)
class SMTPClientEnd(Protocol):
    """A client whose methods are coroutines (a `transcript.Wire`).

    Attributes:
        unread: the octets received and not yet returned.
        lost: fires at the end of the connection.
        over: Whether the connection has ended.
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
        """Return the next line without its CR LF; None: the connection ended before."""
        while (end := self.unread.find(b"\r\n")) < 0:
            if self.over:
                return None
            self._reading = Deferred()
            await self._reading
        line = bytes(self.unread[:end])
        del self.unread[: end + 2]
        return line

    async def start_tls(self) -> None:
        """Do a TLS handshake; raises the exception that made it fail."""
        self._handshake = Deferred()
        self.transport.startTLS(ClientContext(self._version))
        await self._handshake

    def abort(self) -> None:
        """Abort the connection, unless it has ended."""
        if self.transport is not None and not self.over:
            self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """Keep the octets (called by Twisted)."""
        self.unread += data
        self._wake()

    def handshakeCompleted(self) -> None:
        """Resume `start_tls` (`IHandshakeListener`)."""
        handshake, self._handshake = self._handshake, None
        if handshake is not None:
            handshake.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Resume all that wait (called by Twisted)."""
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


class MemoryClient(Protocol):
    """A client on a memory network; its calls return when the network is idle.

    Attributes:
        received: all octets from the server, in clear and under TLS.
        lost: Whether the connection has ended.
    """

    transport: Any

    def __init__(self, reactor: MemoryNetwork) -> None:
        self.received = b""
        self.lost = False
        self._reactor = reactor
        self._seen = 0

    def dataReceived(self, data: bytes) -> None:
        """Keep the octets (called by Twisted)."""
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Take note of the end (called by Twisted)."""
        self.lost = True

    def heard(self) -> list[str]:
        """Return the lines received since the last call."""
        new, self._seen = self.received[self._seen :], len(self.received)
        return new.decode("utf-8").splitlines()

    def send(self, octets: bytes) -> list[str]:
        """Send octets unchanged; return the lines that the server sends at once."""
        self.transport.write(octets)
        self._reactor.settle()
        return self.heard()

    def say(self, *commands: str) -> list[str]:
        """Send commands, one after the other; return the lines of the reply to the last."""
        lines: list[str] = []
        for command in commands:
            lines = self.send(command.encode("utf-8") + b"\r\n")
        return lines

    def start_tls(self) -> None:
        """Send STARTTLS and do the handshake; the certificate is not checked.

        Raises:
            ConnectionError: the server refuses STARTTLS.
        """
        reply = self.say("STARTTLS")
        if not reply or not reply[0].startswith("220 "):
            raise ConnectionError(f"no TLS: {reply}")
        self.transport.startTLS(CertificateOptions())
        self._reactor.settle()

    def mail(
        self, content: bytes, *recipients: str, sender: str = "ann@sender.example"
    ) -> list[str]:
        """Send a message after EHLO; return the reply to its content, or the first refusal."""
        commands = (
            f"MAIL FROM:<{sender}>",
            *(f"RCPT TO:<{recipient}>" for recipient in recipients),
            "DATA",
        )
        for command in commands:
            lines = self.say(command)
            if not lines or lines[-1][0] not in "23":
                return lines
        stuffed = content.replace(b"\r\n.", b"\r\n..")
        if stuffed.startswith(b"."):
            stuffed = b"." + stuffed
        return self.send(stuffed + (b"" if content.endswith(b"\r\n") else b"\r\n") + b".\r\n")
