"""The one answerer for the tool, the page and the parent: many processes answer as one.

    GET  /v1/status      how things stand
    GET  /v1/metrics     what was counted, raw
    GET  /metrics        the same as Prometheus reads it
    GET  /v1/tls         the hosts that TLS was had with, or of those /v1/tls/<domain>
    GET  /v1/explain/<id or address>    why a message is still here, or what would become of mail
                         for an address; there ``?client=`` and ``sender=`` say who sends it
    GET  /v1/trace       what sessions say, as they say it: a line of JSON for each of theirs, until
                         who asked hangs up; filters stand in the query (`tracing.Filter`)
    POST /v1/<action>    do something: ``reload``, ``reopen-logs``
    /v1/queue            and what is below it is somebody else's to answer

All but ``/metrics`` is JSON; errors are ``{"error": text}``. Only the control socket leads to the
actions: the page lets GET alone pass.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote

from attrs import asdict, evolve, frozen
from twisted.internet.defer import (
    Deferred,
    TimeoutError,
    gatherResults,
    maybeDeferred,
    succeed,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..interfaces import Clock, WallTime
from ..telemetry.metrics import Metrics, Snapshot, Totals, added
from ..telemetry.metrics.exposition import exposition
from ..telemetry.tracing import MOST_TRACES, Buffer, Event, Filter
from ..tls.memory import TLSEntry
from .http import (
    READING,
    Outlet,
    Request,
    Responder,
    Response,
    Stream,
    error_response,
    json_response,
)
from .status import VERSION, ProcessReport, Status, Trouble, gauges, merge

STATUS = "/v1/status"
METRICS = "/v1/metrics"
EXPOSITION = "/metrics"
TLS = "/v1/tls"
EXPLAIN = "/v1/explain"
TRACE = "/v1/trace"

# Seconds for a process that was silent when it was asked last. Those who watch over programs often
# wait a second for an answer: a worker that hangs is not to make the whole of it seem to.
_PATIENCE = 0.25

_EXPLAINING = 28.0  # seconds; the DNS is asked, and the tool waits for 30


@frozen
class Asked:
    """A process that was asked for its report.

    Attributes:
        report: its answer; it may fail, or never come.
        otherwise: what is known of the process without it; what it said last time is added here.
    """

    report: Deferred[ProcessReport]
    otherwise: ProcessReport


Reports = Callable[[], "Sequence[ProcessReport | Asked] | Deferred[Sequence[ProcessReport]]"]
"""Asks every process that is alive; who is left out is taken to be gone."""

Hosts = Callable[[str | None], "Sequence[TLSEntry] | Deferred[Sequence[TLSEntry]]"]
"""Says with which hosts TLS was had (`tls.memory.TLSMemory.entries`): all, or of a domain."""

Explain = Callable[[str, Mapping[str, str]], "Deferred[dict[str, Any] | None]"]
"""Says why mail is where it is (`agent.explain.explainer`): of a queue id or an address, with what
else was said. None where there is no such message; raises `ValueError` where it is neither."""

Trace = Callable[[Filter, "Callable[[Sequence[Event], int], object]"], "Callable[[], object]"]
"""Opens a trace in all processes: what takes the lines, and how many were lost since the last ones,
goes in; what closes it comes back."""

Action = Callable[[], Any]
"""Does what an operator asks for: returns lines that say what was done (or a Deferred of them, or
None), and fails where it is refused."""


class Admin:
    """Says how things stand, and does what it is told.

    Attributes:
        traces: how many are open.

    Args:
        hostname: our name.
        version: of twisted-mta.
        reports: see `Reports`.
        actions: by name, as they follow ``/v1/``.
        refusals: what actions raise when they are refused; anything else is logged as well.
        bound: says what listens, one string for each listener.
        wanted_listeners: how many there are to be, once started.
        metrics: what this process counts besides its report, if it has any: a parent's restarts.
        started_at: says when it was started, wall time; None takes the oldest process.
        clock: for the time-out.
        wall_time: for people.
        hosts: see `Hosts`.
        below: who answers what is asked of other paths, and of those below them.
        explain: see `Explain`.
        trace: see `Trace`; None: there are no sessions to read along.
        troubles: says what is wrong, besides what the reports say.
        timeout: seconds that a process has for its report.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        hostname: str,
        version: str,
        reports: Reports,
        clock: Clock,
        wall_time: WallTime,
        actions: Mapping[str, Action] | None = None,
        refusals: tuple[type[Exception], ...] = (OSError, ValueError),
        bound: Callable[[], Sequence[str]] = tuple,
        wanted_listeners: int = 0,
        metrics: Metrics | None = None,
        started_at: Callable[[], float] | None = None,
        hosts: Hosts = lambda domain: (),
        below: Mapping[str, Responder] | None = None,
        explain: Explain = lambda what, said: succeed(None),
        trace: Trace | None = None,
        troubles: Callable[[], Sequence[Trouble]] = tuple,
        timeout: float = 1.5,
    ) -> None:
        self._hostname = hostname
        self._version = version
        self._reports = reports
        self._clock = clock
        self._wall_time = wall_time
        self._actions = dict(actions or {})
        self._refusals = refusals
        self._bound = bound
        self._wanted_listeners = wanted_listeners
        self._metrics = metrics
        self._started_at = started_at
        self._hosts = hosts
        self._below = dict(below or {})
        self._explain = explain
        self.traces = 0
        self._trace = trace
        self._troubles = troubles
        self._timeout = timeout
        self._totals = Totals()
        self._last: dict[int, ProcessReport] = {}
        # What each part of the queue had, and when that was said, by the number of its worker.
        self._counted: dict[int | None, tuple[Mapping[str, int], float]] = {}
        self._waiting: list[Deferred[Status]] | None = None

    def status(self) -> Deferred[Status]:
        """Ask all processes, and say how things stand.

        Comes after ``timeout`` at the latest: who has not answered by then is shown as that. All
        who ask while an answer is under way share it.
        """
        asked: Deferred[Status] = Deferred()
        if self._waiting is not None:
            self._waiting.append(asked)
            return asked
        self._waiting = [asked]
        Deferred.fromCoroutine(self._gather()).addCallback(self._merge).addBoth(self._tell)
        return asked

    def snapshot(self) -> Deferred[Snapshot]:
        """Ask all processes, and return what they and those that are gone have counted."""
        return self.status().addCallback(_metrics_of)

    def answer(self, request: Request) -> Response | Stream | Deferred[Response]:
        """Answer a request (`http.Responder`)."""
        readers: Mapping[str, Callable[[], Deferred[Response]]] = {
            STATUS: lambda: self.status().addCallback(
                lambda status: json_response(status.to_json())
            ),
            METRICS: lambda: self.snapshot().addCallback(
                lambda snapshot: json_response({"version": VERSION, "metrics": snapshot.to_json()})
            ),
            EXPOSITION: lambda: self.snapshot().addCallback(self._exposed, request.accept),
            TLS: lambda: self._tls(None),
        }
        if request.path.startswith(f"{EXPLAIN}/"):
            if request.method not in READING:
                return _not_allowed(READING)
            return self._explained(request)
        if request.path == TRACE and self._trace is not None:
            if request.method not in READING:
                return _not_allowed(READING)
            return self._traced(request, self._trace)
        path, domain = request.path, None
        if path.startswith(f"{TLS}/"):
            path, domain = TLS, path.removeprefix(f"{TLS}/")
        if path in readers:
            if request.method not in READING:
                return _not_allowed(READING)
            return self._tls(domain) if domain else readers[path]()
        for start, answer in self._below.items():
            if path == start or path.startswith(f"{start}/"):
                return answer(request)
        name = request.path.removeprefix("/v1/")
        if request.path.startswith("/v1/") and name in self._actions:
            return self._act(name) if request.method == "POST" else _not_allowed(("POST",))
        paths = (*readers, *self._below, f"{EXPLAIN}/<id or address>", TRACE)
        there = [f"GET {path}" for path in paths]
        there += [f"POST /v1/{action}" for action in self._actions]
        return error_response(f"there is {', '.join(there)}", 404)

    def _tls(self, domain: str | None) -> Deferred[Response]:
        told = maybeDeferred(self._hosts, domain).addTimeout(self._timeout, self._clock)
        return told.addCallback(
            lambda hosts: json_response({"version": VERSION, "hosts": list(hosts)})
        )

    def _explained(self, request: Request) -> Deferred[Response]:
        what = unquote(request.path.removeprefix(f"{EXPLAIN}/"))

        async def explained() -> Response:
            facts = await maybeDeferred(self._explain, what, _query(request))
            if facts is None:
                text = f"{what} is not in the queue; the log says what became of it"
                return error_response(text, 404)
            status = await self.status()
            troubles = [asdict(each) for each in status.troubles]
            said = {"unready": status.unready, "troubles": troubles}
            return json_response({"version": VERSION, **facts, **said})

        def refused(failure: Failure) -> Response:
            if failure.check(TimeoutError):
                return error_response("it cannot be told now: no answer in time", 503)
            failure.trap(ValueError)
            return error_response(failure.getErrorMessage(), 400)

        answer: Deferred[Response] = Deferred.fromCoroutine(explained())
        return answer.addTimeout(_EXPLAINING, self._clock).addErrback(refused)

    def _traced(self, request: Request, trace: Trace) -> Response | Stream:
        try:
            wanted = Filter.parse(_query(request))
        except ValueError as error:
            return error_response(str(error), 400)
        if self.traces >= MOST_TRACES:
            return error_response(f"{self.traces} traces are open; end one of them", 409)

        def begin(outlet: Outlet) -> Callable[[], object]:
            def deliver(events: Sequence[Event], lost: int) -> None:
                lines = [json.dumps(event) for event in events]
                if lost:
                    lines.append(json.dumps({"lost": lost}))
                outlet.write("".join(f"{line}\n" for line in lines).encode("ascii"))

            def take(events: Sequence[Event], lost: int) -> None:
                for event in events:
                    buffer.put(event)
                if lost:
                    buffer.lose(lost)

            def end() -> None:
                self.traces -= 1
                buffer.close()
                close()

            buffer = Buffer(clock=self._clock, deliver=deliver, ready=lambda: outlet.ready)
            outlet.resumed = buffer.flush
            outlet.write(json.dumps({"version": VERSION, **wanted.to_json()}).encode() + b"\n")
            self.traces += 1
            close = trace(wanted, take)
            return end

        return Stream(begin)

    async def _gather(self) -> Sequence[ProcessReport]:
        reports = self._reports()
        if isinstance(reports, Deferred):
            return await reports.addTimeout(self._timeout, self._clock)
        return await gatherResults([self._one(report) for report in reports])

    def _one(self, report: ProcessReport | Asked) -> Deferred[ProcessReport]:
        if isinstance(report, ProcessReport):
            return succeed(report)
        silent = evolve(report.otherwise, state="not answering")
        last = self._last.get(silent.pid)
        hangs = last is not None and last.state == silent.state
        timeout = min(self._timeout, _PATIENCE) if hangs else self._timeout
        return report.report.addTimeout(timeout, self._clock).addErrback(lambda failure: silent)

    def _merge(self, answers: Sequence[ProcessReport]) -> Status:
        reports = [self._remembered(report) for report in answers]
        self._last = {report.pid: report for report in reports}
        for report in reports:
            self._totals.heard((report.pid, report.started_at), report.metrics)
        self._totals.alive([(report.pid, report.started_at) for report in reports])
        own = () if self._metrics is None else (self._metrics.snapshot(),)
        return merge(
            reports,
            hostname=self._hostname,
            version=self._version,
            now=self._wall_time(),
            started_at=None if self._started_at is None else self._started_at(),
            metrics=added((self._totals.sum(), *own)),
            listeners=self._bound(),
            wanted_listeners=self._wanted_listeners,
            troubles=self._troubles(),
        )

    def _remembered(self, report: ProcessReport) -> ProcessReport:
        """Return what a process said last that says nothing now: its queue is still there."""
        if report.state in ("ready", "draining"):
            self._counted[report.number] = report.queue, self._wall_time()
            return report
        # The numbers of this very process; and those of the queue, which its successor takes over.
        last = self._last.get(report.pid)
        if report.state == "not answering" and last is not None:
            report = evolve(
                last, state=report.state, number=report.number, restarts=report.restarts
            )
        queue, counted_at = self._counted.get(report.number, ({}, 0.0))
        return evolve(report, queue=queue, counted_at=counted_at)

    def _tell(self, status: Status | Failure) -> None:
        waiting, self._waiting = self._waiting or [], None
        for each in waiting:
            each.callback(status)

    def _exposed(self, snapshot: Snapshot, accept: str) -> Response:
        written = exposition(snapshot, version=self._version, accept=accept)
        return Response(body=written.content, content_type=written.content_type)

    def _act(self, name: str) -> Deferred[Response]:
        def done(lines: Any) -> Response:
            said = [str(line) for line in lines or ()]
            return json_response({"version": VERSION, "action": name, "lines": said})

        def refused(failure: Failure) -> Response:
            # RFC 9110 §15.5.10: the state of things does not let it; what was in force stays.
            if not failure.check(*self._refusals):
                self._log.failure("{action} was refused", failure, action=name)
            return error_response(failure.getErrorMessage(), 409)

        return maybeDeferred(self._actions[name]).addCallbacks(done, refused)


def _query(request: Request) -> dict[str, str]:
    return dict(parse_qsl(request.query, keep_blank_values=True))


def _metrics_of(status: Status) -> Snapshot:
    return added((status.metrics, gauges(status)))


def _not_allowed(methods: Sequence[str]) -> Response:
    allowed = ", ".join(methods)
    return error_response(f"only {allowed} can be had here", 405, headers={"Allow": allowed})
