"""Connect to one target.

The endpoints of Twisted wrap each protocol in one of their own, which all octets pass through, and
whose interfaces are declared anew for each connection. An endpoint costs as much as the dialogue
from the greeting to EHLO.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from ..mail.next_hop import Target
from .connection import Connection


def connect(
    reactor: Any, connection: Connection, target: Target, *, timeout: float, source: str | None
) -> Deferred[Connection]:
    """Connect to an address and port, or a UNIX socket.

    Args:
        reactor: `IReactorTCP` and `IReactorUNIX`.
        connection: the protocol; it is not connected yet.
        target: where to connect to.
        timeout: seconds until it fails.
        source: the address to connect from; None: any.

    Returns:
        Fires with ``connection``; may be canceled.
    """
    factory = _Once(connection)
    try:
        if target.address.startswith("/"):
            reactor.connectUNIX(target.address, factory, timeout=timeout)
        else:
            bind_address = None if source is None else (source, 0)
            reactor.connectTCP(
                target.address, target.port, factory, timeout=timeout, bindAddress=bind_address
            )
    except Exception:
        return fail()
    return factory.result


class _Once(ClientFactory):
    """Builds one protocol that exists already.

    Attributes:
        result: fires with it when it is connected.
    """

    noisy = False

    def __init__(self, connection: Connection) -> None:
        self.result: Deferred[Connection] = Deferred(self._cancel)
        self._connection = connection
        self._connector: Any = None
        connection.made = self._made

    def startedConnecting(self, connector: Any) -> None:
        self._connector = connector

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        return self._connection

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        if not self.result.called:
            self.result.errback(reason)

    def clientConnectionLost(self, connector: Any, reason: Failure) -> None:
        if not self.result.called:  # an error in `connectionMade`: it was never made
            self.result.errback(reason)

    def _made(self) -> None:
        self.result.callback(self._connection)

    def _cancel(self, result: Deferred[Connection]) -> None:
        result.errback(ConnectingCancelledError(self._connector.getDestination()))
        self._connector.disconnect()  # in the same case it is connected
