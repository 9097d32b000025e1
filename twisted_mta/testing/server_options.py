"""The options of the server that a transcript is played against."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any, Literal

from attrs import field, frozen
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import Portal
from twisted.internet.task import Clock

from ..auth.authenticator import AccountRealm, Authenticator
from ..mail.reply import Reply
from ..policy.networks import Networks
from ..smtp.extension import Extension
from ..smtp.extension.auth import AUTH
from ..smtp.extension.binarymime import BINARYMIME
from ..smtp.extension.chunking import CHUNKING
from ..smtp.extension.deliverby import deliver_by
from ..smtp.extension.dsn import DSN
from ..smtp.extension.eightbitmime import EIGHT_BIT_MIME
from ..smtp.extension.futurerelease import future_release
from ..smtp.extension.limits import limits
from ..smtp.extension.mtpriority import MT_PRIORITY
from ..smtp.extension.plain import ENHANCED_STATUS_CODES, PIPELINING
from ..smtp.extension.size import size
from ..smtp.extension.smtputf8 import SMTPUTF8
from ..smtp.extension.starttls import STARTTLS
from ..smtp.extension.xclient import xclient
from ..smtp.server.dialect import LMTP, SMTP
from ..smtp.server.settings import SessionSettings
from ..tls.handshake import suffices

_PROXIES = Networks((ip_network("192.0.2.0/24"),))


_XCLIENT = xclient(lambda peer: _PROXIES.cover(peer.address))


def _future_release(longest: int) -> Extension:
    return future_release(longest, lambda: 1_800_000_000.0)


@frozen(kw_only=True)
class ServerOptions:
    """The options of a server; a transcript sets them by ``@ name value``.

    Attributes:
        dialect: ``smtp`` or ``lmtp``.
        tls: ``none`` (not configured), ``ready``, ``failed`` (no certificate could be loaded), or
            ``implicit`` (active from the beginning).
        minimum_tls: the version that the server demands after the handshake, ``1.2`` or ``1.3``.
        client_tls: the version that the client offers.
        require_tls: Whether commands in clear are refused, except those that lead to TLS.
        trusted: Whether the client may relay, which lends it the leniency for devices.
        bare_newlines: ``reject``, ``normalize``, or ``default``: normalize for a trusted client.
        long_lines: ``accept`` or ``reject``.
        max_message_size: octets.
        max_recipients: recipients of one transaction.
        max_errors: errors of one session.
        violations: the number of times that octets arrive before their turn.
        whole: Whether each write arrives in one piece, because the transcript depends on it.
        chunking: Whether BDAT is offered.
        binarymime: Whether BODY=BINARYMIME is offered, and BDAT with it.
        limits: Whether LIMITS is announced.
        smtputf8: Whether SMTPUTF8 is offered.
        dsn: Whether DSN is offered.
        deliverby: the minimum of DELIVERBY in seconds; 0: not offered.
        futurerelease: the limit of FUTURERELEASE in seconds, in the year 2027; 0: not offered.
        mtpriority: Whether MT-PRIORITY is offered.
        xclient: Whether XCLIENT is offered to clients in 192.0.2.0/24.
        auth: where AUTH is offered: ``off``, ``tls`` or ``any``. The one account is ``alice`` with
            the password ``secret``.
        auth_required: Whether MAIL needs AUTH before it.
        max_auth_failures: failures of one session.
        peer: the client's IP address.
        refusals: the refusals of `RecordingDelivery`; written ``@ refuse <path> 550 5.1.1 text``,
            where ``<.>`` is the end of the content, ``<.path>`` the same for one recipient, and
            ``<DATA>`` the beginning of the content.
    """

    dialect: Literal["smtp", "lmtp"] = "smtp"
    tls: Literal["none", "ready", "failed", "implicit"] = "ready"
    minimum_tls: Literal["1.2", "1.3"] = "1.2"
    client_tls: Literal["1.2", "1.3"] = "1.3"
    require_tls: bool = False
    trusted: bool = False
    bare_newlines: Literal["default", "reject", "normalize"] = "default"
    long_lines: Literal["accept", "reject"] = "accept"
    max_message_size: int = 50 * 1024 * 1024
    max_recipients: int = 1000
    max_errors: int = 20
    violations: int = 0
    whole: bool = False
    chunking: bool = False
    binarymime: bool = False
    limits: bool = False
    smtputf8: bool = False
    dsn: bool = False
    deliverby: int = 0
    futurerelease: int = 0
    mtpriority: bool = False
    xclient: bool = False
    auth: Literal["off", "tls", "any"] = "off"
    auth_required: bool = False
    max_auth_failures: int = 5
    peer: str = "192.0.2.1"
    refusals: dict[str, Reply] = field(factory=dict)

    def settings(self) -> SessionSettings:
        """Return the settings of a session with these options."""
        return SessionSettings(
            hostname="mx.example",
            dialect=LMTP if self.dialect == "lmtp" else SMTP,
            extensions=(
                PIPELINING,
                size(self.max_message_size),
                EIGHT_BIT_MIME,
                ENHANCED_STATUS_CODES,
                STARTTLS,
                *((CHUNKING,) if self.chunking or self.binarymime else ()),
                *((BINARYMIME,) if self.binarymime else ()),
                *((limits(self.max_recipients),) if self.limits else ()),
                *((SMTPUTF8,) if self.smtputf8 else ()),
                *((DSN,) if self.dsn else ()),
                *((deliver_by(self.deliverby),) if self.deliverby else ()),
                *((_future_release(self.futurerelease),) if self.futurerelease else ()),
                *((MT_PRIORITY,) if self.mtpriority else ()),
                *((_XCLIENT,) if self.xclient else ()),
                *((AUTH,) if self.auth != "off" else ()),
            ),
            require_tls=self.require_tls,
            tls_suffices=suffices(self.minimum_tls),
            trusts=lambda session: self.trusted,
            bare_newlines=None if self.bare_newlines == "default" else self.bare_newlines,
            long_lines=self.long_lines,
            max_message_size=self.max_message_size,
            max_recipients=self.max_recipients,
            max_errors=self.max_errors,
            auth=(
                None
                if self.auth == "off"
                else self.authenticator(Clock()).settings(
                    in_clear=self.auth == "any",
                    nonce=lambda: "3rfcNHYJY1ZVvWVs7j",
                    required=self.auth_required,
                    max_failures=self.max_auth_failures,
                )
            ),
        )

    def authenticator(self, clock: Any) -> Authenticator:
        """Return an authenticator of the one account, without a throttle."""
        portal = Portal(AccountRealm())
        portal.registerChecker(InMemoryUsernamePasswordDatabaseDontUse(alice=b"secret"))
        return Authenticator(portal=portal, clock=clock, secret=b"secret", iterations=10)
