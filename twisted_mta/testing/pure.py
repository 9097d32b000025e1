"""A session without a protocol: octets go in, decisions are made at once, replies come out."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any, Literal

from attrs import field, frozen
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from ..auth.authenticator import AccountRealm, Authenticator, Login
from ..mail.reply import Reply
from ..mail.tls_facts import TLSFacts
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
from ..smtp.peer import Peer
from ..smtp.server.auth import Granted
from ..smtp.server.dialect import LMTP, SMTP
from ..smtp.server.session import Session
from ..smtp.server.settings import SessionSettings
from ..smtp.server.step import (
    Abort,
    Authenticate,
    Close,
    Finish,
    Mail,
    Open,
    Rcpt,
    StartTLS,
    Step,
    Violation,
    Write,
)
from ..tls.handshake import suffices
from .delivery import RecordingDelivery

_PROXIES = Networks((ip_network("192.0.2.0/24"),))
_XCLIENT = xclient(lambda peer: _PROXIES.cover(peer.address))


def _future_release(longest: int) -> Extension:
    return future_release(longest, lambda: 1_800_000_000.0)


@frozen(kw_only=True)
class Options:
    """What stands behind ``@``, a name and a value on each line.

    Attributes:
        dialect: ``smtp`` or ``lmtp``.
        tls: ``none`` (not configured), ``ready``, ``failed`` (no certificate could be loaded), or
            ``implicit``: active from the beginning.
        minimum_tls: what the server demands after the handshake: ``1.2`` or ``1.3``.
        client_tls: the version that the client offers.
        require_tls: nothing but the beginning of TLS goes in clear.
        bare_newlines: ``reject`` or ``normalize``.
        long_lines: ``accept`` or ``reject``.
        max_message_size: octets.
        max_recipients: of one transaction.
        max_errors: of one session.
        violations: how often octets come before their turn.
        chunking: BDAT is offered.
        binarymime: BODY=BINARYMIME is offered, and BDAT with it.
        limits: LIMITS is announced.
        smtputf8: SMTPUTF8 is offered.
        dsn: DSN is offered.
        deliverby: DELIVERBY is offered, with this minimum.
        futurerelease: FUTURERELEASE is offered, with this limit, in the year 2027.
        mtpriority: MT-PRIORITY is offered.
        xclient: XCLIENT is offered, to clients in 192.0.2.0/24.
        auth: where AUTH is offered: ``off``, ``tls``, ``any``. There is one account, ``alice``
            with the password ``secret``.
        auth_required: MAIL comes after AUTH.
        max_auth_failures: of one session.
        peer: the address that the client connects from.
        whole: each write arrives in one piece: that is what the transcript is about.
        refusals: what `RecordingDelivery` refuses; written ``@ refuse <path> 550 5.1.1 text``,
            where ``<.>`` is the end of the content, ``<.path>`` the same for one recipient alone,
            ``<DATA>`` the beginning of the content.
    """

    dialect: Literal["smtp", "lmtp"] = "smtp"
    tls: Literal["none", "ready", "failed", "implicit"] = "ready"
    minimum_tls: Literal["1.2", "1.3"] = "1.2"
    client_tls: Literal["1.2", "1.3"] = "1.3"
    require_tls: bool = False
    bare_newlines: Literal["reject", "normalize"] = "reject"
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
        """Return the settings of the session that the transcript is played against."""
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
            bare_newlines=self.bare_newlines,
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
        """Return who judges AUTH: an account, and failures that are not counted."""
        portal = Portal(AccountRealm())
        portal.registerChecker(InMemoryUsernamePasswordDatabaseDontUse(alice=b"secret"))
        return Authenticator(portal=portal, clock=clock, secret=b"secret", iterations=10)


class PureWire:
    """The session itself, without a protocol (`Wire`); decisions are made at once.

    Attributes:
        session: it.
        output: what it said and was not read yet.
        violations: how many it noticed.
        closed: whether it closed the connection.
    """

    def __init__(self, options: Options, delivery: RecordingDelivery) -> None:
        ready = {"none": None, "failed": lambda: False}.get(options.tls, lambda: True)
        self.session = Session(options.settings(), peer=Peer(options.peer, 50_000), tls_ready=ready)
        self.output = b""
        self.violations = 0
        self.closed = False
        self._delivery = delivery
        self._authenticator = options.authenticator(Clock())
        self._sink: Any = None
        self._handshake_due = False
        self._facts = TLSFacts(f"TLSv{options.client_tls}", "TLS_AES_256_GCM_SHA384", 256)
        if options.tls == "implicit":
            self.session.tls_established(self._facts)
        self.session.greet()
        self.output += self.session.output()

    async def send(self, octets: bytes) -> None:
        """Let octets arrive (`Wire`)."""
        self.receive(octets)

    def receive(self, octets: bytes) -> None:
        """Let octets arrive, and do what they come to."""
        self.session.receive(octets)
        while (step := self.session.step()) is not None:
            self._do(step)
        self.output += self.session.output()

    async def line(self) -> bytes | None:
        """Return the next line that was said."""
        line, end, rest = self.output.partition(b"\r\n")
        if end:
            self.output = rest
            return line
        return None if self.closed else b"(nothing)"

    async def start_tls(self) -> None:
        """Complete a handshake."""
        assert self._handshake_due or self.session.tls, "220 was not said to STARTTLS"
        if self._handshake_due:
            self._handshake_due = False
            self.session.tls_established(self._facts)

    def _do(self, step: Step) -> None:
        session, delivery = self.session, self._delivery
        assert not self.closed, f"{step} comes after the end"
        if isinstance(step, Mail):
            session.answer(self._now(delivery.mail(session, *step)))
        elif isinstance(step, Rcpt):
            session.answer(self._now(delivery.rcpt(session, *step)))
        elif isinstance(step, Open):
            opened = self._now(delivery.open(session))
            refused = isinstance(opened, Reply)
            self._sink = None if refused else opened
            session.answer(opened if refused else None)
        elif isinstance(step, Authenticate):
            judged: list[Any] = []
            self._authenticator.judge(session, step.evidence).addCallback(judged.append)
            [verdict] = judged
            granted = isinstance(verdict, Login)
            session.answer_auth(Granted(verdict.identity) if granted else verdict)
        elif isinstance(step, Write):
            self._sink.write(step.content)
        elif isinstance(step, Finish):
            session.answer(self._now(self._sink.finish()))
            self._sink = None
        elif isinstance(step, Abort):
            self._give_up()
        elif isinstance(step, StartTLS):
            self._handshake_due = True
        elif isinstance(step, Violation):
            self.violations += 1
        elif isinstance(step, Close):
            self.closed = True
            self._give_up()

    def _give_up(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.abort()

    def _now(self, decision: Any) -> Any:
        assert not isinstance(decision, Deferred), "a pure session is played with decisions at once"
        return decision
