"""A call that is repeated at an interval.

Twisted's `LoopingCall` imports the default reactor as it is made, and so installs one, whatever
clock it is given.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..interfaces import Clock


class Repetition:
    """Calls a function again and again; one call has ended before the next begins.

    Args:
        function: may return a Deferred. What it raises is logged, and it is called again.
        clock: times it.

    Attributes:
        running: whether it was started, and not stopped since.
    """

    _log = Logger()

    def __init__(self, function: Callable[[], object], clock: Clock) -> None:
        self.running = False
        self._function = function
        self._clock = clock
        self._interval = 0.0
        self._timer: IDelayedCall | None = None

    def start(self, interval: float) -> None:
        """Call in ``interval`` seconds, and ``interval`` seconds after the end of each call."""
        self._interval = interval
        self.running = True
        self._wait(None)

    def stop(self) -> None:
        """Do not call any more."""
        self.running = False
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _wait(self, _: object) -> None:
        if self.running and self._timer is None:
            self._timer = self._clock.callLater(self._interval, self._call)

    def _call(self) -> None:
        self._timer = None
        maybeDeferred(self._function).addErrback(self._failed).addCallback(self._wait)

    def _failed(self, failure: Failure) -> None:
        self._log.failure("a repeated call failed", failure)
