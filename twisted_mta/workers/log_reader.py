"""The parent's reader of a worker's log: whole lines, and a pause where very many come."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..interfaces import Clock
from ..telemetry.log import WholeLines

LOG = 1
"""The descriptor that a worker logs to."""

# Lines are read at once, unless so many come that each would wake this process: then, after as many
# reads as that with less than so many seconds in between, there is a pause.
_MOST_HASTY = 16
_HASTE = 0.002
_PAUSE = 0.02
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
        self._read_at = -1.0  # by the clock
        self._hasty = 0  # reads in a row with hardly a pause

    def received(self, data: bytes, process: Any) -> None:
        """Take octets of the log.

        Args:
            data: the octets.
            process: the process transport, whose reading is paused.
        """
        self._lines.received(data)
        now = self._clock.seconds()
        self._hasty = self._hasty + 1 if now - self._read_at < _HASTE else 0
        self._read_at = now
        # As long as more than one read is there, waiting gains nothing.
        if self._hasty > _MOST_HASTY and len(data) < _READ_AT_ONCE:
            process.pipes[LOG].stopReading()
            self._clock.callLater(_PAUSE, self._read_on, process)

    def ended(self) -> None:
        """Pass on the last line, whole or not."""
        self._lines.ended()

    def _read_on(self, process: Any) -> None:
        self._read_at = self._clock.seconds()
        if LOG in process.pipes:
            process.pipes[LOG].startReading()
