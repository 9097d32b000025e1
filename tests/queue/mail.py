"""Messages for tests of the queue."""

from __future__ import annotations

from collections.abc import Sequence

from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.body import Body, MemoryBody
from twisted_mta.mail.envelope import Envelope, Recipient, RecipientNumber
from twisted_mta.mail.message import Message
from twisted_mta.mail.outcome import Outcome
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.mail.reply import Reply
from twisted_mta.queue.store.contract import Deferral, Settle

NOW = 1_800_000_000.0
BODY = MemoryBody(b"Subject: Hello\r\n\r\nHello.\r\n")
LIFETIME = 5 * 24 * 3600.0

DELIVERED = Reply.of(250, "0.0", "OK")
DEFERRED = Reply.of(451, "4.1", "Come back later")
FAILED = Reply.of(550, "1.1", "No such user")


def message(
    id: int = 1,
    *recipients: str,
    sender: str | None = "ann@sender.example",
    body: Body = BODY,
    received_at: float = NOW,
) -> Message:
    """Return a message to ``recipients``, or to bob."""
    return Message(
        id=QueueId(id),
        envelope=Envelope(
            None if sender is None else Mailbox.parse(sender),
            tuple(
                Recipient(RecipientNumber(number), Mailbox.parse(recipient))
                for number, recipient in enumerate(recipients or ("bob@next.example",))
            ),
        ),
        trace=b"Received: by mta.example\r\n",
        body=body,
        received_at=received_at,
        expires_at=received_at + LIFETIME,
    )


def numbers(message: Message) -> list[int]:
    """Return the numbers of the recipients of a message."""
    return [recipient.number for recipient in message.envelope.recipients]


def settled(message: Message, *done: int, notices: Sequence[Message] = ()) -> Settle:
    """Return the settle after which recipients (all, if none are named) are done."""
    return Settle(
        message,
        done=tuple(map(RecipientNumber, done or numbers(message))),
        notices=tuple(notices),
        at=NOW,
    )


def deferred(message: Message, until: float, *which: int) -> Settle:
    """Return the settle that defers recipients (all, if none are named)."""
    return Settle(
        message,
        deferred=tuple(
            Deferral(
                Outcome(RecipientNumber(number), DEFERRED, "mx.example[192.0.2.1]:25"),
                until,
            )
            for number in which or numbers(message)
        ),
        at=NOW,
    )
