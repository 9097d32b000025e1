"""8BITMIME (RFC 6152): content with octets above 127 is kept as it is.

Without BODY=8BITMIME such octets are accepted and kept too, and passed on as they came: refusing
them would lose mail that every other server accepts, and changing them would damage it.
"""

from __future__ import annotations

from collections.abc import Iterable

from ...mail.reply import Reply
from ..command import CommandError
from . import Extension
from .outgoing import OutgoingExtension
from .views import OutgoingView


def _read_body(value: str | None) -> str:
    body = (value or "").upper()
    if body not in ("7BIT", "8BITMIME"):
        raise CommandError(Reply.of(501, "5.4", "Syntax: BODY=7BIT or BODY=8BITMIME"))
    return body


# RFC 6152 §2: the MAIL line may be 17 octets longer.
EIGHT_BIT_MIME = Extension("8BITMIME", mail={"BODY": _read_body}, mail_octets=17)


class OutgoingEightBitMIME(OutgoingExtension):
    """Content of 8 bits, sent to servers with 8BITMIME, and converted for others."""

    keyword = "8BITMIME"
    converts = True

    def refusal(self, transaction: OutgoingView, announced: str | None) -> Reply | None:
        """Fail content of 8 bits that is not converted, where the server lacks 8BITMIME (§3)."""
        if announced is not None or _body(transaction) != "8BITMIME":
            return None
        text = "takes no content of 8 bits, and it is not converted"
        return Reply.of(554, "6.3", f"{transaction.remote} {text}")

    def mail(self, transaction: OutgoingView, announced: str) -> Iterable[str]:
        """Return ``BODY=8BITMIME`` for content of 8 bits."""
        return ("BODY=8BITMIME",) if _body(transaction) == "8BITMIME" else ()


def _body(transaction: OutgoingView) -> object:
    return transaction.message.envelope.parameters.get("BODY")


EIGHT_BIT_MIME_OUT = OutgoingEightBitMIME()
