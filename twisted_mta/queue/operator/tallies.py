"""Tallies: how many recipients there are of each age, reason of deferral and domain.

They are counted in the background, slice by slice with pauses between, so that mail does not wait
for it. The tallies are those of the last count that was completed. Counts are made only while the
tallies are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from heapq import nlargest
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...interfaces import Clock, WallTime
from ...mail.queue_id import QueueId
from ..ids import first_id
from ..store.contract import StoreError
from .operations import FIRST, Category, Tallied, Tally

AGES: tuple[tuple[str, float], ...] = (
    ("5m", 300.0),
    ("1h", 3600.0),
    ("4h", 4 * 3600.0),
    ("1d", 86400.0),
    ("5d", 5 * 86400.0),
)
"""The names and seconds of the ages by which recipients are counted, the youngest first."""

OLDEST = "older"
"""The name of the age beyond all `AGES`."""

REASONS = ("unreachable", "dns", "tls", "throttled", "refused", "internal")
"""Why a recipient was deferred:

    unreachable   no session could be opened: the connection was refused or broke, or the server
                  does not speak SMTP
    dns           the name could not be looked up, or has no address
    tls           the TLS or the authentication that is required failed
    throttled     the next hop has no room, or takes no more mail from us now
    refused       the next hop replied ``4yz`` to this message
    internal      an error of our own
"""

# Codes that refuse TLS, or our account, and nothing else (RFC 3207 §4, RFC 4954 §6).
_OF_TLS_OR_AUTH = (454, 530, 534, 535, 538)

_EVERY = 30.0  # seconds from the beginning of one count to that of the next
# Seconds between two slices: 19 times as long as one took, so that a count takes a twentieth of the
# time. The limit is for a store that is slow for other reasons.
_PAUSE = 0.05
_LONGEST_PAUSE = 0.25
_TIMES = 19

MOST_DOMAINS = 50
"""How many domains are told, those with most mail."""

_MOST_COUNTED = 1000  # domains; more than twice as many are cut down to that, the largest
_NO_ID = 2**63 - 1  # above all ids

Counts = Mapping[str, int]


@define
class DomainTally:
    """The recipients of one domain.

    Attributes:
        recipients: all of them.
        deferred: those that were tried before.
        held: those that the operator holds.
        first: the id of the first message with one of them.
        reasons: those that were tried before, by `REASONS`.
    """

    recipients: int = 0
    deferred: int = 0
    held: int = 0
    first: int = _NO_ID
    reasons: dict[str, int] = field(factory=dict)

    def add(self, counts: Mapping[Category, int], first: int) -> None:
        """Add the recipients of a slice."""
        self.first = min(self.first, first)
        for each, count in counts.items():
            self.recipients += count
            self.held += count if each.held else 0
            if each.deferred:
                why = reason(each)
                self.deferred += count
                self.reasons[why] = self.reasons.get(why, 0) + count


@define
class _Count:
    """A count that is under way."""

    counts: dict[Category, int] = field(factory=dict)
    domains: dict[str, DomainTally] = field(factory=dict)
    oldest: QueueId | None = None


class Tallies:
    """The tallies of one store.

    Args:
        perform: of its `commit.GroupCommit`.
        clock: for pauses.
        wall_time: for ages.
    """

    _log = Logger()

    def __init__(
        self,
        perform: Callable[[Tally], Deferred[Any]],
        *,
        clock: Clock,
        wall_time: WallTime,
    ) -> None:
        self._perform = perform
        self._clock = clock
        self._wall_time = wall_time
        self._ages: dict[str, int] = {}
        self._reasons: dict[str, int] = {}
        self._oldest: QueueId | None = None
        self._domains: dict[str, DomainTally] = {}
        self._begun: float | None = None  # by the clock: the last count
        self._counting = False
        self._pause: IDelayedCall | None = None

    def ages(self) -> Counts:
        """Return the recipients of each age, by the last count; empty before the first."""
        self._refresh()
        return self._ages

    def reasons(self) -> Counts:
        """Return the deferred recipients by reason, by the last count; empty before the first."""
        self._refresh()
        return self._reasons

    def oldest(self) -> QueueId | None:
        """Return the first message that waits for its delivery, by the last count (`Tallied`)."""
        self._refresh()
        return self._oldest

    def domains(self) -> Mapping[str, DomainTally]:
        """Return those with most mail, at most `MOST_DOMAINS`, by the last count.

        Where mail goes to thousands of domains, some of those with little mail may be left out.
        """
        self._refresh()
        return self._domains

    def stop(self) -> None:
        """Stop counting."""
        self._counting = True
        if self._pause is not None and self._pause.active():
            self._pause.cancel()

    def _refresh(self) -> None:
        now = self._clock.seconds()
        if self._counting or (self._begun is not None and now < self._begun + _EVERY):
            return
        self._begun, self._counting = now, True
        time = self._wall_time()
        edges = tuple(first_id(time - seconds) for _, seconds in reversed(AGES))
        self._count(Tally(edges, FIRST, now=time), _Count())

    def _count(self, tally: Tally, so_far: _Count) -> None:
        self._perform(tally).addCallbacks(
            self._counted, self._given_up, callbackArgs=(tally, so_far, self._clock.seconds())
        ).addErrback(self._failed)

    def _counted(self, tallied: Tallied, tally: Tally, so_far: _Count, asked: float) -> None:
        counts = so_far.counts
        for each, count in tallied.counts.items():
            counts[each] = counts.get(each, 0) + count
        for domain, (of_domain, first) in tallied.domains.items():
            so_far.domains.setdefault(domain, DomainTally()).add(of_domain, first)
        if len(so_far.domains) > 2 * _MOST_COUNTED:
            so_far.domains = _largest(so_far.domains, _MOST_COUNTED)
        if so_far.oldest is None:  # slices are in the order of ids
            so_far.oldest = tallied.oldest
        if tallied.next is not None:
            following = evolve(tally, after=tallied.next)
            pause = _TIMES * (self._clock.seconds() - asked)
            pause = min(max(pause, _PAUSE), _LONGEST_PAUSE)
            self._pause = self._clock.callLater(pause, self._count, following, so_far)
            return
        self._counting = False
        names = [OLDEST, *(name for name, _ in reversed(AGES))]
        ages, reasons = dict.fromkeys(reversed(names), 0), dict.fromkeys(REASONS, 0)
        for each, count in counts.items():
            ages[names[each.age]] += count
            if each.deferred:
                reasons[reason(each)] += count
        self._ages, self._reasons, self._oldest = ages, reasons, so_far.oldest
        self._domains = _largest(so_far.domains, MOST_DOMAINS)

    def _given_up(self, failure: Failure) -> None:
        failure.trap(StoreError)  # the store is closed, and will be opened again
        self._counting = False

    def _failed(self, failure: Failure) -> None:
        self._counting = False
        self._log.failure("counting the queue", failure)


def _largest(domains: Mapping[str, DomainTally], most: int) -> dict[str, DomainTally]:
    return dict(nlargest(most, domains.items(), key=lambda item: item[1].recipients))


def reason(each: Category) -> str:
    """Return the reason of a category of deferred recipients: one of `REASONS`."""
    status = each.status or ""
    if each.ours:
        if status in ("4.3", "4.4"):
            return "dns"
        if status.startswith("7."):
            return "tls"
        return "unreachable" if status.startswith(("4.", "5.")) else "internal"
    if each.code in _OF_TLS_OR_AUTH:
        return "tls"
    # RFC 5321 §4.2.2: 421 is about the channel; RFC 3463 §3.4, §3.5: X.3.2 and X.4.5 mean that the
    # system accepts no mail now, or is congested.
    return "throttled" if each.code == 421 or status in ("3.2", "4.5") else "refused"
