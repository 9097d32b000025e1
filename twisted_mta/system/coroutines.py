"""Coroutines that often end without waiting: answers in a cache, messages without signatures.

`Deferred.fromCoroutine` costs several times as much as such a coroutine itself.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed

_T = TypeVar("_T")


def outcome(coroutine: Coroutine[Deferred[Any], Any, _T]) -> _T | Deferred[_T]:
    """Run a coroutine; return its result, or a Deferred for it where it has to wait.

    Raises:
        Exception: what the coroutine raises before it has to wait.
    """
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: _T = end.value
        return result
    # A Deferred that is awaited, and has no result yet, yields itself again when it is resumed.
    return Deferred.fromCoroutine(coroutine)


def started(coroutine: Coroutine[Deferred[Any], Any, _T]) -> Deferred[_T]:
    """Do the same as `Deferred.fromCoroutine`, for less where the coroutine need not wait."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return succeed(end.value)
    except Exception:
        return fail()
    return Deferred.fromCoroutine(coroutine)
