"""The factory of one listener: what its sessions share, and how many there may be."""

from __future__ import annotations

from collections.abc import Callable
from socket import getfqdn
from typing import Any

from attrs import frozen
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.protocols.tls import TLSMemoryBIOFactory

from ..interfaces import Clock, Delivery
from ..smtp.extension.standard import extensions_for_lines
from ..smtp.reply import Reply
from ..smtp.settings import SessionSettings
from .delivery import AnyDelivery, NoDelivery, delivery_of
from .protocol import SHUTTING_DOWN, ESMTPProtocol, plain_address
from .proxy import ProxiedAddress
from .tls import ContextFactory, ServerTLS, server_tls

_MAX_MESSAGE_SIZE = 50 * 1024 * 1024  # octets

TOO_MANY_CONNECTIONS = Reply.of(421, "7.0", "Too many connections")


@frozen(kw_only=True)
class Timeouts:
    """How long a peer may take, in seconds.

    Attributes:
        command: from our reply to the end of the next command. RFC 5321 §4.5.3.2.7 asks for 5
            minutes; Postfix and Exim have the same.
        data: silence within a message.
        handshake: from 220 to the end of the TLS handshake.
        rate_grace: how long a message may come slower than ``minimum_rate``.
        minimum_rate: octets a second, over the whole of a message.
        errors_unslowed: errors of a session after which its replies are held back.
        error_delay: for how long each of them is.
    """

    command: float = 300.0
    data: float = 180.0
    handshake: float = 30.0
    rate_grace: float = 180.0
    minimum_rate: float = 500.0
    errors_unslowed: int = 5
    error_delay: float = 1.0


class ESMTPFactory(ServerFactory):
    """Makes the protocols of one listener.

    For an application it is where ``twisted.mail.smtp.SMTPFactory`` was: it takes the same
    deliveries, delivery factories and portals, as argument or as attribute, of the factory or, in
    a ``buildProtocol`` of one's own, of the protocol.

    Args:
        delivery: an `IMessageDelivery`, an `IMessageDeliveryFactory`, a cred portal for anonymous
            senders, or an `interfaces.Delivery` of our own.
        tls: a `server.tls.ServerContext`, or any context factory of Twisted's, such as
            `CertificateOptions`; without it STARTTLS is not offered.
        clock: for timeouts; None takes the reactor of each connection.
        settings: what sessions are told; None is the machine's name and the
            standard extensions that any delivery can keep.
        timeouts: how long peers may take.
        max_connections: at a time.
        max_connections_per_peer: at a time from one address.

    Attributes:
        delivery: see the argument of that name.
        portal: a portal, where ``delivery`` is None.
        violations: how often octets came before their turn (RFC 3207 §4, RFC 2920 §3.1).
        downgrades: how often MAIL came in clear from where TLS is known to come (RFC 3207 §6).
        draining: no new sessions, and those that are here end after their transaction.
    """

    noisy = False

    def __init__(
        self,
        delivery: AnyDelivery | None = None,
        *,
        tls: ServerTLS | ContextFactory | None = None,
        clock: Clock | None = None,
        settings: SessionSettings | None = None,
        timeouts: Timeouts = Timeouts(),
        max_connections: int = 1000,
        max_connections_per_peer: int = 50,
    ) -> None:
        if delivery is not None:
            delivery_of(delivery, None)  # refuses what cannot decide, while somebody looks
        self.delivery = delivery
        self.clock = clock
        self.portal: Portal | None = None
        self.settings = settings or SessionSettings(
            hostname=getfqdn(), extensions=extensions_for_lines(_MAX_MESSAGE_SIZE)
        )
        self.tls: ServerTLS | None = server_tls(tls)
        self.timeouts = timeouts
        self.violations = 0
        self.downgrades = 0
        self.draining = False
        self._max_connections = max_connections
        self._max_connections_per_peer = max_connections_per_peer
        self._connections: dict[ESMTPProtocol, str | None] = {}
        self._peers: dict[str | None, int] = {}
        self._drained: list[Deferred[None]] = []

    @property
    def tls_ready(self) -> Callable[[], bool] | None:
        """Whether a handshake could begin now; None where TLS is not configured."""
        tls = self.tls
        return None if tls is None else lambda: tls.ready

    def delivery_for(self, protocol: ESMTPProtocol) -> Delivery:
        """Return who decides on the mail of a connection; asked once, when it has been made."""
        for provider in (
            protocol.deliveryFactory,
            protocol.delivery,
            self.delivery,
            protocol.portal,
            self.portal,
        ):
            if provider is not None:
                return delivery_of(provider, protocol)
        return NoDelivery()

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """Make the protocol of a new connection."""
        protocol = ESMTPProtocol(self, plain_address(addr))
        address: object = addr
        if isinstance(address, ProxiedAddress):
            protocol.proxied = address
        return protocol

    def opened(self, protocol: ESMTPProtocol) -> Reply | None:
        """Count a connection in; return why it may not go on, or None."""
        address = protocol.address
        self._connections[protocol] = address
        here = self._peers[address] = self._peers.get(address, 0) + 1
        if self.draining:
            return SHUTTING_DOWN
        if len(self._connections) > self._max_connections:
            return TOO_MANY_CONNECTIONS
        if here > self._max_connections_per_peer and address is not None:
            return TOO_MANY_CONNECTIONS
        return None

    def closed(self, protocol: ESMTPProtocol) -> None:
        """Count a connection out."""
        address = self._connections.pop(protocol, None)
        left = self._peers.get(address, 0) - 1
        if left > 0:
            self._peers[address] = left
        else:
            self._peers.pop(address, None)
        self._fire_drained()

    def drain(self) -> Deferred[None]:
        """Let the sessions end after their transactions; fires when the last is gone."""
        self.draining = True
        drained: Deferred[None] = Deferred()
        self._drained.append(drained)
        for protocol in list(self._connections):
            protocol.drain()
        self._fire_drained()
        return drained

    def _fire_drained(self) -> None:
        if not self._connections:
            waiting, self._drained = self._drained, []
            for drained in waiting:
                drained.callback(None)

    def abandon(self) -> None:
        """End all connections at once."""
        for protocol in list(self._connections):
            protocol.abandon()


class ImplicitTLSFactory(TLSMemoryBIOFactory):
    """TLS from the first octet (RFC 8314 §3) in front of an `ESMTPFactory` that has ``tls``.

    The session begins, and greets, when the handshake has completed.
    """

    def __init__(self, behind: ESMTPFactory) -> None:
        assert behind.tls is not None
        self._tls = behind.tls
        super().__init__(self._tls.creator, False, behind, behind.clock)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Make what shakes hands, or None (the connection is closed) where there is nothing to."""
        return super().buildProtocol(addr) if self._tls.ready else None
