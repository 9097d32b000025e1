"""A mail transaction, as a session builds it up."""

from __future__ import annotations

from attrs import define, field

from ...mail.address import Mailbox
from ...mail.envelope import Parameters
from ...mail.final_recipient import Expansions


@define
class Accepted:
    """A recipient that was accepted in a transaction."""

    mailbox: Mailbox
    parameters: Parameters


@define
class Transaction:
    """A mail transaction (RFC 5321 §3.3), from an accepted MAIL to the end of its content.

    Attributes:
        reverse_path: the sender; None is the null reverse-path.
        parameters: of MAIL.
        recipients: accepted so far, in the order of their RCPT.
        full: whether a recipient was refused because there are too many.
        expansions: where the recipients lead; the session does not use it.
    """

    reverse_path: Mailbox | None
    parameters: Parameters
    recipients: list[Accepted] = field(factory=list)
    full: bool = False
    expansions: Expansions = field(factory=Expansions)

    @property
    def binary(self) -> bool:
        """Whether its content is octets and not lines (RFC 3030 §3)."""
        return self.parameters.get("BODY") == "BINARYMIME"
