"""Connect to the addresses of one host concurrently, each with a head start (RFC 8305 §5).

The next connection is begun when one has failed, or has taken so long that the other family may be
faster. The first to be established is used; the others are canceled.
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
    """The result of a race.

    Attributes:
        connection: the first to be established.
        rest: the other targets that have not failed, in their order.
    """

    connection: C
    rest: tuple[T, ...]


class Race(Generic[T, C]):
    """One race; `start` it once.

    Args:
        targets: at least one, the best first.
        connect: begins a connection to a target; may be canceled.
        clock: for the head start.
        head_start: seconds until the next connection is begun. RFC 8305 §5 recommends 250 ms for
            a person who waits; mail can wait longer, and spares a busy server the second one.
        failed: called for each connection that failed.
    """

    def __init__(
        self,
        targets: Sequence[T],
        connect: Callable[[T], Deferred[C]],
        *,
        clock: IReactorTime,
        head_start: float,
        failed: Callable[[T, Failure], None],
    ) -> None:
        self._waiting = list(targets)
        self._connect = connect
        self._clock = clock
        self._head_start = head_start
        self._failed = failed
        self._connecting: dict[T, Deferred[C]] = {}
        self._timer: IDelayedCall | None = None
        self._over = False
        self.result: Deferred[Winner[T, C] | None] = Deferred(lambda _: self._stop())

    def start(self) -> Deferred[Winner[T, C] | None]:
        """Begin.

        Returns:
            Fires with the winner, or with None once all have failed; may be canceled.
        """
        self._next()
        return self.result

    def _next(self) -> None:
        self._cancel_timer()
        if not self._waiting:
            if not self._connecting:
                self._over = True
                self.result.callback(None)
            return
        target = self._waiting.pop(0)
        connecting = self._connect(target)
        self._connecting[target] = connecting
        if self._waiting:
            self._timer = self._clock.callLater(self._head_start, self._head_start_over)
        connecting.addCallbacks(
            self._connected, self._unconnected, callbackArgs=(target,), errbackArgs=(target,)
        )

    def _head_start_over(self) -> None:
        self._timer = None
        self._next()

    def _connected(self, connection: C, target: T) -> None:
        del self._connecting[target]
        rest = (*self._connecting, *self._waiting)
        self._stop()
        self.result.callback(Winner(connection, rest))

    def _unconnected(self, failure: Failure, target: T) -> None:
        if self._over:
            failure.trap(CancelledError, Exception)
            return
        del self._connecting[target]
        self._failed(target, failure)
        self._next()

    def _stop(self) -> None:
        self._over = True
        self._cancel_timer()
        running, self._connecting = self._connecting, {}
        for connecting in running.values():
            connecting.cancel()

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
