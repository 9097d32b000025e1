"""What an operator asks of the queue over HTTP, answered for all parts of it together.

    GET  /v1/queue               messages, the oldest first
    GET  /v1/queue/<id>          one message
    GET  /v1/queue/<id>/body     its content
    POST /v1/queue/<action>      ``retry``, ``hold``, ``release`` or ``remove``

The queue is in shards, which belong to several processes. Ids rise with time in all of them, so a
list is merged as far as every shard has been looked through; an action goes through one shard after
the other.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.python.failure import Failure

from ..interfaces import Clock
from ..mail.queue_id import QueueId
from ..queue.operator.operations import ACTIONS
from .http import JSON, READING, Request, Response, error_response, json_response, only
from .questions import BODY, LIST, SHOW, STEER, Agents, ShardQuestion
from .status import VERSION

PATH = "/v1/queue"

_PART = 2000  # recipients that are looked at in one part of an action
_MOST = 1000  # messages in one list
_USUAL = 100
_PIECE = 256 * 1024  # octets of a content that are on their way at once
_FIRST = -1


class QueueAPI:
    """Answers requests about the queue.

    Args:
        agents: are asked.
        clock: for time-outs.
    """

    def __init__(self, agents: Agents, *, clock: Clock) -> None:
        self._agents = agents
        self._clock = clock

    def answer(self, request: Request) -> Response | Deferred[Response]:
        """Answer a request about what is below `PATH`."""
        place = request.path.removeprefix(PATH).removeprefix("/")
        if place in ACTIONS:
            if request.public:
                return error_response("that can only be asked of the control socket", 403)
            if request.method != "POST":
                return only(("POST",))
            asked = self._act(place, request)
        elif request.method not in READING:
            return only(READING)
        elif not place:
            asked = self._list(request)
        else:
            id, _, rest = place.partition("/")
            if rest not in ("", "body"):
                return error_response(f"there is {PATH}/{id} and {PATH}/{id}/body", 404)
            if rest and request.public:
                return error_response("contents can only be had at the control socket", 403)
            asked = self._body(id) if rest else self._show(id, content=not request.public)
        return Deferred.fromCoroutine(asked).addErrback(self._failed)

    def _failed(self, failure: Failure) -> Response:
        failure.trap(ValueError)
        return error_response(failure.getErrorMessage(), 400)

    def _ask(self, shard: int, question: ShardQuestion, **arguments: Any) -> Deferred[Any]:
        answer = self._agents.ask_shard(shard, question, **arguments)
        return answer.addTimeout(question.timeout, self._clock)

    async def _ask_all(
        self, question: ShardQuestion, **arguments: Any
    ) -> tuple[dict[int, Any], list[dict[str, Any]]]:
        """Ask about all shards; return their answers, and the shards without one, with reasons."""
        shards = self._agents.shards()
        asked = [self._ask(shard, question, **arguments) for shard in shards]
        answers: dict[int, Any] = {}
        missing: list[dict[str, Any]] = []
        for shard, (done, answer) in zip(
            shards, await DeferredList(asked, consumeErrors=True), strict=True
        ):
            if done:
                answers[shard] = answer
            else:
                missing.append(_missing(shard, answer))
        return answers, missing

    async def _list(self, request: Request) -> Response:
        filters, rest = _query(request.query)
        limit = _number(rest, "limit", _USUAL, _MOST)
        after = _FIRST if rest["after"] is None else int(QueueId.parse(rest["after"]))
        answers, missing = await self._ask_all(LIST, filters=filters, after=after, limit=limit)
        merged = LIST.merge(list(answers.values()))
        messages = merged["messages"]
        following = None if merged["next"] is None else str(QueueId(merged["next"]))
        if len(messages) > limit:
            messages = messages[:limit]
            following = messages[-1]["id"]
        page = {"version": VERSION, "messages": messages, "next": following, "missing": missing}
        # Not indented: that alone takes several times as long as all the rest.
        return Response(body=json.dumps(page).encode("ascii") + b"\n", content_type=JSON)

    async def _show(self, id: str, *, content: bool) -> Response:
        QueueId.parse(id)
        answers, missing = await self._ask_all(SHOW, id=id, content=content)
        message = SHOW.merge(list(answers.values()))
        if message is None:
            return _not_there(id, missing)
        return json_response({"version": VERSION, "message": message})

    async def _body(self, id: str) -> Response:
        QueueId.parse(id)
        answers, missing = await self._ask_all(BODY, id=id, offset=0, length=_PIECE)
        for shard, found in answers.items():
            if found is not None:
                return self._content(shard, id, b64decode(found["content"]), found["size"])
        return _not_there(id, missing)

    def _content(self, shard: int, id: str, first: bytes, size: int) -> Response:
        if len(first) >= size:
            return Response(body=first, content_type=_CONTENT)
        sent = 0

        def more(found: Any) -> bytes:
            nonlocal sent
            piece = b64decode(found["content"]) if found is not None else b""
            if not piece:
                raise OSError(f"{id} has left the queue while it was read")
            sent += len(piece)
            return piece

        def piece() -> Deferred[bytes]:
            nonlocal sent
            if not sent:
                sent = len(first)
                return succeed(first)
            if sent >= size:
                return succeed(b"")
            asked = self._ask(shard, BODY, id=id, offset=sent, length=_PIECE)
            return asked.addCallback(more)

        return Response(body=b"", content_type=_CONTENT, size=size, pieces=piece)

    async def _act(self, action: str, request: Request) -> Response:
        said = _wish(request.body)
        limit, dry_run = said.pop("limit", None), said.pop("dry_run", False)
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int)):
            raise ValueError(f"limit: a number of recipients, not {limit!r}")
        if not isinstance(dry_run, bool):
            raise ValueError(f"dry_run: true or false, not {dry_run!r}")
        everything = said.pop("all", False)
        shards, after = self._cursor(said.pop("after", None))
        if not said and everything is not True:
            raise ValueError('nothing says to what: give filters, or "all": true')
        done = STEER.merge([])
        missing: list[dict[str, Any]] = []
        following: str | None = None
        for shard in shards:
            place: int | None = after
            while place is not None:
                left = _PART if limit is None else limit - done["looked_at"]
                if left <= 0:
                    following = f"{shard}.{QueueId(place) if place >= 0 else ''}"
                    break
                try:
                    part = await self._ask(
                        shard,
                        STEER,
                        action=action,
                        filters=said,
                        after=place,
                        limit=min(_PART, left),
                        dry_run=dry_run,
                        by=request.user,
                    )
                except ValueError:
                    raise
                except Exception:
                    missing.append(_missing(shard, Failure()))
                    break
                done = STEER.merge([done, part])
                place = part["next"]
            if following is not None:
                break
            after = _FIRST
        return json_response(
            {
                "version": VERSION,
                "action": action,
                "dry_run": dry_run,
                **done,
                "next": following,
                "missing": missing,
            }
        )

    def _cursor(self, text: Any) -> tuple[Sequence[int], int]:
        """Return the shards that are left, and behind which id the first of them begins."""
        shards = sorted(self._agents.shards())
        if text is None:
            return shards, _FIRST
        number, _, id = str(text).partition(".")
        try:
            shard, after = int(number), int(QueueId.parse(id)) if id else _FIRST
        except ValueError:
            raise ValueError(f"after: what an answer said is next, not {text!r}") from None
        return [each for each in shards if each >= shard], after


_CONTENT = "message/rfc822"


def _missing(shard: int, failure: Failure) -> dict[str, Any]:
    if failure.check(TimedOut):
        return {"shard": shard, "why": "it has not answered in time"}
    if failure.check(ValueError) or getattr(failure.value, "error", "") == "ValueError":
        # All of them would say the same: it is about what was asked.
        raise ValueError(failure.getErrorMessage())
    return {"shard": shard, "why": failure.getErrorMessage()}


def _not_there(id: str, missing: Sequence[Mapping[str, Any]]) -> Response:
    if missing:
        why = "; ".join(str(each["why"]) for each in missing)
        return error_response(f"{id} is not where it could be looked for: {why}", 503)
    return error_response(f"{id} is not in the queue", 404)


_NAMES = ("to", "from", "domain", "state", "older", "after", "limit")


def _query(query: str) -> tuple[dict[str, Any], dict[str, str | None]]:
    """Return the filters that a query has, and what else it says."""
    said = parse_qs(query, keep_blank_values=True, errors="replace", max_num_fields=1000)
    filters: dict[str, Any] = {}
    for name, values in said.items():
        if name == "id":
            filters["ids"] = values
        elif name not in _NAMES:
            raise ValueError(f"no filter {name!r}; there are id, {', '.join(_NAMES)}")
        elif len(values) > 1:
            raise ValueError(f"{name}: given {len(values)} times")
        else:
            filters[name] = values[0]
    rest: dict[str, str | None] = {name: filters.pop(name, None) for name in ("after", "limit")}
    if "older" in filters:
        try:
            filters["older"] = float(filters["older"])
        except ValueError:
            raise ValueError(f"older: seconds, not {filters['older']!r}") from None
    return filters, rest


def _number(rest: Mapping[str, str | None], name: str, usual: int, most: int) -> int:
    text = rest[name]
    if text is None:
        return usual
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most):
        raise ValueError(f"{name}: a number from 1 to {most:,}, not {text!r}")
    return int(text)


def _wish(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is not JSON: {error}") from None
    if not isinstance(said, dict):
        raise ValueError("the body is not a JSON object")
    return said
