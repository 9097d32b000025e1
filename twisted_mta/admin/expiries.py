"""What expires, for the page, health and metrics: read in a thread, while it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from twisted.logger import Logger
from twisted.python.failure import Failure

from ..agent.expiry import Expiry, Kind, expiries
from ..config import Config
from ..health.trouble import Trouble
from ..interfaces import Clock, Executor

_LASTS = 3.0  # seconds
_SOON = 14  # days


class Expiries:
    """The table, at most some seconds old while it is looked at.

    Args:
        config: returns the settings in force.
        run: runs blocking calls in a thread.
        clock: for the age of the table.
        lasts: seconds after which it is read again.
    """

    _log = Logger()

    def __init__(
        self,
        config: Callable[[], Config],
        *,
        run: Executor,
        clock: Clock,
        lasts: float = _LASTS,
    ) -> None:
        self._config = config
        self._run = run
        self._clock = clock
        self._lasts = lasts
        self._known: Sequence[Expiry] = ()
        self._read_at: float | None = None
        self._reading = False

    def __call__(self) -> Sequence[Expiry]:
        """Return what was read last, and have it read again where that is too old."""
        now = self._clock.seconds()
        if not self._reading and (self._read_at is None or now - self._read_at >= self._lasts):
            self._reading, self._read_at = True, now
            self._run(expiries, self._config()).addCallbacks(self._came, self._failed)
        return self._known

    def first(self, kind: Kind) -> float | None:
        """Return the wall time at which the first of a kind expires; None: there is none."""
        return min((each.at for each in self() if each.kind == kind), default=None)

    def troubles(self, now: float) -> Iterator[Trouble]:
        """Yield what expires soon, or has; processes tell of the certificates of listeners.

        Args:
            now: wall time.
        """
        for each in self():
            left = each.days_left(now)
            if each.kind == "client certificate" and left < _SOON:
                over = left < 0
                yield Trouble(
                    kind="certificate",
                    subject=f"client {each.file}",
                    text=f"our certificate {each.file} for {each.of}"
                    f" {'has expired' if over else 'expires'} on {each.day}",
                    severity="critical" if over else "warning",
                )
            elif each.kind == "DKIM key" and left < 0:
                text = f"the key of {each.of} is older than a year"
                yield Trouble(kind="dkim_keys", subject=each.of, text=text)

    def _came(self, known: Sequence[Expiry]) -> None:
        self._reading, self._known = False, known

    def _failed(self, failure: Failure) -> None:
        self._reading = False
        self._log.failure("what expires could not be read", failure)
