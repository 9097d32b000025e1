"""The addresses of one host, tried beside each other with a head start for the better ones.

RFC 8305 §5: the next attempt begins when one has failed, or has taken so long that the other family
may be quicker. Whichever answers first is used, the others are dropped without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

T = TypeVar("T")
C = TypeVar("C")


@frozen
class Winner(Generic[T, C]):
    """How a race ended.

    Attributes:
        connection: what the winning attempt came to.
        rest: the targets that have not failed, in their order.
    """

    connection: C
    rest: tuple[T, ...]


class Race(Generic[T, C]):
    """One race; `start` it once.

    Args:
        targets: at least one, the best first.
        attempt: begins to connect to one; cancelling what it returns ends that silently.
        clock: for the head start.
        head_start: seconds that an attempt goes on alone. RFC 8305 §5 proposes 250 ms for people
            who wait for a page; mail can wait a little longer and spare a busy server the second
            connection, and 250 ms is not much across the world.
        failed: called for each attempt that failed, with its reason.
    """

    def __init__(
        self,
        targets: Sequence[T],
        attempt: Callable[[T], Deferred[C]],
        *,
        clock: IReactorTime,
        head_start: float,
        failed: Callable[[T, Failure], None],
    ) -> None:
        self._waiting = list(targets)
        self._attempt = attempt
        self._clock = clock
        self._head_start = head_start
        self._failed = failed
        self._running: dict[T, Deferred[C]] = {}
        self._timer: IDelayedCall | None = None
        self._over = False
        self.result: Deferred[Winner[T, C] | None] = Deferred(lambda _: self._stop())

    def start(self) -> Deferred[Winner[T, C] | None]:
        """Begin.

        Returns:
            Fires with the winner, or with None when all have failed; may be cancelled.
        """
        self._next()
        return self.result

    def _next(self) -> None:
        self._cancel_timer()
        if not self._waiting:
            if not self._running:
                self._over = True
                self.result.callback(None)
            return
        target = self._waiting.pop(0)
        connecting = self._attempt(target)
        self._running[target] = connecting
        if self._waiting:
            self._timer = self._clock.callLater(self._head_start, self._late)
        connecting.addCallbacks(
            self._connected, self._unconnected, callbackArgs=(target,), errbackArgs=(target,)
        )

    def _late(self) -> None:
        self._timer = None
        self._next()

    def _connected(self, connection: C, target: T) -> None:
        del self._running[target]
        rest = (*self._running, *self._waiting)
        self._stop()
        self.result.callback(Winner(connection, rest))

    def _unconnected(self, failure: Failure, target: T) -> None:
        if self._over:
            failure.trap(CancelledError, Exception)
            return
        del self._running[target]
        self._failed(target, failure)
        self._next()

    def _stop(self) -> None:
        self._over = True
        self._cancel_timer()
        running, self._running = self._running, {}
        for connecting in running.values():
            connecting.cancel()

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
