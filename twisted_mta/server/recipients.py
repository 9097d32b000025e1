"""The recipients of a message on its way in: expanded, then divided into taken and refused.

RCPT tells which members of a list do not exist. The header tells, by its Delivered-To fields, the
aliases that the message has come through before. Either refuses single recipients: the others get
the message.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence

from attrs import evolve, field, frozen

from ..mail.address import Mailbox, folded
from ..mail.envelope import Parameters, Recipient, RecipientNumber
from ..mail.final_recipient import Expansions, FinalRecipient
from ..mail.message import RefusedRecipient
from ..mail.reply import Reply
from ..smtp.extension.dsn import forwarded, merged
from ..smtp.server.transaction import Accepted

# Of one recipient, if several RCPT commands lead to it: each adds a Delivered-To field to its copy.
_MOST_ALIASES = 100

LOOP = Reply.of(554, "4.6", "The message is in a loop: it came through that alias before")

AliasPath = tuple[Mailbox, ...]
"""The aliases that lead from a RCPT to a recipient, in order; empty if none does."""


@frozen
class DividedRecipients:
    """The recipients of a message whose header is known.

    Attributes:
        taken: recipients that get the message, numbered from 0.
        refused: recipients that do not get it, and are reported by a bounce; numbered from there.
        by_rcpt: for each RCPT without an answer of its own, the numbers of the taken recipients
            that it leads to.
        answers: for each RCPT its own refusal, or None where the reply to the whole content holds;
            empty if no RCPT has one.
        expanded: aliases for `Message.expanded`.
    """

    taken: tuple[Recipient, ...]
    refused: tuple[RefusedRecipient, ...]
    by_rcpt: Sequence[Sequence[RecipientNumber]]
    answers: Sequence[Reply | None]
    expanded: tuple[Recipient, ...]


@frozen
class ExpandedRecipients:
    """The recipients of a transaction with its aliases expanded, each mailbox once.

    Attributes:
        recipients: numbered from 0.
        by_rcpt: for each RCPT, the numbers of the recipients that it leads to.
        aliases: by the index of their RCPT, aliases of several whose expansion is to be reported
            (`Message.expanded`).
        refused: final recipients that get nothing, by number.
        paths: the alias paths of each recipient that several RCPT lead to, by number.
    """

    recipients: tuple[Recipient, ...]
    by_rcpt: Sequence[Sequence[RecipientNumber]]
    aliases: Mapping[int, Recipient] = field(factory=dict)
    refused: Mapping[RecipientNumber, FinalRecipient] = field(factory=dict)
    paths: Mapping[RecipientNumber, Sequence[AliasPath]] = field(factory=dict)

    def looping(self, is_passed: Callable[[Mailbox], bool]) -> list[RecipientNumber]:
        """Return the recipients whose every alias path has an alias that the message has passed."""
        known: dict[AliasPath, bool] = {}

        def is_loop(path: AliasPath) -> bool:
            if path not in known:
                known[path] = any(map(is_passed, path))
            return known[path]

        return [
            each.number
            for each in self.recipients
            if all(map(is_loop, self.paths.get(each.number, (each.aliases,))))
        ]

    def undivided(self) -> DividedRecipients:
        """Return all recipients as taken."""
        return DividedRecipients(
            self.recipients, (), self.by_rcpt, (), tuple(self.aliases.values())
        )

    def divide(self, looping: Sequence[RecipientNumber], *, per_rcpt: bool) -> DividedRecipients:
        """Return the recipients divided into taken and refused.

        Args:
            looping: numbers of recipients that the message would reach again.
            per_rcpt: whether the client has a reply for each RCPT (RFC 2033 §4.2); then a RCPT that
                leads to refused recipients alone is answered, and not bounced.
        """
        replies = {number: each.refusal or LOOP for number, each in self.refused.items()}
        replies.update(dict.fromkeys(looping, LOOP))
        answers: list[Reply | None] = [None] * len(self.by_rcpt)
        unanswered = self.by_rcpt
        if per_rcpt:
            for index, numbers in enumerate(self.by_rcpt):
                if all(number in replies for number in numbers):
                    answers[index] = replies[numbers[-1]]
            unanswered = [
                numbers
                for numbers, answer in zip(self.by_rcpt, answers, strict=True)
                if answer is None
            ]
        involved = dict.fromkeys(number for numbers in unanswered for number in numbers)
        taken = sorted(number for number in involved if number not in replies)
        refused = sorted(number for number in involved if number in replies)
        new = {old: RecipientNumber(place) for place, old in enumerate((*taken, *refused))}
        renumbered = {old: evolve(self.recipients[old], number=new[old]) for old in new}
        return DividedRecipients(
            tuple(renumbered[number] for number in taken),
            tuple(
                RefusedRecipient(
                    renumbered[number],
                    replies[number],
                    self.refused[number].owner if number in self.refused else None,
                )
                for number in refused
            ),
            [
                [new[number] for number in numbers if number not in replies]
                for numbers in unanswered
            ],
            answers,
            tuple(
                alias
                for index, alias in self.aliases.items()
                if not all(number in replies for number in self.by_rcpt[index])
            ),
        )


def expanded(
    accepted: Iterable[Accepted],
    expansions: Expansions,
    *,
    canonical: Callable[[Mailbox], Mailbox],
    local_domains: Container[str],
) -> ExpandedRecipients:
    """Return the recipients of a transaction, aliases expanded, each mailbox once.

    Args:
        accepted: recipients in the order of their RCPT.
        expansions: where they lead, by canonical mailbox; a mailbox that is missing is final.
        canonical: returns the canonical form of a mailbox.
        local_domains: in which the case of a local part is ignored.
    """
    recipients: dict[tuple[str, str, Mailbox | None], Recipient] = {}
    refused: dict[RecipientNumber, FinalRecipient] = {}
    paths: dict[RecipientNumber, list[AliasPath]] = {}
    by_rcpt: list[list[RecipientNumber]] = []
    aliases: dict[int, Recipient] = {}
    for index, rcpt in enumerate(accepted):
        numbers: list[RecipientNumber] = []
        by_rcpt.append(numbers)
        mailbox = canonical(rcpt.mailbox)
        final = expansions.final.get(mailbox)
        if final is None:
            final = (FinalRecipient(mailbox),)
        own = rcpt.parameters
        passed_on: Parameters | None = None  # one object for all members: there may be thousands
        several = len(final) > 1
        if several:
            alias = Recipient(RecipientNumber(len(aliases)), mailbox, own)
            if alias.is_to_notify("SUCCESS"):
                aliases[index] = alias
            if own:
                own = forwarded(own, mailbox, several=True)
        for member in final:
            reached = member.mailbox
            is_alias = reached is not mailbox and reached != mailbox
            if is_alias and passed_on is None:
                passed_on = forwarded(rcpt.parameters, rcpt.mailbox, several=several)
            local_part = reached.local_part
            if reached.domain in local_domains:
                local_part = folded(local_part)
            parameters = own if passed_on is None or not is_alias else passed_on
            key = local_part, reached.domain, member.reverse_path
            known = recipients.get(key)
            if known is None:
                known = recipients[key] = Recipient(
                    RecipientNumber(len(recipients)),
                    reached,
                    parameters,
                    original=rcpt.mailbox if is_alias else None,
                    reverse_path=member.reverse_path,
                    aliases=member.aliases,
                )
                if member.refusal is not None:
                    refused[known.number] = member
            else:
                paths.setdefault(known.number, [known.aliases]).append(member.aliases)
                if known.parameters != parameters:
                    both = merged(known.parameters, parameters)
                    recipients[key] = evolve(known, parameters=both)
            numbers.append(known.number)
    return ExpandedRecipients(
        _with_all_aliases(tuple(recipients.values()), paths), by_rcpt, aliases, refused, paths
    )


def _with_all_aliases(
    recipients: tuple[Recipient, ...], paths: Mapping[RecipientNumber, Sequence[AliasPath]]
) -> tuple[Recipient, ...]:
    """Return recipients that name the aliases of all paths that lead to them, not of the first.

    A recipient is in a loop only if each path is. Two aliases with the same members, of which the
    copies named one alone, would send mail that comes back to both of them round for ever.
    """
    if not paths:
        return recipients
    known: dict[tuple[AliasPath, ...], AliasPath] = {}
    changed = list(recipients)
    for number, several in paths.items():
        distinct = tuple(dict.fromkeys(several))
        named = known.get(distinct)
        if named is None:
            every = dict.fromkeys(alias for path in distinct for alias in path)
            named = known[distinct] = tuple(every)[:_MOST_ALIASES]
        changed[number] = evolve(changed[number], aliases=named)
    return tuple(changed)
