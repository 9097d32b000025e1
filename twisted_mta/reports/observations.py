"""Gathers what DMARC observes, and adds it to the counters on disk, a batch at a time."""

from __future__ import annotations

from collections import Counter
from sqlite3 import Error as SQLiteError

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..interfaces import Clock, Executor, WallTime
from ..policy.dmarc.observation import Observation
from .aggregate import DAY
from .counters import CountersFile, Counts

INTERVAL = 60.0
"""Seconds from an observation until it is on disk; so many may be lost in a crash."""

MOST_WAITING = 10_000
"""Rows that wait for the disk; messages that would need further ones are not counted."""

_SOON = 2_000  # rows that are written at once


class Observations:
    """Counts messages in memory, and hands the counts to the file once a minute.

    Args:
        file: the counters on disk.
        executor: where the file is written.
        clock: for the interval.
        wall_time: tells the day.
    """

    _log = Logger()

    def __init__(
        self, file: CountersFile, *, executor: Executor, clock: Clock, wall_time: WallTime
    ) -> None:
        self._file = file
        self._executor = executor
        self._clock = clock
        self._wall_time = wall_time
        self._waiting: dict[tuple[int, str], Counts] = {}
        self._rows = 0
        self._timer: IDelayedCall | None = None
        self._writing: Deferred[None] | None = None
        self._is_reported = False  # a fault of the disk was logged
        self._is_stopped = False

    def add(self, observation: Observation) -> None:
        """Count a message; one more than `MOST_WAITING` allows is not counted."""
        self._count(int(self._wall_time() // DAY), observation)
        if self._timer is None:
            if not self._is_stopped:
                self._timer = self._clock.callLater(INTERVAL, self._write)
        elif self._rows >= _SOON and self._writing is None and not self._is_reported:
            self._timer.reset(0)

    def stop(self) -> Deferred[None]:
        """Write what waits; fires when that is done, or has failed."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._is_stopped = True
        if self._writing is not None:
            await self._writing
        if self._timer is not None:
            self._timer.cancel()
        if self._waiting:
            self._write()
            if self._writing is not None:
                await self._writing

    def _count(self, day: int, observation: Observation) -> None:
        published = observation.published
        key = (day, published.domain)
        counts = self._waiting.get(key)
        if self._rows >= MOST_WAITING and (counts is None or observation.row not in counts.rows):
            return
        if counts is None or counts.record != published.text:
            # The last record is the one that the report shows (RFC 9990 §3.1).
            counts = Counts(published.text, counts.rows if counts else Counter())
            self._waiting[key] = counts
        self._rows += observation.row not in counts.rows
        counts.rows[observation.row] += 1

    def _write(self) -> None:
        self._timer = None
        batch, self._waiting, self._rows = self._waiting, {}, 0
        writing = self._writing = Deferred[None]()

        def work() -> None:
            self._file.make()
            self._file.add(batch)

        def failed(failure: Failure) -> None:
            failure.trap(OSError, SQLiteError)
            for (day, domain), counts in batch.items():
                self._merge(day, domain, counts)
            if not self._is_reported:
                self._is_reported = True
                self._log.warn(
                    "the counters of DMARC reports cannot be written, and wait: {error}",
                    error=failure.getErrorMessage(),
                )

        def written(_: None) -> None:
            self._is_reported = False

        def ended(_: object) -> None:
            self._writing = None
            if self._waiting and self._timer is None and not self._is_stopped:
                self._timer = self._clock.callLater(INTERVAL, self._write)
            writing.callback(None)

        self._executor(work).addCallbacks(written, failed).addErrback(
            lambda failure: self._log.failure("counts of DMARC reports are lost", failure)
        ).addBoth(ended)

    def _merge(self, day: int, domain: str, before: Counts) -> None:
        """Put counts back that could not be written, as far as there is room."""
        counts = self._waiting.setdefault((day, domain), Counts(before.record))
        for row, messages in before.rows.items():
            if row not in counts.rows:
                if self._rows >= MOST_WAITING:
                    continue
                self._rows += 1
            counts.rows[row] += messages
