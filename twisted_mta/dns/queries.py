"""Queries for all lookups: answered from the cache, shared, and bounded in number."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from .cache import Cache, Key
from .message import TLSA, Answer
from .nameserver import NameServer
from .query import NoAnswer, Query, Timing

_MOST_QUERIES = 64  # at a time; each has one socket for each name server


class _SharedQuery:
    """A query, and the lookups that wait for its answer.

    A lookup that is canceled leaves the others and the query as they are.

    Attributes:
        query: the query; None while it waits for its turn.
    """

    def __init__(self) -> None:
        self.query: Query | None = None
        self._waiting: dict[Deferred[Answer], None] = {}

    def join(self) -> Deferred[Answer]:
        """Return a Deferred for the answer."""
        waiting: Deferred[Answer] = Deferred(self._leave)
        self._waiting[waiting] = None
        return waiting

    def _leave(self, waiting: Deferred[Answer]) -> None:
        self._waiting.pop(waiting, None)
        waiting.errback(Failure(CancelledError()))

    def end(self, result: Answer | NoAnswer) -> None:
        """Fire the Deferreds of all waiting lookups."""
        waiting, self._waiting = self._waiting, {}
        for each in waiting:
            if isinstance(result, NoAnswer):
                each.errback(result)
            else:
                each.callback(result)


class Queries:
    """Sends queries to name servers.

    Args:
        reactor: for UDP, TCP and timeouts.
        timing: of each query.
        new_id: returns unpredictable numbers of 16 bits.

    Attributes:
        nameservers: to query, in this order.
        timing: of each query.
        rotate: whether the first name server changes with each query.
        generation: the number of changes of the name servers.
    """

    _log = Logger()

    def __init__(self, reactor: Any, *, timing: Timing, new_id: Callable[[], int]) -> None:
        self.nameservers: list[NameServer] = []
        self.timing = timing
        self.rotate = False
        self.generation = 0
        self._reactor = reactor
        self._new_id = new_id
        self._rotation = 0
        self._cache = Cache()
        self._shared: dict[Key, _SharedQuery] = {}
        self._running: dict[Query, None] = {}
        self._pending: deque[tuple[Key, _SharedQuery]] = deque()

    def cached(self, key: Key) -> Answer | None:
        """Return the answer to a query if the cache has it."""
        return self._cache.get(key, self._reactor.seconds())

    def answer(self, key: Key) -> Deferred[Answer]:
        """Return the answer to a query: cached, or of one query for all concurrent lookups.

        Raises:
            NoAnswer: no name server gave a usable answer.
        """
        cached = self.cached(key)
        if cached is not None:
            return succeed(cached)
        shared = self._shared.get(key)
        if shared is None:
            shared = self._shared[key] = _SharedQuery()
            self._pending.append((key, shared))
            self._start_pending()
        return shared.join()

    def forget(self) -> None:
        """Drop all answers, also those to come: other name servers may have others."""
        self.generation += 1
        self._cache.clear()
        self._shared.clear()

    def stop(self) -> None:
        """Fail all queries; new ones are possible."""
        pending, self._pending = self._pending, deque()
        self._shared.clear()
        for _, shared in pending:
            shared.end(NoAnswer("the query was stopped"))
        for query in tuple(self._running):
            query.stop()

    def _start_pending(self) -> None:
        while self._pending and len(self._running) < _MOST_QUERIES:
            key, shared = self._pending.popleft()
            nameservers = self.nameservers
            if key[1] == TLSA:
                # A name server that is not trusted could only say that there is no DANE.
                nameservers = [each for each in nameservers if each.trusted]
            if self.rotate and nameservers:
                self._rotation = (self._rotation + 1) % len(nameservers)
                nameservers = nameservers[self._rotation :] + nameservers[: self._rotation]
            query = Query(
                self._reactor,
                *key,
                nameservers,
                self.timing,
                new_id=self._new_id,
                answered=partial(self._answered, key, shared, self.generation),
            )
            shared.query = query
            self._running[query] = None
            try:
                query.start()
            except Exception:  # an internal error; no lookup may wait for ever
                self._log.failure("a query could not be sent")
                query.stop()

    def _answered(
        self, key: Key, shared: _SharedQuery, generation: int, result: Answer | NoAnswer
    ) -> None:
        assert shared.query is not None
        del self._running[shared.query]
        if self._shared.get(key) is shared:
            del self._shared[key]
        if isinstance(result, Answer) and generation == self.generation:
            self._cache.put(key, result, self._reactor.seconds())
        shared.end(result)
        self._start_pending()
