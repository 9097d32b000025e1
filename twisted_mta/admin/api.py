"""The answers to the operator's tool, to the page and to programs: one for all processes.

    GET  /v1/status      the state of all processes
    GET  /v1/metrics     the metrics, raw
    GET  /metrics        the metrics, as Prometheus reads them
    /v1/tls              see `tls_api`
    GET  /v1/explain/<id or address>    why a message is still in the queue, or where mail for an
                         address would go; ``?client=`` and ``sender=`` name the client and the
                         reverse-path of that mail
    GET  /v1/trace       sessions, live: a line of JSON for each of their lines, until the client
                         hangs up; the query is a filter (`tracing.Filter`)
    GET  /v1/tls-records what to publish about the TLS of our domains
    /v1/tls-reports      see `tls_reports`
    GET  /v1/openapi.json    the description of all this (`openapi`)
    /v1/suppression      see `suppression_api`
    /v1/webhooks         see `webhooks_api`
    /v1/sessions         see `sessions_api`
    /v1/backup           see `backup_api`
    POST /v1/<action>    ``reload``, ``reopen-logs``, ``take-in`` (`agent.maildrop`)
    /v1/queue            see `queue_api`
    GET  /v1/events      see `events_api`
    POST /v1/messages    see `messages_api`

All but ``/metrics`` is JSON; errors are ``{"error": text}``. Actions are reached over the control
socket, and by clients of the page with a login or a token.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from attrs import asdict, frozen
from twisted.internet.defer import Deferred, TimeoutError, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..interfaces import Clock
from ..telemetry.metrics import Snapshot
from . import (
    backup_api,
    events_api,
    messages_api,
    openapi,
    queue_api,
    sessions_api,
    suppression_api,
    tls_api,
    tls_reports,
    webhooks_api,
)
from .backup_api import BackupAPI
from .events_api import EventsAPI
from .explanation import explain_query
from .http import JSON, READING, Request, Response, Stream, error_response, json_response, only
from .messages_api import MessagesAPI
from .overview import Overview
from .questions import EXPLAIN, Agents
from .queue_api import QueueAPI
from .sessions_api import SessionsAPI
from .status import VERSION
from .suppression_api import SuppressionAPI
from .tls_api import TLSAPI
from .tls_reports import TLSReportsAPI
from .traces import Traces
from .webhooks_api import WebhooksAPI

STATUS = "/v1/status"
METRICS = "/v1/metrics"
EXPOSITION = "/metrics"
EXPLAIN_PATH = "/v1/explain"
TRACE = "/v1/trace"

_EXPLAIN_TIMEOUT = 28.0  # seconds; the DNS is asked, and the tool waits for 30

Action = Callable[[], Any]
"""Does one action of an operator: returns lines for the operator (or a Deferred of them, or None),
and fails where the action is refused."""


@frozen(kw_only=True)
class Actions:
    """The actions of an operator.

    Attributes:
        by_name: as they follow ``/v1/``.
        refusals: the errors of actions that are refused; other errors are logged as well.
    """

    by_name: Mapping[str, Action]
    refusals: tuple[type[Exception], ...] = (OSError, ValueError)


class Admin:
    """Answers requests (`http.Responder`).

    Args:
        agents: are asked.
        overview: of all processes.
        actions: of the operator.
        version: of twisted-mta.
        clock: for time-outs.
        events: answers requests for events; None: there are none.
        messages: answers requests that hand over mail; None: none is taken.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        agents: Agents,
        overview: Overview,
        actions: Actions,
        version: str,
        clock: Clock,
        events: EventsAPI | None = None,
        messages: MessagesAPI | None = None,
    ) -> None:
        self._agents = agents
        self._overview = overview
        self._actions = actions
        self._version = version
        self._clock = clock
        self._queue = QueueAPI(agents, clock=clock)
        self._traces = Traces(agents.trace, clock=clock)
        self._tls = TLSAPI(agents, clock=clock)
        self._tls_reports = TLSReportsAPI(agents, clock=clock)
        self._suppression = SuppressionAPI(agents, clock=clock)
        self._webhooks = WebhooksAPI(agents, status=overview.status, clock=clock)
        self._backup = BackupAPI(agents, clock=clock)
        self._readers: Mapping[str, Callable[[Request], Response | Stream | Deferred[Response]]] = {
            STATUS: self._status,
            METRICS: self._metrics,
            EXPOSITION: self._exposition,
            TRACE: self._traces.answer,
            openapi.PATH: self._openapi,
            tls_reports.RECORDS: self._tls_reports.records,
            suppression_api.FEEDBACK_PATH: self._suppression.feedback,
            sessions_api.PATH: SessionsAPI(agents, clock=clock).answer,
        }
        self._messages = messages
        self._description: Response | None = None
        if events is not None:
            self._readers = {**self._readers, events_api.PATH: events.answer}

    def answer(self, request: Request) -> Response | Stream | Deferred[Response]:
        """Answer a request."""
        path = request.path
        if path == queue_api.PATH or path.startswith(f"{queue_api.PATH}/"):
            return self._queue.answer(request)
        if path == tls_api.PATH or path.startswith(f"{tls_api.PATH}/"):
            return self._tls.answer(request)
        if path == messages_api.PATH and self._messages is not None:
            return self._messages.answer(request)
        if path == tls_reports.PATH:
            return self._tls_reports.answer(request)
        if path.startswith(f"{backup_api.PATH}/"):
            return self._backup.answer(request)
        if path == suppression_api.PATH or path.startswith(f"{suppression_api.PATH}/"):
            return self._suppression.answer(request)
        if path == webhooks_api.PATH or path.startswith(f"{webhooks_api.PATH}/"):
            return self._webhooks.answer(request)
        action = path.removeprefix("/v1/")
        if path.startswith("/v1/") and action in self._actions.by_name:
            return self._act(action) if request.method == "POST" else only(("POST",))
        reader = self._readers.get(path)
        if path.startswith(f"{EXPLAIN_PATH}/"):
            reader = self._explain
        if reader is None:
            return self._not_found()
        return reader(request) if request.method in READING else only(READING)

    def _not_found(self) -> Response:
        paths = (
            *self._readers,
            queue_api.PATH,
            tls_api.PATH,
            tls_reports.PATH,
            suppression_api.PATH,
            webhooks_api.PATH,
            f"{EXPLAIN_PATH}/<id or address>",
        )
        known = [f"GET {path}" for path in paths]
        if self._messages is not None:
            known.append(f"POST {messages_api.PATH}")
        known += [f"POST {backup_api.PATH}/{action}" for action in backup_api.ACTIONS]
        known += [f"POST /v1/{action}" for action in self._actions.by_name]
        return error_response(f"there is {', '.join(known)}", 404)

    def _status(self, request: Request) -> Deferred[Response]:
        return self._overview.status().addCallback(lambda status: json_response(status.to_json()))

    def _openapi(self, request: Request) -> Response:
        if self._description is None:
            self._description = Response(body=openapi.document(self._version), content_type=JSON)
        return self._description

    def _metrics(self, request: Request) -> Deferred[Response]:
        return self._overview.snapshot().addCallback(
            lambda snapshot: json_response({"version": VERSION, "metrics": snapshot.to_json()})
        )

    def _exposition(self, request: Request) -> Deferred[Response]:
        from ..telemetry.metrics.exposition import exposition  # with the library for it: 10 ms

        def written(snapshot: Snapshot) -> Response:
            text = exposition(snapshot, version=self._version, accept=request.accept)
            return Response(body=text.content, content_type=text.content_type)

        return self._overview.snapshot().addCallback(written)

    def _explain(self, request: Request) -> Deferred[Response]:
        text = unquote(request.path.removeprefix(f"{EXPLAIN_PATH}/"))

        async def explain() -> Response:
            parameters = request.parameters
            query = explain_query(
                text,
                client=parameters.get("client"),
                sender=parameters.get("sender"),
                helo=parameters.get("helo"),
            )
            facts = await self._agents.ask(EXPLAIN, wanted=query)
            if facts is None:
                return error_response(
                    f"{text} is not in the queue; the log says what became of it", 404
                )
            status = await self._overview.status()
            return json_response(
                {
                    "version": VERSION,
                    **facts,
                    "unready": status.unready,
                    "troubles": [asdict(each) for each in status.troubles],
                }
            )

        def refused(failure: Failure) -> Response:
            if failure.check(TimeoutError):
                return error_response("no answer in time; try again", 503)
            failure.trap(ValueError)
            return error_response(failure.getErrorMessage(), 400)

        explained: Deferred[Response] = Deferred.fromCoroutine(explain())
        return explained.addTimeout(_EXPLAIN_TIMEOUT, self._clock).addErrback(refused)

    def _act(self, name: str) -> Deferred[Response]:
        def done(lines: Any) -> Response:
            texts = [str(line) for line in lines or ()]
            return json_response({"version": VERSION, "action": name, "lines": texts})

        def refused(failure: Failure) -> Response:
            # RFC 9110 §15.5.10: the state of the program does not allow it, and has not changed.
            if not failure.check(*self._actions.refusals):
                self._log.failure("{action} was refused", failure, action=name)
            return error_response(failure.getErrorMessage(), 409)

        return maybeDeferred(self._actions.by_name[name]).addCallbacks(done, refused)
