"""Recent sessions over HTTP.

GET  /v1/sessions   the last ones that have ended; ``?direction=`` is ``in`` (of clients with us) or
                    ``out`` (of us with servers); ``?peer=`` is a network, or a part of a name or of
                    an account; ``?refused=true`` selects those with a refusal; ``?limit=`` bounds
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.python.failure import Failure

from ..interfaces import Clock
from ..telemetry.recent_sessions import MOST_SESSIONS
from .http import Request, Response, error_response, json_response
from .questions import SESSIONS, Agents
from .status import VERSION

PATH = "/v1/sessions"

_USUAL = 100
_LONGEST = 255  # characters of a peer


class SessionsAPI:
    """Answers requests for `PATH`.

    Args:
        agents: are asked.
        clock: for time-outs.
    """

    def __init__(self, agents: Agents, *, clock: Clock) -> None:
        self._agents = agents
        self._clock = clock

    def answer(self, request: Request) -> Response | Deferred[Response]:
        """Answer a request that reads."""
        parameters = request.parameters
        peer, refused = parameters.get("peer", ""), parameters.get("refused", "false")
        text = parameters.get("limit", str(_USUAL))
        if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MOST_SESSIONS):
            return error_response(f"limit: expected a whole number from 1 to {MOST_SESSIONS}", 400)
        if refused not in ("true", "false"):
            return error_response("refused: expected true or false", 400)
        direction = parameters.get("direction")
        if direction not in (None, "in", "out"):
            return error_response("direction: expected in or out", 400)
        if len(peer) > _LONGEST:
            return error_response(f"peer: expected at most {_LONGEST} characters", 400)
        limit = int(text)

        def answered(sessions: Any) -> Response:
            found = [{"worker": 0, **each} for each in sessions[:limit]]
            return json_response({"version": VERSION, "sessions": found})

        def failed(failure: Failure) -> Response:
            failure.trap(TimedOut)
            return error_response("no answer in time; try again", 503)

        asked: Deferred[Any] = self._agents.ask(
            SESSIONS,
            peer=peer or None,
            refused=refused == "true",
            limit=limit,
            direction=direction,
        )
        return asked.addTimeout(SESSIONS.timeout, self._clock).addCallbacks(answered, failed)
