"""Twisted's own clients send to an agent in memory, on the clock of a test."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.mail.smtp import (
    ESMTPSenderFactory,
    SMTPConnectError,
    SMTPSenderFactory,
    sendmail,
)
from zope.interface import implementer

from tests.tidy import TidyTestCase
from twisted_mta import Listener
from twisted_mta.testing.memory_mta import SMTP, MemoryMTA
from twisted_mta.testing.reactor import MemoryReactor
from twisted_mta.testing.tls import ClientContext

ENDPOINT = f"tcp:{SMTP[1]}:interface={SMTP[0]}"
# No line begins with a dot: Twisted's client loses one where a piece of its file begins with it.
LARGE = b"Subject: large\n\n" + b"".join(b"%060d\n" % number for number in range(5000))


class TwistedClients(TidyTestCase):
    def agent(self, **listener: Any) -> MemoryMTA:
        return self.enterContext(MemoryMTA(listeners=(Listener(endpoint=ENDPOINT, **listener),)))

    def connect(self, mta: MemoryMTA, factory: Any) -> None:
        mta.reactor.connectTCP(*SMTP, factory)
        mta.reactor.settle()

    def assertArrived(self, mta: MemoryMTA, content: bytes) -> None:
        (mail,) = mta.mail("bob")
        self.assertTrue(mail.endswith(content), mail[-100:])

    def test_sendmail_sends_in_clear(self) -> None:
        mta = self.agent(tls="none")
        sent = sendmail(
            SMTP[0], "ann@x.example", "bob@localhost", LARGE, port=SMTP[1], reactor=mta.reactor
        )
        mta.reactor.settle()
        count, replies = self.successResultOf(sent)
        self.assertEqual((count, [reply[:2] for reply in replies]), (1, [(b"bob@localhost", 250)]))
        self.assertArrived(mta, LARGE)

    def test_the_factories_send_in_clear_and_under_tls(self) -> None:
        mta = self.agent()
        results: list[Deferred[Any]] = [Deferred(), Deferred()]
        file = BytesIO(LARGE)
        self.connect(mta, SMTPSenderFactory("a@x.example", "bob@localhost", file, results[0]))
        self.assertArrived(mta, LARGE)
        esmtp = ESMTPSenderFactory(
            *(None, None, "a@x.example", "eve@localhost", BytesIO(LARGE), results[1]),
            contextFactory=ClientContext("1.3"),
            requireAuthentication=False,
        )
        self.connect(mta, esmtp)
        for result in results:
            self.assertEqual(self.successResultOf(result)[0], 1)
        (mail,) = mta.mail("eve")
        self.assertTrue(mail.endswith(LARGE))
        self.assertIn(b" with ESMTPS ", b" ".join(mail.split(b"\n\n")[0].split()))

    def test_a_lost_connection_is_tried_again_and_then_an_error(self) -> None:
        reactor = MemoryReactor()
        sent: Deferred[Any] = Deferred()
        factory = SMTPSenderFactory("a@x.example", "b@x.example", BytesIO(b""), sent, retries=2)
        reactor.connectTCP(*SMTP, factory)
        reactor.settle()
        self.failureResultOf(sent, SMTPConnectError)
        self.assertEqual(len(reactor.sources), 3)

    def test_cancelling_closes_the_connection(self) -> None:
        mta = self.agent(tls="none")
        sent = sendmail(
            SMTP[0], "ann@x.example", "bob@localhost", LARGE, port=SMTP[1], reactor=mta.reactor
        )
        for _ in range(5):
            mta.reactor.step()
        sent.cancel()
        mta.reactor.settle()
        self.failureResultOf(sent, CancelledError)
        self.assertEqual(mta.mail("bob"), [])


class Reading(Protocol):
    """Keeps what it reads; stops and goes on as a test says."""

    def __init__(self) -> None:
        self.received = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = True


@implementer(IPullProducer)
class Pulled:
    """Writes a piece each time that it is asked."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.asked = 0
        self.stopped = False

    def resumeProducing(self) -> None:
        self.asked += 1
        self.transport.write(b"x" * 10_000)
        if self.asked == 50:
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def stopProducing(self) -> None:
        self.stopped = True


class PullProducers(TidyTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactor()
        self.server, self.client = Reading(), Protocol()
        self.reactor.join(self.client, self.server, "192.0.2.1", 25)
        transport: Any = self.client.transport
        self.producer = Pulled(transport)
        transport.registerProducer(self.producer, False)

    def test_a_pull_producer_is_asked_as_fast_as_the_other_end_reads(self) -> None:
        server: Any = self.server.transport
        server.pauseProducing()
        self.reactor.settle()
        asked = self.producer.asked
        self.assertTrue(0 < asked < 10, asked)
        server.resumeProducing()
        self.reactor.settle()
        self.assertEqual(len(self.server.received), 500_000)
        self.assertTrue(self.server.lost)
        self.assertFalse(self.producer.stopped)

    def test_a_pull_producer_is_told_of_the_end_of_the_connection(self) -> None:
        transport: Any = self.client.transport
        self.reactor.step()
        transport.abortConnection()
        self.reactor.settle()
        self.assertTrue(self.producer.stopped)


class Factories(TidyTestCase):
    def test_a_client_factory_hears_of_the_end_of_its_connection(self) -> None:
        class Client(Factory):
            noisy = False
            steps: list[str] = []  # noqa: RUF012

            def startedConnecting(self, connector: Any) -> None:
                self.steps.append("connecting")

            def clientConnectionLost(self, connector: Any, reason: Any) -> None:
                self.steps.append(type(reason.value).__name__)

            def stopFactory(self) -> None:
                self.steps.append("stopped")

        reactor, server = MemoryReactor(), Reading()
        reactor.listen("192.0.2.1", 25, server)
        reactor.connectTCP("192.0.2.1", 25, Client.forProtocol(Protocol))
        reactor.settle()
        transport: Any = server.transport
        transport.loseConnection()
        reactor.settle()
        self.assertEqual(Client.steps, ["connecting", "ConnectionDone", "stopped"])
