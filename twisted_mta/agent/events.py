"""The events of an agent's mail, told to the application, and the outcomes of its own messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from attrs import define, field, frozen
from twisted.internet.defer import Deferred as Pending
from twisted.logger import Logger

from ..interfaces import WallTime
from ..mail.address import AddressError, Mailbox
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

MOST_ENDED = 1000
"""How many messages of the application whose outcome is complete are remembered."""

Subscriber = Callable[[MailEvent], object]
"""Called with each event, in the reactor's thread; it must not block."""

Outcomes = Mapping[str, MailEvent]
"""For each recipient, as it was submitted, the event that ended it."""


@define
class _Tracked:
    """A message of the application.

    Attributes:
        left: for each recipient as it was submitted, the numbers that are not ended yet.
        ended: the event that ended each.
        waiting: fire with all of them.
    """

    left: dict[str, dict[RecipientNumber, None]]
    ended: dict[str, MailEvent] = field(factory=dict)
    waiting: list[Pending[Outcomes]] = field(factory=list)

    def end(self, number: RecipientNumber, event: MailEvent) -> None:
        for written, numbers in self.left.items():
            if number in numbers:
                del numbers[number]
                # Of several members of an alias, one that failed is what has to be known.
                if isinstance(self.ended.get(written), Delivered | None):
                    self.ended[written] = event

    @property
    def is_complete(self) -> bool:
        return not any(self.left.values())


@frozen
class _Group:
    """Recipients that one event is about."""

    kind: type[MailEvent]
    reply: Reply


class Events:
    """Tells subscribers of each step of all mail, and keeps the outcomes of messages.

    Args:
        wall_time: of the events.
    """

    _log = Logger()

    def __init__(self, *, wall_time: WallTime) -> None:
        self._wall_time = wall_time
        self._subscribers: dict[object, Subscriber] = {}
        self._tracked: dict[str, _Tracked] = {}
        self._complete: dict[str, None] = {}  # the ids of those that are, the oldest first

    @property
    def is_heard(self) -> bool:
        """Whether there is a subscriber, or a message whose outcome is not complete."""
        return bool(self._subscribers) or len(self._tracked) > len(self._complete)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call a function with each event from now on; return a function that ends that."""
        key = object()
        self._subscribers[key] = subscriber

        def stop() -> None:
            self._subscribers.pop(key, None)

        return stop

    # Outcomes.

    def track(self, id: QueueId, recipients: Mapping[str, Iterable[RecipientNumber]]) -> None:
        """Keep the outcome of a message that is about to be queued.

        Args:
            id: its queue id.
            recipients: as they were submitted, each with the numbers that it leads to.
        """
        left = {written: dict.fromkeys(numbers) for written, numbers in recipients.items()}
        self._tracked[str(id)] = _Tracked(left)

    def untrack(self, id: QueueId) -> None:
        """Forget a message that was not queued."""
        self._tracked.pop(str(id), None)

    def outcome(self, id: str) -> Pending[Outcomes]:
        """Return the outcome of a message; fires when the last recipient has one.

        Fails with `LookupError` where the message is not known.
        """
        outcome: Pending[Outcomes]
        tracked = self._tracked.get(str(id))
        if tracked is None:
            outcome = Pending()
            outcome.errback(
                LookupError(
                    f"found {id!r}, expected the id of a message that was submitted since the"
                    f" start, and is under way or among the last {MOST_ENDED}"
                )
            )
            return outcome
        waiting = tracked.waiting
        outcome = Pending(waiting.remove)
        if tracked.is_complete:
            outcome.callback(dict(tracked.ended))
        else:
            waiting.append(outcome)
        return outcome

    def stop(self) -> None:
        """Let all outcomes that are waited for fail: the agent has stopped."""
        for id, tracked in self._tracked.items():
            waiting, tracked.waiting = tracked.waiting, []
            for each in waiting:
                each.errback(RuntimeError(f"the agent has stopped, and {id} is in its queue"))

    # What happens.

    def accepted(self, message: Message) -> None:
        """Take note of a message that is in the queue."""
        if not self.is_heard:
            return
        envelope = message.envelope
        self.tell(self._event(Accepted, message.id, envelope.reverse_path, envelope.recipients))
        tracked = self._tracked.get(str(message.id))
        for each in message.refused:
            recipient = each.recipient
            event = self._event(
                Bounced, message.id, envelope.reverse_path, (recipient,), reply=each.reply
            )
            self.tell(event)
            if tracked is not None:
                for written in tracked.left:
                    if _is(recipient.original or recipient.mailbox, written):
                        tracked.ended[written] = event
        if tracked is not None:
            self._look(str(message.id), tracked)

    def settled(self, message: Message, outcomes: Sequence[Outcome], next_hop: str) -> None:
        """Take note of an attempt (`queue.deliveries.Observer`)."""
        if not self.is_heard:
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
        if self.is_heard and recipients:
            self._happened(Removed, id, reverse_path, recipients)

    def held(
        self, id: QueueId, reverse_path: Mailbox | None, recipients: Sequence[Recipient]
    ) -> None:
        """Take note of recipients that are on hold."""
        if self.is_heard and recipients:
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
        event = self._event(kind, id, reverse_path, recipients, reply=reply, next_hop=next_hop)
        self.tell(event)
        tracked = self._tracked.get(event.id)
        if tracked is not None and kind not in (Deferred, Held):
            for each in recipients:
                tracked.end(each.number, event)
            self._look(event.id, tracked)

    def _event(
        self,
        kind: type[MailEvent],
        id: QueueId,
        reverse_path: Mailbox | None,
        recipients: Sequence[Recipient],
        *,
        reply: Reply | None = None,
        next_hop: str | None = None,
    ) -> MailEvent:
        return kind(
            id=str(id),
            sender="" if reverse_path is None else str(reverse_path),
            recipients=tuple(str(each.mailbox) for each in recipients),
            next_hop=next_hop,
            reply=reply,
            at=self._wall_time(),
        )

    def tell(self, event: MailEvent) -> None:
        """Call all subscribers with an event."""
        for subscriber in list(self._subscribers.values()):
            try:
                subscriber(event)
            except Exception:
                self._log.failure("a subscriber has failed at an event of {id}", id=event.id)

    def _look(self, id: str, tracked: _Tracked) -> None:
        """Fire what waits for the outcome of a message, if that is complete."""
        if not tracked.is_complete or id in self._complete:
            return
        self._complete[id] = None
        if len(self._complete) > MOST_ENDED:
            oldest = next(iter(self._complete))
            del self._complete[oldest], self._tracked[oldest]
        waiting, tracked.waiting = tracked.waiting, []
        for each in waiting:
            each.callback(dict(tracked.ended))


def _is(mailbox: Mailbox, written: str) -> bool:
    try:
        return Mailbox.parse(written) == mailbox
    except AddressError:
        return False  # of a `Mailbox` that the application made without its domain


def _kind(outcome: Outcome) -> type[MailEvent]:
    if outcome.delivered:
        return Delivered
    if outcome.failed:
        return Expired if outcome.expired else Bounced
    return Deferred
