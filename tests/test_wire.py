"""Writing at once: the same octets, in the same order, whatever the connection does."""

from __future__ import annotations

from functools import partial
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from twisted_mta.server.tls import load
from twisted_mta.testing.peer import certificate
from twisted_mta.wire import start_tls, write_now


class Collector(Protocol):
    """Keeps what comes."""

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
        self.lost.callback(None)


class OverTCP(TestCase):
    async def connect(self) -> tuple[Any, Collector]:
        """Return our end's transport, and what is at the other end."""
        from twisted.internet import reactor  # noqa: TID251 - real sockets
        from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

        net: Any = reactor
        there = Collector()
        factory: Any = Factory()
        factory.buildProtocol = lambda addr: there
        factory.noisy = False
        port = net.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        here = await connectProtocol(
            TCP4ClientEndpoint(net, "127.0.0.1", port.getHost().port), Collector()
        )
        self.addCleanup(lambda: here.lost if here.transport.connected else None)
        self.addCleanup(lambda: here.transport.abortConnection())
        self.here = here
        await there.made
        return here.transport, there

    async def ended(self, transport: Any, there: Collector) -> bytes:
        transport.loseConnection()
        await there.lost
        return there.received

    async def test_nothing_is_left_to_the_next_turn(self) -> None:
        transport, there = await self.connect()
        write_now(transport, b"220 Hello\r\n")
        self.assertFalse(transport.dataBuffer or transport._tempDataBuffer)
        self.assertEqual(await self.ended(transport, there), b"220 Hello\r\n")

    async def test_what_waits_goes_first(self) -> None:
        transport, there = await self.connect()
        transport.write(b"one ")
        write_now(transport, b"two ")
        transport.write(b"three")
        self.assertEqual(await self.ended(transport, there), b"one two three")

    async def test_what_does_not_fit_follows(self) -> None:
        transport, there = await self.connect()
        large = b"".join(b"%07d\n" % number for number in range(1 << 20))
        write_now(transport, large)
        write_now(transport, b"end")
        self.assertTrue(transport.dataBuffer or transport._tempDataBuffer)
        self.assertEqual(await self.ended(transport, there), large + b"end")

    async def test_a_connection_that_is_gone_is_no_error(self) -> None:
        transport, there = await self.connect()
        there.transport.abortConnection()  # type: ignore[union-attr]
        await there.lost
        write_now(transport, b"is anybody there?")
        write_now(transport, b"and now?")
        transport.loseConnection()
        write_now(transport, b"too late")


class UnderTLS(OverTCP):
    """The same under TLS, once the handshake is over."""

    async def connect(self) -> tuple[Any, Collector]:
        transport, there = await super().connect()
        pem = self.mktemp()
        made, key = certificate()
        with open(pem, "wb") as file:
            file.write(
                key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
                + made.public_bytes(Encoding.PEM)
            )
        start_tls(transport, CertificateOptions())
        there.transport.startTLS(load(pem, pem))  # type: ignore[union-attr]
        there.transport.write(b"hello")  # type: ignore[union-attr]
        await self.here.heard
        return transport, there

    async def test_a_connection_that_waits_with_others_keeps_their_order(self) -> None:
        transport, there = await self.connect()
        for number in range(100):
            (transport.write if number % 3 else partial(write_now, transport))(b"%02d " % number)
        expected = b"".join(b"%02d " % number for number in range(100))
        self.assertEqual(await self.ended(transport, there), expected)


class Elsewhere(TestCase):
    def test_a_transport_of_another_kind_does_it_its_own_way(self) -> None:
        transport = StringTransport()
        write_now(transport, b"250 2.0.0 Ok\r\n")
        self.assertEqual(transport.value(), b"250 2.0.0 Ok\r\n")
