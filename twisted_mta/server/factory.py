"""The factory of one listener: it builds, counts and limits connections."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from socket import getfqdn
from types import MappingProxyType
from typing import Any, Literal

from attrs import evolve
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.logger import Logger
from twisted.mail.interfaces import IMessageDelivery, IMessageDeliveryFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from ..auth.authenticator import CHECK_TIMEOUT, Authenticator
from ..auth.throttle import Throttle, ThrottleSettings
from ..interfaces import Clock, Delivery, LimitKey, Limits
from ..mail.decision import Decision
from ..mail.reply import Reply
from ..smtp.extension.auth import AUTH
from ..smtp.extension.standard import extensions_for_lines
from ..smtp.server.replies import CANNOT_SERVE, SHUTTING_DOWN
from ..smtp.server.settings import SessionSettings
from ..system.limits import LocalLimits
from ..system.outbox import Outbox
from ..system.timers import with_monotonic_time
from ..telemetry.metrics import Metrics, table
from ..telemetry.metrics.table import Metric
from ..telemetry.recent_sessions import RecentSessions
from ..telemetry.tracing import Tracing
from ..tls.server import ContextFactory, ServerTLS, server_tls
from .addresses import ProxiedAddress, plain_address
from .deliveries import AnyDelivery, NoDelivery, delivery_of
from .protocol import ESMTPProtocol
from .timeouts import Timeouts

MAX_MESSAGE_SIZE = 50 * 1024 * 1024  # octets
MAX_RECIPIENTS = 1000  # of a transaction; RFC 5321 §4.5.3.1.8 asks for 100 at least

TOO_MANY_CONNECTIONS = Reply.of(421, "7.0", "Too many connections")


class ListenerFactory(ServerFactory):
    """Builds the connections of one listener; applications use `esmtp_factory.ESMTPFactory`.

    Args:
        delivery: an `IMessageDelivery`, an `IMessageDeliveryFactory`, a cred portal for anonymous
            senders, or an `interfaces.Delivery` of our own.
        tls: a `tls.server.ServerContext`, or any context factory of Twisted, such as
            `CertificateOptions`; without it STARTTLS is not offered.
        clock: for timeouts; None: monotonic timers on the reactor of the connections.
        settings: of sessions; None: the machine's name, and those standard extensions that any
            delivery can keep.
        timeouts: None: the defaults of `Timeouts`.
        max_connections: at a time.
        max_connections_per_peer: at a time from one address.
        limits: counts connections as ``("connections", name)`` and ``("peer", name, address)``,
            but no refused ones; None: of this factory alone.
        kind: of the listener, for ``metrics``.
        metrics: where connections and refusals are counted.
        name: of the listener; equal in all processes that accept for it.
        auth: where a portal's checkers are offered for AUTH: nowhere, under TLS, or in clear too.
        authenticator: judges AUTH, where ``settings`` offer it.
        outbox: where replies wait for the end of the reactor's turn; best shared by all connections
            of a process. None: one for this factory.
        user_of: returns the user id at the other end of a transport, for `Peer.user`.

    Attributes:
        implicit_tls: whether connections begin with a handshake, also where the endpoint has none.
        delivery: as above.
        settings: of new sessions; may change at any time, as may ``timeouts``, ``max_connections``
            and ``max_connections_per_peer``.
        timeouts: as above.
        max_connections: as above.
        max_connections_per_peer: as above.
        name: as above.
        outbox: as above.
        user_of: as above.
        connections_taken: connections so far, including refused ones.
        tracing: the traces that operators have open; None: no traces here.
        recent: remembers sessions that have ended; None: they are not remembered.
        portal: a portal, where ``delivery`` is None.
        challengers: AUTH mechanisms by name, as ``twisted.mail.smtp.ESMTP`` takes them, that
            replace those of the portal's checkers.
        fails_on_cue: whether recipients can ask for failures (`failures_on_cue`).
        violations: how often octets came before their turn (RFC 3207 §4, RFC 2920 §3.1).
        downgrades: how often MAIL in clear came from a client known to use TLS (RFC 3207 §6).
        draining: whether there are no new sessions, and existing ones end after their transaction.
    """

    noisy = False
    implicit_tls = False
    fails_on_cue = False
    portal: Portal | None = None
    challengers: Mapping[Any, Callable[[], Any]] = MappingProxyType({})
    _log = Logger()

    def __init__(
        self,
        delivery: AnyDelivery | None = None,
        *,
        tls: ServerTLS | ContextFactory | None = None,
        clock: Clock | None = None,
        settings: SessionSettings | None = None,
        timeouts: Timeouts | None = None,
        max_connections: int = 1000,
        max_connections_per_peer: int = 50,
        limits: Limits | None = None,
        name: str = "",
        kind: str = "smtp",
        metrics: Metrics | None = None,
        auth: Literal["off", "tls", "any"] = "tls",
        authenticator: Authenticator | None = None,
        outbox: Outbox | None = None,
        user_of: Callable[[Any], int | None] = lambda transport: None,
    ) -> None:
        if delivery is not None:
            delivery_of(delivery, None)  # a TypeError now, and not at the first connection
        self.delivery = delivery
        self.clock = clock
        self.auth = auth
        self.authenticator = authenticator
        self.settings = settings or SessionSettings(
            hostname=getfqdn(),
            extensions=extensions_for_lines(MAX_MESSAGE_SIZE, MAX_RECIPIENTS),
            max_recipients=MAX_RECIPIENTS,
        )
        self.tls: ServerTLS | None = server_tls(tls)
        self.timeouts = timeouts or Timeouts()
        self.violations = 0
        self.downgrades = 0
        self.draining = False
        self.max_connections = max_connections
        self.max_connections_per_peer = max_connections_per_peer
        self.name = name
        self.kind = kind
        self.user_of = user_of
        self.connections_taken = 0
        self.tracing: Tracing | None = None
        self.recent: RecentSessions | None = None
        self._metrics = metrics or Metrics()
        self._limits: Limits = LocalLimits() if limits is None else limits
        self._connections: dict[
            ESMTPProtocol, list[LimitKey]
        ] = {}  # the limits that each has taken
        self._drained: list[Deferred[None]] = []
        self._throttle: Throttle | None = None
        self.outbox = Outbox() if outbox is None else outbox
        self._secret = _random_octets()

    @property
    def connections_open(self) -> int:
        """Open connections, including those that are being refused."""
        return len(self._connections)

    @property
    def tls_ready(self) -> Callable[[], bool] | None:
        """Whether a handshake could begin now; None where TLS is not configured."""
        tls = self.tls
        return None if tls is None else lambda: tls.ready

    def delivery_for(self, protocol: ESMTPProtocol) -> Delivery:
        """Return the delivery that decides on the mail of a connection, once it is made."""
        for provider in (
            protocol.deliveryFactory,
            protocol.delivery,
            self.delivery,
            protocol.portal,
            self.portal,
        ):
            if provider is not None:
                delivery = delivery_of(provider, protocol)
                if not self.fails_on_cue:
                    return delivery
                # Only here: other servers need not load it.
                from .failures_on_cue import FailuresOnCue

                transport = protocol.transport
                return FailuresOnCue(
                    delivery, drop=transport.abortConnection, clock=self.clock_for(transport)
                )
        return NoDelivery()

    def clock_for(self, transport: Any) -> Clock:
        """Return the clock of a connection; by default, the ``reactor`` of its transport."""
        if self.clock is None:
            self.clock = with_monotonic_time(transport.reactor)
        return self.clock

    def authenticator_for(self, protocol: ESMTPProtocol) -> Authenticator | None:
        """Return what judges AUTH on a connection; None where AUTH is not offered."""
        if self.authenticator is not None or self.auth == "off":
            return self.authenticator
        for portal in (protocol.portal, self.portal, self.delivery):
            if isinstance(portal, Portal):
                break
        else:
            return None
        clock = self.clock_for(protocol.transport)
        if self._throttle is None:
            self._throttle = Throttle(ThrottleSettings(), limits=self._limits, clock=clock)
        challengers = protocol.challengers or self.challengers
        return Authenticator(
            portal=portal,
            interfaces=(IMessageDeliveryFactory, IMessageDelivery),
            throttle=self._throttle,
            clock=clock,
            secret=self._secret,
            timeout=min(CHECK_TIMEOUT, self.timeouts.decision),
            challengers={
                (name.decode("ascii") if isinstance(name, bytes) else name).upper(): make
                for name, make in challengers.items()
            },
        )

    def settings_for(self, authenticator: Authenticator | None) -> SessionSettings:
        """Return the settings of a session whose AUTH ``authenticator`` judges."""
        if authenticator is None or authenticator is self.authenticator:
            return self.settings
        auth = authenticator.settings(in_clear=self.auth == "any", nonce=_nonce)
        if auth is None:
            return self.settings
        return evolve(self.settings, extensions=(*self.settings.extensions, AUTH), auth=auth)

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """Build the protocol of a new connection."""
        protocol = ESMTPProtocol(self, plain_address(addr))
        address: object = addr
        if isinstance(address, ProxiedAddress):
            protocol.proxied = address
        return protocol

    def opened(self, protocol: ESMTPProtocol) -> Decision | Deferred[Decision]:
        """Count a connection in; the reply refuses it, None admits it.

        A Deferred is returned where another process counts; it never fails.
        """
        self.connections_taken += 1
        self._connections[protocol] = []
        limits: list[tuple[LimitKey, int]] = [(("connections", self.name), self.max_connections)]
        peer = protocol.address
        if protocol.session.peer.user is not None:
            peer = f"uid:{protocol.session.peer.user}"
        if peer is not None:
            key = ("peer", self.name, peer)
            limits.append((key, self.max_connections_per_peer))
        decision = self._admit(protocol, limits)
        if decision is not None and isinstance(decision, Deferred):
            decision.addErrback(self._not_counted)
        return decision

    def closed(self, protocol: ESMTPProtocol) -> None:
        """Count a connection out."""
        for key in self._connections.pop(protocol, ()):
            self._limits.give_back(key)
        self._fire_drained()

    def _admit(
        self, protocol: ESMTPProtocol, limits: Sequence[tuple[LimitKey, int]]
    ) -> Decision | Deferred[Decision]:
        """Take from each limit in turn; what was taken is given back if one refuses."""
        if self.draining:
            self.count(table.CONNECTIONS_REFUSED, "draining")
            return SHUTTING_DOWN
        for number, (key, limit) in enumerate(limits, 1):
            taken = self._limits.take(key, limit)
            if taken is True:
                self._connections[protocol].append(key)
            elif taken is False:
                return self._refuse(protocol, key)
            else:
                return taken.addCallback(self._answered, protocol, key, limits[number:])
        return None

    def _answered(
        self,
        taken: bool,
        protocol: ESMTPProtocol,
        key: LimitKey,
        others: Sequence[tuple[LimitKey, int]],
    ) -> Decision | Deferred[Decision]:
        """Go on with the other limits once another process has answered about one."""
        if protocol not in self._connections:  # the connection was lost meanwhile
            if taken:
                self._limits.give_back(key)
            return None
        if not taken:
            return self._refuse(protocol, key)
        self._connections[protocol].append(key)
        return self._admit(protocol, others)

    def _refuse(self, protocol: ESMTPProtocol, key: LimitKey) -> Reply:
        """Refuse a connection for which a limit has no room."""
        counted, self._connections[protocol] = self._connections[protocol], []
        for each in counted:
            self._limits.give_back(each)
        reason = "peer_limit" if key[0] == "peer" else "limit"
        self.count(table.CONNECTIONS_REFUSED, reason)
        return TOO_MANY_CONNECTIONS

    def count(self, metric: Metric, *labels: str) -> None:
        """Raise a counter of this kind of listener."""
        self._metrics.count(metric, self.kind, *labels)

    def handshake_failed(self) -> None:
        """Count a TLS handshake that failed."""
        self._metrics.count(table.HANDSHAKES_FAILED, "server")

    def refused(self, stage: str, reply: Reply) -> None:
        """Count a decision that refuses a sender, a recipient or a message."""
        subject = (reply.status or "none").partition(".")[0]
        self._metrics.count(table.REFUSED, stage, str(reply.code // 100), subject)

    def _not_counted(self, failure: Failure) -> Reply:
        self._log.failure("a connection could not be counted against its limits", failure)
        return CANNOT_SERVE

    def attach_traces(self) -> None:
        """Have all connections report to the traces that are open now."""
        if self.tracing is not None:
            for protocol in tuple(self._connections):
                protocol.attach_traces(self.tracing)

    def drain(self) -> Deferred[None]:
        """End the sessions after their transactions; fires when the last connection is closed."""
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

    def abandon(self, at_once: bool = False) -> None:
        """End all connections with 421, within two seconds (`ESMTPProtocol.abandon`).

        Args:
            at_once: abort them now, without a reply; a second call does so too.
        """
        self.draining = True
        for protocol in list(self._connections):
            protocol.abandon(at_once)


def _random_octets() -> bytes:
    """Return 32 random octets from OpenSSL."""
    return AESGCM.generate_key(bit_length=256)


def _nonce() -> str:
    return b64encode(_random_octets()).decode("ascii")


class ImplicitTLSFactory(TLSMemoryBIOFactory):
    """Implicit TLS (RFC 8314 §3) in front of a `ListenerFactory` that has ``tls``.

    The session begins with the greeting after the handshake.
    """

    def __init__(self, behind: ListenerFactory) -> None:
        assert behind.tls is not None
        self._tls = behind.tls
        super().__init__(self._tls.creator, False, behind, behind.clock)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Build the TLS protocol; None, which closes the connection, without a certificate."""
        return super().buildProtocol(addr) if self._tls.ready else None
