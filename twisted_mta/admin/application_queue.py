"""The queue as an application lists and steers it: the operations of the tool, as methods."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from twisted.internet.defer import Deferred, fail

from .http import Request, Response
from .queue_answers import COUNTS
from .queue_api import PATH

_AT_ONCE = 1000  # messages that are read in one request


_FILTERS = ("ids", "to", "sender", "domain", "state", "older")


class QueueUnavailable(Exception):
    """A part of the queue did not answer; the text names it, and says why."""


class ApplicationQueue:
    """The mail in the queue, in all processes.

    Filters pick recipients, as they do in the tool (``twisted-mta queue``); several are combined:

    ``ids``
        queue ids.
    ``to``, ``sender``
        patterns with ``*`` and ``?``; the null reverse-path is ``<>``.
    ``domain``
        of recipients; ``.example.net`` for all domains below it.
    ``state``
        ``queued``, ``deferred``, ``held`` or ``quarantined``.
    ``older``
        seconds since the message arrived.

    Args:
        answer: answers requests about the queue (`queue_api.QueueAPI.answer`).
    """

    def __init__(self, answer: Callable[[Request], Response | Deferred[Response]]) -> None:
        self._answer = answer

    def list(self, *ids: str, limit: int | None = None, **filters: Any) -> Deferred[Any]:
        """Return messages, the oldest first, each a dictionary as ``queue list --json`` writes it.

        Args:
            ids: of messages; none: all that the filters pick.
            limit: messages at most; None: all.
            filters: see `ApplicationQueue`.

        Returns:
            Fires with a list; fails with `ValueError` where a filter cannot be read, and with
            `QueueUnavailable`.
        """
        try:
            fields = _filters(ids, filters)
        except ValueError:
            return fail()
        return Deferred.fromCoroutine(self._list(fields, limit))

    def show(self, id: str) -> Deferred[Any]:
        """Return one message, a dictionary as ``queue show --json`` writes it.

        Fires with None where the message is not in the queue.
        """
        return Deferred.fromCoroutine(self._show(id))

    def retry(self, *ids: str, **filters: Any) -> Deferred[Mapping[str, int]]:
        """Let mail that waits be tried now.

        Args:
            ids: of messages.
            filters: see `ApplicationQueue`; without ids and filters ``all=True`` has to be given.

        Returns:
            Fires with counts: ``messages`` and ``recipients`` that were changed, ``busy``: those of
            them with an attempt under way, which ends first, ``elsewhere``: those that another
            machine has leased, likewise, and ``looked_at``. Fails with `ValueError` where a filter
            cannot be read, and with `QueueUnavailable`.
        """
        return self._act("retry", ids, filters)

    def hold(self, *ids: str, **filters: Any) -> Deferred[Mapping[str, int]]:
        """Let mail neither be tried nor returned until it is released; see `retry`."""
        return self._act("hold", ids, filters)

    def release(self, *ids: str, **filters: Any) -> Deferred[Mapping[str, int]]:
        """Let held mail be tried now; see `retry`."""
        return self._act("release", ids, filters)

    def remove(self, *ids: str, **filters: Any) -> Deferred[Mapping[str, int]]:
        """Remove mail without a notice to its sender; see `retry`."""
        return self._act("remove", ids, filters)

    async def _list(self, filters: Mapping[str, Any], limit: int | None) -> Sequence[Any]:
        if limit is not None and limit < 1:
            raise ValueError(f"limit: found {limit!r}, expected a number of messages from 1")
        messages: list[Any] = []
        after: str | None = None
        while limit is None or len(messages) < limit:
            wanted = _AT_ONCE if limit is None else min(_AT_ONCE, limit - len(messages))
            query: list[tuple[str, str]] = [("limit", str(wanted))]
            for name, value in filters.items():
                values = value if name == "ids" else [value]
                query += [("id" if name == "ids" else name, str(each)) for each in values]
            if after is not None:
                query.append(("after", after))
            page = await self._ask(Request(method="GET", path=PATH, query=urlencode(query)))
            messages += page["messages"]
            after = page["next"]
            if after is None:
                break
        return messages

    async def _show(self, id: str) -> Any:
        path = f"{PATH}/{quote(str(id), safe='')}"
        answer = await self._ask(Request(method="GET", path=path), missing=404)
        return None if answer is None else answer["message"]

    def _act(
        self, action: str, ids: tuple[str, ...], filters: Mapping[str, Any]
    ) -> Deferred[Mapping[str, int]]:
        everything = filters.get("all", False)
        try:
            fields = _filters(ids, {name: each for name, each in filters.items() if name != "all"})
        except ValueError:
            return fail()
        if everything is True:
            fields["all"] = True
        elif not fields:
            return fail(
                ValueError(f"{action}: found no ids and no filters, expected some, or all=True")
            )
        body = json.dumps(fields, default=str).encode()
        request = Request(method="POST", path=f"{PATH}/{action}", body=body, user="the application")

        async def act() -> Mapping[str, int]:
            answer = await self._ask(request)
            return {each: answer[each] for each in COUNTS}

        return Deferred.fromCoroutine(act())

    async def _ask(self, request: Request, *, missing: int | None = None) -> Any:
        answered = self._answer(request)
        response = await answered if isinstance(answered, Deferred) else answered
        if response.code == missing:
            return None
        answer = json.loads(response.body)
        if response.code == 400:
            raise ValueError(re.sub("^from: ", "sender: ", answer["error"]))
        if response.code != 200:
            raise QueueUnavailable(answer["error"])
        if shards := answer.get("missing"):
            raise QueueUnavailable(
                "; ".join(f"shard {each['shard']}: {each['why']}" for each in shards)
            )
        return answer


def _filters(ids: tuple[str, ...], filters: Mapping[str, Any]) -> dict[str, Any]:
    """Return filters under the names that requests have; those of None are left out.

    Raises:
        ValueError: there is no such filter.
    """
    for name in filters:
        if name not in _FILTERS:
            raise ValueError(f"found filter {name!r}, expected one of {', '.join(_FILTERS)}")
    fields = {
        "from" if name == "sender" else name: value
        for name, value in filters.items()
        if value is not None
    }
    if ids:
        fields["ids"] = [str(each) for each in ids]
    return fields
