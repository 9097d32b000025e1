"""Group commit: what arrived while the last transaction was written goes into the next one.

Nobody idles for the sake of a larger batch. Operations that come while a transaction is under way
share the next one, and before that begins, all that has arrived at our sockets by then is dealt
with, for as long as peers are still being answered and 5 ms at the most: it would have had to be
dealt with after it. So with one client a message has an fsync to itself, and with a hundred a fsync
has a hundred messages.

Whatever exception a commit ends with, it is a failure of the store: an I/O error, no memory, no
new thread. The transaction is not tried again as it was, because after a failed fsync nobody knows
what is on the disk. Who waits for an `Accept` is told that it failed; the store closes and is
opened anew with back-off, in the process, since nobody restarts an embedded MTA. What has to be
written however often that fails is kept: a `Settle`, because the next hop has given its answer and
cannot be asked again, and a `Forget`, because the senders of its messages were told that they are
not here. It goes behind the others, in groups that become smaller with each failure, so that what
cannot be written stops nothing else. An operator's action is not kept: its operator hears of the
failure, and one that came true minutes later would surprise.

Only what an operation itself is to blame for, since it cannot be read, leaves the store open.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from typing import Any

from attrs import define, evolve
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..interfaces import Clock, Executor, Refused
from ..mail.body import MemoryBody
from ..mail.queue_id import QueueId
from ..mail.reply import Reply
from .store.contract import (
    Accept,
    Census,
    Forget,
    Leased,
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
_LOOK_AGAIN = 1.0  # seconds without a commit, before a store is asked whether it is still there
_ALONE = 4  # failures after which an operation is tried in a transaction of its own

_LOOK = Forget(())  # a transaction that writes nothing, and fails where the store has gone

# What Python raises where a value is not what it should be: about the operation, not the store.
_MISTAKES = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, AssertionError)


@define(eq=False)
class _Waiting:
    """An operation that waits for its transaction.

    Attributes:
        octets: of its body, where that goes into the database.
        failures: transactions that it was in and that have failed.
    """

    operation: Operation
    octets: int
    done: Deferred[Any]
    failures: int = 0

    @property
    def is_kept(self) -> bool:
        """Whether it is tried until it is written."""
        return isinstance(self.operation, Settle | Forget) and self.operation is not _LOOK


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
        self._forgetting: dict[QueueId, None] = {}  # of those, the ones that the store was told of
        # What failed and is tried again: not before a time (by the clock), then in this order.
        self._kept: list[tuple[float, int, _Waiting]] = []
        self._order = 0
        self._again: IDelayedCall | None = None
        self._kept_had_its_turn = False
        self._looked = 0.0  # by the clock: the last commit, or look

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
        """Do ``operation`` durably; fires with its `contract.Result`.

        An `Accept` fails with `Refused` while the store is closed or full. A `Settle` succeeds,
        however long that takes and whatever fails, unless the queue is stopped before. Others fail
        with `StoreError` where they cannot be done.
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
            if isinstance(body, MemoryBody):
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

    def look(self) -> None:
        """Find out whether the store is still there, where no commit has shown it of late."""
        idle = self._open and not self._busy and not self._waiting
        if idle and self._clock.seconds() - self._looked >= _LOOK_AGAIN:
            self.perform(_LOOK).addErrback(lambda failure: None)  # `is_open` tells

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
        # One that was called and is still named here has failed half-way.
        if (self._turn is None or not self._turn.active()) and not self._busy:
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
        batch = self._take() if self._open else []
        if not batch:
            if self._stopping and not self._ended:
                self._close_for_good()
            elif self._open:
                self._wake_for_kept()
            return
        operations = [each.operation for each in batch]
        self._began = self._looked = self._clock.seconds()
        self._busy = True
        maybeDeferred(self._executor, self._store.apply, operations).addCallbacks(
            self._applied, self._failed, callbackArgs=(batch,), errbackArgs=(batch,)
        ).addErrback(self._derailed, batch)

    # What is taken.

    def _take(self) -> list[_Waiting]:
        """Take what comes next: what is new, and in turn with it what has failed before."""
        others_first = self._waiting and (self._kept_had_its_turn or self._singly)
        if not others_first and self._is_kept_due():
            self._kept_had_its_turn = True
            return self._take_kept()
        if not self._waiting:
            return []
        self._kept_had_its_turn = False
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

    def _is_kept_due(self) -> bool:
        # Who stops waits for nothing: it is the last try.
        return bool(self._kept) and (
            bool(self._stopping) or self._kept[0][0] <= self._clock.seconds()
        )

    def _take_kept(self) -> list[_Waiting]:
        """Take a group of what has failed as often, the smaller the oftener."""
        failures = self._kept[0][2].failures
        # A quarter each time: all of a batch at first, and one alone at the fourth failure.
        most = max(1, self._max_operations >> 2 * (failures - 1)) if failures < _ALONE else 1
        batch: list[_Waiting] = []
        while len(batch) < most and self._is_kept_due() and self._kept[0][2].failures == failures:
            batch.append(heappop(self._kept)[2])
        return batch

    def _keep(self, waiting: _Waiting, *, alone: bool = False) -> None:
        """Try an operation again that has failed, behind the others."""
        waiting.failures += 1
        if alone:
            waiting.failures = max(_ALONE, waiting.failures)
        delay = 0.0
        if waiting.failures > 1:
            delay = min(_REOPEN_FIRST * 2.0 ** min(waiting.failures - 2, 30), _REOPEN_LAST)
        self._kept_had_its_turn = True
        self._order += 1
        heappush(self._kept, (self._clock.seconds() + delay, self._order, waiting))

    def _wake_for_kept(self) -> None:
        def again() -> None:
            self._again = None
            self._wake()

        if not self._kept:
            return
        delay = max(0.0, self._kept[0][0] - self._clock.seconds())
        if self._again is None:
            self._again = self._clock.callLater(delay, again)
        elif self._again.getTime() > self._clock.seconds() + delay:
            self._again.reset(delay)

    # What came of it.

    def _applied(self, results: Sequence[Result], batch: Sequence[_Waiting]) -> None:
        self._busy = False
        looked = len(batch) == 1 and batch[0].operation is _LOOK
        if not looked:
            self.batches += 1
            self.committed += len(batch)
        seconds = self._clock.seconds() - self._began
        for waiting, result in zip(batch, results, strict=True):
            if self._forgetting and isinstance(result, Leased):
                result = self._without_doubtful(result)
            waiting.done.callback(result)
        if self._waiting or self._stopping or self._kept:
            self._wake()
        if not looked:
            self._timed(seconds)

    def _failed(self, failure: Failure, batch: Sequence[_Waiting]) -> None:
        self._busy = False
        error = failure.value
        if isinstance(error, StoreFull):
            self._no_room(error, batch)
        elif isinstance(error, _MISTAKES):
            self._mistaken(failure, batch)
        else:
            self._broken(failure, batch)

    def _derailed(self, failure: Failure, batch: Sequence[_Waiting]) -> None:
        """Go on whatever went wrong in here: what waits for an answer gets one, or is kept."""
        self._log.failure("group commit", failure)
        waiting = [*self._waiting, *(each for _, _, each in self._kept)]
        for each in batch:
            if each.done.called or each in waiting:
                continue
            if each.is_kept:
                self._keep(each)
            else:
                self._doubt((each,))
                _refuse((each,), StoreError("what came of it is not known"))
        self._busy = False
        if self._open:
            self._wake()
        elif not self._ended and (self._reopening is None or not self._reopening.active()):
            self._reopen_later()

    def _no_room(self, error: StoreFull, batch: Sequence[_Waiting]) -> None:
        accepts = self._doubt(batch)
        refused = accepts + [each for each in self._waiting if isinstance(each.operation, Accept)]
        self._doubt_files(self._waiting)
        first = [each for each in batch if not isinstance(each.operation, Accept)]
        then = [each for each in self._waiting if not isinstance(each.operation, Accept)]
        self._log.error("there is no room for the queue: {error}", error=str(error))
        self._full_until = self._clock.seconds() + _PAUSE
        # The rest may do without new messages, and frees room; if not, what is behind it may.
        self._waiting = deque(first + then if accepts else then + first)
        if accepts:
            self._wake()
        elif self._stopping:
            self._close_for_good()  # not even what frees room can be written
        else:
            self._wake(_PAUSE)
        _refuse(refused, error)

    def _mistaken(self, failure: Failure, batch: Sequence[_Waiting]) -> None:
        """Find the operation that the store cannot read: it is not to take others with it."""
        if len(batch) > 1 and not batch[0].failures:
            self._singly = len(batch)
            self._waiting.extendleft(reversed(batch))
        elif len(batch) > 1:
            for each in batch:
                self._keep(each, alone=True)
        else:
            (waiting,) = batch
            self._log.failure(
                "the store cannot do this: {operation}",
                failure,
                operation=type(waiting.operation).__name__,
            )
            error = StoreError(f"the store cannot do this: {failure.getErrorMessage()}")
            if waiting.is_kept and not self._stopping:
                self._keep(waiting, alone=True)
            else:
                self._doubt(batch)
                _refuse(batch, error)
        self._wake()

    def _broken(self, failure: Failure, batch: Sequence[_Waiting]) -> None:
        """Close the store, and keep what has to be written until it is open again."""
        self._open = False
        self._busy = True
        self._singly = 0
        self._log.failure("the queue could not be written", failure)
        error = failure.value
        if not isinstance(error, StoreError):
            error = StoreError(f"{type(error).__name__}: {error}")
        self._doubt(batch)
        self._doubt_files(self._waiting)
        # Nobody is to wait for what cannot be said when it will be, but for outcomes.
        refused = [each for each in (*batch, *self._waiting) if not each.is_kept]
        for each in batch:
            if each.is_kept:
                self._keep(each)
        self._waiting = deque(each for each in self._waiting if each.is_kept)
        # Where it cannot even be closed, opening it does that first.
        maybeDeferred(self._executor, self._store.close).addBoth(lambda _: self._reopen_later())
        _refuse(refused, error)

    # Messages that were refused, and may be there all the same.

    def _doubt(self, batch: Sequence[_Waiting]) -> list[_Waiting]:
        """Return the messages of a batch that failed: they may be on the disk."""
        accepts = [each for each in batch if isinstance(each.operation, Accept)]
        self._in_doubt += [id for each in accepts for id in _ids(each)]
        return accepts

    def _doubt_files(self, waiting: Sequence[_Waiting]) -> None:
        """Of the messages that only waited, the files may be there."""
        self._in_doubt += [
            id
            for each in waiting
            if isinstance(each.operation, Accept) and not each.octets
            for id in _ids(each)
        ]

    def _forget_doubtful(self) -> None:
        """See to it that what was refused is not there, neither its row nor its file."""
        ids, self._in_doubt = self._in_doubt, []
        behind = bool(self._forgetting)  # that has failed of late
        self._forgetting.update(dict.fromkeys(ids))
        done: Deferred[Any] = Deferred()

        def forgotten(_: Result) -> None:
            for id in ids:
                self._forgetting.pop(id, None)

        done.addCallbacks(forgotten, lambda failure: None)  # it ends: the next start sees them
        waiting = _Waiting(Forget(tuple(ids)), 0, done)
        if behind:
            self._keep(waiting)
        else:
            self._waiting.appendleft(waiting)

    def _without_doubtful(self, leased: Leased) -> Leased:
        """Leave out what was refused, and cannot be removed yet: its sender will come again."""
        messages = tuple(each for each in leased.messages if each.id not in self._forgetting)
        return evolve(leased, messages=messages)

    # Opening anew, and the end.

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
        maybeDeferred(self._executor, self._store.open).addCallbacks(
            lambda recovery: self._opened(recovery) and None, still_closed
        )

    def _close_for_good(self) -> None:
        self._open = False
        self._ended = self._busy = True
        for call in (self._turn, self._reopening, self._again):
            if call is not None and call.active():
                call.cancel()
        self._turn = self._again = None
        undone = [*self._waiting, *(each for _, _, each in self._kept)]
        self._waiting.clear()
        self._kept.clear()
        _refuse(undone, StoreError("the queue was closed before"))
        # Without a thread for it, it is closed here: nobody else will.
        maybeDeferred(self._executor, self._store.close).addErrback(
            lambda failure: self._store.close()
        ).addBoth(lambda _: self._stopped())

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


def _refuse(refused: Sequence[_Waiting], error: Exception) -> None:
    for each in refused:
        each.done.errback(Failure(_refusal(each.operation, error)))


def _refusal(operation: Operation, error: BaseException) -> BaseException:
    if not isinstance(operation, Accept):
        return error
    return Refused(FULL if isinstance(error, StoreFull) else NOT_NOW)
