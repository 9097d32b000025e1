"""Parts of a message: the recipients that share a transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from attrs import define, evolve

from ...mail.address import Mailbox, folded
from ...mail.envelope import Recipient
from ...mail.message import Message
from ...mail.next_hop import NextHop
from ...mail.outcome import Outcome
from ...message.delivery_fields import alias_fields
from .priority import effective_due

_MOST_NAMED = 16  # aliases in one copy, unless a single recipient has more


@define(eq=False)
class Delivery:
    """Recipients of one message with one next hop and one reverse-path, whose copy is the same.

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
        return effective_due(self.entered, 2 * self.message.envelope.priority)

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
        named = self._named()
        if recipients is envelope.recipients and first.reverse_path is None and not named:
            return self.message
        return evolve(
            self.message,
            trace=alias_fields(named) + self.message.trace,
            envelope=evolve(
                envelope,
                recipients=recipients,
                reverse_path=first.reverse_path or envelope.reverse_path,
            ),
        )

    def _named(self) -> tuple[Mailbox, ...]:
        """Return the aliases by which the recipients were reached, and that their copy names."""
        recipients = self.message.envelope.recipients
        named = (_named(each, self.next_hop) for each in recipients)
        return tuple(dict.fromkeys(alias for aliases in named for alias in aliases))

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
) -> list[Delivery]:
    """Return the parts of a message: one for all recipients that can share a transaction.

    Args:
        message: what is to be delivered.
        next_hop_of: says where a mailbox goes.
        most_recipients: how many a next hop gets in one transaction, None for any number.
    """
    envelope = message.envelope
    if len(envelope.recipients) == 1:
        return [Delivery(next_hop_of(envelope.recipients[0].mailbox), message)]
    together: dict[tuple[Any, ...], list[Recipient]] = {}
    for recipient in envelope.recipients:
        next_hop = next_hop_of(recipient.mailbox)
        key: tuple[Any, ...] = next_hop, recipient.reverse_path
        if named := _named(recipient, next_hop):
            # RFC 5321 §7.2: who sees the copy learns of no other recipient that the sender wrote.
            key = *key, recipient.original
            if len(named) < len(recipient.aliases):
                key = *key, named  # where others name more, its own name may be among it
        together.setdefault(key, []).append(recipient)
    parts = []
    for (next_hop, *_), recipients in together.items():
        most = most_recipients(next_hop) or len(recipients)
        for some in _of_few_aliases(recipients, next_hop):
            for start in range(0, len(some), most):
                few = some[start : start + most]
                parts.append(Delivery(next_hop, message.for_recipients(few)))
    return parts


def _of_few_aliases(
    recipients: Sequence[Recipient], next_hop: NextHop
) -> Iterator[Sequence[Recipient]]:
    """Yield recipients by fair_share, as many together as were reached by so few aliases."""
    some: list[Recipient] = []
    names: dict[Mailbox, None] = {}
    for recipient in recipients:
        more = dict.fromkeys(_named(recipient, next_hop))
        if some and len(names | more) > max(_MOST_NAMED, len(names)):
            yield some
            some, names = [], {}
        some.append(recipient)
        names |= more
    yield some


def _named(recipient: Recipient, next_hop: NextHop) -> tuple[Mailbox, ...]:
    """Return the aliases that a copy names on its way to another host.

    An alias that leads to the mailbox of its own name is left out: a host behind us that has this
    mailbox would take that for a loop, as Postfix does.
    """
    if not recipient.aliases or not next_hop.remote:
        return ()
    local_part, domain = recipient.mailbox.local_part, recipient.mailbox.domain
    names = folded(local_part), folded(local_part).partition("+")[0]
    return tuple(
        each for each in recipient.aliases if each.domain != domain or each.local_part not in names
    )
