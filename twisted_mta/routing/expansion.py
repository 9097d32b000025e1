"""Expansion: from a mailbox of ours to the mailboxes that mail for it goes to.

What is looked up is, in this order: a mailbox that SRS made here, which leads back to a sender; an
alias of the whole mailbox, then of the mailbox without its tag; in a local domain the mailbox
itself, if it exists; the catch-all alias of the domain. In a virtual domain there are no mailboxes
but aliases.

A member of a list that does not exist does not keep mail from the others: it is a final recipient
with a refusal. If no member exists, the list does not.

Where mail goes on to somebody else's domain, its reverse-path is rewritten (`srs`), so that we are
who sends it. The aliases that were passed on the way are kept with each final recipient: mail that
comes back to one of them is in a loop.
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
from .aliases import MOST_MEMBERS, Alias, Aliases
from .routes import NO_SUCH_MAILBOX
from .srs import BadSRS, SenderRewriting, TooOld, is_srs

# Postfix stops at 1,000 (virtual_alias_expansion_limit); lists that people write by hand are
# smaller. 10,000 take 10 to 60 ms, in which nothing else happens.
MOST_RECIPIENTS = MOST_MEMBERS

# Of the aliases that led to one recipient, so many of the first are kept. A loop through the others
# is found as well, one round later: where it comes back is then the first.
_MOST_PASSED = 16

# What an operator can mend is tried again (RFC 3463 X.3.5).
LOOP = Reply.of(451, "3.5", "The aliases of that mailbox lead nowhere but to themselves")
TOO_MANY = Reply.of(451, "3.5", f"That mailbox leads to more than {MOST_RECIPIENTS} others")
NOT_OURS = Reply.of(550, "1.1", "No such mailbox here: it leads back to no sender")
TOO_OLD = Reply.of(
    550, "1.1", "No such mailbox here: it led back to a sender for 21 days, and these are over"
)
NOTICES_ONLY = Reply.of(550, "7.1", "That mailbox takes notices alone, from the null reverse-path")

_Key = tuple[str, str]

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
"""What is found of a mailbox on the way through the aliases:

    sender      SRS made it: it leads back to a sender
    alias       it has an entry in the file of aliases
    catch-all   its domain has
    mailbox     it is one, here
    elsewhere   it is somebody else's
    itself      an alias of it leads back to it: the mailbox of that name, if there is one
    again       it was come by before
    postmaster  the first local domain's gets its mail
    nobody      there is no such mailbox, and the others get the mail
"""


@frozen
class ExpansionStep:
    """One mailbox on the way.

    Attributes:
        mailbox: see there.
        depth: how many aliases lead here.
        finding: see there.
        leads_to: where it goes on.
        line: of the entry in the file of aliases, 0 where there is none.
    """

    mailbox: Mailbox
    depth: int
    finding: Finding
    leads_to: tuple[Mailbox, ...] = ()
    line: int = 0


class Expander:
    """Expands the mailboxes of ours; `expand` is an `interfaces.Expand`.

    Immutable: when aliases change, there is a new one.

    Args:
        local_domains: canonical, at least one; where Maildirs, or hosts behind a route, are.
        virtual_domains: canonical; where aliases alone are.
        aliases: see there.
        srs: writes and reads rewritten reverse-paths; None: they stay as they are.
        exists: whether a mailbox of a local domain is taken; may block.
        refusal: what is known to become of mail for a mailbox anywhere, if that is a failure.
        has_mailbox: whether somebody made a mailbox in a local domain, so that it is not the
            catch-all's; may block.
        wall_time: for the age of rewritten reverse-paths.

    Attributes:
        domains: all that mail is taken for, the first local one first.
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
        self._local = dict.fromkeys(local_domains)
        self._first = local_domains[0]
        self._aliases = aliases or Aliases()
        self._srs = srs
        self._exists = exists
        self._refusal = refusal
        self._has_mailbox = has_mailbox
        self._wall_time = wall_time
        ours = dict.fromkeys((*local_domains, *virtual_domains))
        if srs is not None:
            ours[srs.domain] = None
        self._ours = ours
        self.domains = tuple(ours)

    def expand(
        self, mailbox: Mailbox, reverse_path: Mailbox | None
    ) -> Sequence[FinalRecipient] | Reply:
        """Return where mail for a mailbox goes (`interfaces.Expand`)."""
        return self._expand(mailbox, reverse_path, None)

    def explained(
        self, mailbox: Mailbox, reverse_path: Mailbox | None
    ) -> tuple[Sequence[FinalRecipient] | Reply, Sequence[ExpansionStep]]:
        """Return the same as `expand`, and how that came about."""
        steps: list[ExpansionStep] = []
        return self._expand(mailbox, reverse_path, steps), steps

    def alias_of(self, mailbox: Mailbox) -> str:
        """Return what is the same for all mailboxes of ours that have one alias, and no others.

        A name that leads to other names is an alias of its own in each domain.
        """
        alias = self._aliases.find(mailbox, bare=mailbox.domain in self._local)
        if alias is None:
            return str(_passed(None, mailbox))
        if "@" not in alias.key and any(each.domain is None for each in alias.targets):
            return f"{alias.key}@{mailbox.domain}"
        return alias.key

    def _expand(
        self, mailbox: Mailbox, reverse_path: Mailbox | None, steps: list[ExpansionStep] | None
    ) -> Sequence[FinalRecipient] | Reply:
        ends = self._ends(mailbox, reverse_path, steps)
        if isinstance(ends, Reply):
            return ends
        srs = self._srs
        rewritten: Mailbox | None = None
        if srs is not None and reverse_path is not None and reverse_path.domain not in self._ours:
            rewritten = srs.rewritten(reverse_path, self._wall_time())
            if rewritten == reverse_path:
                rewritten = None
        owners: dict[tuple[Mailbox, ...], Mailbox | None] = {}
        for _, aliases, refusal in ends:
            if refusal is not None and aliases not in owners:
                owners[aliases] = self._owner(aliases)
        return [
            FinalRecipient(
                mailbox,
                None if mailbox.domain in self._ours else rewritten,
                aliases,
                refusal,
                None if refusal is None else owners[aliases],
            )
            for mailbox, aliases, refusal in ends
        ]

    def missing_members(self) -> Iterator[tuple[Alias, Mailbox, Reply]]:
        """Yield each entry with each member of it that gets nothing, and why; may block.

        Members of other lists are those lists' to name. A name that holds in every local domain is
        looked at in the first.
        """
        for alias in self._aliases.entries.values():
            name, _, domain = alias.key.rpartition("@")
            mailbox = Mailbox(name, domain) if domain in self._ours else None
            mailbox = mailbox or Mailbox(alias.key, self._first)
            for target in self._targets(alias, mailbox):
                if target.local_part and (refusal := self._member_refusal(target, alias)):
                    yield alias, target, refusal

    def _member_refusal(self, member: Mailbox, of: Alias) -> Reply | None:
        """Return why a member gets nothing; None: it gets the mail, or its own alias decides."""
        if member.domain in self._ours:
            alias = self._alias(member)
            if alias is not None and alias.key != of.key:
                return None
            local = member.domain in self._local
            if not local and _is_postmaster(member):
                return None  # the first local domain's gets it
            if not _is_postmaster(member) and not (local and self._exists(member)):
                return NO_SUCH_MAILBOX
        refusal = self._refusal(member)
        return refusal if refusal is not None and refusal.code >= 500 else None

    def _owner(self, aliases: Sequence[Mailbox]) -> Mailbox | None:
        """Return who looks after a list (``owner-list``, as in aliases(5)), or one around it.

        An owner that leads to nobody would hear nothing, so the next one counts.
        """
        for each in reversed(aliases):
            owner = Mailbox(f"owner-{each.local_part}", each.domain)
            if self._aliases.find(owner, bare=each.domain in self._local) is None:
                continue
            if not isinstance(self._ends(owner, None, None), Reply):
                return owner
        return None

    def recipients(self, mailbox: Mailbox) -> tuple[Recipient, ...]:
        """Return the recipients of a message that we write ourselves, such as a notice.

        Args:
            mailbox: ours or not. One of a local domain that does not exist, or leads to no
                mailbox, gets none: mail for it would make a mailbox of it. Else what leads nowhere
                stays as it is: what becomes of mail for it is then for its route to say.
        """
        found: Sequence[FinalRecipient] | Reply = ()
        if mailbox.domain in self._ours:
            found = self.expand(mailbox, None)
        if mailbox.domain in self._local and self._leads_to_nobody(mailbox, found):
            return ()
        if isinstance(found, Reply):
            found = ()
        missing = [each.mailbox for each in found if each.refusal is not None]
        if missing:
            self._say_missing(mailbox, missing)
            found = [each for each in found if each.refusal is None]
        return tuple(
            Recipient(
                RecipientNumber(number),
                each.mailbox,
                original=None if each.mailbox == mailbox else mailbox,
                aliases=each.aliases,
            )
            for number, each in enumerate(found or (FinalRecipient(mailbox),))
        )

    def _leads_to_nobody(self, mailbox: Mailbox, found: Sequence[FinalRecipient] | Reply) -> bool:
        """Whether there is no mailbox where mail for one of a local domain goes."""
        if self._is_mailbox(mailbox):
            return False
        if isinstance(found, Reply):
            return found.code >= 500
        return len(found) == 1 and found[0].mailbox == mailbox

    def _say_missing(self, mailbox: Mailbox, missing: Sequence[Mailbox]) -> None:
        self._log.warn(
            "the alias {mailbox} leads to {missing}: no such mailbox here",
            mailbox=printable(str(mailbox)),
            missing=printable(", ".join(map(str, missing[:10]))),
        )

    def _restored(
        self, srs: SenderRewriting, mailbox: Mailbox, reverse_path: Mailbox | None
    ) -> Mailbox | Reply | None:
        """Return the mailbox that SRS made one of ours of, or why it is refused; None: of none.

        What it returns is shorter, so there is an end to restoring.
        """
        # Who would use it for anything but a notice has not got it from us for that. The hash
        # proves that we relayed from there to here, and no more (RFC 5321 §4.5.5: notices have a
        # null reverse-path).
        if reverse_path is not None and mailbox.domain == srs.domain:
            return NOTICES_ONLY
        try:
            restored = srs.restored(mailbox, self._wall_time())
        except TooOld:
            return TOO_OLD
        except BadSRS:
            # In a domain that SRS has never written it may be the name of any mailbox.
            return NOT_OURS if mailbox.domain == srs.domain else None
        return restored if reverse_path is None else NOTICES_ONLY

    def _ends(
        self,
        mailbox: Mailbox,
        reverse_path: Mailbox | None,
        steps: list[ExpansionStep] | None,
    ) -> Sequence[_End] | Reply:
        """Return the mailboxes at the ends of all ways through the aliases; one at least exists."""

        def note(
            target: Mailbox,
            finding: Finding,
            leads_to: tuple[Mailbox, ...] = (),
            alias: Alias | None = None,
        ) -> None:
            if steps is not None:
                line = 0 if alias is None else alias.line
                steps.append(ExpansionStep(target, len(within), finding, leads_to, line))

        def missing(key: _Key, target: Mailbox, refusal: Reply) -> None:
            found.setdefault(key, _End(target, passed, refusal))
            note(target, "nobody")

        srs, ours = self._srs, self._ours
        found: dict[_Key, _End] = {}
        begun: dict[_Key, bool] = {}  # what has an alias: whether we are within that
        within: list[_Within] = []
        passed: tuple[Mailbox, ...] = ()
        targets: Iterator[Mailbox] = iter((mailbox,))
        while True:
            target = next(targets, None)
            if target is None:
                if not within:
                    return _taken(found.values())
                last = within.pop()
                begun[last.key] = False
                targets, passed = last.targets, last.passed
                continue
            if max(len(found), len(begun)) >= MOST_RECIPIENTS:
                return TOO_MANY
            refusal: Reply | None = None
            while srs and target.domain in ours and is_srs(target):
                restored = self._restored(srs, target, reverse_path)
                if not isinstance(restored, Mailbox):
                    refusal = restored
                    break
                note(target, "sender", (restored,))
                target = restored
            if target.domain not in ours:
                refusal = self._refusal(target)
                found[target.local_part, target.domain] = _End(target, passed, refusal)
                note(target, "elsewhere")
                continue
            key = folded(target.local_part), target.domain
            if refusal is not None:
                missing(key, target, refusal)
                continue
            local = target.domain in self._local
            if key in begun:
                # aliases(5): a name that leads back to itself means the mailbox of that name.
                if begun[key] and local and self._is_mailbox(target):
                    found[key] = _End(target, passed, self._refusal(target))
                    note(target, "itself")
                elif key == within[-1].key:
                    missing(key, target, NO_SUCH_MAILBOX)
                else:
                    note(target, "again")
                continue
            alias = self._alias(target)
            if alias is not None:
                begun[key] = True
                if steps is not None:
                    finding: Finding = "catch-all" if alias.key.startswith("@") else "alias"
                    note(target, finding, tuple(self._targets(alias, target)), alias)
                within.append(_Within(key, targets, passed))
                mark = _passed(alias, target)
                if len(passed) < _MOST_PASSED and mark not in passed:
                    passed = (*passed, mark)
                targets = self._targets(alias, target)
            elif not local and _is_postmaster(target):
                # RFC 5321 §4.5.1: in every domain there is one
                begun[key] = True
                note(target, "postmaster", (Mailbox("postmaster", self._first),))
                within.append(_Within(key, targets, passed))
                targets = iter((Mailbox("postmaster", self._first),))
            elif local and target is mailbox:
                # Whether mail is taken for what has no alias is for the one who asks to say.
                found[key] = _End(target, passed)
                note(target, "mailbox")
            elif local and self._is_mailbox(target):
                found.setdefault(key, _End(target, passed, self._refusal(target)))
                note(target, "mailbox")
            else:
                missing(key, target, NO_SUCH_MAILBOX)

    def _is_mailbox(self, mailbox: Mailbox) -> bool:
        """Whether mail for a member in a local domain, aliases aside, is taken."""
        return _is_postmaster(mailbox) or self._exists(mailbox)

    def _alias(self, mailbox: Mailbox) -> Alias | None:
        local = mailbox.domain in self._local
        alias = self._aliases.find(mailbox, bare=local)
        if alias is None:
            alias = self._aliases.catch_all(mailbox.domain)
            if alias is not None and local and self._has_mailbox(mailbox):
                return None
        return alias

    def _targets(self, alias: Alias, mailbox: Mailbox) -> Iterator[Mailbox]:
        domain = mailbox.domain if mailbox.domain in self._local else self._first
        for target in alias.targets:
            yield Mailbox(
                mailbox.local_part if target.local_part is None else target.local_part,
                domain if target.domain is None else target.domain,
            )


class _End(NamedTuple):
    """The end of a way through the aliases.

    Attributes:
        mailbox: see there.
        aliases: that were passed.
        refusal: why mail for it is not taken, or not now; None: it is.
    """

    mailbox: Mailbox
    aliases: tuple[Mailbox, ...]
    refusal: Reply | None = None


@frozen
class _Within:
    """An alias whose targets are being looked at.

    Attributes:
        key: of the mailbox that has it.
        targets: what is left to be looked at behind it.
        passed: the aliases that led to it.
    """

    key: _Key
    targets: Iterator[Mailbox]
    passed: tuple[Mailbox, ...]


def _taken(ends: Collection[_End]) -> Sequence[_End] | Reply:
    """Return the ends, or the refusal of all if mail for none of them is taken.

    Where it is taken for some, what refuses others for a while is for the queue to wait out.
    """
    refusals = [each.refusal for each in ends if each.refusal is not None]
    if len(refusals) == len(ends):
        return next((each for each in refusals if each.code < 500), None) or (refusals or [LOOP])[0]
    return [
        each._replace(refusal=None) if each.refusal and each.refusal.code < 500 else each
        for each in ends
    ]


def _passed(alias: Alias | None, mailbox: Mailbox) -> Mailbox:
    """Return the name by which an alias is known that mail for a mailbox passes.

    That has the tag only if the alias has it: a loop may make another one in each round.
    """
    name = folded(mailbox.local_part)
    if alias is None or alias.key not in (name, f"{name}@{mailbox.domain}"):
        name = name.partition("+")[0] or name
    return Mailbox(name, mailbox.domain)


def _is_postmaster(mailbox: Mailbox) -> bool:
    return folded(mailbox.local_part).partition("+")[0] == "postmaster"
