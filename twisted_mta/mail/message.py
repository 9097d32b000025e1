"""A message in the queue: an envelope, trace fields and content."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from .address import Mailbox
from .assessment import UNKNOWN, Assessment
from .body import Body
from .envelope import Envelope, Recipient
from .queue_id import QueueId
from .reply import Reply


@frozen
class RefusedRecipient:
    """A recipient of an accepted message that is refused for itself, and gets a bounce.

    Attributes:
        recipient: the refused recipient.
        reply: the refusal.
        owner: the owner of the list, to be notified instead of the sender; None: the sender.
    """

    recipient: Recipient
    reply: Reply
    owner: Mailbox | None = None


@frozen
class Message:
    """A message in the queue.

    Attributes:
        id: the queue id.
        envelope: sender and recipients; of a leased message, the leased recipients alone.
        trace: the fields that we prepend (Received), each with its CR LF.
        body: the content as received.
        received_at: wall time of acceptance, seconds since the epoch.
        expires_at: wall time at which a recipient that is still deferred expires.
        expanded: our mailboxes that stand for several recipients and whose sender asked for a
            notice of success (RFC 3461 §5.2.7.3). Filled only at acceptance: the notice is written
            then.
        refused: recipients that are refused beside those of the envelope; their numbers follow the
            envelope's. Filled only at acceptance.
        assessment: what policies found out about its origin.
    """

    id: QueueId
    envelope: Envelope
    trace: bytes
    body: Body
    received_at: float
    expires_at: float
    expanded: tuple[Recipient, ...] = ()
    refused: tuple[RefusedRecipient, ...] = ()
    assessment: Assessment = UNKNOWN

    @property
    def released_at(self) -> float:
        """Wall time before which no attempt is made: the sender's hold (RFC 4865), if any."""
        parameters = self.envelope.parameters
        if not parameters:  # as of most messages
            return self.received_at
        held = parameters.get("HOLDUNTIL")
        return float(held) if isinstance(held, int) else self.received_at

    def for_recipients(self, recipients: Iterable[Recipient]) -> Message:
        """Return the same message with an envelope of ``recipients`` alone."""
        envelope = self.envelope
        # `evolve` takes four times as long, for each next hop of a message.
        return Message(
            self.id,
            Envelope(envelope.reverse_path, tuple(recipients), envelope.parameters),
            self.trace,
            self.body,
            self.received_at,
            self.expires_at,
            self.expanded,
            self.refused,
            self.assessment,
        )
