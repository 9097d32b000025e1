"""A mail transaction as a server session builds it up: sender, recipients, content."""

from __future__ import annotations

from attrs import define, field

from ...mail.address import Mailbox
from ...mail.envelope import Parameters
from ...mail.final_recipient import Expansions
from .content import Content


@define
class Accepted:
    """A recipient that was accepted in a transaction, with the parameters of its RCPT."""

    mailbox: Mailbox
    parameters: Parameters


@define
class Transaction:
    """A mail transaction (RFC 5321 §3.3), from an accepted MAIL to the reply to its content.

    Attributes:
        reverse_path: None is the null reverse-path (RFC 5321 §4.5.5).
        parameters: of MAIL, as the extensions' readers left them.
        recipients: in the order of the RCPT commands, repeated ones included.
        full: whether a recipient was refused because there are too many.
        content: the content being read; None before DATA and BDAT.
        content_open: whether the delivery has opened the content (`step.Open`), and it has neither
            been finished nor given up.
        last_chunk: whether the chunk being read is the last (RFC 3030 §2).
        expansions: where the recipients lead; the session does not use it.
    """

    reverse_path: Mailbox | None
    parameters: Parameters
    recipients: list[Accepted] = field(factory=list)
    full: bool = False
    expansions: Expansions = field(factory=Expansions)
    content: Content | None = field(default=None, init=False, eq=False, repr=False)
    content_open: bool = field(default=False, init=False)
    last_chunk: bool = field(default=False, init=False)

    @property
    def binary(self) -> bool:
        """Whether its content is octets and not lines (RFC 3030 §3)."""
        return self.parameters.get("BODY") == "BINARYMIME"
