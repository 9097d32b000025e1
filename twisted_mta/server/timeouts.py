"""Timeouts of a connection: how long a client may take, how slow it may send, and the timer."""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve, frozen
from twisted.internet.interfaces import IDelayedCall

from ..interfaces import Clock
from ..mail.reply import Reply
from ..smtp.server.machine import State
from ..smtp.server.replies import IDLE_TOO_LONG, NOT_ENDED, TOO_SLOW
from ..smtp.server.session import Session


@frozen(kw_only=True)
class Timeouts:
    """Limits of time for one connection, in seconds unless stated otherwise.

    Attributes:
        command: from our reply to the end of the next command. RFC 5321 §4.5.3.2.7 asks for 5
            minutes.
        data: without a single octet, within the content of a message; RFC 5321 §4.5.3.2.5 has the
            client wait as long for each block to be taken.
        handshake: from 220 (or, under implicit TLS, the start of the connection) to the end of the
            TLS handshake.
        rate_grace: from the start of the content, before ``minimum_rate`` is enforced.
        minimum_rate: octets per second, averaged over the whole content; a modem of 9,600 bit/s
            sends twice as many.
        errors_unslowed: errors in a session (not seconds) before its replies are delayed.
        error_delay: by which each later reply to an error is delayed; 0 disables the delay.
        decision: for one decision on the client, an address, a login or a message, before it is
            cancelled, and the client is asked to try again.
    """

    command: float = 300.0
    data: float = 180.0
    handshake: float = 30.0
    rate_grace: float = 180.0
    minimum_rate: float = 500.0
    errors_unslowed: int = 5
    error_delay: float = 1.0
    decision: float = 60.0

    def idle(self, seconds: float) -> Timeouts:
        """Return these timeouts with another limit for a client that sends nothing.

        Raises:
            ValueError: ``seconds`` is not a number above 0.
        """
        if not isinstance(seconds, int | float) or not seconds > 0:
            raise ValueError(f"timeout: found {seconds!r}, expected a number above 0")
        return evolve(self, command=seconds, data=seconds)


_FIRST = 10.0  # seconds to the first call of the clock; most connections are over by then


def _nothing() -> None:
    """Take the place of a connection that is over."""


class ConnectionTimer:
    """The timer of one connection.

    A reset for each read and each reply would cost more than all the rest of taking a small
    segment, and more with each connection. Instead the timer fires when a limit could be reached at
    the earliest, looks at the clock, and waits again. A call of the clock that comes too early is
    left as it is, and made again for the rest; the first one comes so early that a short connection
    needs no other.

    Args:
        timeouts: the limits.
        clock: of the connection.
        fired: called when the timer fires.

    Attributes:
        last_activity: time, by the clock, of our last reply or of the client's last octet of
            content; kept by the connection.
        content_since: time, by the clock, at which the content began; kept by the connection.
        asked_since: time, by the clock, at which a pending decision was asked for; kept by the
            connection.
    """

    __slots__ = (
        "_call",
        "_clock",
        "_due",
        "_fired",
        "_timeouts",
        "asked_since",
        "content_since",
        "last_activity",
    )

    def __init__(self, timeouts: Timeouts, clock: Clock, fired: Callable[[], None]) -> None:
        self.last_activity = clock.seconds()
        self.content_since = 0.0
        self.asked_since = 0.0
        self._timeouts = timeouts
        self._clock = clock
        self._fired = fired
        self._due = 0.0  # when to fire, by the clock
        self._call: IDelayedCall | None = None

    def set(self, seconds: float) -> None:
        """Fire in ``seconds`` from now, and not when it would have fired."""
        self._due = self._clock.seconds() + seconds
        call = self._call
        if call is None:
            seconds = min(seconds, _FIRST)
        elif call.active():
            if call.getTime() <= self._due:
                return
            # `reset` to an earlier time would search all timers of the reactor for this one.
            call.cancel()
        self._call = self._clock.callLater(seconds, self._look)

    def _look(self) -> None:
        left = self._due - self._clock.seconds()
        if left > 0:
            self._call = self._clock.callLater(left, self._look)
        else:
            self._fired()

    def cancel(self) -> None:
        """Do not fire any more, and let go of the connection, which holds this object."""
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._fired = _nothing

    def await_handshake(self) -> None:
        """Fire when a handshake that begins now has taken too long."""
        self.last_activity = self._clock.seconds()
        self.set(self._timeouts.handshake)

    def await_client(self) -> None:
        """Fire when any limit could be reached at the earliest, whatever the client sends."""
        self.set(self._longest_wait)

    def decision_is_overdue(self) -> bool:
        """Return whether a pending decision took too long; if not, wait until it would have."""
        left = self.asked_since + self._timeouts.decision - self._clock.seconds()
        if left <= 0:
            return True
        self.set(min(left, self._longest_wait))
        return False

    def check(self, session: Session) -> Reply | None:
        """Return the reply that ends a silent or slow session; None, and wait, if neither is so."""
        timeouts, now = self._timeouts, self._clock.seconds()
        limit = timeouts.data if session.state is State.CONTENT else timeouts.command
        if session.deciding:  # the client waits for us
            self.set(min(limit, self._longest_wait))
            return None
        silent = now - self.last_activity
        if silent >= limit:
            return NOT_ENDED if session.content_looks_ended else IDLE_TOO_LONG
        wait = min(limit - silent, self._longest_wait)
        if session.content_open:  # also between two chunks
            elapsed = now - self.content_since
            if elapsed < timeouts.rate_grace:
                wait = min(wait, timeouts.rate_grace - elapsed)
            elif session.content_octets < elapsed * timeouts.minimum_rate:
                return TOO_SLOW
        self.set(wait)
        return None

    @property
    def _longest_wait(self) -> float:
        timeouts = self._timeouts
        # Fired this often, the timer never comes late for a decision that is asked for meanwhile.
        return min(
            timeouts.command,
            timeouts.data,
            timeouts.rate_grace or timeouts.data,
            timeouts.decision,
        )
