"""What expires, as the page shows it: read in a thread, and only while it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.logger import Logger
from twisted.python.failure import Failure

from ..agent.expiry import Expiry, expiries
from ..config import Config
from ..interfaces import Clock, Executor

_LASTS = 3.0  # seconds


class Expiries:
    """The table, at most some seconds old while it is looked at.

    Args:
        config: returns the settings in force.
        run: runs blocking calls in a thread.
        clock: for the age of the table.
    """

    _log = Logger()

    def __init__(self, config: Callable[[], Config], *, run: Executor, clock: Clock) -> None:
        self._config = config
        self._run = run
        self._clock = clock
        self._known: Sequence[Expiry] = ()
        self._read_at: float | None = None
        self._reading = False

    def __call__(self) -> Sequence[Expiry]:
        """Return what was read last, and have it read again where that is too old."""
        now = self._clock.seconds()
        if not self._reading and (self._read_at is None or now - self._read_at >= _LASTS):
            self._reading, self._read_at = True, now
            self._run(expiries, self._config()).addCallbacks(self._came, self._failed)
        return self._known

    def _came(self, known: Sequence[Expiry]) -> None:
        self._reading, self._known = False, known

    def _failed(self, failure: Failure) -> None:
        self._reading = False
        self._log.failure("what expires could not be read", failure)
