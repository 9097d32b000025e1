"""The workers of one parent: all are started, asked, given new settings, and ended as one.

A worker is a process with an agent of its own. It inherits the ports, which the parent has bound
and never reads from, and one end of a socket pair; it ends when that closes. So each of the two
notices at once when the other dies.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import evolve
from twisted.internet.defer import (
    Deferred,
    DeferredList,
    FirstError,
    TimeoutError,
    fail,
    gatherResults,
)
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from ..admin.questions import Deliver, PendingReport, Question, ShardQuestion
from ..admin.report import ProcessReport
from ..agent.audience import LocalAudience, Outcomes, Subscriber
from ..agent.outcome_watch import OutcomeWatch, Queued
from ..agent.settings import LONGEST_HOLD, largest_submission
from ..config import Config
from ..health.trouble import Trouble
from ..interfaces import WallTime
from ..mail.envelope import RecipientNumber
from ..mail.events import event_from_json
from ..mail.queue_id import QueueId
from ..server.application_mail import Receipt
from ..server.application_submission import Submission, SubmissionReader
from ..system.executors import ThreadExecutor
from ..system.ports import Bound, Ports, Unserved
from ..system.repetition import Repetition
from ..system.shared_counts import SharedCounts
from ..system.slices import Sliced
from ..telemetry.metrics import Metrics
from ..telemetry.tracing import Event, Filter
from .ledger import CreditMessage, Ledger
from .pipe import CallFailed, PipeClosed
from .process import READING, ProcessPipe, WorkerFailed, WorkerProcess, reason_of
from .spawning import packed
from .submissions import Submissions

_LAST_ANSWERS = 60.0  # seconds that a worker's agent waits beyond the drain timeout
_PATIENCE = 10.0  # seconds beyond all timeouts after which a worker is killed
_RELEASING = 1.5  # seconds for idle connections to end
_TICK = 1.0  # seconds between two pings of each worker


class WorkersState(enum.Enum):
    """The state of the workers together."""

    STARTING = "they open their queues"
    SERVING = "they take connections"
    STOPPING = "they drain"


class WorkersEvent(enum.Enum):
    """An event in the life of all workers."""

    SERVE = "serve"
    STOP = "stop"


TRANSITIONS: Mapping[WorkersState, Mapping[WorkersEvent, WorkersState]] = {
    WorkersState.STARTING: {
        WorkersEvent.SERVE: WorkersState.SERVING,
        WorkersEvent.STOP: WorkersState.STOPPING,
    },
    WorkersState.SERVING: {WorkersEvent.STOP: WorkersState.STOPPING},
    WorkersState.STOPPING: {},
}


class Workers:
    """The processes of one mail transfer agent (`process.Parent`, `admin.questions.Agents`).

    Args:
        config: the settings; ``workers`` of them is the number of processes.
        reactor: IReactorProcess, IReactorSocket and IReactorTime.
        ports: that workers take connections from.
        lines: takes the log of workers, in whole lines.
        metrics: where restarts are counted.
        wall_time: for reports.
        nonce: returns a text that is used once.

    Attributes:
        submissions: reads mail of the application.
    """

    def __init__(
        self,
        config: Config,
        *,
        reactor: Any,
        ports: Ports,
        lines: Callable[[bytes], None],
        metrics: Metrics,
        wall_time: WallTime,
        nonce: Callable[[], str],
    ) -> None:
        self.config = config
        self.state = WorkersState.STARTING
        self._reactor = reactor
        self._ports = ports
        self._lines = lines
        self._metrics = metrics
        self._wall_time = wall_time
        self._workers: list[WorkerProcess] = []
        self._traces: dict[int, tuple[Filter, Deliver]] = {}
        self._last_trace = 0
        self._audience = LocalAudience()
        # Files of the application are read in the parent, where they are open.
        self._threads = ThreadExecutor(reactor, 2, "twisted-mta files")
        self._sliced = Sliced(reactor, self._threads)
        self.submissions = SubmissionReader(
            wall_time=wall_time,
            longest_hold=LONGEST_HOLD,
            limit=lambda: largest_submission(self.config),
            new_boundary=lambda: f"=_{nonce()}",
            executor=self._threads,
            run=self._sliced.work,
        )
        self._submissions = Submissions(self._audience, workers=lambda: self._workers)
        self._openings: list[Deferred[None]] = []  # fire when a worker has opened its queue
        self._hurried = False
        self._stops: list[Deferred[None]] = []
        self._killing: IDelayedCall | None = None
        self.ledger = Ledger(send=_send_credits, clock=reactor)
        self._counts: SharedCounts | None = None
        self._ticking = Repetition(self._tick, reactor)
        self._outcome_watch = OutcomeWatch(
            self._audience, self._still_queued, lost=self._unfollow, clock=reactor
        )

    def _tick(self) -> None:
        for worker in self._workers:
            worker.tick()

    def _happened(self, event: WorkersEvent) -> None:
        self.state = TRANSITIONS[self.state][event]

    @property
    def stopping(self) -> bool:
        """Whether all are to end."""
        return self.state is WorkersState.STOPPING

    @property
    def serving(self) -> bool:
        """Whether connections are to be taken."""
        return self.state is WorkersState.SERVING

    # Their life.

    def factory(self, number: int) -> Factory:
        """Return the factory of a listener's port in the parent, which serves no connection."""
        return Unserved()

    def start(self, shares: Sequence[Sequence[int]]) -> Deferred[None]:
        """Start them.

        Args:
            shares: for each worker the numbers of its shards.

        Returns:
            Fires when all have opened their queues; fails with `WorkerFailed` if one cannot, once
            all have ended.
        """
        if self._counts is not None:
            self._counts.close()
        self._counts = SharedCounts.of(len(shares))
        self._ticking.start(_TICK)
        if self._have_one_queue:
            self._outcome_watch.start()
        self._threads.start()
        self._workers = [
            WorkerProcess(
                self,
                number,
                shards,
                reactor=self._reactor,
                wall_time=self._wall_time,
                metrics=self._metrics,
            )
            for number, shards in enumerate(shares)
        ]
        ready = gatherResults([worker.spawn() for worker in self._workers], consumeErrors=True)

        def failed(failure: Failure) -> Deferred[Any]:
            first = getattr(failure.value, "subFailure", failure)
            return self.stop().addCallback(lambda _: Failure(first.value))

        return ready.addCallbacks(lambda _: None, failed)

    def serve(self) -> None:
        """Let them take connections."""
        self._happened(WorkersEvent.SERVE)
        for worker in self._workers:
            worker.send("serve")

    def stop(self) -> Deferred[None]:
        """Let them drain and end; fires when no process is left, however often it is called."""
        stopped: Deferred[None] = Deferred()
        self._stops.append(stopped)
        if not self.stopping:
            self._happened(WorkersEvent.STOP)
            for worker in self._workers:
                worker.stop()
            # As long as one is open, the kernel accepts connections that no process will serve.
            self._ports.unbind()
            patience = self.config.drain_timeout + _LAST_ANSWERS + _PATIENCE
            self._killing = self._reactor.callLater(patience, self._kill)
            if self._hurried:
                self.hurry()
        self.exited()
        return stopped

    def hurry(self) -> None:
        """Let a stop that is under way, or is to come, wait for nothing."""
        self._hurried = True
        if not self.stopping:
            return
        for worker in self._workers:
            worker.send("hurry")
        if self._killing is not None and self._killing.active():
            self._killing.reset(min(_PATIENCE, self._killing.getTime() - self._reactor.seconds()))

    def _kill(self) -> None:
        for worker in self._workers:
            worker.kill("does not end")

    # Settings.

    async def prepare(self, config: Config) -> Callable[[], Deferred[list[str]]]:
        """Let all prepare other settings; return a function that puts them in force.

        Raises:
            WorkerFailed: a worker cannot use them, and why; nothing has changed in any.
        """
        settings = packed(config)
        pipes = [worker.pipe for worker in self._workers if worker.ready]
        if not pipes:
            raise WorkerFailed("no worker is there to read the settings; they have only just died")
        asked: list[ProcessPipe] = []
        checked: dict[str, str] = {}
        # One after the other: files that the first has found good, the others parse at their use.
        for pipe in pipes:
            asked.append(pipe)
            done, answer = await self._call(pipe, "prepare", settings=settings, checked=checked)
            if not done:
                for each in asked:
                    each.send("forget")
                raise WorkerFailed(_refusal(pipe, answer))
            checked.update(answer or {})
        return lambda: Deferred.fromCoroutine(self._use(config, pipes))

    async def _use(self, config: Config, pipes: Sequence[ProcessPipe]) -> list[str]:
        self.config = config  # for processes that start from now on
        changes: dict[str, None] = {}
        for pipe in pipes:
            done, answer = await self._call(pipe, "use")
            if done:
                pipe.config = config
                changes.update(dict.fromkeys(answer))
            elif not answer.check(PipeClosed):
                # The others cannot go back; its successor starts with their settings.
                pipe.worker.kill(f"does not take new settings ({reason_of(answer)})")
        for worker in self._workers:
            worker.catch_up()
        return list(changes)

    async def use_issued_certificate(self) -> list[str]:
        """Let all put a certificate that was issued in force.

        Raises:
            WorkerFailed: a worker cannot use it, and why; others may use it already.
        """
        # Another value, though an equal one: processes that begin now may have read the file of
        # before, and catch up.
        self.config = config = evolve(self.config)
        changes: dict[str, None] = {}
        failures: list[str] = []
        for pipe in [worker.pipe for worker in self._workers if worker.ready]:
            done, answer = await self._call(pipe, "use_issued_certificate")
            pipe.config = config  # also where it stays with the certificate of before
            if done:
                changes.update(dict.fromkeys(answer))
            elif not answer.check(PipeClosed):
                failures.append(_refusal(pipe, answer))
        for worker in self._workers:
            worker.catch_up()
        if failures:
            raise WorkerFailed(failures[0])
        return list(changes)

    async def _call(self, pipe: ProcessPipe, name: str, **arguments: Any) -> tuple[bool, Any]:
        """Call one process; return whether that succeeded, and its answer or its failure."""
        try:
            return True, await pipe.call(name, **arguments).addTimeout(READING, self._reactor)
        except Exception:
            return False, Failure()

    # An operator's questions.

    def ask(self, question: Question, **arguments: Any) -> Deferred[Any]:
        """Ask all; answers that do not come in time are left out."""
        workers = [worker for worker in self._workers if worker.ready]
        calls = [
            worker.call(question.name, **arguments).addTimeout(question.timeout, self._reactor)
            for worker in workers
        ]
        return DeferredList(calls, consumeErrors=True).addCallback(
            lambda answers: question.merge(
                [
                    (worker.number, answer)
                    for worker, (answered, answer) in zip(workers, answers, strict=True)
                    if answered
                ]
            )
        )

    @property
    def _have_one_queue(self) -> bool:
        """Whether all have the same queue, so that each can answer for it."""
        return self.config.queue.database is not None

    def ask_shard(self, shard: int, question: ShardQuestion, **arguments: Any) -> Deferred[Any]:
        """Ask the worker that has a shard."""
        for worker in self._workers:
            if worker.ready and (shard in worker.shards or self._have_one_queue):
                its_shard = worker.number if self._have_one_queue else shard
                answer = worker.call(
                    "queue", shard=its_shard, question=question.name, arguments=arguments
                )
                return answer.addErrback(_original_failure)
        return fail(LookupError(f"the process of shard {shard} is not there now; try again"))

    def shards(self) -> Sequence[int]:
        """Return the numbers of all shards; a queue that all share counts as one."""
        if self._have_one_queue:
            return (0,)
        return [number for worker in self._workers for number in worker.shards]

    def reports(self) -> Sequence[ProcessReport | PendingReport]:
        """Ask all for their reports."""
        return [worker.report() for worker in self._workers]

    def troubles(self) -> Sequence[Trouble]:
        """Return which of them end again and again."""
        return [worker.trouble for worker in self._workers if worker.trouble is not None]

    def trace(self, wanted: Filter, deliver: Deliver) -> Callable[[], object]:
        """Open a trace in all, also in those that start later; return a function that closes it."""
        self._last_trace = name = self._last_trace + 1
        self._traces[name] = wanted, deliver

        def close() -> None:
            del self._traces[name]
            for worker in self._workers:
                worker.send("untrace", trace=name)

        for worker in self._workers:
            if worker.ready:
                worker.send("trace", trace=name, wanted=wanted.to_json())
        return close

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call a function with each step of mail in all, also in those that start later."""
        stop_here = self._audience.subscribe(subscriber)

        def stop() -> None:
            stop_here()
            if not self._audience.has_subscribers:
                for worker in self._workers:
                    worker.send("unwatch")

        for worker in self._workers:
            if worker.ready:
                worker.send("watch")
        return stop

    # Mail of the application.

    @property
    def drains(self) -> bool:
        """Never: workers have no deliveries of an application, which may submit mail to the end."""
        return False

    async def submit(self, submission: Submission) -> Receipt:
        """Put a message of the application into the queue of a worker (`Submissions`)."""
        return await self._submissions.submit(submission)

    def outcome(self, id: str) -> Deferred[Outcomes]:
        """Return the outcome of a message of the application."""
        return self._audience.outcome(id)

    async def _still_queued(self, ids: Sequence[str]) -> Queued | None:
        """Return which recipients of messages are in the queue that all share.

        Every worker is asked, since each answers once the steps that it had taken are told. Those
        of one that cannot read the queue now may be told later.
        """
        workers = [worker for worker in self._workers if worker.ready]
        answers = await gatherResults(
            [
                Deferred.fromCoroutine(self._call(worker.pipe, "still_queued", ids=ids))
                for worker in workers
            ]
        )
        found: dict[str, list[RecipientNumber]] = {}
        for done, queued in answers:
            if not done or queued is None:
                return None
            for id, numbers in queued.items():
                found.setdefault(id, []).extend(numbers)
        return found if workers else None

    async def when_idle(self) -> None:
        """Return once all workers are idle at the same time, or end."""
        while self._workers and not self.stopping:
            if not all(worker.ready for worker in self._workers):
                opening = Deferred[None](self._openings.remove)
                self._openings.append(opening)
                await opening
                continue
            try:
                await self._of_all("when_idle")
                # Mail may have come to one while another one was waited for.
                if all(await self._of_all("is_idle")):
                    return
            except FirstError as error:
                if not error.subFailure.check(PipeClosed):
                    error.subFailure.raiseException()

    def _of_all(self, name: str) -> Deferred[list[Any]]:
        return gatherResults([each.call(name) for each in self._workers], consumeErrors=True)

    def _fire_openings(self) -> None:
        openings, self._openings = self._openings, []
        for each in openings:
            each.callback(None)

    # For each worker's process (`process.Parent`).

    @property
    def bound(self) -> Sequence[Bound]:
        """The ports that workers inherit."""
        return self._ports.bound

    @property
    def counts(self) -> SharedCounts:
        """How many connections each has; there once they were started."""
        assert self._counts is not None
        return self._counts

    def opened(self, worker: WorkerProcess) -> None:
        """Open the present traces in a worker that has started, and let it tell of its mail."""
        for name, (wanted, _) in self._traces.items():
            worker.send("trace", trace=name, wanted=wanted.to_json())
        if self._audience.has_subscribers:
            worker.send("watch")
        self._submissions.opened(worker)
        self._fire_openings()

    def exited(self) -> None:
        """Complete a stop if no process is left."""
        if not self.stopping or any(worker.alive for worker in self._workers):
            return
        stops, self._stops = self._stops, []
        self._ticking.stop()
        self._outcome_watch.stop()
        self.ledger.close()
        self._sliced.stop()
        self._threads.stop()
        self._submissions.stop()
        self._audience.stop()
        self._fire_openings()
        if self._counts is not None:
            self._counts.close()
        if self._killing is not None and self._killing.active():
            self._killing.cancel()
        for each in stops:
            each.callback(None)

    def traced(self, trace: int, events: Sequence[Event], lost: int) -> None:
        """Take lines of a trace."""
        if trace in self._traces:
            _, deliver = self._traces[trace]
            deliver(events, lost)

    def mail_event(self, event: Mapping[str, Any], numbers: Sequence[int]) -> None:
        """Tell the subscribers of a step of mail."""
        step = event_from_json(event)
        self._audience.tell(step, [RecipientNumber(each) for each in numbers])
        if numbers and not self._audience.left(step.id):
            self._unfollow(step.id)

    def audience_of(self, number: int) -> Mapping[str, Any]:
        """Return of which mail a worker is to tell: arguments of its start."""
        # Mail in a queue that all share may be delivered by any.
        submissions, audience = self._submissions, self._audience
        return {
            "watched": audience.has_subscribers,
            "followed": audience.incomplete()
            if self._have_one_queue
            else submissions.taken_by(number),
        }

    def track_mail(self, number: int, id: str, recipients: Mapping[str, Sequence[int]]) -> None:
        """Keep the outcome of a message of the application that a worker is about to queue."""
        self._audience.track(
            QueueId.parse(id),
            {
                written: [RecipientNumber(each) for each in numbers]
                for written, numbers in recipients.items()
            },
        )
        self._submissions.taken(id, number)
        if self._have_one_queue:
            for worker in self._workers:
                if worker.ready and worker.number != number:
                    worker.send("follow", messages={id: self._audience.left(id)})

    def forget_mail(self, id: str) -> None:
        """Forget a message of the application that was not queued."""
        self._audience.untrack(QueueId.parse(id))
        self._unfollow(id)

    def _unfollow(self, id: str) -> None:
        """Expect no more steps of a message of the application."""
        self._submissions.ended(id)
        if self._have_one_queue:
            for worker in self._workers:
                worker.send("unfollow", id=id)

    def pass_on_tls_news(self, source: WorkerProcess) -> None:
        """Let all others read what one worker has learned of TLS."""
        for worker in self._workers:
            if worker is not source and worker.ready:
                worker.send("tls_news")

    def release(self, name: tuple[str, ...], left: int) -> Deferred[None] | None:
        """Let all close idle connections to a next hop (`cluster.cluster.Release`).

        They do not know of each other's, so none stays.
        """
        calls = [
            worker.call("release", next_hop=name).addTimeout(_RELEASING, self._reactor)
            for worker in self._workers
            if worker.ready
        ]
        return DeferredList(calls, consumeErrors=True).addCallback(lambda _: None)

    def log_lines(self, lines: bytes) -> None:
        """Write lines that a worker has logged."""
        self._lines(lines)


def _refusal(pipe: ProcessPipe, failure: Failure) -> str:
    if failure.check(PipeClosed):
        return f"worker {pipe.worker.number} has died meanwhile; try again"
    if failure.check(TimeoutError):
        return f"worker {pipe.worker.number}: {reason_of(failure)}"
    return reason_of(failure)


def _original_failure(failure: Failure) -> Failure:
    """Return a worker's failure as it was there, where it is about the arguments."""
    if failure.check(CallFailed) and getattr(failure.value, "error", "") == "ValueError":
        return Failure(ValueError(failure.getErrorMessage()))
    return failure


def _send_credits(worker: Any, message: CreditMessage) -> None:
    worker.send("limits", message=message)
