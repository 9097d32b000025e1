"""Reports on TLS over HTTP, what they say by now and sending them now; and records of our own.

    GET  /v1/tls-reports    the last report of each domain
    POST /v1/tls-reports    send what was not sent yet; needs the scope act over TCP
    GET  /v1/tls-records    what to publish about the TLS of our domains

``?domain=`` selects the report to one domain.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.python.failure import Failure

from ..interfaces import Clock
from .http import READING, Request, Response, error_response, json_response, only
from .questions import TLS_COUNTS, TLS_RECORDS, TLS_REPORTS, Agents, ShardQuestion
from .status import VERSION

PATH = "/v1/tls-reports"
RECORDS = "/v1/tls-records"


class TLSReportsAPI:
    """Answers requests about reports and records.

    Args:
        agents: are asked.
        clock: for time-outs.
    """

    def __init__(self, agents: Agents, *, clock: Clock) -> None:
        self._agents = agents
        self._clock = clock

    def answer(self, request: Request) -> Response | Deferred[Response]:
        """Answer a request for `PATH`."""
        if request.method == "POST" and request.public:
            return error_response(
                "reports are sent at the control socket, and to a login, only", 403
            )
        if request.method not in (*READING, "POST"):
            return only((*READING, "POST"))
        domain = request.parameters.get("domain")
        asked = self._ask(domain, send=request.method == "POST")
        return Deferred.fromCoroutine(asked).addErrback(_failed)

    def records(self, request: Request) -> Deferred[Response]:
        """Answer a request for `RECORDS`."""
        return Deferred.fromCoroutine(self._ask_one(TLS_RECORDS)).addErrback(_failed)

    async def _ask(self, domain: str | None, *, send: bool) -> Response:
        # All processes write what they have counted; then one of them reads, and sends.
        await self._agents.ask(TLS_COUNTS).addTimeout(TLS_COUNTS.timeout, self._clock)
        return await self._ask_one(TLS_REPORTS, domain=domain, send=send)

    async def _ask_one(self, question: ShardQuestion, **arguments: Any) -> Response:
        shard = min(self._agents.shards())
        asked = self._agents.ask_shard(shard, question, **arguments)
        answer: dict[str, Any] = await asked.addTimeout(question.timeout, self._clock)
        return json_response({"version": VERSION, **answer})


def _failed(failure: Failure) -> Response:
    if failure.check(TimedOut, LookupError):
        return error_response("no answer in time; try again", 503)
    failure.trap(ValueError)
    return error_response(failure.getErrorMessage(), 409)
