"""Limits: exact counts within one process."""

from __future__ import annotations

from typing import Literal

from attrs import Factory, define
from twisted.internet.defer import Deferred

from ..interfaces import LimitKey


@define(eq=False)
class _Count:
    """The count of one key."""

    limit: int
    used: int = 0
    waiting: dict[Deferred[bool], None] = Factory(dict)
    serving: bool = False  # whether they are being served, one after the other


class LocalLimits:
    """Exact counts within one process (`interfaces.Limits`).

    ``take`` answers at once, and so does ``wait`` as long as the limit is not reached.
    """

    def __init__(self) -> None:
        self._counts: dict[LimitKey, _Count] = {}

    def take(self, key: LimitKey, limit: int) -> bool:
        """Count one in, if that keeps within ``limit``; return whether it was."""
        count = self._count(key, limit)
        if count.used >= limit:
            self._forget_unused(key, count)
            return False
        count.used += 1
        return True

    def wait(self, key: LimitKey, limit: int) -> Literal[True] | Deferred[bool]:
        """Count one in as soon as that keeps within ``limit``; the result is True."""
        count = self._counts.get(key)
        if count is None or count.limit != limit:
            count = self._count(key, limit)
        if count.used < limit:
            count.used += 1
            return True
        waiting: Deferred[bool] = Deferred(lambda waiting: self._cancel(key, waiting))
        count.waiting[waiting] = None
        return waiting

    def give_back(self, key: LimitKey) -> None:
        """Count one out."""
        count = self._counts[key]
        count.used -= 1
        if count.waiting:
            self._serve(key, count)
        elif not count.used:
            self._forget_unused(key, count)

    def counts(self) -> dict[LimitKey, int]:
        """Return all counts that are not 0."""
        return {key: count.used for key, count in self._counts.items() if count.used}

    def _count(self, key: LimitKey, limit: int) -> _Count:
        count = self._counts.get(key)
        if count is not None and limit != count.limit:
            count.limit = limit
            self._serve(key, count)
            count = self._counts.get(key)  # a waiter that was served may have given it back
        if count is None:
            count = self._counts[key] = _Count(limit)
        return count

    def _serve(self, key: LimitKey, count: _Count) -> None:
        if count.serving:
            return  # one that was just served gives back, or changes the limit; the next is next
        count.serving = True
        while count.waiting and count.used < count.limit:
            waiting = next(iter(count.waiting))
            del count.waiting[waiting]
            count.used += 1
            waiting.callback(True)
        count.serving = False
        self._forget_unused(key, count)

    def _cancel(self, key: LimitKey, waiting: Deferred[bool]) -> None:
        count = self._counts[key]
        del count.waiting[waiting]
        self._forget_unused(key, count)

    def _forget_unused(self, key: LimitKey, count: _Count) -> None:
        if not count.used and not count.waiting and self._counts.get(key) is count:
            del self._counts[key]
