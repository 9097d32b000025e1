"""A worker as its parent sees it, through all its lives: begins, watches and ends them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pickle import dumps
from typing import TYPE_CHECKING, Any

from attrs import evolve
from twisted.internet.defer import Deferred, TimeoutError, fail
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..admin.api import Asked
from ..admin.status import ProcessReport, Trouble
from ..config import Config
from ..telemetry.log import WholeLines
from ..telemetry.metrics import table
from ..telemetry.tracing import Event
from .ledger import CreditMessage
from .pipe import CallFailed, Pipe, PipeClosed, PipeEnd

if TYPE_CHECKING:
    from .workers import Workers

PIPE = 3
"""The descriptor of a worker's end of the pipe."""

COUNTS = 4
"""The one of what is shared of `shared_counts.SharedCounts`."""

PORTS = 5
"""The one of its first port; those of the others follow."""

READING = 60.0
"""Seconds that a worker has to read certificates, aliases and the like; it does more besides."""

_RESTART_FIRST = 0.1  # seconds; doubled with each early death
_RESTART_LAST = 60.0
_LIVED_WELL = 60.0  # seconds after which a death is not held against the next life
_OFTEN = 3  # deaths in a row, after which it is said that they go on
_HANGS = 30  # ticks of the parent without a word, after which a worker is killed; one a second
_MOST_BIRTHS = 5  # lives that may end before a queue is open, until the start as a whole has failed
_PATIENCE = 10.0  # seconds that a process may live on without its pipe, or hear nothing of its end
# What is logged is heard at once, unless so much comes that each line would wake us: then, after as
# many as that with less than so many seconds in between, not for so long.
_MOST_HASTY = 16
_HASTE = 0.002
_DEAF = 0.02
_READ_AT_ONCE = 8192  # octets: `fdesc.readFromFD`
_LOG = 1  # the descriptor that a worker logs to
_OURS_ALONE = (
    *("LISTEN_FDNAMES", "LISTEN_FDS", "LISTEN_PID"),
    *("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"),
)


class WorkerFailed(Exception):
    """A worker cannot start; why, in its own words."""


class ProcessPipe(Pipe):
    """One process of a worker, from the parent's end of the pipe to it.

    Args:
        worker: whose life it is.
        config: what it is told at its start.

    Attributes:
        config: what it was told last.
    """

    def __init__(self, worker: WorkerProcess, config: Config) -> None:
        super().__init__(
            {
                "limits": lambda message: worker.count(self, message),
                "tls_news": worker.pass_on_tls_news,
                "traced": worker.traced,
            },
            lambda: worker.pipe_lost(self),
        )
        self.worker = worker
        self.config = config

    def stringReceived(self, string: bytes) -> None:
        """The worker says something, so it does not hang (called by Twisted)."""
        self.worker.heard(self)
        super().stringReceived(string)


class WorkerProcess(ProcessProtocol):
    """One worker, through all its lives.

    Attributes:
        number: from 0; the same for its successors, which take over its shards.
        shards: the numbers of those, its own first.
        alive: whether there is a process.
        ready: whether its queue is open.
        restarts: how many successors there were.
    """

    _log = Logger()

    def __init__(self, crew: Workers, number: int, shards: Sequence[int]) -> None:
        self.number = number
        self.shards = tuple(shards)
        self.alive = False
        self.ready = False
        self.restarts = 0
        self._crew = crew
        self._life: ProcessPipe | None = None
        self._delay = _RESTART_FIRST
        self._born = 0.0
        self._started_at = 0.0
        self._opened = False  # its queue, in this life or one before
        self._first_start: Deferred[None] | None = None
        self._silent = 0  # ticks since anything was heard of it
        self._pinged = False
        self._deaths = 0  # in a row, none of them after a life of some length
        self._asking = False
        self._asked: list[Deferred[ProcessReport]] = []
        self._lines = {
            _LOG: WholeLines(crew.log_lines),
            2: WholeLines(self._complained),  # of Python itself, when all is lost
        }
        self._heard = -1.0  # when, by the clock
        self._hasty = 0  # how often, one after the other, with hardly a pause
        self._restart: IDelayedCall | None = None
        self._killing: IDelayedCall | None = None

    @property
    def life(self) -> ProcessPipe:
        """The present one.

        Raises:
            PipeClosed: there is none.
        """
        if self._life is None:
            raise PipeClosed("the process is gone")
        return self._life

    def spawn(self) -> Deferred[None]:
        """Begin a life; fires when its queue is open, fails with `WorkerFailed` if it cannot be.

        Where the process dies before that, there is another one, and the Deferred waits.
        """
        self._first_start = started = Deferred[None]()
        self._spawn()
        return started

    def _spawn(self) -> None:
        crew = self._crew
        self._born = crew.reactor.seconds()
        self._started_at = crew.wall_time()
        self._life = life = ProcessPipe(self, crew.config)
        self.alive = True
        try:
            self._fork(life)
        except Exception as error:  # no process, no memory, no descriptor is left
            self.alive = False
            self._life = None
            self._fail(f"no process can be started: {error}")
            if not crew.stopping:
                self._try_again_later(f"cannot be started ({error})")
            return
        life.call(
            "start",
            settings=packed(crew.config),
            shards=self.shards,
            endpoints=[bound.kind for bound in crew.bound],
            create=not self._opened,
        ).addCallbacks(self._started, self._not_started, (life,))

    def _fork(self, life: ProcessPipe) -> None:
        crew = self._crew
        ours, theirs = socket.socketpair()
        with ours, theirs, open(os.devnull, "r+b", buffering=0) as null:
            descriptors: dict[int, Any] = {0: null.fileno(), 1: "r", 2: "r", PIPE: theirs.fileno()}
            descriptors[COUNTS] = crew.loads.descriptor
            for place, bound in enumerate(crew.bound, PORTS):
                port: Any = bound.port
                descriptors[place] = port.fileno()
            ours.setblocking(False)
            crew.reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, PipeEnd(life))
            crew.reactor.spawnProcess(
                self,
                sys.executable,
                [
                    sys.executable,
                    "-P",  # the folder that we happen to be in is no place for modules
                    *("-m", "twisted_mta.workers.main", str(self.number), crew.config.log.format),
                ],
                env=_environment(),
                childFDs=descriptors,
            )

    def tell(self, name: str, **arguments: Any) -> None:
        """Say something that needs no answer."""
        if self._life is not None:
            self._life.tell(name, **arguments)

    def call(self, name: str, **arguments: Any) -> Deferred[Any]:
        """Ask for something (`Pipe.call`)."""
        if self._life is None:
            return fail(PipeClosed("the process is gone"))
        return self._life.call(name, **arguments)

    def report(self) -> ProcessReport | Asked:
        """Ask how it is."""
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
        if not self.ready:
            return known
        # One that hangs is asked once, however often we are: it would have to answer all of them.
        self._asked = [each for each in self._asked if not each.called]
        asked: Deferred[ProcessReport] = Deferred()
        self._asked.append(asked)
        if not self._asking:
            self._asking = True
            self.call("report").addCallback(ProcessReport.from_json).addBoth(self._reported)
        return Asked(asked, known)

    def _reported(self, answer: ProcessReport | Failure) -> None:
        asked, self._asked, self._asking = self._asked, [], False
        if isinstance(answer, ProcessReport):
            answer = evolve(answer, restarts=self.restarts)
        for each in asked:
            if not each.called:  # it had no more time
                each.callback(answer)

    @property
    def trouble(self) -> Trouble | None:
        """That it dies again and again."""
        lives = self.ready and self._crew.reactor.seconds() - self._born >= _LIVED_WELL
        if self._deaths < _OFTEN or lives:
            return None
        text = f"worker {self.number} has ended {self._deaths} times in a row; the log says how"
        return Trouble(kind="workers", text=text)

    def heard(self, life: ProcessPipe) -> None:
        """It has said something."""
        if life is self._life:
            self._silent = 0

    def tick(self) -> None:
        """A second of the parent's own life has passed: ask for a sign, and see to one that hangs.

        Seconds in which the parent did not run either do not count: of a stop of all processes, or
        of the whole machine.
        """
        if not self.ready or self._crew.stopping:
            return
        if not self._pinged:
            self._pinged = True
            life = self._life
            self.call("ping").addBoth(lambda _: self._answered(life))
        self._silent += 1
        if self._silent > _HANGS:
            self._crew.metrics.count(table.WORKER_HANGS)
            self.kill(f"has not answered for {_HANGS} s")

    def _answered(self, life: ProcessPipe | None) -> None:
        if life is self._life:
            self._pinged = False

    def stop(self) -> None:
        """End, in order."""
        if self._restart is not None and self._restart.active():
            self._restart.cancel()
        if self._life is None:
            return
        heard = self.call("drain").addTimeout(_PATIENCE, self._crew.reactor)
        heard.addErrback(self._is_deaf)

    def _is_deaf(self, failure: Failure) -> None:
        if failure.check(CallFailed):
            self.kill(f"cannot end ({reason_of(failure)})")
        elif failure.check(TimeoutError):
            self.kill("does not hear that it is to end")

    def kill(self, why: str) -> None:
        """End it by force; what it has promised is on the disk.

        Args:
            why: a verb, and what belongs to it.
        """
        transport: Any = self.transport
        if self.alive:
            self.ready = False
            self._log.error("worker {number} {why}, and is killed", number=self.number, why=why)
            with contextlib.suppress(ProcessExitedAlready):
                transport.signalProcess("KILL")

    def catch_up(self) -> None:
        """See to it that the settings in force are in force here."""
        crew = self._crew
        if self.ready and self.life.config is not crew.config and not crew.stopping:
            self._log.info(
                "worker {number} began with the settings of before, and is started anew",
                number=self.number,
            )
            self.tell("drain")

    def _started(self, _: Any, life: ProcessPipe) -> None:
        if life is not self._life:
            return
        self.ready = self._opened = True
        self._silent, self._pinged = 0, False
        self._crew.started(self)
        if self._crew.serving:
            self.tell("serve")
        if self.restarts:
            self._log.info("worker {number} works again", number=self.number)
        self.catch_up()
        started, self._first_start = self._first_start, None
        if started is not None:
            started.callback(None)

    def _not_started(self, failure: Failure) -> None:
        if failure.check(PipeClosed):
            return  # the end of the process is said by `processEnded`
        why = reason_of(failure)
        self._log.error("worker {number} cannot start: {why}", number=self.number, why=why)
        self.tell("drain")  # it ends, and is started anew unless all end
        self._fail(why)

    def _fail(self, why: str) -> None:
        """The start of all has failed, if that is still under way."""
        started, self._first_start = self._first_start, None
        if started is not None:
            started.errback(WorkerFailed(why))

    def count(self, life: ProcessPipe, message: CreditMessage) -> None:
        """Take a message for the ledger."""
        if life is self._life:
            self._crew.ledger.receive(self, message)

    def pass_on_tls_news(self) -> None:
        """Tell the others that this one has learnt something of TLS."""
        self._crew.pass_on_tls_news(self)

    def traced(self, trace: int, events: Sequence[Event], lost: int) -> None:
        """Take lines of a trace."""
        self._crew.traced(trace, events, lost)

    def pipe_lost(self, life: ProcessPipe) -> None:
        """The process is about to end, or has ended."""
        if life is not self._life:
            return
        self._life = None
        self.ready = False
        self._crew.ledger.worker_gone(self)
        if self.alive:
            self._killing = self._crew.reactor.callLater(
                _PATIENCE, self.kill, "has closed its pipe and does not end"
            )

    # Called by Twisted.

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Pass on what it has logged, in whole lines; read less often where it says very much."""
        self._lines[childFD].received(data)
        if childFD != _LOG:
            return
        now = self._crew.reactor.seconds()
        self._hasty = self._hasty + 1 if now - self._heard < _HASTE else 0
        self._heard = now
        # As long as there is more than Twisted reads at a time, nothing is gained by waiting.
        if self._hasty > _MOST_HASTY and len(data) < _READ_AT_ONCE:
            transport: Any = self.transport
            transport.pipes[_LOG].stopReading()
            self._crew.reactor.callLater(_DEAF, self._listen_again, transport)

    def _listen_again(self, transport: Any) -> None:
        self._heard = self._crew.reactor.seconds()
        if _LOG in transport.pipes:
            transport.pipes[_LOG].startReading()

    def _complained(self, lines: bytes) -> None:
        for line in lines.decode("utf-8", "replace").splitlines():
            self._log.error("worker {number} said: {line}", number=self.number, line=line)

    def processExited(self, reason: Failure) -> None:
        """It is dead, though it may not have been heard to the end: nothing is left to it."""
        self._crew.loads.gone(self.number)

    def processEnded(self, reason: Failure) -> None:
        """It is gone, with all that it had: see to a successor."""
        crew = self._crew
        self.alive = False
        life = self._life
        if life is not None:
            # What it has said and was not heard yet is not for its successor to answer for.
            self.pipe_lost(life)
            life.transport.abortConnection()
        if self._killing is not None and self._killing.active():
            self._killing.cancel()
        for lines in self._lines.values():
            lines.ended()
        if crew.stopping:
            if not reason.check(ProcessDone):
                self._log.error(
                    "worker {number} {how}", number=self.number, how=_ending(reason.value)
                )
            crew.say_if_gone()
            return
        how = _ending(reason.value)
        if self._first_start is not None and self.restarts + 1 >= _MOST_BIRTHS:
            self._fail(
                f"worker {self.number} {how}, as {self.restarts} did before it; the log has what it"
                " said"
            )
            return
        self._try_again_later(how)

    def _try_again_later(self, how: str) -> None:
        crew = self._crew
        if crew.reactor.seconds() - self._born >= _LIVED_WELL:
            self._delay, self._deaths = _RESTART_FIRST, 0
        self._deaths += 1
        delay, self._delay = self._delay, min(2 * self._delay, _RESTART_LAST)
        self._log.error(
            "worker {number} {how}; another one takes over its queue in {delay:g} s",
            number=self.number,
            how=how,
            delay=delay,
        )
        self._restart = crew.reactor.callLater(delay, self._again)

    def _again(self) -> None:
        self.restarts += 1
        self._crew.metrics.count(table.WORKER_RESTARTS)
        self._spawn()


def reason_of(failure: Failure) -> str:
    """Return why a worker has not done what it was asked for."""
    if failure.check(TimeoutError):
        return f"no answer in {READING:g} s"
    return failure.getErrorMessage()


def packed(config: Config) -> str:
    """Return settings in a form that goes through a pipe."""
    return b64encode(dumps(config)).decode("ascii")


def _environment() -> Mapping[str, str]:
    """Return what a worker is to find in its environment: our own way to this package, above all.

    What systemd said to us was said to us alone.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _OURS_ALONE}
    path = [os.path.abspath(entry) for entry in sys.path]
    return {**environment, "PYTHONPATH": os.pathsep.join(path)}


def _ending(error: BaseException | None) -> str:
    number = getattr(error, "signal", None)
    if number is not None:
        known = {each.value: each.name for each in signal.Signals}  # not all those of real time
        return f"was ended by {known.get(number, f'signal {number}')}"
    return f"has ended with status {getattr(error, 'exitCode', 0) or 0}"
