"""Runs long computations (`work.Work`): at once, as at a start, or a slice in each turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred, execute
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from .work import Work, finished

if TYPE_CHECKING:  # the tool reads accounts without them
    from ..interfaces import Clock, Executor

_P = ParamSpec("_P")
_T = TypeVar("_T")

_SLICE = 0.001  # seconds of work in a turn
# A message needs several turns, each of which may have to wait for a slice: with long pauses most
# do not, on a busy processor above all.
_PAUSE = 0.003  # seconds between two slices while there is other work


class Pace(Protocol):
    """Runs blocking calls and long computations, at once or in between other work."""

    def call(
        self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> Deferred[_T]:
        """Run a function that blocks, such as reading a file."""
        ...

    def work(self, work: Work[_T]) -> Deferred[_T]:
        """Run a computation to its end."""
        ...


class AtOnce:
    """Runs all in the caller's turn: each Deferred that it returns has fired."""

    def call(
        self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> Deferred[_T]:
        """Run it now."""
        return execute(function, *args, **kwargs)

    def work(self, work: Work[_T]) -> Deferred[_T]:
        """Run it now."""
        return execute(finished, work)


class Sliced:
    """Runs a slice of each computation in a turn of the reactor, with pauses in between.

    Args:
        clock: the reactor; a simulated one, whose time stands still, runs all in one slice.
        executor: runs blocking calls.

    Attributes:
        is_busy: whether there is other work, for which pauses are longer than one turn.
    """

    def __init__(self, clock: Clock, executor: Executor) -> None:
        self.is_busy: Callable[[], bool] = lambda: True
        self._clock = clock
        self._executor = executor
        self._waiting: dict[Deferred[Any], IDelayedCall] = {}
        self._stopped = False

    def call(
        self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> Deferred[_T]:
        """Run it in the executor."""
        return self._executor(function, *args, **kwargs)

    def work(self, work: Work[_T]) -> Deferred[_T]:
        """Run the first slice now; fails with `CancelledError` after `stop`."""
        done: Deferred[_T] = Deferred()

        def turn() -> None:
            self._waiting.pop(done, None)
            if self._stopped:
                work.close()
                done.errback(CancelledError("it ends"))
                return
            until = self._clock.seconds() + _SLICE
            try:
                while True:
                    next(work)
                    if self._clock.seconds() >= until:
                        break
            except StopIteration as end:
                done.callback(end.value)
            except BaseException:
                done.errback(Failure())
            else:
                pause = _PAUSE if self.is_busy() else 0.0
                self._waiting[done] = self._clock.callLater(pause, turn)

        turn()
        return done

    def stop(self) -> None:
        """Cancel all computations; no timer is left."""
        self._stopped = True
        waiting, self._waiting = self._waiting, {}
        for done, timer in waiting.items():
            timer.cancel()
            done.errback(CancelledError("it ends"))


def result_of(done: Deferred[_T]) -> _T:
    """Return the result of a Deferred that has fired (`AtOnce`), or raise its failure."""
    results: list[Any] = []
    done.addBoth(results.append)
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    fired: _T = result
    return fired
