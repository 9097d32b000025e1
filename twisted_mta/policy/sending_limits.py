"""How much each account may send in an hour: messages, and recipients.

The counts hold for all workers together, in a sliding window of monotonic time. They begin anew
when the MTA starts: a message is not worth a write to the disk to be counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from typing import Literal

from attrs import frozen
from twisted.logger import Logger

from ..auth.sliding_window import SlidingWindow, hashed_name
from ..config import RelayCertificate
from ..interfaces import Clock
from ..mail.counted import counted
from ..mail.printable import printable
from ..mail.reply import Reply
from ..smtp.extension.views import SessionView

What = Literal["messages", "recipients"]

_MINUTE = 60.0  # seconds
_MOST_LOGGED = 1_000  # accounts whose limit was logged within the hour


@frozen
class HourlyLimits:
    """Numbers of an hour; 0 is any number."""

    messages: int = 0
    recipients: int = 0

    def __getitem__(self, what: What) -> int:
        """Return the number of messages or of recipients."""
        return self.messages if what == "messages" else self.recipients

    def __bool__(self) -> bool:
        """Whether there is a limit."""
        return bool(self.messages or self.recipients)


NO_LIMITS = HourlyLimits()


class SendingLimits:
    """Counts what accounts send.

    Args:
        sent: counts messages and recipients by account, over all workers.
        clock: to log no account twice within an hour.
        count: counts refusals: of ``messages`` or ``recipients``, and of which kind the account is:
            ``account``, ``uid``, ``certificate``, ``application``.
    """

    _log = Logger()

    def __init__(
        self,
        sent: SlidingWindow,
        *,
        clock: Clock,
        count: Callable[[str, str], object] = lambda what, kind: None,
    ) -> None:
        self._sent = sent
        self._clock = clock
        self._count = count
        self._general = NO_LIMITS
        self._by_account: Mapping[str, HourlyLimits] = {}
        self._are_set = False  # either of them: asked for each recipient
        self._logged: dict[tuple[str, What], float] = {}  # until when

    def use(self, general: HourlyLimits, by_account: Mapping[str, HourlyLimits]) -> None:
        """Apply other limits from now on.

        Args:
            general: of accounts without limits of their own.
            by_account: by the name of the account, in lower case.
        """
        self._general = general
        self._by_account = by_account
        self._are_set = bool(general or by_account)

    def limit(self, account: str, what: What, listener: HourlyLimits = NO_LIMITS) -> int:
        """Return the limit of an account; 0: there is none.

        Args:
            account: its name.
            what: is limited.
            listener: limits of the listener, for accounts without limits of their own.
        """
        own = self._by_account.get(account.lower())
        if own is not None:
            return own[what]
        return listener[what] or self._general[what]

    def are_set(self, listener: HourlyLimits = NO_LIMITS) -> bool:
        """Whether any account has a limit."""
        return self._are_set or listener.messages > 0 or listener.recipients > 0

    async def add(
        self,
        account: str,
        what: What,
        listener: HourlyLimits = NO_LIMITS,
        *,
        number: int = 1,
        kind: str = "account",
    ) -> Reply | None:
        """Count messages or recipients of an account, all or none.

        Args:
            account: its name.
            what: is counted.
            listener: see `limit`.
            number: of messages or recipients.
            kind: of the account, for the count of refusals.

        Returns:
            The reply that there are too many; None: they were counted.
        """
        limit = self.limit(account, what, listener)
        if not limit:
            return None
        key = ("submitted", what, hashed_name(account))
        if number <= limit and await self._sent.add(key, limit, number):
            return None
        self._count(what, kind)
        seconds = self._sent.wait(key)
        self._log_once(account, what, limit, seconds)
        if number > limit:
            return Reply.of(
                550, "5.3", f"{number} {what} at once, and the limit is {limit} an hour"
            )
        return Reply.of(
            450,
            "7.1",
            f"Limit of {_number(limit, what)} an hour reached, try again in {_words(seconds)}",
        )

    async def allows(self, account: str, what: What) -> bool:
        """Whether one more message or recipient of an account would be within its limit."""
        limit = self.limit(account, what)
        key = ("submitted", what, hashed_name(account))
        return not limit or await self._sent.allows(key, limit)

    def _log_once(self, account: str, what: What, limit: int, seconds: float) -> None:
        now, key = self._clock.seconds(), (account.lower(), what)
        if self._logged.get(key, now) > now:
            return
        if len(self._logged) >= _MOST_LOGGED:
            del self._logged[next(iter(self._logged))]
        self._logged.pop(key, None)
        self._logged[key] = now + self._sent.period
        self._log.warn(
            "the account {user} has reached its limit of {_number} an hour; it is refused, and"
            " the next are taken in {_words}",
            user=printable(account),
            limit=limit,
            what=what,
            _number=_number(limit, what),
            seconds=seconds,
            _words=_words(seconds),
        )


def account_of(session: SessionView, certificates: tuple[RelayCertificate, ...]) -> str | None:
    """Return the name by which the sender of a session is limited.

    It is the account of AUTH, ``uid:`` and the user id of a program on this machine, or
    ``certificate:`` and the SHA-256 fingerprint of a certificate that may relay. None: the client
    has no name.
    """
    if session.identity is not None:
        return session.identity
    if session.peer.user is not None:
        return f"uid:{session.peer.user}"
    tls = session.tls
    if tls is not None and any(each.covers(tls) for each in certificates):
        return f"certificate:{tls.peer_fingerprint}"
    return None


def kind_of(session: SessionView) -> str:
    """Return the kind of the sender that `account_of` names."""
    if session.identity is not None:
        return "account"
    return "certificate" if session.peer.user is None else "uid"


def _number(limit: int, what: What) -> str:
    return f"{limit} {what}" if limit != 1 else f"1 {what[:-1]}"


def _words(seconds: float) -> str:
    if seconds <= 2 * _MINUTE:
        return counted(max(1, ceil(seconds)), "second")
    return counted(ceil(seconds / _MINUTE), "minute")
