"""The factories of applications: an SMTP or LMTP server with the decisions of a delivery.

They take the place of the factories of ``twisted.mail.smtp``. What those had is kept, or refused
with an error that names its replacement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from socket import getfqdn
from typing import Any, Literal, NoReturn

from attrs import evolve
from twisted.cred.portal import Portal

from ..interfaces import Clock
from ..smtp.extension import Extension
from ..smtp.extension.standard import extensions_for_lines
from ..smtp.server.dialect import LMTP, SMTP, Dialect
from ..smtp.server.settings import SessionSettings
from ..tls.server import ContextFactory, ServerTLS
from .application_extensions import guarded_extensions
from .deliveries import AnyDelivery
from .factory import MAX_MESSAGE_SIZE, MAX_RECIPIENTS, ListenerFactory
from .timeouts import Timeouts

_INSTEAD: Mapping[str, str] = {
    "protocol": "no protocol: what MyESMTP(SMTP) decides is a delivery here,"
    " ESMTPFactory(delivery); its do_X and ext_X are extensions, ESMTPFactory(extensions=[...]);"
    " and buildProtocol may set attributes of the protocol",
    "domain": "ESMTPFactory(hostname=...)",
    "timeout": "ESMTPFactory(idle_timeout=...)",
}


class ESMTPFactory(ListenerFactory):
    """Builds the connections of an SMTP server with the decisions of an application.

    It takes the place of ``twisted.mail.smtp.SMTPFactory``, with the same deliveries, delivery
    factories and portals: as argument, as attribute of the factory, or as attribute of the protocol
    in a ``buildProtocol`` of its own.

    Args:
        delivery: an `IMessageDelivery`, an `IMessageDeliveryFactory`, a cred portal for anonymous
            senders, or an `interfaces.Delivery` of our own; None: all mail is refused that comes
            without a login.
        portal: judges AUTH, with the checkers that it has; its avatars are deliveries, or factories
            of them, that decide on the mail of their sessions.
        hostname: our name in greetings; None: the name of the machine.
        max_message_size: octets of a message.
        idle_timeout: seconds without a command, or without an octet of a message.
        decision_timeout: seconds for an answer of the delivery or the portal. Then its Deferred is
            cancelled, and the client is told to try again: ``451``, and ``454`` to AUTH.
        tls: a `tls.server.ServerContext`, or any context factory of Twisted, such as
            `CertificateOptions`; without it STARTTLS is not offered.
        implicit_tls: whether connections begin with a handshake. The endpoint may be one with TLS,
            such as `SSL4ServerEndpoint`, and without it ``tls`` is needed. An endpoint with TLS
            works without this argument too.
        auth: where AUTH is offered: nowhere, under TLS, or in clear too.
        extensions: of ESMTP, besides those standard ones that any delivery can keep.
        clock: for timeouts; None: monotonic timers on the reactor of the connections.
        max_connections: at a time.
        max_connections_per_peer: at a time from one address.

    Raises:
        TypeError: ``delivery``, ``portal``, ``tls`` or ``extensions`` is of another kind.
        ValueError: a number or ``auth`` is out of range.
    """

    _dialect: Dialect = SMTP
    _kind = "smtp"

    def __init__(
        self,
        delivery: AnyDelivery | None = None,
        *,
        portal: Portal | None = None,
        hostname: str | None = None,
        max_message_size: int = MAX_MESSAGE_SIZE,
        idle_timeout: float = 300.0,
        decision_timeout: float = 60.0,
        tls: ServerTLS | ContextFactory | None = None,
        implicit_tls: bool = False,
        auth: Literal["off", "tls", "any"] = "tls",
        extensions: Sequence[Extension] = (),
        clock: Clock | None = None,
        max_connections: int = 1000,
        max_connections_per_peer: int = 50,
    ) -> None:
        if auth not in ("off", "tls", "any"):
            raise ValueError(f"auth: found {auth!r}, expected 'off', 'tls' or 'any'")
        if portal is not None and not isinstance(portal, Portal):
            raise TypeError(f"portal: found {portal!r}, expected a twisted.cred.portal.Portal")
        if hostname is not None and not isinstance(hostname, str):
            raise TypeError(f"hostname: found {hostname!r}, expected text")
        for name, number in (
            ("max_message_size", max_message_size),
            ("idle_timeout", idle_timeout),
            ("decision_timeout", decision_timeout),
        ):
            if not number > 0:
                raise ValueError(f"{name}: found {number!r}, expected a number above 0")
        standard = extensions_for_lines(max_message_size, MAX_RECIPIENTS)
        super().__init__(
            delivery,
            tls=tls,
            clock=clock,
            settings=SessionSettings(
                hostname=hostname or getfqdn(),
                dialect=self._dialect,
                extensions=(*standard, *guarded_extensions(extensions)),
                max_message_size=max_message_size,
                max_recipients=MAX_RECIPIENTS,
            ),
            timeouts=Timeouts(decision=decision_timeout).idle(idle_timeout),
            max_connections=max_connections,
            max_connections_per_peer=max_connections_per_peer,
            kind=self._kind,
            auth=auth,
        )
        self.implicit_tls = implicit_tls
        if portal is not None:
            self.portal = portal

    # What the factories of twisted.mail had.

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        for name in _INSTEAD:
            if name in cls.__dict__:
                _refuse(name, cls.__dict__[name])

    @property
    def domain(self) -> str:
        """Our name in greetings; may be set, as in ``twisted.mail``."""
        return self.settings.hostname

    @domain.setter
    def domain(self, name: str | bytes) -> None:
        text = name.decode("ascii") if isinstance(name, bytes) else name
        self.settings = evolve(self.settings, hostname=text)

    @property
    def timeout(self) -> float:
        """Seconds without a command; may be set, as in ``twisted.mail``."""
        return self.timeouts.command

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self.timeouts = self.timeouts.idle(seconds)

    @property
    def protocol(self) -> None:
        """None: the factory builds a protocol of its own, and setting another is an error."""
        return None

    @protocol.setter
    def protocol(self, protocol: object) -> None:
        _refuse("protocol", protocol)


class LMTPFactory(ESMTPFactory):
    """Builds the connections of a server for LMTP (RFC 2033), as `ESMTPFactory` does for SMTP.

    Each recipient has a reply of its own: an `IMessageDelivery` makes one `IMessage` for each, and
    its ``eomReceived`` decides that reply.
    """

    _dialect = LMTP
    _kind = "lmtp"


def _refuse(name: str, found: object) -> NoReturn:
    raise TypeError(f"{name}: found {found!r}, expected {_INSTEAD[name]}")
