"""Operations that wait for a transaction of the store: new ones, and those that are tried again."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..interfaces import Clock, Refused
from ..mail.queue_id import QueueId
from ..mail.reply import Reply
from .store.contract import Accept, Forget, Operation, Settle, StoreFull

NOT_NOW = Reply.of(451, "3.0", "The queue is not available, try again later")
FULL = Reply.of(452, "3.1", "Insufficient system storage")

PROBE = Forget(())
"""A transaction that writes nothing, and fails where the files of the store are gone."""

_ALONE = 4  # failures after which an operation is tried in a transaction of its own


@define(eq=False)
class Pending:
    """An operation that waits for its transaction.

    Attributes:
        operation: the operation.
        octets: of its body, where that goes into the database.
        done: fires with the result.
        failures: how many transactions with it have failed.
    """

    operation: Operation
    octets: int
    done: Deferred[Any]
    failures: int = 0

    @property
    def must_be_written(self) -> bool:
        """Whether it is tried until it is written."""
        return isinstance(self.operation, Settle | Forget) and self.operation is not PROBE

    @property
    def inserted(self) -> list[QueueId]:
        """The ids of the messages that an `Accept` inserts; of others, none."""
        accept = self.operation
        if not isinstance(accept, Accept):
            return []
        return [accept.message.id, *(notice.id for notice in accept.notices)]

    def fail(self, error: BaseException) -> None:
        """Report that it was not done; an `Accept` is refused with a reply for its client."""
        if isinstance(self.operation, Accept):
            error = Refused(FULL if isinstance(error, StoreFull) else NOT_NOW)
        self.done.errback(Failure(error))


class Retries:
    """Operations that failed and have to be written, each with the time of its next try.

    Operations that failed together are tried together at first, then in groups that become smaller
    with each failure: an operation that cannot be written is alone at its fourth. The delay between
    two tries doubles.

    Args:
        clock: for the times.
        first_delay: seconds between the second try and the third; the second is made at once.
        longest_delay: seconds between two tries at most.
        most: operations of a group at most.
    """

    def __init__(
        self, clock: Clock, *, first_delay: float, longest_delay: float, most: int
    ) -> None:
        self._clock = clock
        self._first_delay = first_delay
        self._longest_delay = longest_delay
        self._most = most
        self._heap: list[tuple[float, int, Pending]] = []  # by time, then in the order of failures
        self._order = 0

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Pending]:
        return (pending for _, _, pending in self._heap)

    def add(self, pending: Pending, *, alone: bool = False) -> None:
        """Count a failure, and set the time of the next try.

        Args:
            pending: the operation.
            alone: whether it is tried in a transaction of its own from now on.
        """
        pending.failures += 1
        if alone:
            pending.failures = max(_ALONE, pending.failures)
        delay = 0.0
        if pending.failures > 1:
            doubled = self._first_delay * 2.0 ** min(pending.failures - 2, 30)
            delay = min(doubled, self._longest_delay)
        self._order += 1
        heappush(self._heap, (self._clock.seconds() + delay, self._order, pending))

    @property
    def next_delay(self) -> float:
        """Seconds until the next try; 0 where it is due. There has to be one."""
        return max(0.0, self._heap[0][0] - self._clock.seconds())

    def are_due(self, *, now: bool) -> bool:
        """Whether an operation is to be tried.

        Args:
            now: whether all are due, as this is the last opportunity.
        """
        return bool(self._heap) and (now or self._heap[0][0] <= self._clock.seconds())

    def take(self, *, now: bool) -> list[Pending]:
        """Take out the next group: due operations that failed equally often."""
        failures = self._heap[0][2].failures
        # A quarter each time: all of a batch at first, and one alone at the fourth failure.
        most = max(1, self._most >> 2 * (failures - 1)) if failures < _ALONE else 1
        group: list[Pending] = []
        while len(group) < most and self.are_due(now=now) and self._heap[0][2].failures == failures:
            group.append(heappop(self._heap)[2])
        return group

    def clear(self) -> list[Pending]:
        """Take out all operations."""
        pending = [*self]
        self._heap.clear()
        return pending
