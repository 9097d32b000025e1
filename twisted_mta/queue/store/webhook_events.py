"""Events that wait for webhooks: the outbox in the store, and the operations on it.

An event is written in the transaction of the operation that it tells of (`contract.Accept`,
`contract.Settle`), so that no crash separates the two. It leaves when its receiver has taken it, or
when it is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from attrs import field, frozen


@frozen
class NewEvent:
    """An event for one webhook.

    Attributes:
        webhook: the key of the webhook.
        name: by which receivers know it again: that of its ``webhook-id`` field.
        body: the octets that are posted.
        at: wall time of the event, and of the first attempt.
    """

    webhook: str
    name: str
    body: bytes
    at: float


@frozen
class WaitingEvent:
    """An event in the store.

    Attributes:
        id: in this store.
        name: see `NewEvent`.
        body: likewise.
        at: likewise.
        attempts: that have failed.
    """

    id: int
    name: str
    body: bytes
    at: float
    attempts: int


@frozen
class RecordEvents:
    """Write events that belong to no other operation; the result is None."""

    events: tuple[NewEvent, ...]

    def apply(self, transaction: EventsTransaction) -> None:
        """Apply it."""
        transaction.record_events(self.events)


@frozen
class TakeEvents:
    """Read the due events of a webhook; the result is `TakenEvents`.

    Attributes:
        webhook: its key.
        now: wall time.
        limit: events to return, those that are due longest.
    """

    webhook: str
    now: float
    limit: int

    def apply(self, transaction: EventsTransaction) -> TakenEvents:
        """Apply it."""
        return transaction.take_events(self)


@frozen
class PostponedEvent:
    """An event that is to be tried again.

    Attributes:
        id: of the event.
        attempts: that have failed.
        next_attempt: wall time.
    """

    id: int
    attempts: int
    next_attempt: float


@frozen
class ChangeEvents:
    """Remove and postpone events; the result is None. It may be applied twice.

    Attributes:
        ended: the ids of those that leave.
        postponed: those that are to be tried again.
    """

    ended: tuple[int, ...]
    postponed: tuple[PostponedEvent, ...] = ()

    def apply(self, transaction: EventsTransaction) -> None:
        """Apply it."""
        transaction.change_events(self)


@frozen
class DropEvents:
    """Remove the oldest events of a webhook; the result is `EventCount`, of those removed.

    Attributes:
        webhook: its key.
        limit: how many at most.
        before: only those from before this wall time; None: any.
    """

    webhook: str
    limit: int
    before: float | None = None

    def apply(self, transaction: EventsTransaction) -> EventCount:
        """Apply it."""
        return transaction.drop_events(self)


@frozen
class CountEvents:
    """Count all events; the result is `EventCounts`. Reads the whole outbox."""

    def apply(self, transaction: EventsTransaction) -> EventCounts:
        """Apply it."""
        return transaction.count_events()


EventsOperation = RecordEvents | TakeEvents | ChangeEvents | DropEvents | CountEvents


@frozen
class TakenEvents:
    """Due events.

    Attributes:
        events: those that are due longest first.
        next: wall time at which the first of the others is due; None: there is none, or the limit
            was reached.
    """

    events: tuple[WaitingEvent, ...]
    next: float | None = None


@frozen
class EventCount:
    """How many events.

    Attributes:
        number: of events.
        octets: of their bodies.
    """

    number: int = 0
    octets: int = 0

    def __add__(self, other: EventCount) -> EventCount:
        return EventCount(self.number + other.number, self.octets + other.octets)


@frozen
class EventCounts:
    """The events of each webhook, by its key."""

    by_webhook: Mapping[str, EventCount] = field(factory=dict)


class EventsTransaction(Protocol):
    """What a store does for these operations (`contract.StoreTransaction`)."""

    def record_events(self, events: tuple[NewEvent, ...], /) -> None:
        """Insert events."""
        ...

    def take_events(self, take: TakeEvents, /) -> TakenEvents:
        """Read due events."""
        ...

    def change_events(self, change: ChangeEvents, /) -> None:
        """Remove and postpone events."""
        ...

    def drop_events(self, drop: DropEvents, /) -> EventCount:
        """Remove the oldest events."""
        ...

    def count_events(self) -> EventCounts:
        """Count all events."""
        ...
