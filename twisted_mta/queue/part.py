"""Parts of a message: the recipients that share a transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from attrs import define, evolve

from ..envelope import Message, NextHop, Outcome, Recipient
from ..message.trace import passed
from ..smtp.address import Mailbox
from .levels import turn

_Shared = tuple[NextHop, Mailbox | None, tuple[Mailbox, ...]]
"""What the recipients of a part have in common: next hop, reverse-path, aliases passed."""


@define(eq=False)
class Part:
    """Recipients of one message with one next hop, one reverse-path, and the same aliases passed.

    Attributes:
        next_hop: where they go.
        message: with those recipients and no others.
        entered: when it came into memory, by the clock.
        started: when its transaction began.
    """

    next_hop: NextHop
    message: Message
    entered: float = 0.0
    started: float = 0.0

    @property
    def turn(self) -> float:
        """By what it is sorted among those that wait in memory for the same next hop."""
        return turn(self.entered, 2 * self.message.envelope.priority)

    @property
    def offered(self) -> Message:
        """The message as it goes on the wire.

        Where it leaves by aliases, it names them, so that it is known if it comes back. A mailbox
        that stands there twice, because aliases led to it by two ways or because the sender wrote
        it twice, gets one copy.
        """
        envelope = self.message.envelope
        first = envelope.recipients[0]
        recipients = envelope.recipients
        if len(recipients) > 1:
            recipients = tuple({each.mailbox: each for each in reversed(recipients)}.values())
            if len(recipients) == len(envelope.recipients):
                recipients = envelope.recipients
            else:
                recipients = tuple(sorted(recipients, key=lambda each: each.number))
        named = first.aliases if self.next_hop.remote else ()
        if recipients is envelope.recipients and first.reverse_path is None and not named:
            return self.message
        return evolve(
            self.message,
            trace=passed(named) + self.message.trace,
            envelope=evolve(
                envelope,
                recipients=recipients,
                reverse_path=first.reverse_path or envelope.reverse_path,
            ),
        )

    def outcomes(self, answered: Iterable[Outcome]) -> Sequence[Outcome]:
        """Return an outcome for all whose mailbox got one, from those of what was offered."""
        answers = {each.number: each for each in answered}
        mailboxes: dict[Mailbox, Outcome] = {}
        for recipient in self.message.envelope.recipients:
            outcome = answers.get(recipient.number)
            if outcome is not None:
                mailboxes[recipient.mailbox] = outcome
        return [
            answers.get(recipient.number) or evolve(outcome, number=recipient.number)
            for recipient in self.message.envelope.recipients
            if (outcome := mailboxes.get(recipient.mailbox)) is not None
        ]


def split(
    message: Message,
    next_hop_of: Callable[[Mailbox], NextHop],
    most_recipients: Callable[[NextHop], int | None],
) -> list[Part]:
    """Return the parts of a message: one for all recipients that can share a transaction.

    Args:
        message: what is to be delivered.
        next_hop_of: says where a mailbox goes.
        most_recipients: how many a next hop gets in one transaction, None for any number.
    """
    envelope = message.envelope
    if len(envelope.recipients) == 1:
        return [Part(next_hop_of(envelope.recipients[0].mailbox), message)]
    together: dict[_Shared, list[Recipient]] = {}
    for recipient in envelope.recipients:
        next_hop = next_hop_of(recipient.mailbox)
        # RFC 5321 §7.2: a copy names no alias of other recipients.
        aliases = recipient.aliases if next_hop.remote else ()
        together.setdefault((next_hop, recipient.reverse_path, aliases), []).append(recipient)
    parts = []
    for (next_hop, *_), recipients in together.items():
        most = most_recipients(next_hop) or len(recipients)
        for start in range(0, len(recipients), most):
            some = tuple(recipients[start : start + most])
            parts.append(
                Part(next_hop, evolve(message, envelope=evolve(envelope, recipients=some)))
            )
    return parts
