"""SMTPUTF8 (RFC 6531): addresses, and header fields, outside ASCII.

Only the client's side so far: sessions take no such message, but what is in the queue may be one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..reply import Reply
from .outgoing import OutgoingExtension

if TYPE_CHECKING:
    from ...envelope import Recipient
    from ..outgoing import OutgoingTransaction


class OutgoingSMTPUTF8(OutgoingExtension):
    """Goes only to who has it; a message of ASCII alone does not need it."""

    keyword = "SMTPUTF8"

    def refusal(self, transaction: OutgoingTransaction, announced: str | None) -> Reply | None:
        """Fail all where the message is one, or its reverse-path is not ASCII."""
        envelope = transaction.message.envelope
        reverse_path = envelope.reverse_path
        if announced is None and (
            "SMTPUTF8" in envelope.parameters or not (reverse_path is None or reverse_path.is_ascii)
        ):
            return _needed(transaction)
        return None

    def recipient_refusal(
        self, transaction: OutgoingTransaction, recipient: Recipient, announced: str | None
    ) -> Reply | None:
        """Fail a recipient whose address is not ASCII."""
        if announced is None and not recipient.mailbox.is_ascii:
            return _needed(transaction)
        return None

    def mail(self, transaction: OutgoingTransaction, announced: str) -> Iterable[str]:
        """Say so where anything needs it (RFC 6531 §3.4)."""
        envelope = transaction.message.envelope
        reverse_path = envelope.reverse_path
        if (
            "SMTPUTF8" in envelope.parameters
            or not (reverse_path is None or reverse_path.is_ascii)
            or not all(recipient.mailbox.is_ascii for recipient in envelope.recipients)
        ):
            return ("SMTPUTF8",)
        return ()


def _needed(transaction: OutgoingTransaction) -> Reply:
    return Reply.of(553, "6.7", f"{transaction.remote} does not offer SMTPUTF8")  # RFC 6531 §3.5


SMTPUTF8_OUT = OutgoingSMTPUTF8()
