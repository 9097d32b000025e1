"""What is known of a next hop, pure: whether it can be reached, and how much it takes at once.

Two questions, kept apart:

* *Can it be reached?* A next hop that no session can be had with is suspended as a whole. Nothing
  is tried there until its back-off has run out; then one transaction goes as a probe. If that
  reaches it, it is open at once; if not, it is suspended for longer.
* *How much does it take?* So many transactions at once as it has shown to bear: one more for each
  round of successes, half as many when it turns some away while others get through.

What is known is known by one process and forgotten when that ends: it begins with all open.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from attrs import evolve, field, frozen

from ...config.amounts import Rate
from ...interfaces import Random
from ...mail.next_hop import NextHop
from ...mail.outcome import Outcome
from .backoff import Backoff

# Transactions at once with a next hop that we know nothing of. Enough for a page of mail to leave
# together, and few enough that what hangs there does not matter.
INITIAL = 5

Verdict = Literal["reached", "unreachable", "overloaded", "silent"]
"""What an attempt says of the next hop."""


@frozen(kw_only=True)
class NextHopLimits:
    """What holds for one next hop.

    Attributes:
        connections: transactions at once, over all processes; None: as for all others.
        recipients_per_message: in one transaction; None: any number.
        rate: transactions in a time, over all processes; None: no limit.
        retry_minimum: seconds to the second attempt, and that it is first suspended for; None: as
            for all others.
        retry_maximum: the longest wait; None: as for all others.
        lifetime: seconds that a message is tried; None: what was said when it was accepted.
    """

    connections: int | None = None
    # RFC 5321 §4.5.3.1.8: what every server takes.
    recipients_per_message: int | None = 100
    rate: Rate | None = None
    retry_minimum: float | None = None
    retry_maximum: float | None = None
    lifetime: float | None = None

    def backoff(self, default: Backoff) -> Backoff:
        """Return when it is tried again."""
        if self.retry_minimum is None and self.retry_maximum is None:
            return default
        minimum = default.minimum if self.retry_minimum is None else self.retry_minimum
        maximum = default.maximum if self.retry_maximum is None else self.retry_maximum
        return Backoff(minimum, max(minimum, maximum))


UNLIMITED = NextHopLimits(recipients_per_message=None)
"""For what is done here."""


@frozen
class Suspension:
    """A next hop is left alone.

    Attributes:
        until: by the clock; then one transaction goes as a probe.
        delay: seconds that it was for.
        times: how often in a row.
        cause: what the last attempt came to.
    """

    until: float
    delay: float
    times: int
    cause: Outcome = field(eq=False)


@frozen
class SuspendedNextHop:
    """A next hop that is left alone, for people to see.

    Attributes:
        next_hop: which.
        seconds: for how long yet.
        times: how often in a row it could not be reached.
        cause: what the last attempt came to.
    """

    next_hop: str
    seconds: float
    times: int
    cause: Outcome


def verdict(outcomes: Sequence[Outcome]) -> Verdict:
    """Return what the outcomes of one transaction say of its next hop."""
    if any(each.unreachable and not each.delivered and not each.failed for each in outcomes):
        return "unreachable"
    # RFC 5321 §3.8: the service is shutting down the channel, whatever it was asked.
    if any(each.reply.code == 421 for each in outcomes):
        return "overloaded"
    if any(each.delivered or each.remote is not None for each in outcomes):
        return "reached"
    return "silent"


class NextHopState:
    """The state of one next hop. Attempts are known by their number, in the order they begin.

    Attributes:
        next_hop: which it is.
        limits: what the operator said of it.
        connections: transactions at once at the most.
        suspension: why and until when nothing is tried there, None if it is open.
        proven: whether it could be reached the last time.
        active: transactions under way.
    """

    __slots__ = (
        "_begun",
        "_early",
        "_hurried",
        "_probe",
        "_reached",
        "_remote",
        "_shrunk",
        "_suspended",
        "_width",
        "active",
        "connections",
        "limits",
        "next_hop",
        "proven",
        "suspension",
    )

    def __init__(self, next_hop: NextHop, limits: NextHopLimits, connections: int) -> None:
        self.next_hop = next_hop
        self.limits = limits
        self.connections = connections
        self.suspension: Suspension | None = None
        self.proven = False
        self.active = 0
        self._remote = next_hop.remote
        self._width = float(INITIAL)
        self._begun = 0
        self._probe = 0  # the attempt that is one, while it is under way
        self._early = False  # one is wanted, or under way, before the suspension has ended
        self._hurried = False  # the suspension in force is what such a one came to
        # The last attempt that had begun when something happened: what those up to it come to was
        # decided before.
        self._reached = 0
        self._shrunk = 0
        self._suspended = 0

    @property
    def name(self) -> str:
        """What people call it; with whose mail it is for, where that goes on its own terms."""
        name, whose = str(self.next_hop), self.next_hop.destination
        return f"{name} (mail for {whose})" if whose else name

    @property
    def limit(self) -> int:
        """How many transactions at once it gets while it is open."""
        if not self._remote:
            return self.connections
        return max(1, min(int(self._width), self.connections))

    def allowance(self, now: float) -> int:
        """Return how many transactions more may begin now (by the clock)."""
        if self.suspension is None:
            return self.limit - self.active
        return int((self._early or now >= self.suspension.until) and not self._probe)

    def hurry(self, now: float) -> bool:
        """Let a probe go before its time; says whether that is anything new (by the clock)."""
        if self.suspension is None or now >= self.suspension.until or self._early or self._probe:
            return False
        self._early = True
        return True

    def suspended(self, now: float) -> SuspendedNextHop | None:
        """Return for how long it is left alone, and why; None: it is open (by the clock)."""
        each = self.suspension
        if each is None:
            return None
        return SuspendedNextHop(self.name, max(0.0, each.until - now), each.times, each.cause)

    def begin(self) -> int:
        """Count in a transaction and return its number."""
        self.active += 1
        self._begun += 1
        if self.suspension is not None:
            self._probe = self._begun
        return self._begun

    def end(
        self,
        attempt: int,
        verdict: Verdict,
        cause: Outcome | None,
        *,
        now: float,
        backoff: Backoff,
        random: Random,
    ) -> Literal["suspended", "still suspended", "reopened"] | None:
        """Count out a transaction and learn from it.

        A probe before its time that fails counts as one in time does; any more of them, before the
        time that this one has set, count nothing, however often an operator asks.

        Args:
            attempt: its number.
            verdict: what it says of the next hop.
            cause: one of its outcomes; must be there where it was unreachable.
            now: by the clock.
            backoff: how long it is suspended.
            random: what the jitter is drawn from.

        Returns:
            What has changed.
        """
        self.active -= 1
        probe = attempt == self._probe
        if probe:
            self._probe = 0
        if not self._remote:
            return None
        if verdict == "reached":
            return self._reach()
        if verdict == "overloaded":
            # It speaks with us, if only to say that it is too much.
            if self.suspension is not None:
                return self._reach()
            self._shrink(attempt)
        elif verdict == "unreachable" and cause is not None:
            if attempt <= self._suspended and not probe:
                return None  # it had begun before, and it was known
            if attempt <= self._reached and not probe:
                self._shrink(attempt)  # others got through meanwhile
                return None
            early = self._early and self.suspension is not None and now < self.suspension.until
            self._early = False
            if early and self._hurried and self.suspension is not None:
                self.suspension = evolve(self.suspension, cause=cause)
                self._suspended = self._begun
                return "still suspended"
            self._hurried = early
            times = 1 if self.suspension is None else self.suspension.times + 1
            delay = backoff.delay(times, random)
            self.suspension = Suspension(now + delay, delay, times, cause)
            self.proven = False
            self._suspended = self._begun
            self._width = float(INITIAL)
            return "suspended"
        return None

    def _reach(self) -> Literal["reopened"] | None:
        self._reached = self._begun
        self.proven = True
        if self.suspension is not None:
            self.suspension = None
            self._early = False
            return "reopened"
        if self._width < self.connections:
            self._width += 1 / self._width  # one more for a round of them
        return None

    def _shrink(self, attempt: int) -> None:
        if attempt > self._shrunk:  # once for those that were turned away together
            self._shrunk = self._begun
            self._width = max(1.0, min(self._width, self.connections) / 2)
