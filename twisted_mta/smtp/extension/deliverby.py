"""DELIVERBY (RFC 2852): a message is delivered by some time, or its sender hears of it.

What came as seconds is kept as a time, since the message may wait: ``BY`` in the parameters of an
envelope is ``1800000120;R``, and in those of what goes out ``115;R``.
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
_MOST = 999_999_999  # seconds that nine digits can say

TOO_LATE = Reply.of(554, "4.7", "It was to be returned rather than delivered after its time (BY)")


@frozen
class DeliverBy:
    """What ``BY`` says.

    Attributes:
        seconds: wall time; or seconds that are left, negative for those that have passed.
        returned: whether it is returned then (``R``); or else its sender is notified (``N``).
        traced: whether its sender wants to hear by which way it goes (``T``).
    """

    seconds: int
    returned: bool
    traced: bool = False

    @classmethod
    def of(cls, parameters: Mapping[str, str | int | None]) -> DeliverBy | None:
        """Return what stands in parameters of MAIL, as they are kept; None: nothing."""
        found = _KEPT.fullmatch(str(parameters["BY"])) if "BY" in parameters else None
        return None if found is None else cls(int(found[1]), found[2] == "R", bool(found[3]))

    def __str__(self) -> str:
        """The value of the parameter."""
        return f"{self.seconds};{'R' if self.returned else 'N'}{'T' if self.traced else ''}"

    def moved(self, seconds: float) -> DeliverBy:
        """Return the same in other terms: so many seconds more."""
        return DeliverBy(int(self.seconds + seconds // 1), self.returned, self.traced)


def deliver_by(minimum: int = 0) -> Extension:
    """Return the extension.

    Args:
        minimum: seconds that are needed at least (RFC 2852 §3); 0: any will do.
    """

    def read(value: str | None) -> str:
        found = _VALUE.fullmatch(value or "")
        if found is None:
            raise CommandError(Reply.of(501, "5.4", "Syntax: BY=seconds;R or BY=seconds;N"))
        by = DeliverBy(int(found[1]), found[2] in "Rr", bool(found[3]))
        if by.returned and by.seconds <= 0:  # RFC 2852 §4
            raise CommandError(Reply.of(501, "5.4", "BY in mode R is a time to come"))
        if by.returned and by.seconds < minimum:
            raise CommandError(Reply.of(555, "5.4", f"BY in mode R is {minimum} seconds at least"))
        return str(by)

    # RFC 2852 §3: the MAIL line may be 17 octets longer.
    keyword = f"DELIVERBY {minimum}" if minimum else "DELIVERBY"
    return Extension(keyword, mail={"BY": read}, mail_octets=17)


class OutgoingDeliverBy(OutgoingExtension):
    """Goes on with what is left of the time; what is to be returned, to nobody who would not."""

    keyword = "DELIVERBY"

    def refusal(self, transaction: OutgoingView, announced: str | None) -> Reply | None:
        """Fail in mode R what is late, or would be late there and delivered all the same."""
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
        """Say how much time is left (RFC 2852 §4.1)."""
        by = DeliverBy.of(transaction.message.envelope.parameters)
        if by is None:
            return ()
        left = max(-_MOST, min(by.seconds, _MOST))
        return (f"BY={DeliverBy(left, by.returned, by.traced)}",)


DELIVERBY_OUT = OutgoingDeliverBy()
