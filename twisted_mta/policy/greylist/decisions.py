"""Decisions of greylisting for one process: those that wait for the disk share a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from sqlite3 import Error as SQLiteError

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...interfaces import Clock, Executor
from ...mail.printable import printable
from .file import Attempt, Decision, GreylistFile

_MOST = 200  # attempts in one transaction
_MOST_WAITING = 2_000
_HOUR = 3_600.0  # seconds between two lines of the log about the disk


class TooMany(Exception):
    """Too many attempts wait for the disk."""


class Decisions:
    """Asks the file, in batches.

    Args:
        file: on disk.
        executor: where the file is read and written.
        clock: to repeat no line of the log within an hour.
    """

    _log = Logger()

    def __init__(self, file: GreylistFile, *, executor: Executor, clock: Clock) -> None:
        self._file = file
        self._executor = executor
        self._clock = clock
        self._waiting: list[tuple[Attempt, Deferred[Decision | None]]] = []
        self._is_busy = False
        self._quiet_until = clock.seconds()

    def decide(self, attempt: Attempt) -> Deferred[Decision | None]:
        """Return the decision; None: the disk refuses. Fails with `TooMany`."""
        if len(self._waiting) >= _MOST_WAITING:
            return fail(TooMany("too many wait for the disk"))
        decided: Deferred[Decision | None] = Deferred(lambda _: None)
        self._waiting.append((attempt, decided))
        if not self._is_busy:
            self._work()
        return decided

    def foretell(self, attempt: Attempt) -> Deferred[Decision | None]:
        """Return what would be decided, and remember nothing; None: the disk refuses."""
        return self._executor(self._file.foretell, attempt).addErrback(self._refused)

    def _work(self) -> None:
        self._is_busy = True
        batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
        done: Deferred[Sequence[Decision | None] | None] = self._executor(
            self._file.decide, [attempt for attempt, _ in batch]
        )
        done.addErrback(self._refused).addCallback(self._decided, batch)

    def _decided(
        self,
        decisions: Sequence[Decision | None] | None,
        batch: Sequence[tuple[Attempt, Deferred[Decision | None]]],
    ) -> None:
        self._is_busy = False
        each_decision = [None] * len(batch) if decisions is None else decisions
        for (_, decided), decision in zip(batch, each_decision, strict=True):
            if not decided.called:  # canceled: its client has left
                decided.callback(decision)
        if self._waiting and not self._is_busy:
            self._work()

    def _refused(self, failure: Failure) -> None:
        now = self._clock.seconds()
        if now >= self._quiet_until:
            self._quiet_until = now + _HOUR
            if failure.check(OSError, SQLiteError, RuntimeError):
                self._log.warn(
                    "greylisting cannot use its file, and defers nothing: {error}",
                    error=printable(failure.getErrorMessage()),
                )
            else:
                self._log.failure("greylisting failed, and defers nothing", failure)
