"""The outbox: the same octets in the same order, whatever the connection does."""

from __future__ import annotations

from errno import EAGAIN, ECONNRESET, EPIPE
from socket import MSG_MORE, MSG_PEEK
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.waiting import turn, until
from twisted_mta.system.outbox import Outbox
from twisted_mta.testing.tls import certificate
from twisted_mta.tls.server import load


class Collector(Protocol):
    """Keeps the octets that it receives."""

    def __init__(self) -> None:
        self.received = b""
        self.made: Deferred[None] = Deferred()
        self.lost: Deferred[None] = Deferred()
        self.heard: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.made.callback(None)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if not self.heard.called:
            self.heard.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason
        self.lost.callback(None)


class Sending:
    """A socket whose `send` is counted, and may fail or take less than it is given.

    Args:
        socket: takes the octets.
        faults: raised by one call each, before the calls that take octets.
        most: octets that a call takes; None: as many as fit.
    """

    def __init__(self, socket: Any, *faults: Exception, most: int | None = None) -> None:
        self.calls = 0
        self.flags: list[int] = []
        self._socket = socket
        self._faults = list(faults)
        self._most = most

    def send(self, octets: bytes, flags: int = 0) -> int:
        self.calls += 1
        self.flags.append(flags)
        if self._faults:
            raise self._faults.pop(0)
        sent: int = self._socket.send(octets[: self._most], flags)
        return sent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


class Producer:
    """Notes what a transport asks of it."""

    def __init__(self, events: list[str]) -> None:
        self._events = events

    def pauseProducing(self) -> None:
        self._events.append("paused")

    def resumeProducing(self) -> None:
        self._events.append("resumed")

    def stopProducing(self) -> None:
        self._events.append("stopped")


def _unread(transport: Any) -> bool:
    try:
        return bool(transport.socket.recv(1, MSG_PEEK))
    except BlockingIOError:
        return False


class Connected(TestCase):
    async def connect(self) -> tuple[Any, Collector]:
        """Return the transport of our end, and the protocol of the other end."""
        from twisted.internet import reactor  # noqa: TID251 - real sockets
        from twisted.internet.endpoints import connectProtocol

        there = Collector()
        factory: Any = Factory()
        factory.buildProtocol = lambda addr: there
        factory.noisy = False
        port, endpoint = self.listen(reactor, factory)
        self.addCleanup(port.stopListening)
        here = await connectProtocol(endpoint, Collector())
        self.addCleanup(lambda: here.lost if here.transport.connected else None)
        self.addCleanup(lambda: here.transport.abortConnection())
        self.here = here
        await there.made
        self.outbox = Outbox()
        return here.transport, there

    def listen(self, net: Any, factory: Any) -> tuple[Any, Any]:
        """Return a port of the other end, and the endpoint that leads to it."""
        from twisted.internet.endpoints import TCP4ClientEndpoint

        port = net.listenTCP(0, factory, interface="127.0.0.1")
        return port, TCP4ClientEndpoint(net, "127.0.0.1", port.getHost().port)

    async def ended(self, transport: Any, there: Collector) -> bytes:
        self.outbox.release(transport)
        transport.loseConnection()
        await there.lost
        return there.received


class OverTCP(Connected):
    async def test_the_writes_of_a_turn_are_one_system_call(self) -> None:
        transport, there = await self.connect()
        transport.socket = socket = Sending(transport.socket)
        for octets in (b"250-one\r\n", b"250-two\r\n", b"250 three\r\n"):
            self.outbox.write(transport, octets)
        self.assertEqual(socket.calls, 0)
        await until(lambda: socket.calls)  # reactors differ in the order of timers
        self.assertEqual(socket.calls, 1)
        self.outbox.write(transport, b"and the next")
        self.assertEqual(socket.calls, 1)
        await until(lambda: socket.calls > 1)
        self.assertEqual(socket.calls, 2)
        self.assertFalse(transport.dataBuffer or transport._tempDataBuffer)
        self.assertEqual(
            await self.ended(transport, there), b"250-one\r\n250-two\r\n250 three\r\nand the next"
        )

    async def test_gathered_octets_can_be_released_at_once(self) -> None:
        transport, there = await self.connect()
        self.outbox.write(transport, b"one ")
        self.outbox.release(transport)
        transport.write(b"two ")
        self.outbox.release(transport)
        await turn()
        self.outbox.write(transport, b"three")
        self.assertEqual(await self.ended(transport, there), b"one two three")

    async def test_octets_that_wait_in_the_transport_go_first(self) -> None:
        transport, there = await self.connect()
        transport.write(b"one ")
        self.outbox.write(transport, b"two")
        self.assertEqual(await self.ended(transport, there), b"one two")

    async def test_writes_are_counted(self) -> None:
        transport, _ = await self.connect()
        self.assertEqual(self.outbox.writes, 0)
        self.outbox.write(transport, b"one")
        self.outbox.write(transport, b"two")
        await turn()
        self.assertEqual(self.outbox.writes, 2)

    async def test_octets_that_do_not_fit_follow(self) -> None:
        transport, there = await self.connect()
        large = b"".join(b"%07d\n" % number for number in range(1 << 20))
        self.outbox.write(transport, large)
        self.outbox.release(transport)
        self.outbox.write(transport, b"end")
        await turn()
        self.assertTrue(transport.dataBuffer or transport._tempDataBuffer)
        self.assertEqual(await self.ended(transport, there), large + b"end")

    async def test_a_socket_that_takes_a_few_octets_at_a_time_gets_all(self) -> None:
        transport, there = await self.connect()
        transport.socket = Sending(transport.socket, most=7)
        expected = b""
        for number in range(50):
            octets = b"250 %d octets of a reply\r\n" % number
            expected += octets
            self.outbox.write(transport, octets)
            if number % 3 == 0:
                await turn()
        self.assertEqual(await self.ended(transport, there), expected)

    async def test_what_a_full_socket_refuses_is_left_to_the_transport(self) -> None:
        transport, there = await self.connect()
        full = BlockingIOError(EAGAIN, "")
        transport.socket = Sending(transport.socket, full, full)
        self.outbox.write(transport, b"one ")
        self.outbox.release(transport)
        self.assertTrue(transport.dataBuffer or transport._tempDataBuffer)
        self.outbox.write(transport, b"two")
        self.assertEqual(await self.ended(transport, there), b"one two")

    async def test_a_connection_that_the_peer_has_reset_is_lost(self) -> None:
        for fault in (ConnectionResetError(ECONNRESET, ""), BrokenPipeError(EPIPE, "")):
            transport, _ = await self.connect()
            transport.socket = Sending(transport.socket, fault, fault)
            self.outbox.write(transport, b"lost")
            await self.here.lost
            self.assertIsNone(self.here.reason.check(ConnectionDone))

    async def test_writing_to_a_lost_connection_is_no_error(self) -> None:
        transport, there = await self.connect()
        there.transport.abortConnection()  # type: ignore[union-attr]
        await there.lost
        self.outbox.write(transport, b"is anybody there?")
        await turn()
        self.outbox.write(transport, b"and now?")
        transport.loseConnection()
        self.outbox.write(transport, b"too late")
        await turn()
        self.outbox.release(transport)

    async def test_a_connection_ends_behind_all_octets(self) -> None:
        transport, there = await self.connect()
        large = b"".join(b"%07d\n" % number for number in range(1 << 20))
        for octets in (b"", b"one", large):
            self.outbox.write(transport, octets)
            self.outbox.write(transport, b"end")
            self.outbox.lose_connection(transport)
            self.assertFalse(self.here.lost.called)  # never before it returns
            await there.lost
            await self.here.lost
            self.assertIsNotNone(self.here.reason.check(ConnectionDone))
            self.assertEqual(there.received.removeprefix(b"hello"), octets + b"end")
            transport, there = await self.connect()

    async def test_a_connection_ends_where_nothing_is_to_be_written(self) -> None:
        transport, there = await self.connect()
        self.outbox.lose_connection(transport)
        self.outbox.lose_connection(transport)
        await there.lost
        await self.here.lost
        self.outbox.lose_connection(transport)
        await turn()

    async def test_what_the_peer_has_sent_meanwhile_does_not_reset_the_connection(self) -> None:
        """A socket that is closed with unread input is reset; octets that wait in it are lost."""
        transport, there = await self.connect()
        transport.stopReading()
        before = there.received
        there.transport.write(b"x" * 10_000)  # type: ignore[union-attr]
        await until(lambda: _unread(transport))
        self.outbox.write(transport, b"221 2.0.0 Bye\r\n")
        self.outbox.lose_connection(transport, finished=True)
        await there.lost
        self.assertEqual(there.received, before + b"221 2.0.0 Bye\r\n")
        self.assertIsNotNone(there.reason.check(ConnectionDone))

    async def test_an_abort_goes_before_the_end_of_a_connection(self) -> None:
        transport, there = await self.connect()
        self.outbox.lose_connection(transport)
        transport.abortConnection()
        await self.here.lost
        self.assertIsNone(self.here.reason.check(ConnectionDone))
        await there.lost

    async def test_an_abort_loses_no_octets_that_were_released_behind_the_end(self) -> None:
        transport, there = await self.connect()
        self.outbox.write(transport, b"250 2.0.0 Ok\r\n")
        self.outbox.lose_connection(transport)
        self.outbox.release(transport)
        transport.abortConnection()
        await there.lost
        self.assertEqual(there.received.removeprefix(b"hello"), b"250 2.0.0 Ok\r\n")

    async def test_the_last_octets_go_in_parts_where_the_socket_takes_a_part(self) -> None:
        for most, faults in ((3, 0), (3, 1), (None, 2)):
            transport, there = await self.connect()
            full = [BlockingIOError(EAGAIN, "")] * faults
            transport.socket = Sending(transport.socket, *full, most=most)
            self.outbox.write(transport, b"221 2.0.0 Bye\r\n")
            self.outbox.lose_connection(transport)
            await there.lost
            await self.here.lost
            self.assertEqual(there.received.removeprefix(b"hello"), b"221 2.0.0 Bye\r\n")

    async def test_a_peer_may_end_the_connection_before_our_end(self) -> None:
        for error in (None, ConnectionDone(), ConnectionLost()):
            transport, there = await self.connect()
            await turn()  # not within `dataReceived`
            self.outbox.write(transport, b"221 2.0.0 Bye\r\n")
            self.outbox.lose_connection(transport)
            if error is None:
                assert there.transport is not None
                there.transport.abortConnection()  # type: ignore[attr-defined]
            else:
                transport.connectionLost(Failure(error))
            await self.here.lost  # a second time would be an error
            await there.lost
            await turn()

    async def test_a_protocol_that_fails_at_its_end_does_not_affect_others(self) -> None:
        def fail(reason: Failure) -> None:
            raise ArithmeticError("failed")

        broken, there_too = await self.connect()
        outbox, here = self.outbox, self.here
        self.patch(here, "connectionLost", fail)
        sound, there = await self.connect()
        for transport in (sound, broken):
            outbox.write(transport, b"221 2.0.0 Bye\r\n")
            outbox.lose_connection(transport)
        await there.lost
        await self.here.lost
        await there_too.lost
        self.assertEqual(len(self.flushLoggedErrors(ArithmeticError)), 1)

    async def test_a_failing_connection_does_not_affect_others(self) -> None:
        broken, _ = await self.connect()
        here, outbox = self.here, self.outbox
        sound, there = await self.connect()

        broken.socket = Sending(broken.socket, RuntimeError("broken"))
        outbox.write(broken, b"lost")
        outbox.write(sound, b"said")
        await here.lost
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(await self.ended(sound, there), b"said")

    async def test_a_connection_that_cannot_even_be_aborted_does_not_affect_others(self) -> None:
        def fail() -> None:
            raise ArithmeticError("cannot be aborted")

        broken, _ = await self.connect()
        outbox = self.outbox
        sound, there = await self.connect()
        patched = self.patch(broken, "abortConnection", fail)
        broken.socket = Sending(broken.socket, RuntimeError("broken"))
        outbox.write(broken, b"lost")
        outbox.write(sound, b"one ")
        await until(lambda: there.received.endswith(b"one "))
        outbox.write(sound, b"two")
        await until(lambda: there.received.endswith(b"one two"))
        patched.restore()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError, ArithmeticError)), 2)

    async def test_a_registered_producer_is_paused_while_octets_wait(self) -> None:
        transport, there = await self.connect()
        events: list[str] = []
        transport.registerProducer(Producer(events), True)
        large = b"x" * (16 << 20)
        self.outbox.write(transport, large)
        self.outbox.release(transport)
        self.assertEqual(events, ["paused"])
        await until(lambda: events[-1] == "resumed")
        transport.unregisterProducer()
        self.assertEqual(await self.ended(transport, there), large)

    async def test_nothing_is_written_after_an_abort(self) -> None:
        transport, there = await self.connect()
        self.outbox.write(transport, b"too late")
        transport.abortConnection()
        await there.lost
        self.assertEqual(there.received, b"")


class InClear(Connected):
    """The beginning of TLS, and the end of a connection without."""

    async def test_what_was_written_before_a_handshake_goes_before_it_in_clear(self) -> None:
        transport, there = await self.connect()
        transport.socket = socket = Sending(transport.socket)
        self.outbox.write(transport, b"Ready to start TLS\r\n")
        self.outbox.start_tls(transport, CertificateOptions())
        self.assertEqual(socket.calls, 0)
        await there.heard
        self.assertEqual(socket.calls, 1)
        self.assertTrue(there.received.startswith(b"Ready to start TLS\r\n\x16\x03"))

        transport, there = await self.connect()
        self.outbox.write(transport, b"Ready to start TLS\r\n")
        self.outbox.start_tls(transport, CertificateOptions())
        self.outbox.release(transport)
        transport.abortConnection()  # in the middle of the handshake
        await there.lost
        self.assertTrue(there.received.startswith(b"Ready to start TLS\r\n"))

    async def test_the_last_reply_and_the_end_of_the_connection_are_one_segment(self) -> None:
        transport, there = await self.connect()
        transport.socket = socket = Sending(transport.socket)
        self.outbox.write(transport, b"221 2.0.0 Bye\r\n")
        self.outbox.lose_connection(transport)
        await self.here.lost
        self.assertEqual(socket.flags, [MSG_MORE])
        await there.lost
        self.assertEqual(there.received, b"221 2.0.0 Bye\r\n")

    async def test_a_connection_waits_for_a_full_socket(self) -> None:
        transport, there = await self.connect()
        full = BlockingIOError(EAGAIN, "")
        transport.socket = Sending(transport.socket, full, full)
        self.outbox.write(transport, b"221 2.0.0 Bye\r\n")
        self.outbox.lose_connection(transport)
        await there.lost
        self.assertEqual(there.received, b"221 2.0.0 Bye\r\n")

    async def test_octets_written_behind_the_end_in_its_turn_are_not_lost(self) -> None:
        transport, there = await self.connect()
        self.outbox.write(transport, b"one ")
        self.outbox.lose_connection(transport)
        self.outbox.write(transport, b"two ")
        transport.socket = Sending(transport.socket, BlockingIOError(EAGAIN, ""))
        self.outbox.release(transport)
        transport.write(b"three")
        await there.lost
        self.assertEqual(there.received, b"one two three")

    async def test_a_producer_that_comes_before_the_end_is_waited_for(self) -> None:
        transport, there = await self.connect()
        events: list[str] = []
        self.outbox.lose_connection(transport)
        transport.registerProducer(Producer(events), False)
        await until(lambda: events)
        self.assertEqual(events[0], "resumed")
        transport.write(b"produced")
        transport.unregisterProducer()
        await there.lost
        self.assertEqual(there.received, b"produced")


class UnderTLS(OverTCP):
    """The same under TLS, after the handshake."""

    async def connect(self) -> tuple[Any, Collector]:
        transport, there = await super().connect()
        pem = self.mktemp()
        made, key = certificate()
        with open(pem, "wb") as file:
            file.write(
                key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
                + made.public_bytes(Encoding.PEM)
            )
        self.outbox.start_tls(transport, CertificateOptions())
        there.transport.startTLS(load(pem, pem))  # type: ignore[union-attr]
        there.transport.write(b"hello")  # type: ignore[union-attr]
        await self.here.heard
        return transport, there

    async def test_the_last_reply_and_the_end_of_tls_are_one_system_call(self) -> None:
        transport, there = await self.connect()
        transport.socket = socket = Sending(transport.socket)
        self.outbox.write(transport, b"221 2.0.0 Bye\r\n")
        self.outbox.lose_connection(transport)
        await there.lost
        self.assertEqual(socket.calls, 1)
        self.assertEqual(there.received, b"221 2.0.0 Bye\r\n")

    async def test_nothing_is_written_into_tls_that_is_over(self) -> None:
        transport, there = await self.connect()
        tls = transport.protocol
        transport.abortConnection()
        await self.here.lost
        await turn()
        tls._write(b"late")
        await there.lost
        self.assertEqual(there.received, b"hello"[: len(there.received)])

    async def test_a_peer_that_does_not_answer_the_end_of_tls_is_no_error(self) -> None:
        transport, there = await self.connect()
        self.patch(there.transport.protocol, "_shutdownTLS", lambda: None)  # type: ignore[union-attr]
        self.outbox.lose_connection(transport)
        await self.here.lost
        self.assertIsNotNone(self.here.reason.check(ConnectionDone))

    async def test_the_end_of_tls_is_answered_before_the_connection_ends(self) -> None:
        transport, there = await self.connect()
        there.transport.pauseProducing()  # type: ignore[union-attr]
        self.outbox.lose_connection(transport)
        for _ in range(3):
            await turn()
        self.assertFalse(self.here.lost.called)
        there.transport.resumeProducing()  # type: ignore[union-attr]
        await self.here.lost

    async def test_a_peer_that_has_finished_need_not_answer_the_end_of_tls(self) -> None:
        transport, there = await self.connect()
        there.transport.pauseProducing()  # type: ignore[union-attr]
        transport.socket = socket = Sending(transport.socket)
        self.outbox.write(transport, b"221 2.0.0 Bye\r\n")
        self.outbox.lose_connection(transport, finished=True)
        await self.here.lost
        self.assertIsNotNone(self.here.reason.check(ConnectionDone))
        self.assertEqual(socket.flags, [MSG_MORE])
        there.transport.resumeProducing()  # type: ignore[union-attr]
        await there.lost
        self.assertEqual(there.received, b"221 2.0.0 Bye\r\n")
        self.assertIsNotNone(there.reason.check(ConnectionDone))

    async def finish_to_slow_peer(self) -> tuple[Collector, bytes]:
        """End a connection behind replies that its peer, which has finished, does not read yet."""
        transport, there = await self.connect()
        there.transport.pauseProducing()  # type: ignore[union-attr]
        replies = b"250 2.0.0 OK\r\n" * 500_000
        self.outbox.write(transport, replies)
        self.outbox.lose_connection(transport, finished=True)
        for _ in range(3):
            await turn()
        return there, replies

    async def test_a_peer_that_has_finished_and_reads_slowly_gets_all(self) -> None:
        there, replies = await self.finish_to_slow_peer()
        self.assertFalse(self.here.lost.called)
        there.transport.resumeProducing()  # type: ignore[union-attr]
        await there.lost
        self.assertEqual(len(there.received), len(replies))
        self.assertIsNotNone(there.reason.check(ConnectionDone))
        await self.here.lost
        self.assertIsNotNone(self.here.reason.check(ConnectionDone))

    async def test_a_peer_that_reads_slowly_gets_all_though_it_has_ended_tls_itself(self) -> None:
        there, replies = await self.finish_to_slow_peer()
        there.transport.protocol._tlsConnection.shutdown()  # type: ignore[union-attr]
        there.transport.protocol._flushSendBIO()  # type: ignore[union-attr]
        await turn(0.05)
        there.transport.resumeProducing()  # type: ignore[union-attr]
        await there.lost
        self.assertEqual(len(there.received), len(replies))

    async def test_a_handshake_with_a_peer_that_has_finished_is_ended(self) -> None:
        transport, there = await Connected.connect(self)
        self.outbox.start_tls(transport, CertificateOptions())
        self.outbox.lose_connection(transport, finished=True)
        await self.here.lost
        await there.lost

    async def test_the_records_of_a_content_are_written_together(self) -> None:
        transport, there = await self.connect()
        transport.socket = socket = Sending(transport.socket)
        content = b"x" * 100_000
        self.outbox.write_now(transport, content)
        self.assertEqual(socket.calls, 1)
        self.assertEqual(await self.ended(transport, there), content)

    async def test_an_abort_loses_no_octets_that_were_released(self) -> None:
        transport, there = await self.connect()
        self.outbox.write(transport, b"421 4.3.2 Shutting down\r\n")
        self.outbox.release(transport)
        transport.abortConnection()
        await there.lost
        self.assertEqual(there.received, b"421 4.3.2 Shutting down\r\n")

    async def test_connections_are_written_in_the_order_of_their_first_octet(self) -> None:
        transport, there = await self.connect()
        for number in range(100):
            if number % 3:
                transport.write(b"%02d " % number)
            else:
                self.outbox.write(transport, b"%02d " % number)
                self.outbox.release(transport)
        expected = b"".join(b"%02d " % number for number in range(100))
        self.assertEqual(await self.ended(transport, there), expected)


class OverUNIX(OverTCP):
    """The same over a UNIX socket."""

    def listen(self, net: Any, factory: Any) -> tuple[Any, Any]:
        from twisted.internet.endpoints import UNIXClientEndpoint

        path = self.mktemp()[-60:].replace("/", "-")
        return net.listenUNIX(path, factory), UNIXClientEndpoint(net, path)

    async def test_nothing_is_written_behind_our_end_of_the_connection(self) -> None:
        transport, there = await self.connect()
        self.outbox.write(transport, b"before")
        self.outbox.release(transport)
        transport.loseWriteConnection()
        await there.lost
        self.outbox.write(transport, b"behind")
        await turn()
        self.assertEqual(there.received, b"before")


class Elsewhere(TestCase):
    def test_a_transport_without_a_socket_writes_at_once(self) -> None:
        transport = StringTransport()
        Outbox().write(transport, b"250 2.0.0 Ok\r\n")
        self.assertEqual(transport.value(), b"250 2.0.0 Ok\r\n")
