"""A test case that talks to a server session, from a proxy."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.mail.tls_facts import TLSFacts
from twisted_mta.smtp.extension import Extension
from twisted_mta.smtp.extension.plain import PIPELINING
from twisted_mta.smtp.peer import Peer
from twisted_mta.smtp.server.session import Session
from twisted_mta.smtp.server.settings import SessionSettings
from twisted_mta.smtp.server.step import Step

PROXY = Peer("192.0.2.1", 50_000)


FACTS = TLSFacts(
    "TLSv1.3",
    "TLS_AES_256_GCM_SHA384",
    256,
    server_name="mx.example",
    peer_subject="CN=proxy",
    peer_issuer="CN=ours",
    peer_fingerprint="ab" * 32,
    peer_verified=True,
    peer_problem="none",
)


class SessionTestCase(SynchronousTestCase):
    """Talks to a session; every decision accepts."""

    def begin(
        self,
        *extensions: Extension,
        peer: Peer = PROXY,
        requires_tls_of: Callable[[Peer], bool] = lambda peer: False,
    ) -> Session:
        self.session = Session(
            SessionSettings(
                hostname="mx.example",
                extensions=(PIPELINING, *extensions),
                requires_tls_of=requires_tls_of,
            ),
            peer=peer,
            local_address="192.0.2.25",
            tls_ready=lambda: True,
        )
        self.session.greet()
        self.session.output()
        self.steps: list[Step] = []
        return self.session

    def say(self, octets: bytes) -> str:
        self.session.receive(octets)
        while (step := self.session.step()) is not None:
            self.steps.append(step)
            if self.session.deciding:
                self.session.answer()
        return self.session.output().decode()

    def code(self, line: str) -> str:
        """Send a line; return the code of the reply, with the status if there is one."""
        reply = self.say(line.encode() + b"\r\n")
        return reply[:9] if reply[4:6] in ("2.", "4.", "5.") else reply[:3]
