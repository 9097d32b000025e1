"""How old what is in the queue is, and why it waits: counted in the background, when somebody asks.

A tour through the queue goes slice by slice with pauses between them, so it costs nobody anything
worth mentioning, and what is shown is the last tour that was completed. Nobody asks: nothing is
counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...interfaces import Clock, WallTime
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
"""Ages that part what is counted: name, and seconds. What is older than all has none."""

OLDEST = "older"

REASONS = ("unreachable", "dns", "tls", "throttled", "refused", "internal")
"""Why the last attempt came to nothing.

    unreachable   no session could be had: nobody listens, the connection broke, or what answers
                  does not speak SMTP
    dns           the name could not be looked up, or has no address
    tls           the TLS or the account that is demanded could not be had
    throttled     the next hop has no room or no time for us now
    refused       the next hop has said ``4yz`` to this message
    internal      it was our own doing
"""

_EVERY = 30.0  # seconds from the beginning of a tour to that of the next one
_PAUSE = 0.05  # seconds between two slices

Counts = Mapping[str, int]


class Tallies:
    """The last tour.

    Args:
        perform: of a `commit.GroupCommit`.
        clock: for pauses.
        wall_time: that ages are counted from.
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
        self._begun: float | None = None  # by the clock: the last tour
        self._touring = False
        self._pause: IDelayedCall | None = None

    def ages(self) -> Counts:
        """Return how many recipients there are of each age, as far as is known."""
        self._refresh()
        return self._ages

    def reasons(self) -> Counts:
        """Return how many recipients were deferred for each reason, as far as is known."""
        self._refresh()
        return self._reasons

    def stop(self) -> None:
        """Count no more."""
        self._touring = True
        if self._pause is not None and self._pause.active():
            self._pause.cancel()

    def _refresh(self) -> None:
        now = self._clock.seconds()
        if self._touring or (self._begun is not None and now < self._begun + _EVERY):
            return
        self._begun, self._touring = now, True
        time = self._wall_time()
        edges = tuple(first_id(time - seconds) for _, seconds in reversed(AGES))
        self._look(edges, FIRST, {})

    def _look(self, edges: Any, after: int, counts: dict[Category, int]) -> None:
        self._perform(Tally(edges, after)).addCallbacks(
            self._looked, self._gave_up, callbackArgs=(edges, counts)
        ).addErrback(self._could_not)

    def _looked(self, tallied: Tallied, edges: Any, counts: dict[Category, int]) -> None:
        for each, count in tallied.counts.items():
            counts[each] = counts.get(each, 0) + count
        following = tallied.next
        if following is not None:
            self._pause = self._clock.callLater(_PAUSE, self._look, edges, following, counts)
            return
        self._touring = False
        names = [OLDEST, *(name for name, _ in reversed(AGES))]
        ages, reasons = dict.fromkeys(reversed(names), 0), dict.fromkeys(REASONS, 0)
        for each, count in counts.items():
            ages[names[each.age]] += count
            if each.deferred:
                reasons[reason(each)] += count
        self._ages, self._reasons = ages, reasons

    def _gave_up(self, failure: Failure) -> None:
        failure.trap(StoreError)  # it is closed, or about to be opened anew
        self._touring = False

    def _could_not(self, failure: Failure) -> None:
        self._touring = False  # the next tour may
        self._log.failure("counting the queue", failure)


def reason(each: Category) -> str:
    """Return why what was deferred waits: one of `REASONS`."""
    status = each.status or ""
    if each.ours:
        if status in ("4.3", "4.4"):
            return "dns"
        if status.startswith("7."):
            return "tls"
        return "unreachable" if status.startswith(("4.", "5.")) else "internal"
    # RFC 5321 §4.2.2: 421 is about the channel; RFC 3463 §3.4, §3.5: X.3.2 and X.4.5 say that the
    # system takes nothing now, or too much.
    return "throttled" if each.code == 421 or status in ("3.2", "4.5") else "refused"
