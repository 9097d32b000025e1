"""Deliveries: the recipients of a message that share one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Any

from attrs import define, evolve

from ...mail.address import Mailbox, folded
from ...mail.envelope import Recipient
from ...mail.message import Message
from ...mail.next_hop import NextHop
from ...mail.outcome import Outcome
from ...message.delivery_fields import alias_fields

WHOLE = 8
"""The weight of a content in memory."""

_MOST_ALIASES = 16  # that one copy names, unless a single recipient has more


class Place(Enum):
    """The place in memory that a delivery has (`fair_share.FairShare`)."""

    NONE = "no place"
    CLAIMED = "claimed for a message whose commit is under way"
    TAKEN = "taken: the delivery waits, is tried, or is being settled"


@define(eq=False)
class Share:
    """The share of a delivery in the content of its message, which others need as well.

    Attributes:
        weight: how much of the content it answers for, of `WHOLE`; only `FairShare` changes this
            and the following.
        all: the shares in the content of all deliveries that have not left.
        queue: the `NextHopQueue` in which the delivery has its place; None: it has none yet.
    """

    weight: int
    all: dict[Share, None]
    queue: Any = None


@define(eq=False)
class Delivery:
    """The recipients of one message that get the same copy in one transaction.

    They share the next hop and the reverse-path.

    Attributes:
        next_hop: of the recipients.
        message: the message with those recipients and no others.
        entered_at: when the delivery came into memory, by the clock.
        started_at: when its transaction began, by the clock.
        share: its share in the content of its message; None: no other delivery needs that.
        place: its place in memory; only `FairShare` changes this and the following.
        queue: the `NextHopQueue` in which it has that place.
        order: the time by which it is ordered among the deliveries that wait there.
    """

    next_hop: NextHop
    message: Message
    share: Share | None = None
    entered_at: float = 0.0
    started_at: float = 0.0
    place: Place = Place.NONE
    queue: Any = None
    order: float = 0.0

    @property
    def weight(self) -> int:
        """How much memory it takes: `WHOLE`, or its share."""
        return WHOLE if self.share is None else self.share.weight

    def for_recipients(self, recipients: Sequence[Recipient]) -> Delivery:
        """Return the delivery with some of its recipients, and its place."""
        return evolve(self, message=self.message.for_recipients(recipients))

    @property
    def copy(self) -> Message:
        """The message as it goes on the wire.

        A copy names the aliases that it leaves by, so that a mail loop is noticed. A mailbox that
        is there twice, because two aliases lead to it or the sender wrote it twice, gets one copy.
        """
        envelope = self.message.envelope
        first = envelope.recipients[0]
        recipients = envelope.recipients
        if len(recipients) == 1:
            if first.reverse_path is None and not first.aliases:
                return self.message
        else:
            recipients = tuple({each.mailbox: each for each in reversed(recipients)}.values())
            if len(recipients) == len(envelope.recipients):
                recipients = envelope.recipients
            else:
                recipients = tuple(sorted(recipients, key=lambda each: each.number))
        aliases = self._aliases()
        if recipients is envelope.recipients and first.reverse_path is None and not aliases:
            return self.message
        return evolve(
            self.message,
            trace=alias_fields(aliases) + self.message.trace,
            envelope=evolve(
                envelope,
                recipients=recipients,
                reverse_path=first.reverse_path or envelope.reverse_path,
            ),
        )

    def _aliases(self) -> tuple[Mailbox, ...]:
        """Return the aliases that the copy names."""
        aliases: dict[Mailbox, None] = {}
        for each in self.message.envelope.recipients:
            if each.aliases:
                aliases |= dict.fromkeys(_named_aliases(each, self.next_hop))
        return tuple(aliases)

    def outcomes(self, of_copy: Sequence[Outcome]) -> Sequence[Outcome]:
        """Return the outcomes of all recipients, from those of the recipients of the `copy`."""
        recipients = self.message.envelope.recipients
        if [each.number for each in of_copy] == [each.number for each in recipients]:
            return of_copy  # nearly always
        by_number = {each.number: each for each in of_copy}
        tried = [each for each in recipients if each.number in by_number]
        if len(tried) == len(recipients):
            return [by_number[each.number] for each in recipients]
        by_mailbox = {each.mailbox: by_number[each.number] for each in tried}
        return [
            by_number.get(each.number) or evolve(outcome, number=each.number)
            for each in recipients
            if (outcome := by_mailbox.get(each.mailbox)) is not None
        ]


def split(
    message: Message,
    next_hop_of: Callable[[Mailbox], NextHop],
    most_recipients: Callable[[NextHop], int | None],
) -> list[Delivery]:
    """Return the deliveries of a message, as few as possible.

    Args:
        message: the message.
        next_hop_of: returns the next hop of a mailbox.
        most_recipients: returns how many recipients a next hop takes in one transaction; None: any
            number.
    """
    envelope = message.envelope
    if len(envelope.recipients) == 1:
        return [Delivery(next_hop_of(envelope.recipients[0].mailbox), message)]
    together: dict[tuple[Any, ...], list[Recipient]] = {}
    for recipient in envelope.recipients:
        next_hop = next_hop_of(recipient.mailbox)
        key: tuple[Any, ...] = next_hop, recipient.reverse_path
        if aliases := _named_aliases(recipient, next_hop):
            # RFC 5321 §7.2: the copy shows a recipient no other address that the sender wrote.
            key = *key, recipient.original
            if len(aliases) < len(recipient.aliases):
                key = *key, aliases  # the copy of others may name the mailbox itself
        together.setdefault(key, []).append(recipient)
    deliveries = []
    for (next_hop, _, *original), recipients in together.items():
        if len(recipients) == 1:
            deliveries.append(Delivery(next_hop, message.for_recipients(recipients)))
            continue
        most = most_recipients(next_hop) or len(recipients)
        groups = _groups_of_few_aliases(recipients, next_hop) if original else (recipients,)
        for group in groups:
            for start in range(0, len(group), most):
                few = group[start : start + most]
                deliveries.append(Delivery(next_hop, message.for_recipients(few)))
    if len(together) > 1:
        _share_content(deliveries)
    return deliveries


def _share_content(deliveries: Sequence[Delivery]) -> None:
    """Give each delivery of a message a share in its content: at least one of `WHOLE`."""
    each_one, rest = divmod(WHOLE, len(deliveries))
    shares: dict[Share, None] = {}
    for number, delivery in enumerate(deliveries):
        delivery.share = Share(max(1, each_one + (number < rest)), shares)
        shares[delivery.share] = None


def _groups_of_few_aliases(
    recipients: Sequence[Recipient], next_hop: NextHop
) -> Iterator[Sequence[Recipient]]:
    """Yield the recipients in groups whose copies name at most `_MOST_ALIASES` aliases."""
    group: list[Recipient] = []
    aliases: dict[Mailbox, None] = {}
    for recipient in recipients:
        more = dict.fromkeys(_named_aliases(recipient, next_hop))
        if group and len(aliases | more) > max(_MOST_ALIASES, len(aliases)):
            yield group
            group, aliases = [], {}
        group.append(recipient)
        aliases |= more
    yield group


def _named_aliases(recipient: Recipient, next_hop: NextHop) -> tuple[Mailbox, ...]:
    """Return the aliases of a recipient that a copy for another host names.

    An alias that leads to the mailbox of its own name is left out: a host behind us that has this
    mailbox would take it for a loop, as Postfix does.
    """
    if not recipient.aliases or not next_hop.remote:
        return ()
    local_part, domain = recipient.mailbox.local_part, recipient.mailbox.domain
    names = folded(local_part), folded(local_part).partition("+")[0]
    return tuple(
        each for each in recipient.aliases if each.domain != domain or each.local_part not in names
    )
