"""The rooms joined: sessions, queue and deliveries of one process.

A mail transfer agent is one agent, or several of them in processes of their own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config import Config, Listener
from ..delivery.maildir import MaildirDelivery
from ..delivery.relay import Relay
from ..delivery.terms import LoadedTerms
from ..dns import DNSResolver
from ..dns.monitored import MonitoredResolver
from ..interfaces import Limits, Refused
from ..mail.address import Mailbox
from ..mail.message import Message
from ..mail.next_hop import NextHop
from ..mail.outcome import Outcome
from ..policy.capacity import Capacity
from ..queue.commit import FULL, GroupCommit
from ..queue.ids import QueueIds
from ..queue.operator.tallies import Tallies
from ..queue.runner import Runner, RunnerSettings
from ..queue.schedule.backoff import Backoff
from ..queue.schedule.next_hops import SuspendedNextHop
from ..queue.store.contract import StateInUse
from ..queue.store.lock import StateLock
from ..queue.store.spool import Spool
from ..queue.store.sqlite import RESERVE, SQLiteStore
from ..routing.exchangers import TargetLocator
from ..routing.lookup import LookupReporter
from ..server.intake import Intake
from ..server.intake_policy import IntakePolicy
from ..server.lmtp_direct import Direct
from ..smtp.extension.standard import OUTGOING
from ..system.executors import NearExecutor, ThreadExecutor
from ..system.files import DiskFiles
from ..system.limits import LocalLimits
from ..system.outbox import Outbox
from ..system.real_world import give_way, off_cpu_time, system_random
from ..system.slices import NOTHING, AtOnce, Digests, Pace, Sliced, digests, result_of
from ..telemetry.metrics import Metrics, table
from ..telemetry.tracing import Tracing
from ..tls.journal import TLSJournal
from ..tls.memory import TLSEntry, TLSMemory, entries_below
from .activity import Activity
from .authentication import Authentication, submission_policy
from .environment import Environment
from .explain.explainer import Explainer
from .explain.origin import limits_of
from .listeners import Listeners
from .mailboxes import Mailboxes
from .shard import QUEUE, Shard, need_queue, shard_directory

_STILL_IN_USE = 5.0  # seconds that workers of a parent that was killed have to end
_LOOK_AGAIN = 0.1  # seconds
_LAST_ANSWERS = 60.0  # seconds for the answers to final dots, after the drain timeout
_LAST_WORDS = 3.0  # seconds for what is left after those who hurry have been hurried


@frozen
class Change:
    """Other settings, ready to be put in force.

    Attributes:
        digests: what files held that were found good.
        use: puts them in force; fires with lines that say what changed in the files, printable. It
            does not fail, but for want of memory before anything has changed.
    """

    digests: Digests
    use: Callable[[], Deferred[list[str]]]


class Agent:
    """One process's share of a mail transfer agent.

    It binds no port, sets no signal handler and no log observer, and starts no thread before it is
    started.

    Args:
        config: see there.
        reactor: IReactorTime, IReactorTCP, IReactorUDP, IReactorFromThreads, …
        environment: all that it uses besides the reactor.
        limits: counts what is in use, over all processes; None: over this one.
        is_own_address: whether mail for an address and a port would come back to us.
        worker: which process this is, from 0.
        tls_written: called when the agents of other processes may read what this one has learnt of
            TLS (`tls_news`).

    Attributes:
        config: what it was told last.
        metrics: what it counts.
        activity: what has passed through it since it was made.
        memory: the hosts that TLS was had with.
        traffic: what deliveries to other hosts came to, in numbers.
        started_at: wall time at which it was made.
        listeners: what stands at its ports.
        authentication: who may authenticate, and as whom they may send.
        mailboxes: which are ours, and where mail goes next.
        shards: its parts of the queue; new mail goes to the first.
        tls_news: to be called when another process has learnt something of TLS.
        explainer: says why mail is where it is.
        tracing: tells what sessions say to those who read along.
        capacity: decides whether one more message can be taken.
        resolver: the DNS, and whether it answers.

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
        tls_written: Callable[[], object] = lambda: None,
    ) -> None:
        self.config = config
        self._environment = environment = environment or Environment()
        self.metrics = Metrics()
        self._outbox = Outbox(reactor)
        self.activity = Activity(self.metrics, wall_time=environment.wall_time)
        self._limits = limits or LocalLimits()
        self.shards: list[Shard] = []
        self._reactor = reactor
        self._worker = worker
        self._threads: list[ThreadExecutor] = []
        self.started_at = environment.wall_time()
        self._opening: Deferred[None] | None = None
        self._hurried = False
        self._hurry: Callable[[], object] = lambda: None
        self.wall_time = environment.wall_time
        self._random = environment.random or system_random()
        self._files = environment.files or DiskFiles()
        self._ids = environment.ids or QueueIds(
            wall_time=environment.wall_time, random=self._random, worker=worker
        )
        self.file_executor = environment.file_executor or self._thread(4, "files")
        self._sliced = Sliced(reactor, self.file_executor)
        self._dns: DNSResolver | None = None  # where it is ours
        asked = environment.resolver
        if asked is None:
            asked = self._dns = DNSResolver(
                reactor, nameservers=config.dns.nameservers, timeout=config.dns.timeout
            )
        self.resolver = resolver = MonitoredResolver(asked)
        self._maildir = MaildirDelivery(
            config.maildir,
            files=self._files,
            executor=self.file_executor,
            wall_time=environment.wall_time,
            hostname=config.hostname,
            random=self._random,
        )
        self.authentication = Authentication(
            config,
            limits=self._limits,
            executor=environment.password_executor or self._thread(2, "passwords"),
            files=self._files,
            secret=environment.secret,
            nonce=environment.nonce,
            clock=reactor,
            metrics=self.metrics,
        )
        self.mailboxes = Mailboxes(
            config,
            in_maildir=self._maildir.exists,
            has_account=self.authentication.is_mailbox,
            files=self._files,
            secret=environment.secret,
            wall_time=environment.wall_time,
        )
        self.memory = TLSMemory(wall_time=environment.wall_time)
        self._journal = TLSJournal(
            self.memory,
            directory=os.path.join(config.state_dir, "tls"),
            name=str(worker),
            files=self._files,
            executor=self.file_executor,
            clock=reactor,
            written=tls_written,
        )
        self.tls_news: Callable[[], None] = self._journal.sync_soon
        locate = TargetLocator(
            resolver,
            random=self._random,
            port=config.delivery.port,
            is_local=self.mailboxes.is_our_host,
            is_own_address=is_own_address,
        ).locate
        self._relay = Relay(
            reactor=reactor,
            wall_time=environment.wall_time,
            locate=locate,
            helo=config.helo,
            destination_for=config.destination_for,
            memory=self.memory,
            nonce=environment.nonce,
            source_of=environment.source_of,
            executor=self.file_executor,
            outbox=self._outbox,
            extensions=(
                *OUTGOING,
                *(each.outgoing for each in environment.extensions if each.outgoing),
            ),
        )
        self._home = self._shard(worker)
        self.capacity = Capacity(
            memory=config.message_memory,
            share=config.queue.small_body,
            minimum_free=_minimum_free(config),
            free=self._home.store.free,
            clock=reactor,
            attempt=lambda: self.file_executor(self._home.spool.try_to_write),
        )
        self.traffic = self._relay.connections.traffic
        self.listeners = Listeners(
            config,
            reactor=reactor,
            intake=self.intake,
            authentication=self.authentication,
            metrics=self.metrics,
            limits=self._limits,
            wall_time=environment.wall_time,
            outbox=self._outbox,
            extensions=environment.extensions,
        )
        self.tracing = Tracing(
            clock=reactor,
            wall_time=environment.wall_time,
            name=f"{worker}-" if config.workers > 1 else "",
        )
        self.tracing.changed = self._attach_traces
        for factory in self.listeners.factories:
            factory.tracing = self.tracing
        self._relay.connections.tracing = self.tracing
        self.explainer = Explainer(
            config=lambda: self.config,
            mailboxes=self.mailboxes,
            intakes=lambda: self.listeners.intakes,
            relay=self._relay,
            reporter=LookupReporter(locate, resolver, is_local=self.mailboxes.is_our_host),
            shards=lambda: self.shards,
            home=self._home.runner,
            wall_time=environment.wall_time,
        )

    # Life.

    def start(self, shards: Sequence[int] = (0,), *, create: bool = True) -> Deferred[None] | None:
        """Open the queue and begin with what is due in it.

        Args:
            shards: the numbers of its parts, its own first.
            create: whether to make what is not there; not where another process has just used it.

        Returns:
            Fires once that is done, where the workers of a parent that was killed have to end
            first; None where it is done. A stop cancels it.

        Raises:
            OSError: the state directory cannot be made.
            StateInUse: another process has a shard, and does not end.
            StoreError: the queue cannot be opened.
            CertificateError: the certificate or its key cannot be used.
        """
        self.shards = [self._home, *map(self._shard, shards[1:])]
        if not create:
            for number in shards:
                need_queue(self.config.state_dir, number)
        deadline = self._reactor.seconds() + _STILL_IN_USE
        try:
            self._open()
        except StateInUse:
            self._opening = Deferred.fromCoroutine(self._open_later(deadline))
            return self._opening
        return None

    async def _open_later(self, deadline: float) -> None:
        while True:
            await self._pause(_LOOK_AGAIN)
            try:
                return self._open()
            except StateInUse:
                if self._reactor.seconds() >= deadline:
                    raise

    def _pause(self, seconds: float) -> Deferred[None]:
        paused = Deferred[None](lambda _: timer.cancel())
        timer = self._reactor.callLater(seconds, paused.callback, None)
        return paused

    def _open(self) -> None:
        opened: list[Shard] = []
        try:
            for shard in self.shards:
                self._files.make_directories(shard_directory(self.config.state_dir, shard.number))
                shard.lock.acquire()
                opened.append(shard)
            at_once = self.prepare(self.config, pace=AtOnce())
            result_of(result_of(Deferred.fromCoroutine(at_once)).use())
            self._journal.load()
            self._maildir.start()
            for shard in self.shards:
                recovery = shard.commit.start()
                for name in recovery.swept:
                    self.log.info(
                        "removed body {name}: its message was never acknowledged", name=name
                    )
                for id in recovery.quarantined:
                    self.log.error(
                        "{id} has lost its body file; it is kept and not delivered", id=id
                    )
                for id in recovery.removed:
                    self.log.info(
                        "{id} removed by the operator: that was asked for before the last end",
                        id=id,
                    )
                if shard is not self._home and recovery.census.messages:
                    self.log.info(
                        "shard {shard} of a former worker is taken over: {messages} messages",
                        shard=shard.number,
                        messages=recovery.census.messages,
                    )
        except BaseException:
            for shard in opened:
                shard.store.close()
                shard.lock.release()
            raise
        for threads in self._threads:
            threads.start()
        self._journal.start()
        for shard in self.shards:
            shard.runner.start()
        self.capacity.refusal()  # a disk that is full already is said now, and not to clients alone

    def stop(self) -> Deferred[None]:
        """Drain: let what is under way end, and close the queue. Nothing new begins.

        Sessions and deliveries have the drain timeout; a session that is still in a transaction
        then gets 421. Deliveries that wait for the answer to their final dot have a minute more,
        because without it there would be a second copy.
        """
        return Deferred.fromCoroutine(self._stop())

    def hurry(self) -> None:
        """Let a stop that is under way, or is to come, wait for nothing."""
        self._hurried = True
        self._hurry()

    async def _stop(self) -> None:
        self._sliced.stop()
        if self._opening is not None:
            self._opening.cancel()
        for shard in self.shards:
            shard.tallies.stop()
        # What is accepted from now on is begun at the next start.
        ended = DeferredList(
            [self.listeners.drain(), *(shard.runner.stop() for shard in self.shards)]
        )
        if not await self._ends(ended, self.config.drain_timeout):
            self.listeners.abandon()
            self._relay.abort_unsent()
            if not await self._ends(ended, _LAST_ANSWERS, hurried=_LAST_WORDS):
                self._give_up()
                await self._ends(ended, _LAST_WORDS, hurried=_LAST_WORDS)
        closed = self._relay.close()
        if not await self._ends(closed, _LAST_WORDS):
            self._relay.abort()
            await self._ends(closed, _LAST_WORDS, hurried=_LAST_WORDS)
        if self._dns is not None:
            self._dns.stop()
        await DeferredList([shard.commit.stop() for shard in self.shards])
        await self._journal.stop()
        self.authentication.close()
        for threads in self._threads:
            threads.stop()
        for shard in self.shards:
            shard.lock.release()

    def _give_up(self) -> None:
        self.listeners.abandon(at_once=True)
        self._relay.abort()
        # On a disk that takes nothing, outcomes would wait for ever: what they are about is due
        # again at the next start.
        for shard in self.shards:
            shard.commit.stop()

    async def _ends(self, done: Deferred[Any], seconds: float, *, hurried: float = 0.0) -> bool:
        """Wait for ``done``, but not for ever; say whether it came.

        Args:
            done: see there.
            seconds: the longest wait.
            hurried: that of who hurries.
        """
        if done.called:
            return True
        waiting = Deferred[bool]()
        timer = self._reactor.callLater(
            hurried if self._hurried else seconds, waiting.callback, False
        )

        def hurry() -> None:
            if timer.active():
                timer.reset(min(hurried, timer.getTime() - self._reactor.seconds()))

        def came(result: Any) -> Any:
            if timer.active():
                timer.cancel()
                waiting.callback(True)
            return result

        self._hurry = hurry
        done.addBoth(came)
        return await waiting

    def suspended(self) -> Sequence[SuspendedNextHop]:
        """Return the suspended next hops of each shard; one may be suspended in several."""
        return [each for shard in self.shards for each in shard.runner.suspended()]

    def tls_hosts(self, domain: str | None = None) -> list[TLSEntry]:
        """Return the hosts that TLS was had with (`tls.memory.TLSMemory.entries`).

        Args:
            domain: a host, or what hosts are below; None: all.
        """
        return entries_below(self.memory.entries(), domain)

    def shard(self, number: int) -> Shard:
        """Return one of its shards.

        Raises:
            LookupError: it does not have that one.
        """
        for shard in self.shards:
            if shard.number == number:
                return shard
        raise LookupError(f"shard {number} is not here")

    def _attach_traces(self) -> None:
        for factory in self.listeners.factories:
            factory.attach_traces()
        self._relay.connections.attach_traces()

    # Reloading.

    async def prepare(
        self, config: Config, *, pace: Pace | None = None, checked: Digests = NOTHING
    ) -> Change:
        """Make ready for other settings, without any effect yet.

        Args:
            config: with what cannot change while it runs as it was (`config.change.fixed`).
            pace: how the files are read; None: in slices.
            checked: see `system.slices.Table.read`.

        Raises:
            AccountsError: the file of accounts cannot be used.
            CertificateError: a file cannot be used; which, and why.
            ConfigError: the checker cannot be made; or a password cannot be read.
            ValueError: a route or an alias cannot be read.
            OSError: the key of SRS can be neither read nor made.
        """
        pace = pace or self._sliced
        authentication = await self.authentication.prepare(config, pace, checked)
        mailboxes = await self.mailboxes.prepare(config, pace, checked)
        terms = await pace.work(self._relay.load_terms(config.all_destinations))
        use_listeners = await pace.work(self.listeners.preparing(config))

        async def use() -> list[str]:
            await self.authentication.complete(authentication, pace)
            await self.mailboxes.complete(mailboxes, pace)
            # From here to the end of the change nothing is waited for.
            self.config = config
            lines = self.authentication.use(authentication)
            of_aliases, letting_go = self.mailboxes.use(mailboxes)
            lines += of_aliases
            self.capacity.minimum_free = _minimum_free(config)
            lines += use_listeners()
            for intake, listener in zip(self.listeners.intakes, config.listeners, strict=True):
                intake.update(self._policy(listener))
            lines += self._use_terms(terms)
            if self._dns is not None:
                lines += self._dns.reload()
            for shard in self.shards:
                shard.runner.update(_runner_settings(config))
            with suppress(CancelledError):  # at an end the rest goes by itself
                await pace.work(letting_go)
            return lines

        return Change(
            digests(authentication.accounts, mailboxes.aliases),
            lambda: Deferred.fromCoroutine(use()),
        )

    def _use_terms(self, terms: LoadedTerms) -> list[str]:
        for warning in (*terms.warnings, *terms.date_warnings(self.wall_time())):
            self.log.warn("{text}", text=warning)
        config = self.config
        return self._relay.update(terms, destination_for=config.destination_for, helo=config.helo)

    # Joints.

    def intake(self, listener: Listener) -> Intake:
        """Return what takes the mail of a listener into the queue."""
        return Intake(
            self._policy(listener),
            accept=self._accept,
            direct=Direct(
                accept=self._accept,
                deliver=self._maildir.deliver,
                route=self.mailboxes.route,
                forget=self._home.spool.forget,
                observe=self._delivered_directly,
            ),
            new_body=self._home.spool.new_body,
            exists=self.mailboxes.exists,
            refusal=self.mailboxes.refusal,
            expand=self.mailboxes.expand,
            alias_of=self.mailboxes.alias_of,
            ids=self._ids,
            wall_time=self.wall_time,
            capacity=self.capacity,
            count=partial(self.metrics.count, table.TRANSACTIONS),
            submission=self.authentication.submission,
        )

    def _policy(self, listener: Listener) -> IntakePolicy:
        config = self.config
        return IntakePolicy(
            hostname=config.hostname,
            local_domains=self.mailboxes.domains,
            relay_from=() if listener.is_submission else config.relay_from,
            submission=submission_policy(listener),
            relay_certificates=listener.relay_certificates,
            local_only=listener.kind == "lmtp",
            direct=listener.kind == "lmtp" and listener.lmtp_delivery == "direct",
            missing_members=config.missing_members,
            max_hops=listener.max_hops,
            max_header_size=listener.max_header_size,
            lifetime=config.queue.lifetime,
        )

    def _shard(self, number: int) -> Shard:
        config, environment = self.config, self._environment
        directory = shard_directory(config.state_dir, number)
        spool = Spool(
            os.path.join(directory, "body"),
            files=self._files,
            executor=self.file_executor,
            small_body=config.queue.small_body,
        )
        lock = StateLock(os.path.join(directory, "queue.lock"))
        store = SQLiteStore(
            os.path.join(directory, QUEUE), spool=spool, files=self._files, lock=lock
        )
        commit = GroupCommit(
            store,
            executor=environment.commit_executor
            or NearExecutor(self._thread(1, f"queue {number}"), off_cpu_time),
            clock=self._reactor,
            max_operations=config.queue.commit_messages,
            max_octets=config.queue.commit_octets,
            timed=partial(self.metrics.observe, table.COMMIT_DURATION),
            activity=lambda: self._outbox.writes,
            give_way=give_way,
        )
        runner = Runner(
            _runner_settings(config),
            commit=commit,
            route=self.mailboxes.route,
            deliver=self._deliver,
            clock=self._reactor,
            wall_time=environment.wall_time,
            random=self._random,
            ids=self._ids,
            observe=self.activity.attempt_settled,
            limits=self._limits,
            limits_of=lambda next_hop: limits_of(self.config, next_hop),
            recipients_of=self.mailboxes.recipients,
            noticed=partial(self.metrics.count, table.NOTICES),
            intervened=self.activity.intervened,
        )
        tallies = Tallies(commit.perform, clock=self._reactor, wall_time=environment.wall_time)
        return Shard(number, lock, spool, store, commit, runner, tallies)

    def _thread(self, threads: int, name: str) -> ThreadExecutor:
        executor = ThreadExecutor(self._reactor, threads, f"twisted-mta {name}")
        self._threads.append(executor)
        return executor

    def _accept(self, message: Message) -> Deferred[None]:
        def accepted(_: None) -> None:
            try:
                self.activity.message_accepted(message)
            except Exception:
                # It is ours whether it is counted or not, and its client is to hear so.
                self.log.failure("{id} was accepted, and not counted", id=message.id)

        def refused(failure: Failure) -> Failure:
            if isinstance(failure.value, Refused) and failure.value.reply is FULL:
                self.capacity.write_failed("it has no room for a message")
            return failure

        return self._home.runner.accept(message).addCallbacks(accepted, refused)

    def _delivered_directly(
        self, message: Message, outcomes: Sequence[Outcome], whole: bool
    ) -> None:
        if whole:  # or the part that is queued speaks for the message
            self.activity.message_accepted(message)
        self.activity.attempt_settled(message, outcomes, "maildir")

    def _deliver(self, next_hop: NextHop, message: Message) -> Deferred[Sequence[Outcome]]:
        if next_hop.transport == "maildir":
            return self._maildir.deliver(next_hop, message)
        return self._relay.deliver(next_hop, message)


def _minimum_free(config: Config) -> int:
    # Below its reserve the store takes no message, whatever the operator wants to keep free.
    return max(config.minimum_free_disk, RESERVE)


def _runner_settings(config: Config) -> RunnerSettings:
    return RunnerSettings(
        hostname=config.hostname,
        backoff=Backoff(config.queue.retry_minimum, config.queue.retry_maximum),
        lifetime=config.queue.lifetime,
        concurrency=config.queue.concurrency,
        per_hop=config.queue.connections_per_hop,
        longest=max(
            max(each.retry_maximum or 0.0, each.retry_minimum or 0.0)
            for each in config.all_destinations
        )
        or None,
        delay_warning=config.queue.delay_warning,
        postmaster=(
            Mailbox("postmaster", config.local_domains[0])
            if config.queue.bounce_postmaster
            else None
        ),
    )
