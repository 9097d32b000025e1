"""Deadlines for answers of other people's code, and pauses on a clock."""

from __future__ import annotations

from typing import TypeVar

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

_T = TypeVar("_T")


def within(answer: Deferred[_T], seconds: float, clock: IReactorTime) -> Deferred[_T]:
    """Return a Deferred that fires as another one does, or fails with `TimeoutError`.

    At the deadline the other is canceled; a result that it has later is dropped, even where it
    ignores being canceled. Likewise if the returned Deferred is canceled.

    Args:
        answer: is not to be used any more.
        seconds: until the deadline.
        clock: for the deadline.
    """

    def canceled(_: Deferred[_T]) -> None:
        if timer.active():
            timer.cancel()
        answer.cancel()

    def too_late() -> None:
        result.errback(TimeoutError(seconds, "Deferred"))
        answer.cancel()

    def answered(value: _T | Failure) -> None:
        if timer.active():
            timer.cancel()
        if not result.called:
            result.callback(value)

    result: Deferred[_T] = Deferred(canceled)
    timer = clock.callLater(seconds, too_late)
    answer.addBoth(answered)
    return result


def sleep(clock: IReactorTime, seconds: float) -> Deferred[None]:
    """Return a Deferred that fires after a time; to cancel it stops the timer."""
    done: Deferred[None] = Deferred(lambda _: timer.cancel())
    timer = clock.callLater(seconds, done.callback, None)
    return done
