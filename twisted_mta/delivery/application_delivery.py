"""The protocol of an application's own delivery: the message that it is handed, and its answers."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import IO, Protocol

from attrs import field, frozen

from ..mail.envelope import Envelope
from ..mail.reply import Reply

DeliveryAnswer = None | Reply | Mapping[str, Reply | None]
"""What became of a message: None, delivered to all; a reply for all; or one for each recipient."""


@frozen(eq=False)
class QueuedMessage:
    """A message that an application's own delivery is to deliver.

    Attributes:
        id: the queue id, the same at each attempt.
        sender: the reverse-path; empty: the null one, to which no bounce may be sent.
        recipients: the mailboxes to deliver to, aliases expanded, each once.
        envelope: the same with all that is known: the ESMTP parameters of MAIL (``BODY``,
            ``SMTPUTF8``, ``RET``, ``ENVID``, …), and for each recipient those of RCPT (``NOTIFY``,
            ``ORCPT``), the mailbox that the sender wrote, and the number of attempts before.
        size: octets of the content.
        content: the message with our trace fields and signatures on top; a binary file at its
            beginning, whose lines end in CR LF. It is read in pieces, never whole in memory, and
            can be sought. Reading blocks for a moment where the message is on the disk, so read
            large ones in a thread. It is closed when the answer is there.
        quarantine: why the message belongs among junk; empty: it does not.
        received_at: wall time of acceptance, seconds since the epoch.
    """

    id: str
    sender: str
    recipients: tuple[str, ...]
    envelope: Envelope
    size: int
    content: IO[bytes] = field(repr=False)
    quarantine: str
    received_at: float


class ApplicationDelivery(Protocol):
    """Delivers mail of the routes ``deliver:name``, in place of another host.

    It is asked for up to ``recipients_per_message`` recipients (100) at a time, and for several
    messages at once, as the limits of its next hop allow.
    """

    def deliver(self, message: QueuedMessage) -> DeliveryAnswer | Awaitable[DeliveryAnswer]:
        """Deliver a message to all of its recipients.

        Returns:
            None: all have it. A `Reply`, for all: 2yz, they have it; 4yz, they are tried again
            later; 5yz, they have failed, and the sender gets a bounce. Or a mapping with a reply,
            or None, for each of ``message.recipients``; one that it lacks is tried again. Or a
            Deferred or coroutine with one of these.

        Raises:
            Exception: all recipients are tried again later; the traceback is logged.
        """
        ...
