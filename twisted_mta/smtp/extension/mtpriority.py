"""MT-PRIORITY (RFC 6710): some messages go before others, in the queue and at next hops."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ...mail.reply import Reply
from ..command import CommandError
from . import Extension
from .outgoing import OutgoingExtension
from .views import OutgoingView

_VALUE = re.compile(r"-?[0-9]")  # RFC 6710 §4: priority-value, from -9 to 9


def _read(value: str | None) -> int:
    if value is None or not _VALUE.fullmatch(value):
        raise CommandError(Reply.of(501, "5.4", "Syntax: MT-PRIORITY=number, from -9 to 9"))
    return int(value)


# RFC 6710 §4: the MAIL line may be 15 octets longer.
MT_PRIORITY = Extension("MT-PRIORITY", mail={"MT-PRIORITY": _read}, mail_octets=15)


def lowered(priority: int) -> Reply:
    """Return the reply to MAIL that accepts it with another priority than it asks for."""
    # RFC 6710 §4.1: X.3.6, and the text begins with the priority.
    return Reply.of(250, "3.6", f"{priority} is the priority of this message")


class OutgoingMTPriority(OutgoingExtension):
    """The priority, passed on to servers with MT-PRIORITY, and dropped for others."""

    keyword = "MT-PRIORITY"

    def mail(self, transaction: OutgoingView, announced: str) -> Iterable[str]:
        """Return the priority, unless it is 0, which all messages have by default."""
        priority = transaction.message.envelope.priority
        return (f"MT-PRIORITY={priority}",) if priority else ()


MT_PRIORITY_OUT = OutgoingMTPriority()
