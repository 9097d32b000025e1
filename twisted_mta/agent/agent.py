"""The agent: sessions, queue and deliveries of one process, put together.

A mail transfer agent is one agent, or several agents in processes of their own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from attrs import evolve, frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config import Config, Listener
from ..config.change import WARNING
from ..delivery.application_deliveries import ApplicationDeliveries
from ..delivery.credentials import read_secret
from ..delivery.host_policies import HostPolicies
from ..delivery.maildir import MaildirDelivery
from ..delivery.relay import Relay
from ..delivery.sent_counts import SentCounts
from ..delivery.terms import LoadedTerms
from ..delivery.tokens.accounts import TokenAccounts
from ..health.growth import Growth
from ..interfaces import Limits, Refused, Take
from ..mail.envelope import NO_PARAMETERS, Parameters
from ..mail.events import Held, Removed
from ..mail.message import Message
from ..mail.next_hop import NextHop
from ..mail.outcome import Outcome
from ..mail.printable import printable
from ..policy.capacity import Capacity
from ..policy.dkim.signer import Signer
from ..policy.dkim.signing_keys import SigningKey, SigningKeys, load_keys
from ..policy.suppression.file import SuppressionFile
from ..policy.suppression.suppression import Suppression
from ..queue.commit import FULL, NOT_NOW, GroupCommit
from ..queue.operator.operations import Inspect, Inspected
from ..queue.operator.tallies import Tallies
from ..queue.operator.waiting_mail import WaitingMail
from ..queue.runner import Changed, Runner
from ..queue.schedule.next_hops import SuspendedNextHop
from ..queue.store.contract import Recovery, StateInUse, Store, StoreError
from ..queue.store.lock import StateLock
from ..queue.store.spool import Spool
from ..queue.store.sqlite import SQLiteStore
from ..queue.store.suspended_file import SUSPENDED_FILE, SuspendedFile
from ..routing.exchangers import TargetLocator
from ..routing.lookup_report import LookupReporter
from ..server.application_mail import ApplicationMail
from ..server.application_submission import SubmissionReader
from ..server.intake import Intake
from ..server.intake_policy import IntakePolicy
from ..server.lmtp_direct import DirectDelivery
from ..server.policy_stages import PolicyStages
from ..smtp.extension.standard import OUTGOING
from ..system.deadline import sleep
from ..system.executors import ThreadExecutor
from ..system.file_table import NOTHING, Digests, digests
from ..system.limits import LocalLimits
from ..system.slices import AtOnce, Pace, result_of
from ..telemetry.metrics import Metrics, table
from ..telemetry.recent_sessions import RecentSessions
from ..telemetry.tracing import Tracing
from ..tls.client import ClientContexts
from ..tls.handshakes import HandshakeEntry
from ..tls.journal import TLSJournal
from ..tls.memory import TLSEntry, TLSMemory, entries_below
from .activity import Activity
from .application import Application
from .audience import Audience, LocalAudience
from .authentication import Authentication
from .disks import Disks
from .dmarc_reports import DMARCReports
from .environment import Environment
from .events import Events
from .explain.domain_tls import DomainTLS
from .explain.explainer import Explainer
from .explain.forecast import Forecaster
from .feedback import Feedback
from .files_hold import FilesHold
from .filters import Filters
from .listeners import Listeners
from .mailboxes import Mailboxes
from .mta_sts import MTASTS
from .operator_suspensions import OperatorSuspensions
from .outcome_watch import OutcomeWatch, Queued, queued_recipients
from .own_mail import OwnMail
from .patience import Patience
from .policies import Policies
from .policy_services import PolicyServices
from .resources import Resources
from .settings import (
    LONGEST_HOLD,
    OWN_MAIL,
    idle_connections,
    intake_policy,
    largest_submission,
    limits_of,
    minimum_free,
    runner_settings,
)
from .shard import QUEUE, Shard, need_queue, shard_directory
from .tls_reports import LIFETIME, REPORT_PARAMETERS, SessionReports
from .webhooks import Webhooks

if TYPE_CHECKING:
    from .shared_lists import SharedLists
    from .shared_queue import SharedQueue

_STILL_IN_USE = 5.0  # seconds that workers of a parent that was killed have to end
_LOOK_AGAIN = 0.1  # seconds
_LAST_ANSWERS = 60.0  # seconds for the answers to final dots, after the drain timeout
# Users are those of the application's own portal, of whose addresses we know nothing.
_BEHIND_SERVERS = Listener(endpoint="tcp:0", own_addresses="off")
SUPPRESSION_FILE = os.path.join("suppression", "suppression.sqlite")
"""The suppression list of all processes, in the state directory."""
_SMTP = ("smtp:", "smtps:")  # the beginnings of next hops that are other hosts
_LAST_WORDS = 3.0  # seconds for connections to close, also in a hurry


@frozen
class Change:
    """Other settings, ready to be put in force.

    Attributes:
        digests: of the files that are good.
        use: puts the settings in force; fires with lines that say what has changed in the files,
            printable. It fails only where memory runs out, before anything has changed.
    """

    digests: Digests
    use: Callable[[], Deferred[list[str]]]


class Agent:
    """One process's share of a mail transfer agent.

    It binds no port, sets no signal handler and no log observer, and starts no thread before it is
    started.

    Args:
        config: the settings.
        reactor: IReactorTime, IReactorTCP, IReactorUDP, IReactorFromThreads, …
        environment: everything that it uses besides the reactor; None: the real one.
        limits: counts over all processes; None: over this one.
        is_own_address: whether mail for an address and a port would come back to us.
        worker: which process this is, from 0.
        tls_written: called when the agents of other processes may read what this one has learned of
            TLS (`tls_news`); None: there are none.
        application: what an application adds; None: nothing.
        audience: is told of mail; None: nothing listens.

    Attributes:
        config: the settings in force.
        started_at: wall time at which it was made.
        metrics: of this process.
        activity: the last messages.
        events: tells the application what becomes of mail.
        webhooks: tells URLs.
        authentication: decides which clients are authenticated, and as which senders.
        mailboxes: know which mailboxes are ours, and where mail goes next.
        memory: the hosts that TLS was used with.
        signing_keys: sign mail of our domains.
        feedback: counts reports of complaints about our mail.
        suppression: the list of addresses that get no mail of our users.
        listeners: the factories of all ports.
        application_mail: takes mail of the application.
        submissions: reads mail of the application.
        dmarc_reports: what DMARC observes, for daily reports.
        tls_reports: the results of TLS sessions with mail exchangers, likewise.
        shards: its parts of the queue; new mail goes to the first.
        operator_suspensions: the destinations that the operator has suspended.
        capacity: decides whether one more message can be taken.
        tracing: copies the lines of sessions to readers.
        sessions: the last sessions with clients and with servers.
        explainer: explains where mail is, or would go.
        domain_tls: knows the TLS that mail for a domain would have.
        resolver: the DNS, and whether it answers.
        connections: to other hosts.
        traffic: numbers of them.
        disks: the room on the file systems.
        tokens: those of accounts at next hops.
        failures: the records of failures without a notice, and by how much they grow.
        worker: see the argument.
        wall_time: the time of day.
        file_executor: where files are read and written.
        tls_news: called when another process has learned something of TLS.
        drains: whether a stop is under way, and deliveries that go on may still submit mail.

    Raises:
        ValueError: a route cannot be read.
    """

    log = Logger()

    def __init__(
        self,
        config: Config,
        *,
        reactor: Any,
        environment: Environment | None = None,
        limits: Limits | None = None,
        is_own_address: Callable[[str, int], bool] = lambda address, port: False,
        worker: int = 0,
        tls_written: Callable[[], object] | None = None,
        application: Application | None = None,
        audience: Audience | None = None,
    ) -> None:
        self.config = config
        self.worker = worker
        self._application = application = application or Application()
        self._resources = resources = Resources(
            config, reactor=reactor, environment=environment or Environment(), worker=worker
        )
        self.wall_time = resources.wall_time
        self.file_executor = resources.file_executor
        self.resolver = resources.resolver
        self.started_at = resources.wall_time()
        self._opening: Deferred[None] | None = None
        self._patience = Patience(reactor)
        self._limits = limits or LocalLimits()
        # Its parts. One may use those above it.
        self.metrics = Metrics()
        self.activity = Activity(self.metrics, wall_time=resources.wall_time)
        self._audience = audience or LocalAudience()
        self._outcome_watch: OutcomeWatch | None = None
        self.events = Events(self._audience, wall_time=resources.wall_time)
        self.drains = False
        self.signing_keys = SigningKeys()  # none before the start
        self._signer = self._make_signer()
        suppression = SuppressionFile(os.path.join(config.state_dir, SUPPRESSION_FILE))
        self._lists = self._make_shared_lists(suppression)
        self._filters = Filters(reactor)
        self._policy_services = PolicyServices(reactor, resources.ids)
        self._policies = Policies(
            application,
            resolver=resources.resolver,
            wall_time=resources.wall_time,
            clock=reactor,
            executor=resources.file_executor,
            state_dir=config.state_dir,
            metrics=self.metrics,
            observe=lambda observation: self.dmarc_reports.observe(observation),
            filters=self._filters,
            services=self._policy_services,
            decide=None if self._lists is None else self._lists.greylist.decide,
            foretell=None if self._lists is None else self._lists.greylist.foretell,
        )
        self.suppression = self._make_suppression(suppression)
        self.feedback = self._make_feedback()
        self._maildir = self._make_maildir()
        self._own_deliveries = ApplicationDeliveries(
            application.deliveries,
            timeout=application.delivery_timeout,
            clock=reactor,
            sign=self._signer.sign,
        )
        self.authentication = self._make_authentication()
        self.mailboxes = self._make_mailboxes()
        self.memory = TLSMemory(wall_time=resources.wall_time)
        self._journal = self._make_journal(str(worker), tls_written)
        self.tls_news: Callable[[], None] = self._journal.sync_soon
        self._locator = self._make_locator(is_own_address)
        self._contexts = ClientContexts()
        self.webhooks = Webhooks(
            resources=resources,
            contexts=self._contexts,
            metrics=self.metrics,
            workers=config.workers,
        )
        self._mta_sts = MTASTS(config, resources=resources, contexts=self._contexts)
        self.tokens = self._make_tokens()
        self._relay = self._make_relay()
        self.connections = self._relay.connections
        self.traffic = self.connections.traffic
        self.failures = Growth(reactor)
        self.disks = Disks(
            config.state_dir,
            config.maildir,
            files=resources.files,
            executor=resources.file_executor,
            clock=reactor,
        )
        self._shared: SharedQueue | None = None
        self._home = self._make_shard(worker)
        self.shards: list[Shard] = []  # empty before the start
        self.operator_suspensions = OperatorSuspensions(
            lambda: self.shards,
            counted=lambda: self.counted_shards,
            wall_time=resources.wall_time,
            pace=resources.sliced,
            clock=reactor,
        )
        self.dmarc_reports = self._make_dmarc_reports()
        self.tls_reports = self._make_tls_reports()
        self.capacity = self._make_capacity()
        self.listeners = self._make_listeners()
        resources.sliced.is_busy = self._has_sessions
        self.application_mail = self._make_application_mail()
        self.submissions = self._make_submission_reader()
        self._behind_servers: Intake | None = None
        self.sessions = RecentSessions(self.wall_time)
        self.tracing = self._make_tracing(f"{worker}-" if config.workers > 1 else "")
        self._reporter = LookupReporter(
            self._locator.locate, self.resolver, is_local=self.mailboxes.is_our_host
        )
        self.explainer = self._make_explainer()
        self.domain_tls = DomainTLS(
            config=lambda: self.config,
            mailboxes=self.mailboxes,
            relay=self._relay,
            reporter=self._reporter,
        )

    # Its life.

    def start(self, shards: Sequence[int] = (0,), *, create: bool = True) -> Deferred[None] | None:
        """Open the queue, and begin to deliver due mail.

        Args:
            shards: the numbers of its shards, its own first.
            create: whether a queue that does not exist is made: not where a process before had it.

        Returns:
            None where the queue is open. Where the workers of a parent that was killed have to end
            first, a Deferred that fires once it is; a stop cancels it.

        Raises:
            OSError: the state directory cannot be made.
            StateInUse: another process has a shard, and does not end.
            StoreError: the queue cannot be opened.
            CertificateError: the certificate or its key cannot be used.
        """
        self.shards = [self._home, *map(self._make_shard, shards[1:])]
        if not create:
            for number in shards if self._shared is None else ():
                need_queue(self.config.state_dir, number)
        self.connections.pool.most = idle_connections()
        deadline = self._resources.reactor.seconds() + _STILL_IN_USE
        try:
            self._open()
        except StateInUse:
            self._opening = Deferred.fromCoroutine(self._open_later(deadline))
            return self._opening
        return None

    async def _open_later(self, deadline: float) -> None:
        while True:
            await sleep(self._resources.reactor, _LOOK_AGAIN)
            try:
                return self._open()
            except StateInUse:
                if self._resources.reactor.seconds() >= deadline:
                    raise

    def _open(self) -> None:
        opened: list[Shard] = []
        try:
            for shard in self.shards:
                self._resources.files.make_directories(
                    shard_directory(self.config.state_dir, shard.number)
                )
                shard.lock.acquire()
                opened.append(shard)
            at_once = self.prepare(self.config, pace=AtOnce())
            result_of(result_of(Deferred.fromCoroutine(at_once)).use())
            self._journal.load()
            self._maildir.start()
            for shard in self.shards:
                shard.recover(taken_over=shard is not self._home)
        except BaseException:
            for shard in opened:
                shard.store.close()
                shard.lock.release()
            raise
        self._resources.start_threads()
        if self._lists is not None:
            self._lists.start()
        self._journal.start()
        self._mta_sts.start()
        self.webhooks.start([shard.commit.perform for shard in self.shards])
        for shard in self.shards:
            shard.runner.start()
            if self._shared is not None:
                self._shared.start(shard.commit, shard.runner, self.operator_suspensions.take)
        if self._shared is not None and isinstance(self._audience, LocalAudience):
            self._outcome_watch = OutcomeWatch(
                self._audience, self.queued_recipients, clock=self._resources.reactor
            )
            self._outcome_watch.start()
        self.capacity.refusal()  # logs a disk that is full already

    def stop(self) -> Deferred[None]:
        """Drain: begin nothing new, let sessions and deliveries end, and close the queue.

        Sessions and deliveries have the drain timeout; a session that is still in a transaction
        then gets 421. Deliveries that wait for the reply to their final dot have a minute more:
        without the reply the message would be delivered twice.
        """
        return Deferred.fromCoroutine(self._stop())

    def hurry(self) -> None:
        """Let a stop that is under way, or is to come, wait for nothing."""
        self._patience.hurry()

    async def _stop(self) -> None:
        self.drains = True
        if self._outcome_watch is not None:
            self._outcome_watch.stop()
        self._resources.sliced.stop()
        if self._opening is not None:
            self._opening.cancel()
        for shard in self.shards:
            shard.tallies.stop()
            shard.hold.stop()
        # Messages that are accepted from now on are delivered after the next start.
        ended = DeferredList(
            [self.listeners.drain(), *(shard.runner.stop() for shard in self.shards)]
        )
        if not await self._patience.ends(ended, self.config.drain_timeout):
            self.listeners.abandon()
            self._relay.abort_unsent()
            self._own_deliveries.cancel()
            if not await self._patience.ends(ended, _LAST_ANSWERS, hurried=_LAST_WORDS):
                self._give_up()
                await self._patience.ends(ended, _LAST_WORDS, hurried=_LAST_WORDS)
        self.drains = False
        self._resources.submitting.stop()
        self._filters.stop()
        self._policy_services.stop()
        reports = DeferredList([self.dmarc_reports.stop(), self.tls_reports.stop()])
        await self._patience.ends(reports, _LAST_WORDS)
        await self._patience.ends(self.suppression.stop(), _LAST_WORDS)
        closed = self._relay.close()
        if not await self._patience.ends(closed, _LAST_WORDS):
            self._relay.abort()
            await self._patience.ends(closed, _LAST_WORDS, hurried=_LAST_WORDS)
        # What is left is posted after the next start.
        if not await self._patience.ends(self.webhooks.stop(), _LAST_WORDS):
            self.webhooks.cancel()
        self._mta_sts.stop()
        self.tokens.stop()
        self._resources.stop_resolver()
        if self._shared is not None:
            self._shared.stop()
        await DeferredList([shard.commit.stop() for shard in self.shards])
        await self._journal.stop()
        self.authentication.close()
        if self._lists is not None:
            self._lists.stop()
        self._resources.stop_threads()
        for shard in self.shards:
            shard.lock.release()
        self._audience.stop()

    def _give_up(self) -> None:
        self.listeners.abandon(at_once=True)
        self._relay.abort()
        # On a disk that cannot be written to, outcomes would wait forever: their recipients are due
        # again at the next start.
        for shard in self.shards:
            shard.commit.stop()

    def abandon(self) -> None:
        """Let go of the queue as it is, as the end of a process does (`MailTransferAgent`)."""
        for shard in self.shards:
            shard.store.close()
            shard.lock.release()

    # Questions.

    async def when_idle(self) -> None:
        """Return once no delivery is under way and none is due (`queue.runner.Runner.is_idle`)."""
        while True:
            await DeferredList([shard.runner.when_idle() for shard in self.shards])
            if self.is_idle:
                return

    @property
    def is_idle(self) -> bool:
        """Whether no delivery is under way and none is due, or it does not run."""
        return all(shard.runner.is_idle or not shard.runner.is_running for shard in self.shards)

    async def queued_recipients(self, ids: Sequence[str]) -> Queued | None:
        """Return which recipients of messages are in its own shard; None: it cannot be read."""
        try:
            return await queued_recipients(self._home.commit, ids)
        except StoreError:
            return None

    @property
    def has_shared_queue(self) -> bool:
        """Whether other processes have the same queue."""
        return self._shared is not None

    @property
    def counted_shards(self) -> Sequence[Shard]:
        """The shards whose mail this process counts: of a shared queue, one process counts all."""
        return () if self.has_shared_queue and self.worker else self.shards

    def suspended(self) -> Sequence[SuspendedNextHop]:
        """Return the suspended next hops of each shard; one may be suspended in several."""
        return [each for shard in self.shards for each in shard.runner.suspended()]

    def _has_sessions(self) -> bool:
        """Whether a client is connected, or a delivery is under way."""
        return any(factory.connections_open for factory in self.listeners.factories) or any(
            shard.runner.active for shard in self.shards
        )

    def waiting_for_suspended(self) -> Mapping[str, int]:
        """Return the recipients that wait for suspended next hops, by its name, as last counted."""
        waiting: dict[str, int] = {}
        for shard in self.shards:
            for name, count in shard.waiting.counts().items():
                waiting[name] = waiting.get(name, 0) + count
        return waiting

    def waiting_for_operator(self) -> Mapping[str, int]:
        """Return the recipients that wait for destinations which the operator has suspended.

        They are by the name of the destination, as last counted.
        """
        waiting: dict[str, int] = {}
        for shard in self.counted_shards:
            for name, count in shard.waiting_for_operator.counts().items():
                waiting[name] = waiting.get(name, 0) + count
        return waiting

    def table_sizes(self) -> Iterator[tuple[str, int, int]]:
        """Yield the name of each table of bounded size, its entries, and how many it can have."""
        yield "hosts with TLS", *self.memory.size
        yield from self.authentication.table_sizes()
        yield from self._policies.table_sizes()

    def tls_hosts(self, domain: str | None = None) -> list[TLSEntry]:
        """Return the hosts that TLS was used with (`tls.memory.TLSMemory.entries`).

        Args:
            domain: a host, or the domain of hosts; None: all.
        """
        return entries_below(self.memory.entries(), domain)

    def forget_tls(self, host: str) -> list[int]:
        """Forget that a host did TLS; return its ports that were known."""
        return self.memory.forget(host)

    def tls_handshakes(self) -> list[HandshakeEntry]:
        """Return the last handshake with each host since the start."""
        return self._relay.connections.handshakes.entries()

    def shard(self, number: int) -> Shard:
        """Return one of its shards.

        Raises:
            LookupError: another process has it.
        """
        for shard in self.shards:
            if shard.number == number:
                return shard
        raise LookupError(f"shard {number} is not here")

    # Reloading.

    async def prepare(
        self, config: Config, *, pace: Pace | None = None, checked: Digests = NOTHING
    ) -> Change:
        """Read other settings and their files, without any effect yet.

        Args:
            config: the settings; those that only a start can change are the same as before
                (`config.change.fixed`).
            pace: how the files are read; None: in slices.
            checked: digests of files that another process has found good
                (`system.slices.Table.read`).

        Raises:
            AccountsError: the file of accounts cannot be used.
            CertificateError: a file cannot be used; which, and why.
            ConfigError: the checker cannot be made; or a password cannot be read.
            ValueError: a route or an alias cannot be read.
            OSError: the key of SRS, or that of feedback, can be neither read nor made.
        """
        pace = pace or self._resources.sliced
        authentication = await self.authentication.prepare(config, pace, checked)
        mailboxes = await self.mailboxes.prepare(config, pace, checked)
        lists = await self._policies.prepare(config, pace, checked)
        terms = await pace.work(
            self._relay.load_terms(
                config.all_destinations, mta_sts_authorities=config.mta_sts.authorities
            )
        )
        use_listeners = await pace.work(self.listeners.load(config))
        signing_keys = await pace.work(load_keys(config.dkim_keys))
        self.feedback.prepare(config)
        webhooks = await pace.work(self.webhooks.load(config))

        async def use() -> list[str]:
            await self.authentication.complete(authentication, pace)
            await self.mailboxes.complete(mailboxes, pace)
            await self._policies.complete(lists, pace)
            # From here on nothing waits, so that the settings change at once.
            self.config = config
            lines = self.authentication.use(authentication)
            alias_lines, disposal = self.mailboxes.use(mailboxes)
            lines += alias_lines
            list_lines, list_disposal = self._policies.use(lists)
            lines += list_lines
            self.capacity.minimum_free = minimum_free(config)
            for intake, listener in zip(self.listeners.intakes, config.listeners, strict=True):
                intake.update(intake_policy(config, listener, self.mailboxes.domains))
                intake.policies = self._policies.stages(config, listener)
            self._filters.use(config)
            self._policy_services.use(config)
            self.application_mail.intake.update(self._application_policy())
            if self._behind_servers is not None:
                self._behind_servers.update(self._policy_behind_servers())
                self._behind_servers.policies = self._policies.stages(config, _BEHIND_SERVERS)
            lines += use_listeners()
            suspended = self._suspended_access()
            self._mta_sts.use(config)
            lines += self._use_terms(terms)
            lines += self._use_signing_keys(signing_keys)
            lines += self._resources.reload_resolver()
            self.suppression.use(config.suppression)
            if self._lists is not None:
                self._lists.is_on = self.suppression.is_on
            self.feedback.use(config)
            lines += self.webhooks.use(webhooks)
            self.dmarc_reports.use(config)
            self.tls_reports.use(config)
            for shard in self.shards:
                shard.runner.update(runner_settings(config))
            lines += self._retry_suspended(suspended)
            with suppress(CancelledError):  # at a stop the process frees the memory
                await pace.work(disposal)
                await pace.work(list_disposal)
            return lines

        return Change(
            digests(
                authentication.accounts,
                mailboxes.aliases,
                mailboxes.relay_recipients,
                *lists.readings,
            ),
            lambda: Deferred.fromCoroutine(use()),
        )

    async def use_issued_certificate(self) -> list[str]:
        """Put a certificate that was issued in force; return lines that say what has changed.

        Raises:
            CertificateError: it cannot be used; the one of before stays in force.
        """
        use = await self._resources.sliced.work(self.listeners.load_issued())
        return use()

    def _use_terms(self, terms: LoadedTerms) -> list[str]:
        config = self.config
        lines = self._relay.update(
            terms,
            destination_for=config.destination_for,
            helo=config.helo,
            source_pools=config.source_pools,
            reply_actions=config.reply_actions,
        )
        return [*lines, *self._warned((*terms.warnings, *terms.date_warnings(self.wall_time())))]

    def _use_signing_keys(self, keys: Sequence[SigningKey]) -> list[str]:
        lines = self.signing_keys.use(keys)
        warnings = dict.fromkeys(warning for key in keys for warning in key.warnings)
        return [*lines, *self._warned(warnings)]

    def _warned(self, warnings: Iterable[str]) -> list[str]:
        """Log warnings; return them as lines about a reload."""
        lines = []
        for warning in warnings:
            self.log.warn("{text}", text=warning)
            lines.append(f"{WARNING}{warning}")
        return lines

    def _suspended_access(self) -> list[tuple[Shard, NextHop, object]]:
        """Return what decides whether each suspended next hop has a session for us."""
        return [
            (shard, next_hop, self._relay.access(next_hop))
            for shard in self.shards
            for next_hop in shard.runner.suspended_next_hops()
        ]

    def _retry_suspended(self, before: Sequence[tuple[Shard, NextHop, object]]) -> list[str]:
        """Try suspended next hops again whose account, certificates or TLS have changed.

        Returns:
            A line for each of them, printable.
        """
        lines: dict[str, None] = {}
        for shard in self.shards:
            changed = [
                next_hop
                for its_shard, next_hop, access in before
                if its_shard is shard and access != self._relay.access(next_hop)
            ]
            if changed:
                retried = Deferred.fromCoroutine(
                    shard.runner.retry_next_hops(changed, self._resources.sliced, by="a reload")
                )
                retried.addErrback(self._not_retried)
            lines.update((f"{each} is tried again", None) for each in changed)
        return list(lines)

    def _not_retried(self, failure: Failure) -> None:
        if not failure.check(CancelledError):  # at a stop
            self.log.failure("mail for changed destinations waits for its retry time", failure)

    # Its parts.

    def _make_signer(self) -> Signer:
        resources = self._resources
        return Signer(
            self.signing_keys, wall_time=resources.wall_time, executor=resources.file_executor
        )

    def _make_shared_lists(self, suppression: SuppressionFile) -> SharedLists | None:
        url, reactor = self.config.queue.database, self._resources.reactor
        if url is None:
            return None
        # As the queue: the client of PostgreSQL takes long to import.
        from .shared_lists import SharedLists

        return SharedLists(
            url,
            thread=ThreadExecutor(reactor, 1, "twisted-mta lists"),
            suppression=suppression,
            follows=not self.worker,
            reactor=reactor,
        )

    def _make_suppression(self, file: SuppressionFile) -> Suppression:
        resources, lists = self._resources, self._lists
        return Suppression(
            file,
            executor=resources.file_executor,
            clock=resources.reactor,
            wall_time=resources.wall_time,
            count=partial(self.metrics.count, table.SUPPRESSIONS),
            changing=None if lists is None else lists.suppression,
            change_executor=None if lists is None else lists.database.executor,
        )

    def _make_feedback(self) -> Feedback:
        resources = self._resources
        return Feedback(
            self.config,
            executor=resources.file_executor,
            files=resources.files,
            secret=resources.secret,
            wall_time=resources.wall_time,
            metrics=self.metrics,
        )

    def _make_maildir(self) -> MaildirDelivery:
        resources = self._resources
        return MaildirDelivery(
            self.config.maildir,
            files=resources.files,
            executor=resources.file_executor,
            wall_time=resources.wall_time,
            hostname=self.config.hostname,
            random=resources.random,
            sign=self._signer.sign,
        )

    def _make_authentication(self) -> Authentication:
        resources = self._resources
        return Authentication(
            self.config,
            limits=self._limits,
            executor=resources.password_executor,
            files=resources.files,
            secret=resources.secret,
            nonce=resources.nonce,
            clock=resources.reactor,
            metrics=self.metrics,
            checkers=self._application.checkers,
        )

    def _make_mailboxes(self) -> Mailboxes:
        resources = self._resources
        return Mailboxes(
            self.config,
            in_maildir=self._maildir.exists,
            has_account=self.authentication.is_mailbox,
            files=resources.files,
            secret=resources.secret,
            wall_time=resources.wall_time,
            seconds=resources.reactor.seconds,
            deliveries=tuple(self._application.deliveries),
        )

    def _make_journal(self, name: str, written: Callable[[], object] | None) -> TLSJournal:
        resources = self._resources
        return TLSJournal(
            self.memory,
            directory=os.path.join(self.config.state_dir, "tls"),
            name=name,
            files=resources.files,
            executor=resources.file_executor,
            clock=resources.reactor,
            alone=written is None,
            written=written or (lambda: None),
        )

    def _make_locator(self, is_own_address: Callable[[str, int], bool]) -> TargetLocator:
        return TargetLocator(
            self.resolver,
            random=self._resources.random,
            port=self.config.delivery.port,
            is_local=self.mailboxes.is_our_host,
            is_own_address=is_own_address,
            note_exchanger=self.mailboxes.groups.note,
        )

    def _make_tokens(self) -> TokenAccounts:
        resources = self._resources
        return TokenAccounts(
            reactor=resources.reactor,
            executor=resources.file_executor,
            read_secret=read_secret,
            state_dir=self.config.state_dir,
            resolver=self.resolver,
            contexts=self._contexts,
            wall_time=resources.wall_time,
            random=resources.random,
        )

    def _make_relay(self) -> Relay:
        resources, config = self._resources, self.config
        own = (each.outgoing for each in self._application.extensions if each.outgoing)
        return Relay(
            reactor=resources.reactor,
            wall_time=resources.wall_time,
            locate=self._locator.locate,
            helo=config.helo,
            destination_for=config.destination_for,
            memory=self.memory,
            contexts=self._contexts,
            policies=HostPolicies(
                resolver=self.resolver,
                memory=self.memory,
                wall_time=resources.wall_time,
                mta_sts=self._mta_sts.find,
                mta_sts_authorities=self._mta_sts.authorities,
            ),
            note_tls_result=lambda result: self.tls_reports.note(result),
            nonce=resources.nonce,
            source_of=resources.source_of,
            executor=resources.file_executor,
            sign=self._signer.sign,
            outbox=resources.outbox,
            extensions=(*OUTGOING, *own),
            tokens=self.tokens,
            grouped=self.mailboxes.groups.grouped,
            sent_counts=SentCounts(os.path.join(config.state_dir, "sources", "sent.sqlite"))
            if self._lists is None
            else self._lists.sent_counts,
            sent_executor=None if self._lists is None else self._lists.database.executor,
        )

    def _make_shard(self, number: int) -> Shard:
        resources, queue = self._resources, self.config.queue
        directory = shard_directory(self.config.state_dir, number)
        spool = Spool(
            os.path.join(directory, "body"),
            files=resources.files,
            executor=resources.file_executor,
            small_body=queue.small_body,
            reuse=queue.database is None,
        )
        lock = StateLock(os.path.join(directory, "queue.lock"))
        store: Store
        if queue.database is None:
            embedded = SQLiteStore(
                os.path.join(directory, QUEUE),
                spool=spool,
                files=resources.files,
                lock=lock,
                suspended=SuspendedFile(os.path.join(self.config.state_dir, SUSPENDED_FILE)),
            )
            store, self._free = embedded, embedded.free
        else:
            # The client of PostgreSQL takes longer to import than the rest of the start.
            from .shared_queue import shared_queue

            self._shared = shared_queue(
                queue.database,
                self.config.state_dir,
                worker=number,
                spool=spool,
                files=resources.files,
                secret=resources.secret,
                clock=resources.reactor,
                ids=resources.ids,
                executor=resources.commit_executor(number, remote=True),
            )
            store, self._free = self._shared.store, self._shared.store.free

        def opened(recovery: Recovery) -> None:
            if self._shared is not None:
                self._shared.opened()
            # Before the first attempt, also where the store was not available at the start.
            runner.take_suspended(recovery.suspended)

        commit = GroupCommit(
            store,
            executor=resources.commit_executor(number, remote=self._shared is not None),
            clock=resources.reactor,
            max_operations=queue.commit_messages,
            max_octets=queue.commit_octets,
            patience=resources.patience,
            timed=partial(self.metrics.observe, table.COMMIT_DURATION),
            activity=lambda: resources.outbox.writes,
            give_way=resources.give_way,
            opened=opened,
            spread=(lambda delay: delay) if self._shared is None else self._spread,
            transfers=self._shared,
        )
        runner = self._make_runner(commit)
        tallies = Tallies(commit.perform, clock=resources.reactor, wall_time=resources.wall_time)
        waiting = WaitingMail(commit.perform, runner.suspended_domains, clock=resources.reactor)
        for_operator = WaitingMail(
            commit.perform, runner.domains_of_suspended, clock=resources.reactor
        )
        hold = FilesHold(commit, clock=resources.reactor, is_embedded=queue.database is None)
        return Shard(
            number, lock, spool, store, commit, runner, tallies, waiting, for_operator, hold
        )

    def _spread(self, delay: float) -> float:
        return delay * (0.5 + self._resources.random.random())

    def _make_runner(self, commit: GroupCommit) -> Runner:
        resources = self._resources
        return Runner(
            runner_settings(self.config),
            commit=commit,
            route=self.mailboxes.route,
            deliver=self._deliver,
            clock=resources.reactor,
            wall_time=resources.wall_time,
            random=resources.random,
            ids=resources.ids,
            observe=self._attempt_settled,
            limits=self._limits,
            limits_of=lambda next_hop: limits_of(self.config, next_hop),
            recipients_of=self.mailboxes.recipients,
            noticed=self._noticed,
            intervened=partial(self._intervened, commit),
            outbox=self.webhooks,
        )

    def _make_dmarc_reports(self) -> DMARCReports:
        own_mail = self._make_own_mail(lambda: self.config.queue.lifetime)
        return DMARCReports(self.config, resources=self._resources, send=own_mail.send)

    def _make_tls_reports(self) -> SessionReports:
        own_mail = self._make_own_mail(
            lambda: min(self.config.queue.lifetime, LIFETIME), REPORT_PARAMETERS
        )
        return SessionReports(
            self.config,
            resources=self._resources,
            send=own_mail.send,
            contexts=self._contexts,
            mta_sts=self._mta_sts,
            metrics=self.metrics,
        )

    def _make_own_mail(
        self, lifetime: Callable[[], float], parameters: Parameters = NO_PARAMETERS
    ) -> OwnMail:
        resources = self._resources
        return OwnMail(
            accept=self._accept,
            new_body=self._home.spool.new_body,
            ids=resources.ids,
            recipients_of=self.mailboxes.recipients,
            wall_time=resources.wall_time,
            lifetime=lifetime,
            parameters=parameters,
        )

    def _make_capacity(self) -> Capacity:
        return Capacity(
            memory=self.config.message_memory,
            share=self.config.queue.small_body,
            minimum_free=minimum_free(self.config),
            free=self._room,
            clock=self._resources.reactor,
            attempt=lambda: self.file_executor(self._home.spool.try_to_write),
        )

    def _room(self) -> int:
        """Return the free octets of the disk; where mail would be refused, without spare files."""
        if self._free() < self.capacity.minimum_free:
            self._home.spool.close_files()
        return self._free()

    def _make_listeners(self) -> Listeners:
        resources = self._resources
        return Listeners(
            self.config,
            reactor=resources.reactor,
            intake=self.intake,
            authentication=self.authentication,
            metrics=self.metrics,
            limits=self._limits,
            wall_time=resources.wall_time,
            outbox=resources.outbox,
            extensions=self._application.extensions,
        )

    def _make_application_mail(self) -> ApplicationMail:
        resources = self._resources
        return ApplicationMail(
            lambda take: self._intake(self._application_policy(), direct=take),
            accept=self._accept,
            track=self._audience.track,
            untrack=self._audience.untrack,
            run=resources.submitting.work,
        )

    def _make_submission_reader(self) -> SubmissionReader:
        resources = self._resources
        return SubmissionReader(
            wall_time=resources.wall_time,
            longest_hold=LONGEST_HOLD,
            limit=lambda: largest_submission(self.config),
            new_boundary=lambda: f"=_{resources.nonce()}",  # not in base64 or quoted-printable
            executor=resources.file_executor,
            run=resources.submitting.work,
        )

    def _application_policy(self) -> IntakePolicy:
        return evolve(
            intake_policy(self.config, OWN_MAIL, self.mailboxes.domains),
            relays_all=True,
            direct=True,
        )

    @property
    def intake_behind_servers(self) -> Intake:
        """The intake of mail that servers of the application take (`server.queueing_delivery`)."""
        if self._behind_servers is None:
            self._behind_servers = self.intake(_BEHIND_SERVERS)
        return self._behind_servers

    def _policy_behind_servers(self) -> IntakePolicy:
        return intake_policy(self.config, _BEHIND_SERVERS, self.mailboxes.domains)

    def intake(self, listener: Listener) -> Intake:
        """Return the intake of a listener, which takes mail into the queue."""
        return self._intake(
            intake_policy(self.config, listener, self.mailboxes.domains),
            self._policies.stages(self.config, listener),
        )

    def _intake(
        self,
        policy: IntakePolicy,
        policies: PolicyStages | None = None,
        *,
        direct: Take | None = None,
    ) -> Intake:
        resources = self._resources
        return Intake(
            policy,
            accept=self._accept,
            direct=direct
            or DirectDelivery(
                accept=self._accept,
                deliver=self._maildir.deliver,
                route=self.mailboxes.route,
                is_suspended=lambda mailbox: (
                    self._home.runner.suspended_destination(mailbox) is not None
                ),
                forget=self._home.spool.forget,
                observe=self._delivered_directly,
            ),
            new_body=self._home.spool.new_body,
            exists=self.mailboxes.exists,
            refusal=self.mailboxes.refusal,
            expand=self.mailboxes.expand,
            alias_of=self.mailboxes.alias_of,
            ids=resources.ids,
            wall_time=resources.wall_time,
            capacity=self.capacity,
            count=partial(self.metrics.count, table.TRANSACTIONS),
            submission=self.authentication.submission,
            sending_limits=self.authentication.sending_limits,
            suppressed=self.suppression.refusal,
            feedback_id=self.feedback.id_for,
            policies=policies,
        )

    def _make_tracing(self, prefix: str) -> Tracing:
        factories, connections = self.listeners.factories, self._relay.connections
        for factory in factories:
            factory.recent = self.sessions
        tracing = Tracing(
            clock=self._resources.reactor, wall_time=self._resources.wall_time, name=prefix
        )

        def attach() -> None:
            for factory in factories:
                factory.attach_traces()
            connections.attach_traces()

        tracing.changed = attach
        for factory in factories:
            factory.tracing = tracing
        connections.tracing, connections.recent = tracing, self.sessions
        return tracing

    def _make_explainer(self) -> Explainer:
        return Explainer(
            config=lambda: self.config,
            mailboxes=self.mailboxes,
            intakes=lambda: self.listeners.intakes,
            relay=self._relay,
            reporter=self._reporter,
            suppression=self.suppression,
            forecaster=Forecaster(self.resolver, self._resources.reactor),
            shards=lambda: self.shards,
            home=self._home.runner,
            wall_time=self.wall_time,
        )

    # Mail on its way through the parts.

    def _accept(self, message: Message) -> Deferred[None]:
        if self.feedback.concerns(message):
            # Its body may be gone once it is delivered.
            return self.feedback.read(message).addCallback(lambda _: self._accept_now(message))
        return self._accept_now(message)

    def _accept_now(self, message: Message) -> Deferred[None]:
        tags: Sequence[str] = ()
        for recipient in message.envelope.recipients:
            if recipient.reverse_path is not None:
                tags = self.mailboxes.sender_tags(message)
                break
        accept = partial(self._accept_tagged, tags) if tags else self._home.runner.accept
        return accept(message).addCallbacks(self._accepted, self._refused, callbackArgs=(message,))

    def _accepted(self, _: None, message: Message) -> None:
        try:
            self.activity.message_accepted(message)
            self.events.accepted(message)
        except Exception:
            # We are responsible for the message, counted or not, and its client must learn so.
            self.log.failure("{id} was accepted, and not counted", id=message.id)

    def _refused(self, failure: Failure) -> Failure:
        if isinstance(failure.value, Refused) and failure.value.reply is FULL:
            self.capacity.write_failed("it has no room for a message")
        return failure

    def _accept_tagged(self, tags: Sequence[str], message: Message) -> Deferred[None]:
        """Put a message into the queue once bounces to the tags in its reverse-paths lead back."""
        sender = message.envelope.reverse_path
        assert sender is not None  # the null reverse-path is not rewritten

        def not_kept(failure: Failure) -> NoReturn:
            self.log.error(
                "{id} is deferred, since the sender {sender} cannot be kept: {error}",
                id=message.id,
                sender=printable(str(sender)),
                error=printable(failure.getErrorMessage()),
            )
            self._home.spool.forget(message.body)
            raise Refused(NOT_NOW)

        kept = self.file_executor(self.mailboxes.keep_sender, tags, sender)
        return kept.addCallbacks(lambda _: self._home.runner.accept(message), not_kept)

    def _delivered_directly(
        self, message: Message, outcomes: Sequence[Outcome], whole: bool
    ) -> None:
        if whole:  # otherwise the queued part stands for the message
            self.activity.message_accepted(message)
            self.events.accepted(message)
            self.webhooks.record(self.webhooks.accepted(message))
        self._attempt_settled(message, outcomes, "maildir")
        self.webhooks.record(self.webhooks.settled(message, outcomes, "maildir"))

    def _attempt_settled(
        self, message: Message, outcomes: Sequence[Outcome], next_hop: str
    ) -> None:
        self.activity.attempt_settled(message, outcomes, next_hop)
        self.events.settled(message, outcomes, next_hop)
        if self.suppression.is_on and next_hop.startswith(_SMTP):
            mailboxes = {each.number: each.mailbox for each in message.envelope.recipients}
            for outcome in outcomes:
                if outcome.number in mailboxes:
                    self.suppression.note(mailboxes[outcome.number], outcome)

    def _noticed(self, action: str, notice: Message) -> None:
        self.metrics.count(table.NOTICES, action)
        self.events.accepted(notice)

    def _intervened(self, commit: GroupCommit, changed: Changed) -> None:
        count = len(changed.recipients) + len(changed.unread)
        self.activity.intervened(changed.action, changed.id, count)
        if changed.action == "remove":
            self.events.removed(changed.id, changed.reverse_path, changed.recipients)
            self.webhooks.changed(Removed, changed.id, changed.reverse_path, changed.recipients)
        elif changed.action == "hold":
            self.events.held(changed.id, changed.reverse_path, changed.recipients)
            self.webhooks.changed(Held, changed.id, changed.reverse_path, changed.recipients)
            if changed.unread and (self.events.hears(changed.id) or self.webhooks.wants(Held)):
                reading = Deferred.fromCoroutine(self._tell_held(commit, changed))
                reading.addErrback(self._not_told, changed)

    async def _tell_held(self, commit: GroupCommit, changed: Changed) -> None:
        """Tell of held recipients that are not known yet: there were too many to read them all."""
        inspected: Inspected | None = await commit.perform(Inspect(changed.id))
        if inspected is not None:
            envelope = inspected.message.envelope
            held = [each for each in envelope.recipients if each.number in changed.unread]
            self.events.held(changed.id, envelope.reverse_path, held)
            self.webhooks.changed(Held, changed.id, envelope.reverse_path, held)

    def _not_told(self, failure: Failure, changed: Changed) -> None:
        self.log.warn(
            "{id} is held, and no event tells of it: {error}",
            id=changed.id,
            error=printable(failure.getErrorMessage()),
        )

    def _deliver(self, next_hop: NextHop, message: Message) -> Deferred[Sequence[Outcome]]:
        if self._shared is not None:
            message = self._shared.guarded(message)
        if next_hop.transport == "maildir":
            return self._maildir.deliver(next_hop, message)
        if next_hop.delivery:
            return self._own_deliveries.deliver(next_hop, message)
        if message.assessment.own and self.suppression.is_on:
            return Deferred.fromCoroutine(self._deliver_unsuppressed(next_hop, message))
        return self._relay.deliver(next_hop, message)

    async def _deliver_unsuppressed(self, next_hop: NextHop, message: Message) -> Sequence[Outcome]:
        """Deliver a message to the recipients that are not on the suppression list."""
        recipients = message.envelope.recipients
        # All are looked up together.
        asked = [
            (each.number, Deferred.fromCoroutine(self.suppression.refusal(each.mailbox)))
            for each in recipients
        ]
        refusals = {
            number: refusal for number, found in asked if (refusal := await found) is not None
        }
        outcomes = [Outcome(number, refusal) for number, refusal in refusals.items()]
        rest = [each for each in recipients if each.number not in refusals]
        if rest:
            outcomes += await self._relay.deliver(next_hop, message.for_recipients(rest))
        return outcomes
