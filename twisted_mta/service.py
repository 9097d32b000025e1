"""`MailTransferAgent`: the one place where the rooms are joined."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from . import __version__
from .config import Config, Listener
from .delivery.maildir import MaildirDelivery, NoMailbox, mailbox_directory
from .delivery.relay import Relay
from .delivery.tls import ClientContexts
from .dns import DNSResolver
from .entropy import ThreadExecutor, system_random, wall_time
from .envelope import Message, NextHop, Outcome
from .files import DiskFiles
from .interfaces import Executor, Files, Ids, Random, Resolver, WallTime
from .listeners import Bound, Listeners
from .queue.activity import Activity
from .queue.commit import GroupCommit
from .queue.ids import QueueIds
from .queue.lock import StateLock
from .queue.runner import Runner, RunnerSettings
from .queue.schedule import Schedule
from .queue.spool import Spool
from .queue.sqlite import SQLiteStore
from .routing.exchangers import Exchangers
from .routing.routes import Routes, parse_route
from .server.intake import Intake, IntakePolicy
from .server.queueing import QueueingDelivery
from .server.room import Room
from .smtp.address import Mailbox
from .smtp.reply import Reply
from .web import RecentMessage, Status, StatusSite


@frozen(kw_only=True)
class World:
    """All that the outside is to a mail transfer agent; what is None is the real thing.

    Attributes:
        wall_time: what time people say it is.
        random: what jitter, order and names are drawn from.
        ids: queue ids.
        files: the disk.
        commit_executor: where the queue's transactions run, one at a time.
        file_executor: where other files are written.
        resolver: the DNS.
    """

    wall_time: WallTime = wall_time
    random: Random | None = None
    ids: Ids | None = None
    files: Files | None = None
    commit_executor: Executor | None = None
    file_executor: Executor | None = None
    resolver: Resolver | None = None


class MailTransferAgent(Service):
    """A whole mail transfer agent (`IService`).

    It binds its ports when it is started with privileges, opens its queue when it is started, and
    takes connections once both are done. It sets no signal handler and no log observer, and starts
    no thread before it is started.

    Attributes:
        config: what it was told.
        activity: what has passed through it since it was made.
    """

    log = Logger()

    def __init__(self, config: Config, *, reactor: Any, world: World | None = None) -> None:
        """Prepare everything, without touching the disk or the network.

        Args:
            config: see there.
            reactor: IReactorTime, IReactorTCP, IReactorUDP, IReactorFromThreads, …
            world: what is not the reactor's.

        Raises:
            ValueError: a route cannot be read.
        """
        self.config = config
        self.activity = Activity()
        self._reactor = reactor
        self._started_at = 0.0
        self._threads: list[ThreadExecutor] = []
        self._ready: list[Deferred[None]] = []
        self._stopping = False
        world = world or World()
        random = world.random or system_random()
        self._wall_time = world.wall_time
        self._files = world.files or DiskFiles()
        self._ids = world.ids or QueueIds(wall_time=world.wall_time, random=random)
        commit_executor = world.commit_executor or self._thread(1, "queue")
        file_executor = world.file_executor or self._thread(4, "files")
        resolver = world.resolver or DNSResolver(
            reactor, nameservers=config.dns.nameservers, timeout=config.dns.timeout
        )

        self.routes = Routes(
            [
                parse_route(pattern, url, default_port=config.delivery.port)
                for pattern, url in config.routes
            ],
            config.local_domains,
        )
        self._lock = StateLock(os.path.join(config.state_dir, "lock"))
        self._spool = Spool(
            os.path.join(config.state_dir, "body"),
            files=self._files,
            executor=file_executor,
            small_body=config.queue.small_body,
        )
        store = SQLiteStore(
            os.path.join(config.state_dir, "queue.sqlite"), spool=self._spool, files=self._files
        )
        self._room = Room(
            memory=config.message_memory,
            share=config.queue.small_body,
            minimum_free=config.minimum_free_disk,
            free=store.free,
            clock=reactor,
        )
        self._commit = GroupCommit(
            store,
            executor=commit_executor,
            clock=reactor,
            max_operations=config.queue.commit_messages,
            max_octets=config.queue.commit_octets,
        )
        self._maildir = MaildirDelivery(
            config.maildir,
            files=self._files,
            executor=file_executor,
            wall_time=world.wall_time,
            hostname=config.hostname,
            random=random,
        )
        self._relay = Relay(
            reactor=reactor,
            locate=Exchangers(
                resolver,
                random=random,
                port=config.delivery.port,
                is_local=self._is_our_host,
            ).locate,
            helo=config.delivery.helo or config.hostname,
            contexts=ClientContexts(),
            tls_level=config.delivery.tls,
            source_address=config.delivery.source_address,
        )
        self.runner = Runner(
            RunnerSettings(
                hostname=config.hostname,
                schedule=Schedule(config.queue.retry_minimum, config.queue.retry_maximum),
                lifetime=config.queue.lifetime,
                concurrency=config.queue.concurrency,
                per_hop=config.queue.connections_per_hop,
            ),
            commit=self._commit,
            route=self.routes.route,
            deliver=self._deliver,
            clock=reactor,
            wall_time=world.wall_time,
            random=random,
            ids=self._ids,
            observe=self.activity.attempt_settled,
        )
        self._listeners = Listeners(
            config,
            reactor=reactor,
            intake=self._intake,
            files=self._files,
            wall_time=world.wall_time,
        )

    @property
    def bound(self) -> Sequence[Bound]:
        """Its ports, in the order of the configuration."""
        return self._listeners.bound

    # Life.

    def privilegedStartService(self) -> None:
        """Bind the ports; no connection is taken yet.

        Raises:
            CannotListen: one of them cannot be bound.
        """
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        self._listeners.bind()
        if self.config.web is not None:
            site = StatusSite(self.status, hosts=(self.config.hostname,), reactor=self._reactor)
            self._listeners.listen("web", self.config.web, site)

    def startService(self) -> None:
        """Open the queue and take connections.

        Raises:
            OSError: the state directory cannot be made.
            StateInUse: another process has it.
            StoreError: the queue cannot be opened.
            CertificateError: the certificate or its key cannot be used.
            CannotListen: it was not started with privileges, and a port cannot be bound.
            RuntimeError: it was stopped before; what has been drained does not begin again.
        """
        if self._stopping:
            raise RuntimeError("a mail transfer agent is started once; make a new one")
        config = self.config
        try:
            if not self.bound:
                self.privilegedStartService()
            self._files.make_directories(config.state_dir)
            self._lock.acquire()
            self._listeners.load_certificates()
            recovery = self._commit.start()
        except BaseException:
            self._listeners.unbind()
            self._lock.release()
            self._fire_ready(Failure())
            raise
        for name in recovery.swept:
            self.log.info("removed body {name}: its message was never acknowledged", name=name)
        for id in recovery.quarantined:
            self.log.error("{id} has lost its body file; it is kept and not delivered", id=id)
        for threads in self._threads:
            threads.start()
        super().startService()  # type: ignore[no-untyped-call]
        self._started_at = self._wall_time()
        self.runner.start()
        self._listeners.accept_connections()
        self.log.info("ready: {bound}", bound=", ".join(map(str, self.bound)))
        self._room.refusal()  # a disk that is full already is said now, and not to clients alone
        self._fire_ready()

    def stopService(self) -> Deferred[None]:
        """Drain: take no more connections, let what is under way end, close the queue.

        Returns:
            Fires when the ports are free, the threads have ended, and the state directory is
            nobody's.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        self._stopping = True
        self._fire_ready(Failure(RuntimeError("it was stopped")))
        return Deferred.fromCoroutine(self._stop())

    def reload(self) -> list[str]:
        """Read all certificates, keys and authorities again, for the handshakes that follow.

        All or nothing: if one file cannot be used, all that was in force stays. Connections that
        exist go on with what they have. Blocks while the files are read.

        Returns:
            Lines that say what changed, printable; none before the start.

        Raises:
            CertificateError: a file cannot be used; which, and why.
            OSError: the certificate of our own cannot be renewed.
        """
        return self._listeners.load_certificates() if self.running else []

    def when_ready(self) -> Deferred[None]:
        """Return what fires once all ports listen and the queue is open.

        It fails as `startService` does, and with `RuntimeError` where it is stopped instead.
        """
        if self.running:
            return succeed(None)
        ready: Deferred[None] = Deferred()
        self._ready.append(ready)
        return ready

    def message_delivery(self) -> QueueingDelivery:
        """Return an `IMessageDelivery` that queues here, for servers of ``twisted.mail``'s own."""
        return QueueingDelivery(self._intake(Listener(endpoint="tcp:0")))

    def status(self) -> Status:
        """Say how things stand, for the status page."""
        census, activity = self._commit.census(), self.activity
        return Status(
            hostname=self.config.hostname,
            version=__version__,
            started_at=self._started_at,
            now=self._wall_time(),
            queue={
                "messages": census.messages,
                "recipients": census.recipients,
                "in delivery": census.leased,
                "deferred": census.deferred,
                "quarantined": census.quarantined,
            },
            counters={
                "accepted": activity.accepted,
                "delivered": activity.delivered,
                "deferred": activity.deferred,
                "failed": activity.failed,
                "early data": sum(each.violations for each in self._listeners.factories),
                "TLS downgrades": sum(each.downgrades for each in self._listeners.factories),
            },
            recent=tuple(
                RecentMessage(
                    id=str(each.id),
                    received_at=each.received_at,
                    reverse_path=None
                    if each.envelope.reverse_path is None
                    else str(each.envelope.reverse_path),
                    recipients=tuple(
                        str(recipient.mailbox) for recipient in each.envelope.recipients
                    ),
                    size=each.size,
                    state=each.state,
                    last=each.last,
                )
                for each in activity.recent()
            ),
        )

    async def _stop(self) -> None:
        unbound = self._listeners.unbind()
        await self._within(self._listeners.drain(), self._listeners.abandon)
        await self._within(self.runner.stop(), self._give_up)
        await self._within(self._relay.close(), self._relay.abort)
        await self._commit.stop()
        for threads in self._threads:
            threads.stop()
        self._lock.release()
        await unbound

    def _give_up(self) -> None:
        self._relay.abort()
        # On a disk that takes nothing, outcomes would wait for ever: what they are about is due
        # again at the next start.
        self._commit.stop()

    async def _within(self, done: Deferred[Any], give_up: Callable[[], object]) -> None:
        """Wait for ``done``, and after the drain timeout see to it that it comes."""
        timer = self._reactor.callLater(self.config.drain_timeout, give_up)
        await done
        if timer.active():
            timer.cancel()

    def _fire_ready(self, result: Failure | None = None) -> None:
        ready, self._ready = self._ready, []
        for each in ready:
            each.callback(result)

    # Joints.

    def _thread(self, threads: int, name: str) -> ThreadExecutor:
        executor = ThreadExecutor(self._reactor, threads, f"twisted-mta {name}")
        self._threads.append(executor)
        return executor

    def _intake(self, listener: Listener) -> Intake:
        config = self.config
        return Intake(
            IntakePolicy(
                hostname=config.hostname,
                local_domains=config.local_domains,
                relay_from=config.relay_from,
                relay_certificates=listener.relay_certificates,
                max_hops=listener.max_hops,
                max_header_size=listener.max_header_size,
                lifetime=config.queue.lifetime,
            ),
            accept=self._accept,
            new_body=self._spool.new_body,
            exists=self._exists,
            refusal=self._refusal,
            ids=self._ids,
            wall_time=self._wall_time,
            room=self._room,
        )

    def _accept(self, message: Message) -> Deferred[None]:
        def accepted(_: None) -> None:
            self.activity.message_accepted(message)

        return self.runner.accept(message).addCallback(accepted)

    def _exists(self, mailbox: Mailbox) -> bool:
        if self.config.recipients == "any" or self.routes.route(mailbox).transport != "maildir":
            return True
        return self._maildir.exists(mailbox)

    def _refusal(self, mailbox: Mailbox) -> Reply | None:
        """Return what is known to become of mail for a mailbox, if that is a failure.

        Said to the client at once, it spares the sender, who may be forged, a notice.
        """
        next_hop = self.routes.route(mailbox)
        if next_hop.transport == "error":
            return next_hop.reply
        if next_hop.transport == "maildir":
            try:
                mailbox_directory(mailbox)
            except NoMailbox as error:
                return error.reply
        return None

    def _is_our_host(self, host: str) -> bool:
        return host == self.config.hostname.lower() or self.routes.is_local(host)

    def _deliver(self, next_hop: NextHop, message: Message) -> Deferred[Sequence[Outcome]]:
        if next_hop.transport == "maildir":
            return self._maildir.deliver(next_hop, message)
        return self._relay.deliver(next_hop, message)
