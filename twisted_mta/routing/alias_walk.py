"""Walk through the aliases from one mailbox to the final ones, depth first."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Literal, NamedTuple

from attrs import frozen

from ..mail.address import Mailbox, folded, is_postmaster
from ..mail.reply import Reply
from .alias_file import MOST_MEMBERS
from .aliases import Alias
from .mailbox_lookup import MailboxLookup
from .routes import DISCARD, NO_SUCH_MAILBOX
from .srs import is_srs

# Postfix stops at 1,000 (virtual_alias_expansion_limit); lists that people write by hand are
# smaller. 10,000 take 10 to 60 ms, in which nothing else happens.
MOST_RECIPIENTS = MOST_MEMBERS

# The first aliases on the way to a recipient that are kept. A loop through others is found one
# round later: then the mailbox that the mail comes back to is the first.
_MOST_PASSED = 16

# A mistake in the aliases is temporary (RFC 3463 X.3.5): the operator can correct it.
LOOP = Reply.of(451, "3.5", "The aliases of that mailbox lead nowhere but to themselves")
TOO_MANY = Reply.of(451, "3.5", f"That mailbox leads to more than {MOST_RECIPIENTS} others")

_Key = tuple[str, str]
"""A folded local part and a domain."""

Finding = Literal[
    "sender",
    "alias",
    "catch-all",
    "mailbox",
    "elsewhere",
    "discarded",
    "itself",
    "again",
    "postmaster",
    "nobody",
]
"""The result of looking up one mailbox during an expansion:

    sender      a reverse-path rewritten by SRS here: it leads back to the sender
    alias       it has an alias
    catch-all   its domain has a catch-all alias
    mailbox     it is a mailbox here
    elsewhere   its domain is foreign
    discarded   an alias leads to /dev/null
    itself      an alias of it leads back to it: the mailbox of that name, if it exists
    again       it was expanded before
    postmaster  it is that of a virtual domain: that of the first local domain gets the mail
    nobody      it does not exist; the other members get the mail
"""


@frozen
class ExpansionStep:
    """The lookup of one mailbox during an expansion, for an operator.

    Attributes:
        mailbox: that was looked up.
        depth: the number of aliases that led to it.
        finding: the result.
        leads_to: the mailboxes that are looked up next.
        line: of the alias in the file of aliases, 0 where there is none.
    """

    mailbox: Mailbox
    depth: int
    finding: Finding
    leads_to: tuple[Mailbox, ...] = ()
    line: int = 0


class Final(NamedTuple):
    """A mailbox where a walk through the aliases ends.

    Attributes:
        mailbox: without an alias of its own.
        aliases: that led to it, the first one first.
        refusal: why it gets no mail, or none for now; None: it does.
    """

    mailbox: Mailbox
    aliases: tuple[Mailbox, ...]
    refusal: Reply | None = None


@frozen
class _OpenAlias:
    """An alias whose targets are being walked through.

    Attributes:
        key: of its mailbox.
        siblings: the mailboxes still to be visited beside it.
        passed: the aliases that led to it.
    """

    key: _Key
    siblings: Iterator[Mailbox]
    passed: tuple[Mailbox, ...]


class AliasWalk:
    """A walk through the aliases, depth first, from one mailbox to all final ones.

    Args:
        lookup: looks up mailboxes.
        mailbox: the start, in one of our domains.
        reverse_path: of the mail; None: the null reverse-path.
        steps: where to add the steps.
    """

    def __init__(
        self,
        lookup: MailboxLookup,
        mailbox: Mailbox,
        reverse_path: Mailbox | None,
        steps: list[ExpansionStep] | None,
    ) -> None:
        self._lookup = lookup
        self._start = mailbox
        self._reverse_path = reverse_path
        self._steps = steps
        self._finals: dict[_Key, Final] = {}
        self._entered: dict[_Key, bool] = {}  # mailboxes with an alias; whether that is open
        self._open: list[_OpenAlias] = []
        self._passed: tuple[Mailbox, ...] = ()
        self._waiting: Iterator[Mailbox] = iter((mailbox,))

    def run(self) -> Sequence[Final] | Reply:
        """Return the final mailboxes, of which at least one gets the mail, or the refusal."""
        while True:
            mailbox = next(self._waiting, None)
            if mailbox is not None:
                if max(len(self._finals), len(self._entered)) >= MOST_RECIPIENTS:
                    return TOO_MANY
                self._visit(mailbox)
            elif self._open:
                left = self._open.pop()
                self._entered[left.key] = False
                self._waiting, self._passed = left.siblings, left.passed
            else:
                return _accepted(self._finals.values())

    def _visit(self, mailbox: Mailbox) -> None:
        lookup = self._lookup
        refusal: Reply | None = None
        srs = lookup.srs
        while srs and mailbox.domain in lookup.ours and is_srs(mailbox):
            restored = lookup.restored(srs, mailbox, self._reverse_path)
            if not isinstance(restored, Mailbox):
                refusal = restored
                break
            self._note(mailbox, "sender", (restored,))
            mailbox = restored
        if mailbox.domain not in lookup.ours:
            key = mailbox.local_part, mailbox.domain
            self._finals[key] = Final(mailbox, self._passed, lookup.refusal(mailbox))
            self._note(mailbox, "discarded" if mailbox.domain == DISCARD else "elsewhere")
            return
        key = folded(mailbox.local_part), mailbox.domain
        if refusal is not None:
            self._refuse(key, mailbox, refusal)
        elif key in self._entered:
            self._visit_again(key, mailbox)
        elif (alias := lookup.alias(mailbox)) is not None:
            self._enter(key, mailbox, alias)
        elif mailbox.domain not in lookup.local:
            if is_postmaster(mailbox):
                # RFC 5321 §4.5.1: every domain has one
                postmaster = Mailbox("postmaster", lookup.first_local)
                self._note(mailbox, "postmaster", (postmaster,))
                self._descend(key, iter((postmaster,)))
            else:
                self._refuse(key, mailbox, NO_SUCH_MAILBOX)
        elif mailbox is self._start:
            # Whether a mailbox without an alias is accepted is for the caller to decide.
            self._finals[key] = Final(mailbox, self._passed)
            if self._steps is not None:  # most mailboxes end here: no call without need
                self._note(mailbox, "mailbox")
        elif lookup.is_mailbox(mailbox):
            self._finals.setdefault(key, Final(mailbox, self._passed, lookup.refusal(mailbox)))
            self._note(mailbox, "mailbox")
        else:
            self._refuse(key, mailbox, NO_SUCH_MAILBOX)

    def _visit_again(self, key: _Key, mailbox: Mailbox) -> None:
        lookup = self._lookup
        # aliases(5): an alias that leads back to itself means the mailbox of that name.
        if self._entered[key] and mailbox.domain in lookup.local and lookup.is_mailbox(mailbox):
            self._finals[key] = Final(mailbox, self._passed, lookup.refusal(mailbox))
            self._note(mailbox, "itself")
        elif key == self._open[-1].key:
            self._refuse(key, mailbox, NO_SUCH_MAILBOX)
        else:
            self._note(mailbox, "again")

    def _enter(self, key: _Key, mailbox: Mailbox, alias: Alias) -> None:
        lookup = self._lookup
        if self._steps is not None:
            finding: Finding = "catch-all" if alias.key.startswith("@") else "alias"
            self._note(mailbox, finding, tuple(lookup.targets(alias, mailbox)), alias.line)
        self._descend(key, lookup.targets(alias, mailbox))
        passed = passed_alias(alias, mailbox)
        if len(self._passed) < _MOST_PASSED and passed not in self._passed:
            self._passed = (*self._passed, passed)

    def _descend(self, key: _Key, targets: Iterator[Mailbox]) -> None:
        self._entered[key] = True
        self._open.append(_OpenAlias(key, self._waiting, self._passed))
        self._waiting = targets

    def _refuse(self, key: _Key, mailbox: Mailbox, refusal: Reply) -> None:
        self._finals.setdefault(key, Final(mailbox, self._passed, refusal))
        self._note(mailbox, "nobody")

    def _note(
        self,
        mailbox: Mailbox,
        finding: Finding,
        leads_to: tuple[Mailbox, ...] = (),
        line: int = 0,
    ) -> None:
        if self._steps is not None:
            step = ExpansionStep(mailbox, len(self._open), finding, leads_to, line)
            self._steps.append(step)


def _accepted(finals: Collection[Final]) -> Sequence[Final] | Reply:
    """Return the final mailboxes, or the refusal of all if none of them gets mail.

    Where some of them do, a temporary refusal of others is dropped: the queue tries them again.
    """
    refusals = [each.refusal for each in finals if each.refusal is not None]
    if len(refusals) == len(finals):
        return next((each for each in refusals if each.code < 500), None) or (refusals or [LOOP])[0]
    return [
        each._replace(refusal=None) if each.refusal and each.refusal.code < 500 else each
        for each in finals
    ]


def passed_alias(alias: Alias | None, mailbox: Mailbox) -> Mailbox:
    """Return the name of an alias that mail for ``mailbox`` passes, for the detection of loops.

    It has the tag only if the alias has it: a loop may add another tag in each round.
    """
    name = folded(mailbox.local_part)
    if alias is None or alias.key not in (name, f"{name}@{mailbox.domain}"):
        name = name.partition("+")[0] or name
    return Mailbox(name, mailbox.domain)
