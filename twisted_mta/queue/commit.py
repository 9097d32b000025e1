"""Group commit: what arrived while the last transaction was written goes into the next one.

Nobody idles for the sake of a larger batch. Operations that come while a transaction is under way
share the next one, and before that begins, all that has arrived at our sockets by then is dealt
with, for as long as peers are still being answered and 5 ms at the most: it would have had to be
dealt with after it. So with one client a message has an fsync to itself, and with a hundred a fsync
has a hundred messages.

A failed commit is never tried again, because after a failed fsync nobody knows what is on the disk.
Those who wait for an `Accept` are told that it failed; a `Settle` is kept, because the next hop has
given its answer and cannot be asked again; the store closes and is opened anew with back-off, in
the process, since nobody restarts an embedded MTA.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..envelope import HeldBody, QueueId
from ..interfaces import Clock, Executor, Refused
from ..smtp.reply import Reply
from .store import (
    Accept,
    Census,
    Forget,
    Operation,
    Recovery,
    Result,
    Settle,
    Store,
    StoreError,
    StoreFull,
)

NOT_NOW = Reply.of(451, "3.0", "The queue is not available, try again later")
FULL = Reply.of(452, "3.1", "Insufficient system storage")

_REOPEN_FIRST = 1.0  # seconds; doubled with each failure
_REOPEN_LAST = 60.0
_LONGEST_GATHERING = 0.005  # seconds
_PAUSE = 1.0  # seconds before more is asked of a store that has just said no


class _Waiting(NamedTuple):
    operation: Operation
    octets: int
    done: Deferred[Any]


class GroupCommit:
    """Takes operations one by one and gives them to the store in batches.

    Args:
        store: what they are given to.
        executor: where it blocks.
        clock: for back-off.
        max_operations: in one batch.
        max_octets: of bodies in one batch.
        timed: told how many seconds each batch that was committed took.
        moves: a number that changes as long as there is something to do besides.
        give_way: lets other processes have the processor, if any wants it: those of our clients,
            on the same machine, may have something for us before we sync.

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
        timed: Callable[[float], object] = lambda seconds: None,
        moves: Callable[[], int] = lambda: 0,
        give_way: Callable[[], object] = lambda: None,
    ) -> None:
        self.batches = 0
        self.committed = 0
        self._store = store
        self._executor = executor
        self._clock = clock
        self._max_operations = max_operations
        self._max_octets = max_octets
        self._timed = timed
        self._moves = moves
        self._give_way = give_way
        self._began = 0.0  # by the clock: the batch that is at work
        self._waiting: deque[_Waiting] = deque()
        self._busy = False  # the store is at work, or being opened or closed
        self._open = False
        self._ended = False  # closed for good
        self._full_until = 0.0  # by the clock: no message is taken before
        self._singly = 0  # so many operations are to have a transaction of their own
        self._stopping: list[Deferred[None]] = []
        self._turn: IDelayedCall | None = None
        self._reopening: IDelayedCall | None = None
        self._delay = _REOPEN_FIRST
        self._in_doubt: list[QueueId] = []  # refused, and maybe on the disk: the row, or the file

    @property
    def is_open(self) -> bool:
        """Whether messages can be put in and taken out now."""
        return self._open

    def start(self) -> Recovery:
        """Open the store; blocks, because nothing can begin before, and raises as it does."""
        recovery = self._store.open()
        self._ended = False
        return self._opened(recovery)

    def perform(self, operation: Operation) -> Deferred[Any]:
        """Do ``operation`` durably; fires with its `store.Result`.

        An `Accept` fails with `Refused` while the store is closed or full. A `Settle` succeeds,
        however long that takes, unless the queue is stopped before. Others fail with `StoreError`
        where they cannot be done.
        """
        done: Deferred[Any] = Deferred()
        error: Exception | None = None
        if not self._open and (self._ended or not isinstance(operation, Settle)):
            error = StoreError("the store is closed")
        octets = 0
        if isinstance(operation, Accept):
            if error is None and self._clock.seconds() < self._full_until:
                error = StoreFull("there was no room just now")
            body = operation.message.body
            if isinstance(body, HeldBody):
                octets = body.size
            elif error is not None:
                self._in_doubt.append(operation.message.id)  # nobody else removes its file
                self._wake()
        if error is not None:
            done.errback(Failure(_refusal(operation, error)))
            return done
        self._waiting.append(_Waiting(operation, octets, done))
        self._wake()
        return done

    def census(self) -> Census:
        """Return how much is in the queue."""
        return self._store.census()

    def stop(self) -> Deferred[None]:
        """Commit what waits and close the store; what cannot be committed fails, undone."""
        stopped: Deferred[None] = Deferred()
        self._stopping.append(stopped)
        if self._ended and not self._busy:
            self._stopped()
        else:
            self._wake()
        return stopped

    def _opened(self, recovery: Recovery) -> Recovery:
        self._busy = False
        self._open = True
        self._delay = _REOPEN_FIRST
        self._wake()
        return recovery

    def _wake(self, delay: float = 0) -> None:
        if self._turn is None and not self._busy:
            self._turn = self._clock.callLater(delay, self._gather)

    def _gather(self) -> None:
        self._wait_for_lull(self._clock.seconds() + _LONGEST_GATHERING)

    def _wait_for_lull(self, deadline: float) -> None:
        # The reactor looks at its sockets before it calls us again. What this brings, measured with
        # two workers and one message a connection: docs/benchmark.rst.
        self._give_way()
        self._turn = self._clock.callLater(0, self._look, self._moves(), deadline)

    def _look(self, moves: int, deadline: float) -> None:
        if (
            self._moves() != moves
            and len(self._waiting) < self._max_operations
            and self._clock.seconds() < deadline
        ):
            self._wait_for_lull(deadline)
        else:
            self._commit()

    def _commit(self) -> None:
        self._turn = None
        if self._busy:
            return
        if self._open and self._in_doubt:
            self._forget_doubtful()
        if not self._waiting or not self._open:
            if self._stopping and not self._ended:
                self._close_for_good()
            return
        batch = self._take()
        self._busy = True
        self._began = self._clock.seconds()
        self._executor(self._store.apply, [each.operation for each in batch]).addCallbacks(
            self._applied, self._failed, callbackArgs=(batch,), errbackArgs=(batch,)
        ).addErrback(lambda failure: self._log.failure("group commit", failure))

    def _take(self) -> list[_Waiting]:
        batch = [self._waiting.popleft()]
        if self._singly:
            self._singly -= 1
            return batch
        octets = batch[0].octets
        while self._waiting and len(batch) < self._max_operations:
            octets += self._waiting[0].octets
            if octets > self._max_octets:
                break
            batch.append(self._waiting.popleft())
        return batch

    def _applied(self, results: Sequence[Result], batch: Sequence[_Waiting]) -> None:
        self._busy = False
        self.batches += 1
        self.committed += len(batch)
        self._timed(self._clock.seconds() - self._began)
        for waiting, result in zip(batch, results, strict=True):
            waiting.done.callback(result)
        if self._waiting or self._stopping:
            self._wake()

    def _failed(self, failure: Failure, batch: Sequence[_Waiting]) -> None:
        self._busy = False
        error = failure.value
        assert error is not None
        if not isinstance(error, StoreError | StoreFull):
            self._at_fault(failure, batch)
            return
        accepts = [each for each in batch if isinstance(each.operation, Accept)]
        # Those may be on the disk; of these that waited, only their files.
        self._in_doubt += [id for each in accepts for id in _ids(each)]
        waiting = [each for each in self._waiting if isinstance(each.operation, Accept)]
        self._in_doubt += [id for each in waiting if not each.octets for id in _ids(each)]
        refused = accepts + waiting
        rest = [each for each in (*batch, *self._waiting) if not isinstance(each.operation, Accept)]
        if isinstance(error, StoreFull):
            self._log.error("there is no room for the queue: {error}", error=str(error))
            self._full_until = self._clock.seconds() + _PAUSE
            self._waiting = deque(rest)
            if accepts:
                self._wake()  # the rest may do without them, and frees room
            elif self._stopping:
                self._close_for_good()  # not even what frees room can be written
            else:
                self._wake(_PAUSE)
        else:
            self._log.failure("the queue could not be written", failure)
            # Nobody is to wait for what cannot be said when it will be, but for outcomes.
            self._waiting = deque(each for each in rest if isinstance(each.operation, Settle))
            refused += [each for each in rest if not isinstance(each.operation, Settle)]
            self._open = False
            self._busy = True
            self._executor(self._store.close).addBoth(lambda _: self._reopen_later())
        for each in refused:
            each.done.errback(Failure(_refusal(each.operation, error)))

    def _at_fault(self, failure: Failure, batch: Sequence[_Waiting]) -> None:
        """Find the operation that the store cannot read: it is not to take others with it."""
        if len(batch) > 1:
            self._singly = len(batch)
            self._waiting.extendleft(reversed(batch))
        else:
            operation = batch[0].operation
            self._log.failure(
                "the store cannot do this: {operation}", failure, operation=type(operation).__name__
            )
            if isinstance(operation, Accept):
                self._in_doubt += _ids(batch[0])
            error = StoreError(f"the store cannot do this: {failure.getErrorMessage()}")
            batch[0].done.errback(Failure(_refusal(operation, error)))
        self._wake(_PAUSE if len(batch) == 1 else 0)

    def _forget_doubtful(self) -> None:
        """See to it that what was refused is not there, neither its row nor its file."""
        ids, self._in_doubt = self._in_doubt, []
        done: Deferred[Any] = Deferred()
        done.addErrback(lambda failure: self._in_doubt.extend(ids))  # next time
        self._waiting.appendleft(_Waiting(Forget(tuple(ids)), 0, done))

    def _reopen_later(self) -> None:
        self._busy = False
        if self._stopping:
            self._close_for_good()
            return
        delay, self._delay = self._delay, min(2 * self._delay, _REOPEN_LAST)
        self._log.warn("the queue is closed, to be opened in {delay} s", delay=delay)
        self._reopening = self._clock.callLater(delay, self._reopen)

    def _reopen(self) -> None:
        def still_closed(failure: Failure) -> None:
            self._log.failure("the queue cannot be opened", failure)
            self._reopen_later()

        self._busy = True
        self._executor(self._store.open).addCallbacks(
            lambda recovery: self._opened(recovery) and None, still_closed
        )

    def _close_for_good(self) -> None:
        self._open = False
        self._ended = self._busy = True
        for call in (self._turn, self._reopening):
            if call is not None and call.active():
                call.cancel()
        self._turn = None
        undone, self._waiting = self._waiting, deque()
        for each in undone:
            error = StoreError("the queue was closed before")
            each.done.errback(Failure(_refusal(each.operation, error)))
        self._executor(self._store.close).addBoth(lambda _: self._stopped())

    def _stopped(self) -> None:
        self._busy = False
        stopping, self._stopping = self._stopping, []
        for stopped in stopping:
            stopped.callback(None)


def _ids(waiting: _Waiting) -> list[QueueId]:
    """Return the ids of what an `Accept` would have put in."""
    accept = waiting.operation
    assert isinstance(accept, Accept)
    return [accept.message.id, *(notice.id for notice in accept.notices)]


def _refusal(operation: Operation, error: BaseException) -> BaseException:
    if not isinstance(operation, Accept):
        return error
    return Refused(FULL if isinstance(error, StoreFull) else NOT_NOW)
