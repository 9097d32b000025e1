"""The events of an agent's mail, as its audience is told of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from attrs import frozen

from ..interfaces import WallTime
from ..mail.address import Mailbox
from ..mail.envelope import Recipient, RecipientNumber
from ..mail.events import (
    Accepted,
    Bounced,
    Deferred,
    Delivered,
    Expired,
    Held,
    MailEvent,
    Removed,
)
from ..mail.message import Message
from ..mail.outcome import Outcome
from ..mail.queue_id import QueueId
from ..mail.reply import Reply
from .audience import Audience


@frozen
class _Group:
    """Recipients that one event is about."""

    kind: type[MailEvent]
    reply: Reply


class Events:
    """Tells of each step of mail.

    Args:
        audience: is told.
        wall_time: of the events.
    """

    def __init__(self, audience: Audience, *, wall_time: WallTime) -> None:
        self._audience = audience
        self._wall_time = wall_time

    def hears(self, id: QueueId) -> bool:
        """Whether the audience is told of a message."""
        return self._audience.hears(id)

    def accepted(self, message: Message) -> None:
        """Take note of a message that is in the queue: of a client, the application, or a notice.

        Recipients that are refused all the same (`Message.refused`) have bounced.
        """
        if self._audience.hears(message.id):
            self._tell(accepted_events(message, self._wall_time()))

    def settled(self, message: Message, outcomes: Sequence[Outcome], next_hop: str) -> None:
        """Take note of an attempt (`queue.deliveries.Observer`)."""
        if self._audience.hears(message.id):
            self._tell(settled_events(message, outcomes, next_hop, self._wall_time()))

    def removed(
        self, id: QueueId, reverse_path: Mailbox | None, recipients: Sequence[Recipient]
    ) -> None:
        """Take note of recipients that were removed from the queue."""
        if recipients and self._audience.hears(id):
            self._tell([changed_event(Removed, id, reverse_path, recipients, self._wall_time())])

    def held(
        self, id: QueueId, reverse_path: Mailbox | None, recipients: Sequence[Recipient]
    ) -> None:
        """Take note of recipients that are on hold."""
        if recipients and self._audience.hears(id):
            self._tell([changed_event(Held, id, reverse_path, recipients, self._wall_time())])

    def _tell(self, events: Iterable[About]) -> None:
        for event, numbers in events:
            self._audience.tell(event, numbers)


About = tuple[MailEvent, Sequence[RecipientNumber]]
"""An event, and the recipients that it is about."""


def accepted_events(message: Message, at: float) -> Iterator[About]:
    """Yield the events of a message that is accepted at a wall time."""
    envelope = message.envelope
    yield _event(Accepted, message.id, envelope.reverse_path, envelope.recipients, at)
    for each in message.refused:
        some = (each.recipient,)
        yield _event(Bounced, message.id, envelope.reverse_path, some, at, reply=each.reply)


def settled_events(
    message: Message, outcomes: Sequence[Outcome], next_hop: str, at: float
) -> Iterator[About]:
    """Yield the events of an attempt that ended at a wall time."""
    recipients = {each.number: each for each in message.envelope.recipients}
    groups: dict[_Group, list[Recipient]] = {}
    for outcome in outcomes:
        group = _Group(_kind(outcome), outcome.reply)
        if outcome.number in recipients:
            groups.setdefault(group, []).append(recipients[outcome.number])
    sender = message.envelope.reverse_path
    for group, some in groups.items():
        yield _event(group.kind, message.id, sender, some, at, reply=group.reply, next_hop=next_hop)


def changed_event(
    kind: type[MailEvent],
    id: QueueId,
    reverse_path: Mailbox | None,
    recipients: Sequence[Recipient],
    at: float,
) -> About:
    """Return the event of recipients that are removed or held."""
    return _event(kind, id, reverse_path, recipients, at)


def _event(
    kind: type[MailEvent],
    id: QueueId,
    reverse_path: Mailbox | None,
    recipients: Sequence[Recipient],
    at: float,
    *,
    reply: Reply | None = None,
    next_hop: str | None = None,
) -> About:
    event = kind(
        id=str(id),
        sender="" if reverse_path is None else str(reverse_path),
        recipients=tuple(str(each.mailbox) for each in recipients),
        next_hop=next_hop,
        reply=reply,
        at=at,
    )
    return event, [each.number for each in recipients]


def _kind(outcome: Outcome) -> type[MailEvent]:
    if outcome.delivered:
        return Delivered
    if outcome.failed:
        return Expired if outcome.expired else Bounced
    return Deferred
