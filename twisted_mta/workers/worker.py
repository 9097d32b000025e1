"""A worker: an agent in a process of its own, which its parent tells what to do."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..agent.agent import Agent, Change
from ..agent.explain.asked import Wanted, answered
from ..agent.report import process_report, read_agent
from ..config import Config
from ..system.ports import Ports
from ..system.shared_counts import SharedCounts
from ..system.slices import Digests
from ..telemetry.log import Log
from ..telemetry.metrics import table
from ..telemetry.tracing import Event, Filter
from ..tls.memory import TLSEntry
from .ledger import CreditMessage
from .limits import WorkerLimits
from .pipe import Pipe
from .process import PORTS

_ORPHANED = 0.5  # seconds that are left once it is noticed that the parent has died
_LAST_ANSWERS = 0.4  # of these, for what the next hops may say yet


class Worker:
    """What a worker does for its parent.

    Args:
        number: which it is, from 0.
        reactor: the one that runs.
        log: where its lines go.
        loads: how many connections the others have.
        settled: called when all is there that stays, before connections come.
    """

    log = Logger()

    def __init__(
        self,
        number: int,
        reactor: Any,
        log: Log,
        loads: SharedCounts | None = None,
        *,
        settled: Callable[[], object] = lambda: None,
    ) -> None:
        self._settled = settled
        self._number = number
        self._log = log
        self._reactor = reactor
        self._ports = Ports(reactor, loads)
        self._agent: Agent | None = None
        self._prepared: Change | None = None
        self._asked = 0  # how often settings came, or went
        self._draining = False
        self._ended = False
        self._limits = WorkerLimits(send=self._count, clock=reactor)
        self.pipe = Pipe(
            {
                "limits": self._limits.receive,
                "ping": self._limits.parent_lives,
                "start": self.start,
                "serve": self.serve,
                "drain": self.drain,
                "hurry": self.hurry,
                "prepare": self.prepare,
                "use": self.use,
                "forget": self.forget,
                "report": self.report,
                "tls": self.tls,
                "tls_news": self.tls_news,
                "queue": self.queue,
                "explain": self.explain,
                "trace": self.trace,
                "untrace": self.untrace,
            },
            self.parent_lost,
        )

    def start(
        self,
        settings: str,
        shards: Sequence[int],
        endpoints: Sequence[str],
        create: bool = True,
    ) -> Deferred[None] | None:
        """Open the queue.

        Args:
            settings: a `Config`, packed.
            shards: which parts of it.
            endpoints: the kinds of the ports that were inherited.
            create: whether what is not there is made: not where it was there in a life before.

        Raises:
            RuntimeError: it is to end already.
        """
        if self._draining:
            raise RuntimeError("told to end before it began")
        config = self._share(settings)
        self._limits.workers = config.workers
        self._agent = agent = Agent(
            config,
            reactor=self._reactor,
            limits=self._limits,
            is_own_address=self._ports.reach,
            worker=self._number,
            tls_written=lambda: self.pipe.tell("tls_news"),
        )
        read_agent(agent.metrics, agent)
        agent.metrics.read(table.LOG_LINES_DROPPED, lambda: self._log.dropped)
        for descriptor, listener in enumerate(config.listeners, PORTS):
            self._ports.bind(
                listener.kind,
                listener.endpoint,
                agent.listeners.served(descriptor - PORTS),
                implicit_tls=listener.implicit_tls,
                descriptor=descriptor,
            )
            # A port has its own copy. As long as any is open, the kernel takes connections that
            # nobody will answer.
            os.close(descriptor)
        return agent.start(shards, create=create)

    def serve(self) -> None:
        """Take connections."""
        self._settled()
        self._ports.accept_connections()

    def drain(self) -> None:
        """Take no more connections; when the rest is done, end."""
        if self._draining:
            return
        self._draining = True
        unbound = self._ports.unbind()
        stopped = self._agent.stop() if self._agent is not None else unbound
        stopped.addErrback(lambda failure: self.log.failure("the drain", failure))
        stopped.addCallback(lambda _: self._end())

    def hurry(self) -> None:
        """Drain, and wait for nothing."""
        if self._agent is not None:
            self._agent.hurry()
        self.drain()

    def prepare(self, settings: str, checked: Digests) -> Deferred[Digests]:
        """Make ready for other settings; fires with what was found good (`Agent.prepare`)."""
        assert self._agent is not None
        self.forget()
        asked = self._asked
        change = self._agent.prepare(self._share(settings), checked=checked)

        def prepared(change: Change) -> Digests:
            if asked == self._asked:  # or it took too long
                self._prepared = change
            return change.digests

        return Deferred.fromCoroutine(change).addCallback(prepared)

    def use(self) -> Deferred[list[str]]:
        """Put them in force."""
        prepared, self._prepared = self._prepared, None
        assert prepared is not None

        def failed(failure: Failure) -> list[str]:
            if not self._draining:
                failure.raiseException()
            return []  # its successor begins with them

        return prepared.use().addErrback(failed)

    def forget(self) -> None:
        """Stay with the settings of before."""
        self._asked += 1
        self._prepared = None

    def report(self) -> dict[str, Any]:
        """Say how things stand here."""
        assert self._agent is not None
        return process_report(
            self._agent,
            pid=os.getpid(),
            state="draining" if self._draining else "ready",
            started_at=self._agent.started_at,
            names=self._ports.names,
            number=self._number,
        ).to_json()

    def tls(self, domain: str | None) -> Sequence[TLSEntry]:
        """Say with which hosts TLS was had; see `Agent.tls_hosts`."""
        assert self._agent is not None
        return self._agent.tls_hosts(domain)

    def tls_news(self) -> None:
        """Read what another worker has learnt of TLS."""
        if self._agent is not None:
            self._agent.tls_news()

    def queue(self, shard: int, question: str, arguments: Mapping[str, Any]) -> Deferred[Any]:
        """Answer what an operator asks of a shard; see `Agent.ask_queue`."""
        assert self._agent is not None
        return self._agent.ask_queue(shard, question, arguments)

    def explain(self, wanted: Wanted) -> Deferred[dict[str, Any] | None]:
        """Say why mail is where it is; see `agent.explain.asked.answered`."""
        assert self._agent is not None
        return answered(self._agent.explainer, wanted)

    def trace(self, trace: int, wanted: Mapping[str, str]) -> None:
        """Open a trace, whose lines the parent is told."""
        assert self._agent is not None

        def deliver(events: Sequence[Event], lost: int) -> None:
            self.pipe.tell("traced", trace=trace, events=events, lost=lost)

        self._agent.tracing.open(trace, Filter.parse(wanted), deliver)

    def untrace(self, trace: int) -> None:
        """Close a trace."""
        if self._agent is not None:
            self._agent.tracing.close(trace)

    def parent_lost(self) -> None:
        """End within a second, whatever is under way."""
        if self._ended:
            return  # it was us who closed the pipe
        # The kernel keeps that promise, even if this process is stuck.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, _ORPHANED)
        if not self._draining:
            self.log.error("the parent is gone, and so is this worker")
            self.drain()
            if self._agent is not None:
                self._agent.listeners.abandon(at_once=True)
        self._reactor.callLater(_LAST_ANSWERS, self.hurry)

    def _count(self, message: CreditMessage) -> None:
        self.pipe.tell("limits", message=message)

    def _share(self, settings: str) -> Config:
        config: Config = pickle.loads(b64decode(settings))
        memory = max(config.message_memory // config.workers, config.queue.small_body)
        return evolve(config, message_memory=memory)

    def _end(self) -> None:
        self._ended = True
        self._limits.close()
        with contextlib.suppress(ReactorNotRunning):  # it ends already
            self._reactor.stop()
