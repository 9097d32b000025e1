"""`MailTransferAgent`: a whole mail transfer agent, in one process or in several."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.application.service import IServiceCollection, Service
from twisted.cred.checkers import ICredentialsChecker
from twisted.internet.defer import Deferred, DeferredLock, fail, succeed
from twisted.logger import Logger
from twisted.mail.interfaces import IMessageDelivery
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from ._version import __version__
from .admin.api import Action, Actions, Admin
from .admin.application_queue import ApplicationQueue
from .admin.control.client import NAME
from .admin.control.server import ControlSocket
from .admin.events_api import EventsAPI
from .admin.expiries import Expiries
from .admin.history import MINUTE, History, HistoryFile
from .admin.idempotency import IdempotencyKeys
from .admin.messages_api import MessagesAPI
from .admin.overview import Installation, Overview
from .admin.queue_api import QueueAPI
from .admin.report import ReportedState
from .admin.status import Status
from .admin.web.access import Access
from .admin.web.certificates import SiteCertificates
from .admin.web.site import StatusSite
from .agent.activity import Activity
from .agent.agent import Agent
from .agent.application import Application
from .agent.audience import LocalAudience, Outcomes, Subscriber
from .agent.environment import Environment
from .agent.expiry import KINDS, Kind
from .agent.gauges import read_agent, read_process
from .agent.listeners import own_certificate
from .agent.maildrop import Maildrop
from .agent.maildrop_counts import NAME as MAILDROP
from .agent.settings import notice_domain, shared_settings
from .agent.shard import shares
from .cluster.identity import machine_id
from .cluster.machines import OwnMachine
from .config import Config
from .config.change import changes, fixed
from .delivery.application_delivery import ApplicationDelivery
from .dns import DNSResolver
from .health.trouble import Trouble
from .interfaces import Resolver
from .mail.address import Mailbox
from .mail.printable import printable
from .message.application_content import Content
from .policy.protocol import Policy
from .queue.store.lock import StateLock
from .routing.routes import Routes
from .server.application_mail import Receipt
from .server.application_submission import Submission
from .smtp.application_envelope import HoldUntil, Notify
from .smtp.extension import Extension
from .system.executors import ThreadExecutor
from .system.files import DiskFiles
from .system.ownership import require_ours
from .system.ports import Bound, Ports, on_loopback
from .system.real_world import system_random
from .system.repetition import Repetition
from .system.shutdown import AtShutdown
from .system.timers import with_monotonic_time
from .system.work import finished
from .telemetry.metrics import Metrics, table
from .workers.machine_limits import MachineLimits, failures_of
from .workers.single import SingleProcess

# Parts of an installation that few have are imported where they are made.
if TYPE_CHECKING:
    from .admin.web.captured_pages import CapturedPages
    from .admin.web.policy_host import PolicyHost
    from .agent.certificate_renewal import CertificateRenewal
    from .workers.workers import Workers

if TYPE_CHECKING:
    from .cluster.cluster import Cluster

# Seconds between two reports of workers, so that their counts are kept, and troubles are logged.
_COUNTING = 2.0
_EXPIRIES_LAST = 60.0  # seconds

__all__ = ["CannotReload", "Environment", "MailTransferAgent"]


class CannotReload(Exception):
    """Other settings cannot be put in force while the program runs; the text is one line."""


class ServiceState(enum.Enum):
    """The state of a `MailTransferAgent`."""

    NEW = "it was not started"
    STARTING = "it opens its queue"
    READY = "it takes connections"
    FAILED = "it could not start"
    STOPPING = "it drains, or has ended"


class ServiceEvent(enum.Enum):
    """An event in the life of a `MailTransferAgent`."""

    START = "start"
    OPENED = "the queue was opened"
    FAIL = "the start failed"
    STOP = "stop"


TRANSITIONS: Mapping[ServiceState, Mapping[ServiceEvent, ServiceState]] = {
    ServiceState.NEW: {
        ServiceEvent.START: ServiceState.STARTING,
        ServiceEvent.STOP: ServiceState.STOPPING,
    },
    ServiceState.STARTING: {
        ServiceEvent.OPENED: ServiceState.READY,
        ServiceEvent.FAIL: ServiceState.FAILED,
        ServiceEvent.STOP: ServiceState.STOPPING,
    },
    ServiceState.READY: {
        ServiceEvent.FAIL: ServiceState.FAILED,  # connections cannot be taken
        ServiceEvent.STOP: ServiceState.STOPPING,
    },
    ServiceState.FAILED: {
        ServiceEvent.START: ServiceState.STARTING,
        ServiceEvent.STOP: ServiceState.STOPPING,
    },
    ServiceState.STOPPING: {},
}


class MailTransferAgent(Service):
    """A whole mail transfer agent (`IService`).

    `privilegedStartService` binds its ports, `startService` opens its queue; then it takes
    connections. It sets no signal handler and no log observer, and starts no thread and no process
    before it is started.

    Attributes:
        config: the settings in force.
        metrics: of this process.
        admin: answers the requests of the tool and the page.
        queue: lists and steers the mail in the queue.
    """

    log = Logger()

    def __init__(
        self,
        config: Config,
        *,
        reactor: Any,
        environment: Environment | None = None,
        log_lines: Callable[[bytes], None] | None = None,
        actions: Mapping[str, Action] | None = None,
        control: bool = False,
        troubles: Callable[[], Sequence[Trouble]] = tuple,
        policy: Policy | object | None = None,
        policy_timeout: float = 5.0,
        deliveries: Mapping[str, ApplicationDelivery] | None = None,
        delivery_timeout: float = 300.0,
        checkers: Sequence[ICredentialsChecker] = (),
        extensions: Sequence[Extension] = (),
    ) -> None:
        """Put the parts together; the disk and the network are not touched.

        Args:
            config: the settings.
            reactor: IReactorTime, IReactorTCP, IReactorUDP, IReactorFromThreads, …; with workers
                IReactorProcess and IReactorSocket too. Twisted's reactors time by the wall clock;
                the timers of this service go by a monotonic one beside it.
            environment: everything that the agent uses besides the reactor; None, and with workers:
                the real one.
            log_lines: takes the log of workers, in whole lines; None: each line is logged here.
            actions: of the operator, besides ``reload`` or instead of it.
            control: whether the tool has a socket in the state directory
                (`admin.control.client.NAME`).
            troubles: returns troubles outside the service, for example of its log.
            policy: decides on clients and their mail beside the settings (`policy.protocol.Policy`,
                any methods of it); None: the settings alone do.
            policy_timeout: seconds for each answer of the policy; without one in time the mail is
                deferred with 451.
            deliveries: deliver the mail of the routes ``deliver:name``, by name
                (`delivery.application_delivery.ApplicationDelivery`).
            delivery_timeout: seconds for each answer of a delivery; without one in time it is
                canceled, and tried again later. At a stop it is canceled after the drain timeout.
            checkers: of ``twisted.cred``; judge AUTH, in place of those of the settings where both
                take the same credentials. Each avatar id is the name of an account.
            extensions: of ESMTP, besides the standard ones; spoken on every listener and, where a
                next hop announces them, to that.

        Raises:
            TypeError: ``deliveries``, ``checkers`` or ``extensions`` hold something else.
            ValueError: a route cannot be read, or names a delivery that is not there; or there are
                workers, and objects that they cannot be handed.
        """
        self.config = config
        self._reactor = with_monotonic_time(reactor)
        self._state = ServiceState.NEW
        self._started_at = 0.0  # wall time
        self._stopped: Deferred[None] | None = None
        self._failure: Failure | None = None  # of the start, or by a stop
        self._ready: list[Deferred[None]] = []
        self._reloading = DeferredLock()
        environment = environment or Environment()
        self._wall_time = environment.wall_time
        self._files = environment.files or DiskFiles()
        self._lock = StateLock(os.path.join(config.state_dir, "lock"))
        self._at_shutdown = AtShutdown(self._reactor, self.stopService)
        self._ports = Ports(self._reactor)
        self._web = Ports(self._reactor)
        self._web_is_clear = False
        self._policy_host: PolicyHost | None = None
        if config.mta_sts.publish is not None:
            from .admin.web.policy_host import PolicyHost

            self._policy_host = PolicyHost(config, reactor=self._reactor, wall_time=self._wall_time)
        self._page_certificates: SiteCertificates | None = None
        if config.web is not None and config.web_page.tls:
            self._page_certificates = SiteCertificates(config, wall_time=self._wall_time)
        self._agent: Agent | None = None
        self._processes: SingleProcess | Workers
        application = Application(
            policy=policy,
            policy_timeout=policy_timeout,
            deliveries=deliveries or {},
            delivery_timeout=delivery_timeout,
            checkers=checkers,
            extensions=extensions,
        )
        self._cluster: Cluster | None = None
        self._machine_limits: MachineLimits | None = None
        if config.queue.database is not None:
            self._cluster = self._make_cluster(config.queue.database, environment)
        if config.workers == 1:
            self._processes = self._single_process(environment, application)
        else:
            given = [*application.given, *(["environment"] if environment != Environment() else [])]
            if given:
                raise ValueError(
                    f"{', '.join(given)}: found workers = {config.workers}, expected 1: worker"
                    " processes cannot be handed objects of the application"
                )
            self._processes = self._workers(environment, log_lines or self._log_lines)
        self._dns: DNSResolver | None = None  # of this process, where workers have their own
        self._renewal = None if config.acme is None else self._make_renewal(config, environment)
        self._overview = self._make_overview(troubles)
        submissions = self._processes.submissions
        self._events = EventsAPI(self.subscribe, name=environment.nonce, clock=self._reactor)
        self.admin = Admin(
            agents=self._processes,
            overview=self._overview,
            actions=Actions(
                by_name={"reload": self.reload, "take-in": self._take_in, **(actions or {})},
                refusals=(CannotReload,),
            ),
            version=__version__,
            clock=self._reactor,
            events=self._events,
            messages=MessagesAPI(
                self.submit,
                keys=IdempotencyKeys(
                    os.path.join(config.state_dir, "requests", "keys.sqlite"), self._wall_time
                ),
                executor=submissions.executor,
            ),
        )
        self.queue = ApplicationQueue(QueueAPI(self._processes, clock=self._reactor).answer)
        self._access = Access(
            clock=self._reactor,
            secret=environment.secret,
            executor=submissions.executor,
            longest_message=submissions.limit,
            open=config.capture,
        )
        self._control = self._control_socket() if control else None
        self._maildrop = self._make_maildrop() if control else None
        if (maildrop := self._maildrop) is not None:
            self.metrics.read(table.LOCAL_WAITING, lambda: maildrop.counts.waiting, "waiting")
            self.metrics.read(table.LOCAL_WAITING, lambda: maildrop.counts.set_aside, "set_aside")
        self._expiries = Expiries(
            lambda: self.config,
            run=submissions.executor,
            clock=self._reactor,
            lasts=_EXPIRIES_LAST,
        )
        for kind in KINDS:
            self.metrics.read(table.EXPIRY, partial(self._first_expiry, kind), kind)
        # Workers are asked now and then, so that their counts are not lost with them.
        self._counting = Repetition(self._overview.status, self._reactor)
        self._history = History(
            HistoryFile(os.path.join(config.state_dir, "history", "history.sqlite")),
            run=self._processes.submissions.executor,
            wall_time=self._wall_time,
        )
        self._remembering = Repetition(self._overview.status, self._reactor)

    # Its parts.

    def _make_cluster(self, url: str, environment: Environment) -> Cluster:
        # The client of PostgreSQL takes longer to import than the rest of the start.
        from .cluster.cluster import cluster_at
        from .queue.store.postgresql.connection import Connecting

        return cluster_at(
            Connecting(url, self._reactor.seconds),
            machine=lambda: machine_id(self.config.state_dir, self._files, environment.secret),
            own=lambda machine: OwnMachine(
                id=machine,
                hostname=self.config.hostname,
                version=__version__,
                workers=self.config.workers,
                settings=shared_settings(self.config),
            ),
            period=lambda: self.config.auth_failure_period,
            thread=ThreadExecutor(self._reactor, 1, "twisted-mta cluster"),
            reactor=self._reactor,
            wall_time=environment.wall_time,
        )

    def _single_process(self, environment: Environment, application: Application) -> SingleProcess:
        audience = LocalAudience()
        if self._cluster is not None:
            self._machine_limits = MachineLimits(self._cluster.credits, clock=self._reactor)
            self._cluster.credits.serve = self._machine_limits.ledger.serve
            self._cluster.counts = self._machine_limits.failures
        self._agent = agent = Agent(
            self.config,
            reactor=self._reactor,
            environment=environment,
            limits=self._machine_limits,
            is_own_address=self._ports.reach,
            application=application,
            audience=audience,
        )
        if self._cluster is not None:
            self._cluster.release = agent.connections.release
        self.metrics = agent.metrics
        read_agent(agent)
        return SingleProcess(agent, audience=audience, ports=self._ports, state=self._process_state)

    def _workers(self, environment: Environment, lines: Callable[[bytes], None]) -> Workers:
        from .workers.workers import Workers

        self.metrics = Metrics()
        read_process(self.metrics)
        workers = Workers(
            self.config,
            reactor=self._reactor,
            ports=self._ports,
            lines=lines,
            metrics=self.metrics,
            wall_time=environment.wall_time,
            nonce=environment.nonce,
        )
        if self._cluster is not None:
            workers.ledger.upstream = self._cluster.credits
            self._cluster.credits.serve = workers.ledger.serve
            self._cluster.release = workers.release
            self._cluster.counts = partial(failures_of, workers.ledger.grants)
        return workers

    def _make_overview(self, troubles: Callable[[], Sequence[Trouble]]) -> Overview:
        config = self.config
        return Overview(
            Installation(
                hostname=config.hostname,
                version=__version__,
                listeners=lambda: [str(bound) for bound in self.bound],
                wanted_listeners=len(config.listeners)
                + sum(
                    each is not None for each in (config.web, config.mta_sts.publish, config.acme)
                ),
                started_at=lambda: self._started_at or self._wall_time(),
                troubles=lambda: [
                    *self._processes.troubles(),
                    *(() if self._maildrop is None else self._maildrop.troubles()),
                    *self._renewal_troubles(),
                    *self._expiry_troubles(),
                    *self._page_troubles(),
                    *troubles(),
                ],
                cluster=lambda: None if self._cluster is None else self._cluster.status(),
                metrics=self.metrics if self._agent is None else None,
            ),
            reports=self._processes.reports,
            clock=self._reactor,
            wall_time=self._wall_time,
        )

    def _make_renewal(self, config: Config, environment: Environment) -> CertificateRenewal:
        from .agent.certificate_renewal import CertificateRenewal

        if self._agent is not None:
            resolver: Resolver = self._agent.resolver
        else:
            resolver = self._dns = DNSResolver(
                self._reactor,
                nameservers=config.dns.nameservers,
                timeout=config.dns.timeout,
                trust_ad=config.dns.trust_ad,
            )
        return CertificateRenewal(
            config,
            reactor=self._reactor,
            wall_time=self._wall_time,
            random=environment.random or system_random(),
            files=self._files,
            executor=self._processes.submissions.executor,
            resolver=resolver,
            install=self._use_issued_certificate,
        )

    async def _use_issued_certificate(self) -> Sequence[str]:
        """Put a certificate that was issued in force, in all processes and at the policy host."""
        used: Deferred[list[str]] = self._reloading.run(
            lambda: Deferred.fromCoroutine(self._use_issued_certificate_now())
        )
        return await used

    async def _use_issued_certificate_now(self) -> list[str]:
        sites = (self._policy_host, self._page_certificates)
        uses = [finished(each.load_issued()) for each in sites if each is not None]
        lines = await self._processes.use_issued_certificate()
        return list(dict.fromkeys((*lines, *(line for use in uses for line in use()))))

    def _renewal_troubles(self) -> Sequence[Trouble]:
        problem = "" if self._renewal is None else self._renewal.problem
        return [Trouble(kind="renewal", text=problem)] if problem else []

    def _expiry_troubles(self) -> Sequence[Trouble]:
        if self._state is not ServiceState.READY:
            return ()
        return tuple(self._expiries.troubles(self._wall_time()))

    def _page_troubles(self) -> Sequence[Trouble]:
        if not self._web_is_clear or self._access.on_loopback or not self._access.configured:
            return ()
        text = (
            f"{printable(str(self.config.web))} has no TLS: passwords and tokens of the page can"
            " be read on their way"
        )
        return [Trouble(kind="clear_page", text=text)]

    def _first_expiry(self, kind: Kind) -> float | None:
        return self._expiries.first(kind) if self._state is ServiceState.READY else None

    def _control_socket(self) -> ControlSocket:
        return ControlSocket(
            self.admin.answer,
            path=os.path.join(self.config.state_dir, NAME),
            reactor=self._reactor,
            in_place=lambda: self._lock.in_place,
            longest_message=self._processes.submissions.limit,
        )

    def _load_sites(self, config: Config) -> Sequence[Callable[[], Sequence[str]]]:
        """Read the files of the sites; return functions that put them in force.

        Raises:
            CertificateError: a certificate cannot be used.
            AccountsError: the file of accounts of the page cannot be used.
            TokensError: the file of its tokens cannot be used.
        """
        sites = [each for each in (self._policy_host, self._page_certificates) if each is not None]
        uses = [finished(each.load(config)) for each in sites]
        if config.web is not None:
            uses.append(finished(self._access.load(config)))
        return uses

    def _captured_pages(self) -> CapturedPages:
        from .admin.captured_mail import CapturedMail
        from .admin.web.captured_pages import CapturedPages

        mail = CapturedMail(self.config.maildir, self._files)
        return CapturedPages(mail, self.agent.file_executor)

    def _make_maildrop(self) -> Maildrop:
        config = self.config
        return Maildrop(
            config.local_submission_directory or os.path.join(config.state_dir, MAILDROP),
            shared=config.local_submission_directory is not None,
            submit=self._submit_of_user,
            executor=self._processes.submissions.executor,
            clock=self._reactor,
            wall_time=self._wall_time,
            limit=self._processes.submissions.limit,
            hostname=config.hostname,
            notice_domain=lambda: notice_domain(self.config),
        )

    def _submit_of_user(self, message: Content, **arguments: Any) -> Deferred[Receipt]:
        """Put a message of a local user into the queue (`agent.maildrop.Submit`)."""
        try:
            submission = self._processes.submissions.read(message, **arguments)
        except Exception:
            return fail()
        return Deferred.fromCoroutine(self._processes.submit(submission))

    async def _take_in(self) -> None:
        """Take in mail that waits, an action of ``twisted-mta-sendmail``."""
        if self._maildrop is not None and self._state is ServiceState.READY:
            await self._maildrop.take_in()

    @property
    def bound(self) -> Sequence[Bound]:
        """Its ports, in the order of the configuration."""
        return [*self._ports.bound, *self._web.bound]

    @property
    def ports(self) -> Mapping[str, int]:
        """The number of the first TCP port of each kind: ``smtp``, ``submission``, ``web``, ….

        `bound` has all ports, UNIX sockets included.
        """
        ports: dict[str, int] = {}
        for bound in self.bound:
            number = getattr(bound.address, "port", None)
            if number is not None:
                ports.setdefault(bound.kind, number)
        return ports

    # Its life.

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """Become part of an application, or of another service; start where that has started."""
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]

    def _happened(self, event: ServiceEvent) -> None:
        self._state = TRANSITIONS[self._state][event]

    def _refuse_another_start(self) -> None:
        if self._state is ServiceState.STOPPING:
            raise RuntimeError("a mail transfer agent is started once; make a new one")

    def privilegedStartService(self) -> None:
        """Bind the ports, without taking connections.

        Raises:
            CannotListen: a port cannot be bound.
            RuntimeError: the service was stopped; it does not start again.
        """
        self._refuse_another_start()
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        config = self.config
        try:
            for number, listener in enumerate(config.listeners):
                self._ports.bind(
                    listener.kind,
                    listener.endpoint,
                    self._processes.factory(number),
                    implicit_tls=listener.implicit_tls,
                )
            if config.web is not None:
                site = StatusSite(
                    self._overview.status,
                    access=self._access,
                    spool=config.state_dir,
                    answer=self.admin.answer,
                    hosts=(config.hostname, *config.web_page.hosts),
                    captured=self._captured_pages() if config.capture else None,
                    history=self._history,
                    expiries=Expiries(
                        lambda: self.config,
                        run=self._processes.submissions.executor,
                        clock=self._reactor,
                    ),
                    reactor=self._reactor,
                )
                factory: Any = site
                if self._page_certificates is not None:
                    creator: Any = self._page_certificates.context.creator
                    factory = TLSMemoryBIOFactory(creator, False, site)
                    factory.noisy = False
                tls = factory is not site or config.web.startswith("ssl:")
                self._web.bind("web", config.web, factory, implicit_tls=tls)
                self._access.on_loopback = on_loopback(self._web.bound[-1].address)
                self._web_is_clear = not tls
            if config.mta_sts.publish is not None:
                self._web.bind("mta-sts", config.mta_sts.publish, self._policy_host)
            if self._renewal is not None and config.acme is not None:
                from .admin.web.challenge_host import challenge_host

                challenges = challenge_host(self._renewal.answers, reactor=self._reactor)
                self._web.bind("acme", config.acme.endpoint, challenges)
        except BaseException:
            self._unbind()
            raise

    def startService(self) -> None:
        """Open the queue and take connections.

        The start ends later (`when_ready`) with workers, and where the workers of a parent that was
        killed have to end first. From now on the service stops with the reactor, if it was not
        stopped before.

        Raises:
            OSError: the state directory cannot be made.
            NotOurs: another user owns the state directory, or may write to it.
            StateInUse: another process uses the state directory.
            StoreError: the queue cannot be opened.
            CertificateError: the certificate or its key cannot be used.
            CannotListen: a port cannot be bound, and was not before.
            RuntimeError: the service runs, or was stopped; it does not start again.
        """
        self._refuse_another_start()
        if ServiceEvent.START not in TRANSITIONS[self._state]:
            raise RuntimeError("a mail transfer agent is started once; this one runs")
        config = self.config
        self._happened(ServiceEvent.START)
        self._at_shutdown.start()
        try:
            if not self.bound:
                self.privilegedStartService()
            require_ours(config.state_dir)
            self._files.make_directories(config.state_dir)
            require_ours(config.state_dir)  # and not made by another user meanwhile
            self._lock.acquire()
            if self._renewal is not None:
                self._renewal.check_certificate()
            own = own_certificate(config, files=self._files, wall_time=self._wall_time)
            if own is not None:
                instead = "--tls-certificate takes a real one"
                if self._renewal is not None:
                    instead = "it serves until the authority of [acme] has issued one"
                self.log.info(
                    "the certificate for STARTTLS is our own and proves nothing: {file}; {instead}",
                    file=own,
                    instead=instead,
                )
            for use in self._load_sites(config):
                use()
            if self._control is not None:
                self._control.start()
            shared = config.queue.database is not None
            started = self._processes.start(shares(config.state_dir, config.workers, shared=shared))
        except BaseException:
            self._at_shutdown.stop()
            self._cannot_start(Failure())
            raise
        super().startService()  # type: ignore[no-untyped-call]
        if started is None:
            self._begin()
        else:
            started.addCallback(lambda _: self._begin()).addErrback(self._cannot_start)

    def _begin(self) -> None:
        if self._state is ServiceState.STOPPING:
            return
        self._happened(ServiceEvent.OPENED)
        self._started_at = self._wall_time()
        if self._cluster is not None:
            self._cluster.start()
        if self._agent is None:
            self._counting.start(_COUNTING)
        if self.config.web is not None:
            self._history.load()
            self._overview.watch(self._history.take)
            self._remembering.start(MINUTE)
        self._processes.serve()
        self._web.accept_connections()
        if self._maildrop is not None:
            self._maildrop.start()
        self.log.info("ready: {bound}", bound=", ".join(map(str, self.bound)))
        if self._renewal is not None:
            self._renewal.start()
        self._fire_ready()

    def _cannot_start(self, failure: Failure) -> None:
        if self._state is ServiceState.STOPPING:
            return  # the stop frees everything
        self._happened(ServiceEvent.FAIL)
        self._failure = failure
        self._unbind()
        if self._control is not None:
            self._control.stop()
        self._lock.release()
        self._fire_ready(failure)

    def _unbind(self) -> None:
        self._ports.unbind()
        self._web.unbind()

    def stopService(self) -> Deferred[None]:
        """Drain: take no more connections, let sessions and deliveries end, close the queue.

        Returns:
            Fires when the ports are free, the threads and processes have ended, and the state
            directory is not in use.
        """
        super().stopService()  # type: ignore[no-untyped-call]
        stopped: Deferred[None] = Deferred()
        if self._stopped is None:
            self._happened(ServiceEvent.STOP)
            self._at_shutdown.stop()
            self._failure = Failure(RuntimeError("it was stopped"))
            self._fire_ready(self._failure)
            self._stopped = Deferred.fromCoroutine(self._stop())

        def ended(result: Any) -> Any:
            stopped.callback(result)  # each caller has a Deferred of its own
            return None

        self._stopped.addBoth(ended)
        return stopped

    async def _stop(self) -> None:
        if self._counting.running:
            self._counting.stop()
        self._events.stop()
        if self._remembering.running:
            self._remembering.stop()
            await self._history.flush()
        try:
            if self._renewal is not None:
                await self._renewal.stop()
            if self._dns is not None:
                self._dns.stop()
            if self._maildrop is not None:
                await self._maildrop.stop()
            if self._cluster is not None:
                self._cluster.credits.ends = True
            await self._processes.stop()
        finally:
            if self._machine_limits is not None:
                self._machine_limits.close()
            if self._cluster is not None:
                await self._cluster.stop()
            await self._ports.unbind()
            await self._web.unbind()
            if self._control is not None:
                await self._control.stop()
            self._lock.release()

    def hurry(self) -> None:
        """Let a stop wait for nothing: sessions and deliveries are cut off.

        Accepted mail is safe; a message that is cut off before its final reply may be delivered
        twice.
        """
        self._processes.hurry()

    def abandon(self) -> None:
        """Let go of the queue and the state directory as they are, as the end of a process does.

        For tests, whose process goes on after a crash. Nothing of this object is to be used
        afterwards, and nothing may call it: its timers and connections have ended.
        """
        if self._agent is not None:
            self._agent.abandon()
        self._lock.release()

    def reload(self, config: Config | None = None) -> Deferred[list[str]]:
        """Put other settings in force, and read again the files that they name.

        All or nothing: if a file or a setting cannot be used, nothing changes. Open connections
        keep their settings. Files that have changed are read in slices, by one process after the
        other. A start that is under way ends first.

        Args:
            config: the settings; None: those in force.

        Returns:
            Fires with lines that say what has changed, printable, and with warnings, which begin
            with ``warning:`` and are logged; none before the start. Fails with `CannotReload`.
        """
        reloaded: Deferred[list[str]] = self._reloading.run(
            lambda: Deferred.fromCoroutine(self._reload(config or self.config))
        )

        def count(result: list[str] | Failure) -> list[str] | Failure:
            self.metrics.count(table.RELOADS, "failed" if isinstance(result, Failure) else "ok")
            return result

        reloaded.addBoth(count)
        return reloaded

    async def _reload(self, config: Config) -> list[str]:
        if self._state in (ServiceState.NEW, ServiceState.STOPPING):
            return []
        if self._control is not None:
            self._control.look()
        if self._state is not ServiceState.READY:
            try:
                await self.when_ready()
            except Exception as error:
                raise CannotReload(f"it does not start: {error}") from error
        before = self.config
        unchangeable = fixed(before, config)
        if unchangeable:
            raise CannotReload(
                f"only a start can change this: {'; '.join(unchangeable)}; start it anew, or take"
                " the change back"
            )
        try:
            if self._lock.in_place:  # or one would be made where the state directory has gone
                own_certificate(config, files=self._files, wall_time=self._wall_time)
            sites = self._load_sites(config)
            use = await self._processes.prepare(config)
        except Exception as error:
            raise CannotReload(str(error)) from error
        self.config = config
        if self._renewal is not None:
            self._renewal.use(config)
        # A file may be one of a listener's too.
        lines = dict.fromkeys((*await use(), *(line for each in sites for line in each())))
        return [*changes(before, config), *lines]

    def when_ready(self) -> Deferred[None]:
        """Return a Deferred that fires once all ports listen and the queue is open.

        It fails as `startService` does, and with `RuntimeError` after a stop.
        """
        if self._failure is not None:
            return fail(self._failure)
        if self._state is ServiceState.READY:
            return succeed(None)
        ready: Deferred[None] = Deferred()
        self._ready.append(ready)
        return ready

    def submit(
        self,
        message: Content,
        *,
        sender: str | Mailbox,
        recipients: Iterable[str | Mailbox] = (),
        notify: Notify = None,
        hold_until: HoldUntil = None,
        account: str | None = None,
    ) -> Deferred[Receipt]:
        """Put a message of the application into the queue, once for all recipients.

        It may go to any domain, whatever ``relay_from`` says, no policy is asked about it, and it
        is signed where there is a key for its From domain. Aliases of our domains are expanded; a
        missing Date or Message-ID is added; Bcc fields of a message object are left out. A start
        that is under way ends first.

        Args:
            message: an `email.message.EmailMessage`; octets; or an open binary file, which is read
                to its end in a thread. Lines end in CR LF or LF. A message object may change
                afterwards; a file and octets must not before the Deferred fires.
            sender: the reverse-path, to which bounces go; empty: the null one.
            recipients: mailboxes.
            notify: of which events the sender wants notice (RFC 3461): ``"SUCCESS"``,
                ``"FAILURE"``, ``"DELAY"``, or several in a sequence, or ``"NEVER"``; None: of
                failures and delays.
            hold_until: the time before which no delivery is tried: a datetime with a time zone, or
                seconds since the epoch; at most 30 days ahead. None: now.
            account: the account that the message is sent for, by any name: the limits of
                ``[account_limits]`` and ``[[account_limit]]`` hold for it. None: no limit holds.

        Returns:
            Fires after the commit. It fails, and nothing is stored, with `TypeError` or
            `ValueError` where an argument cannot be used; with `SubmissionRefused` where a
            recipient of ours does not exist, the queue takes no mail, or the worker that took the
            message has died before the commit; with `LimitReached`, which is one of these, where
            the account has sent too much in an hour; with `RuntimeError` where the agent is not
            started or has stopped (deliveries of the application may submit mail until they end);
            with the file's own exception where it cannot be read. If it is cancelled during the
            commit, the message may be in the queue all the same.
        """
        try:
            submission = self._processes.submissions.read(
                message,
                sender=sender,
                recipients=recipients,
                notify=notify,
                hold_until=hold_until,
                account=account,
            )
        except Exception:
            return fail()
        return Deferred.fromCoroutine(self._once_ready(submission))

    async def _once_ready(self, submission: Submission) -> Receipt:
        if self._state is ServiceState.STARTING:
            await self.when_ready()
        if self._state is not ServiceState.READY and not self._processes.drains:
            raise RuntimeError(
                f"submit: expected an agent that takes connections: {self._state.value}"
            )
        return await self._processes.submit(submission)

    def outcome(self, id: str) -> Deferred[Outcomes]:
        """Return what has become of a message that was submitted (`submit`).

        Args:
            id: its queue id.

        Returns:
            Fires when the last recipient has an outcome, with a mapping from each recipient, as it
            was submitted, to the event that ended it: `Delivered`, `Bounced`, `Expired` or
            `Removed`. Of several members of an alias, one that was not delivered decides. Fails
            with `LookupError` for messages from before the start, of other clients, and those that
            ended before the last 1,000, whose worker has died unheard, or that another machine of a
            shared queue has ended; with `RuntimeError` at a stop.
        """
        return self._processes.outcome(id)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call a function with each step of all mail from now on (`mail.events.MailEvent`).

        It is called in the reactor's thread. What it raises, or its coroutine or Deferred fails
        with, is logged, and harms nothing.

        Args:
            subscriber: takes an event.

        Returns:
            A function that ends the subscription, at once and also during an event.

        Raises:
            TypeError: it is no function.
        """
        return self._processes.subscribe(subscriber)

    def when_idle(self) -> Deferred[None]:
        """Return a Deferred that fires once no delivery is under way and none is due.

        Mail that waits for its next attempt, for a suspended next hop or for its release does not
        count. It fires at a stop too.
        """
        return Deferred.fromCoroutine(self._processes.when_idle())

    def message_delivery(self) -> IMessageDelivery:
        """Return an `IMessageDelivery` that queues here, for servers of ``twisted.mail``.

        Raises:
            RuntimeError: there are workers, which have the queue.
        """
        # twisted.mail.smtp imports the reactor, which an application that imports us may choose
        # later.
        from .server.queueing_delivery import QueueingDelivery

        return QueueingDelivery(self.agent.intake_behind_servers)

    @property
    def agent(self) -> Agent:
        """The agent of this process.

        Raises:
            RuntimeError: there are workers, which have agents of their own.
        """
        if self._agent is None:
            raise RuntimeError("with workers, the queue is in processes of its own; workers=1")
        return self._agent

    @property
    def activity(self) -> Activity:
        """The last messages, and their outcomes (`agent`)."""
        return self.agent.activity

    @property
    def routes(self) -> Routes:
        """The routes in force (`agent`)."""
        return self.agent.mailboxes.routes

    def status(self) -> Deferred[Status]:
        """Return the state of all processes together."""
        return self._overview.status()

    def watch(self, watcher: Callable[[Status], object]) -> None:
        """Call a function with each status that is gathered from now on; it must not fail."""
        self._overview.watch(watcher)

    def _process_state(self) -> ReportedState:
        if self._state is ServiceState.STOPPING:
            return "draining"
        return "ready" if self._state is ServiceState.READY else "starting"

    def _fire_ready(self, result: Failure | None = None) -> None:
        ready, self._ready = self._ready, []
        for each in ready:
            each.callback(result)

    def _log_lines(self, lines: bytes) -> None:
        for line in lines.decode("utf-8", "replace").splitlines():
            self.log.info("{line}", line=line)
