"""What the queue asks of the outbox of events: which events go with an operation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..mail.message import Message
from ..mail.outcome import Outcome
from .store.webhook_events import NewEvent


class EventsOutbox(Protocol):
    """Returns events, which are written in the transaction of what they tell of."""

    def accepted(self, message: Message) -> Sequence[NewEvent]:
        """Return the events of a message that is to be accepted."""
        ...

    def settled(
        self, message: Message, outcomes: Sequence[Outcome], next_hop: str
    ) -> Sequence[NewEvent]:
        """Return the events of an attempt that is to be settled (`deliveries.Observer`)."""
        ...

    def written(self, events: Sequence[NewEvent]) -> None:
        """Take note that events are in the store."""
        ...


class NoEvents:
    """The outbox where nothing is told of events."""

    def accepted(self, message: Message) -> Sequence[NewEvent]:
        """Return none."""
        return ()

    def settled(
        self, message: Message, outcomes: Sequence[Outcome], next_hop: str
    ) -> Sequence[NewEvent]:
        """Return none."""
        return ()

    def written(self, events: Sequence[NewEvent]) -> None:
        """Do nothing."""
