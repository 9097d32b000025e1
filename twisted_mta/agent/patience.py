"""Waiting for the parts of an agent to end: for a limited time, and for less in a hurry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from ..interfaces import Clock


class Patience:
    """Waits, one time after the other.

    Args:
        clock: limits the waits.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._hurried = False
        self._shorten: Callable[[], object] = lambda: None  # the present wait

    def hurry(self) -> None:
        """Shorten the present wait, and all that follow."""
        self._hurried = True
        self._shorten()

    async def ends(self, done: Deferred[Any], seconds: float, *, hurried: float = 0.0) -> bool:
        """Wait for ``done``, for a limited time; return whether it has fired.

        Args:
            done: keeps its result.
            seconds: the longest wait.
            hurried: the longest wait in a hurry, in seconds.
        """
        if done.called:
            return True
        waiting = Deferred[bool]()
        timer = self._clock.callLater(
            hurried if self._hurried else seconds, waiting.callback, False
        )

        def shorten() -> None:
            if timer.active():
                timer.reset(min(hurried, timer.getTime() - self._clock.seconds()))

        def fired(result: Any) -> Any:
            if timer.active():
                timer.cancel()
                waiting.callback(True)
            return result

        self._shorten = shorten
        done.addBoth(fired)
        return await waiting
