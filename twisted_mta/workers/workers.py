"""The workers of one parent: all are started, asked, given new settings, and ended as one.

A worker is a process with an agent of its own. It inherits the ports, which the parent has bound
and never reads from, and one end of a socket pair, which it ends with: whichever of the two dies,
the other knows at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, TimeoutError, fail, gatherResults
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from ..admin.api import Asked
from ..admin.status import ProcessReport, State, Trouble
from ..agent.explain.asked import Wanted, merged
from ..config import Config
from ..interfaces import WallTime
from ..system.ports import Bound, Ports, Unserved
from ..system.shared_counts import SharedCounts
from ..telemetry.metrics import Metrics
from ..telemetry.tracing import Event, Filter
from ..tls.memory import TLSEntry, merged_entries
from .ledger import CreditMessage, Ledger
from .pipe import CallFailed, PipeClosed
from .process import READING, ProcessPipe, WorkerFailed, WorkerProcess, packed, reason_of

Deliver = Callable[[Sequence[Event], int], object]

_LAST_ANSWERS = 60.0  # seconds that a worker's agent waits beyond the drain timeout
_PATIENCE = 10.0  # seconds beyond all timeouts after which a worker is killed
_EXPLAIN_TIMEOUT = 25.0  # seconds that a worker has to ask the DNS
_TICK = 1.0  # seconds between two signs of life that each worker is asked for
_HOSTS_TIMEOUT = 1.0  # seconds that a worker has to say which hosts it knows


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
        self._workers: list[WorkerProcess] = []
        self._serving = False
        self._traces: dict[int, tuple[Filter, Deliver]] = {}
        self._last_trace = 0
        self._hurried = False
        self._stops: list[Deferred[None]] = []
        self._killing: IDelayedCall | None = None
        self.ledger = Ledger(send=_say, clock=reactor)
        self._loads: SharedCounts | None = None
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = reactor

    def _tick(self) -> None:
        for worker in self._workers:
            worker.tick()

    def factory(self, number: int) -> Factory:
        """Return what stands at the port of a listener in this process: nothing."""
        return Unserved()

    @property
    def loads(self) -> SharedCounts:
        """How many connections each of them has, once they were started."""
        assert self._loads is not None
        return self._loads

    def start(self, shares: Sequence[Sequence[int]]) -> Deferred[None]:
        """Start them.

        Args:
            shares: for each worker the shards that it works on.

        Returns:
            Fires when all have opened their queues; fails with `WorkerFailed` if one cannot, once
            all have ended.
        """
        if self._loads is not None:
            self._loads.close()
        self._loads = SharedCounts.of(len(shares))
        self._ticking.start(_TICK, now=False)
        self._workers = [
            WorkerProcess(self, number, shards) for number, shards in enumerate(shares)
        ]
        ready = gatherResults([worker.spawn() for worker in self._workers], consumeErrors=True)

        def failed(failure: Failure) -> Deferred[Any]:
            first = getattr(failure.value, "subFailure", failure)
            return self.stop().addCallback(lambda _: Failure(first.value))

        return ready.addCallbacks(lambda _: None, failed)

    def serve(self) -> None:
        """Let them take connections."""
        self._serving = True
        for worker in self._workers:
            worker.tell("serve")

    def stop(self) -> Deferred[None]:
        """Let them drain and end; fires when no process is left, however often it is called."""
        stopped: Deferred[None] = Deferred()
        self._stops.append(stopped)
        if not self.stopping:
            self.stopping = True
            for worker in self._workers:
                worker.stop()
            # As long as it is open anywhere, the kernel takes connections that nobody will answer.
            self._ports.unbind()
            patience = self.config.drain_timeout + _LAST_ANSWERS + _PATIENCE
            self._killing = self._reactor.callLater(patience, self._kill)
            if self._hurried:
                self.hurry()
        self.say_if_gone()
        return stopped

    def hurry(self) -> None:
        """Let a stop that is under way, or is to come, wait for nothing."""
        self._hurried = True
        if not self.stopping:
            return
        for worker in self._workers:
            worker.tell("hurry")
        if self._killing is not None and self._killing.active():
            self._killing.reset(min(_PATIENCE, self._killing.getTime() - self._reactor.seconds()))

    def _kill(self) -> None:
        for worker in self._workers:
            worker.kill("does not end")

    def say_if_gone(self) -> None:
        """Fire what waits for the end of all of them, if that has come."""
        if not self.stopping or any(worker.alive for worker in self._workers):
            return
        stops, self._stops = self._stops, []
        if self._ticking.running:
            self._ticking.stop()
        self.ledger.close()
        if self._loads is not None:
            self._loads.close()
        if self._killing is not None and self._killing.active():
            self._killing.cancel()
        for each in stops:
            each.callback(None)

    async def prepare(self, config: Config) -> Callable[[], Deferred[list[str]]]:
        """Let all make ready for other settings; what is returned puts them in force.

        Raises:
            WorkerFailed: one of them cannot, and why; none has changed anything.
        """
        settings = packed(config)
        lives = [worker.life for worker in self._workers if worker.ready]
        if not lives:
            raise WorkerFailed("no worker is there to read the settings; they have only just died")
        asked: list[ProcessPipe] = []
        checked: dict[str, str] = {}
        # One after the other: what the first has found good, the others parse when they use it.
        for life in lives:
            asked.append(life)
            done, answer = await self._ask(life, "prepare", settings=settings, checked=checked)
            if not done:
                for each in asked:
                    each.tell("forget")
                raise WorkerFailed(_refusal(life, answer))
            checked.update(answer or {})
        return lambda: Deferred.fromCoroutine(self._use(config, lives))

    async def _use(self, config: Config, lives: Sequence[ProcessPipe]) -> list[str]:
        self.config = config  # for those that start from now on
        said: dict[str, None] = {}
        for life in lives:
            done, answer = await self._ask(life, "use")
            if done:
                life.config = config
                said.update(dict.fromkeys(answer))
            elif not answer.check(PipeClosed):
                # There is no way back for the others; its successor has what they have.
                life.worker.kill(f"does not take new settings ({reason_of(answer)})")
        for worker in self._workers:
            worker.catch_up()
        return list(said)

    async def _ask(self, life: ProcessPipe, name: str, **arguments: Any) -> tuple[bool, Any]:
        """Ask one; return whether it did, and its answer or its failure."""
        try:
            return True, await life.call(name, **arguments).addTimeout(READING, self._reactor)
        except Exception:
            return False, Failure()

    def reports(self, state: State) -> Sequence[ProcessReport | Asked]:
        """Ask all how they are (`admin.api.Reports`)."""
        return [worker.report() for worker in self._workers]

    def troubles(self) -> Sequence[Trouble]:
        """Say which of them die again and again."""
        return [worker.trouble for worker in self._workers if worker.trouble is not None]

    def tls_hosts(self, domain: str | None) -> Deferred[Sequence[TLSEntry]]:
        """Ask with which hosts TLS was had (`admin.api.Hosts`); who does not answer is left out."""
        asked = [
            worker.call("tls", domain=domain).addTimeout(_HOSTS_TIMEOUT, self._reactor)
            for worker in self._workers
            if worker.ready
        ]
        answers = DeferredList(asked, consumeErrors=True)
        return answers.addCallback(
            lambda answers: merged_entries(entries for told, entries in answers if told)
        )

    def shards(self) -> Sequence[int]:
        """Return the numbers of all parts of the queue."""
        return [number for worker in self._workers for number in worker.shards]

    def ask_queue(self, shard: int, name: str, arguments: Mapping[str, Any]) -> Deferred[Any]:
        """Ask the worker that has a shard (`admin.queue_api.Ask`)."""
        for worker in self._workers:
            if shard in worker.shards:
                if not worker.ready:
                    break
                asked = worker.call("queue", shard=shard, question=name, arguments=arguments)
                return asked.addErrback(_as_it_was)
        return fail(LookupError(f"the process of shard {shard} is not there now; try again"))

    def explain(self, wanted: Wanted) -> Deferred[dict[str, Any] | None]:
        """Ask why mail is where it is; who does not answer is left out."""
        workers = [worker for worker in self._workers if worker.ready]
        calls = [
            worker.call("explain", wanted=wanted).addTimeout(_EXPLAIN_TIMEOUT, self._reactor)
            for worker in workers
        ]
        return DeferredList(calls, consumeErrors=True).addCallback(
            lambda answers: merged(
                [
                    (worker.number, answer)
                    for worker, (told, answer) in zip(workers, answers, strict=True)
                    if told
                ]
            )
        )

    def trace(self, wanted: Filter, deliver: Deliver) -> Callable[[], object]:
        """Open a trace in all of them, those that start later too (`admin.api.Trace`)."""
        self._last_trace = name = self._last_trace + 1
        self._traces[name] = wanted, deliver

        def close() -> None:
            del self._traces[name]
            for worker in self._workers:
                worker.tell("untrace", trace=name)

        for worker in self._workers:
            if worker.ready:
                worker.tell("trace", trace=name, wanted=wanted.to_json())
        return close

    # What a worker asks.

    def traced(self, trace: int, events: Sequence[Event], lost: int) -> None:
        """Take lines of a trace."""
        if trace in self._traces:
            _, deliver = self._traces[trace]
            deliver(events, lost)

    def started(self, worker: WorkerProcess) -> None:
        """A worker can be asked: tell it of the traces that are open."""
        for name, (wanted, _) in self._traces.items():
            worker.tell("trace", trace=name, wanted=wanted.to_json())

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

    def pass_on_tls_news(self, teller: WorkerProcess) -> None:
        """Let all but one read what that one has learnt of TLS."""
        for worker in self._workers:
            if worker is not teller and worker.ready:
                worker.tell("tls_news")

    def log_lines(self, lines: bytes) -> None:
        """Write what a worker has logged."""
        self._lines(lines)


def _refusal(life: ProcessPipe, failure: Failure) -> str:
    if failure.check(PipeClosed):
        return f"worker {life.worker.number} has died meanwhile; try again"
    if failure.check(TimeoutError):
        return f"worker {life.worker.number}: {reason_of(failure)}"
    return reason_of(failure)


def _as_it_was(failure: Failure) -> Failure:
    """Return the failure of a worker as it was there, where it is about what was asked."""
    if failure.check(CallFailed) and getattr(failure.value, "error", "") == "ValueError":
        return Failure(ValueError(failure.getErrorMessage()))
    return failure


def _say(worker: Any, message: CreditMessage) -> None:
    worker.tell("limits", message=message)
