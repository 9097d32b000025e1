"""A worker: an agent in a process of its own, which does what its parent asks for."""

from __future__ import annotations

import contextlib
import enum
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..admin.local import LocalAgent
from ..admin.questions import QUESTIONS, SHARD_QUESTIONS, Question
from ..admin.report import ReportedState
from ..agent.agent import Agent, Change
from ..agent.gauges import read_agent
from ..config import Config
from ..mail.envelope import RecipientNumber
from ..mail.queue_id import QueueId
from ..queue.operator.operations import Inspect
from ..system.file_table import Digests
from ..system.ports import Ports
from ..system.shared_counts import SharedCounts
from ..telemetry.log import Log
from ..telemetry.metrics import table
from ..telemetry.tracing import Event, Filter
from .audience import RemoteAudience
from .ledger import CreditMessage
from .limits import WorkerLimits
from .pipe import Pipe
from .spawning import PORTS, unpacked
from .submissions import ReceivedSubmissions

_ORPHANED = 0.5  # seconds that are left once the parent has died
_LAST_ANSWERS = 0.4  # of these, for last answers of next hops


class WorkerState(enum.Enum):
    """The state of a worker, as it sees itself."""

    NEW = "it has no settings"
    STARTED = "it has an agent"
    DRAINING = "it ends"
    ENDED = "it has ended"


class WorkerEvent(enum.Enum):
    """A call of the parent, or the end of the drain."""

    START = "start"
    DRAIN = "drain"
    DRAINED = "drained"


TRANSITIONS: Mapping[WorkerState, Mapping[WorkerEvent, WorkerState]] = {
    WorkerState.NEW: {
        WorkerEvent.START: WorkerState.STARTED,
        WorkerEvent.DRAIN: WorkerState.DRAINING,
    },
    WorkerState.STARTED: {WorkerEvent.DRAIN: WorkerState.DRAINING},
    WorkerState.DRAINING: {WorkerEvent.DRAINED: WorkerState.ENDED},
    WorkerState.ENDED: {},
}


class Worker:
    """Answers the calls of the parent.

    Args:
        number: which worker it is, from 0.
        reactor: the one that runs.
        log: where its lines go.
        counts: how many connections each worker has.
        settled: called when everything that stays is in memory, before connections come.
    """

    log = Logger()

    def __init__(
        self,
        number: int,
        reactor: Any,
        log: Log,
        counts: SharedCounts | None = None,
        *,
        settled: Callable[[], object] = lambda: None,
    ) -> None:
        self._settled = settled
        self._number = number
        self._log = log
        self._reactor = reactor
        self._ports = Ports(reactor, counts)
        self._state = WorkerState.NEW
        self._agent: Agent | None = None
        self._local: LocalAgent | None = None  # the agent, as questions reach it
        self._audience = RemoteAudience(self._tell)
        self._change: Change | None = None  # prepared, and not in force yet
        self._preparations = 0  # how often settings were prepared or forgotten
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
                "use_issued_certificate": self.use_issued_certificate,
                "report": lambda: self._answering.report().to_json(),
                **{question.name: partial(self._answer, question) for question in QUESTIONS},
                "queue": self.queue,
                "tls_news": self.tls_news,
                "trace": self.trace,
                "untrace": self.untrace,
                "watch": self._audience.watch,
                "unwatch": self._audience.unwatch,
                "follow": self._audience.follow,
                "unfollow": self._audience.unfollow,
                "queued_recipients": self.queued_recipients,
                "still_queued": self.still_queued,
                "when_idle": self.when_idle,
                "release": self.release,
                "is_idle": lambda: self._started_agent.is_idle,
                **ReceivedSubmissions(lambda: self._started_agent).calls,
            },
            self.parent_lost,
        )

    def _happened(self, event: WorkerEvent) -> None:
        self._state = TRANSITIONS[self._state][event]

    @property
    def _started_agent(self) -> Agent:
        assert self._agent is not None
        return self._agent

    @property
    def _answering(self) -> LocalAgent:
        assert self._local is not None
        return self._local

    def _process_state(self) -> ReportedState:
        return "ready" if self._state is WorkerState.STARTED else "draining"

    # Its life.

    def start(
        self,
        settings: str,
        shards: Sequence[int],
        endpoints: Sequence[str],
        create: bool = True,
        watched: bool = False,
        followed: Mapping[str, Sequence[RecipientNumber]] | None = None,
    ) -> Deferred[None] | None:
        """Open the queue.

        Args:
            settings: a `Config`, packed.
            shards: the numbers of its shards.
            endpoints: the kinds of the ports that were inherited.
            create: whether a queue that does not exist is made: not where a process before had it.
            watched: whether the parent is told of all mail (`RemoteAudience.watch`).
            followed: the application's own messages (`RemoteAudience.follow`).

        Raises:
            RuntimeError: it is to end.
        """
        if self._state is not WorkerState.NEW:
            raise RuntimeError("drained before it was started")
        config = self._share(settings)
        self._limits.workers = config.workers
        self._limits.alone = config.queue.database is None
        if watched:
            self._audience.watch()
        self._audience.follow(followed or {})
        self._agent = agent = Agent(
            config,
            reactor=self._reactor,
            limits=self._limits,
            is_own_address=self._ports.reach,
            worker=self._number,
            tls_written=lambda: self.pipe.send("tls_news"),
            audience=self._audience,
        )
        self._local = LocalAgent(
            agent, ports=self._ports, state=self._process_state, number=self._number
        )
        self._happened(WorkerEvent.START)
        read_agent(agent)
        agent.metrics.read(table.LOG_LINES_DROPPED, lambda: self._log.dropped)
        for descriptor, listener in enumerate(config.listeners, PORTS):
            self._ports.bind(
                listener.kind,
                listener.endpoint,
                agent.listeners.port_factory(descriptor - PORTS),
                implicit_tls=listener.implicit_tls,
                descriptor=descriptor,
            )
            # A port has its own copy. As long as any is open, the kernel accepts connections that
            # no process will serve.
            os.close(descriptor)
        return agent.start(shards, create=create)

    def serve(self) -> None:
        """Take connections."""
        self._settled()
        self._ports.accept_connections()

    def drain(self) -> None:
        """Take no more connections, let sessions and deliveries end, and end."""
        if self._state in (WorkerState.DRAINING, WorkerState.ENDED):
            return
        self._happened(WorkerEvent.DRAIN)
        unbound = self._ports.unbind()
        stopped = self._agent.stop() if self._agent is not None else unbound
        stopped.addErrback(lambda failure: self.log.failure("the drain", failure))
        stopped.addCallback(lambda _: self._end())

    def hurry(self) -> None:
        """Drain, and wait for nothing."""
        if self._agent is not None:
            self._agent.hurry()
        self.drain()

    def parent_lost(self) -> None:
        """End within a second, whatever is under way."""
        if self._state is WorkerState.ENDED:
            return  # this process closed the pipe
        # The kernel ends the process in time even if it is stuck.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, _ORPHANED)
        if self._state is not WorkerState.DRAINING:
            self.log.error("the parent is gone, and so is this worker")
            self.drain()
            if self._agent is not None:
                self._agent.listeners.abandon(at_once=True)
        self._reactor.callLater(_LAST_ANSWERS, self.hurry)

    def _end(self) -> None:
        self._happened(WorkerEvent.DRAINED)
        self._limits.close()
        with contextlib.suppress(ReactorNotRunning):  # it ends already
            self._reactor.stop()

    # Settings.

    def prepare(self, settings: str, checked: Digests) -> Deferred[Digests]:
        """Prepare other settings; fires with the files that are good (`Agent.prepare`)."""
        self.forget()
        preparation = self._preparations
        change = self._started_agent.prepare(self._share(settings), checked=checked)

        def prepared(change: Change) -> Digests:
            if preparation == self._preparations:  # or it took too long
                self._change = change
            return change.digests

        return Deferred.fromCoroutine(change).addCallback(prepared)

    def use(self) -> Deferred[list[str]]:
        """Put the prepared settings in force."""
        change, self._change = self._change, None
        assert change is not None

        def failed(failure: Failure) -> list[str]:
            if self._state is WorkerState.STARTED:
                failure.raiseException()
            return []  # its successor begins with them

        return change.use().addErrback(failed)

    def forget(self) -> None:
        """Forget prepared settings, and stay with those in force."""
        self._preparations += 1
        self._change = None

    def use_issued_certificate(self) -> Deferred[list[str]]:
        """Put a certificate that was issued in force (`Agent.use_issued_certificate`)."""
        return Deferred.fromCoroutine(self._started_agent.use_issued_certificate())

    def _share(self, settings: str) -> Config:
        """Unpack settings, with this worker's share of the memory for messages."""
        config = unpacked(settings)
        memory = max(config.message_memory // config.workers, config.queue.small_body)
        return evolve(config, message_memory=memory)

    # An operator's questions (`admin.questions`), and traces.

    def _answer(self, question: Question, **arguments: Any) -> Deferred[Any]:
        return self._answering.ask(question, **arguments)

    def queue(self, shard: int, question: str, arguments: Mapping[str, Any]) -> Deferred[Any]:
        """Answer a question about a shard."""
        return self._answering.ask_shard(shard, SHARD_QUESTIONS[question], **arguments)

    def trace(self, trace: int, wanted: Mapping[str, str]) -> None:
        """Open a trace, and send its lines to the parent."""

        def deliver(events: Sequence[Event], lost: int) -> None:
            self.pipe.send("traced", trace=trace, events=events, lost=lost)

        self._started_agent.tracing.open(trace, Filter.parse(wanted), deliver)

    def untrace(self, trace: int) -> None:
        """Close a trace."""
        if self._agent is not None:
            self._agent.tracing.close(trace)

    # Mail of an application in the parent.

    def queued_recipients(
        self, ids: Sequence[str], untold: Sequence[str]
    ) -> Deferred[Mapping[str, Sequence[RecipientNumber]]]:
        """Look for messages in the queue; fires with the numbers of their recipients, by id.

        Args:
            ids: of the messages; those that are not in the queue are left out of the answer.
            untold: ids among these that the parent was told nothing of: if they are in the queue,
                they were accepted.
        """

        async def look() -> Mapping[str, Sequence[RecipientNumber]]:
            found: dict[str, Sequence[RecipientNumber]] = {}
            agent = self._started_agent
            for id in ids:
                for shard in agent.shards:
                    inspected = await shard.commit.perform(Inspect(QueueId.parse(id)))
                    if inspected is not None:
                        if id in untold:
                            agent.events.accepted(inspected.message)
                        recipients = inspected.message.envelope.recipients
                        found[id] = [each.number for each in recipients]
            return found

        return Deferred.fromCoroutine(look())

    def still_queued(
        self, ids: Sequence[str]
    ) -> Deferred[Mapping[str, Sequence[RecipientNumber]] | None]:
        """Look for recipients of messages in a shared queue (`Agent.queued_recipients`)."""
        return Deferred.fromCoroutine(self._started_agent.queued_recipients(ids))

    def when_idle(self) -> Deferred[None]:
        """Fire once no delivery is under way and none is due."""
        return Deferred.fromCoroutine(self._started_agent.when_idle())

    # Shared with the other workers.

    def release(self, next_hop: Sequence[str]) -> Deferred[None] | None:
        """Close idle connections to a next hop (`Connections.release`)."""
        return self._started_agent.connections.release(tuple(next_hop), 0)

    def tls_news(self) -> None:
        """Read what another worker has learned of TLS."""
        if self._agent is not None:
            self._agent.tls_news()

    def _tell(self, name: str, **arguments: Any) -> None:
        self.pipe.send_now(name, **arguments)

    def _count(self, message: CreditMessage) -> None:
        self.pipe.send("limits", message=message)
