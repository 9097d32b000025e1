"""Waiting in tests that run on the real reactor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

_PAUSE = 0.005  # seconds between two looks at a condition
_PATIENCE = 2000  # looks


async def turn(seconds: float = 0.0) -> None:
    """Let the reactor run for ``seconds``, or for one turn."""
    from twisted.internet import reactor  # noqa: TID251 - real sockets

    clock: Any = reactor
    over: Deferred[None] = Deferred()
    clock.callLater(seconds, over.callback, None)
    await over


async def until(condition: Callable[[], object]) -> None:
    """Let the reactor run until ``condition()`` is true.

    Raises:
        AssertionError: it is still false after ten seconds.
    """
    for _ in range(_PATIENCE):
        if condition():
            return
        await turn(_PAUSE)
    raise AssertionError(f"still false: {condition}")
