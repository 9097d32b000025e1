"""Abandoned connections: 421 in each state of a session, and the end within two seconds."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from tests.logs import logged_lines
from tests.server.certificate import server_context
from tests.server.dialogue import DialogueTestCase
from tests.server.loopback import Client, ClientTLS, LoopbackTestCase
from tests.server.test_admission import DistantLimits
from twisted_mta.server.factory import ImplicitTLSFactory, ListenerFactory
from twisted_mta.server.protocol import ESMTPProtocol
from twisted_mta.server.timeouts import Timeouts
from twisted_mta.testing.client import SMTPClientEnd
from twisted_mta.testing.delivery import RecordingDelivery
from twisted_mta.testing.server_options import ServerOptions

RCPT = b"HELO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n"
GONE = "421 4.3.2"


class AbandonedSessions(DialogueTestCase):
    def abandon(self, *, at_once: bool = False) -> None:
        self.factory.abandon(at_once)
        self.network.advance(0)

    def assertOver(self, client: SMTPClientEnd) -> None:
        self.assertTrue(client.over)
        self.assertEqual(self.factory.connections_open, 0)
        self.assertEqual(self.delivery.open_sinks, 0)

    def test_each_state_between_commands_gets_421(self) -> None:
        for octets, replies in (
            (b"", []),
            (b"NO", []),
            (RCPT, ["250 ", "250 2.1.0", "250 2.1.5"]),
            (RCPT + b"DATA\r\n", ["250 ", "250 2.1.0", "250 2.1.5", "354 "]),
            (RCPT + b"BDAT 9\r\nhalf", ["250 ", "250 2.1.0", "250 2.1.5"]),
            (RCPT + b"BDAT 2\r\nxx", ["250 ", "250 2.1.0", "250 2.1.5", "250 2.0.0"]),
            (RCPT + b"BDAT x\r\n", ["250 ", "250 2.1.0", "250 2.1.5", "501 5.5.4"]),
        ):
            self.serve(chunking=True)
            client = self.connect()
            self.say(client, octets)
            closed = b"BDAT x" in octets
            self.abandon()
            self.assertEqual(self.hear(client), ["220 ", *replies] + [GONE] * (not closed))
            self.assertOver(client)

    def test_incomplete_content_is_dropped_and_gets_421(self) -> None:
        client = self.connect()
        self.begin_content(client)
        self.say(client, b"half a mess")
        self.abandon()
        self.assertEqual(self.hear(client), [GONE])
        self.assertOver(client)
        self.assertEqual(self.delivery.messages, [])
        self.assertEqual(self.delivery.calls[-1], "abort")

    def test_421_is_sent_under_tls(self) -> None:
        client = self.connect()
        self.say(client, b"STARTTLS\r\n")
        self.hear(client)
        self.start_tls(client)
        self.begin_content(client)
        self.abandon()
        self.assertEqual(self.hear(client), [GONE])
        self.assertOver(client)

    def test_a_command_that_is_being_decided_on_gets_421_alone(self) -> None:
        for held, octets in ((0, RCPT), (1, RCPT), (2, RCPT + b"DATA\r\n")):
            self.serve()
            self.delivery.when = None
            client = self.connect()
            self.hold_decisions()
            self.say(client, octets)
            for _ in range(held):
                self.decide()
                self.say(client, b"")
            self.hear(client)
            self.abandon()
            self.assertEqual(self.hear(client), [GONE])
            self.decide()  # too late: no reply follows
            self.assertOver(client)

    def finishing(self) -> SMTPClientEnd:
        client = self.connect()
        self.begin_content(client)
        self.hold_decisions()
        self.say(client, b"x\r\n.\r\n")
        return client

    def test_a_complete_message_has_its_own_reply_before_421(self) -> None:
        client = self.finishing()
        self.say(client, b"MAIL FROM:<a@b>\r\n")  # not executed
        self.abandon()
        self.network.advance(0.9)
        self.assertEqual(self.hear(client), [])
        self.decide()
        self.assertEqual(self.hear(client), ["250 2.0.0", GONE])
        self.assertOver(client)

    def test_a_message_that_is_not_decided_on_within_a_second_gets_no_reply(self) -> None:
        lines = logged_lines(self)
        client = self.finishing()
        self.abandon()
        self.network.advance(1)
        self.network.advance(0)
        self.assertEqual(self.hear(client), [])
        self.assertOver(client)
        self.assertIn(
            "192.0.2.7 was not told the outcome of its message, and may send it again", lines
        )
        self.decide()

    def test_a_delayed_reply_is_sent_before_421(self) -> None:
        client = self.connect()
        self.say(client, b"X\r\n" * 6)
        self.assertEqual(len(self.hear(client)), 1)
        self.abandon()
        self.assertEqual(self.hear(client), ["500 5.5.2"] * 6 + [GONE])
        self.assertOver(client)

    def test_a_handshake_is_broken_off_without_a_reply(self) -> None:
        begun = self.connect()
        self.say(begun, b"STARTTLS\r\n")
        self.hear(begun)
        implicit = TLSMemoryBIOFactory(server_context(), False, self.factory, self.network)
        silent = self.connect(wrap=lambda _: implicit)
        self.abandon()
        for client in (begun, silent):
            self.assertEqual(bytes(client.unread), b"")
            self.assertOver(client)

    def test_a_client_that_does_not_read_is_disconnected(self) -> None:
        client = self.connect()
        self.hear(client)
        client.transport.pauseProducing()
        self.say(client, b"NOOP\r\n" * 20_000)
        self.abandon()
        self.network.advance(0.9)
        self.assertFalse(client.over)
        self.network.advance(0.1)
        self.network.advance(0)
        self.assertOver(client)

    def test_a_client_that_was_told_to_go_before_is_disconnected_as_soon(self) -> None:
        client = self.connect()
        client.transport.pauseProducing()
        self.say(client, b"QUIT\r\n")
        self.abandon()
        self.network.advance(1)
        self.network.advance(0)
        self.assertOver(client)

    def test_abandoning_at_once_aborts_connections_without_a_reply(self) -> None:
        clients = [self.connect(), self.finishing()]
        for client in clients:
            client.unread.clear()
        self.abandon(at_once=True)
        for client in clients:
            self.assertEqual(self.hear(client), [])
            self.assertOver(client)
        self.decide()

    def test_a_second_call_aborts_without_a_reply(self) -> None:
        client = self.finishing()
        self.abandon()
        self.assertFalse(client.over)
        self.abandon()
        self.assertOver(client)
        self.decide()

    def test_new_connections_are_refused_afterwards(self) -> None:
        self.abandon()
        self.assertEqual(self.hear(self.connect()), [GONE])


@implementer(ITCPTransport)
class HalfCloseable(StringTransport):  # type: ignore[misc]
    """A TCP transport that records how it is closed.

    Attributes:
        half_closed: whether its writing side is closed.
    """

    half_closed = False

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass

    def loseWriteConnection(self) -> None:
        self.half_closed = True


class OneConnection(DialogueTestCase):
    """One abandoned protocol, as its transport sees it."""

    def setUp(self) -> None:
        super().setUp()
        self.transport = HalfCloseable()
        self.protocol: Any = self.factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)
        self.addCleanup(self.network.advance, 0)

    def tearDown(self) -> None:
        self.protocol.connectionLost()
        super().tearDown()

    def test_the_connection_is_half_closed_and_input_is_read_on(self) -> None:
        self.hold_decisions()
        self.protocol.dataReceived(b"HELO x\r\nMAIL FROM:<a@b>\r\n")
        self.protocol.dataReceived(b"RCPT TO:<c@d>\r\n")
        self.assertEqual(self.transport.producerState, "paused")
        self.protocol.pauseProducing()  # the client does not read
        self.protocol.abandon()
        self.assertTrue(self.transport.half_closed)
        self.protocol.dataReceived(b"DATA\r\n")
        self.assertEqual(self.transport.producerState, "producing")
        self.assertFalse(self.transport.disconnecting)
        self.protocol.readConnectionLost()
        self.assertTrue(self.transport.disconnecting)
        self.decide()

    def test_no_transaction_begins_after_the_message_that_was_decided_on(self) -> None:
        self.protocol.dataReceived(RCPT + b"DATA\r\n")
        self.hold_decisions()
        self.protocol.dataReceived(b"x\r\n.\r\n")
        self.transport.clear()
        self.protocol.abandon()
        self.decide()
        lines = self.transport.value().split(b"\r\n")
        self.assertEqual([line[:9] for line in lines], [b"250 2.0.0", GONE.encode(), b""])

    def test_a_session_that_is_not_greeted_yet_is_not_greeted_any_more(self) -> None:
        limits = DistantLimits()
        self.serve(limits=limits)
        transport, protocol = HalfCloseable(), self.factory.buildProtocol(None)
        assert isinstance(protocol, ESMTPProtocol)
        protocol.makeConnection(transport)
        protocol.abandon()
        limits.answer(True)
        self.assertEqual(transport.value()[:9], GONE.encode())
        self.assertEqual(transport.value().count(b"\r\n"), 1)
        protocol.connectionLost()
        self.assertEqual(limits.counted, [])


class Writer:
    """Writes without reading, as a client that sends a message in one piece (`IPullProducer`).

    Attributes:
        ended: fires when all pieces are written, or the connection is lost.
    """

    def __init__(self, client: Client, pieces: int | None) -> None:
        self.ended: Deferred[None] = Deferred()
        self._client = client
        self._left = pieces
        client.transport.pauseProducing()
        client.transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        if self._left == 0:
            self._client.transport.unregisterProducer()
            self.ended.callback(None)
            return
        if self._left is not None:
            self._left -= 1
        self._client.transport.write((b"x" * 70 + b"\r\n") * 1000)

    def stopProducing(self) -> None:
        if self._left != 0:
            self.ended.callback(None)
        self._left = 0


class OverSockets(LoopbackTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.delivery = RecordingDelivery()
        self.factory = ListenerFactory(
            self.delivery,
            clock=self.reactor,
            settings=ServerOptions().settings(),
            tls=server_context(),
            timeouts=Timeouts(),
        )

    def listen(self, factory: Any) -> int:
        port = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    async def sending(self, port: int, tls: ClientTLS | None = None) -> Client:
        """Return a client that has its reply 354."""
        client = await self.dial(port, tls)
        await client.reply()
        replies = await client.say("EHLO x", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA")
        self.assertEqual(replies[-1][:3], "354")
        return client

    async def hears_it(self, client: Client) -> None:
        """A client that is busy writing more than a megabyte reads the reply afterwards."""
        writer = Writer(client, 100)
        self.factory.abandon()
        await writer.ended
        client.transport.resumeProducing()
        self.assertEqual((await client.reply())[:9], GONE)
        self.assertEqual(await client.reply(), "CLOSED")
        assert client.reason is not None
        self.assertIs(client.reason.type, ConnectionDone)  # under TLS, by its rules
        await self.factory.drain()
        self.assertEqual(self.delivery.messages, [])

    async def test_a_client_that_is_writing_hears_the_reply(self) -> None:
        await self.hears_it(await self.sending(self.listen(self.factory)))

    async def test_a_client_that_is_writing_hears_the_reply_under_implicit_tls(
        self,
    ) -> None:
        port = self.listen(ImplicitTLSFactory(self.factory))
        await self.hears_it(await self.sending(port, ClientTLS()))

    async def test_a_client_that_is_writing_hears_the_reply_under_starttls(self) -> None:
        client = await self.dial(self.listen(self.factory))
        await client.reply()
        await client.start_tls()
        await client.say("EHLO x", "MAIL FROM:<a@b>", "RCPT TO:<c@d>", "DATA")
        await self.hears_it(client)

    async def test_a_client_that_never_stops_writing_is_cut_off(self) -> None:
        self.factory.clock = clock = Clock()
        client = await self.sending(self.listen(self.factory))
        writer = Writer(client, None)
        self.factory.abandon()
        clock.advance(0.9)
        drained = self.factory.drain()
        self.assertFalse(drained.called)
        clock.advance(0.1)
        await drained
        await writer.ended
        client.transport.resumeProducing()
        await client.lost

    async def test_an_idle_one_hears_it_and_is_gone_without_waiting(self) -> None:
        client = await self.dial(self.listen(self.factory))
        await client.reply()
        drained = self.factory.drain()
        self.factory.abandon()
        self.assertEqual((await client.reply())[:9], GONE)
        await client.lost
        await drained
