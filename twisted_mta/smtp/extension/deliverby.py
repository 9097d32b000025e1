"""DELIVERBY (RFC 2852): a message is delivered within a time, or returned, or its sender notified.

The client sends seconds. The queue keeps the time when they end, since the message may wait: ``BY``
in the parameters of an envelope is ``1800000120;R``, and in those of an outgoing message ``115;R``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from attrs import frozen

from ...mail.reply import Reply
from ..command import CommandError
from . import Extension
from .outgoing import OutgoingExtension
from .views import OutgoingView

# RFC 2852 §4: by-value = by-time ";" by-mode [by-trace], by-time = ["-" / "+"] 1*9digit
_VALUE = re.compile(r"([+-]?[0-9]{1,9});([NR])(T?)", re.IGNORECASE)
_KEPT = re.compile(r"(-?[0-9]+);([NR])(T?)")
_MAXIMUM = 999_999_999  # seconds, of nine digits

TOO_LATE = Reply.of(
    554, "4.7", "The time for delivery is over (BY), and late delivery was not wanted"
)


@frozen
class DeliverBy:
    """The value of ``BY``.

    Attributes:
        seconds: the wall time of the deadline; or the seconds that are left until then, negative if
            it has passed.
        returned: whether the message is returned then (mode ``R``), and not just its sender
            notified (mode ``N``).
        traced: whether the sender asks for a notice of each relay (``T``).
    """

    seconds: int
    returned: bool
    traced: bool = False

    @classmethod
    def of(cls, parameters: Mapping[str, str | int | None]) -> DeliverBy | None:
        """Return the value in parameters of MAIL, as the queue keeps them; None without one."""
        match = _KEPT.fullmatch(str(parameters["BY"])) if "BY" in parameters else None
        return None if match is None else cls(int(match[1]), match[2] == "R", bool(match[3]))

    def __str__(self) -> str:
        """The value of the parameter."""
        return f"{self.seconds};{'R' if self.returned else 'N'}{'T' if self.traced else ''}"

    def moved(self, seconds: float) -> DeliverBy:
        """Return the value with ``seconds`` added: from seconds left to wall time, and back."""
        return DeliverBy(int(self.seconds + seconds // 1), self.returned, self.traced)


def deliver_by(minimum: int = 0) -> Extension:
    """Return the extension.

    Args:
        minimum: the fewest seconds that are accepted in mode R (RFC 2852 §3).
    """

    def read(value: str | None) -> str:
        match = _VALUE.fullmatch(value or "")
        if match is None:
            raise CommandError(Reply.of(501, "5.4", "Syntax: BY=seconds;R or BY=seconds;N"))
        by = DeliverBy(int(match[1]), match[2] in "Rr", bool(match[3]))
        if by.returned and by.seconds <= 0:  # RFC 2852 §4
            raise CommandError(
                Reply.of(501, "5.4", "BY in mode R needs a positive number of seconds")
            )
        if by.returned and by.seconds < minimum:
            raise CommandError(
                Reply.of(555, "5.4", f"BY in mode R needs at least {minimum} seconds")
            )
        return str(by)

    # RFC 2852 §3: the MAIL line may be 17 octets longer.
    keyword = f"DELIVERBY {minimum}" if minimum else "DELIVERBY"
    return Extension(keyword, mail={"BY": read}, mail_octets=17)


class OutgoingDeliverBy(OutgoingExtension):
    """The time that is left, passed on; in mode R only to servers that return late messages."""

    keyword = "DELIVERBY"

    def refusal(self, transaction: OutgoingView, announced: str | None) -> Reply | None:
        """Fail a message in mode R that is late, or that the server might deliver late."""
        by = DeliverBy.of(transaction.message.envelope.parameters)
        if by is None or not by.returned:
            return None
        if by.seconds <= 0:
            return TOO_LATE
        if announced is None:  # RFC 2852 §4.2
            text = "does not offer DELIVERBY, and might deliver it after its time"
            return Reply.of(554, "3.3", f"{transaction.remote} {text}")
        minimum = announced.partition(",")[0].strip()
        if minimum.isdecimal() and len(minimum) <= 9 and by.seconds < int(minimum):
            text = f"needs {int(minimum)} seconds, and {by.seconds} are left (BY)"
            return Reply.of(554, "4.7", f"{transaction.remote} {text}")
        return None

    def mail(self, transaction: OutgoingView, announced: str) -> Iterable[str]:
        """Return how much time is left (RFC 2852 §4.1)."""
        by = DeliverBy.of(transaction.message.envelope.parameters)
        if by is None:
            return ()
        left = max(-_MAXIMUM, min(by.seconds, _MAXIMUM))
        return (f"BY={DeliverBy(left, by.returned, by.traced)}",)


DELIVERBY_OUT = OutgoingDeliverBy()
