"""A server in memory, on a clock, and its clients."""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from tests.server.certificate import server_context
from tests.tidy import TidyTestCase
from twisted_mta.interfaces import Limits
from twisted_mta.server.factory import ListenerFactory
from twisted_mta.server.timeouts import Timeouts
from twisted_mta.telemetry.metrics import Metrics
from twisted_mta.testing.client import SMTPClientEnd
from twisted_mta.testing.delivery import RecordingDelivery
from twisted_mta.testing.network import MemoryNetwork, MemoryTransport, address
from twisted_mta.testing.server_options import ServerOptions
from twisted_mta.testing.tls import ClientContext
from twisted_mta.tls.server import ServerTLS


class DialogueTestCase(TidyTestCase):
    """Each test ends with every connection closed, and no timer may be left then."""

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.metrics = Metrics()
        self.delivery = RecordingDelivery()
        self.asked: list[Deferred[None]] = []
        self.factory = self.serve()

    def tearDown(self) -> None:
        for ends in self.network.connections:
            ends[0].abortConnection()
        self.network.advance(0)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def serve(
        self,
        delivery: Any = None,
        *,
        tls: ServerTLS | None = None,
        timeouts: Timeouts | None = None,
        max_connections: int = 1000,
        max_connections_per_peer: int = 50,
        limits: Limits | None = None,
        name: str = "",
        **options: Any,
    ) -> ListenerFactory:
        self.factory = ListenerFactory(
            delivery or self.delivery,
            clock=self.network,
            settings=ServerOptions(**options).settings(),
            tls=tls or server_context(),
            timeouts=timeouts,
            max_connections=max_connections,
            max_connections_per_peer=max_connections_per_peer,
            limits=limits,
            name=name,
            metrics=self.metrics,
        )
        return self.factory

    def hold_decisions(self) -> None:
        """Make every decision from now on wait until the test fires it."""

        def when() -> Deferred[None]:
            self.asked.append(Deferred())
            return self.asked[-1]

        self.delivery.when = when

    def decide(self) -> None:
        self.asked.pop(0).callback(None)
        self.network.advance(0)

    def connect(
        self, *, host: str = "192.0.2.7", wrap: Callable[[Any], Any] | None = None
    ) -> SMTPClientEnd:
        client = SMTPClientEnd()
        server = (wrap(self.factory) if wrap else self.factory).buildProtocol(address(host, 5000))
        self.network.join(client, server, "127.0.0.1", 25)
        self.network.advance(0)
        return client

    def server_end(self, client: SMTPClientEnd) -> MemoryTransport:
        return next(ends[1] for ends in self.network.connections if ends[0] is client.transport)

    def say(self, client: SMTPClientEnd, octets: bytes) -> None:
        client.transport.write(octets)
        self.network.advance(0)

    def hear(self, client: SMTPClientEnd) -> list[str]:
        """Return code and status of each reply line since the last call."""
        lines = bytes(client.unread).decode("ascii").split("\r\n")
        client.unread.clear()
        self.assertEqual(lines.pop(), "")
        return [line[:9] if line[4:5] in "245" and line[5:6] == "." else line[:4] for line in lines]

    def start_tls(self, client: SMTPClientEnd) -> None:
        client.transport.startTLS(ClientContext("1.3"))
        self.network.advance(0)

    def begin_content(self, client: SMTPClientEnd) -> None:
        self.say(client, b"HELO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
        self.assertEqual(self.hear(client)[-1], "354 ")
