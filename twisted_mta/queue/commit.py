"""Group commit: what arrived while the last transaction was written goes into the next one.

Nothing is delayed for the sake of a larger batch. Operations that come in one turn of the reactor
share a transaction, and so do those that come while one is under way. That is enough: with one
client a message has an fsync to itself, with a hundred a fsync has a hundred messages.

A failed commit is never tried again, because after a failed fsync nobody knows what is on the disk.
Those who wait for an `Accept` are told that it failed; a `Settle` is kept, because the next hop has
given its answer and cannot be asked again; the store closes and is opened anew with back-off, in
the process, since nobody restarts an embedded MTA.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..envelope import QueueId
from ..interfaces import Clock, Executor, Refused
from ..smtp.reply import Reply
from .store import (
    Accept,
    Census,
    Forget,
    Leased,
    Operation,
    Recovery,
    Settle,
    Store,
    StoreError,
    StoreFull,
)

NOT_NOW = Reply.of(451, "3.0", "The queue is not available, try again later")
FULL = Reply.of(452, "3.1", "Insufficient system storage")

_REOPEN_FIRST = 1.0  # seconds; doubled with each failure
_REOPEN_LAST = 60.0
_FULL_PAUSE = 1.0  # seconds before settles are tried again on a full disk


class _Waiting(NamedTuple):
    operation: Operation
    octets: int
    done: Deferred[Leased | None]


class GroupCommit:
    """Takes operations one by one and gives them to the store in batches.

    Attributes:
        batches: how many transactions were committed.
        committed: how many operations were in them.
    """

    _log = Logger()

    def __init__(
        self,
        store: Store,
        *,
        executor: Executor,
        clock: Clock,
        max_operations: int = 64,
        max_octets: int = 4 * 1024 * 1024,
    ) -> None:
        self.batches = 0
        self.committed = 0
        self._store = store
        self._executor = executor
        self._clock = clock
        self._max_operations = max_operations
        self._max_octets = max_octets
        self._waiting: deque[_Waiting] = deque()
        self._busy = False
        self._open = False
        self._full = False
        self._stopping: Deferred[None] | None = None
        self._turn: IDelayedCall | None = None
        self._reopening = _REOPEN_FIRST
        self._in_doubt: list[QueueId] = []  # refused after a failed commit, maybe on the disk

    def start(self) -> Recovery:
        """Open the store; blocks, because nothing can begin before, and raises as it does."""
        return self._opened(self._store.open())

    def perform(self, operation: Operation) -> Deferred[Leased | None]:
        """Do ``operation`` durably.

        An `Accept` fails with `Refused` while the store is closed or full. A `Settle` succeeds,
        however long that takes. Others fail with `StoreError` or `StoreFull`.
        """
        done: Deferred[Leased | None] = Deferred()
        if not self._open and not isinstance(operation, Settle):
            done.errback(Failure(_refusal(operation, StoreError("the store is closed"))))
            return done
        octets = operation.message.body.size if isinstance(operation, Accept) else 0
        self._waiting.append(_Waiting(operation, octets, done))
        self._wake()
        return done

    def census(self) -> Census:
        """Return how much is in the queue."""
        return self._store.census()

    def stop(self) -> Deferred[None]:
        """Commit what waits and close the store; what cannot be committed is left undone."""
        self._stopping = stopped = Deferred[None]()
        self._wake()
        return stopped

    def _opened(self, recovery: Recovery) -> Recovery:
        self._open = True
        self._reopening = _REOPEN_FIRST
        self._forget_doubtful()
        self._wake()
        return recovery

    def _wake(self, delay: float = 0) -> None:
        if self._turn is None and not self._busy:
            self._turn = self._clock.callLater(delay, self._commit)

    def _commit(self) -> None:
        self._turn = None
        if self._busy:
            return
        if not self._waiting or not self._open:
            if self._stopping is not None:
                self._close_for_good()
            return
        batch = self._take()
        self._busy = True
        self._executor(self._store.apply, [each.operation for each in batch]).addCallbacks(
            self._applied, self._failed, callbackArgs=(batch,), errbackArgs=(batch,)
        ).addErrback(lambda failure: self._log.failure("group commit", failure))

    def _take(self) -> list[_Waiting]:
        if self._full:  # what frees room first, alone: with an accept it would fail once more
            batch = [each for each in self._waiting if not isinstance(each.operation, Accept)]
            self._full = False
            if batch:
                batch = batch[: self._max_operations]
                self._waiting = deque(each for each in self._waiting if each not in batch)
                return batch
        batch = [self._waiting.popleft()]
        octets = batch[0].octets
        while self._waiting and len(batch) < self._max_operations:
            octets += self._waiting[0].octets
            if octets > self._max_octets:
                break
            batch.append(self._waiting.popleft())
        return batch

    def _applied(self, results: Sequence[Leased | None], batch: Sequence[_Waiting]) -> None:
        self._busy = False
        self.batches += 1
        self.committed += len(batch)
        for waiting, result in zip(batch, results, strict=True):
            waiting.done.callback(result)
        if self._waiting or self._stopping is not None:
            self._wake()

    def _failed(self, failure: Failure, batch: Sequence[_Waiting]) -> None:
        self._busy = False
        error = failure.value
        assert error is not None
        self._full = isinstance(error, StoreFull)
        refused = [each for each in batch if not isinstance(each.operation, Settle)]
        settles = [each for each in batch if isinstance(each.operation, Settle)]
        self._in_doubt += [
            each.operation.message.id for each in refused if isinstance(each.operation, Accept)
        ]
        if self._full:
            self._log.error("there is no room for the queue: {error}", error=str(error))
        else:
            self._log.failure("the queue could not be written", failure)
            self._open = False
            # Nobody is to wait for what cannot be said when it will be.
            refused += [each for each in self._waiting if not isinstance(each.operation, Settle)]
            settles += [each for each in self._waiting if isinstance(each.operation, Settle)]
            self._waiting.clear()
        self._waiting.extendleft(reversed(settles))
        if self._full:
            self._forget_doubtful()
            self._wake(_FULL_PAUSE)
        else:
            self._executor(self._store.close).addBoth(lambda _: self._reopen_later())
        for each in refused:
            each.done.errback(Failure(_refusal(each.operation, error)))

    def _forget_doubtful(self) -> None:
        """See to it that what was refused is not there, neither its row nor its file."""
        if self._in_doubt:
            forget = Forget(tuple(self._in_doubt))
            self._in_doubt.clear()
            self._waiting.appendleft(_Waiting(forget, 0, _unheard()))

    def _reopen_later(self) -> None:
        delay, self._reopening = self._reopening, min(2 * self._reopening, _REOPEN_LAST)
        self._log.warn("the queue is closed, to be opened in {delay} s", delay=delay)
        if self._stopping is not None:
            self._close_for_good()
        else:
            self._clock.callLater(delay, self._reopen)

    def _reopen(self) -> None:
        def still_closed(failure: Failure) -> None:
            self._log.failure("the queue cannot be opened", failure)
            self._reopen_later()

        if self._stopping is None:
            self._executor(self._store.open).addCallbacks(
                lambda recovery: self._opened(recovery) and None, still_closed
            )

    def _close_for_good(self) -> None:
        stopped, self._stopping = self._stopping, None
        self._open = False
        if stopped is not None:
            self._executor(self._store.close).addBoth(lambda _: stopped.callback(None))


def _refusal(operation: Operation, error: BaseException) -> BaseException:
    if not isinstance(operation, Accept):
        return error
    return Refused(FULL if isinstance(error, StoreFull) else NOT_NOW)


def _unheard() -> Deferred[Leased | None]:
    done: Deferred[Leased | None] = Deferred()
    done.addErrback(lambda failure: None)
    return done
