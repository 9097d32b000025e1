"""The final recipients of mail for a local mailbox, after the expansion of aliases."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field, frozen

from .address import Mailbox
from .reply import Reply


@frozen
class FinalRecipient:
    """A mailbox that mail for a local mailbox goes to (RFC 3464 §2.3.2).

    Attributes:
        mailbox: the mailbox whose next hop gets the mail.
        reverse_path: the reverse-path on the wire instead of the envelope's, since we forward the
            mail (SRS); None: the envelope's.
        aliases: the aliases that led to it, the first one first.
        refusal: the refusal of this mailbox, although an alias leads to it; None: it gets the mail.
        owner: the owner of the list that leads to it, who is notified of the refusal; None: the
            sender is.
    """

    mailbox: Mailbox
    reverse_path: Mailbox | None = None
    aliases: tuple[Mailbox, ...] = ()
    refusal: Reply | None = None
    owner: Mailbox | None = None


@define
class Expansions:
    """The final recipients of a transaction, expanded when each RCPT was accepted.

    Attributes:
        final: from the canonical mailbox of an accepted RCPT to its final recipients.
        count: the number of final recipients.
    """

    final: dict[Mailbox, Sequence[FinalRecipient]] = field(factory=dict)
    count: int = 0

    def add(self, mailbox: Mailbox, final: Sequence[FinalRecipient]) -> None:
        """Keep the expansion of a mailbox, unless it has one already."""
        if mailbox not in self.final:
            self.final[mailbox] = final
            self.count += len(final)
