"""Connections: limits, early talkers, UNIX and IPv6 sockets, and drains."""

import socket
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint, connectProtocol
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import TestCase

from tests.server.certificate import server_context
from tests.server.dialogue import DialogueTestCase
from twisted_mta.mail.address import Mailbox
from twisted_mta.server.addresses import plain_address
from twisted_mta.server.factory import ListenerFactory
from twisted_mta.server.timeouts import Timeouts
from twisted_mta.testing.client import SMTPClientEnd
from twisted_mta.testing.delivery import RecordingDelivery
from twisted_mta.testing.server_options import ServerOptions


def implicit(factory: ListenerFactory) -> Any:
    return TLSMemoryBIOFactory(server_context(), False, factory, factory.clock)


class ConnectionLimits(DialogueTestCase):
    def test_connections_of_one_peer_are_limited(self) -> None:
        self.serve(max_connections_per_peer=2)
        clients = [self.connect() for _ in range(3)]
        self.assertEqual([self.hear(each) for each in clients], [["220 "], ["220 "], ["421 4.7.0"]])
        self.assertTrue(clients[2].over)
        self.assertEqual(self.hear(self.connect(host="192.0.2.8")), ["220 "])
        clients[0].abort()
        self.network.advance(0)
        self.assertEqual(self.hear(self.connect()), ["220 "])

    def test_connections_of_a_listener_are_limited(self) -> None:
        self.serve(max_connections=2)
        clients = [self.connect(host=f"192.0.2.{number}") for number in range(3)]
        self.assertEqual([self.hear(each) for each in clients], [["220 "], ["220 "], ["421 4.7.0"]])

    def test_connections_of_one_local_user_are_limited(self) -> None:
        users = iter([1000, 1000, 1001])
        self.serve(max_connections_per_peer=1).user_of = lambda transport: next(users)
        replies = [self.hear(self.connect(host=f"192.0.2.{number}")) for number in range(3)]
        self.assertEqual(replies, [["220 "], ["421 4.7.0"], ["220 "]])

    def test_a_client_whose_user_must_be_known_and_is_not_gets_no_session(self) -> None:
        def unknown(transport: Any) -> int:
            raise OSError("no such option")

        self.serve().user_of = unknown
        self.assertEqual(self.hear(self.connect()), ["421 4.3.0"])
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_connections_under_implicit_tls_are_limited(self) -> None:
        self.serve(max_connections=1)
        replies = []
        for _ in range(2):
            client = self.connect(wrap=implicit)
            self.start_tls(client)
            replies.append(self.hear(client))
        self.assertEqual(replies, [["220 "], ["421 4.7.0"]])

    def test_a_mapped_address_is_the_ipv4_address(self) -> None:
        # RFC 4291 §2.5.5.2: as a socket for both families reports an IPv4 peer.
        for host, plain in (
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("::1", "::1"),
            ("fe80::1%eth0", "fe80::1%eth0"),
        ):
            self.assertEqual(plain_address(IPv6Address("TCP", host, 1)), plain)
        self.assertEqual(plain_address(IPv4Address("TCP", "192.0.2.7", 1)), "192.0.2.7")
        self.assertIsNone(plain_address(UNIXAddress("/x")))
        self.serve(max_connections_per_peer=1)
        self.connect()
        self.assertEqual(self.hear(self.connect(host="::ffff:192.0.2.7")), ["421 4.7.0"])


class Draining(DialogueTestCase):
    def test_idle_sessions_end_at_once_and_others_after_their_transaction(self) -> None:
        idle, busy = self.connect(), self.connect()
        self.begin_content(busy)
        drained, again = self.factory.drain(), self.factory.drain()
        self.network.advance(0)
        self.assertEqual(self.hear(idle), ["220 ", "421 4.3.2"])
        self.assertEqual(self.hear(self.connect()), ["421 4.3.2"])
        self.say(busy, b"x\r\n.\r\nMAIL FROM:<a@b>\r\n")
        self.assertEqual(self.hear(busy), ["250 2.0.0", "421 4.3.2"])
        self.successResultOf(drained)
        self.successResultOf(again)

    def test_a_transaction_that_is_reset_ends_the_session(self) -> None:
        for command, reply in ((b"RSET\r\n", "250 2.0.0"), (b"EHLO x\r\n", "250 ")):
            self.serve()
            client = self.connect()
            self.say(client, b"HELO x\r\nMAIL FROM:<a@b>\r\n")
            drained = self.factory.drain()
            self.hear(client)
            self.say(client, command)
            self.assertEqual(self.hear(client)[-2:], [reply, "421 4.3.2"])
            self.successResultOf(drained)

    def test_a_refused_message_ends_the_session(self) -> None:
        client = self.connect()
        self.begin_content(client)
        drained = self.factory.drain()
        self.say(client, b"bare\n\r\n.\r\n")
        self.assertEqual(self.hear(client), ["550 5.6.0", "421 4.3.2"])
        self.successResultOf(drained)

    def test_a_handshake_is_completed_and_then_the_session_ends(self) -> None:
        client = self.connect()
        self.say(client, b"STARTTLS\r\n")
        drained = self.factory.drain()
        self.start_tls(client)
        self.assertEqual(self.hear(client), ["220 ", "220 2.0.0", "421 4.3.2"])
        self.network.advance(0)
        self.successResultOf(drained)

    def test_a_pending_decision_is_awaited(self) -> None:
        client = self.connect()
        self.hold_decisions()
        self.say(client, b"HELO x\r\nMAIL FROM:<a@b>\r\n")
        drained = self.factory.drain()
        self.network.advance(0)
        self.assertEqual(self.hear(client), ["220 ", "250 ", "421 4.3.2"])
        self.decide()
        self.successResultOf(drained)

    def test_abandoned_connections_are_all_aborted(self) -> None:
        client = self.connect()
        self.begin_content(client)
        drained = self.factory.drain()
        self.factory.abandon()
        self.network.advance(0)
        self.assertTrue(client.over)
        self.successResultOf(drained)
        self.assertEqual(self.delivery.open_sinks, 0)


class EarlyTalkers(DialogueTestCase):
    """RFC 5321 §4.3.1: the client waits for the greeting."""

    def greeted(self, early: bytes) -> bytes:
        theirs, ours = socket.socketpair()
        self.addCleanup(theirs.close)
        self.addCleanup(ours.close)
        theirs.send(early)
        transport = StringTransport()
        transport.getHandle = lambda: ours  # type: ignore[attr-defined]
        transport.abortConnection = transport.loseConnection  # type: ignore[method-assign]
        protocol = self.factory.buildProtocol(None)
        protocol.makeConnection(transport)
        self.addCleanup(protocol.connectionLost)
        self.assertEqual(ours.recv(9, socket.MSG_DONTWAIT) if early else b"", early)
        return transport.value()[:9]

    def tearDown(self) -> None:
        pass

    def test_octets_before_the_greeting_are_answered_with_554(self) -> None:
        self.assertEqual(self.greeted(b"EHLO x\r\n"), b"554 5.5.0")
        self.assertEqual(self.factory.violations, 1)

    def test_a_client_that_waits_is_greeted(self) -> None:
        self.assertEqual(self.greeted(b""), b"220 mx.ex")
        self.assertEqual(self.factory.violations, 0)


class OtherSockets(TestCase):
    async def talk(
        self, reactor: Any, delivery: RecordingDelivery, client: SMTPClientEnd, commands: bytes
    ) -> list[bytes]:
        await client.send(commands)
        lines = []
        while (line := await client.line()) is not None:
            lines.append(line[:4])
        return lines

    def factory(self, reactor: Any, delivery: RecordingDelivery) -> ListenerFactory:
        return ListenerFactory(
            delivery,
            clock=reactor,
            settings=ServerOptions().settings(),
            tls=server_context(),
            timeouts=Timeouts(),
        )

    async def test_a_message_arrives_through_a_unix_socket(self) -> None:
        from twisted.internet import reactor  # noqa: TID251

        delivery = RecordingDelivery()
        path = self.mktemp()[-60:].replace("/", "-")
        port = reactor.listenUNIX(path, self.factory(reactor, delivery))  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        client = await connectProtocol(UNIXClientEndpoint(reactor, path), SMTPClientEnd())
        commands = b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nQUIT\r\n"
        lines = await self.talk(reactor, delivery, client, commands)
        self.assertEqual(lines, [b"220 ", b"250 ", b"250 ", b"250 ", b"221 "])

    async def test_ipv6_and_a_peer_that_closes_its_half(self) -> None:
        from twisted.internet import reactor  # noqa: TID251

        delivery = RecordingDelivery()
        try:
            port = reactor.listenTCP(0, self.factory(reactor, delivery), interface="::1")  # type: ignore[attr-defined]
        except Exception as error:
            self.skipTest(f"no IPv6 here: {error}")
        self.addCleanup(port.stopListening)
        from twisted.internet.endpoints import TCP6ClientEndpoint

        client = await connectProtocol(
            TCP6ClientEndpoint(reactor, "::1", port.getHost().port), SMTPClientEnd()
        )
        self.assertEqual((await client.line() or b"")[:4], b"220 ")
        await client.send(b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n")
        for _ in range(4):
            await client.line()
        await client.send(b"half")
        client.transport.loseWriteConnection()
        self.assertIsNone(await client.line())
        self.assertEqual(delivery.calls, ["mail", "rcpt", "open", "abort"])
        self.assertEqual(delivery.messages, [])
        self.assertEqual(Mailbox("a", "b"), Mailbox.parse("a@b"))


class HalfClosed(TestCase):
    timeout = 20

    async def test_more_replies_than_are_buffered_do_not_keep_the_connection_open(self) -> None:
        from twisted.internet import reactor  # noqa: TID251

        decision: Deferred[None] = Deferred()
        half_closed: Deferred[None] = Deferred()
        delivery = RecordingDelivery()
        delivery.mail = lambda *args: decision  # type: ignore[method-assign,assignment,return-value]
        factory = ListenerFactory(
            delivery,
            clock=reactor,  # type: ignore[arg-type]
            settings=ServerOptions().settings(),
            timeouts=Timeouts(),
        )
        built: list[Any] = []
        build = factory.buildProtocol

        def build_protocol(address: Any) -> Any:
            protocol = build(address)
            ended = protocol.readConnectionLost

            def lost() -> None:
                ended()
                half_closed.callback(None)

            protocol.readConnectionLost = lost  # type: ignore[method-assign]
            built.append(protocol)
            return protocol

        self.patch(factory, "buildProtocol", build_protocol)
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        client = await connectProtocol(endpoint, SMTPClientEnd())
        await client.line()
        await client.send(b"HELO x\r\nMAIL FROM:<>\r\n" + b"NOOP\r\n" * 20)
        client.transport.loseWriteConnection()
        await half_closed
        built[0].transport.bufferSize = 100  # less than the replies to come
        decision.callback(None)
        lines = []
        while (line := await client.line()) is not None:
            lines.append(line[:4])
        self.assertEqual(lines, [b"250 "] * 22)
