"""The queue over HTTP: lists, messages and actions, for all shards together.

    GET  /v1/queue               messages, the oldest first
    GET  /v1/queue/summary       how many there are by domain, sender or reason
    GET  /v1/queue/records       what another queue needs to go on with messages
    GET  /v1/queue/<id>          one message
    GET  /v1/queue/<id>/body     its content
    GET  /v1/queue/<id>/record   what another queue needs to go on with it alone
    POST /v1/queue/<action>      ``retry``, ``hold``, ``release`` or ``remove``
    GET    /v1/queue/suspended   destinations that the operator has suspended
    POST   /v1/queue/suspended   suspend one: an object with ``destination``, and maybe ``reason``,
                                 ``seconds`` and ``dry_run``
    DELETE /v1/queue/suspended   resume ``?destination=``, or those of ``?all=true``

The shards of the queue belong to several processes. Ids rise with time in all of them, so that a
list is merged as far as every shard has been looked through; an action goes through one shard after
the other.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs

from attrs import fields_dict, frozen
from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.defer import TimeoutError as TimedOut
from twisted.python.failure import Failure

from ..interfaces import Clock
from ..mail.printable import printable
from ..mail.queue_id import QueueId
from ..queue.operator.operations import ACTIONS
from .http import JSON, READING, Request, Response, error_response, json_response, only
from .questions import (
    BODY,
    EXPORT,
    EXPORT_MANY,
    LIST,
    RESUME,
    SHOW,
    STEER,
    SUMMARIZE,
    SUSPEND,
    SUSPENDED,
    TAKE_SUSPENDED,
    WAITING,
    Agents,
    Question,
    ShardQuestion,
)
from .queue_answers import added_groups, note_waiting
from .status import VERSION

PATH = "/v1/queue"
SUSPENDED_PATH = f"{PATH}/suspended"

_PART = 2000  # recipients that are looked at in one part of an action
_MOST = 1000  # messages in one list
_USUAL = 100
_PIECE = 256 * 1024  # octets of a content that are on their way at once
_RECORDS = 250  # messages in one piece of an export, and its usual length
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
        """Answer a request for `PATH`, or a path below it."""
        place = request.path.removeprefix(PATH).removeprefix("/")
        if place in ACTIONS:
            if request.public:
                return error_response(
                    "actions are taken at the control socket, and to a login, only", 403
                )
            if request.method != "POST":
                return only(("POST",))
            response = self._act(place, request)
        elif request.path == SUSPENDED_PATH and request.method in ("POST", "DELETE"):
            if request.public:
                return error_response(
                    "destinations are suspended and resumed at the control socket, and by a login,"
                    " only",
                    403,
                )
            posted = request.method == "POST"
            response = self._suspend(request) if posted else self._resume(request)
        elif request.path == SUSPENDED_PATH:
            if request.method not in READING:
                return only((*READING, "POST", "DELETE"))
            response = self._suspended(request)
        elif request.method not in READING:
            return only(READING)
        elif not place:
            response = self._list(request)
        elif place == "summary":
            response = self._summary(request)
        else:
            id, _, rest = place.partition("/")
            if rest not in ("", "body", "record"):
                return error_response(
                    f"there is {PATH}/{id}, {PATH}/{id}/body and {PATH}/{id}/record", 404
                )
            if (rest or id == _MANY) and request.public:
                return error_response(
                    "contents are given at the control socket, and to a login, only", 403
                )
            if place == _MANY:
                response = self._records(request)
            elif rest:
                response = self._body(id) if rest == "body" else self._record(id)
            else:
                response = self._show(id, content=not request.public)
        return Deferred.fromCoroutine(response).addErrback(self._failed)

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
        pending = [self._ask(shard, question, **arguments) for shard in shards]
        answers: dict[int, Any] = {}
        missing: list[dict[str, Any]] = []
        for shard, (done, answer) in zip(
            shards, await DeferredList(pending, consumeErrors=True), strict=True
        ):
            if done:
                answers[shard] = answer
            else:
                missing.append(_missing(shard, answer))
        return answers, missing

    async def _list(self, request: Request) -> Response:
        filters, rest = _query(request.query)
        limit = _number(rest, "limit", _USUAL, _MOST)
        if rest["by"] is not None:
            raise ValueError("found by, which is for the summary")
        after = _FIRST if rest["after"] is None else int(QueueId.parse(rest["after"]))
        answers, missing = await self._ask_all(LIST, filters=filters, after=after, limit=limit)
        merged = LIST.merge(list(answers.values()))
        messages = merged["messages"]
        following = None if merged["next"] is None else str(QueueId(merged["next"]))
        if len(messages) > limit:
            messages = messages[:limit]
            following = messages[-1]["id"]
        await self._note_waiting(messages)
        page = {"version": VERSION, "messages": messages, "next": following, "missing": missing}
        # Not indented: indenting takes several times as long as all the rest.
        return Response(body=json.dumps(page).encode("ascii") + b"\n", content_type=JSON)

    async def _show(self, id: str, *, content: bool) -> Response:
        QueueId.parse(id)
        answers, missing = await self._ask_all(SHOW, id=id, content=content)
        message = SHOW.merge(list(answers.values()))
        if message is None:
            return _not_there(id, missing)
        await self._note_waiting([message])
        return json_response({"version": VERSION, "message": message})

    async def _note_waiting(self, messages: Sequence[Mapping[str, Any]]) -> None:
        """Note which recipients wait in a process that was not asked about the queue."""
        leased = [
            message["id"]
            for message in messages
            if any(entry["in_delivery"] for entry in message["recipients"])
        ]
        if leased:
            with suppress(Exception):  # it stays unknown
                asked: Deferred[Any] = self._agents.ask(WAITING, ids=leased)
                note_waiting(messages, await asked.addTimeout(WAITING.timeout, self._clock))

    async def _summary(self, request: Request) -> Response:
        filters, rest = _query(request.query)
        limit = _number(rest, "limit", _USUAL, _MOST)
        by = rest["by"] or "domain"
        answers, missing = await self._ask_all(SUMMARIZE, by=by, filters=filters)
        merged = SUMMARIZE.merge(list(answers.values()))
        suspended = None
        if by == "domain":
            answers, _ = await self._ask_all(SUSPENDED, destination=None)
            suspended = SUSPENDED.merge(list(answers.values()))
        others = merged["others"]
        # Those with the most recipients first.
        ordered = sorted(merged["groups"].items(), key=lambda each: (-each[1][0], each[0]))
        for _, counts in ordered[limit:]:
            others = added_groups(others, counts)
        summary = {
            "version": VERSION,
            "by": by,
            "groups": [_group(name, counts) for name, counts in ordered[:limit]],
            "others": None if others is None else _group(None, others),
            "suspended": [] if suspended is None else self._waiting_destinations(suspended),
            "missing": missing,
        }
        return Response(body=json.dumps(summary).encode("ascii") + b"\n", content_type=JSON)

    async def _suspended(self, request: Request) -> Response:
        destination = request.parameters.get("destination")
        answers, missing = await self._ask_all(SUSPENDED, destination=destination)
        merged = SUSPENDED.merge(list(answers.values()))
        return json_response(
            {
                "version": VERSION,
                "destinations": self._waiting_destinations(merged),
                "missing": missing,
            }
        )

    def _waiting_destinations(self, merged: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return suspended destinations with the numbers of recipients that wait for them."""
        waiting = merged["waiting"]
        return [
            {**each, "waiting": waiting.get(each["destination"], 0)}
            for each in merged["destinations"]
        ]

    async def _suspend(self, request: Request) -> Response:
        wanted = _Suspension.parse(request.body)
        answers, missing = await self._ask_all(SUSPENDED, destination=wanted.destination)
        counts = SUSPENDED.merge(list(answers.values()))["waiting"]
        written: Mapping[str, Any] = {"destination": next(iter(counts), wanted.destination)}
        if not wanted.dry_run:
            try:
                written = await self._ask_any(
                    SUSPEND,
                    destination=wanted.destination,
                    seconds=wanted.seconds,
                    reason=wanted.reason,
                    by=request.user,
                )
            except _Unanswered as error:
                return error_response(str(error), 503)
            await self._tell_all(TAKE_SUSPENDED, resumed=[], by=request.user)
        return json_response(
            {
                "version": VERSION,
                "dry_run": wanted.dry_run,
                **written,
                "waiting": sum(counts.values()),
                "missing": missing,
            }
        )

    async def _resume(self, request: Request) -> Response:
        parameters = request.parameters
        destination, everything = parameters.get("destination"), parameters.get("all")
        if (destination is None) == (everything is None) or everything not in (None, "true"):
            raise ValueError(
                "expected ?destination= with a domain, .domain or next hop, or ?all=true"
            )
        try:
            resumed = await self._ask_any(RESUME, destination=destination, by=request.user)
        except _Unanswered as error:
            return error_response(str(error), 503)
        if destination is not None and not resumed:
            return error_response(f"{printable(destination)} is not suspended by the operator", 404)
        if resumed:
            await self._tell_all(TAKE_SUSPENDED, resumed=resumed, by=request.user)
        return json_response({"version": VERSION, "resumed": resumed})

    async def _ask_any(self, question: ShardQuestion, **arguments: Any) -> Any:
        """Ask about the first shard: the answer is the same for all."""
        shard = min(self._agents.shards(), default=0)
        try:
            return await self._ask(shard, question, **arguments)
        except ValueError:
            raise
        except Exception:
            raise _Unanswered(_missing(shard, Failure())["why"]) from None

    async def _tell_all(self, question: Question, **arguments: Any) -> None:
        """Ask all agents; one that does not answer now hears of it later, or starts anew."""
        asked: Deferred[Any] = self._agents.ask(question, **arguments)
        with suppress(Exception):
            await asked.addTimeout(question.timeout, self._clock)

    async def _record(self, id: str) -> Response:
        QueueId.parse(id)
        answers, missing = await self._ask_all(EXPORT, id=id)
        message = EXPORT.merge(list(answers.values()))
        if message is None:
            return _not_there(id, missing)
        record = {"version": VERSION, **message}
        return Response(body=json.dumps(record).encode("ascii") + b"\n", content_type=JSON)

    async def _records(self, request: Request) -> Response:
        """Answer with messages of one shard, and the place where the next answer begins."""
        filters, rest = _query(request.query)
        limit = _number(rest, "limit", _RECORDS, _RECORDS)
        if rest["by"] is not None:
            raise ValueError("found by, which is for the summary")
        shards, after = self._cursor(rest["after"])
        records: list[dict[str, Any]] = []
        following: str | None = None
        missing: list[dict[str, Any]] = []
        if shards:
            shard = shards[0]
            if len(shards) > 1:
                following = f"{shards[1]}."
            try:
                part = await self._ask(
                    shard, EXPORT_MANY, filters=filters, after=after, limit=limit
                )
            except Exception:
                missing.append(_missing(shard, Failure()))
            else:
                records = part["records"]
                if part["next"] is not None:
                    following = f"{shard}.{QueueId(part['next'])}"
        page = {"version": VERSION, "records": records, "next": following, "missing": missing}
        return Response(body=json.dumps(page).encode("ascii") + b"\n", content_type=JSON)

    async def _body(self, id: str) -> Response:
        QueueId.parse(id)
        answers, missing = await self._ask_all(BODY, id=id, offset=0, length=_PIECE)
        for shard, answer in answers.items():
            if answer is not None:
                return self._content(shard, id, b64decode(answer["content"]), answer["size"])
        return _not_there(id, missing)

    def _content(self, shard: int, id: str, first: bytes, size: int) -> Response:
        if len(first) >= size:
            return Response(body=first, content_type=_CONTENT)
        sent = 0

        def decoded(answer: Any) -> bytes:
            nonlocal sent
            piece = b64decode(answer["content"]) if answer is not None else b""
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
            answer = self._ask(shard, BODY, id=id, offset=sent, length=_PIECE)
            return answer.addCallback(decoded)

        return Response(body=b"", content_type=_CONTENT, size=size, pieces=piece)

    async def _act(self, action: str, request: Request) -> Response:
        intervention = _Intervention.parse(request.body)
        shards, after = self._cursor(intervention.after)
        counts = STEER.merge([])
        missing: list[dict[str, Any]] = []

        def response(following: str | None) -> Response:
            return json_response(
                {
                    "version": VERSION,
                    "action": action,
                    "dry_run": intervention.dry_run,
                    **counts,
                    "next": following,
                    "missing": missing,
                }
            )

        for shard in shards:
            place: int | None = after
            while place is not None:
                limit = _PART
                if intervention.limit is not None:
                    limit = min(_PART, intervention.limit - counts["looked_at"])
                if limit <= 0:
                    return response(f"{shard}.{QueueId(place) if place >= 0 else ''}")
                try:
                    part = await self._ask(
                        shard,
                        STEER,
                        action=action,
                        filters=intervention.filters,
                        after=place,
                        limit=limit,
                        dry_run=intervention.dry_run,
                        by=request.user,
                    )
                except ValueError:
                    raise
                except Exception:
                    missing.append(_missing(shard, Failure()))
                    break
                counts = STEER.merge([counts, part])
                place = part["next"]
            after = _FIRST
        return response(None)

    def _cursor(self, text: Any) -> tuple[Sequence[int], int]:
        """Return the shards that are left, and the id behind which the first of them begins."""
        shards = sorted(self._agents.shards())
        if text is None:
            return shards, _FIRST
        number, _, id = str(text).partition(".")
        try:
            shard, after = int(number), int(QueueId.parse(id)) if id else _FIRST
        except ValueError:
            raise ValueError(f"after: found {text!r}, expected the next of an answer") from None
        return [each for each in shards if each >= shard], after


_CONTENT = "message/rfc822"
_MANY = "records"


class _Unanswered(Exception):
    """No process could do it; the message says why."""


def _group(name: str | None, counts: Sequence[float]) -> dict[str, Any]:
    names = ("recipients", "messages", "deferred", "held", "oldest")
    return {"name": name, **dict(zip(names, counts, strict=True))}


def _missing(shard: int, failure: Failure) -> dict[str, Any]:
    if failure.check(TimedOut):
        return {"shard": shard, "why": "it has not answered in time"}
    if failure.check(ValueError) or getattr(failure.value, "error", "") == "ValueError":
        # It is about the arguments: every shard would fail in the same way.
        raise ValueError(failure.getErrorMessage())
    return {"shard": shard, "why": failure.getErrorMessage()}


def _not_there(id: str, missing: Sequence[Mapping[str, Any]]) -> Response:
    if missing:
        why = "; ".join(str(each["why"]) for each in missing)
        return error_response(f"{id} is not in the shards that have answered: {why}", 503)
    return error_response(f"{id} is not in the queue", 404)


_NAMES = ("to", "from", "domain", "state", "older", "after", "limit", "by")


def _query(query: str) -> tuple[dict[str, Any], dict[str, str | None]]:
    """Return the filters in a query, and its other parameters."""
    parameters = parse_qs(query, keep_blank_values=True, errors="replace", max_num_fields=1000)
    filters: dict[str, Any] = {}
    for name, values in parameters.items():
        if name == "id":
            filters["ids"] = values
        elif name not in _NAMES:
            raise ValueError(f"found filter {name!r}, expected one of id, {', '.join(_NAMES)}")
        elif len(values) > 1:
            raise ValueError(f"{name}: found {len(values)} values, expected one")
        else:
            filters[name] = values[0]
    rest: dict[str, str | None] = {
        name: filters.pop(name, None) for name in ("after", "limit", "by")
    }
    if "older" in filters:
        try:
            filters["older"] = float(filters["older"])
        except ValueError:
            raise ValueError(f"older: found {filters['older']!r}, expected seconds") from None
    return filters, rest


def _number(rest: Mapping[str, str | None], name: str, usual: int, most: int) -> int:
    text = rest[name]
    if text is None:
        return usual
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most):
        raise ValueError(f"{name}: found {text!r}, expected a number from 1 to {most:,}")
    return int(text)


@frozen
class _Intervention:
    """The body of a request for an action.

    Attributes:
        filters: see `Selection.parse`.
        limit: recipients to look at; None: all.
        dry_run: whether nothing is changed.
        after: the ``next`` of an answer before; None: from the beginning.
    """

    filters: Mapping[str, Any]
    limit: int | None
    dry_run: bool
    after: Any

    @classmethod
    def parse(cls, body: bytes) -> _Intervention:
        """Read a body.

        Raises:
            ValueError: it cannot be read, or does not say which messages are meant.
        """
        fields = _read_object(body)
        limit, dry_run = fields.pop("limit", None), fields.pop("dry_run", False)
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int)):
            raise ValueError(f"limit: found {limit!r}, expected a number of recipients")
        if not isinstance(dry_run, bool):
            raise ValueError(f"dry_run: found {dry_run!r}, expected true or false")
        everything, after = fields.pop("all", False), fields.pop("after", None)
        if not fields and everything is not True:
            raise ValueError('found no filters; expected filters, or "all": true')
        return cls(fields, limit, dry_run, after)


_LONGEST_SUSPENSION = 366 * 86_400.0  # seconds


@frozen
class _Suspension:
    """The body of a request to suspend a destination.

    Attributes:
        destination: as the operator wrote it (`read_destination`).
        reason: in the operator's words.
        seconds: for how long; None: until it is resumed.
        dry_run: whether nothing is changed.
    """

    destination: str
    reason: str = ""
    seconds: float | None = None
    dry_run: bool = False

    @classmethod
    def parse(cls, body: bytes) -> _Suspension:
        """Read a body.

        Raises:
            ValueError: it cannot be read.
        """
        fields = _read_object(body)
        unknown = [name for name in fields if name not in fields_dict(cls)]
        if unknown:
            names = ", ".join(fields_dict(cls))
            raise ValueError(f"found {printable(repr(unknown[0]))}, expected some of {names}")
        for name in ("destination", "reason"):
            value = fields.setdefault(name, "")
            if not isinstance(value, str):
                raise ValueError(f"{name}: expected a text")
        seconds = fields.get("seconds")
        if seconds is not None and (
            isinstance(seconds, bool)
            or not isinstance(seconds, int | float)
            or not 0 < seconds <= _LONGEST_SUSPENSION
        ):
            raise ValueError(
                f"seconds: found {seconds!r}, expected a number from 1 to {_LONGEST_SUSPENSION:.0f}"
            )
        if not isinstance(fields.get("dry_run", False), bool):
            raise ValueError("dry_run: expected true or false")
        return cls(**fields)


def _read_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in the body of a request.

    Raises:
        ValueError: it is none.
    """
    try:
        fields = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ValueError("the body is not a JSON object")
    try:
        json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # JSON may have lone surrogates; no store or log takes them
        raise ValueError("the body has half a character, expected text") from None
    return fields
