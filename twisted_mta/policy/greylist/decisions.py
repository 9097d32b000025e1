"""Decisions of greylisting for one process: those that wait for the disk share a transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from sqlite3 import Error as SQLiteError

from twisted.internet.defer import Deferred, TimeoutError, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...interfaces import Clock, Executor
from ...mail.printable import printable
from .file import Attempt, Decision, GreylistFile

_MOST = 200  # attempts in one transaction
_MOST_WAITING = 2_000
_DEADLINE = 2.0  # seconds for an answer of the database of a cluster
_CERTAIN = ("network", "known")  # decisions that no other machine can better
_HOUR = 3_600.0  # seconds between two lines of the log about the disk


Shared = Callable[[Sequence[Attempt]], Deferred[list[Decision]]]
"""Decides on attempts by what all machines know; fails with `OSError`."""


class TooMany(Exception):
    """Too many attempts wait for the disk."""


class Decisions:
    """Asks the file, in batches.

    Args:
        file: on disk.
        executor: where the file is read and written.
        clock: to repeat no line of the log within an hour, and for the deadline of `shared`.
        shared: decides by what all machines of a cluster know; None: this one is alone. What the
            file lets pass is not asked for, and without an answer in time the file decides.
        foretell_shared: the same, for `foretell`.
    """

    _log = Logger()

    def __init__(
        self,
        file: GreylistFile,
        *,
        executor: Executor,
        clock: Clock,
        shared: Shared | None = None,
        foretell_shared: Shared | None = None,
    ) -> None:
        self._file = file
        self._shared = shared
        self._foretell_shared = foretell_shared
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
        return Deferred.fromCoroutine(self._foretell(attempt)).addErrback(self._refused)

    async def _foretell(self, attempt: Attempt) -> Decision:
        local: Decision = await self._executor(self._file.foretell, attempt)
        if self._foretell_shared is None or local.why in _CERTAIN:
            return local
        answers = await self._in_time(self._foretell_shared, [attempt])
        return local if answers is None else min(local, answers[0], key=lambda each: each.wait)

    def _work(self) -> None:
        self._is_busy = True
        batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
        done: Deferred[Sequence[Decision | None] | None] = Deferred.fromCoroutine(
            self._decide([attempt for attempt, _ in batch])
        )
        done.addErrback(self._refused).addCallback(self._decided, batch)

    async def _decide(self, attempts: Sequence[Attempt]) -> Sequence[Decision | None] | None:
        decisions: list[Decision] = await self._executor(self._file.decide, attempts)
        if self._shared is None:
            return decisions
        asked = [place for place, each in enumerate(decisions) if each.why not in _CERTAIN]
        answers = await self._in_time(self._shared, [attempts[place] for place in asked])
        passed = []
        for place, answer in zip(asked, answers or (), strict=False):
            if answer.wait <= 0 < decisions[place].wait:
                passed.append(attempts[place])
            decisions[place] = min(answer, decisions[place], key=lambda each: each.wait)
        if passed:
            await self._executor(self._file.accept, passed)
        return decisions

    async def _in_time(self, ask: Shared, attempts: Sequence[Attempt]) -> Sequence[Decision] | None:
        """Ask what all machines know; None: there is no answer in time, or nothing to ask."""
        if not attempts:
            return None
        try:
            return await ask(attempts).addTimeout(_DEADLINE, self._clock)
        except (OSError, TimeoutError) as error:
            self._warn(
                "greylisting cannot ask for what other machines know, and decides by what this one"
                " knows: {error}",
                str(error) or f"no answer in {_DEADLINE:g} s",
            )
            return None

    def _warn(self, text: str, error: str) -> None:
        now = self._clock.seconds()
        if now >= self._quiet_until:
            self._quiet_until = now + _HOUR
            self._log.warn(text, error=printable(error))

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
