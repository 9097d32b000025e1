"""Group commit: operations that arrive while a transaction is written share the next one.

A commit starts as soon as the sockets are quiet; it does not wait just to grow. Before it starts,
the reactor handles what has arrived at the sockets by then, as long as peers are still being
answered and for 5 ms at most: it would have to be handled after the commit anyway. So with one
client each message has an fsync to itself, and with a hundred clients one fsync serves a hundred
messages. Only outcomes, which no client waits for, wait for the commit of a message, some
milliseconds at most.

An exception of the store, whatever it is, is a failure of the store: an I/O error, no memory, no
new thread. The transaction is not repeated as it was, because after a failed fsync it is not known
what is on the disk. An `Accept` fails, so that its client tries again; the store closes and is
opened again with back-off, in this process, since nothing restarts an embedded MTA. Operations that
must be written are kept and tried again until they are, however often that fails (at a stop, once):
a `Settle`,
because the next hop has replied and cannot be asked again, and a `Forget`, because the
senders of its messages were told to try again. They go behind new operations (`pending.Retries`),
so that one which cannot be written stops no other. An operator's operation is not kept: the
operator hears of the failure, and an action that took effect minutes later would surprise.

The store is left open where an operation itself cannot be read, and where others have locked what a
transaction needs, which a shared store finds out. Nothing was written then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..interfaces import Clock, Executor
from ..mail.body import MemoryBody
from ..system.lasting import Lasting
from .operator.operations import OperatorOperation
from .pending import FULL, NOT_NOW, PROBE, Pending, Retries
from .refused_messages import RefusedMessages
from .store.contract import (
    Accept,
    Census,
    Leased,
    Operation,
    Recovery,
    Result,
    Settle,
    Store,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreUnavailable,
    Transfers,
)

__all__ = ["FULL", "NOT_NOW", "TRANSITIONS", "Event", "GroupCommit", "State"]

_REOPEN_FIRST = 1.0  # seconds; doubled with each failure
_REOPEN_LAST = 60.0
_LONGEST_LULL = 0.005  # seconds that a commit waits for quiet sockets
_PAUSE = 1.0  # seconds between two tries of a full store
_PROBE_AFTER = 1.0  # seconds without a commit after which a probe is worth a transaction

# Python raises these for a wrong type or value in an operation.
_MISTAKES = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, AssertionError)


class State(Enum):
    """The states of the store, as group commit sees it."""

    CLOSED = "closed"
    IDLE = "idle"
    COMMITTING = "committing"
    CLOSING = "closing after a failure"
    REOPENING = "reopening"
    STOPPING = "stopping"
    STOPPED = "stopped"

    __hash__ = object.__hash__  # that of Enum is a call in Python, several times for each commit


class Event(Enum):
    """The events that change the state."""

    STARTED = "started"
    NOT_AVAILABLE = "not available at the start"
    BATCH_BEGUN = "batch begun"
    COMMITTED = "committed"
    BATCH_REFUSED = "batch refused"
    STORE_FAILED = "store failed"
    STORE_CLOSED = "store closed"
    BACKOFF_OVER = "back-off over"
    OPENED = "opened"
    OPENING_FAILED = "opening failed"
    NOTHING_LEFT = "nothing left to write before the stop"

    __hash__ = object.__hash__


TRANSITIONS: Mapping[State, Mapping[Event, State]] = {
    State.CLOSED: {
        Event.STARTED: State.IDLE,
        Event.NOT_AVAILABLE: State.CLOSED,
        Event.BACKOFF_OVER: State.REOPENING,
        Event.NOTHING_LEFT: State.STOPPING,
    },
    State.IDLE: {
        Event.BATCH_BEGUN: State.COMMITTING,
        Event.NOTHING_LEFT: State.STOPPING,
    },
    State.COMMITTING: {
        Event.COMMITTED: State.IDLE,
        Event.BATCH_REFUSED: State.IDLE,
        Event.STORE_FAILED: State.CLOSING,
    },
    State.CLOSING: {Event.STORE_CLOSED: State.CLOSED},
    State.REOPENING: {Event.OPENED: State.IDLE, Event.OPENING_FAILED: State.CLOSED},
    State.STOPPING: {Event.STORE_CLOSED: State.STOPPED},
    State.STOPPED: {Event.STARTED: State.IDLE, Event.NOT_AVAILABLE: State.CLOSED},
}
"""All transitions. The store is open in IDLE and COMMITTING; it is at work, and takes no other
call, in COMMITTING, CLOSING, REOPENING and STOPPING."""

_OPEN = (State.IDLE, State.COMMITTING)
_AT_REST = (State.IDLE, State.CLOSED, State.STOPPED)
_ENDED = (State.STOPPING, State.STOPPED)


class GroupCommit:
    """Takes operations one by one and applies them to the store in batches.

    Args:
        store: the store.
        executor: runs the calls of the store, which block.
        clock: for back-off.
        max_operations: of one batch.
        max_octets: of bodies in one batch.
        patience: seconds for which outcomes wait for other operations, to share their commit.
        timed: called with the seconds that each committed batch took.
        activity: a number that changes as long as peers are being answered.
        give_way: lets other processes run that wait for the processor: clients on this machine may
            have something to send before the fsync.
        opened: called with what was found, each time the store was opened.
        spread: returns the delay before the store is opened again, from the usual one: so that many
            processes do not turn to one database at the same time.
        transfers: copies large bodies before and after the transactions; None: the store does that.

    Attributes:
        batches: transactions that were committed.
        committed: operations of those transactions.
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
        patience: float = 0.0,
        timed: Callable[[float], object] = lambda seconds: None,
        activity: Callable[[], int] = lambda: 0,
        give_way: Callable[[], object] = lambda: None,
        opened: Callable[[Recovery], object] = lambda recovery: None,
        spread: Callable[[float], float] = lambda delay: delay,
        transfers: Transfers | None = None,
    ) -> None:
        self.batches = 0
        self.committed = 0
        self._store = store
        self._executor = executor
        self._clock = clock
        self._max_operations = max_operations
        self._max_octets = max_octets
        self._patience = patience
        self._timed = timed
        self._activity = activity
        self._give_way = give_way
        self._report_opened = opened
        self._spread = spread
        self._transfers = transfers
        self._state = State.CLOSED
        self._stopping: list[Deferred[None]] = []  # what `stop` returned
        self._opened_to_stop = False  # the stop has opened the store once more
        self._waiting: deque[Pending] = deque()
        self._retries = Retries(
            clock, first_delay=_REOPEN_FIRST, longest_delay=_REOPEN_LAST, most=max_operations
        )
        self._retried_last = False  # the last batch was one of `_retries`
        self._singly = 0  # so many operations are to have a transaction of their own
        self._together = 0  # so many have one for them alone
        self._refused = RefusedMessages()
        # By the clock.
        self._batch_begun = 0.0
        self._last_contact = 0.0  # the last batch or probe
        self._full_until = -_PAUSE  # no message is taken before
        self._reopening_delay = _REOPEN_FIRST  # seconds
        self._next_commit: IDelayedCall | None = None
        self._is_patient = False  # `_next_commit` is later than it has to be
        self._next_retry: IDelayedCall | None = None
        self._reopening: IDelayedCall | None = None

    def _enter(self, event: Event) -> None:
        """Change the state: the only place that does."""
        self._state = TRANSITIONS[self._state][event]

    @property
    def is_open(self) -> bool:
        """Whether the store is open, so that messages can be accepted and leased."""
        return self._state in _OPEN

    def start(self) -> Recovery | None:
        """Open the store. Blocks, since nothing can begin before it, and raises as it does.

        Returns:
            None where it is not available now: it is closed, and opened as after a failure.
        """
        self._opened_to_stop = False
        try:
            recovery = self._store.open()
        except StoreUnavailable as error:
            self._enter(Event.NOT_AVAILABLE)
            self._log.error("{error}", error=str(error))
            self._reopen_later()
            return None
        self._enter(Event.STARTED)
        self._opened(recovery)
        return recovery

    def perform(self, operation: Operation) -> Deferred[Any]:
        """Apply ``operation`` durably; fires with its `contract.Result`.

        An `Accept` fails with `Refused` while the store is closed or full. A `Settle` succeeds,
        however long that takes and whatever fails, unless the queue is stopped before. The others
        fail with `StoreError`.
        """
        if isinstance(operation, Accept):
            return self._accept(operation)
        done: Deferred[Any] = Deferred()
        pending = Pending(operation, 0, done)
        if isinstance(operation, Settle):
            if self._state in _ENDED:
                pending.fail(StoreError("the store is closed"))
                return done
            self._waiting.append(pending)
            self._wake_for_outcomes()
        elif self._state not in _OPEN:
            pending.fail(StoreError("the store is closed"))
        else:
            self._waiting.append(pending)
            self._wake()
        return done

    def _accept(self, accept: Accept) -> Deferred[Any]:
        body = accept.message.body
        if isinstance(body, MemoryBody):
            return self._insert(accept, len(body.content))
        if self._transfers is not None and self._state in _OPEN:
            return self._bring(self._transfers, accept)
        return self._insert(accept, 0)

    def _bring(self, transfers: Transfers, operation: Accept) -> Deferred[Any]:
        """Copy a large body into the store, then accept its message."""

        def failed(failure: Failure) -> Deferred[Any]:
            id, why = operation.message.id, failure.getErrorMessage()
            self._log.error("the body of {id} was not stored: {why}", id=id, why=why)
            self._refused.in_doubt.append(id)
            self._wake()
            refused: Deferred[Any] = Deferred()
            is_full = isinstance(failure.value, StoreFull)
            Pending(operation, 0, refused).fail(StoreFull(why) if is_full else StoreError(why))
            return refused

        return maybeDeferred(transfers.bring, operation.message).addCallbacks(
            lambda _: self._insert(operation, 0), failed
        )

    def _insert(self, accept: Accept, octets: int) -> Deferred[Any]:
        """Insert a message; ``octets`` of its body go into the database."""
        # A client may go before its message is committed: that cancels nothing.
        done: Deferred[Any] = Lasting()
        pending = Pending(accept, octets, done)
        if self._state not in _OPEN:
            error: Exception = StoreError("the store is closed")
        elif self._clock.seconds() < self._full_until:
            error = StoreFull("the disk was full less than a second ago")
        else:
            self._waiting.append(pending)
            self._wake()
            return done
        if not isinstance(accept.message.body, MemoryBody):
            self._refused.in_doubt.append(accept.message.id)  # its file has to be removed
            self._wake()
        pending.fail(error)
        return done

    def census(self) -> Census:
        """Return how much is in the queue."""
        return self._store.census()

    def probe(self) -> None:
        """Check that the store's files are in place, where no commit has done so of late."""
        idle = self._state is State.IDLE and not self._waiting
        if idle and self._clock.seconds() - self._last_contact >= _PROBE_AFTER:
            self.perform(PROBE).addErrback(lambda failure: None)  # `is_open` shows the failure

    def stop(self) -> Deferred[None]:
        """Commit waiting operations and close the store; those that cannot be committed fail.

        A store that is closed after a failure is opened once more where outcomes, or messages to be
        forgotten, wait: after the next start they would be delivered again.
        """
        stopped: Deferred[None] = Deferred()
        self._stopping.append(stopped)
        if self._state is State.STOPPED:
            self._report_stopped()
        else:
            self._wake()
        return stopped

    # When a batch begins.

    def _wake(self, delay: float = 0) -> None:
        # A call that is no longer active has failed half-way.
        call = self._next_commit
        if call is None or not call.active():
            if self._state in _AT_REST:
                self._next_commit = self._clock.callLater(delay, self._gather)
        elif self._is_patient:
            call.reset(delay)
        self._is_patient = False

    def _wake_for_outcomes(self) -> None:
        call = self._next_commit
        if not self._patience or len(self._waiting) >= self._max_operations:
            self._wake()
        elif call is None or not call.active():
            self._wake(self._patience)
            self._is_patient = True

    def _gather(self) -> None:
        self._is_patient = False
        self._wait_for_lull(self._clock.seconds() + _LONGEST_LULL)

    def _wait_for_lull(self, deadline: float) -> None:
        # The reactor polls its sockets before it calls us again. The gain, measured with two
        # workers and one message per connection: docs/benchmark.rst.
        self._give_way()
        self._next_commit = self._clock.callLater(
            0, self._commit_if_quiet, self._activity(), deadline
        )

    def _commit_if_quiet(self, activity: int, deadline: float) -> None:
        if (
            self._activity() != activity
            and len(self._waiting) < self._max_operations
            and self._clock.seconds() < deadline
        ):
            self._wait_for_lull(deadline)
        else:
            self._commit()

    def _commit(self) -> None:
        self._next_commit = None
        if self._state is State.CLOSED and self._stopping:
            self._stop_while_closed()
        if self._state is not State.IDLE:
            return
        if self._refused.in_doubt:
            self._forget_refused()
        batch = self._take()
        if batch:
            self._begin(batch)
        elif self._stopping:
            self._close_for_good()
        else:
            self._wake_for_retries()

    def _begin(self, batch: Sequence[Pending]) -> None:
        operations = [each.operation for each in batch]
        self._batch_begun = self._last_contact = self._clock.seconds()
        self._enter(Event.BATCH_BEGUN)
        maybeDeferred(self._executor, self._store.apply, operations).addCallbacks(
            self._applied, self._failed, callbackArgs=(batch,), errbackArgs=(batch,)
        ).addErrback(self._derailed, batch)

    # The operations of a batch.

    def _take(self) -> list[Pending]:
        """Take the next batch: new operations, and alternating with them those tried again."""
        new_ones_first = self._waiting and (self._retried_last or self._singly or self._together)
        # While stopping, all are due: it is their last try.
        last_try = bool(self._stopping)
        if not new_ones_first and self._retries.are_due(now=last_try):
            self._retried_last = True
            return self._retries.take(now=last_try)
        if not self._waiting:
            return []
        self._retried_last = False
        if self._together:
            together, self._together = self._together, 0
            return [self._waiting.popleft() for _ in range(together)]
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

    def _retry(self, pending: Pending, *, alone: bool = False) -> None:
        self._retried_last = True
        self._retries.add(pending, alone=alone)

    def _wake_for_retries(self) -> None:
        def wake() -> None:
            self._next_retry = None
            self._wake()

        if not self._retries:
            return
        delay = self._retries.next_delay
        if self._next_retry is None:
            self._next_retry = self._clock.callLater(delay, wake)
        elif self._next_retry.getTime() > self._clock.seconds() + delay:
            self._next_retry.reset(delay)

    def _forget_refused(self) -> None:
        behind_others = bool(self._refused.being_forgotten)  # since that failed of late
        pending = self._refused.forget()
        if behind_others:
            self._retry(pending)
        else:
            self._waiting.appendleft(pending)

    # How a batch ends.

    def _applied(self, results: Sequence[Result], batch: Sequence[Pending]) -> None:
        self._enter(Event.COMMITTED)
        was_probe = len(batch) == 1 and batch[0].operation is PROBE
        if not was_probe:
            self.batches += 1
            self.committed += len(batch)
        seconds = self._clock.seconds() - self._batch_begun
        forgetting = self._refused.being_forgotten
        for pending, result in zip(batch, results, strict=True):
            if forgetting and isinstance(result, Leased):
                result = self._refused.left_out_of(result)
            fetched = None if self._transfers is None else self._transfers.fetch(result)
            if fetched is None:
                pending.done.callback(result)
            else:
                fetched.chainDeferred(pending.done)
        outcomes = sum([isinstance(each.operation, Settle) for each in self._waiting])
        if self._stopping or self._retries or outcomes < len(self._waiting):
            self._wake()
        elif outcomes:
            self._wake_for_outcomes()
        if not was_probe:
            self._timed(seconds)

    def _failed(self, failure: Failure, batch: Sequence[Pending]) -> None:
        error = failure.value
        if isinstance(error, StoreFull):
            self._enter(Event.BATCH_REFUSED)
            self._no_room(error, batch)
        elif isinstance(error, StoreBusy):
            self._enter(Event.BATCH_REFUSED)
            self._busy(error, batch)
        elif isinstance(error, _MISTAKES):
            self._enter(Event.BATCH_REFUSED)
            self._mistaken(failure, batch)
        else:
            self._enter(Event.STORE_FAILED)
            self._store_failed(failure, batch)

    def _derailed(self, failure: Failure, batch: Sequence[Pending]) -> None:
        """Recover from an error of this class: every operation gets an answer, or is kept."""
        self._log.failure("group commit", failure)
        still_here = [*self._waiting, *self._retries]
        for each in batch:
            if each.done.called or each in still_here:
                continue
            if each.must_be_written:
                self._retry(each)
            else:
                self._refused.add_failed((each,))
                each.fail(StoreError("it is not known whether it was written"))
        if self._state is State.COMMITTING:
            self._enter(Event.BATCH_REFUSED)
        if self._state is State.IDLE:
            self._wake()
        elif self._state is State.CLOSING:
            self._store_closed()  # `Store.open` closes it first
        elif self._state is State.CLOSED and (
            self._reopening is None or not self._reopening.active()
        ):
            self._reopen_later()

    def _no_room(self, error: StoreFull, batch: Sequence[Pending]) -> None:
        accepts = [each for each in batch if isinstance(each.operation, Accept)]
        refused = accepts + [each for each in self._waiting if isinstance(each.operation, Accept)]
        self._refused.add_failed(accepts)
        self._refused.add_waiting(self._waiting)
        first = [each for each in batch if not isinstance(each.operation, Accept)]
        asked: list[Pending] = []
        if not accepts:  # else these may fit without them
            asked = [each for each in first if isinstance(each.operation, OperatorOperation)]
            first = [each for each in first if each not in asked]
        then = [each for each in self._waiting if not isinstance(each.operation, Accept)]
        now = self._clock.seconds()
        if now >= self._full_until + _PAUSE:  # else it has been so since the last line
            self._log.error("there is no room for the queue: {error}", error=str(error))
        self._full_until = now + _PAUSE
        self._together = 0
        # Without new messages the rest may fit, and free room; else the operations behind it may.
        self._waiting = deque(first + then if accepts else then + first)
        if accepts:
            self._wake()
        elif self._stopping:
            self._close_for_good()  # not even operations that free room can be written
        elif asked and first:
            # What only reads fits, and what an operator removes frees room.
            self._waiting.extendleft(reversed(asked))
            self._together, asked = len(asked), []
            self._wake()
        else:
            self._wake(_PAUSE)
        for each in refused:
            each.fail(error)
        for each in asked:
            each.fail(StoreError(f"there is no room for it: {error}"))

    def _busy(self, error: StoreBusy, batch: Sequence[Pending]) -> None:
        """Try new messages again without the rest of a batch, whose rows others have locked."""
        self._log.warn("the queue is locked by others: {error}", error=str(error))
        accepts = [each for each in batch if isinstance(each.operation, Accept)]
        others = [each for each in batch if not isinstance(each.operation, Accept)]
        failed = [each for each in others if not each.must_be_written]
        for each in others:
            if each.must_be_written:
                self._retry(each)
        if others:
            self._waiting.extendleft(reversed(accepts))
            self._together = len(accepts)
        else:  # their rows are new: the tables themselves are locked
            self._refused.add_failed(accepts)
            failed = accepts
        self._wake()
        for each in failed:
            each.fail(StoreError(f"the queue is locked by others: {error}"))

    def _mistaken(self, failure: Failure, batch: Sequence[Pending]) -> None:
        """Find the operation that the store cannot read, so that it does not fail the others."""
        if len(batch) > 1 and not batch[0].failures:
            self._singly = len(batch)
            self._waiting.extendleft(reversed(batch))
        elif len(batch) > 1:
            for each in batch:
                self._retry(each, alone=True)
        else:
            (pending,) = batch
            self._log.failure(
                "the store cannot do this: {operation}",
                failure,
                operation=type(pending.operation).__name__,
            )
            if pending.must_be_written and not self._stopping:
                self._retry(pending, alone=True)
            else:
                self._refused.add_failed(batch)
                pending.fail(StoreError(f"the store cannot do this: {failure.getErrorMessage()}"))
        self._wake()

    def _store_failed(self, failure: Failure, batch: Sequence[Pending]) -> None:
        """Close the store, and keep what must be written until it is open again."""
        self._singly = self._together = 0
        self._log.failure("the queue could not be written", failure)
        error = failure.value
        if not isinstance(error, StoreError):
            error = StoreError(f"{type(error).__name__}: {error}")
        self._refused.add_failed(batch)
        self._refused.add_waiting(self._waiting)
        # Only outcomes wait: it is not known for how long the store stays closed.
        refused = [each for each in (*batch, *self._waiting) if not each.must_be_written]
        for each in batch:
            if each.must_be_written:
                self._retry(each)
        self._waiting = deque(each for each in self._waiting if each.must_be_written)
        # Where it cannot be closed, `Store.open` closes it first.
        maybeDeferred(self._executor, self._store.close).addBoth(
            lambda _: self._store_closed()
        ).addErrback(self._derailed, ())
        for each in refused:
            each.fail(error)

    # Opening the store again, and stopping.

    def _store_closed(self) -> None:
        if self._state is State.CLOSING:  # unless `_derailed` was first
            self._enter(Event.STORE_CLOSED)
            self._reopen_later()

    def _reopen_later(self) -> None:
        if self._stopping:
            self._stop_while_closed()
            return
        delay = self._spread(self._reopening_delay)
        self._reopening_delay = min(2 * self._reopening_delay, _REOPEN_LAST)
        self._log.warn("the queue is closed, to be opened in {delay:g} s", delay=delay)
        self._reopening = self._clock.callLater(delay, self._reopen)

    def _reopen(self) -> None:
        def opened(recovery: Recovery) -> None:
            self._enter(Event.OPENED)
            self._opened(recovery)

        def still_closed(failure: Failure) -> None:
            self._enter(Event.OPENING_FAILED)
            self._log.failure("the queue cannot be opened", failure)
            self._reopen_later()

        self._enter(Event.BACKOFF_OVER)
        maybeDeferred(self._executor, self._store.open).addCallbacks(
            opened, still_closed
        ).addErrback(self._derailed, ())

    def _stop_while_closed(self) -> None:
        """Stop; open the store once more, without back-off, for what must be written."""
        must_be_written = self._waiting or self._retries or self._refused.in_doubt
        if self._opened_to_stop or not must_be_written:
            self._close_for_good()
            return
        self._opened_to_stop = True
        if self._reopening is not None and self._reopening.active():
            self._reopening.cancel()
        self._reopen()

    def _opened(self, recovery: Recovery) -> None:
        self._report_opened(recovery)
        self._reopening_delay = _REOPEN_FIRST
        self._wake()

    def _close_for_good(self) -> None:
        self._enter(Event.NOTHING_LEFT)
        for call in (self._next_commit, self._reopening, self._next_retry):
            if call is not None and call.active():
                call.cancel()
        self._next_commit = self._next_retry = None
        undone = [*self._waiting, *self._retries.clear()]
        self._waiting.clear()
        for each in undone:
            each.fail(StoreError("the queue was closed before"))
        # Where there is no thread for it, it is closed in this one.
        maybeDeferred(self._executor, self._store.close).addErrback(
            lambda failure: self._store.close()
        ).addBoth(lambda _: self._report_stopped())

    def _report_stopped(self) -> None:
        if self._state is State.STOPPING:
            self._enter(Event.STORE_CLOSED)
        stopping, self._stopping = self._stopping, []
        for stopped in stopping:
            stopped.callback(None)
