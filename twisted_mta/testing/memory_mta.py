r"""A whole mail transfer agent in memory, on a clock that the test moves.

::

    with MemoryMTA(domain="example.test") as mta:
        hop = mta.hop("192.0.2.1").defer(2).then_accept()
        mta.submit(b"Subject: Hi\r\n\r\n", sender="", recipients=["bob@there.example"])
        mta.advance(hours=1)
        self.assertEqual(hop.received[0].subject, "Hi")

Days pass in no time (``mta.advance(days=5)``), every timer on the way fires at its time, no thread
is started, no socket is opened, and the same seed gives the same run. Only the database, the lock
and the certificate are on a real disk.
"""

from __future__ import annotations

import enum
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar
from weakref import finalize

from attrs import frozen
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.cred.checkers import ICredentialsChecker
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from ..admin.status import Status
from ..config import Config, Listener
from ..delivery.application_delivery import ApplicationDelivery
from ..delivery.mailbox_directory import mailbox_directory
from ..inbox_message import InboxMessage
from ..interfaces import Executor
from ..mail.address import Mailbox
from ..mail.events import MailEvent
from ..message.application_content import Content
from ..queue.ids import WORKERS, QueueIds
from ..server.application_mail import Receipt
from ..service import Environment, MailTransferAgent
from ..smtp.application_envelope import HoldUntil, Notify
from ..smtp.extension import Extension
from ..system.executors import inline_executor
from ..system.real_world import system_random
from .client import MemoryClient
from .commits import Commits
from .fake_hop import FakeHop
from .files import UnsyncedFiles
from .machine import Machine
from .reactor import MemoryPort, MemoryReactor
from .resolver import FakeResolver, MachineResolver
from .tls import certificate

_T = TypeVar("_T")

_PATIENCE = 600.0  # seconds on the clock for a submission, or an answer of the MTA
_WEEK = timedelta(days=7)
_ORDER = re.compile(r"(\d+)\.M(\d+)[^.]*Q(\d+)\.")  # of file names in a Maildir
_RETURN_PATH = re.compile(rb"^Return-Path: *<([^>\n]*)>", re.MULTILINE)
_DELIVERED_TO = re.compile(rb"^Delivered-To: *([^\n]+)", re.MULTILINE)

EPOCH = 1_800_000_000.0
"""The wall time at the start of the clock, in seconds since the epoch."""

SMTP = ("127.0.0.1", 25)
"""The address and port of a `MemoryMTA` by default."""


class _Power(enum.Enum):
    """The power of the machine, with the life of the agent on it."""

    NEW = "the agent was not started"
    ON = "it was started"
    STOPPING = "it stops"
    FAILING = "the power goes off in this turn of the clock"
    OFF = "it has stopped or crashed"


@frozen
class _Objects:
    """What an application hands to each agent on this machine."""

    policy: object | None
    deliveries: Mapping[str, ApplicationDelivery] | None
    checkers: Sequence[ICredentialsChecker]
    extensions: tuple[Extension, ...]


class MemoryMTA:
    """A `MailTransferAgent` whose network, DNS and disk are in memory.

    It is a context manager, which starts it, and stops it at the end.

    Args:
        directory: a directory of the real disk for database, lock and certificate; made if missing.
            None: a temporary one, removed at the end of ``with``, or with this object.
        domain: the local domain, in which every local part exists. The host name is then
            ``mta.DOMAIN``, at an address of its own (`address`), and the zone has both. None: the
            local domain is ``localhost``, and the listener is on loopback, at `SMTP`.
        zone: records of the DNS, as a master file (`zone`).
        beside: another agent, with which it shares network, clock and DNS, so that each can send to
            the other; None: it is alone.
        seed: the seed of all random numbers. Agents of one network draw different ones.
        reactor: the network; None: that of ``beside``, or a new one.
        files: the disk of body files and Maildirs; None: a new one.
        file_executor: returns what runs the calls of a machine's disk; None: they run at once.
        resolver: the DNS; None: that of ``beside``, or one without any name.
        resolver_of: returns the DNS as a machine sees it; by default a machine that has crashed
            gets no answers.
        extensions: SMTP extensions besides the standard ones.
        application_policy: decides on clients and their mail (`policy.protocol.Policy`); None: none
            does. The setting ``policy`` is the table of that name.
        deliveries: the application's own deliveries, by name; None: none.
        checkers: judge AUTH, besides those of the settings.
        patience: seconds for which outcomes wait to share the commit of a message; 0: they do not,
            so that a test need not let time pass.
        settings: settings of `Config`; by default the host name without ``domain`` is
            ``mta.example``.

    Raises:
        ValueError: the zone cannot be read.

    Attributes:
        mta: the service; a new one after each start.
        address: the IP address of the agent.
        reactor: the clock and network; `MemoryNetwork.listen` adds remote servers.
        files: the disk.
        commits: the transactions of the queue, and their failures.
        resolver: the DNS.
        hops: the next hops that `hop` has made, by address and port.
        events: the steps of all mail so far (`mail.events`), in their order.
        clock_offset: seconds by which its wall clock is wrong.
        domain: the local domain.
        directory: of database, lock and certificate.
        remove_directory: removes it, if it is a temporary one.
        when_off: called in the turn of the clock in which a crash is complete.
    """

    def __init__(
        self,
        directory: str | None = None,
        *,
        domain: str | None = None,
        zone: str = "",
        beside: MemoryMTA | None = None,
        seed: int = 0,
        reactor: MemoryReactor | None = None,
        files: UnsyncedFiles | None = None,
        file_executor: Callable[[Machine], Executor] | None = None,
        resolver: FakeResolver | None = None,
        resolver_of: Callable[[Machine, FakeResolver], Any] = MachineResolver,
        extensions: tuple[Extension, ...] = (),
        application_policy: object | None = None,
        deliveries: Mapping[str, ApplicationDelivery] | None = None,
        checkers: Sequence[ICredentialsChecker] = (),
        patience: float = 0.0,
        **settings: Any,
    ) -> None:
        self.remove_directory: Callable[[], object] = lambda: None
        if directory is None:
            directory = tempfile.mkdtemp(prefix="memory-mta-", dir=_memory_directory())
            self.remove_directory = finalize(self, shutil.rmtree, directory, True)
        self.directory = directory = os.path.abspath(directory)
        self.domain = domain or "localhost"
        self.when_off: Callable[[], object] = lambda: None
        os.makedirs(directory, mode=0o700, exist_ok=True)
        network = reactor or (beside.reactor if beside else None)
        self.reactor: MemoryReactor = network or MemoryReactor()
        self.files = files or UnsyncedFiles()
        self.files.powered_off = self._power_is_off
        self.commits = Commits(self.files)
        self.commits.crash = self.lose_power
        self.clock_offset = 0.0
        self._file_executor = file_executor
        self._resolver_of = resolver_of
        names = resolver or (beside.resolver if beside else None)
        self.resolver: FakeResolver = names or FakeResolver()
        self._number = self.reactor.machines
        self.reactor.machines += 1
        self._seed = seed
        self._patience = patience
        self._starts = 0
        self.address = SMTP[0] if domain is None else f"198.51.100.{self._number + 1}"
        self._own_address = "" if domain is None else self.address
        defaults: dict[str, Any] = {
            "hostname": "mta.example" if domain is None else f"mta.{domain}",
            "local_domains": ("localhost" if domain is None else domain,),
            "listeners": (Listener(endpoint=f"tcp:{SMTP[1]}:interface={self.address}"),),
            "tls_certificate": _certificate_file(directory),
        }
        if domain is not None:
            defaults["recipients"] = "any"
        self._config = Config(state_dir=directory, **{**defaults, **settings})
        self._objects = _Objects(application_policy, deliveries, checkers, extensions)
        if domain is not None:
            self.zone(_own_records(domain, self._config.hostname, self.address))
        self.zone(zone)
        self.hops: dict[tuple[str, int], FakeHop] = {}
        self._hop_ports: list[MemoryPort] = []
        self.events: list[MailEvent] = []
        self._power = _Power.NEW
        self._machine = Machine(self.reactor, self._own_address)
        self.mta = self._make()

    def _make(self) -> MailTransferAgent:
        random = system_random()
        place = (self._number, self._starts)
        # The first one of a network draws what the seed alone says.
        random.seed(f"{self._seed} {place}" if any(place) else self._seed)
        self._starts += 1
        machine = self.commits.machine = self._machine
        mta = MailTransferAgent(
            self._config,
            reactor=self._machine,
            environment=Environment(
                wall_time=self.wall_time,
                random=random,
                ids=QueueIds(
                    wall_time=self.wall_time, random=random, worker=self._number % WORKERS
                ),
                files=self.files,
                commit_executor=self.commits,
                file_executor=(
                    inline_executor if self._file_executor is None else self._file_executor(machine)
                ),
                password_executor=inline_executor,
                resolver=self._resolver_of(machine, self.resolver),
                secret=lambda octets: random.getrandbits(8 * octets).to_bytes(octets, "big"),
                nonce=lambda: f"{random.getrandbits(128):032x}",
                source_of=None,
                give_way=lambda: None,
                patience=self._patience,
            ),
            policy=self._objects.policy,
            deliveries=self._objects.deliveries,
            checkers=self._objects.checkers,
            extensions=self._objects.extensions,
        )
        mta.subscribe(lambda event: self.events.append(event) if machine.is_up else None)
        return mta

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        self.remove_directory()

    def wall_time(self) -> float:
        """Return the wall time of the machine, in seconds since the epoch."""
        return EPOCH + self.reactor.seconds() + self.clock_offset

    # Its life.

    def start(self) -> None:
        """Start the service; return when it accepts connections.

        After `stop` or `crash` a new agent starts, on the same disks and with the same settings.

        Raises:
            Exception: as `MailTransferAgent.startService` does.
        """
        self.boot()
        self.reactor.settle()

    def boot(self) -> None:
        """Start the service as `start` does, and let the clock run what this leads to.

        Raises:
            Exception: as `MailTransferAgent.startService` does.
        """
        if self._power is _Power.FAILING:
            raise RuntimeError("found the power going off, expected a later turn of the clock")
        if self._power is _Power.OFF:
            self._machine = Machine(self.reactor, self._own_address)
            self.mta = self._make()
        self._power = _Power.ON
        self.mta.privilegedStartService()
        self.mta.startService()

    @property
    def is_running(self) -> bool:
        """Whether the agent was started, and has neither stopped nor crashed since."""
        return self._power in (_Power.ON, _Power.STOPPING)

    @property
    def can_stop(self) -> bool:
        """Whether `end` can be called: it runs, and does not stop already."""
        return self._power is _Power.ON

    def stop(self, patience: float = 100.0) -> None:
        """Stop the service; advance the clock until it has stopped, at most ``patience`` seconds.

        The hops close too. After a crash there is nothing else to stop.

        Raises:
            TimeoutError: it still runs.
        """
        if self._power in (_Power.NEW, _Power.ON):
            self._result(self.end(), patience=patience)
        for port in self._hop_ports:
            port.stopListening()
        self._hop_ports.clear()
        self.hops.clear()

    def end(self) -> Deferred[None]:
        """Stop the service; the Deferred fires when it has stopped, and never after a crash."""
        self._power = _Power.STOPPING

        def ended(result: Any) -> Any:
            if self._power is _Power.STOPPING:
                self._power = _Power.OFF
            return result

        return self.mta.stopService().addBoth(ended)

    def restart(self) -> None:
        """Stop the service, unless it has crashed, and start a new one (`start`)."""
        if self._power in (_Power.NEW, _Power.ON):
            self._result(self.end())
        self.start()

    def crash(self) -> None:
        """End the agent as a power cut does, at once; `start` starts a new one on its disks.

        What was not synced is lost, on all of `files`; the other ends of its connections lose them.
        Mail that was acknowledged stays: the database is synced by each commit. Of the network, the
        zone and the hops nothing is lost.
        """
        self.lose_power()
        self.reactor.settle()

    def lose_power(self) -> None:
        """End the agent as `crash` does, also from within a call of its own.

        The call goes on to its return, and changes nothing on the disks. The agent can be started
        from the next turn of the clock on.
        """
        if self._power not in (_Power.FAILING, _Power.OFF):
            self.files.cut_power_in(0)
            self._power_is_off()

    def _power_is_off(self) -> None:
        if self._power in (_Power.FAILING, _Power.OFF):
            return
        self._power = _Power.FAILING
        self._machine.crash()

        def crashed() -> None:
            self.files.crash()
            self.mta.abandon()
            self._power = _Power.OFF
            self.when_off()

        self.reactor.callLater(0, crashed)

    # Time.

    def advance(
        self,
        seconds: float | timedelta = 0.0,
        *,
        minutes: float = 0.0,
        hours: float = 0.0,
        days: float = 0.0,
    ) -> None:
        """Advance the clock, from each timer on the way to the next.

        What a timer leads to (deliveries, commits, octets on the network) has happened before the
        next one. The arguments add up.

        Raises:
            NeverQuiet: calls that are due at one time do not come to an end (`network`).
        """
        self.reactor.advance(_seconds(seconds, minutes=minutes, hours=hours, days=days))

    def advance_until(self, predicate: Callable[[], _T], limit: float | timedelta = _WEEK) -> _T:
        """Advance the clock to the first timer after which a predicate is true.

        Args:
            predicate: is called now, and after all that happens at each time.
            limit: seconds for which the clock is advanced at most.

        Returns:
            What the predicate returned last.

        Raises:
            TimeoutError: the predicate was not true within the limit.
            NeverQuiet: calls that are due at one time do not come to an end (`network`).
        """
        end = self.reactor.seconds() + _seconds(limit)
        self.reactor.settle()
        while not (result := predicate()):
            if not self.reactor.advance_to_next(end):
                self.reactor.advance(max(0.0, end - self.reactor.seconds()))
                if result := predicate():
                    return result
                raise TimeoutError(
                    f"found {predicate} not true within {_seconds(limit):g} s on the clock,"
                    " expected it to become true"
                )
        return result

    # The world around it.

    def zone(self, text: str) -> None:
        """Add records to the DNS, from the text of a master file (`FakeResolver.add_zone`).

        Raises:
            ValueError: the text cannot be read.
        """
        self.resolver.add_zone(text)

    def hop(self, address: str = "192.0.2.1", port: int = 25) -> FakeHop:
        """Return the next hop at an address: a new one, or the one that is there.

        The first one of a network is the next hop of every domain that is neither local nor in the
        zone; records of the zone, or ``routes`` among the settings, lead to others.
        """
        if (address, port) not in self.hops:
            hop = FakeHop(self.reactor, resolver=self.resolver, wall_time=self.wall_time)
            self._hop_ports.append(self.reactor.listenTCP(port, hop, interface=address))
            self.hops[address, port] = hop
            self.resolver.default = self.resolver.default or address
        return self.hops[address, port]

    def connect(
        self, address: tuple[str, int] | None = None, *, greet: bool = True, source: str = ""
    ) -> MemoryClient:
        """Return a new client, which by default has sent EHLO.

        Args:
            address: of the listener; None: port 25 of the agent.
            greet: whether it sends EHLO.
            source: its own address; empty: of loopback, from where it may relay by default.

        Raises:
            ConnectionError: no port is bound there.
        """
        client = MemoryClient(self.reactor)
        factory = _Client(client)
        self.reactor.connectTCP(
            *(address or (self.address, SMTP[1])),
            factory,
            bindAddress=(source, 0) if source else None,
        )
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
        account: str | None = None,
    ) -> Receipt:
        """Put a message of the application into the queue (`MailTransferAgent.submit`).

        Deliveries that can begin at once have begun, and ended where they need no time.

        Raises:
            Exception: as the Deferred of `MailTransferAgent.submit` fails.
            TimeoutError: it takes more than 600 seconds on the clock.
        """
        return self._result(
            self.mta.submit(
                message,
                sender=sender,
                recipients=recipients,
                notify=notify,
                hold_until=hold_until,
                account=account,
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
        try:
            self.advance_until(lambda: bool(results), patience)
        except TimeoutError:
            raise TimeoutError(f"found no answer of the MTA in {patience:g} s") from None
        if isinstance(results[0], Failure):
            results[0].raiseException()
        result: _T = results[0]
        return result

    # Its mailboxes.

    @property
    def inbox(self) -> list[InboxMessage]:
        """The messages in all mailboxes of the agent, in the order of their delivery.

        Mail in quarantine, in the folder Junk, is not among them.
        """
        root = self._config.maildir
        if not self.files.is_directory(root):
            return []
        paths = [
            path
            for path in self.files.tree(root)
            if os.path.dirname(path).endswith("/new") and "/.Junk/" not in path
        ]
        return [_received(self.files.content(path)) for path in sorted(paths, key=_order)]

    def inbox_of(self, address: str) -> list[InboxMessage]:
        """Return the messages in one mailbox, in the order of their delivery.

        Args:
            address: of the mailbox. As in a delivery, case does not matter, and ``bob+tag`` is
                ``bob``.
        """
        local_part, _, domain = address.rpartition("@")
        return [_received(content) for content in self.mail(local_part, domain)]

    def mail(self, local_part: str, domain: str = "") -> list[bytes]:
        """Return the octets of the messages in a mailbox, oldest first, with their trace fields.

        As `inbox_of`; without a domain it is the first local one.
        """
        domain = domain or self._config.local_domains[0]
        folder = "/".join(mailbox_directory(Mailbox(local_part, domain)))
        new = f"{self._config.maildir}/{folder}/new"
        if not self.files.is_directory(new):
            return []
        names = sorted(self.files.names(new), key=_order)
        return [self.files.content(f"{new}/{name}") for name in names]


def _received(raw: bytes) -> InboxMessage:
    """Return a message of a Maildir; the delivery has put its envelope on top."""
    sender, recipient = _RETURN_PATH.search(raw), _DELIVERED_TO.search(raw)
    return InboxMessage(
        sender[1].decode() if sender else "",
        (recipient[1].decode().strip(),) if recipient else (),
        raw,
    )


def _order(path: str) -> tuple[int, ...]:
    """Return the order of a file of a Maildir, by its name: time, and number of the delivery."""
    found = _ORDER.match(os.path.basename(path))
    return tuple(map(int, found.groups())) if found else ()


def _own_records(domain: str, hostname: str, address: str) -> str:
    """Return the records of an agent (RFC 1035 §5)."""
    reversed_address = ".".join(reversed(address.split(".")))
    return (
        f"{domain}. MX 10 {hostname}.\n"
        f"{hostname}. A {address}\n"
        f"{reversed_address}.in-addr.arpa. PTR {hostname}.\n"
    )


def _seconds(
    seconds: float | timedelta, *, minutes: float = 0.0, hours: float = 0.0, days: float = 0.0
) -> float:
    if isinstance(seconds, timedelta):
        seconds = seconds.total_seconds()
    return seconds + 60.0 * minutes + 3600.0 * hours + 86_400.0 * days


def _memory_directory() -> str | None:
    """Return a directory in memory, where a sync takes no time; None: the system has none."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


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
