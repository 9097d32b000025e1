"""Admission: limits are asked before the greeting, in another process if need be."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.protocols.tls import TLSMemoryBIOFactory

from tests.server.certificate import server_context
from tests.server.dialogue import DialogueTestCase
from twisted_mta.interfaces import LimitKey
from twisted_mta.server.factory import ListenerFactory
from twisted_mta.server.timeouts import Timeouts
from twisted_mta.smtp.peer import Peer
from twisted_mta.smtp.server.session import Session
from twisted_mta.smtp.server.settings import SessionSettings
from twisted_mta.system.limits import LocalLimits

CONNECTIONS = ("connections", "25")
PEER = ("peer", "25", "192.0.2.7")


class DistantLimits:
    """Limits that are answered by the test.

    Attributes:
        asked: each key with its limit, in order.
        counted: the keys that are counted in, in order.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[LimitKey, int]] = []
        self.counted: list[LimitKey] = []
        self._waiting: list[Deferred[bool]] = []

    def take(self, key: LimitKey, limit: int) -> Deferred[bool]:
        self.asked.append((key, limit))
        self._waiting.append(Deferred())
        return self._waiting[-1]

    def wait(self, key: LimitKey, limit: int) -> Deferred[bool]:
        raise NotImplementedError

    def give_back(self, key: LimitKey) -> None:
        self.counted.remove(key)

    def answer(self, taken: bool) -> None:
        """Answer the last question."""
        if taken:
            self.counted.append(self.asked[-1][0])
        self._waiting.pop().callback(taken)

    def fail(self) -> None:
        self._waiting.pop().errback(RuntimeError("no ledger"))


def implicit(factory: ListenerFactory) -> Any:
    return TLSMemoryBIOFactory(server_context(), False, factory, factory.clock)


class LateAnswers(DialogueTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.limits = DistantLimits()
        self.serve(limits=self.limits, name="25")

    def answer(self, taken: bool) -> None:
        self.limits.answer(taken)
        self.network.advance(0)

    def test_the_greeting_waits_for_the_answer(self) -> None:
        client = self.connect()
        self.assertEqual(self.limits.asked, [(CONNECTIONS, 1000)])
        self.answer(True)
        self.assertEqual(self.limits.asked[1:], [(PEER, 50)])
        self.assertEqual(self.hear(client), [])
        self.answer(True)
        self.assertEqual(self.hear(client), ["220 "])
        self.assertEqual(self.limits.counted, [CONNECTIONS, PEER])
        self.say(client, b"QUIT\r\n")
        self.assertEqual(self.hear(client), ["221 2.0.0"])
        self.assertEqual(self.limits.counted, [])

    def test_a_refused_connection_is_not_counted(self) -> None:
        for answers in ([False], [True, False]):
            client = self.connect()
            for each in answers:
                self.answer(each)
            self.assertEqual(self.hear(client), ["421 4.7.0"])
            self.assertTrue(client.over)
            self.assertEqual(self.limits.counted, [])

    def test_octets_before_the_answer_came_before_the_greeting(self) -> None:
        client = self.connect()
        self.say(client, b"EHLO x\r\n")
        self.answer(True)
        self.answer(True)
        self.assertEqual(self.hear(client), ["554 5.5.0"])
        self.assertEqual(self.factory.violations, 1)
        self.assertEqual(self.limits.counted, [])

    def test_implicit_tls_completes_its_handshake_before_the_answer(self) -> None:
        client = self.connect(wrap=implicit)
        self.start_tls(client)
        self.answer(True)
        self.assertEqual(self.hear(client), [])
        self.answer(True)
        self.assertEqual(self.hear(client), ["220 "])

    def test_implicit_tls_completes_its_handshake_after_the_answer(self) -> None:
        client = self.connect(wrap=implicit)
        self.answer(True)
        self.answer(True)
        self.start_tls(client)
        self.assertEqual(self.hear(client), ["220 "])

    def test_a_connection_that_is_lost_before_the_answer_is_not_counted(self) -> None:
        for before in (0, 1):
            client = self.connect()
            for _ in range(before):
                self.answer(True)
            client.abort()
            self.network.advance(0)
            self.assertEqual(self.factory.connections_open, 0)
            self.answer(True)
            self.assertEqual(self.limits.counted, [])
        self.assertEqual(len(self.limits.asked), 3)  # none after the loss

    def test_in_a_drain_no_limit_is_asked(self) -> None:
        self.factory.drain()
        self.assertEqual(self.hear(self.connect()), ["421 4.3.2"])
        self.assertEqual(self.limits.asked, [])

    def test_a_drain_before_the_answer_refuses_the_session(self) -> None:
        client = self.connect()
        self.answer(True)
        drained = self.factory.drain()
        self.network.advance(0)
        self.assertEqual(self.hear(client), ["421 4.3.2"])
        self.successResultOf(drained)
        self.answer(True)
        self.assertEqual(self.limits.counted, [])

    def test_a_drain_before_the_answer_refuses_the_session_under_implicit_tls(self) -> None:
        client = self.connect(wrap=implicit)
        drained = self.factory.drain()
        self.start_tls(client)
        self.assertEqual(self.hear(client), ["421 4.3.2"])
        self.answer(True)
        self.successResultOf(drained)
        self.assertEqual(self.limits.counted, [])

    def test_a_connection_that_is_abandoned_before_the_answer_gets_421(self) -> None:
        client = self.connect()
        self.factory.abandon()
        self.network.advance(0)
        self.assertEqual(self.hear(client), ["421 4.3.2"])
        self.assertTrue(client.over)
        self.answer(True)
        self.assertEqual(self.limits.counted, [])

    def test_a_failed_answer_refuses_the_session(self) -> None:
        client = self.connect()
        self.answer(True)
        self.limits.fail()
        self.network.advance(0)
        self.assertEqual(self.hear(client), ["421 4.3.0"])
        self.assertEqual(self.limits.counted, [])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_a_client_without_an_address_has_no_limit_per_peer(self) -> None:
        protocol: Any = self.factory.buildProtocol(None)
        protocol.session = Session(SessionSettings(hostname="mx.example"), peer=Peer())
        opened: Any = self.factory.opened(protocol)
        self.answer(True)
        self.assertIsNone(self.successResultOf(opened))
        self.assertEqual(self.limits.asked, [(CONNECTIONS, 1000)])
        self.factory.closed(protocol)
        self.assertEqual(self.limits.counted, [])


class SharedLimits(DialogueTestCase):
    def test_factories_of_one_name_share_a_limit(self) -> None:
        limits = LocalLimits()
        factories = [
            self.serve(limits=limits, name=name, max_connections_per_peer=1)
            for name in ("25", "25", "465")
        ]
        replies = []
        for self.factory in factories:
            replies.append(self.hear(self.connect()))
        self.assertEqual(replies, [["220 "], ["421 4.7.0"], ["220 "]])

    def test_a_refused_connection_takes_no_place(self) -> None:
        self.serve(max_connections=2, max_connections_per_peer=1)
        hosts = ("192.0.2.7", "192.0.2.7", "192.0.2.8", "192.0.2.9")
        replies = [self.hear(self.connect(host=host))[0] for host in hosts]
        self.assertEqual(replies, ["220 ", "421 4.7.0", "220 ", "421 4.7.0"])

    def test_connections_are_counted_and_counted_out(self) -> None:
        self.serve(max_connections=2)
        clients = [self.connect() for _ in range(3)]
        self.assertEqual((self.factory.connections_taken, self.factory.connections_open), (3, 2))
        clients[0].abort()
        self.network.advance(0)
        self.assertEqual((self.factory.connections_taken, self.factory.connections_open), (3, 1))


class ChangedSettings(DialogueTestCase):
    def test_a_changed_limit_of_connections_holds_at_once(self) -> None:
        clients = [self.connect() for _ in range(2)]
        self.factory.max_connections_per_peer = 1
        self.assertEqual(self.hear(self.connect()), ["421 4.7.0"])
        self.factory.max_connections_per_peer = 3
        self.factory.max_connections = 2
        self.assertEqual(self.hear(self.connect(host="192.0.2.8")), ["421 4.7.0"])
        for client in clients:
            self.say(client, b"NOOP\r\n")
            self.assertEqual(self.hear(client), ["220 ", "250 2.0.0"])

    def test_existing_connections_keep_their_settings(self) -> None:
        before = self.connect()
        self.factory.timeouts = Timeouts(command=1000)
        after = self.connect()
        self.network.advance(301)
        self.assertEqual(self.hear(before), ["220 ", "421 4.4.2"])
        self.assertEqual(self.hear(after), ["220 "])
