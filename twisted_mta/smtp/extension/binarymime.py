"""BINARYMIME (RFC 3030 §3): content of any octets, all of which are kept.

Such content has no lines, so it travels by BDAT alone: DATA gets 503. It needs a delivery that
keeps octets as they are. Deliveries written for ``twisted.mail`` do not: they take lines.
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
    if body not in ("7BIT", "8BITMIME", "BINARYMIME"):
        raise CommandError(Reply.of(501, "5.4", "Syntax: BODY=7BIT, 8BITMIME or BINARYMIME"))
    return body


# To be offered only with CHUNKING (RFC 3030 §3), and after 8BITMIME, whose reader of BODY it
# replaces. BODY comes once: the 17 octets that RFC 6152 §2 adds to MAIL suffice for this value too.
BINARYMIME = Extension("BINARYMIME", mail={"BODY": _read_body})


class OutgoingBinaryMIME(OutgoingExtension):
    """Binary content, sent by BDAT to servers with BINARYMIME, and converted for others."""

    keyword = "BINARYMIME"
    converts = True

    def refusal(self, transaction: OutgoingView, announced: str | None) -> Reply | None:
        """Fail binary content that is not converted, where the server lacks BINARYMIME (§3)."""
        if not transaction.binary or (
            announced is not None and "CHUNKING" in transaction.capabilities
        ):
            return None
        text = "takes no binary content (CHUNKING and BINARYMIME), and it is not converted"
        return Reply.of(554, "6.3", f"{transaction.remote} {text}")

    def mail(self, transaction: OutgoingView, announced: str) -> Iterable[str]:
        """Return ``BODY=BINARYMIME`` for binary content."""
        return ("BODY=BINARYMIME",) if transaction.binary else ()


BINARYMIME_OUT = OutgoingBinaryMIME()
