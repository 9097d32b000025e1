"""An executor whose calls a test lets run one by one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure


class HeldExecutor:
    """An executor whose calls wait until the test lets them run, as those of a busy thread do."""

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
        """Run the next call, and fire its Deferred."""
        self.waiting.popleft()()
