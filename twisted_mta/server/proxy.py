"""The PROXY protocol: a load balancer names its client before SMTP or TLS begins.

Headers are believed only from balancers in configured networks, and required from those. The SMTP
protocol is built after the header, so greeting, limits, decisions and log know the client from the
beginning. Anything but a header ends the connection without a reply, since no SMTP client would
read one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..interfaces import Clock
from ..mail.printable import printable
from ..policy.networks import Network, Networks
from .addresses import ProxiedAddress
from .protocol import ESMTPProtocol
from .proxy_header import ProxyError, read_header


class ProxyFactory(Factory):
    """Reads the header of the PROXY protocol in front of another factory.

    Peers outside the networks are connected to that factory at once. It stands outermost, before
    implicit TLS, since the header comes first on a connection.

    Args:
        wrapped: the factory behind; its ``buildProtocol`` gets a `ProxiedAddress`, or the address
            of the balancer where that connects for itself (a health check).
        networks: of balancers, whose headers are believed and required.
        clock: for ``timeout``.
        timeout: seconds for the whole header; section 2 asks for 3 at least.
    """

    noisy = False

    def __init__(
        self,
        wrapped: Factory[Any],
        networks: Iterable[Network],
        *,
        clock: Clock,
        timeout: float = 10.0,
    ) -> None:
        self.wrapped = wrapped
        self.clock = clock
        self.timeout = timeout
        self._balancers = Networks(networks)
        self._awaiting: dict[AwaitingHeader, None] = {}

    def doStart(self) -> None:
        """Start the wrapped factory as well."""
        super().doStart()  # type: ignore[no-untyped-call]
        self.wrapped.doStart()

    def doStop(self) -> None:
        """Stop the wrapped factory as well, and close connections without a header."""
        for protocol in list(self._awaiting):
            protocol.abort()
        self.wrapped.doStop()
        super().doStop()  # type: ignore[no-untyped-call]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Build what awaits the header, or the wrapped protocol for a peer that is no balancer."""
        if not self._balancers.cover(getattr(addr, "host", None)):
            return self.wrapped.buildProtocol(addr)
        return AwaitingHeader(self, addr, self._awaiting)


class AwaitingHeader(Protocol):
    """A connection of a balancer until its header is read; then the wrapped protocol takes it."""

    _log = Logger()
    transport: Any

    def __init__(
        self,
        factory: ProxyFactory,
        balancer: IAddress | None,
        awaiting: dict[AwaitingHeader, None],
    ) -> None:
        self._factory = factory
        self._balancer = balancer
        self._awaiting = awaiting
        self._octets = b""
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Start the timeout of the header."""
        self._awaiting[self] = None
        self._timer = self._factory.clock.callLater(
            self._factory.timeout, self._refuse, "no header of the PROXY protocol in time"
        )

    def dataReceived(self, data: bytes) -> None:
        """Take a part of the header; at its end, hand the connection over."""
        if self not in self._awaiting:
            return  # refused
        self._octets += data
        try:
            header = read_header(self._octets)
        except ProxyError as error:
            self._refuse(str(error))
            return
        if header is not None:
            self._end()
            self._hand_over(*header)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Stop waiting."""
        # A connection without an octet was a health check of the port.
        if self in self._awaiting and self._octets:
            self._warn("half a header of the PROXY protocol")
        self._end()

    def abort(self) -> None:
        """Abort the connection, without a reply."""
        self._end()
        self.transport.abortConnection()

    def _hand_over(self, proxied: ProxiedAddress | None, rest: bytes) -> None:
        protocol = self._factory.wrapped.buildProtocol(proxied or self._balancer)
        if protocol is None:
            self.transport.abortConnection()
            return
        if rest and isinstance(protocol, ESMTPProtocol):
            protocol.spoke_early = True
        # From here on the connection belongs to the other protocol alone, for STARTTLS too: Twisted
        # puts TLS between a transport and the protocol that it has at that time.
        self.transport.protocol = protocol
        protocol.makeConnection(self.transport)
        if rest:
            protocol.dataReceived(rest)  # under implicit TLS, the client speaks first

    def _refuse(self, reason: str) -> None:
        self._warn(reason)
        self.abort()

    def _warn(self, reason: str) -> None:
        self._log.warn(
            "connection from {balancer} closed: {reason}",
            balancer=printable(str(getattr(self._balancer, "host", self._balancer))),
            reason=reason,
        )

    def _end(self) -> None:
        self._awaiting.pop(self, None)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
