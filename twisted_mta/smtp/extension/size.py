"""SIZE (RFC 1870): the server announces its limit, the client the size of its message."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ...mail.reply import Reply
from ..command import CommandError
from ..server.replies import TOO_LARGE
from . import Extension
from .outgoing import OutgoingExtension
from .views import OutgoingView

_SIZE = re.compile(r"[0-9]{1,20}")  # RFC 1870 §5: size-value = 1*20DIGIT


def size(maximum: int) -> Extension:
    """Return the extension with a limit of ``maximum`` octets."""

    def read(value: str | None) -> int:
        if value is None or not _SIZE.fullmatch(value):
            raise CommandError(Reply.of(501, "5.4", "Syntax: SIZE=octets"))
        if int(value) > maximum:  # RFC 1870 §6.1
            raise CommandError(TOO_LARGE)
        return int(value)

    # RFC 1870 §3: the MAIL line may be 26 octets longer.
    return Extension(f"SIZE {maximum}", mail={"SIZE": read}, mail_octets=26)


class OutgoingSize(OutgoingExtension):
    """The size of a message, announced; a message over the limit of the server fails."""

    keyword = "SIZE"

    def refusal(self, transaction: OutgoingView, announced: str | None) -> Reply | None:
        """Fail a message over the server's limit (RFC 1870 §6.1)."""
        limit = announced or ""
        # RFC 1870 §4: at most 20 digits; 0 is no fixed limit.
        if not (limit.isdecimal() and len(limit) <= 20 and 0 < int(limit) < transaction.size):
            return None
        text = f"takes {int(limit)} octets, the message has {transaction.size}"
        return Reply.of(552, "3.4", f"{transaction.remote} {text}")

    def mail(self, transaction: OutgoingView, announced: str) -> Iterable[str]:
        """Return the size of the content with its trace fields (RFC 1870 §3)."""
        return (f"SIZE={transaction.size}",)


SIZE_OUT = OutgoingSize()
