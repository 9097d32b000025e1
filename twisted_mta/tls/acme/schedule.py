"""When a certificate is renewed, and when a failed attempt is made again; without I/O."""

from __future__ import annotations

from typing import Any

from attrs import frozen
from cryptography import x509

from ...interfaces import Random
from .messages import ACMEError, Answer, moment_of

LOOK_AGAIN = 21_600.0
"""Seconds until the authority is asked about the renewal again, where it does not say."""

_SOONEST_LOOK, _LATEST_LOOK = 60.0, 86_400.0  # seconds (RFC 9773 §4.3.2)
_LEFT = 3  # renewed with a third of its life left, where the authority does not say
_LEAST_LEFT = 6  # and with a sixth at the latest, whatever it says
_LEAST_USED = 10  # and not before a tenth of its life

_FIRST_RETRY = 300.0  # seconds
_LAST_RETRY = 21_600.0
_SPENT_RETRY = 86_400.0
_LONGEST_WAIT = 604_800.0


@frozen
class Window:
    """The time in which an authority wants a certificate renewed (RFC 9773 §4.2).

    Attributes:
        start: wall time.
        end: wall time.
        chosen: a time in between, chosen once at random.
    """

    start: float
    end: float
    chosen: float

    @classmethod
    def read(cls, answer: Answer, random: Random, before: Window | None) -> Window:
        """Read a window; a time that was chosen in the same one before stays.

        Raises:
            ACMEError: the answer has none.
        """
        if not answer.is_good:
            raise ACMEError(answer.problem.text, answer.retry_after)
        suggested: Any = answer.json().get("suggestedWindow")
        suggested = suggested if isinstance(suggested, dict) else {}
        start, end = moment_of(suggested.get("start")), moment_of(suggested.get("end"))
        if start is None or end is None or end < start:
            raise ACMEError("the answer has no suggestedWindow with a start before its end")
        if before is not None and (before.start, before.end) == (start, end):
            return before
        return cls(start, end, start + random.random() * (end - start))


def look_again(answer: Answer) -> float:
    """Return the seconds until the authority is asked about the renewal again."""
    wanted = answer.retry_after
    return LOOK_AGAIN if wanted is None else min(max(wanted, _SOONEST_LOOK), _LATEST_LOOK)


def renewal_time(
    certificate: x509.Certificate, window: Window | None, issued_at: float = 0.0
) -> float:
    """Return the wall time at which a certificate is to be renewed.

    Args:
        certificate: the one in force.
        window: of its authority; None: it does not say.
        issued_at: when we got it; its life may have begun before.
    """
    start = certificate.not_valid_before_utc.timestamp()
    end = certificate.not_valid_after_utc.timestamp()
    if start < issued_at < end:
        start = issued_at
    life = end - start
    if window is None:
        return end - life / _LEFT
    # No answer, by mistake or malice, lets a certificate expire or be renewed without an end.
    return min(max(window.chosen, start + life / _LEAST_USED), end - life / _LEAST_LEFT)


def retry_delay(failures: int, error: ACMEError, random: Random) -> float:
    """Return the seconds until the next attempt.

    Args:
        failures: how many attempts have failed in a row.
        error: of the last.
        random: for jitter.
    """
    delay = min(_FIRST_RETRY * 2.0 ** min(failures - 1, 20), _LAST_RETRY)
    if error.spent:  # certificates are limited: five of the same names in a week, for example
        delay = max(delay, _SPENT_RETRY)
    delay *= 0.75 + 0.5 * random.random()
    return max(delay, min(error.wait or 0.0, _LONGEST_WAIT))
