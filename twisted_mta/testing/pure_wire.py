"""A session without a protocol: octets go in, decisions are made at once, replies come out."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from ..auth.authenticator import Login
from ..mail.reply import Reply
from ..mail.tls_facts import TLSFacts
from ..smtp.peer import Peer
from ..smtp.server.auth import Granted
from ..smtp.server.session import Session
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
from .delivery import RecordingDelivery
from .server_options import ServerOptions


class PureWire:
    """A session without a protocol (a `transcript.Wire`).

    Attributes:
        session: the session.
        output: the octets of replies that were not read yet.
        violations: the number of violations that the session noticed.
        closed: Whether the session has closed the connection.
    """

    def __init__(self, options: ServerOptions, delivery: RecordingDelivery) -> None:
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
        """Receive octets (`transcript.Wire`)."""
        self.receive(octets)

    def receive(self, octets: bytes) -> None:
        """Receive octets and take all steps that they lead to."""
        self.session.receive(octets)
        while (step := self.session.step()) is not None:
            self._do(step)
        self.output += self.session.output()

    async def line(self) -> bytes | None:
        """Return the next line of a reply."""
        line, end, rest = self.output.partition(b"\r\n")
        if end:
            self.output = rest
            return line
        return None if self.closed else b"(nothing)"

    async def start_tls(self) -> None:
        """Complete a TLS handshake."""
        assert self._handshake_due or self.session.tls, "STARTTLS was not answered with 220"
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
        assert not isinstance(decision, Deferred), "a pure session needs decisions at once"
        return decision
