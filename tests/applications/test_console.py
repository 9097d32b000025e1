"""An application written for ``twisted.mail.smtp`` runs on our factory by a changed import.

Each dialogue runs against both factories, and has to be the same with both.
"""

from io import BytesIO
from typing import Any

from twisted.cred.checkers import AllowAnonymousAccess
from twisted.cred.portal import Portal
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.tcp import Connection
from twisted.mail import smtp
from twisted.mail.smtp import SMTPSenderFactory
from twisted.trial.unittest import TestCase

from tests.applications.console import SimpleRealm, consoleFactory
from tests.waiting import until
from twisted_mta import ESMTPFactory


class TheirsFactory(smtp.SMTPFactory):
    """The factory of an application that uses ``twisted.mail``."""

    protocol = smtp.ESMTP


class RunningTestCase(TestCase):
    timeout = 20  # seconds

    def setUp(self) -> None:
        from twisted.internet import reactor  # noqa: TID251

        self.reactor: Any = reactor

    async def listen(self, factory: Any) -> int:
        endpoint = TCP4ServerEndpoint(self.reactor, 0, interface="127.0.0.1")
        port = await endpoint.listen(factory)
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    def disconnected(self) -> Deferred[None]:
        """Fire when both ends of all connections are closed."""

        def gone() -> bool:
            return not any(isinstance(each, Connection) for each in self.reactor.getReaders())

        return Deferred.fromCoroutine(until(gone))

    async def send(self, factory: Any, sender: str, recipients: list[str], message: bytes) -> Any:
        """Send with Twisted's own client, which takes LF; return its result."""
        sent: Deferred[Any] = Deferred()
        self.addCleanup(self.disconnected)
        client = SMTPSenderFactory(
            sender, recipients, BytesIO(message), sent, retries=0, timeout=20
        )
        client.noisy = False
        port = await self.listen(factory)
        await TCP4ClientEndpoint(self.reactor, "127.0.0.1", port).connect(client)
        return await sent


class DocumentedApplication(RunningTestCase):
    async def test_a_message_arrives_by_lines_after_its_received_header(self) -> None:
        for factory in (TheirsFactory, ESMTPFactory):
            console: list[bytes] = []
            sent = await self.send(
                consoleFactory(factory)(console),
                "ann@client.example",
                ["console@mx.example"],
                b"Subject: hello\n\n.\n..dots\nbye\n",
            )
            self.assertEqual(sent, (1, [(b"console@mx.example", 250, sent[1][0][2])]))
            (message,) = console
            lines = message.split(b"\n")
            self.assertEqual(lines[0], b"Received: ConsoleMessageDelivery")
            self.assertEqual(lines[1:], [b"Subject: hello", b"", b".", b"..dots", b"bye"])

    async def test_a_message_without_header_fields_begins_with_an_empty_line(self) -> None:
        for factory in (TheirsFactory, ESMTPFactory):
            console: list[bytes] = []
            await self.send(
                consoleFactory(factory)(console), "a@b.example", ["console@c.example"], b"just text"
            )
            self.assertEqual(
                console[0].split(b"\n"), [b"Received: ConsoleMessageDelivery", b"", b"just text"]
            )

    async def test_a_recipient_that_the_application_refuses_is_refused(self) -> None:
        for factory in (TheirsFactory, ESMTPFactory):
            console: list[bytes] = []
            with self.assertRaises(smtp.SMTPDeliveryError) as caught:
                await self.send(
                    consoleFactory(factory)(console), "a@b.example", ["other@c.example"], b"x"
                )
            self.assertEqual(caught.exception.code, 550)
            self.assertEqual(console, [])

    async def test_an_anonymous_sender_is_logged_in_and_out_of_the_portal(self) -> None:
        for factory in (TheirsFactory, ESMTPFactory):
            console: list[bytes] = []
            realm = SimpleRealm(console)
            portal = Portal(realm, [AllowAnonymousAccess()])
            await self.send(factory(portal), "a@b.example", ["console@c.example"], b"S: x\n\n")
            self.assertEqual(len(console), 1)
            await self.disconnected()
            self.assertEqual(realm.loggedOut, 1)

    async def test_a_portal_without_anonymous_access_refuses_the_sender(self) -> None:
        for factory in (TheirsFactory, ESMTPFactory):
            portal = Portal(SimpleRealm([]), [])
            with self.assertRaises(smtp.SMTPDeliveryError) as caught:
                await self.send(factory(portal), "a@b.example", ["console@c.example"], b"x")
            self.assertEqual(caught.exception.code, 550)


class WithTLS(RunningTestCase):
    async def test_starttls_uses_a_context_factory_of_twisted(self) -> None:
        console: list[bytes] = []
        self.addCleanup(self.disconnected)
        key = ssl.KeyPair.generate(size=2048)
        own = key.selfSignedCert(1, CN="localhost")
        factory = consoleFactory(ESMTPFactory)(console, tls=own.options())
        port = await self.listen(factory)
        sent: Deferred[Any] = Deferred()
        client = smtp.ESMTPSenderFactory(
            None,
            None,
            "a@b.example",
            "console@c.example",
            BytesIO(b"Subject: by TLS\n\n"),
            sent,
            retries=0,
            timeout=20,
            contextFactory=ssl.CertificateOptions(),
            requireTransportSecurity=True,
            requireAuthentication=False,
        )
        client.noisy = False
        await TCP4ClientEndpoint(self.reactor, "127.0.0.1", port).connect(client)
        accepted, _ = await sent
        self.assertEqual(accepted, 1)
        self.assertIn(b"by TLS", console[0])
