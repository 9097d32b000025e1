r"""A whole mail transfer agent in memory, on a clock that is moved by hand.

::

    mta = MemoryMTA(self.mktemp(), routes=(("*", "smtp://192.0.2.1"),))
    self.addCleanup(mta.stop)
    mta.start()
    self.assertTrue(mta.submit(b"Subject: Hi\r\n\r\n", "bob@localhost").startswith("250 "))
    self.assertEqual(len(mta.mail("bob")), 1)

Days pass in no time (``mta.advance(86400)``), no thread is started, nothing is sent, and the same
seed brings the same run. Only the database, the lock and the certificate are on a real disk.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Any

from attrs import define
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.python.failure import Failure
from zope.interface import implementer

from ..admin.status import Status
from ..config import Config, Listener
from ..service import Environment, MailTransferAgent
from ..smtp.extension import Extension
from ..system.executors import inline_executor
from ..system.real_world import system_random
from .files import UnsyncedFiles
from .network import MemoryNetwork, address
from .peer import certificate
from .resolver import FakeResolver

EPOCH = 1_800_000_000.0
"""The wall time at which a clock begins, in seconds since the epoch."""

SMTP = ("127.0.0.1", 25)
"""Where a `MemoryMTA` listens unless told otherwise."""


class MemoryReactor(MemoryNetwork):
    """A network in memory on which one can listen as well.

    A connection to a port that is bound and not read from is refused.

    Attributes:
        ports: those that are bound, by host and port.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ports: dict[tuple[str, int], MemoryPort] = {}

    def listenTCP(
        self, port: int, factory: Factory, backlog: int = 50, interface: str = ""
    ) -> MemoryPort:
        """Listen as a reactor does (`twisted.internet.interfaces.IReactorTCP`)."""
        host = interface or "0.0.0.0"
        port = port or 40_000 + len(self.ports)
        if (host, port) in self.ports:
            taken = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            raise CannotListenError(interface, port, taken)
        bound = self.ports[host, port] = MemoryPort(self, factory, host, port)
        factory.doStart()
        return bound

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30,
        bindAddress: tuple[str, int] | None = None,
    ) -> Any:
        """Connect as a reactor does, to a port of this network or as `MemoryNetwork` says."""
        bound = self.ports.get((host, port)) or self.ports.get(("0.0.0.0", port))
        if bound is not None and bound.reading:
            here = address("::1" if ":" in host else "127.0.0.1", 50_000 + len(self.connections))
            server = bound.factory.buildProtocol(here)
            assert isinstance(server, Protocol)
            self.listen(host, port, server)
        return super().connectTCP(host, port, factory, timeout, bindAddress)

    def callWhenRunning(self, function: Any, *args: Any, **kwargs: Any) -> None:
        """Call ``function`` at once: this reactor runs whenever it is asked to."""
        function(*args, **kwargs)


@implementer(IListeningPort)
@define(eq=False)
class MemoryPort:
    """A port of a `MemoryReactor`.

    Attributes:
        reactor: the network that it belongs to.
        factory: makes the protocol of each connection.
        host: the address that it is bound to.
        port: its number.
        reading: whether connections are taken.
    """

    reactor: MemoryReactor
    factory: Factory
    host: str
    port: int
    reading: bool = True

    def startListening(self) -> None:
        """It listens already."""

    def stopListening(self) -> Deferred[None]:
        """Free the port."""
        if self.reactor.ports.pop((self.host, self.port), None) is not None:
            self.factory.doStop()
        return succeed(None)

    def startReading(self) -> None:
        """Take connections."""
        self.reading = True

    def stopReading(self) -> None:
        """Take no connections for now."""
        self.reading = False

    def getHost(self) -> IPv4Address | IPv6Address:
        """Return where it listens."""
        return address(self.host, self.port)


class MemoryClient(Protocol):
    """A client that says what it is told to.

    Attributes:
        received: all that the server has said, under TLS or not.
        lost: whether the connection is over.
    """

    transport: Any

    def __init__(self, reactor: MemoryNetwork) -> None:
        self.received = b""
        self.lost = False
        self._reactor = reactor
        self._seen = 0

    def dataReceived(self, data: bytes) -> None:
        """Keep what the server says."""
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The server is gone."""
        self.lost = True

    def heard(self) -> list[str]:
        """Return the lines that were received since this was asked last."""
        new, self._seen = self.received[self._seen :], len(self.received)
        return new.decode("utf-8").splitlines()

    def send(self, octets: bytes) -> list[str]:
        """Send octets as they are; return the lines that come back at once."""
        self.transport.write(octets)
        self._reactor.settle()
        return self.heard()

    def say(self, *commands: str) -> list[str]:
        """Send commands, one after the other; return the lines that come back to the last."""
        lines: list[str] = []
        for command in commands:
            lines = self.send(command.encode("utf-8") + b"\r\n")
        return lines

    def start_tls(self) -> None:
        """Say STARTTLS and shake hands; the certificate is not looked at.

        Raises:
            ConnectionError: the server does not do it.
        """
        answer = self.say("STARTTLS")
        if not answer or not answer[0].startswith("220 "):
            raise ConnectionError(f"no TLS: {answer}")
        self.transport.startTLS(CertificateOptions())
        self._reactor.settle()

    def mail(
        self, content: bytes, *recipients: str, sender: str = "ann@sender.example"
    ) -> list[str]:
        """Send a message after EHLO; return the reply to its end, or what refused it."""
        commands = (
            f"MAIL FROM:<{sender}>",
            *(f"RCPT TO:<{recipient}>" for recipient in recipients),
            "DATA",
        )
        for command in commands:
            lines = self.say(command)
            if not lines or lines[-1][0] not in "23":
                return lines
        stuffed = content.replace(b"\r\n.", b"\r\n..")
        if stuffed.startswith(b"."):
            stuffed = b"." + stuffed
        return self.send(stuffed + (b"" if content.endswith(b"\r\n") else b"\r\n") + b".\r\n")


class MemoryMTA:
    """A `MailTransferAgent` whose world is in memory.

    Args:
        directory: of a real disk, for its database, its lock and its certificate; made if missing.
        seed: what is drawn at random follows from it.
        reactor: shared by MTAs that are to speak with each other; one of its own without.
        files: the disk of bodies and Maildirs; a new one without.
        resolver: the DNS; knows no name without.
        extensions: what is spoken besides the standard ones.
        settings: of `Config`; by default it is ``mta.example``, listens at `SMTP` and delivers for
            ``localhost``.

    Attributes:
        mta: the service itself.
        reactor: its clock and network; remote servers are put there by `MemoryNetwork.listen`.
        files: its disk.
        resolver: its DNS.
    """

    def __init__(
        self,
        directory: str,
        *,
        seed: int = 0,
        reactor: MemoryReactor | None = None,
        files: UnsyncedFiles | None = None,
        resolver: FakeResolver | None = None,
        extensions: tuple[Extension, ...] = (),
        **settings: Any,
    ) -> None:
        directory = os.path.abspath(directory)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self.reactor = reactor or MemoryReactor()
        self.files = files or UnsyncedFiles()
        self.resolver = resolver or FakeResolver()
        listener = Listener(endpoint=f"tcp:{SMTP[1]}:interface={SMTP[0]}")
        defaults: Mapping[str, Any] = {
            "hostname": "mta.example",
            "local_domains": ("localhost",),
            "listeners": (listener,),
            "tls_certificate": _certificate_file(directory),
        }
        random = system_random()
        random.seed(seed)
        self.mta = MailTransferAgent(
            Config(state_dir=directory, **{**defaults, **settings}),
            reactor=self.reactor,
            environment=Environment(
                wall_time=self.wall_time,
                random=random,
                files=self.files,
                commit_executor=inline_executor,
                file_executor=inline_executor,
                password_executor=inline_executor,
                resolver=self.resolver,
                secret=lambda octets: random.getrandbits(8 * octets).to_bytes(octets, "big"),
                nonce=lambda: f"{random.getrandbits(128):032x}",
                source_of=None,
                extensions=extensions,
            ),
        )

    def wall_time(self) -> float:
        """Return what time it is there, in seconds since the epoch."""
        return EPOCH + self.reactor.seconds()

    def start(self) -> None:
        """Start it; returns when it takes connections.

        Raises:
            Exception: as `MailTransferAgent.startService` does.
        """
        self.mta.privilegedStartService()
        self.mta.startService()
        self.reactor.settle()

    def stop(self, patience: float = 100.0) -> None:
        """Stop it, and let up to ``patience`` seconds pass until it has.

        Raises:
            TimeoutError: it has not.
        """
        stopped: list[object] = []
        self.mta.stopService().addBoth(stopped.append)
        self.reactor.settle()
        waited = 0.0
        while not stopped:
            if waited >= patience:
                raise TimeoutError(f"not stopped in {patience} s")
            self.advance(1.0)
            waited += 1.0
        if isinstance(stopped[0], Failure):
            stopped[0].raiseException()

    def advance(self, seconds: float) -> None:
        """Let time pass, and all happen that becomes due."""
        self.reactor.advance(seconds)

    def connect(self, address: tuple[str, int] = SMTP, *, greet: bool = True) -> MemoryClient:
        """Connect a client; by default it has said EHLO when this returns.

        Raises:
            ConnectionError: nobody listens there.
        """
        client = MemoryClient(self.reactor)
        factory = _Client(client)
        self.reactor.connectTCP(*address, factory)
        self.reactor.settle()
        if factory.failure is not None:
            raise ConnectionError(factory.failure.getErrorMessage())
        if greet:
            client.say("EHLO client.example")
        return client

    def submit(self, content: bytes, *recipients: str, sender: str = "ann@sender.example") -> str:
        """Send a message over a connection of its own; return the last line of the answer."""
        client = self.connect()
        answer = client.mail(content, *recipients, sender=sender)
        client.say("QUIT")
        return answer[-1] if answer else ""

    def status(self) -> Status:
        """Return how things stand, as `MailTransferAgent.status` fires with it.

        Raises:
            TimeoutError: it is not told at once.
        """
        told: list[Status | Failure] = []
        self.mta.status().addBoth(told.append)
        self.reactor.settle()
        if not told:
            raise TimeoutError("it does not say how things stand")
        if isinstance(told[0], Failure):
            told[0].raiseException()
        assert isinstance(told[0], Status)
        return told[0]

    def mail(self, local_part: str, domain: str = "localhost") -> list[bytes]:
        """Return what was delivered to a local mailbox, oldest first, with its trace fields."""
        new = f"{self.mta.config.maildir}/{domain}/{local_part}/new"
        if not self.files.is_directory(new):
            return []
        return [self.files.content(f"{new}/{name}") for name in self.files.names(new)]


class _Client(Factory):
    noisy = False

    def __init__(self, client: MemoryClient) -> None:
        self.failure: Failure | None = None
        self._client = client

    def startedConnecting(self, connector: object) -> None:
        """Nothing is to be done."""

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        self.failure = reason

    def clientConnectionLost(self, connector: object, reason: Failure) -> None:
        """The client itself was told."""

    def buildProtocol(self, addr: object) -> MemoryClient:
        return self._client


def _certificate_file(directory: str) -> str:
    path = os.path.join(directory, "certificate.pem")
    made, key = certificate()
    with open(path, "wb") as file:
        file.write(made.public_bytes(Encoding.PEM))
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path
