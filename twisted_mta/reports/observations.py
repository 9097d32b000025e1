"""Gathers what is to be reported, and adds it to the counters on disk, a batch at a time."""

from __future__ import annotations

from collections import Counter
from sqlite3 import Error as SQLiteError
from typing import Generic

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..interfaces import Clock, Executor, WallTime
from .counters import DAY, CountersFile, Counts, R

INTERVAL = 60.0
"""Seconds from an observation until it is on disk; so many may be lost in a crash."""

MOST_WAITING = 10_000
"""Rows that wait for the disk; what would need further ones is not counted."""

_SOON = 2_000  # rows that are written at once


class Observations(Generic[R]):
    """Counts in memory, and hands the counts to the file once a minute.

    Args:
        name: of the kind of reports, for the log.
        file: the counters on disk.
        executor: where the file is written.
        clock: for the interval.
        wall_time: tells the day.
    """

    _log = Logger()

    def __init__(
        self,
        name: str,
        file: CountersFile[R],
        *,
        executor: Executor,
        clock: Clock,
        wall_time: WallTime,
    ) -> None:
        self._name = name
        self._file = file
        self._executor = executor
        self._clock = clock
        self._wall_time = wall_time
        self._waiting: dict[tuple[int, str], Counts[R]] = {}
        self._rows = 0
        self._timer: IDelayedCall | None = None
        self._writing: Deferred[None] | None = None
        self._is_reported = False  # a fault of the disk was logged
        self._is_stopped = False

    def add(self, domain: str, row: R, record: bytes = b"") -> None:
        """Count; what needs more rows than `MOST_WAITING` is not counted.

        Args:
            domain: that gets the report.
            row: what is counted.
            record: the text of the record that asks for the report, where it is known by now.
        """
        self._count((int(self._wall_time() // DAY), domain), row, record)
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
            await self._joined(self._writing)
        if self._timer is not None:
            self._timer.cancel()
        if self._waiting:
            self._write()
            if self._writing is not None:
                await self._joined(self._writing)

    def flush(self) -> Deferred[None]:
        """Write what waits now; fires when that is done, or has failed."""
        return Deferred.fromCoroutine(self._flush())

    async def _flush(self) -> None:
        if self._writing is not None:
            await self._joined(self._writing)
        if self._waiting and self._writing is None and not self._is_stopped:
            if self._timer is not None:
                self._timer.cancel()
            self._write()
        if self._writing is not None:
            await self._joined(self._writing)

    @staticmethod
    def _joined(writing: Deferred[None]) -> Deferred[None]:
        """Return a Deferred that fires with another, whatever waits for that one too."""
        ended: Deferred[None] = Deferred()
        writing.addBoth(lambda _: ended.callback(None))
        return ended

    def _count(self, key: tuple[int, str], row: R, record: bytes) -> None:
        counts = self._waiting.get(key)
        if self._rows >= MOST_WAITING and (counts is None or row not in counts.rows):
            return
        if counts is None or counts.record != record:
            # The last record is the one that the report shows (RFC 9990 §3.1).
            counts = Counts(record, counts.rows if counts else Counter())
            self._waiting[key] = counts
        self._rows += row not in counts.rows
        counts.rows[row] += 1

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
                    "the counters of {name} reports cannot be written, and wait: {error}",
                    name=self._name,
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
            lambda failure: self._log.failure(
                "counts of {name} reports are lost", failure, name=self._name
            )
        ).addBoth(ended)

    def _merge(self, day: int, domain: str, before: Counts[R]) -> None:
        """Put counts back that could not be written, as far as there is room."""
        counts = self._waiting.setdefault((day, domain), Counts(before.record))
        for row, number in before.rows.items():
            if row not in counts.rows:
                if self._rows >= MOST_WAITING:
                    continue
                self._rows += 1
            counts.rows[row] += number
