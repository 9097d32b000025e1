r"""A whole mail transfer agent in memory, on a clock that the test moves.

::

    mta = MemoryMTA(self.mktemp(), routes=(("*", "smtp://192.0.2.1"),))
    self.addCleanup(mta.stop)
    mta.start()
    mta.submit(b"Subject: Hi\r\n\r\n", sender="", recipients=["bob@localhost"])
    self.assertEqual(len(mta.mail("bob")), 1)

Days pass in no time (``mta.advance(86400)``), no thread is started, no socket is opened, and the
same seed gives the same run. Only the database, the lock and the certificate are on a real disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.cred.checkers import ICredentialsChecker
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from ..admin.status import Status
from ..config import Config, Listener
from ..delivery.application_delivery import ApplicationDelivery
from ..delivery.mailbox_directory import mailbox_directory
from ..mail.address import Mailbox
from ..mail.events import MailEvent
from ..message.application_content import Content
from ..server.application_mail import Receipt
from ..service import Environment, MailTransferAgent
from ..smtp.application_envelope import HoldUntil, Notify
from ..smtp.extension import Extension
from ..system.executors import inline_executor
from ..system.real_world import system_random
from .client import MemoryClient
from .files import UnsyncedFiles
from .reactor import MemoryReactor
from .resolver import FakeResolver
from .tls import certificate

_T = TypeVar("_T")

_PATIENCE = 600.0  # seconds on the clock for a submission, or an answer of the MTA

EPOCH = 1_800_000_000.0
"""The wall time at the start of the clock, in seconds since the epoch."""

SMTP = ("127.0.0.1", 25)
"""The address and port of a `MemoryMTA` by default."""


class MemoryMTA:
    """A `MailTransferAgent` whose network, DNS and disk are in memory.

    Args:
        directory: a directory of the real disk for database, lock and certificate; made if missing.
        seed: the seed of all random numbers.
        reactor: the network, shared by MTAs that connect to each other; None: a new one.
        files: the disk of body files and Maildirs; None: a new one.
        resolver: the DNS; None: one without any name.
        extensions: SMTP extensions besides the standard ones.
        application_policy: decides on clients and their mail (`policy.protocol.Policy`); None: none
            does. The setting ``policy`` is the table of that name.
        deliveries: the application's own deliveries, by name; None: none.
        checkers: judge AUTH, besides those of the settings.
        settings: settings of `Config`; by default the host name is ``mta.example``, the listener is
            at `SMTP`, and the local domain is ``localhost``.

    Attributes:
        mta: the service.
        reactor: the clock and network; `MemoryNetwork.listen` adds remote servers.
        files: the disk.
        resolver: the DNS.
        events: the steps of all mail so far (`mail.events`), in their order.
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
        application_policy: object | None = None,
        deliveries: Mapping[str, ApplicationDelivery] | None = None,
        checkers: Sequence[ICredentialsChecker] = (),
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
            ),
            policy=application_policy,
            deliveries=deliveries,
            checkers=checkers,
            extensions=extensions,
        )
        self.events: list[MailEvent] = []
        self.mta.subscribe(self.events.append)

    def wall_time(self) -> float:
        """Return the wall time of the simulation, in seconds since the epoch."""
        return EPOCH + self.reactor.seconds()

    def start(self) -> None:
        """Start the service; return when it accepts connections.

        Raises:
            Exception: as `MailTransferAgent.startService` does.
        """
        self.mta.privilegedStartService()
        self.mta.startService()
        self.reactor.settle()

    def stop(self, patience: float = 100.0) -> None:
        """Stop the service; advance the clock until it has stopped, at most ``patience`` seconds.

        Raises:
            TimeoutError: it still runs.
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
        """Advance the clock by ``seconds``, and run all calls that become due."""
        self.reactor.advance(seconds)

    def connect(
        self, address: tuple[str, int] = SMTP, *, greet: bool = True, source: str = ""
    ) -> MemoryClient:
        """Return a new client, which by default has sent EHLO.

        Args:
            address: of the listener.
            greet: whether it sends EHLO.
            source: its own address; empty: of loopback, from where it may relay by default.

        Raises:
            ConnectionError: no port is bound there.
        """
        client = MemoryClient(self.reactor)
        factory = _Client(client)
        self.reactor.connectTCP(*address, factory, bindAddress=(source, 0) if source else None)
        self.reactor.settle()
        if factory.failure is not None:
            raise ConnectionError(factory.failure.getErrorMessage())
        if greet:
            client.say("EHLO client.example")
        return client

    def submit(
        self,
        message: Content,
        *,
        sender: str | Mailbox,
        recipients: Iterable[str | Mailbox] = (),
        notify: Notify = None,
        hold_until: HoldUntil = None,
    ) -> Receipt:
        """Put a message of the application into the queue (`MailTransferAgent.submit`).

        Deliveries that can begin at once have begun, and ended where they need no time.

        Raises:
            Exception: as the Deferred of `MailTransferAgent.submit` fails.
            TimeoutError: it takes more than 600 seconds on the clock.
        """
        return self._result(
            self.mta.submit(
                message, sender=sender, recipients=recipients, notify=notify, hold_until=hold_until
            )
        )

    def submit_by_smtp(
        self, content: bytes, *recipients: str, sender: str = "ann@sender.example"
    ) -> str:
        """Send a message over a new connection; return the last line of the reply."""
        client = self.connect()
        reply = client.mail(content, *recipients, sender=sender)
        client.say("QUIT")
        return reply[-1] if reply else ""

    def status(self) -> Status:
        """Return the status of the MTA (`MailTransferAgent.status`).

        Raises:
            TimeoutError: there is no answer at once.
        """
        return self._result(self.mta.status(), patience=0.0)

    def _result(self, pending: Deferred[_T], *, patience: float = _PATIENCE) -> _T:
        """Return what a Deferred fires with, or raise its failure; advance the clock for it."""
        results: list[Any] = []
        pending.addBoth(results.append)
        self.reactor.settle()
        waited = 0.0
        while not results:
            if waited >= patience:
                raise TimeoutError(f"the MTA does not answer in {patience:g} s")
            self.advance(1.0)
            waited += 1.0
        if isinstance(results[0], Failure):
            results[0].raiseException()
        result: _T = results[0]
        return result

    def mail(self, local_part: str, domain: str = "localhost") -> list[bytes]:
        """Return the messages in a local mailbox, oldest first, with their trace fields.

        As in a delivery, case does not matter, and ``bob+tag`` is ``bob``.
        """
        folder = "/".join(mailbox_directory(Mailbox(local_part, domain)))
        new = f"{self.mta.config.maildir}/{folder}/new"
        if not self.files.is_directory(new):
            return []
        return [self.files.content(f"{new}/{name}") for name in self.files.names(new)]


class _Client(Factory):
    noisy = False

    def __init__(self, client: MemoryClient) -> None:
        self.failure: Failure | None = None
        self._client = client

    def startedConnecting(self, connector: object) -> None:
        """Do nothing."""

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        self.failure = reason

    def clientConnectionLost(self, connector: object, reason: Failure) -> None:
        """Do nothing: the client takes note itself."""

    def buildProtocol(self, addr: object) -> MemoryClient:
        return self._client


def _certificate_file(directory: str) -> str:
    path = os.path.join(directory, "certificate.pem")
    made, key = certificate()
    with open(path, "wb") as file:
        file.write(made.public_bytes(Encoding.PEM))
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path
