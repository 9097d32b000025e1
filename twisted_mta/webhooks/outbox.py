"""The outbox: the events that wait in the stores of one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred

from ..queue.store.contract import Operation
from ..queue.store.webhook_events import (
    ChangeEvents,
    CountEvents,
    DropEvents,
    EventCount,
    NewEvent,
    PostponedEvent,
    RecordEvents,
    TakeEvents,
    WaitingEvent,
)

Perform = Callable[[Operation], Deferred[Any]]
"""Applies an operation to a store (`queue.commit.GroupCommit.perform`)."""

Place = tuple[int, int]
"""Where an event waits: the index of the store, and its id there."""


@frozen
class Taken:
    """Due events.

    Attributes:
        events: with their places.
        next: wall time at which the first of the others is due; None: it is not known.
        is_full: whether there may be more that are due.
    """

    events: Sequence[tuple[Place, WaitingEvent]]
    next: float | None
    is_full: bool


@frozen
class Changes:
    """What is to be written.

    Attributes:
        ended: the places of events that leave.
        postponed: events that are to be tried again: place, failed attempts, wall time.
    """

    ended: list[Place] = field(factory=list)
    postponed: list[tuple[Place, int, float]] = field(factory=list)

    def __len__(self) -> int:
        return len(self.ended) + len(self.postponed)

    def places(self) -> list[Place]:
        """Return the places of all these events."""
        return [*self.ended, *(place for place, _, _ in self.postponed)]


class Outbox:
    """The events in several stores. Methods raise `queue.store.contract.StoreError`.

    Args:
        performs: of each store; new events go to the first.
    """

    def __init__(self, performs: Sequence[Perform] = ()) -> None:
        self._performs = performs

    async def record(self, events: Sequence[NewEvent]) -> None:
        """Write events that belong to no operation of the queue."""
        await self._performs[0](RecordEvents(tuple(events)))

    async def take(self, webhook: str, now: float, limit: int) -> Taken:
        """Read due events of a webhook; those of the first store come first."""
        events: list[tuple[Place, WaitingEvent]] = []
        following: float | None = None
        for index, perform in enumerate(self._performs):
            taken = await perform(TakeEvents(webhook, now, limit - len(events)))
            events += [((index, each.id), each) for each in taken.events]
            if len(events) >= limit:
                return Taken(events, None, True)
            if taken.next is not None:
                following = taken.next if following is None else min(following, taken.next)
        return Taken(events, following, False)

    async def change(self, changes: Changes) -> None:
        """Remove and postpone events."""
        for index, perform in enumerate(self._performs):
            ended = tuple(id for store, id in changes.ended if store == index)
            postponed = tuple(
                PostponedEvent(id, attempts, time)
                for (store, id), attempts, time in changes.postponed
                if store == index
            )
            if ended or postponed:
                await perform(ChangeEvents(ended, postponed))

    async def drop(self, webhook: str, limit: int, before: float | None = None) -> EventCount:
        """Remove the oldest events of a webhook; return how many."""
        dropped = EventCount()
        for perform in self._performs:
            dropped += await perform(DropEvents(webhook, limit - dropped.number, before))
            if dropped.number >= limit:
                break
        return dropped

    async def count(self) -> Mapping[str, EventCount]:
        """Count the events of each webhook, by its key."""
        counts: dict[str, EventCount] = {}
        for perform in self._performs:
            counted = await perform(CountEvents())
            for webhook, each in counted.by_webhook.items():
                counts[webhook] = counts.get(webhook, EventCount()) + each
        return counts
