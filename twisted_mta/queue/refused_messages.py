"""Messages that were refused and may be on the disk all the same, until they are removed.

After a failed commit it is not known whether its messages were written. Their senders were told to
try again, so each such message has to be removed before it is delivered.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from ..mail.queue_id import QueueId
from .pending import Pending
from .store.contract import Forget, Leased, Result


class RefusedMessages:
    """The ids of refused messages whose row or body file may exist.

    Attributes:
        in_doubt: ids that the store is still to be told of.
        being_forgotten: ids that the store was told of, and has not yet forgotten.
    """

    def __init__(self) -> None:
        self.in_doubt: list[QueueId] = []
        self.being_forgotten: dict[QueueId, None] = {}

    def add_failed(self, batch: Iterable[Pending]) -> None:
        """Add the messages of a batch that failed: rows and files may exist."""
        for each in batch:
            self.in_doubt += each.inserted

    def add_waiting(self, waiting: Iterable[Pending]) -> None:
        """Add messages that waited for a batch and were refused: only their files may exist."""
        for each in waiting:
            if not each.octets:
                self.in_doubt += each.inserted

    def forget(self) -> Pending:
        """Return the operation that removes the messages in doubt."""
        ids, self.in_doubt = self.in_doubt, []
        self.being_forgotten.update(dict.fromkeys(ids))
        done: Deferred[Any] = Deferred()

        def forgotten(_: Result) -> None:
            for id in ids:
                self.being_forgotten.pop(id, None)

        # It fails only where the queue is stopped before it is written.
        done.addCallbacks(forgotten, lambda failure: None)
        return Pending(Forget(tuple(ids)), 0, done)

    def left_out_of(self, leased: Leased) -> Leased:
        """Return ``leased`` without the messages that are being forgotten."""
        messages = tuple(each for each in leased.messages if each.id not in self.being_forgotten)
        return evolve(leased, messages=messages)
