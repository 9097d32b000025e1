"""An executor that runs calls at once, or when a test lets it."""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred


class Executor:
    """Runs each call at once; while `holding`, in `release`."""

    def __init__(self) -> None:
        self.holding = False
        self._waiting: list[tuple[Deferred[Any], Callable[[], Any]]] = []

    def __call__(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Deferred[Any]:
        if not self.holding:
            return maybeDeferred(function, *args, **kwargs)
        waiting: Deferred[Any] = Deferred()
        self._waiting.append((waiting, lambda: function(*args, **kwargs)))
        return waiting

    def release(self) -> None:
        self.holding = False
        waiting, self._waiting = self._waiting, []
        for deferred, call in waiting:
            maybeDeferred(call).chainDeferred(deferred)
