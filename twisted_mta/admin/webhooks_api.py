"""Webhooks over HTTP.

GET  /v1/webhooks         the webhooks of the settings, with what waits for each
POST /v1/webhooks/test    a test event is posted to each, or to ``?url=``; needs the scope act over
                          TCP
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import asdict
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.python.failure import Failure

from ..interfaces import Clock
from .http import READING, Request, Response, error_response, json_response, only
from .questions import WEBHOOKS_TEST, Agents
from .status import VERSION, Status

PATH = "/v1/webhooks"
TEST = f"{PATH}/test"


class WebhooksAPI:
    """Answers requests for `PATH` and `TEST`.

    Args:
        agents: are asked.
        status: returns the state of all processes.
        clock: for time-outs.
    """

    def __init__(
        self, agents: Agents, *, status: Callable[[], Deferred[Status]], clock: Clock
    ) -> None:
        self._agents = agents
        self._status = status
        self._clock = clock

    def answer(self, request: Request) -> Response | Deferred[Response]:
        """Answer a request."""
        if request.path == PATH:
            return self._shown() if request.method in READING else only(READING)
        if request.path != TEST:
            return error_response(f"there is GET {PATH}, POST {TEST}", 404)
        if request.method != "POST":
            return only(("POST",))
        if request.public:
            return error_response(
                "test is answered at the control socket, and to a login, only", 403
            )
        tested = Deferred.fromCoroutine(self._test(request.parameters.get("url")))
        return tested.addErrback(_failed)

    def _shown(self) -> Deferred[Response]:
        return self._status().addCallback(
            lambda status: json_response(
                {"version": VERSION, "webhooks": [asdict(each) for each in status.webhooks]}
            )
        )

    async def _test(self, url: str | None) -> Response:
        shard = min(self._agents.shards())  # any process: all have the same settings
        asked = self._agents.ask_shard(shard, WEBHOOKS_TEST, url=url)
        answer = await asked.addTimeout(WEBHOOKS_TEST.timeout, self._clock)
        return json_response({"version": VERSION, **answer})


def _failed(failure: Failure) -> Response:
    if failure.check(TimedOut, LookupError):
        return error_response("no answer in time; try again", 503)
    failure.trap(ValueError)
    return error_response(failure.getErrorMessage(), 409)
