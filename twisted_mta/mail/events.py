"""Events in the life of a message, as an application hears of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import asdict, frozen

from .classification import classify
from .classification_table import Classification
from .reply import Reply


@frozen
class MailEvent:
    """One step of a message for some of its recipients.

    Attributes:
        id: the queue id.
        sender: the reverse-path; empty: the null one.
        recipients: the mailboxes that this step is about, aliases expanded.
        next_hop: where the step took place, as the log writes it: ``maildir``, ``smtp:…``; None: it
            is not about a next hop.
        reply: the SMTP reply of the step; None: there is none.
        at: wall time, seconds since the epoch.
    """

    id: str
    sender: str
    recipients: tuple[str, ...]
    next_hop: str | None
    reply: Reply | None
    at: float

    @property
    def classification(self) -> Classification | None:
        """Why mail was not taken, in one word; None where it was, or no reply is known."""
        return None if self.reply is None else classify(self.reply)

    @property
    def type(self) -> str:
        """One of `TYPES`."""
        return type(self).__name__.lower()

    def to_json(self) -> dict[str, Any]:
        """Return it in plain types, for another process."""
        return {**asdict(self), "kind": type(self).__name__}


@frozen
class Accepted(MailEvent):
    """The message is in the queue, or was delivered at once, for all of these recipients."""


@frozen
class Delivered(MailEvent):
    """The next hop has taken responsibility."""


@frozen
class Deferred(MailEvent):
    """An attempt has failed, and another one follows."""


@frozen
class Bounced(MailEvent):
    """The recipients have failed for good; the sender is notified if it wants that."""


@frozen
class Expired(MailEvent):
    """The recipients have failed, since no attempt succeeded in time; otherwise like `Bounced`."""


@frozen
class Removed(MailEvent):
    """The operator, or the application, has removed the recipients from the queue."""


@frozen
class Held(MailEvent):
    """The operator, or the application, holds the recipients until they are released."""


_KINDS: Mapping[str, type[MailEvent]] = {
    each.__name__: each for each in (Accepted, Delivered, Deferred, Bounced, Expired, Removed, Held)
}


TYPES = tuple(each.lower() for each in _KINDS)
"""The types of events, as programs are told them."""

_MOST_RECIPIENTS = 100  # of one event


def described(event: MailEvent) -> dict[str, Any]:
    """Return an event as programs are told of it, by a stream or a webhook, in plain types."""
    recipients = event.recipients[:_MOST_RECIPIENTS]
    classification = event.classification
    return {
        "event": event.type,
        "id": event.id,
        "at": event.at,
        "sender": event.sender,
        "recipients": list(recipients),
        "more": len(event.recipients) - len(recipients),
        "next_hop": event.next_hop,
        "reply": None if event.reply is None else str(event.reply),
        "class": None if classification is None else str(classification),
    }


def event_from_json(value: Mapping[str, Any]) -> MailEvent:
    """Return the event that `MailEvent.to_json` gave."""
    reply = value["reply"]
    return _KINDS[value["kind"]](
        id=value["id"],
        sender=value["sender"],
        recipients=tuple(value["recipients"]),
        next_hop=value["next_hop"],
        reply=None if reply is None else Reply.from_json(reply),
        at=value["at"],
    )
