"""Expand a mailbox of ours: follow its aliases to the final recipients.

A mailbox is looked up in this order: as a reverse-path rewritten by SRS, which leads back to a
sender; as an alias of the whole mailbox, then without its tag; in a local domain, as a mailbox that
exists; as the catch-all alias of its domain. A virtual domain has aliases only.

A member of a list that does not exist does not keep mail from the others: it is a final recipient
with a refusal. If no member exists, the list does not.

Where mail is forwarded to a foreign domain, its reverse-path is rewritten (`srs`), so that SPF
holds. Each final recipient keeps the aliases that led to it: mail that comes back to one of them is
in a loop.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Literal, NamedTuple

from attrs import frozen
from twisted.logger import Logger

from ..interfaces import WallTime
from ..mail.address import Mailbox, folded
from ..mail.envelope import Recipient, RecipientNumber
from ..mail.final_recipient import FinalRecipient
from ..mail.printable import printable
from ..mail.reply import Reply
from .alias_file import MOST_MEMBERS
from .aliases import Alias, Aliases
from .routes import NO_SUCH_MAILBOX
from .srs import BadSRS, SenderRewriting, TooOld, is_srs

# Postfix stops at 1,000 (virtual_alias_expansion_limit); lists that people write by hand are
# smaller. 10,000 take 10 to 60 ms, in which nothing else happens.
MOST_RECIPIENTS = MOST_MEMBERS

# The first aliases on the way to a recipient that are kept. A loop through others is found one
# round later: then the mailbox that the mail comes back to is the first.
_MOST_PASSED = 16

# A mistake in the aliases is temporary (RFC 3463 X.3.5): the operator can correct it.
LOOP = Reply.of(451, "3.5", "The aliases of that mailbox lead nowhere but to themselves")
TOO_MANY = Reply.of(451, "3.5", f"That mailbox leads to more than {MOST_RECIPIENTS} others")
NOT_OURS = Reply.of(550, "1.1", "No such mailbox here: it leads back to no sender")
TOO_OLD = Reply.of(
    550, "1.1", "No such mailbox here: it led back to a sender for 21 days, and these are over"
)
NOTICES_ONLY = Reply.of(550, "7.1", "That mailbox takes notices alone, from the null reverse-path")

_Key = tuple[str, str]
"""A folded local part and a domain."""

Finding = Literal[
    "sender",
    "alias",
    "catch-all",
    "mailbox",
    "elsewhere",
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


class Expander:
    """Expands mailboxes of ours; `expand` is an `interfaces.Expand`.

    Immutable: changed aliases need a new one.

    Args:
        local_domains: canonical, at least one; their mailboxes are Maildirs, or on the hosts of a
            route.
        virtual_domains: canonical; they have aliases only.
        aliases: None: there are none.
        srs: rewrites reverse-paths and restores them; None: they stay as they are.
        exists: whether a mailbox of a local domain is accepted; may block.
        refusal: the permanent or temporary failure that a delivery to a mailbox anywhere is known
            to meet; None: none is known.
        has_mailbox: whether a mailbox of a local domain was created, so that the catch-all alias
            does not apply; may block.
        wall_time: seconds since the epoch, for the age of rewritten reverse-paths.

    Attributes:
        domains: all domains of ours, the first local one first.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        local_domains: Sequence[str],
        virtual_domains: Sequence[str] = (),
        aliases: Aliases | None = None,
        srs: SenderRewriting | None = None,
        exists: Callable[[Mailbox], bool] = lambda mailbox: True,
        refusal: Callable[[Mailbox], Reply | None] = lambda mailbox: None,
        has_mailbox: Callable[[Mailbox], bool] = lambda mailbox: False,
        wall_time: WallTime,
    ) -> None:
        self.local = dict.fromkeys(local_domains)
        self.first_local = local_domains[0]
        self.srs = srs
        self.refusal = refusal
        self._aliases = aliases or Aliases()
        self._exists = exists
        self._has_mailbox = has_mailbox
        self._wall_time = wall_time
        ours = dict.fromkeys((*local_domains, *virtual_domains))
        if srs is not None:
            ours[srs.domain] = None
        self.ours = ours
        self.domains = tuple(ours)

    # Expansion.

    def expand(
        self,
        mailbox: Mailbox,
        reverse_path: Mailbox | None,
        steps: list[ExpansionStep] | None = None,
    ) -> Sequence[FinalRecipient] | Reply:
        """Return the final recipients of a mailbox, or its refusal (`interfaces.Expand`).

        Args:
            mailbox: in one of our domains.
            reverse_path: of the mail; None: the null reverse-path.
            steps: where to add the steps of the expansion.
        """
        finals = _Walk(self, mailbox, reverse_path, steps).run()
        if isinstance(finals, Reply):
            return finals
        srs = self.srs
        rewritten: Mailbox | None = None
        if srs is not None and reverse_path is not None and reverse_path.domain not in self.ours:
            rewritten = srs.rewritten(reverse_path, self._wall_time())
            if rewritten == reverse_path:
                rewritten = None
        owners: dict[tuple[Mailbox, ...], Mailbox | None] = {}
        for _, aliases, refusal in finals:
            if refusal is not None and aliases not in owners:
                owners[aliases] = self._owner(aliases)
        return [
            FinalRecipient(
                mailbox,
                None if mailbox.domain in self.ours else rewritten,
                aliases,
                refusal,
                None if refusal is None else owners[aliases],
            )
            for mailbox, aliases, refusal in finals
        ]

    def _owner(self, aliases: Sequence[Mailbox]) -> Mailbox | None:
        """Return the owner of the innermost list that has one (``owner-list``, aliases(5)).

        An owner that itself leads to no mailbox does not count.
        """
        for each in reversed(aliases):
            owner = Mailbox(f"owner-{each.local_part}", each.domain)
            if self._aliases.find(owner, bare=each.domain in self.local) is None:
                continue
            if not isinstance(_Walk(self, owner, None, None).run(), Reply):
                return owner
        return None

    def alias_of(self, mailbox: Mailbox) -> str:
        """Return a key that all mailboxes of ours with the same alias share, and no others.

        A name with targets in its own domain is a different alias in each domain.
        """
        alias = self._aliases.find(mailbox, bare=mailbox.domain in self.local)
        if alias is None:
            return str(_passed(None, mailbox))
        if "@" not in alias.key and any(each.domain is None for each in alias.targets):
            return f"{alias.key}@{mailbox.domain}"
        return alias.key

    # Lookups.

    def alias(self, mailbox: Mailbox) -> Alias | None:
        """Return the alias that applies to a mailbox of ours, the catch-all included; may block."""
        local = mailbox.domain in self.local
        alias = self._aliases.find(mailbox, bare=local)
        if alias is None:
            alias = self._aliases.catch_all(mailbox.domain)
            if alias is not None and local and self._has_mailbox(mailbox):
                return None
        return alias

    def targets(self, alias: Alias, mailbox: Mailbox) -> Iterator[Mailbox]:
        """Yield the mailboxes that an alias of ``mailbox`` leads to."""
        domain = mailbox.domain if mailbox.domain in self.local else self.first_local
        for target in alias.targets:
            yield Mailbox(
                mailbox.local_part if target.local_part is None else target.local_part,
                domain if target.domain is None else target.domain,
            )

    def is_mailbox(self, mailbox: Mailbox) -> bool:
        """Whether a mailbox of a local domain exists, aliases aside; may block."""
        return _is_postmaster(mailbox) or self._exists(mailbox)

    def restored(
        self, srs: SenderRewriting, mailbox: Mailbox, reverse_path: Mailbox | None
    ) -> Mailbox | Reply | None:
        """Return the sender that a rewritten mailbox of ours leads back to, or its refusal.

        None: it was not rewritten here. The result is shorter than ``mailbox``, so that restoring
        comes to an end.
        """
        # Rewritten mailboxes are for notices, which have a null reverse-path (RFC 5321 §4.5.5).
        # Its hash proves only that we relayed mail from there.
        if reverse_path is not None and mailbox.domain == srs.domain:
            return NOTICES_ONLY
        try:
            restored = srs.restored(mailbox, self._wall_time())
        except TooOld:
            return TOO_OLD
        except BadSRS:
            # In a domain that SRS does not use, it may be an ordinary mailbox of that name.
            return NOT_OURS if mailbox.domain == srs.domain else None
        return restored if reverse_path is None else NOTICES_ONLY

    # Missing members.

    def missing_members(self) -> Iterator[tuple[Alias, Mailbox, Reply]]:
        """Yield (alias, member, refusal) for each member that gets no mail; may block.

        Members of nested lists are yielded with those. A key without a domain is examined in the
        first local domain.
        """
        for alias in self._aliases.entries.values():
            name, _, domain = alias.key.rpartition("@")
            mailbox = Mailbox(name, domain) if domain in self.ours else None
            mailbox = mailbox or Mailbox(alias.key, self.first_local)
            for target in self.targets(alias, mailbox):
                if target.local_part and (refusal := self._member_refusal(target, alias)):
                    yield alias, target, refusal

    def _member_refusal(self, member: Mailbox, of: Alias) -> Reply | None:
        """Return why a member gets no mail; None: it does, or its own alias decides."""
        if member.domain in self.ours:
            alias = self.alias(member)
            if alias is not None and alias.key != of.key:
                return None
            local = member.domain in self.local
            if not local and _is_postmaster(member):
                return None  # the postmaster of the first local domain gets the mail
            if not _is_postmaster(member) and not (local and self._exists(member)):
                return NO_SUCH_MAILBOX
        refusal = self.refusal(member)
        return refusal if refusal is not None and refusal.code >= 500 else None

    # Mail of our own.

    def notice_recipients(self, mailbox: Mailbox) -> tuple[Recipient, ...]:
        """Return the recipients of a message of our own, such as a notice, to ``mailbox``.

        Args:
            mailbox: anywhere. There are no recipients where it is in a local domain and does not
                exist, or leads to no mailbox: a delivery would create that mailbox. Any other
                mailbox without final recipients stays as it is, and its route decides.
        """
        finals: Sequence[FinalRecipient] | Reply = ()
        if mailbox.domain in self.ours:
            finals = self.expand(mailbox, None)
        if mailbox.domain in self.local and self._leads_to_no_mailbox(mailbox, finals):
            return ()
        if isinstance(finals, Reply):
            finals = ()
        missing = [each.mailbox for each in finals if each.refusal is not None]
        if missing:
            self._log.warn(
                "the alias {mailbox} leads to {missing}: no such mailbox here",
                mailbox=printable(str(mailbox)),
                missing=printable(", ".join(map(str, missing[:10]))),
            )
            finals = [each for each in finals if each.refusal is None]
        return tuple(
            Recipient(
                RecipientNumber(number),
                each.mailbox,
                original=None if each.mailbox == mailbox else mailbox,
                aliases=each.aliases,
            )
            for number, each in enumerate(finals or (FinalRecipient(mailbox),))
        )

    def _leads_to_no_mailbox(
        self, mailbox: Mailbox, finals: Sequence[FinalRecipient] | Reply
    ) -> bool:
        """Whether mail for a mailbox of a local domain reaches no mailbox that exists."""
        if self.is_mailbox(mailbox):
            return False
        if isinstance(finals, Reply):
            return finals.code >= 500
        return len(finals) == 1 and finals[0].mailbox == mailbox


class _Final(NamedTuple):
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


class _Walk:
    """A walk through the aliases, depth first, from one mailbox to all final ones.

    Args:
        expander: looks up mailboxes.
        mailbox: the start, in one of our domains.
        reverse_path: of the mail; None: the null reverse-path.
        steps: where to add the steps.
    """

    def __init__(
        self,
        expander: Expander,
        mailbox: Mailbox,
        reverse_path: Mailbox | None,
        steps: list[ExpansionStep] | None,
    ) -> None:
        self._expander = expander
        self._start = mailbox
        self._reverse_path = reverse_path
        self._steps = steps
        self._finals: dict[_Key, _Final] = {}
        self._entered: dict[_Key, bool] = {}  # mailboxes with an alias; whether that is open
        self._open: list[_OpenAlias] = []
        self._passed: tuple[Mailbox, ...] = ()
        self._waiting: Iterator[Mailbox] = iter((mailbox,))

    def run(self) -> Sequence[_Final] | Reply:
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
        expander = self._expander
        refusal: Reply | None = None
        srs = expander.srs
        while srs and mailbox.domain in expander.ours and is_srs(mailbox):
            restored = expander.restored(srs, mailbox, self._reverse_path)
            if not isinstance(restored, Mailbox):
                refusal = restored
                break
            self._note(mailbox, "sender", (restored,))
            mailbox = restored
        if mailbox.domain not in expander.ours:
            key = mailbox.local_part, mailbox.domain
            self._finals[key] = _Final(mailbox, self._passed, expander.refusal(mailbox))
            self._note(mailbox, "elsewhere")
            return
        key = folded(mailbox.local_part), mailbox.domain
        if refusal is not None:
            self._refuse(key, mailbox, refusal)
        elif key in self._entered:
            self._visit_again(key, mailbox)
        elif (alias := expander.alias(mailbox)) is not None:
            self._enter(key, mailbox, alias)
        elif mailbox.domain not in expander.local:
            if _is_postmaster(mailbox):
                # RFC 5321 §4.5.1: every domain has one
                postmaster = Mailbox("postmaster", expander.first_local)
                self._note(mailbox, "postmaster", (postmaster,))
                self._descend(key, iter((postmaster,)))
            else:
                self._refuse(key, mailbox, NO_SUCH_MAILBOX)
        elif mailbox is self._start:
            # Whether a mailbox without an alias is accepted is for the caller to decide.
            self._finals[key] = _Final(mailbox, self._passed)
            self._note(mailbox, "mailbox")
        elif expander.is_mailbox(mailbox):
            self._finals.setdefault(key, _Final(mailbox, self._passed, expander.refusal(mailbox)))
            self._note(mailbox, "mailbox")
        else:
            self._refuse(key, mailbox, NO_SUCH_MAILBOX)

    def _visit_again(self, key: _Key, mailbox: Mailbox) -> None:
        expander = self._expander
        # aliases(5): an alias that leads back to itself means the mailbox of that name.
        if self._entered[key] and mailbox.domain in expander.local and expander.is_mailbox(mailbox):
            self._finals[key] = _Final(mailbox, self._passed, expander.refusal(mailbox))
            self._note(mailbox, "itself")
        elif key == self._open[-1].key:
            self._refuse(key, mailbox, NO_SUCH_MAILBOX)
        else:
            self._note(mailbox, "again")

    def _enter(self, key: _Key, mailbox: Mailbox, alias: Alias) -> None:
        expander = self._expander
        if self._steps is not None:
            finding: Finding = "catch-all" if alias.key.startswith("@") else "alias"
            self._note(mailbox, finding, tuple(expander.targets(alias, mailbox)), alias.line)
        self._descend(key, expander.targets(alias, mailbox))
        passed = _passed(alias, mailbox)
        if len(self._passed) < _MOST_PASSED and passed not in self._passed:
            self._passed = (*self._passed, passed)

    def _descend(self, key: _Key, targets: Iterator[Mailbox]) -> None:
        self._entered[key] = True
        self._open.append(_OpenAlias(key, self._waiting, self._passed))
        self._waiting = targets

    def _refuse(self, key: _Key, mailbox: Mailbox, refusal: Reply) -> None:
        self._finals.setdefault(key, _Final(mailbox, self._passed, refusal))
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


def _accepted(finals: Collection[_Final]) -> Sequence[_Final] | Reply:
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


def _passed(alias: Alias | None, mailbox: Mailbox) -> Mailbox:
    """Return the name of an alias that mail for ``mailbox`` passes, for the detection of loops.

    It has the tag only if the alias has it: a loop may add another tag in each round.
    """
    name = folded(mailbox.local_part)
    if alias is None or alias.key not in (name, f"{name}@{mailbox.domain}"):
        name = name.partition("+")[0] or name
    return Mailbox(name, mailbox.domain)


def _is_postmaster(mailbox: Mailbox) -> bool:
    return folded(mailbox.local_part).partition("+")[0] == "postmaster"
