"""The events of an agent's mail, as its audience is told of them."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from ..interfaces import WallTime
from ..mail.address import Mailbox
from ..mail.envelope import Recipient
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
        if not self._audience.hears(message.id):
            return
        envelope = message.envelope
        self._happened(Accepted, message.id, envelope.reverse_path, envelope.recipients)
        for each in message.refused:
            self._happened(
                Bounced, message.id, envelope.reverse_path, (each.recipient,), reply=each.reply
            )

    def settled(self, message: Message, outcomes: Sequence[Outcome], next_hop: str) -> None:
        """Take note of an attempt (`queue.deliveries.Observer`)."""
        if not self._audience.hears(message.id):
            return
        recipients = {each.number: each for each in message.envelope.recipients}
        groups: dict[_Group, list[Recipient]] = {}
        for outcome in outcomes:
            group = _Group(_kind(outcome), outcome.reply)
            if outcome.number in recipients:
                groups.setdefault(group, []).append(recipients[outcome.number])
        for group, some in groups.items():
            self._happened(
                group.kind,
                message.id,
                message.envelope.reverse_path,
                some,
                reply=group.reply,
                next_hop=next_hop,
            )

    def removed(
        self, id: QueueId, reverse_path: Mailbox | None, recipients: Sequence[Recipient]
    ) -> None:
        """Take note of recipients that were removed from the queue."""
        if recipients and self._audience.hears(id):
            self._happened(Removed, id, reverse_path, recipients)

    def held(
        self, id: QueueId, reverse_path: Mailbox | None, recipients: Sequence[Recipient]
    ) -> None:
        """Take note of recipients that are on hold."""
        if recipients and self._audience.hears(id):
            self._happened(Held, id, reverse_path, recipients)

    def _happened(
        self,
        kind: type[MailEvent],
        id: QueueId,
        reverse_path: Mailbox | None,
        recipients: Sequence[Recipient],
        *,
        reply: Reply | None = None,
        next_hop: str | None = None,
    ) -> None:
        event = kind(
            id=str(id),
            sender="" if reverse_path is None else str(reverse_path),
            recipients=tuple(str(each.mailbox) for each in recipients),
            next_hop=next_hop,
            reply=reply,
            at=self._wall_time(),
        )
        self._audience.tell(event, [each.number for each in recipients])


def _kind(outcome: Outcome) -> type[MailEvent]:
    if outcome.delivered:
        return Delivered
    if outcome.failed:
        return Expired if outcome.expired else Bounced
    return Deferred
