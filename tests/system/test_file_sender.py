"""A file on a connection: whole, in its place, and closed, whatever the connection does."""

from __future__ import annotations

import os
from io import BytesIO
from typing import IO, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.waiting import until
from twisted_mta.system import file_sender
from twisted_mta.system.file_sender import send_file, takes_files

CONTENT = b"".join(b"%07d\n" % number for number in range(1 << 20))  # more than sockets hold


class Collector(Protocol):
    """Keeps the octets that it receives, when it reads."""

    transport: Any

    def __init__(self) -> None:
        self.received = bytearray()
        self.made: Deferred[None] = Deferred()
        self.lost = False

    def connectionMade(self) -> None:
        self.made.callback(None)

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True


class OverTCP(TestCase):
    async def connect(self) -> tuple[Any, Collector]:
        """Return the transport of our end, and the other end, which does not read for now."""
        from twisted.internet import reactor  # noqa: TID251 - real sockets
        from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

        net: Any = reactor
        there = Collector()
        factory: Any = Factory()
        factory.buildProtocol = lambda addr: there
        factory.noisy = False
        port = net.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.here = await connectProtocol(
            TCP4ClientEndpoint(net, "127.0.0.1", port.getHost().port), Collector()
        )
        self.addCleanup(lambda: until(lambda: self.here.lost and there.lost))
        self.addCleanup(lambda: self.here.transport.abortConnection())
        await there.made
        there.transport.pauseProducing()
        self.progress = 0
        return self.here.transport, there

    def progressed(self) -> None:
        self.progress += 1

    def file(self, content: bytes = CONTENT) -> IO[bytes]:
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(content)
        return open(path, "rb")

    async def test_a_file_goes_behind_what_is_buffered_and_before_what_follows(self) -> None:
        transport, there = await self.connect()
        self.assertTrue(takes_files(transport))
        before = CONTENT[::-1]  # it does not fit into the socket
        transport.write(before)
        file = self.file()
        sent = send_file(transport, file, len(CONTENT), self.progressed)
        there.transport.resumeProducing()
        await sent
        self.assertTrue(file.closed)
        self.assertGreater(self.progress, 1)
        transport.write(b"behind")
        transport.loseConnection()
        await until(lambda: there.lost)
        self.assertEqual(bytes(there.received), before + CONTENT + b"behind")

    async def test_a_turn_sends_1_mib_at_most_and_waits_for_a_socket_that_is_full(self) -> None:
        transport, there = await self.connect()
        sizes: list[int] = []

        def sendfile(socket: int, file: int, offset: int, count: int) -> int:
            sent = really(socket, file, offset, count)
            sizes.append(sent)
            return sent

        really = os.sendfile
        self.patch(os, "sendfile", sendfile)
        sent = send_file(transport, self.file(), len(CONTENT), self.progressed)
        self.assertLessEqual(sum(sizes), 1_048_576)
        there.transport.resumeProducing()
        await sent
        self.assertEqual(sum(sizes), len(CONTENT))
        self.assertGreaterEqual(self.progress, len(CONTENT) // 1_048_576)
        transport.loseConnection()
        await until(lambda: there.lost)
        self.assertEqual(bytes(there.received), CONTENT)

    async def test_a_slow_disk_does_not_hold_the_reactor(self) -> None:
        transport, there = await self.connect()
        there.transport.resumeProducing()
        in_turn: list[int] = []
        waited = 0.0
        really, seconds = os.sendfile, transport.reactor.seconds

        def sendfile(socket: int, file: int, offset: int, count: int) -> int:
            nonlocal waited
            waited += 0.006
            in_turn.append(self.progress)
            return really(socket, file, offset, min(count, 131_072))

        self.patch(os, "sendfile", sendfile)
        self.patch(transport.reactor, "seconds", lambda: seconds() + waited)
        await send_file(transport, self.file(CONTENT[: 1 << 20]), 1 << 20, self.progressed)
        self.assertEqual(len(in_turn), len(set(in_turn)))
        transport.loseConnection()
        await until(lambda: there.lost)
        self.assertEqual(bytes(there.received), CONTENT[: 1 << 20])

    async def test_what_the_kernel_refuses_to_send_is_read(self) -> None:
        really = os.sendfile
        for refused_after in (0, 1, 3):
            transport, there = await self.connect()
            calls = 0

            def sendfile(*arguments: int, last: int = refused_after) -> int:
                nonlocal calls
                calls += 1
                if calls > last:
                    raise OSError(22, "Invalid argument")
                return really(*arguments)

            patch = self.patch(file_sender.os, "sendfile", sendfile)
            sent = send_file(transport, self.file(), len(CONTENT), self.progressed)
            there.transport.resumeProducing()
            await sent
            patch.restore()
            transport.loseConnection()
            await until(lambda there=there: there.lost)
            self.assertEqual(bytes(there.received), CONTENT)

    async def test_a_file_without_a_descriptor_is_read(self) -> None:
        transport, there = await self.connect()
        there.transport.resumeProducing()
        await send_file(transport, BytesIO(CONTENT), len(CONTENT), self.progressed)
        transport.loseConnection()
        await until(lambda: there.lost)
        self.assertEqual(bytes(there.received), CONTENT)

    async def test_a_file_that_is_too_short_fails_and_one_that_is_longer_is_cut(self) -> None:
        transport, there = await self.connect()
        there.transport.resumeProducing()
        await send_file(transport, self.file(b"12345678"), 5, self.progressed)
        file = self.file(b"abc")
        sent = send_file(transport, file, 4, self.progressed)
        error = await self.assertFailure(sent, OSError)
        self.assertIn("1 octets shorter", str(error))
        self.assertTrue(file.closed)
        transport.loseConnection()
        await until(lambda: there.lost)
        self.assertEqual(bytes(there.received), b"12345abc")

    async def test_no_more_is_sent_after_a_cancellation(self) -> None:
        transport, there = await self.connect()
        file = self.file()
        sent = send_file(transport, file, len(CONTENT), self.progressed)
        sent.cancel()
        await self.assertFailure(sent, CancelledError)
        self.assertTrue(file.closed)
        transport.write(b"end")
        there.transport.resumeProducing()
        transport.loseConnection()
        await until(lambda: there.lost)
        length = len(there.received) - 3
        self.assertLess(length, len(CONTENT))
        self.assertEqual(bytes(there.received), CONTENT[:length] + b"end")

    async def test_the_file_is_closed_when_the_connection_is_lost(self) -> None:
        transport, there = await self.connect()
        file = self.file()
        sent = send_file(transport, file, len(CONTENT), self.progressed)
        there.transport.abortConnection()
        await until(lambda: self.here.lost)
        self.assertTrue(file.closed)
        sent.cancel()
        await self.assertFailure(sent, CancelledError)


class Elsewhere(TestCase):
    def test_other_transports_take_no_file(self) -> None:
        from twisted.internet.testing import StringTransport

        self.assertFalse(takes_files(StringTransport()))
