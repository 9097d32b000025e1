"""Resources that the parts of an agent share: clock, files, threads, random numbers, DNS."""

from __future__ import annotations

from typing import Any

from ..config import Config
from ..dns import DNSResolver
from ..dns.monitored import MonitoredResolver
from ..interfaces import Executor
from ..queue.ids import SHARED_WORKERS, WORKERS, QueueIds
from ..system.executors import NearExecutor, ThreadExecutor
from ..system.files import DiskFiles
from ..system.outbox import Outbox
from ..system.real_world import BlockedTime, system_random
from ..system.slices import Sliced
from .environment import Environment


class Resources:
    """The environment of an agent, with the real thing for each part of it that is None.

    Args:
        config: for the name servers.
        reactor: IReactorTime, IReactorUDP, IReactorFromThreads, …
        environment: of the agent.
        worker: which process this is, from 0.

    Attributes:
        reactor: see the argument.
        wall_time: the time of day.
        random: for jitter, orders and names.
        files: the file system.
        ids: queue ids.
        secret: returns so many octets that cannot be guessed.
        nonce: returns a text that is used once, in AUTH.
        source_of: returns the local address that leads to another, where they are known.
        give_way: yields the processor to clients on this machine.
        patience: seconds for which outcomes wait to share the commit of a message.
        file_executor: where files are read and written.
        password_executor: where passwords are hashed.
        resolver: the DNS, and whether it answers.
        outbox: where octets wait for the end of the reactor's turn.
        sliced: does long work in slices, until the agent begins to stop.
        submitting: the same for mail of the application, until no delivery is left.
    """

    def __init__(
        self, config: Config, *, reactor: Any, environment: Environment, worker: int
    ) -> None:
        self._threads: list[ThreadExecutor] = []
        self._blocked_times: list[BlockedTime] = []
        self._commit_executor = environment.commit_executor
        self.reactor = reactor
        self.wall_time = environment.wall_time
        self.random = environment.random or system_random()
        self.files = environment.files or DiskFiles()
        self.ids = environment.ids or QueueIds(
            wall_time=self.wall_time,
            random=self.random,
            worker=worker,
            workers=WORKERS if config.queue.database is None else SHARED_WORKERS,
        )
        self.secret = environment.secret
        self.nonce = environment.nonce
        self.source_of = environment.source_of
        self.give_way = environment.give_way
        self.patience = environment.patience
        self.file_executor = environment.file_executor or self._new_threads(4, "files")
        self.password_executor = environment.password_executor or self._new_threads(2, "passwords")
        self._dns: DNSResolver | None = None  # where it is the agent's own
        resolver = environment.resolver
        if resolver is None:
            resolver = self._dns = DNSResolver(
                reactor,
                nameservers=config.dns.nameservers,
                timeout=config.dns.timeout,
                trust_ad=config.dns.trust_ad,
            )
        self.resolver = MonitoredResolver(resolver, reactor)
        self.outbox = Outbox(reactor)
        self.sliced = Sliced(reactor, self.file_executor)
        self.submitting = Sliced(reactor, self.file_executor)

    def commit_executor(self, shard: int, *, remote: bool = False) -> Executor:
        """Return where the transactions of a shard's queue run, one at a time.

        Args:
            shard: its number.
            remote: whether another host may keep a transaction waiting: then none ever runs in the
                reactor's thread.
        """
        if self._commit_executor is not None:
            return self._commit_executor
        threads = self._new_threads(1, f"queue {shard}")
        if remote:
            return threads
        blocked_time = BlockedTime()
        self._blocked_times.append(blocked_time)
        return NearExecutor(threads, blocked_time)

    def start_threads(self) -> None:
        """Let the executors work."""
        for threads in self._threads:
            threads.start()

    def stop_threads(self) -> None:
        """End the executors' threads."""
        for threads in self._threads:
            threads.stop()
        for blocked_time in self._blocked_times:
            blocked_time.close()

    def reload_resolver(self) -> list[str]:
        """Read the settings of name servers again; return lines that say what changed."""
        return [] if self._dns is None else self._dns.reload()

    def stop_resolver(self) -> None:
        """Give up all queries."""
        if self._dns is not None:
            self._dns.stop()

    def _new_threads(self, count: int, name: str) -> ThreadExecutor:
        executor = ThreadExecutor(self.reactor, count, f"twisted-mta {name}")
        self._threads.append(executor)
        return executor
