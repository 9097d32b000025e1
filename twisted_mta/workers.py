"""The parent's side of its workers: starts them, watches over them, and asks them.

A worker is a process with an engine of its own. It inherits the ports, which the parent has bound
and never reads from, and one end of a socket pair, which it ends with: whichever of the two dies,
the other knows at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from pickle import dumps
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from .admin import Asked
from .config import Config
from .interfaces import WallTime
from .limits import Ledger, Message
from .logs import WholeLines
from .metrics import Metrics, table
from .pipe import CallFailed, Pipe, PipeClosed
from .ports import Bound, Ports, Unserved
from .report import Report, State

PIPE = 3
"""The descriptor of a worker's end of the pipe; those of its ports follow."""

_RESTART_FIRST = 0.1  # seconds; doubled with each early death
_RESTART_LAST = 60.0
_LIVED_WELL = 60.0  # seconds after which a death is not held against the next life
_LAST_ANSWERS = 60.0  # seconds that a worker's engine waits beyond the drain timeout
_PATIENCE = 10.0  # seconds beyond all timeouts after which a worker is killed
_OURS_ALONE = (
    *("LISTEN_FDNAMES", "LISTEN_FDS", "LISTEN_PID"),
    *("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"),
)


class WorkerFailed(Exception):
    """A worker cannot start; why, in its own words."""


class Workers:
    """The processes that do the work of one mail transfer agent.

    Args:
        config: with how many there are to be.
        reactor: IReactorProcess, IReactorSocket and IReactorTime.
        ports: what they take connections from.
        lines: takes what they log, in whole lines.
        metrics: where their restarts are counted.
        wall_time: for reports.
    """

    _log = Logger()

    def __init__(
        self,
        config: Config,
        *,
        reactor: Any,
        ports: Ports,
        lines: Callable[[bytes], None],
        metrics: Metrics,
        wall_time: WallTime,
    ) -> None:
        self.config = config
        self.stopping = False
        self._reactor = reactor
        self._ports = ports
        self._lines = lines
        self.metrics = metrics
        self.wall_time = wall_time
        self._workers: list[Worker] = []
        self._serving = False
        self._gone: Deferred[None] | None = None
        self._killing: IDelayedCall | None = None
        self.ledger = Ledger(send=_say, clock=reactor)

    def factory(self, number: int) -> Factory:
        """Return what stands at the port of a listener in this process: nothing."""
        return Unserved()

    def start(self, shares: Sequence[Sequence[int]]) -> Deferred[None]:
        """Start them.

        Args:
            shares: for each worker the shards that it works on.

        Returns:
            Fires when all have opened their queues; fails with `WorkerFailed` if one cannot.
        """
        self._workers = [Worker(self, number, shards) for number, shards in enumerate(shares)]
        ready = gatherResults([worker.spawn() for worker in self._workers], consumeErrors=True)

        def failed(failure: Failure) -> Failure:
            first = getattr(failure.value, "subFailure", failure)
            return Failure(first.value)

        return ready.addCallbacks(lambda _: None, failed)

    def serve(self) -> None:
        """Let them take connections."""
        self._serving = True
        for worker in self._workers:
            worker.tell("serve")

    def stop(self) -> Deferred[None]:
        """Let them drain and end; fires when no process is left."""
        self.stopping = True
        self._gone = gone = Deferred[None]()
        for worker in self._workers:
            worker.stop()
        patience = self.config.drain_timeout + _LAST_ANSWERS + _PATIENCE
        self._killing = self._reactor.callLater(patience, self._kill)
        self.say_if_gone()
        return gone

    def hurry(self) -> None:
        """Let them end at once."""
        for worker in self._workers:
            worker.tell("hurry")
        if self._killing is not None and self._killing.active():
            self._killing.reset(min(_PATIENCE, self._killing.getTime() - self._reactor.seconds()))

    def _kill(self) -> None:
        for worker in self._workers:
            worker.kill()

    def say_if_gone(self) -> None:
        """Fire what waits for the end of all of them, if that has come."""
        if self._gone is None or any(worker.alive for worker in self._workers):
            return
        gone, self._gone = self._gone, None
        self.ledger.close()
        if self._killing is not None and self._killing.active():
            self._killing.cancel()
        gone.callback(None)

    async def prepare(self, config: Config) -> Callable[[], Deferred[list[str]]]:
        """Let all make ready for other settings; what is returned puts them in force.

        Raises:
            CallFailed: one of them cannot; none has changed anything.
        """
        settings = packed(config)
        ready = [worker for worker in self._workers if worker.ready]
        try:
            for worker in ready:
                await worker.call("prepare", settings=settings)
        except (CallFailed, PipeClosed):
            for worker in ready:
                worker.tell("forget")
            raise

        async def use() -> list[str]:
            self.config = config  # for those that start from now on
            said: dict[str, None] = {}
            for worker in ready:
                # One that has died meanwhile has a successor with the new settings.
                with contextlib.suppress(PipeClosed):
                    said.update(dict.fromkeys(await worker.call("use")))
            return list(said)

        return lambda: Deferred.fromCoroutine(use())

    def reports(self, state: State) -> Sequence[Report | Asked]:
        """Ask all that are alive how they are (`admin.Reports`)."""
        return [worker.report() for worker in self._workers if worker.alive]

    # What a worker asks.

    @property
    def reactor(self) -> Any:
        """Of the parent."""
        return self._reactor

    @property
    def serving(self) -> bool:
        """Whether connections are to be taken."""
        return self._serving and not self.stopping

    @property
    def bound(self) -> Sequence[Bound]:
        """The ports to inherit."""
        return self._ports.bound

    def log_lines(self, lines: bytes) -> None:
        """Write what a worker has logged."""
        self._lines(lines)


class Worker(ProcessProtocol):
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
        self._pipe: Pipe | None = None
        self._delay = _RESTART_FIRST
        self._born = 0.0
        self._started_at = 0.0
        self._unstarted: Deferred[None] | None = None
        self._lines = {
            1: WholeLines(crew.log_lines),
            2: WholeLines(self._complained),  # of Python itself, when all is lost
        }
        self._restart: IDelayedCall | None = None

    def spawn(self) -> Deferred[None]:
        """Begin a life; fires when its queue is open, fails with `WorkerFailed` if it cannot be.

        Where the process dies before that, there is another one, and the Deferred waits.
        """
        started: Deferred[None] = Deferred()
        self._spawn(started)
        return started

    def _spawn(self, started: Deferred[None] | None) -> None:
        crew = self._crew
        ours, theirs = socket.socketpair()
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        descriptors: dict[int, Any] = {0: null, 1: "r", 2: "r", PIPE: theirs.fileno()}
        for place, bound in enumerate(crew.bound, PIPE + 1):
            port: Any = bound.port
            descriptors[place] = port.fileno()
        self._pipe = pipe = Pipe({"limits": self._count}, self._pipe_lost)
        with ours, theirs:
            ours.setblocking(False)
            crew.reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, _Once(pipe))
            self.alive = True
            self._born = crew.reactor.seconds()
            self._started_at = crew.wall_time()
            crew.reactor.spawnProcess(
                self,
                sys.executable,
                [
                    sys.executable,
                    *("-m", "twisted_mta.worker", str(self.number), crew.config.log.format),
                ],
                env=_environment(),
                childFDs=descriptors,
            )
        os.close(null)
        pipe.call(
            "start",
            settings=packed(crew.config),
            shards=self.shards,
            endpoints=[bound.kind for bound in crew.bound],
        ).addCallbacks(self._started, self._not_started, (started,), {}, (started,), {})

    def tell(self, name: str, **arguments: Any) -> None:
        """Say something that needs no answer."""
        if self._pipe is not None:
            self._pipe.tell(name, **arguments)

    def call(self, name: str, **arguments: Any) -> Deferred[Any]:
        """Ask for something (`Pipe.call`)."""
        if self._pipe is None:
            failed: Deferred[Any] = Deferred()
            failed.errback(PipeClosed("the process is gone"))
            return failed
        return self._pipe.call(name, **arguments)

    def report(self) -> Report | Asked:
        """Ask how it is."""
        pid = getattr(self.transport, "pid", None) or 0
        known = Report(
            number=self.number,
            pid=pid,
            state="starting",
            started_at=self._started_at,
            restarts=self.restarts,
            queue_open=False,
        )
        if not self.ready:
            return known
        asked = self.call("report").addCallback(Report.from_json)
        return Asked(
            asked.addCallback(lambda report: evolve(report, restarts=self.restarts)), known
        )

    def stop(self) -> None:
        """End, in order."""
        if self._restart is not None and self._restart.active():
            self._restart.cancel()
        self.tell("drain")

    def kill(self) -> None:
        """End it by force; what it has promised is on the disk."""
        transport: Any = self.transport
        if self.alive:
            self._log.error("worker {number} does not end, and is killed", number=self.number)
            with contextlib.suppress(ProcessExitedAlready):
                transport.signalProcess("KILL")

    def _started(self, _: Any, started: Deferred[None] | None) -> None:
        self.ready = True
        if self._crew.serving:
            self.tell("serve")
        if self.restarts:
            self._log.info("worker {number} works again", number=self.number)
        if self._crew.stopping:
            self.tell("drain")
        if started is not None:
            started.callback(None)

    def _not_started(self, failure: Failure, started: Deferred[None] | None) -> None:
        if failure.check(PipeClosed):
            self._unstarted = started  # the end of the process is said by `processEnded`
            return
        error = failure.value
        assert error is not None
        if started is None:
            self._log.error(
                "worker {number} cannot start: {error}", number=self.number, error=str(error)
            )
        self.tell("drain")  # it ends, and is started anew unless all end
        if started is not None:
            self._crew.stopping = True
            started.errback(WorkerFailed(str(error)))

    def _count(self, message: Message) -> None:
        self._crew.ledger.receive(self, message)

    def _pipe_lost(self) -> None:
        self._pipe = None
        self.ready = False
        self._crew.ledger.worker_gone(self)

    # Called by Twisted.

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Pass on what it has logged, in whole lines."""
        self._lines[childFD].received(data)

    def _complained(self, lines: bytes) -> None:
        for line in lines.decode("utf-8", "replace").splitlines():
            self._log.error("worker {number} said: {line}", number=self.number, line=line)

    def processEnded(self, reason: Failure) -> None:
        """It is gone, with all that it had: see to a successor."""
        self.alive = self.ready = False
        self._pipe = None
        for lines in self._lines.values():
            lines.ended()
        crew = self._crew
        if crew.stopping:
            if not reason.check(ProcessDone):
                self._log.error(
                    "worker {number} {how}", number=self.number, how=_ending(reason.value)
                )
            crew.say_if_gone()
            return
        now = crew.reactor.seconds()
        if now - self._born >= _LIVED_WELL:
            self._delay = _RESTART_FIRST
        delay, self._delay = self._delay, min(2 * self._delay, _RESTART_LAST)
        self._log.error(
            "worker {number} {how}; another one takes over its queue in {delay:g} s",
            number=self.number,
            how=_ending(reason.value),
            delay=delay,
        )
        self._restart = crew.reactor.callLater(delay, self._again)

    def _again(self) -> None:
        self.restarts += 1
        self._crew.metrics.count(table.WORKER_RESTARTS)
        started, self._unstarted = self._unstarted, None
        self._spawn(started)


def _say(worker: Any, message: Message) -> None:
    worker.tell("limits", message=message)


class _Once(Factory):
    """Makes the one protocol of a connection that is there already."""

    noisy = False

    def __init__(self, protocol: Pipe) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: object) -> Pipe:
        return self._protocol


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
        return f"was ended by {signal.Signals(number).name}"
    return f"has ended with status {getattr(error, 'exitCode', 0) or 0}"
