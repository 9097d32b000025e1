"""Keeping the files of the queue as they are, over HTTP, while a program copies them.

POST /v1/backup/begin   ``?copy=`` names the copy; for a minute the files are kept for it
POST /v1/backup/renew   for another minute
POST /v1/backup/end     no longer

Answers say of each shard whether its files are ``held``, or were until the end: a copy that was
made meanwhile is that of the moment of ``begin``. They are given at the control socket alone: the
files are for a program that may read the state directory.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from ..interfaces import Clock
from .http import Request, Response, error_response, json_response, only
from .questions import HOLD_FILES, Agents
from .status import VERSION

PATH = "/v1/backup"

ACTIONS = ("begin", "renew", "end")
"""What follows `PATH`."""

_LONGEST = 64  # characters of the name of a copy


class BackupAPI:
    """Answers requests below `PATH`.

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
        if action not in ACTIONS:
            return error_response(
                f"there is {', '.join(f'POST {PATH}/{each}' for each in ACTIONS)}", 404
            )
        if request.method != "POST":
            return only(("POST",))
        if request.public or request.client:
            return error_response("a backup is made at the control socket only", 403)
        copy = request.parameters.get("copy", "")
        if not (0 < len(copy) <= _LONGEST and copy.isascii() and copy.isalnum()):
            return error_response(
                f"copy: expected the name of a copy, of 1 to {_LONGEST} letters and digits", 400
            )
        return Deferred.fromCoroutine(self._act(action, copy))

    async def _act(self, action: str, copy: str) -> Response:
        shards = self._agents.shards()
        asked = [
            self._agents.ask_shard(shard, HOLD_FILES, action=action, copy=copy).addTimeout(
                HOLD_FILES.timeout, self._clock
            )
            for shard in shards
        ]
        answers: list[dict[str, Any]] = []
        for shard, (done, answer) in zip(
            shards, await DeferredList(asked, consumeErrors=True), strict=True
        ):
            if done:
                answers.append({"shard": shard, **answer})
            else:
                answers.append(
                    {"shard": shard, "held": False, "embedded": True, "why": _why(answer)}
                )
        return json_response({"version": VERSION, "copy": copy, "shards": answers})


def _why(failure: Failure) -> str:
    return failure.getErrorMessage() or "it has not answered in time"
