"""An access token, and when it has to be replaced."""

from __future__ import annotations

import math

from attrs import field, frozen

from ...smtp.sasl.client import TokenCredentials

_AHEAD = 0.2  # of its life
_MOST_AHEAD = 300.0  # seconds
_MARGIN = 10.0  # seconds: no AUTH with a token that expires on its way


class NoToken(Exception):
    """There is no token now.

    Attributes:
        reason: for people, printable, without secrets.
        lasting: whether it will stay so until the operator does something.
        retry_after: seconds that the source asks us to wait; 0: it does not say.
    """

    def __init__(self, reason: str, *, lasting: bool = False, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.lasting = lasting
        self.retry_after = retry_after


@frozen(kw_only=True)
class Token:
    """A token.

    Attributes:
        value: never logged.
        renew_at: the time from which another one is asked for while this one serves; seconds since
            the epoch, as the others.
        wait_at: the time from which mail waits for another one, while its source can be asked.
        expires_at: the time at which it ceases to be valid; infinite: unknown.
    """

    value: str = field(repr=False)
    renew_at: float
    wait_at: float
    expires_at: float = math.inf

    @classmethod
    def lasting(cls, value: str, seconds: float, now: float) -> Token:
        """Return a token that is valid for so many seconds from now on.

        Raises:
            NoToken: the value is none (RFC 6750 §2.1).
        """
        ahead = min(_MOST_AHEAD, seconds * _AHEAD)
        expires_at = now + seconds
        return cls(
            value=checked(value),
            renew_at=expires_at - ahead,
            wait_at=expires_at - min(_MARGIN, ahead),
            expires_at=expires_at,
        )

    @classmethod
    def unlimited(cls, value: str, now: float, *, renew: float, wait: float) -> Token:
        """Return a token whose source does not say how long it is valid.

        Args:
            value: the token.
            now: the time.
            renew: seconds after which the source is asked again while it serves.
            wait: seconds after which mail waits for that.

        Raises:
            NoToken: the value is none (RFC 6750 §2.1).
        """
        return cls(value=checked(value), renew_at=now + renew, wait_at=now + wait)


def checked(value: str) -> str:
    """Return a token, or raise `NoToken`."""
    try:
        TokenCredentials("x", value)
    except ValueError as error:
        raise NoToken(str(error)) from None  # without the value
    return value
