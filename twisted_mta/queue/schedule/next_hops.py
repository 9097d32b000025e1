"""The state of a next hop: whether it can be reached, and how many transactions it takes at once.

These are two questions, kept apart:

* *Can it be reached?* A next hop with which no session can be opened is suspended as a whole.
  Nothing is tried there until its back-off is over; then one transaction goes as a probe. If the
  probe reaches it, it is open at once; if not, it is suspended for longer.
* *How much does it take?* As many transactions at once as it has shown to bear: one more for each
  round of successes, half as many when it turns some away while others get through.

A process knows what its own transactions have shown, and forgets it when it ends: after a start
every next hop is open. Pure: no I/O.
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

# Transactions at once with a next hop that nothing is known of. Enough for a page of mail to leave
# together, and few enough that it does not matter if all of them hang.
INITIAL = 5

Verdict = Literal["reached", "unreachable", "overloaded", "silent"]
"""What an attempt shows about the next hop:

    reached       it answered, or took the message
    unreachable   no session could be opened
    overloaded    it answered 421
    silent        nothing: no reply came from it
"""


@frozen(kw_only=True)
class NextHopLimits:
    """The limits of one next hop, from the configuration.

    Attributes:
        connections: transactions at once, over all processes; None: the default.
        recipients_per_message: recipients in one transaction; None: any number.
        rate: transactions in a period, over all processes; None: no limit.
        retry_minimum: seconds to the second attempt, and of the first suspension; None: the
            default.
        retry_maximum: seconds between two attempts at most; None: the default.
        lifetime: seconds that a message is tried; None: as the message has it.
    """

    connections: int | None = None
    # RFC 5321 §4.5.3.1.8: every server takes 100.
    recipients_per_message: int | None = 100
    rate: Rate | None = None
    retry_minimum: float | None = None
    retry_maximum: float | None = None
    lifetime: float | None = None

    def backoff(self, default: Backoff) -> Backoff:
        """Return the back-off between attempts at it, where ``default`` holds for next hops."""
        if self.retry_minimum is None and self.retry_maximum is None:
            return default
        minimum = default.minimum if self.retry_minimum is None else self.retry_minimum
        maximum = default.maximum if self.retry_maximum is None else self.retry_maximum
        return Backoff(minimum, max(minimum, maximum))


UNLIMITED = NextHopLimits(recipients_per_message=None)
"""The limits of local delivery."""


@frozen
class Suspension:
    """The suspension of a next hop: nothing is tried there.

    Attributes:
        until: by the clock; then one transaction goes as a probe.
        delay: its length in seconds.
        times: how many times in a row the next hop was suspended.
        cause: the outcome of the last attempt.
    """

    until: float
    delay: float
    times: int
    cause: Outcome = field(eq=False)


@frozen
class SuspendedNextHop:
    """A suspended next hop, as people see it.

    Attributes:
        next_hop: its name.
        seconds: until the next probe.
        times: how many times in a row it was suspended.
        cause: the outcome of the last attempt.
        routed: whether the configuration names its hosts, or its delivery; else the DNS does.
    """

    next_hop: str
    seconds: float
    times: int
    cause: Outcome
    routed: bool = False


def verdict(outcomes: Sequence[Outcome]) -> Verdict:
    """Return what the outcomes of one transaction show about its next hop."""
    shown: Verdict = "silent"
    for each in outcomes:
        if each.unreachable and each.deferred:
            return "unreachable"
        # RFC 5321 §3.8: the service is shutting down the channel, whatever it was asked.
        if each.reply.code == 421:
            shown = "overloaded"
        elif shown == "silent" and (each.delivered or each.answered or each.remote is not None):
            shown = "reached"
    return shown


class NextHopState:
    """The state of one next hop. Attempts have numbers, in the order in which they begin.

    Attributes:
        next_hop: the next hop.
        limit_name: its name in limits (`NextHop.limit_name`).
        limits: its limits from the configuration.
        connections: transactions at once at most.
        limit: transactions that it gets at once while it is open.
        suspension: its suspension; None: it is open.
        proven: whether the last attempt reached it.
        active: transactions under way.
    """

    __slots__ = (
        "_begun",
        "_early",
        "_failed_domain",
        "_limited",
        "_probe",
        "_reached",
        "_shrunk",
        "_suspended",
        "_suspended_by_early_probe",
        "_width",
        "active",
        "connections",
        "limit",
        "limit_name",
        "limits",
        "next_hop",
        "proven",
        "suspension",
    )

    def __init__(self, next_hop: NextHop, limits: NextHopLimits, connections: int) -> None:
        self.next_hop = next_hop
        self.limit_name = next_hop.limit_name
        self.suspension: Suspension | None = None
        self.proven = False
        self.active = 0
        self._limited = next_hop.limited
        self._width = float(INITIAL)
        self.use(limits, connections)
        self._begun = 0
        self._probe = 0  # the number of the probe that is under way; 0: none is
        self._failed_domain = ""  # the last one that was not reached, since the last that was
        self._early = False  # a probe may go, or is under way, before the suspension is over
        self._suspended_by_early_probe = False
        # The number of the last attempt that had begun when the next hop was reached, its width
        # shrunk, it was suspended: attempts up to that number saw it as it was before.
        self._reached = 0
        self._shrunk = 0
        self._suspended = 0

    @property
    def name(self) -> str:
        """Its name as people see it, with the destination whose settings hold for it, if any do."""
        name, destination = str(self.next_hop), self.next_hop.destination
        return f"{name} (mail for {destination})" if destination else name

    def use(self, limits: NextHopLimits, connections: int) -> None:
        """Take over limits of the configuration."""
        self.limits = limits
        self.connections = connections
        self._widen(self._width)

    def _widen(self, width: float) -> None:
        self._width = width
        self.limit = (
            max(1, min(int(width), self.connections)) if self._limited else self.connections
        )

    def allowance(self, now: float) -> int:
        """Return how many more transactions may begin now (by the clock)."""
        if self.suspension is None:
            return self.limit - self.active
        return int((self._early or now >= self.suspension.until) and not self._probe)

    def allow_early_probe(self, now: float) -> bool:
        """Let a probe go at once; return whether none could have gone before (by the clock)."""
        if self.suspension is None or now >= self.suspension.until or self._early or self._probe:
            return False
        self._early = True
        return True

    def suspended(self, now: float) -> SuspendedNextHop | None:
        """Return its suspension as people see it; None: it is open (by the clock)."""
        each = self.suspension
        if each is None:
            return None
        routed = not (self.next_hop.domain or self.next_hop.exchanger)
        return SuspendedNextHop(
            self.name, max(0.0, each.until - now), each.times, each.cause, routed
        )

    def begin(self) -> int:
        """Count a transaction that begins; return its number."""
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
        """Count a transaction that has ended, and change the state by what it showed.

        An early probe that fails lengthens the suspension as any probe does. Further early probes
        before the end of that suspension do not, however often an operator asks for them.

        Args:
            attempt: its number.
            verdict: what it shows about the next hop.
            cause: one of its outcomes; not None where the verdict is ``unreachable``.
            now: by the clock.
            backoff: of suspensions, where the limits have none.
            random: the source of the jitter.

        Returns:
            The change; None: there is none that matters to others.
        """
        self.active -= 1
        probe = attempt == self._probe
        if probe:
            self._probe = 0
        if not self._limited:
            return None
        if verdict == "reached":
            return self._reach()
        if verdict == "overloaded":
            # It can be reached, if only to say that it is overloaded.
            if self.suspension is not None:
                return self._reach()
            self._shrink(attempt)
        elif verdict == "unreachable" and cause is not None:
            if attempt <= self._suspended and not probe:
                return None  # it began before the suspension, and shows nothing new
            if attempt <= self._reached and not probe:
                self._shrink(attempt)  # others got through after it had begun
                return None
            early = self._early and self.suspension is not None and now < self.suspension.until
            self._early = False
            if early and self._suspended_by_early_probe and self.suspension is not None:
                self.suspension = evolve(self.suspension, cause=cause)
                self._suspended = self._begun
                return "still suspended"
            self._suspended_by_early_probe = early
            times = 1 if self.suspension is None else self.suspension.times + 1
            delay = self.limits.backoff(backoff).delay(times, random)
            self.suspension = Suspension(now + delay, delay, times, cause)
            self.proven = False
            self._suspended = self._begun
            self._widen(float(INITIAL))
            return "suspended"
        return None

    def confirms(self, domain: str) -> bool:
        """Whether a failure to reach a domain shows something about all that share this next hop.

        It does after a failure at another domain, with none reached in between: a single one may
        name a host that is long gone.
        """
        before, self._failed_domain = self._failed_domain, self._failed_domain or domain
        return before not in ("", domain)

    def suspend(self, seconds: float, cause: Outcome, *, now: float) -> None:
        """Suspend it for so long, as an action of the operator on its reply demands."""
        times = 1 if self.suspension is None else self.suspension.times + 1
        self.suspension = Suspension(now + seconds, seconds, times, cause)
        self._early = False
        self._suspended = self._begun

    def _reach(self) -> Literal["reopened"] | None:
        self._reached = self._begun
        self._failed_domain = ""
        self.proven = True
        if self.suspension is not None:
            self.suspension = None
            self._early = False
            return "reopened"
        if self._width < self.connections:
            self._widen(self._width + 1 / self._width)  # one more for each round of successes
        return None

    def _shrink(self, attempt: int) -> None:
        if attempt > self._shrunk:  # once for transactions that were turned away together
            self._shrunk = self._begun
            self._widen(max(1.0, min(self._width, self.connections) / 2))
