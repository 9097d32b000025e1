"""The parent's reader of a worker's log: whole lines, and a pause where very many come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..interfaces import Clock
from ..telemetry.log import WholeLines

LOG = 1
"""The descriptor that a worker logs to."""

# Lines are read at once, unless so many come that each would wake this process: so many reads are
# in hand, and one more after each pause of so many seconds.
_MOST_IN_HAND = 16
_PAUSE = 0.05
_READ_AT_ONCE = 8192  # octets: `fdesc.readFromFD`


class LogReader:
    """Takes the log of one worker after the other, as Twisted reads it.

    Args:
        lines: takes whole lines.
        clock: for pauses.
    """

    def __init__(self, lines: Callable[[bytes], None], *, clock: Clock) -> None:
        self._lines = WholeLines(lines)
        self._clock = clock
        self._read_at = 0.0  # by the clock
        self._in_hand = float(_MOST_IN_HAND)  # reads, at that time

    def received(self, data: bytes, process: Any) -> None:
        """Take octets of the log.

        Args:
            data: the octets.
            process: the process transport, whose reading is paused.
        """
        self._lines.received(data)
        now = self._clock.seconds()
        in_hand = min(self._in_hand + (now - self._read_at) / _PAUSE, _MOST_IN_HAND)
        self._in_hand = max(in_hand - 1, 0.0)
        self._read_at = now
        # As long as more than one read is there, waiting gains nothing.
        if self._in_hand < 1 and len(data) < _READ_AT_ONCE:
            process.pipes[LOG].stopReading()
            self._clock.callLater(_PAUSE, self._read_on, process)

    def ended(self) -> None:
        """Pass on the last line, whole or not."""
        self._lines.ended()

    def _read_on(self, process: Any) -> None:
        if LOG in process.pipes:
            process.pipes[LOG].startReading()
