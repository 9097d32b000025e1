"""A mail transfer agent in memory among scripted servers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.failure import Failure

from twisted_mta.agent.explain.explainer import AddressQuery
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.testing.memory_mta import MemoryMTA
from twisted_mta.testing.reactor import MemoryPort, MemoryReactor
from twisted_mta.testing.resolver import FakeResolver
from twisted_mta.testing.tls import PeerTLS

SENDER = ""  # null: a bounce would be one more delivery


@define
class Server(Factory):
    """A server at one address.

    Attributes:
        offers_tls: whether it offers STARTTLS.
        answer: its reply to RCPT.
        under_tls: for each MAIL, whether it came under TLS.
    """

    noisy = False
    offers_tls: bool = True
    answer: bytes = b"250 2.1.5 Ok\r\n"
    under_tls: list[bool] | None = None
    port: MemoryPort | None = None

    def buildProtocol(self, addr: object) -> Dialogue:
        return Dialogue(self)


class Dialogue(Protocol):
    transport: Any

    def __init__(self, server: Server) -> None:
        self._server = server
        self._buffer = b""
        self._tls = False
        self._content = False

    def connectionMade(self) -> None:
        if not self._tls:
            self.transport.write(b"220 hop ESMTP\r\n")

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\r\n")
            self._line(line)

    def _line(self, line: bytes) -> None:
        server = self._server
        if self._content:
            if line == b".":
                self._content = False
                self.transport.write(b"250 2.0.0 Taken\r\n")
            return
        verb = line[:4].upper()
        if verb == b"EHLO":
            tls = server.offers_tls and not self._tls
            self.transport.write(b"250-hop\r\n250 STARTTLS\r\n" if tls else b"250 hop\r\n")
        elif verb == b"STAR":
            self.transport.write(b"220 Go\r\n")
            self._tls = True
            self.transport.startTLS(PeerTLS())
        elif verb == b"MAIL":
            assert server.under_tls is not None
            server.under_tls.append(self._tls)
            self.transport.write(b"250 2.1.0 Ok\r\n")
        elif verb == b"RCPT":
            self.transport.write(server.answer)
        elif verb == b"DATA":
            self._content = server.answer.startswith(b"2")
            self.transport.write(b"354 Go\r\n" if self._content else b"503 Nobody\r\n")
        elif verb == b"QUIT":
            self.transport.write(b"221 Bye\r\n")
            self.transport.loseConnection()
        else:
            self.transport.write(b"250 Ok\r\n")


class Reactor(MemoryReactor):
    """Records connections to servers.

    Attributes:
        dialled: (address, port) of each connection to a server.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dialled: list[tuple[str, int]] = []

    def connectTCP(self, host: str, port: int, *args: Any, **more: Any) -> Any:
        if not host.startswith("127."):
            self.dialled.append((host, port))
        return super().connectTCP(host, port, *args, **more)


class World:
    """The agent, its servers and its DNS.

    Attributes:
        settled: the log's events about outcomes, since `forget`.
        servers: by address; connections to other addresses are refused.
    """

    def __init__(
        self,
        directory: str,
        *,
        aliases: str = "",
        mail_exchangers: Mapping[str, Any] | None = None,
        addresses: Mapping[str, Any] | None = None,
        texts: Mapping[str, Any] | None = None,
        pointers: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        directory = os.path.abspath(directory)
        shutil.rmtree(directory, ignore_errors=True)
        os.makedirs(directory)
        if aliases:
            settings["aliases"] = os.path.join(directory, "aliases")
            with open(settings["aliases"], "w", encoding="utf-8") as file:
                file.write(aliases)
        self.reactor = Reactor()
        self.mta = MemoryMTA(
            directory,
            reactor=self.reactor,
            resolver=FakeResolver(mail_exchangers, addresses, texts, pointers),
            **settings,
        )
        self.servers: dict[str, Server] = {}
        self.settled: list[LogEvent] = []
        globalLogPublisher.addObserver(self._observe)
        self.mta.start()

    def stop(self) -> None:
        """End it."""
        globalLogPublisher.removeObserver(self._observe)
        self.mta.stop()
        for address in tuple(self.servers):
            self.quit(address)
        self.reactor.settle()

    def _observe(self, event: LogEvent) -> None:
        if "delays" in event:
            self.settled.append(event)

    def serve(self, address: str, *, port: int = 25, **how: Any) -> Server:
        """Let there be a server."""
        self.quit(address)
        server = self.servers[address] = Server(under_tls=[], **how)
        server.port = self.reactor.listenTCP(port, server, interface=address)
        return server

    def quit(self, address: str) -> None:
        """Let there be none."""
        server = self.servers.pop(address, None)
        if server is not None and server.port is not None:
            server.port.stopListening()

    def forget(self) -> None:
        """Begin to look anew."""
        self.settled.clear()
        self.reactor.dialled.clear()
        for server in self.servers.values():
            server.under_tls = []

    def explain(
        self,
        address: str,
        *,
        client: str | None = "127.0.0.1",
        sender: str | None = None,
        helo: str | None = None,
    ) -> dict[str, Any]:
        """Return what is said of an address."""
        question = AddressQuery(address=address, client=client, sender=sender, helo=helo)
        return self._told(self.mta.mta.agent.explainer.address(question))

    def explain_id(self, id: str) -> dict[str, Any] | None:
        """Return what is said of a message."""
        return self._told(self.mta.mta.agent.explainer.message(QueueId.parse(id)))  # type: ignore

    def _told(self, telling: Deferred[Any]) -> Any:
        told: list[Any] = []
        telling.addBoth(told.append)
        self.reactor.settle()
        if isinstance(told[0], Failure):
            told[0].raiseException()
        return told[0]
