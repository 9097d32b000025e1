"""Where mail for one recipient finally goes, after aliases are expanded."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field, frozen

from .address import Mailbox
from .reply import Reply


@frozen
class FinalRecipient:
    """One of the mailboxes that mail for a local mailbox leads to (RFC 3464 §2.3.2).

    Attributes:
        mailbox: whose next hop the mail goes to.
        reverse_path: replaces the envelope's on the wire, since the mail is forwarded (SRS); None:
            the envelope's.
        aliases: that led here, the first one first.
        refusal: why this mailbox gets nothing, although an alias leads to it; None: it gets the
            mail.
        owner: of the list that leads here, to whom a refusal is reported; None: the sender.
    """

    mailbox: Mailbox
    reverse_path: Mailbox | None = None
    aliases: tuple[Mailbox, ...] = ()
    refusal: Reply | None = None
    owner: Mailbox | None = None


@define
class Expansions:
    """The final recipients of one transaction, as they were when its RCPT were accepted.

    Attributes:
        final: by the mailbox of an accepted RCPT, in its canonical form.
        count: final recipients in all.
    """

    final: dict[Mailbox, Sequence[FinalRecipient]] = field(factory=dict)
    count: int = 0

    def add(self, mailbox: Mailbox, final: Sequence[FinalRecipient]) -> None:
        """Keep the expansion of a mailbox; the first one holds."""
        if mailbox not in self.final:
            self.final[mailbox] = final
            self.count += len(final)
