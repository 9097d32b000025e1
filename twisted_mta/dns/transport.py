"""Messages to and from one name server, over UDP and TCP."""

from __future__ import annotations

import errno
import socket
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from .nameserver import NameServer

_LARGEST_DATAGRAM = 65_535  # octets; a name server may exceed the payload size of the query


class Receiver(Protocol):
    """Takes the messages of a name server."""

    def received(self, wire: bytes, *, by_tcp: bool = False) -> None:
        """Take a message."""
        ...

    def unreachable(self, error: OSError) -> None:
        """Take note that UDP does not reach the name server."""
        ...

    def disconnected(self) -> None:
        """Take note that the TCP connection has ended."""
        ...


@implementer(IReadDescriptor)
class UDPSocket:
    """A UDP socket that is connected to a name server.

    Not made by ``listenUDP``, which logs four lines for each query.

    Raises:
        OSError: the system has no socket, or no route to the name server.
    """

    def __init__(self, reactor: Any, nameserver: NameServer, receiver: Receiver) -> None:
        self._reactor = reactor
        self._receiver = receiver
        self._closed = False
        self._socket = socket.socket(nameserver.family, socket.SOCK_DGRAM)
        self._number = self._socket.fileno()
        try:
            self._socket.setblocking(False)
            self._socket.connect(nameserver.address)
            reactor.addReader(self)
        except OSError:
            self._socket.close()
            raise

    def send(self, datagram: bytes) -> None:
        """Send a datagram.

        Raises:
            OSError: the system refuses it.
        """
        self._socket.send(datagram)

    def close(self) -> None:
        """Close the socket; nothing is received any more."""
        if not self._closed:
            self._closed = True
            self._reactor.removeReader(self)
            self._socket.close()

    # IReadDescriptor.

    def fileno(self) -> int:
        """Return the number of the descriptor, also of a closed one."""
        # After `close` within `doRead` another number would be a lost descriptor for the reactor.
        return self._number

    def logPrefix(self) -> str:
        """Return the name of this reader in the log."""
        return "dns"

    def doRead(self) -> None:
        """Receive one datagram."""
        try:
            datagram = self._socket.recv(_LARGEST_DATAGRAM)
        except BlockingIOError:
            return
        except OSError as error:
            self._receiver.unreachable(error)
        else:
            self._receiver.received(datagram)

    def connectionLost(self, reason: Failure) -> None:
        """Take note of a refusal: epoll reports it like this while there is nothing to read."""
        self._receiver.unreachable(ConnectionRefusedError(errno.ECONNREFUSED, "refused"))


class TCPStream(TwistedProtocol):
    """A TCP connection to a name server: messages after their length (RFC 1035 §4.2.2)."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._buffer = bytearray()

    def send(self, message: bytes) -> None:
        """Send a message, its length before it, in one write (RFC 7766 §8)."""
        assert self.transport is not None
        self.transport.write(len(message).to_bytes(2, "big") + message)

    def abort(self) -> None:
        """Close at once."""
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]

    def dataReceived(self, data: bytes) -> None:
        """Take in octets; the first complete message goes to the receiver."""
        self._buffer += data
        if len(self._buffer) < 2:
            return
        end = 2 + int.from_bytes(self._buffer[:2], "big")
        if len(self._buffer) >= end:
            message = bytes(self._buffer[2:end])
            del self._buffer[:end]
            self._receiver.received(message, by_tcp=True)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Take note of the end of the connection."""
        self._receiver.disconnected()


def connect_tcp(
    reactor: Any, nameserver: NameServer, receiver: Receiver, *, timeout: float
) -> Deferred[TCPStream]:
    """Connect to a name server; fails as endpoints do.

    Args:
        reactor: IReactorTCP and IReactorTime.
        nameserver: its address and port.
        receiver: takes messages, and the end of the connection.
        timeout: seconds for connecting.
    """
    is_ipv6 = nameserver.family == socket.AF_INET6
    endpoint_class = TCP6ClientEndpoint if is_ipv6 else TCP4ClientEndpoint
    host = nameserver.host
    factory = Factory.forProtocol(lambda: TCPStream(receiver))
    factory.noisy = False
    connecting: Deferred[Any] = endpoint_class(
        reactor, host.name, host.port, timeout=timeout
    ).connect(factory)
    return connecting
