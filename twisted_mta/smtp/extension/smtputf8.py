"""SMTPUTF8 (RFC 6531): addresses and header fields outside ASCII.

Domains are A-labels from the parser on, so only a local-part or a header section needs the
extension. Whether a message does is determined when it is accepted: a message that came with the
parameter, and is ASCII throughout, goes on to any next hop (§3.2).
"""

from __future__ import annotations

from collections.abc import Iterable

from ...mail.envelope import Recipient
from ...mail.reply import Reply
from ..command import CommandError
from . import Extension
from .outgoing import OutgoingExtension
from .views import OutgoingView


def _read(value: str | None) -> None:
    if value is not None:  # RFC 6531 §3.4
        raise CommandError(Reply.of(501, "5.4", "Syntax: SMTPUTF8 (it has no value)"))


# RFC 6531 §3.1: the MAIL line may be 10 octets longer. To be offered with 8BITMIME only.
SMTPUTF8 = Extension("SMTPUTF8", mail={"SMTPUTF8": _read}, mail_octets=10)


class OutgoingSMTPUTF8(OutgoingExtension):
    """Messages that need SMTPUTF8, sent only to servers that have it."""

    keyword = "SMTPUTF8"

    def refusal(self, transaction: OutgoingView, announced: str | None) -> Reply | None:
        """Fail a message whose reverse-path or header section is not ASCII (RFC 6531 §3.5)."""
        if announced is not None:
            return None
        envelope = transaction.message.envelope
        reverse_path = envelope.reverse_path
        if not (reverse_path is None or reverse_path.is_ascii):
            return _needed(transaction)
        if "SMTPUTF8" in envelope.parameters:
            text = "does not offer SMTPUTF8, and the header has characters outside ASCII"
            return Reply.of(550, "6.9", f"{transaction.remote} {text}")
        return None

    def recipient_refusal(
        self, transaction: OutgoingView, recipient: Recipient, announced: str | None
    ) -> Reply | None:
        """Fail a recipient whose address is not ASCII."""
        if announced is None and not recipient.mailbox.is_ascii:
            return _needed(transaction)
        return None

    def mail(self, transaction: OutgoingView, announced: str) -> Iterable[str]:
        """Return ``SMTPUTF8`` where anything in the message needs it (RFC 6531 §3.4)."""
        envelope = transaction.message.envelope
        reverse_path = envelope.reverse_path
        if (
            "SMTPUTF8" in envelope.parameters
            or not (reverse_path is None or reverse_path.is_ascii)
            or not all(recipient.mailbox.is_ascii for recipient in envelope.recipients)
        ):
            return ("SMTPUTF8",)
        return ()


def _needed(transaction: OutgoingView) -> Reply:
    return Reply.of(553, "6.7", f"{transaction.remote} does not offer SMTPUTF8")  # RFC 6531 §3.5


SMTPUTF8_OUT = OutgoingSMTPUTF8()
