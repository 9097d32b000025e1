"""A worker as its parent sees it: a process that is started, watched, and started anew."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from attrs import evolve
from twisted.internet.defer import Deferred, TimeoutError, fail
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..admin.questions import PendingReport
from ..admin.report import ProcessReport
from ..config import Config
from ..health.trouble import Trouble
from ..interfaces import WallTime
from ..system.ports import Bound
from ..system.shared_counts import SharedCounts
from ..telemetry.log import WholeLines
from ..telemetry.metrics import Metrics, table
from ..telemetry.tracing import Event
from .ledger import CreditMessage, Ledger
from .lifecycle import TRANSITIONS, ProcessEvent, ProcessState
from .log_reader import LOG, LogReader
from .pipe import CallFailed, Pipe, PipeClosed
from .spawning import packed, spawn

READING = 60.0
"""Seconds that a worker has to read certificates, aliases and other files, besides its work."""

_RESTART_FIRST = 0.1  # seconds; doubled each time that a process ends early
_RESTART_LAST = 60.0
_LIVED_WELL = 60.0  # seconds after which the end of a process delays its successor no more
_OFTEN = 3  # early ends in a row, after which they are a trouble
_NEVER_OPENS = 600  # ticks of the parent in which a process has not opened its queue
_HANGS = 30  # ticks of the parent without a message, after which a process is killed; one a second
_MOST_FIRST_PROCESSES = 5  # that may end before a queue is open, until the start has failed
_PATIENCE = 10.0  # seconds for a process to end without its pipe, or to answer that it will


class WorkerFailed(Exception):
    """A worker cannot start; the text is its own reason."""


class Parent(Protocol):
    """The parent, as a worker's process needs it (`workers.Workers`)."""

    @property
    def config(self) -> Config:
        """The settings in force."""
        ...

    @property
    def bound(self) -> Sequence[Bound]:
        """The ports that workers inherit."""
        ...

    @property
    def counts(self) -> SharedCounts:
        """The numbers of connections that workers share."""
        ...

    @property
    def ledger(self) -> Ledger:
        """The credits of workers."""
        ...

    @property
    def serving(self) -> bool:
        """Whether connections are to be taken."""
        ...

    @property
    def stopping(self) -> bool:
        """Whether all workers are to end."""
        ...

    def opened(self, worker: WorkerProcess) -> None:
        """Note that a worker can be asked."""
        ...

    def exited(self) -> None:
        """Note that a process has ended, while all are to end."""
        ...

    def pass_on_tls_news(self, source: WorkerProcess) -> None:
        """Let the other workers read what one has learned of TLS."""
        ...

    def traced(self, trace: int, events: Sequence[Event], lost: int) -> None:
        """Take lines of a trace, and how many were lost."""
        ...

    def mail_event(self, event: Mapping[str, Any], numbers: Sequence[int]) -> None:
        """Take a step of mail (`mail.events.MailEvent.to_json`).

        Args:
            event: the step.
            numbers: of its recipients, if the message is the application's.
        """
        ...

    def audience_of(self, number: int) -> Mapping[str, Any]:
        """Return of which mail a worker is to tell: arguments of its start."""
        ...

    def track_mail(self, number: int, id: str, recipients: Mapping[str, Sequence[int]]) -> None:
        """Keep the outcome of a message of the application that a worker is about to queue."""
        ...

    def forget_mail(self, id: str) -> None:
        """Forget a message of the application that was not queued."""
        ...

    def log_lines(self, lines: bytes) -> None:
        """Write lines that a worker has logged."""
        ...


class ProcessPipe(Pipe):
    """The parent's end of the pipe to one process of a worker.

    Args:
        worker: whose process it is.
        config: the settings that the process is started with.

    Attributes:
        config: the settings in force there.
    """

    def __init__(self, worker: WorkerProcess, config: Config) -> None:
        super().__init__(
            {
                "limits": lambda message: worker.count(self, message),
                "tls_news": worker.pass_on_tls_news,
                "traced": worker.traced,
                "mail_event": worker.parent.mail_event,
                "track_mail": partial(worker.parent.track_mail, worker.number),
                "forget_mail": worker.parent.forget_mail,
            },
            lambda: worker.pipe_lost(self),
        )
        self.worker = worker
        self.config = config

    def stringReceived(self, string: bytes) -> None:
        """Take a message: the process does not hang (called by Twisted)."""
        self.worker.heard(self)
        super().stringReceived(string)


class WorkerProcess(ProcessProtocol):
    """One worker: its process, and the successors of that.

    Args:
        parent: of all workers.
        number: from 0; the same for all its processes, which work on the same shards.
        shards: the numbers of those, its own first.
        reactor: IReactorProcess, IReactorSocket and IReactorTime.
        wall_time: for reports.
        metrics: where restarts are counted.

    Attributes:
        parent: see the argument.
        number: see the argument.
        shards: see the argument.
        state: of its present process.
        restarts: how many successors there were.
    """

    _log = Logger()

    def __init__(
        self,
        parent: Parent,
        number: int,
        shards: Sequence[int],
        *,
        reactor: Any,
        wall_time: WallTime,
        metrics: Metrics,
    ) -> None:
        self.number = number
        self.shards = tuple(shards)
        self.state = ProcessState.ABSENT
        self.restarts = 0
        self.parent = parent
        self._reactor = reactor
        self._wall_time = wall_time
        self._metrics = metrics
        self._pipe: ProcessPipe | None = None
        self._delay = _RESTART_FIRST
        self._spawned_at = 0.0  # by the clock
        self._started_at = 0.0  # wall time
        self._has_opened = False  # the queue, in this process or one before
        self._first_start: Deferred[None] | None = None
        self._silent = 0  # ticks since a message came
        self._pinged = False
        self._early_ends = 0  # in a row
        self._reporting = False  # whether a report was asked for
        self._report_waiters: list[Deferred[ProcessReport]] = []
        self._log_reader = LogReader(parent.log_lines, clock=reactor)
        self._errors = WholeLines(self._complained)  # Python's own last words
        self._restart: IDelayedCall | None = None
        self._killing: IDelayedCall | None = None

    @property
    def ready(self) -> bool:
        """Whether its queue is open."""
        return self.state is ProcessState.READY

    @property
    def alive(self) -> bool:
        """Whether there is a process."""
        return self.state is not ProcessState.ABSENT

    @property
    def pipe(self) -> ProcessPipe:
        """The pipe to the present process.

        Raises:
            PipeClosed: there is none.
        """
        if self._pipe is None:
            raise PipeClosed("the process is gone")
        return self._pipe

    def _happened(self, event: ProcessEvent) -> None:
        self.state = TRANSITIONS[self.state][event]

    def spawn(self) -> Deferred[None]:
        """Start the first process.

        Returns:
            Fires when its queue is open; fails with `WorkerFailed` if it cannot be. Where the
            process ends before that, another one is started, and the Deferred waits.
        """
        self._first_start = started = Deferred[None]()
        self._spawn()
        return started

    def _spawn(self) -> None:
        parent = self.parent
        self._spawned_at = self._reactor.seconds()
        self._silent = 0
        self._started_at = self._wall_time()
        self._pipe = pipe = ProcessPipe(self, parent.config)
        self._happened(ProcessEvent.SPAWNED)
        try:
            spawn(
                self,
                pipe,
                reactor=self._reactor,
                number=self.number,
                log_format=parent.config.log.format,
                counts=parent.counts.descriptor,
                ports=parent.bound,
            )
        except Exception as error:  # no process, no memory, no descriptor is left
            self._happened(ProcessEvent.EXITED)
            self._pipe = None
            self._fail(f"no process can be started: {error}")
            if not parent.stopping:
                self._try_again_later(f"cannot be started ({error})")
            return
        pipe.call(
            "start",
            settings=packed(parent.config),
            shards=self.shards,
            endpoints=[bound.kind for bound in parent.bound],
            create=not self._has_opened,
            **parent.audience_of(self.number),
        ).addCallbacks(self._started, self._not_started, (pipe,))

    def send(self, name: str, **arguments: Any) -> None:
        """Send a call that needs no answer."""
        if self._pipe is not None:
            self._pipe.send(name, **arguments)

    def call(self, name: str, **arguments: Any) -> Deferred[Any]:
        """Send a call (`Pipe.call`)."""
        if self._pipe is None:
            return fail(PipeClosed("the process is gone"))
        return self._pipe.call(name, **arguments)

    def report(self) -> ProcessReport | PendingReport:
        """Ask for its report."""
        pid = getattr(self.transport, "pid", None) or 0
        known = ProcessReport(
            number=self.number,
            pid=pid,
            state="starting",
            started_at=self._started_at,
            restarts=self.restarts,
            queue_open=False,
        )
        if not self.alive:
            return evolve(known, pid=0, state="ended")
        if self.state is ProcessState.ENDING:
            return evolve(known, state="ended")
        if not self.ready:
            return known
        # A process that hangs is asked once: later it would have to answer every time.
        self._report_waiters = [each for each in self._report_waiters if not each.called]
        answer: Deferred[ProcessReport] = Deferred()
        self._report_waiters.append(answer)
        if not self._reporting:
            self._reporting = True
            self.call("report").addCallback(ProcessReport.from_json).addBoth(self._reported)
        return PendingReport(answer, known)

    def _reported(self, answer: ProcessReport | Failure) -> None:
        waiters, self._report_waiters, self._reporting = self._report_waiters, [], False
        if isinstance(answer, ProcessReport):
            answer = evolve(answer, restarts=self.restarts)
        for each in waiters:
            if not each.called:  # the answer is too late for this one
                each.callback(answer)

    @property
    def trouble(self) -> Trouble | None:
        """That its processes end again and again; None while they do not."""
        if self._early_ends < _OFTEN or (self.ready and self._has_lived_well):
            return None
        text = f"worker {self.number} has ended {self._early_ends} times in a row; the log says how"
        return Trouble(
            kind="workers",
            subject=f"worker {self.number}, again and again",
            text=text,
            severity="critical",
        )

    @property
    def _has_lived_well(self) -> bool:
        lived: bool = self._reactor.seconds() - self._spawned_at >= _LIVED_WELL
        return lived

    def heard(self, pipe: ProcessPipe) -> None:
        """Note that a message has come."""
        if pipe is self._pipe:
            self._silent = 0

    def tick(self) -> None:
        """Ask for a sign of life, and kill a process that hangs; called once a second.

        Seconds in which the parent did not run do not count: all processes, or the whole machine,
        were stopped.
        """
        if self.parent.stopping:
            return
        if self.state is ProcessState.STARTING:
            # It may have a large queue to look through, and answers nothing meanwhile.
            self._silent += 1
            if self._silent > _NEVER_OPENS:
                self._metrics.count(table.WORKER_HANGS)
                self.kill(f"has not opened its queue in {_NEVER_OPENS} s")
        if not self.ready:
            return
        if not self._pinged:
            self._pinged = True
            pipe = self._pipe
            self.call("ping").addBoth(lambda _: self._answered(pipe))
        self._silent += 1
        if self._silent > _HANGS:
            self._metrics.count(table.WORKER_HANGS)
            self.kill(f"has not answered for {_HANGS} s")

    def _answered(self, pipe: ProcessPipe | None) -> None:
        if pipe is self._pipe:
            self._pinged = False

    def stop(self) -> None:
        """Let its process drain and end, and start no other."""
        if self._restart is not None and self._restart.active():
            self._restart.cancel()
        if self._pipe is None:
            return
        answered = self.call("drain").addTimeout(_PATIENCE, self._reactor)
        answered.addErrback(self._does_not_drain)

    def _does_not_drain(self, failure: Failure) -> None:
        if failure.check(CallFailed):
            self.kill(f"cannot end ({reason_of(failure)})")
        elif failure.check(TimeoutError):
            self.kill("does not hear that it is to end")

    def kill(self, why: str) -> None:
        """Kill its process; accepted mail is on the disk.

        Args:
            why: the rest of a sentence about the worker: ``does not end``.
        """
        transport: Any = self.transport
        if self.alive:
            self._happened(ProcessEvent.KILLED)
            self._log.error("worker {number} {why}, and is killed", number=self.number, why=why)
            with contextlib.suppress(ProcessExitedAlready):
                transport.signalProcess("KILL")

    def catch_up(self) -> None:
        """Start it anew where it has settings that are no longer in force."""
        parent = self.parent
        if self.ready and self.pipe.config is not parent.config and not parent.stopping:
            self._log.info(
                "worker {number} began with the settings of before, and is started anew",
                number=self.number,
            )
            self.send("drain")

    def _started(self, _: Any, pipe: ProcessPipe) -> None:
        if pipe is not self._pipe:
            return
        self._happened(ProcessEvent.OPENED)
        self._has_opened = True
        self._silent, self._pinged = 0, False
        self.parent.opened(self)
        if self.parent.serving:
            self.send("serve")
        if self.restarts:
            self._log.info("worker {number} works again", number=self.number)
        self.catch_up()
        started, self._first_start = self._first_start, None
        if started is not None:
            started.callback(None)

    def _not_started(self, failure: Failure) -> None:
        if failure.check(PipeClosed):
            return  # `processEnded` logs the end of the process
        why = reason_of(failure)
        self._log.error("worker {number} cannot start: {why}", number=self.number, why=why)
        self.send("drain")  # it ends, and another is started unless all end
        self._fail(why)

    def _fail(self, why: str) -> None:
        """Let the start of all workers fail, if it is still under way."""
        started, self._first_start = self._first_start, None
        if started is not None:
            started.errback(WorkerFailed(why))

    # Calls of the process.

    def count(self, pipe: ProcessPipe, message: CreditMessage) -> None:
        """Take a message for the ledger."""
        if pipe is self._pipe:
            self.parent.ledger.receive(self, message)

    def pass_on_tls_news(self) -> None:
        """Tell the other workers that this one has learned something of TLS."""
        self.parent.pass_on_tls_news(self)

    def traced(self, trace: int, events: Sequence[Event], lost: int) -> None:
        """Take lines of a trace."""
        self.parent.traced(trace, events, lost)

    def pipe_lost(self, pipe: ProcessPipe) -> None:
        """Note that the process is about to end, or has ended."""
        if pipe is not self._pipe:
            return
        self._pipe = None
        self._happened(ProcessEvent.PIPE_CLOSED)
        self.parent.ledger.worker_gone(self)
        if self.alive:
            self._killing = self._reactor.callLater(
                _PATIENCE, self.kill, "has closed its pipe and does not end"
            )

    # Called by Twisted.

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Pass on its log, and what it writes to standard error."""
        if childFD == LOG:
            self._log_reader.received(data, self.transport)
        else:
            self._errors.received(data)

    def _complained(self, lines: bytes) -> None:
        for line in lines.decode("utf-8", "replace").splitlines():
            self._log.error("worker {number} said: {line}", number=self.number, line=line)

    def processExited(self, reason: Failure) -> None:
        """Leave no more connections to it, although the last of its log may not be read yet."""
        self.parent.counts.gone(self.number)

    def processEnded(self, reason: Failure) -> None:
        """See to a successor: the process and all its descriptors are gone."""
        parent = self.parent
        self._happened(ProcessEvent.EXITED)
        pipe = self._pipe
        if pipe is not None:
            pipe.read_rest()
            # What comes later does not count for its successor.
            self.pipe_lost(pipe)
            pipe.transport.abortConnection()
        if self._killing is not None and self._killing.active():
            self._killing.cancel()
        self._log_reader.ended()
        self._errors.ended()
        if parent.stopping:
            if not reason.check(ProcessDone):
                self._log.error(
                    "worker {number} {how}", number=self.number, how=_ending(reason.value)
                )
            parent.exited()
            return
        how = _ending(reason.value)
        if self._first_start is not None and self.restarts + 1 >= _MOST_FIRST_PROCESSES:
            self._fail(
                f"worker {self.number} {how}, as {self.restarts} did before it; the log says more"
            )
            return
        self._try_again_later(how)

    def _try_again_later(self, how: str) -> None:
        if self._has_lived_well:
            self._delay, self._early_ends = _RESTART_FIRST, 0
        self._early_ends += 1
        delay, self._delay = self._delay, min(2 * self._delay, _RESTART_LAST)
        self._log.error(
            "worker {number} {how}; another one takes over its queue in {delay:g} s",
            number=self.number,
            how=how,
            delay=delay,
        )
        self._restart = self._reactor.callLater(delay, self._again)

    def _again(self) -> None:
        self.restarts += 1
        self._metrics.count(table.WORKER_RESTARTS)
        self._spawn()


def reason_of(failure: Failure) -> str:
    """Return why a worker's call has failed."""
    if failure.check(TimeoutError):
        return f"no answer in {READING:g} s"
    return failure.getErrorMessage()


def _ending(error: BaseException | None) -> str:
    number = getattr(error, "signal", None)
    if number is not None:
        known = {each.value: each.name for each in signal.Signals}  # without most real-time signals
        return f"was ended by {known.get(number, f'signal {number}')}"
    return f"has ended with status {getattr(error, 'exitCode', 0) or 0}"
