"""Who of the recipients of a transaction gets its message, and who does not.

Known at RCPT are members of a list that do not exist; with the header, by its Delivered-To fields,
aliases that the message came through before. Either is about one recipient: the others get it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import evolve, frozen

from ..mail.address import Mailbox
from ..mail.envelope import Recipient, RecipientNumber
from ..mail.final_recipient import FinalRecipient
from ..mail.message import RefusedRecipient
from ..mail.reply import Reply

# That one recipient names, if several RCPT commands led to it.
_MOST_ALIASES = 100

LOOP = Reply.of(554, "4.6", "The message is in a loop: it came through that alias before")


@frozen
class Found:
    """The recipients of a transaction.

    Attributes:
        recipients: aliases expanded, each mailbox once.
        places: for each RCPT, the numbers of those that it led to.
        aliases: those of several whose expansion is to be told (`Message.expanded`), by their place
            among the RCPT.
        refused: those that get nothing, by their number.
        ways: for those that several RCPT led to, the aliases by which each did.
    """

    recipients: tuple[Recipient, ...]
    places: Sequence[Sequence[RecipientNumber]]
    aliases: Mapping[int, Recipient]
    refused: Mapping[RecipientNumber, FinalRecipient]
    ways: Mapping[RecipientNumber, Sequence[tuple[Mailbox, ...]]]

    def looping(self, is_passed: Callable[[Mailbox], bool]) -> list[RecipientNumber]:
        """Return those that no way leads to but by aliases that the message came through before."""
        known: dict[tuple[Mailbox, ...], bool] = {}

        def is_loop(way: tuple[Mailbox, ...]) -> bool:
            if way not in known:
                known[way] = any(map(is_passed, way))
            return known[way]

        return [
            each.number
            for each in self.recipients
            if all(map(is_loop, self.ways.get(each.number, (each.aliases,))))
        ]


@frozen
class Division:
    """The recipients of a message whose content is there: who gets it, and who does not.

    Attributes:
        recipients: who get it, numbered anew.
        refused: who do not, and the client is not told so.
        places: as for `Found`, of those RCPT that are not answered yet.
        answers: for each RCPT what the client is told of it alone; None: what it is told of all.
        expanded: aliases of several of whom some get it (`Message.expanded`).
    """

    recipients: tuple[Recipient, ...]
    refused: tuple[RefusedRecipient, ...]
    places: Sequence[Sequence[RecipientNumber]]
    answers: Sequence[Reply | None]
    expanded: tuple[Recipient, ...]


def divide(found: Found, looping: Sequence[RecipientNumber], *, each_answered: bool) -> Division:
    """Tell those who get a message from those who do not.

    Args:
        found: all of them.
        looping: to whom aliases lead that it has come through before.
        each_answered: whether the client hears of each RCPT (RFC 2033 §4.2).
    """
    replies = {number: each.refusal or LOOP for number, each in found.refused.items()}
    replies.update(dict.fromkeys(looping, LOOP))
    answers: list[Reply | None] = [None] * len(found.places)
    told = found.places
    if each_answered:
        for place, numbers in enumerate(found.places):
            if all(number in replies for number in numbers):
                answers[place] = replies[numbers[-1]]
        told = [each for each, answer in zip(found.places, answers, strict=True) if answer is None]
    involved = dict.fromkeys(number for numbers in told for number in numbers)
    order = sorted(each for each in involved if each not in replies)
    rest = sorted(each for each in involved if each in replies)
    new = {old: RecipientNumber(place) for place, old in enumerate((*order, *rest))}
    renumbered = {old: evolve(found.recipients[old], number=new[old]) for old in new}
    return Division(
        tuple(renumbered[each] for each in order),
        tuple(
            RefusedRecipient(
                renumbered[each],
                replies[each],
                found.refused[each].owner if each in found.refused else None,
            )
            for each in rest
        ),
        [[new[each] for each in numbers if each not in replies] for numbers in told],
        answers,
        tuple(
            alias
            for place, alias in found.aliases.items()
            if not all(number in replies for number in found.places[place])
        ),
    )


def named_by_all_ways(
    recipients: tuple[Recipient, ...],
    ways: Mapping[RecipientNumber, Sequence[tuple[Mailbox, ...]]],
) -> tuple[Recipient, ...]:
    """Return recipients that name the aliases of each way that led to them, not of the first alone.

    It is a loop only if each way is one. So if two aliases that lead to the same mailboxes named
    but one of them, and mail came back to both, it would have no end.
    """
    if not ways:
        return recipients
    known: dict[tuple[tuple[Mailbox, ...], ...], tuple[Mailbox, ...]] = {}
    changed = list(recipients)
    for number, several in ways.items():
        distinct = tuple(dict.fromkeys(several))
        named = known.get(distinct)
        if named is None:
            all_of_them = dict.fromkeys(alias for way in distinct for alias in way)
            named = known[distinct] = tuple(all_of_them)[:_MOST_ALIASES]
        changed[number] = evolve(changed[number], aliases=named)
    return tuple(changed)
