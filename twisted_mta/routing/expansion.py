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

from collections.abc import Iterator, Sequence

from twisted.logger import Logger

from ..mail.address import Mailbox, is_postmaster
from ..mail.envelope import Recipient, RecipientNumber
from ..mail.final_recipient import FinalRecipient
from ..mail.printable import printable
from ..mail.reply import Reply
from .alias_walk import AliasWalk, ExpansionStep, passed_alias
from .aliases import Alias
from .mailbox_lookup import MailboxLookup
from .routes import DISCARD, NO_SUCH_MAILBOX


class Expander:
    """Expands mailboxes of ours; `expand` is an `interfaces.Expand`.

    Immutable: changed aliases need a new one.

    Args:
        lookup: looks up single mailboxes.

    Attributes:
        domains: all domains of ours, the first local one first.
    """

    _log = Logger()

    def __init__(self, lookup: MailboxLookup) -> None:
        self._lookup = lookup
        self.domains = tuple(lookup.ours)

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
        lookup = self._lookup
        finals = AliasWalk(lookup, mailbox, reverse_path, steps).run()
        if isinstance(finals, Reply):
            return finals
        srs = lookup.srs
        rewritten: Mailbox | None = None
        if srs is not None and reverse_path is not None and reverse_path.domain not in lookup.ours:
            rewritten = srs.rewritten(reverse_path, lookup.wall_time())
            if rewritten == reverse_path:
                rewritten = None
        owners: dict[tuple[Mailbox, ...], Mailbox | None] = {}
        for _, aliases, refusal in finals:
            if refusal is not None and aliases not in owners:
                owners[aliases] = self._owner(aliases)
        return [
            FinalRecipient(
                mailbox,
                None if mailbox.domain in lookup.ours or mailbox.domain == DISCARD else rewritten,
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
            if self._lookup.aliases.find(owner, bare=each.domain in self._lookup.local) is None:
                continue
            if not isinstance(AliasWalk(self._lookup, owner, None, None).run(), Reply):
                return owner
        return None

    def alias_of(self, mailbox: Mailbox) -> str:
        """Return a key that all mailboxes of ours with the same alias share, and no others.

        A name with targets in its own domain is a different alias in each domain.
        """
        alias = self._lookup.aliases.find(mailbox, bare=mailbox.domain in self._lookup.local)
        if alias is None:
            return str(passed_alias(None, mailbox))
        if "@" not in alias.key and any(each.domain is None for each in alias.targets):
            return f"{alias.key}@{mailbox.domain}"
        return alias.key

    # Missing members.

    def missing_members(self) -> Iterator[tuple[Alias, Mailbox, Reply]]:
        """Yield (alias, member, refusal) for each member that gets no mail, by line; may block.

        Members of nested lists are yielded with those. A key without a domain is examined in the
        first local domain.
        """
        entries = self._lookup.aliases.entries
        for key in sorted(entries, key=entries.line):
            alias = entries[key]
            name, _, domain = alias.key.rpartition("@")
            mailbox = Mailbox(name, domain) if domain in self._lookup.ours else None
            mailbox = mailbox or Mailbox(alias.key, self._lookup.first_local)
            for target in self._lookup.targets(alias, mailbox):
                if target.local_part and (refusal := self._member_refusal(target, alias)):
                    yield alias, target, refusal

    def _member_refusal(self, member: Mailbox, of: Alias) -> Reply | None:
        """Return why a member gets no mail; None: it does, or its own alias decides."""
        if member.domain in self._lookup.ours:
            alias = self._lookup.alias(member)
            if alias is not None and alias.key != of.key:
                return None
            local = member.domain in self._lookup.local
            if not local and is_postmaster(member):
                return None  # the postmaster of the first local domain gets the mail
            if not is_postmaster(member) and not (local and self._lookup.exists(member)):
                return NO_SUCH_MAILBOX
        refusal = self._lookup.refusal(member)
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
        if mailbox.domain in self._lookup.ours:
            finals = self.expand(mailbox, None)
        if mailbox.domain in self._lookup.local and self._leads_to_no_mailbox(mailbox, finals):
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
        if self._lookup.is_mailbox(mailbox):
            return False
        if isinstance(finals, Reply):
            return finals.code >= 500
        return len(finals) == 1 and finals[0].mailbox == mailbox
