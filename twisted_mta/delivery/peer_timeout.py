"""A timeout for a silent peer, cheap to restart with each reply."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

_LONGEST_DELAY = 5.0  # seconds; few timeouts are shorter


class PeerTimeout:
    """Calls back once a peer has been silent for too long.

    A timer that is moved for each reply to RCPT costs more, the more connections there are. So the
    timer fires every few seconds, and looks at the clock then.

    Args:
        clock: for the timer.
        expired: called when the time is over.
    """

    def __init__(self, clock: IReactorTime, expired: Callable[[], None]) -> None:
        self._clock = clock
        self._expired = expired
        self._due = 0.0  # by the clock
        self._timer: IDelayedCall | None = None
        self._fires = 0.0  # when the timer does

    @property
    def running(self) -> bool:
        """Whether `start` was called, and it has neither expired nor been stopped."""
        return self._timer is not None

    def start(self, seconds: float) -> None:
        """Expire in ``seconds``."""
        self.restart(seconds)
        self._schedule()

    def restart(self, seconds: float) -> None:
        """Expire in ``seconds`` from now instead, if it is running."""
        self._due = self._clock.seconds() + seconds
        if self._timer is not None and self._due < self._fires:
            self._timer.reset(seconds)
            self._fires = self._due

    def stop(self) -> None:
        """Never expire."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _schedule(self) -> None:
        now = self._clock.seconds()
        delay = min(self._due - now, _LONGEST_DELAY)
        self._fires = now + delay
        self._timer = self._clock.callLater(delay, self._fired)

    def _fired(self) -> None:
        self._timer = None
        if self._clock.seconds() < self._due:
            self._schedule()
        else:
            self._expired()
