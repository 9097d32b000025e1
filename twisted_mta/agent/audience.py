"""The audience of an agent: an application's subscribers, and the outcomes of its messages."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..mail.envelope import RecipientNumber
from ..mail.events import Bounced, Delivered, Expired, MailEvent, Removed
from ..mail.queue_id import QueueId

MOST_ENDED = 1000
"""How many messages of the application whose outcome is complete are remembered."""

FINAL = (Delivered, Bounced, Expired, Removed)
"""The events that end a recipient."""

Subscriber = Callable[[MailEvent], object]
"""Called with each event, in the reactor's thread; it must not block."""

Outcomes = Mapping[str, MailEvent]
"""For each recipient, as it was submitted, the event that ended it."""

Tracked = Mapping[str, Iterable[RecipientNumber]]
"""Recipients as they were submitted, each with the numbers of those that it leads to."""


class Audience(Protocol):
    """The application, in this process or in its parent, as an agent tells it of mail."""

    def hears(self, id: QueueId) -> bool:
        """Whether it is to be told of a message."""
        ...

    def tell(self, event: MailEvent, numbers: Sequence[RecipientNumber]) -> None:
        """Tell it of an event.

        Args:
            event: the event.
            numbers: of its recipients in the queue.
        """
        ...

    def track(self, id: QueueId, recipients: Tracked) -> None:
        """Begin to keep the outcome of a message that is about to be queued."""
        ...

    def untrack(self, id: QueueId) -> None:
        """Forget a message that was not queued."""
        ...

    def stop(self) -> None:
        """Take note that the agent has stopped: no outcome that is waited for will come."""
        ...


@define
class _Message:
    """A message of the application.

    Attributes:
        left: for each number that is not ended yet, the recipients, as they were submitted, that
            lead to it.
        ended: for each recipient as it was submitted, the event that ended it.
        waiting: fire with all of them.
        told: whether any step of it was told.
    """

    left: dict[RecipientNumber, list[str]]
    ended: dict[str, MailEvent] = field(factory=dict)
    waiting: list[Deferred[Outcomes]] = field(factory=list)
    told: bool = False

    @classmethod
    def of(cls, recipients: Tracked) -> _Message:
        """Return a message with these recipients."""
        left: dict[RecipientNumber, list[str]] = {}
        for written, numbers in recipients.items():
            for number in numbers:
                left.setdefault(number, []).append(written)
        return cls(left)

    def end(self, number: RecipientNumber, event: MailEvent) -> None:
        for written in self.left.pop(number, ()):
            # Of several members of an alias, one that failed is what has to be known.
            if isinstance(self.ended.get(written), Delivered | None):
                self.ended[written] = event

    @property
    def is_complete(self) -> bool:
        return not self.left


class LocalAudience:
    """The application in this process (`Audience`)."""

    _log = Logger()

    def __init__(self) -> None:
        self._subscribers: dict[object, Subscriber] = {}
        self._messages: dict[str, _Message] = {}
        self._complete: dict[str, None] = {}  # the ids of those that are, the oldest first
        self._awaited: dict[str, None] = {}  # the ids of those that are waited for, or were

    # Subscribers.

    @property
    def has_subscribers(self) -> bool:
        """Whether there is a subscriber."""
        return bool(self._subscribers)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call a function with each event from now on; return a function that ends that.

        Raises:
            TypeError: it is no function.
        """
        if not callable(subscriber):
            raise TypeError(f"found {subscriber!r}, expected a function that takes an event")
        key = object()
        self._subscribers[key] = subscriber

        def stop() -> None:
            self._subscribers.pop(key, None)

        return stop

    def hears(self, id: QueueId) -> bool:
        """Whether it is to be told of a message (`Audience`)."""
        return bool(self._subscribers) or (bool(self._messages) and str(id) in self._messages)

    def tell(self, event: MailEvent, numbers: Sequence[RecipientNumber]) -> None:
        """Call all subscribers, and keep the outcome of a message (`Audience`)."""
        for key, subscriber in list(self._subscribers.items()):
            if key in self._subscribers:  # and was not ended by one before
                self._call(subscriber, event)
        message = self._messages.get(event.id)
        if message is None:
            return
        message.told = True
        if isinstance(event, FINAL):
            for number in numbers:
                message.end(number, event)
            self._look(event.id, message)

    def _call(self, subscriber: Subscriber, event: MailEvent) -> None:
        def failed(failure: Failure) -> None:
            self._log.failure("a subscriber has failed at an event of {id}", failure, id=event.id)

        try:
            result = subscriber(event)
            if isinstance(result, Coroutine):
                result = Deferred.fromCoroutine(result)
            if isinstance(result, Deferred):
                result.addErrback(failed)
        except Exception:
            failed(Failure())

    # Outcomes.

    def track(self, id: QueueId, recipients: Tracked) -> None:
        """Begin to keep the outcome of a message that is about to be queued (`Audience`)."""
        self._messages[str(id)] = _Message.of(recipients)

    def untrack(self, id: QueueId) -> None:
        """Forget a message that was not queued (`Audience`)."""
        self._messages.pop(str(id), None)

    def tracks(self, id: str) -> bool:
        """Whether it keeps the outcome of a message."""
        return id in self._messages

    def was_told(self, id: str) -> bool:
        """Whether it was told of any step of a message whose outcome it keeps."""
        return id in self._messages and self._messages[id].told

    def incomplete(self) -> Mapping[str, Sequence[RecipientNumber]]:
        """Return the numbers of recipients that are not ended, by message."""
        return {id: self.left(id) for id in self._messages if id not in self._complete}

    def awaited(self) -> Sequence[str]:
        """Return the messages that were told of, are not complete, and are waited for."""
        self._awaited = {
            id: None for id in self._awaited if id in self._messages and self._messages[id].waiting
        }
        return [id for id in self._awaited if self._messages[id].told]

    def under_way(self) -> Sequence[str]:
        """Return the messages that were told of and are not complete."""
        return [
            id
            for id, message in self._messages.items()
            if message.told and id not in self._complete
        ]

    def left(self, id: str) -> Sequence[RecipientNumber]:
        """Return the numbers of recipients of a message that are not ended."""
        message = self._messages.get(id)
        return () if message is None else tuple(message.left)

    def lose(self, id: str, why: str) -> None:
        """Forget a message whose outcome will not be known; what waits for it fails.

        Args:
            id: its queue id.
            why: the text of the `LookupError`.
        """
        message = self._messages.pop(id, None)
        if message is not None:
            _fail(message.waiting, LookupError(why))

    def outcome(self, id: str) -> Deferred[Outcomes]:
        """Return the outcome of a message; fires when the last recipient has one.

        Fails with `LookupError` where the message is not known.
        """
        outcome: Deferred[Outcomes]
        message = self._messages.get(str(id))
        if message is None:
            outcome = Deferred()
            outcome.errback(
                LookupError(
                    f"found {id!r}, expected the id of a message that was submitted since the"
                    f" start, and is under way or among the last {MOST_ENDED}"
                )
            )
            return outcome
        waiting = message.waiting
        outcome = Deferred(waiting.remove)
        if message.is_complete:
            outcome.callback(dict(message.ended))
        else:
            waiting.append(outcome)
            self._awaited[str(id)] = None
        return outcome

    def stop(self) -> None:
        """Let all outcomes that are waited for fail (`Audience`)."""
        for id, message in self._messages.items():
            error = RuntimeError(f"the agent has stopped, and {id} is in its queue")
            _fail(message.waiting, error)

    def _look(self, id: str, message: _Message) -> None:
        """Fire what waits for the outcome of a message, if that is complete."""
        if not message.is_complete or id in self._complete:
            return
        self._complete[id] = None
        if len(self._complete) > MOST_ENDED:
            oldest = next(iter(self._complete))
            del self._complete[oldest], self._messages[oldest]
        waiting, message.waiting[:] = list(message.waiting), []
        for each in waiting:
            each.callback(dict(message.ended))


def _fail(waiting: list[Deferred[Outcomes]], error: Exception) -> None:
    failing, waiting[:] = list(waiting), []
    for each in failing:
        each.errback(error)
