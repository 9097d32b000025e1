"""Expansion: from a mailbox of ours to the mailboxes that mail for it goes to.

What is looked up is, in this order: a mailbox that SRS made here, which leads back to a sender; an
alias of the whole mailbox, then of the mailbox without its tag; in a local domain the mailbox
itself, if it exists; the catch-all alias of the domain. In a virtual domain there are no mailboxes
but aliases.

Where mail goes on to somebody else's domain, its reverse-path is rewritten (`srs`), so that we are
who sends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from attrs import frozen
from twisted.logger import Logger

from ..envelope import Recipient, RecipientNumber
from ..interfaces import FinalRecipient, WallTime
from ..smtp.address import Mailbox, folded
from ..smtp.reply import Reply, printable
from .aliases import Alias, Aliases
from .routes import NO_SUCH_MAILBOX
from .srs import BadSRS, SenderRewriting, TooOld, is_srs

# Postfix stops at 1,000 (virtual_alias_expansion_limit); lists that people write by hand are
# smaller. 10,000 take 10 to 60 ms, in which nothing else happens.
MOST_RECIPIENTS = 10_000

# What an operator can mend is tried again (RFC 3463 X.3.5).
LOOP = Reply.of(451, "3.5", "The aliases of that mailbox lead nowhere but to themselves")
TOO_MANY = Reply.of(451, "3.5", f"That mailbox leads to more than {MOST_RECIPIENTS} others")
NOT_OURS = Reply.of(550, "1.1", "No such mailbox here: it leads back to no sender")
TOO_OLD = Reply.of(550, "1.1", "No such mailbox here: it led back to a sender, for some days")
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
    nobody      there is no such mailbox
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
        has_mailbox: Callable[[Mailbox], bool] = lambda mailbox: False,
        wall_time: WallTime,
    ) -> None:
        self._local = dict.fromkeys(local_domains)
        self._first = local_domains[0]
        self._aliases = aliases or Aliases()
        self._srs = srs
        self._exists = exists
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

    def _expand(
        self, mailbox: Mailbox, reverse_path: Mailbox | None, steps: list[ExpansionStep] | None
    ) -> Sequence[FinalRecipient] | Reply:
        srs = self._srs
        if srs is not None and mailbox.domain == srs.domain and is_srs(mailbox):
            restored = self._restored(srs, mailbox, reverse_path)
            if isinstance(restored, Reply):
                return restored
            if steps is not None:
                steps.append(ExpansionStep(mailbox, 0, "sender", (restored,)))
            mailbox = restored
        found = self._found(mailbox, steps)
        if isinstance(found, Reply):
            return found
        rewritten: Mailbox | None = None
        if srs is not None and reverse_path is not None and reverse_path.domain not in self._ours:
            rewritten = srs.rewritten(reverse_path, self._wall_time())
            if rewritten == reverse_path:
                rewritten = None
        return [
            FinalRecipient(each, None if each.domain in self._ours else rewritten) for each in found
        ]

    def recipients(self, mailbox: Mailbox) -> tuple[Recipient, ...]:
        """Return the recipients of a message that we write ourselves, such as a notice.

        Args:
            mailbox: ours or not. One of ours that leads nowhere stays as it is: what becomes of
                mail for it is then for its route to say.
        """
        found: Sequence[FinalRecipient] | Reply = ()
        if mailbox.domain in self._ours:
            found = self.expand(mailbox, None)
        if isinstance(found, Reply) or not found:
            found = (FinalRecipient(mailbox),)
        return tuple(
            Recipient(
                RecipientNumber(number),
                each.mailbox,
                original=None if each.mailbox == mailbox else mailbox,
            )
            for number, each in enumerate(found)
        )

    def _restored(
        self, srs: SenderRewriting, mailbox: Mailbox, reverse_path: Mailbox | None
    ) -> Mailbox | Reply:
        # Who would use it for anything but a notice has not got it from us for that. The hash
        # proves that we relayed from there to here, and no more (RFC 5321 §4.5.5: notices have a
        # null reverse-path).
        if reverse_path is not None:
            return NOTICES_ONLY
        try:
            return srs.restored(mailbox, self._wall_time())
        except TooOld:
            return TOO_OLD
        except BadSRS:
            return NOT_OURS

    def _found(
        self, mailbox: Mailbox, steps: list[ExpansionStep] | None
    ) -> Sequence[Mailbox] | Reply:
        """Return the mailboxes at the ends of all ways through the aliases."""

        def note(
            target: Mailbox,
            finding: Finding,
            leads_to: tuple[Mailbox, ...] = (),
            alias: Alias | None = None,
        ) -> None:
            if steps is not None:
                line = 0 if alias is None else alias.line
                steps.append(ExpansionStep(target, len(within), finding, leads_to, line))

        found: dict[_Key, Mailbox] = {}
        begun: dict[_Key, bool] = {}  # what has an alias: whether we are within that
        within: list[tuple[_Key, Iterator[Mailbox]]] = []
        targets: Iterator[Mailbox] = iter((mailbox,))
        while True:
            target = next(targets, None)
            if target is None:
                if not within:
                    return list(found.values()) or LOOP
                key, targets = within.pop()
                begun[key] = False
                continue
            if max(len(found), len(begun)) >= MOST_RECIPIENTS:
                return TOO_MANY
            if target.domain not in self._ours:
                found[target.local_part, target.domain] = target
                note(target, "elsewhere")
                continue
            key = folded(target.local_part), target.domain
            if key in begun:
                # aliases(5): a name that leads back to itself means the mailbox of that name.
                if begun[key] and target.domain in self._local and self._exists(target):
                    found[key] = target
                    note(target, "itself")
                else:
                    note(target, "again")
                continue
            alias = self._alias(target)
            if alias is not None:
                begun[key] = True
                if steps is not None:
                    finding: Finding = "catch-all" if alias.key.startswith("@") else "alias"
                    note(target, finding, tuple(self._targets(alias, target)), alias)
                within.append((key, targets))
                targets = self._targets(alias, target)
            elif target.domain in self._local:
                found.setdefault(key, target)
                note(target, "mailbox")
            elif key[0] == "postmaster":  # RFC 5321 §4.5.1: in every domain there is one
                begun[key] = True
                note(target, "postmaster", (Mailbox("postmaster", self._first),))
                within.append((key, targets))
                targets = iter((Mailbox("postmaster", self._first),))
            else:
                note(target, "nobody")
                if target is not mailbox and steps is None:
                    self._log.warn(
                        "an alias of {mailbox} leads to {target}, which does not exist",
                        mailbox=printable(str(mailbox)),
                        target=printable(str(target)),
                    )
                return NO_SUCH_MAILBOX

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
