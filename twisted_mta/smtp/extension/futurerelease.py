"""FUTURERELEASE (RFC 4865): a message is submitted now and released later. For submission alone.

``HOLDUNTIL`` in the parameters of an envelope is a wall time, whichever parameter the client used.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime

from attrs import field, frozen

from ...mail.envelope import Parameters
from ...mail.reply import Reply
from ..command import CommandError
from . import Extension
from .views import SessionView

BOTH = Reply.of(501, "5.4", "HOLDFOR and HOLDUNTIL exclude each other")
TOO_LATE = Reply.of(501, "5.4", "The time of release is after the deadline for delivery (BY)")

# RFC 4865 §3: future-release-integer = %x31-39 *8DIGIT. Zero is no time to hold a message.
_SECONDS = re.compile(r"[1-9][0-9]{0,8}")
# RFC 3339 §5.6, which the erratum of RFC 4865 §3 names: date-time. Its fraction has any number of
# digits. Programs also write ISO 8601 without seconds (OffsetDateTime of Java), without a colon in
# the offset (DATE_ISO8601 of PHP), and with a comma; all of these can be read in one way only.
_DATE_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]+))?)?"
    r"(Z|[+-][0-9]{2}:?[0-9]{2})",
    re.IGNORECASE,
)


@frozen(kw_only=True)
class FutureRelease(Extension):
    """FUTURERELEASE, announced with how long, and until when, a message may be held.

    Attributes:
        longest: seconds that a message may be held.
        wall_time: returns seconds since the epoch.
    """

    keyword: str = field(default="FUTURERELEASE", init=False)
    longest: int
    wall_time: Callable[[], float]

    def announcement(self, session: SessionView) -> str | None:
        """Return the keyword with both limits (RFC 4865 §3)."""
        latest = datetime.fromtimestamp(int(self.wall_time()) + self.longest, UTC)
        return f"{self.keyword} {self.longest} {latest:%Y-%m-%dT%H:%M:%SZ}"


def future_release(longest: int, wall_time: Callable[[], float]) -> Extension:
    """Return the extension.

    Args:
        longest: seconds that a message may be held.
        wall_time: returns seconds since the epoch.
    """

    def hold_for(value: str | None) -> int:
        if value is None or not _SECONDS.fullmatch(value):
            raise CommandError(Reply.of(501, "5.4", "Syntax: HOLDFOR=seconds"))
        return within(int(value))

    def hold_until(value: str | None) -> int:
        try:
            until = _timestamp(value or "")
        except (ValueError, OverflowError):
            syntax = "Syntax: HOLDUNTIL=2030-12-31T23:59:59Z"
            raise CommandError(Reply.of(501, "5.4", syntax)) from None
        if until < wall_time():
            raise CommandError(
                Reply.of(501, "5.4", "HOLDUNTIL has passed, expected a time in the future")
            )
        within(until - wall_time())
        return until

    def within(seconds: float) -> int:
        if seconds > longest:
            text = f"A message is held for at most {longest} seconds"
            raise CommandError(Reply.of(501, "5.4", text))
        return int(seconds)

    return FutureRelease(
        longest=longest,
        wall_time=wall_time,
        mail={"HOLDFOR": hold_for, "HOLDUNTIL": hold_until},
        # The longest of both, with its offset and a fraction.
        mail_octets=len(" HOLDUNTIL=2030-12-31T23:59:59.999999999+00:00"),
    )


def _timestamp(text: str) -> int:
    """Return the seconds since the epoch of a date and time; a fraction is rounded up.

    Raises:
        ValueError: it is none.
        OverflowError: it is too far away.
    """
    match = _DATE_TIME.fullmatch(text)
    if match is None:
        raise ValueError(text)
    minute, second, fraction, zone = match.groups()
    whole = int(second or 0)
    if whole > 60:
        raise ValueError(text)
    # RFC 3339 §5.7: second 60 is a leap second, which the seconds since the epoch do not have.
    begun = datetime.fromisoformat(minute.upper() + zone.upper()).timestamp()
    return int(begun) + whole + any(digit != "0" for digit in fraction or "")


def held_until(parameters: Parameters, now: float) -> int | None:
    """Return the wall time until which a message is held; None if it is not.

    Args:
        parameters: of MAIL, as their readers left them.
        now: wall time, in seconds since the epoch.
    """
    if "HOLDFOR" in parameters:
        return int(now) + int(parameters["HOLDFOR"] or 0)
    until = parameters.get("HOLDUNTIL")
    return until if isinstance(until, int) else None
