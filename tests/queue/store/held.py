"""An executor that takes its time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure


class HeldExecutor:
    """An executor whose calls wait until they are let go, as those of a busy thread."""

    def __init__(self) -> None:
        self.waiting: deque[Callable[[], None]] = deque()

    def __call__(self, function: Callable[..., Any], /, *args: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()

        def run() -> None:
            try:
                result = function(*args)
            except Exception:
                done.errback(Failure())
            else:
                done.callback(result)

        self.waiting.append(run)
        return done

    def let_go(self) -> None:
        """Let the next call run, and its result arrive."""
        self.waiting.popleft()()
