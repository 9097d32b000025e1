"""Look up one mailbox of ours: as an alias, a mailbox, or a reverse-path rewritten by SRS."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..interfaces import WallTime
from ..mail.address import Mailbox, is_postmaster
from ..mail.reply import Reply
from .aliases import Alias, Aliases
from .srs import BadSRS, SenderRewriting, TooOld

# Refusals of rewritten mailboxes.
NOT_OURS = Reply.of(550, "1.1", "No such mailbox here: it leads back to no sender")
TOO_OLD = Reply.of(
    550, "1.1", "No such mailbox here: it led back to a sender for 21 days, and these are over"
)
UNREADABLE = Reply.of(451, "3.0", "The sender behind that mailbox cannot be read, try again later")
NOTICES_ONLY = Reply.of(550, "7.1", "That mailbox takes notices alone, from the null reverse-path")


class MailboxLookup:
    """Looks up mailboxes of ours.

    Args:
        local_domains: canonical, at least one; their mailboxes are Maildirs, or on the hosts of a
            route.
        virtual_domains: canonical; they have aliases only.
        aliases: of all domains; None: there are none.
        srs: rewrites reverse-paths and restores them; None: they stay as they are.
        exists: whether a mailbox of a local domain is accepted; may block.
        refusal: the permanent or temporary failure that a delivery to a mailbox anywhere is known
            to meet; None: none is known.
        has_mailbox: whether a mailbox of a local domain was created, so that the catch-all alias
            does not apply; may block.
        wall_time: seconds since the epoch, for the age of rewritten reverse-paths.

    Attributes:
        local: the local domains.
        first_local: the first of them.
        ours: all domains of ours, the first local one first.
        aliases: the table in force.
        wall_time: seconds since the epoch.
    """

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
        self.ours = dict.fromkeys((*local_domains, *virtual_domains))
        if srs is not None:
            self.ours[srs.domain] = None
        self.srs = srs
        self.refusal = refusal
        self.aliases = aliases or Aliases()
        self.exists = exists
        self._has_mailbox = has_mailbox
        self.wall_time = wall_time

    def alias(self, mailbox: Mailbox) -> Alias | None:
        """Return the alias that applies to a mailbox of ours, the catch-all included; may block."""
        local = mailbox.domain in self.local
        alias = self.aliases.find(mailbox, bare=local)
        if alias is None:
            alias = self.aliases.catch_all(mailbox.domain)
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
        return is_postmaster(mailbox) or self.exists(mailbox)

    def restored(
        self, srs: SenderRewriting, mailbox: Mailbox, reverse_path: Mailbox | None
    ) -> Mailbox | Reply | None:
        """Return the sender that a rewritten mailbox of ours leads back to, or its refusal.

        None: it was not rewritten here. May block. Restoring comes to an end: ``mailbox`` contains
        the result, or its tag is a hash of it.
        """
        # Rewritten mailboxes are for notices, which have a null reverse-path (RFC 5321 §4.5.5).
        # Its hash proves only that we relayed mail from there.
        if reverse_path is not None and mailbox.domain == srs.domain:
            return NOTICES_ONLY
        try:
            restored = srs.restored(mailbox, self.wall_time())
        except TooOld:
            return TOO_OLD
        except OSError:
            return UNREADABLE
        except BadSRS:
            # In a domain that SRS does not use, it may be an ordinary mailbox of that name.
            return NOT_OURS if mailbox.domain == srs.domain else None
        return restored if reverse_path is None else NOTICES_ONLY
