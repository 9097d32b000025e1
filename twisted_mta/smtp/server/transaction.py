"""A mail transaction, as a session builds it up."""

from __future__ import annotations

from attrs import define, field

from ...mail.address import Mailbox
from ...mail.envelope import Parameters


@define
class Accepted:
    """A recipient that was accepted in a transaction."""

    mailbox: Mailbox
    parameters: Parameters


@define
class Transaction:
    """A mail transaction (RFC 5321 §3.3), from an accepted MAIL to the end of its content."""

    reverse_path: Mailbox | None
    parameters: Parameters
    recipients: list[Accepted] = field(factory=list)
    full: bool = False

    @property
    def binary(self) -> bool:
        """Whether its content is octets and not lines (RFC 3030 §3)."""
        return self.parameters.get("BODY") == "BINARYMIME"
