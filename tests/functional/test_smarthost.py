"""A smarthost with AUTH: Postfix, with the accounts of Dovecot."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.body import MemoryBody
from twisted_mta.mail.envelope import Envelope, Recipient, RecipientNumber
from twisted_mta.mail.message import Message
from twisted_mta.mail.outcome import Outcome
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.mail.tls_facts import TLSFacts
from twisted_mta.smtp.client.session import ClientSession
from twisted_mta.smtp.client.step import Close, SendBody, StartTLS, Step, TransactionDone, Unusable
from twisted_mta.smtp.sasl.client import CLIENT_MECHANISMS, Credentials

from .dovecot import PASSWORD, Dovecot
from .machine import LOOPBACK, eventually, need, run
from .mail import ProgramTestCase, message, submit, trusting
from .mta import MTA
from .postfix import Postfix
from .sinks import Sink

_FACTS = TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)


class Shell:
    """Runs a client session over a blocking socket, for one message.

    Args:
        port: of the server.
        credentials: of our account.
        mechanism: the only one that the session is offered.

    Attributes:
        outcome: of the one recipient, None where the connection said nothing about it.
        unusable: what the connection said of itself instead.
    """

    def __init__(self, port: int, credentials: Credentials, mechanism: str) -> None:
        self.outcome: Outcome | None = None
        self.unusable: Unusable | None = None
        self._mechanism = mechanism.encode()
        self._session = ClientSession(
            helo="client.example",
            remote=f"postfix.example[{LOOPBACK}]:{port}",
            tls="encrypt",
            credentials=credentials,
            nonce=lambda: "fyko+d2lbbFgONRv9qkxdawL",
        )
        self._message: Message | None = Message(
            id=QueueId(1),
            envelope=Envelope(
                Mailbox.parse("ann@sender.example"),
                (Recipient(RecipientNumber(0), Mailbox.parse("bob@elsewhere.example")),),
            ),
            trace=b"",
            body=MemoryBody(message()),
            received_at=0.0,
            expires_at=1.0,
        )
        self._socket = socket.create_connection((LOOPBACK, port), 60.0)

    def run(self) -> None:
        """Return when the connection has ended."""
        try:
            while not self._session.closed:
                octets = self._socket.recv(65536)
                if not octets:
                    self._take(self._session.connection_lost("closed"))
                    break
                offer = rb"AUTH " + self._mechanism
                self._take(self._session.receive(re.sub(rb"AUTH [A-Z0-9 -]+", offer, octets)))
        finally:
            self._socket.close()

    def _take(self, steps: list[Step]) -> None:
        for step in steps:
            if isinstance(step, StartTLS):
                self._socket = trusting().wrap_socket(self._socket)
                self._take(self._session.handshake_completed(_FACTS))
            elif isinstance(step, SendBody):
                for piece in self._session.body():
                    self._socket.sendall(piece)
            elif isinstance(step, TransactionDone):
                [self.outcome] = step.outcomes
            elif isinstance(step, Unusable):
                self.unusable = step
            elif isinstance(step, Close):
                return
        if self._session.idle:
            following, self._message = self._message, None
            self._take(
                self._session.quit() if following is None else self._session.transact(following)
            )
            return
        octets = self._session.output()
        if octets:
            self._socket.sendall(octets)


def certificate_pair(home: Path) -> Path:
    """Make a certificate for a smarthost on this machine, in ``certificate.pem``.

    Returns:
        A PEM file with it and its key.
    """
    pair, certificate = home / "pair.pem", home / "certificate.pem"
    made = run(
        "openssl",
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
        *("-addext", "subjectAltName=DNS:localhost", "-keyout", pair, "-out", certificate),
    )
    assert made.returncode == 0, made.stdout
    with pair.open("a", encoding="ascii") as file:
        file.write(certificate.read_text("ascii"))
    return pair


class Smarthost(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        need("postfix", "dovecot", "/usr/lib/dovecot/lmtp", "openssl")
        pair = certificate_pair(self.home)
        self.sink = self.enterContext(Sink(self.home))
        dovecot = self.enterContext(
            Dovecot(self.home, mechanisms="plain login cram-md5 scram-sha-1 scram-sha-256")
        )
        self.postfix = self.enterContext(
            Postfix(
                self.home,
                {
                    "relayhost": f"[{LOOPBACK}]:{self.sink.port}",
                    "smtpd_tls_security_level": "may",
                    "smtpd_tls_chain_files": str(pair),
                    "smtpd_tls_auth_only": "yes",
                    "smtpd_sasl_auth_enable": "yes",
                    "smtpd_sasl_type": "dovecot",
                    "smtpd_sasl_path": str(dovecot.auth),
                    "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
                },
            )
        )

    def talk(self, password: str, mechanism: str) -> Shell:
        shell = Shell(self.postfix.port, Credentials("ann", password), mechanism)
        shell.run()
        return shell

    def test_every_mechanism_authenticates(self) -> None:
        for mechanism in CLIENT_MECHANISMS:
            shell = self.talk(PASSWORD, mechanism)
            assert shell.outcome is not None, (mechanism, shell.unusable)
            self.assertEqual(shell.outcome.reply.code, 250)
            eventually(
                lambda mechanism=mechanism: (
                    f"sasl_method={mechanism}, sasl_username=ann" in self.postfix.output()
                ),
                f"mail by {mechanism}",
            )
        self.sink.wait_for_messages(len(CLIENT_MECHANISMS))

    def test_a_wrong_password_defers_the_message(self) -> None:
        shell = self.talk("wrong", "SCRAM-SHA-256")
        assert shell.unusable is not None
        self.assertTrue(shell.unusable.credentials_refused, shell.unusable)
        self.assertTrue(shell.unusable.temporary)
        self.assertTrue(str(shell.unusable.reply).startswith("535 5.7.8 "), shell.unusable)

    def mta(self, password: str) -> MTA:
        secret = self.home / "password"
        secret.write_text(f"{password}\n", encoding="utf-8")
        secret.chmod(0o600)
        return self.enterContext(
            MTA(
                self.home,
                toml=(
                    f'[mta]\nlocal_domains = ["localhost"]\n'
                    f'routes = {{"*" = "smtp://{LOOPBACK}:{self.postfix.port}"}}\n'
                    f'[[destination]]\ndomain = "{LOOPBACK}"\n'
                    f'username = "ann"\npassword_file = "{secret}"\n'
                ),
            )
        )

    def test_mail_is_relayed_with_our_account(self) -> None:
        mta = self.mta(PASSWORD)
        submit(mta.smtp, message(), "bob@elsewhere.example")
        (mail,) = self.sink.wait_for_messages()
        self.assertTrue(mail.endswith(message()), mail[:2000])
        self.assertIn("sasl_method=SCRAM-SHA-256, sasl_username=ann", self.postfix.output())
        self.assertNotIn(PASSWORD, mta.output())

    def test_mail_waits_while_the_password_is_wrong(self) -> None:
        mta = self.mta("wrong")
        submit(mta.smtp, message(), "bob@elsewhere.example", sender="sender@localhost")
        eventually(
            lambda: re.search(r' deferred: .*reply="535 5\.7\.8 ', mta.output()),
            "a delivery that is deferred",
        )
        self.assertEqual(mta.mail("localhost", "sender"), [])
