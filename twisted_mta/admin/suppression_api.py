"""The suppression list, and reports of complaints, over HTTP.

GET  /v1/suppression          addresses on the list; ``?after=`` continues, ``?limit=`` bounds
POST /v1/suppression/add      ``?address=&reason=``; needs the scope act over TCP
POST /v1/suppression/remove   ``?address=``; needs the scope act over TCP
GET  /v1/feedback             accounts with reports, and the last reports; ``?account=`` selects one
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.python.failure import Failure

from ..interfaces import Clock
from .http import READING, Request, Response, error_response, json_response, only
from .questions import FEEDBACK, SUPPRESSION, Agents, ShardQuestion
from .status import VERSION

PATH = "/v1/suppression"
FEEDBACK_PATH = "/v1/feedback"

_ACTIONS = ("add", "remove")
_PAGE = 1_000  # entries in one answer
_LONGEST = 320  # characters of an address


class SuppressionAPI:
    """Answers requests for `PATH`, those below it, and those for `FEEDBACK_PATH`.

    Args:
        agents: are asked.
        clock: for time-outs.
    """

    def __init__(self, agents: Agents, *, clock: Clock) -> None:
        self._agents = agents
        self._clock = clock

    def answer(self, request: Request) -> Response | Deferred[Response]:
        """Answer a request."""
        action = request.path.removeprefix(PATH).removeprefix("/")
        parameters = request.parameters
        if not action:
            if request.method not in READING:
                return only(READING)
            try:
                limit = min(_PAGE, max(1, int(parameters.get("limit", _PAGE))))
            except ValueError:
                return error_response(f"limit: expected a whole number from 1 to {_PAGE}", 400)
            return self._asked(action="list", address=parameters.get("after", ""), limit=limit)
        if action not in _ACTIONS:
            ways = ", ".join(f"POST {PATH}/{each}" for each in _ACTIONS)
            return error_response(f"there is GET {PATH}, {ways}", 404)
        if request.method != "POST":
            return only(("POST",))
        if request.public:
            return error_response(
                f"{action} is answered at the control socket, and to a login, only", 403
            )
        address = parameters.get("address", "")
        if not 0 < len(address) <= _LONGEST:
            return error_response("address: expected one such as ann@example.net", 400)
        return self._asked(
            action=action, address=address, reason=parameters.get("reason", ""), by=request.user
        )

    def feedback(self, request: Request) -> Deferred[Response]:
        """Answer a request for `FEEDBACK_PATH`."""
        account = request.parameters.get("account")
        return self._asked(FEEDBACK, account=account)

    def _asked(self, question: ShardQuestion = SUPPRESSION, **arguments: Any) -> Deferred[Response]:
        return Deferred.fromCoroutine(self._ask(question, arguments)).addErrback(_failed)

    async def _ask(self, question: ShardQuestion, arguments: Mapping[str, Any]) -> Response:
        # Any process: all have the same file.
        shard = min(self._agents.shards())
        asked = self._agents.ask_shard(shard, question, **arguments)
        answer: dict[str, Any] = await asked.addTimeout(question.timeout, self._clock)
        if answer.get("found") is False:
            return error_response(f"{arguments['address']} is not on the suppression list", 404)
        return json_response({"version": VERSION, **answer})


def _failed(failure: Failure) -> Response:
    if failure.check(TimedOut, LookupError):
        return error_response("no answer in time; try again", 503)
    failure.trap(ValueError)
    return error_response(failure.getErrorMessage(), 409)
