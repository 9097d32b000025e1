"""The state of the whole MTA: the reports of all processes, asked for, remembered and merged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.python.failure import Failure

from ..cluster.machines import ClusterStatus
from ..health.clock_steps import ClockSteps
from ..health.trouble import Trouble
from ..health.watch import Watch
from ..interfaces import Clock, WallTime
from ..telemetry.metrics import Metrics, Snapshot, Totals, added
from .merging import gauges, merge
from .questions import PendingReport
from .report import ProcessReport
from .status import Status

# Seconds for a process that did not answer the last time. Programs that watch over others often
# wait a second for an answer: one worker that hangs must not make the whole MTA seem to.
_PATIENCE = 0.25


@frozen(kw_only=True)
class Installation:
    """Facts of the MTA that no process has to be asked for.

    Attributes:
        hostname: its name.
        version: of twisted-mta.
        listeners: returns the bound ports, one text for each.
        wanted_listeners: how many listeners there are to be, once it has started.
        started_at: returns when it was started, wall time; None: when its oldest process was.
        troubles: returns those that are not in reports.
        cluster: returns the machines with the same queue; None: it is of this machine alone.
        metrics: of this process, where they are not in its report: a parent counts restarts.
    """

    hostname: str
    version: str
    listeners: Callable[[], Sequence[str]] = tuple
    wanted_listeners: int = 0
    started_at: Callable[[], float] | None = None
    troubles: Callable[[], Sequence[Trouble]] = tuple
    cluster: Callable[[], ClusterStatus | None] = lambda: None
    metrics: Metrics | None = None


class Overview:
    """Asks all processes for their reports, and remembers the last report of each.

    Args:
        installation: other facts.
        reports: see `questions.Agents.reports`.
        clock: for time-outs.
        wall_time: for people.
        timeout: seconds that a process has for its report.
    """

    def __init__(
        self,
        installation: Installation,
        *,
        reports: Callable[[], Sequence[ProcessReport | PendingReport]],
        clock: Clock,
        wall_time: WallTime,
        timeout: float = 1.5,
    ) -> None:
        self._installation = installation
        self._reports = reports
        self._clock = clock
        self._wall_time = wall_time
        self._timeout = timeout
        self._totals = Totals()
        self._last: dict[int, ProcessReport] = {}  # by process id
        # The census of each worker's part of the queue and its time, by the worker's number.
        self._counted: dict[int | None, tuple[Mapping[str, int], float]] = {}
        self._waiting: list[Deferred[Status]] | None = None
        self._watch = Watch(clock=clock, wall_time=wall_time)
        self._clock_steps = ClockSteps(clock=clock, wall_time=wall_time)
        self._watchers: list[Callable[[Status], object]] = []

    def status(self) -> Deferred[Status]:
        """Ask all processes; fires with the state of the whole.

        It fires after ``timeout`` at the latest: a process that has not answered by then is shown
        as that. Callers share the answer that is under way.
        """
        answered: Deferred[Status] = Deferred()
        if self._waiting is not None:
            self._waiting.append(answered)
            return answered
        self._waiting = [answered]
        gathered = Deferred.fromCoroutine(self._gather())
        gathered.addCallback(self._merge).addBoth(self._fire)
        return answered

    def watch(self, watcher: Callable[[Status], object]) -> None:
        """Call a function with each status from now on; it must not fail."""
        self._watchers.append(watcher)

    def snapshot(self) -> Deferred[Snapshot]:
        """Ask all processes; fires with the metrics of all, including those that have ended."""
        return self.status().addCallback(
            lambda status: added((status.metrics, gauges(status))),
        )

    async def _gather(self) -> Sequence[ProcessReport]:
        return await gatherResults([self._one(report) for report in self._reports()])

    def _one(self, report: ProcessReport | PendingReport) -> Deferred[ProcessReport]:
        if isinstance(report, ProcessReport):
            return succeed(report)
        silent = evolve(report.otherwise, state="not answering")
        last = self._last.get(silent.pid)
        was_silent = last is not None and last.state == silent.state
        timeout = min(self._timeout, _PATIENCE) if was_silent else self._timeout
        return report.report.addTimeout(timeout, self._clock).addErrback(lambda failure: silent)

    def _merge(self, answers: Sequence[ProcessReport]) -> Status:
        reports = [self._completed(report) for report in answers]
        self._last = {report.pid: report for report in reports}
        for report in reports:
            self._totals.heard((report.pid, report.started_at), report.metrics)
        self._totals.alive([(report.pid, report.started_at) for report in reports])
        known = self._installation
        own = () if known.metrics is None else (known.metrics.snapshot(),)
        cluster = known.cluster()
        status = merge(
            reports,
            hostname=known.hostname,
            version=known.version,
            now=self._wall_time(),
            started_at=None if known.started_at is None else known.started_at(),
            metrics=added((self._totals.sum(), *own)),
            listeners=known.listeners(),
            wanted_listeners=known.wanted_listeners,
            troubles=[
                *known.troubles(),
                *self._clock_steps.troubles(),
                *(() if cluster is None else cluster.troubles()),
            ],
        )
        status = evolve(status, cluster=cluster, troubles=self._watch.seen(status.troubles))
        for watcher in self._watchers:
            watcher(status)
        return status

    def _completed(self, report: ProcessReport) -> ProcessReport:
        """Return a report; where a process is silent, or has ended, with its last numbers.

        The metrics are those of the same process. The census is that of the worker's part of the
        queue, which a successor takes over.
        """
        if report.state in ("ready", "draining"):
            self._counted[report.number] = report.queue, self._wall_time()
            return report
        last = self._last.get(report.pid)
        if report.state == "not answering" and last is not None:
            report = evolve(
                last, state=report.state, number=report.number, restarts=report.restarts
            )
        queue, counted_at = self._counted.get(report.number, ({}, 0.0))
        return evolve(report, queue=queue, counted_at=counted_at)

    def _fire(self, status: Status | Failure) -> None:
        waiting, self._waiting = self._waiting or [], None
        for each in waiting:
            each.callback(status)
