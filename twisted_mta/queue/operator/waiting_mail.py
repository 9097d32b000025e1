"""How much mail waits for what is suspended, counted now and then while that is asked for.

That are next hops with which no session can be opened, or destinations that the operator has
suspended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...interfaces import Clock
from ..store.contract import StoreError
from .operations import CountWaiting, WaitingCounts

_INTERVAL = 10.0  # seconds between two counts
_MOST_DOMAINS = 200  # in one count: some 10 ms for the database

Domains = Mapping[str, Sequence[str]]
"""The domains with mail for each next hop or destination that is suspended, by its name."""


class WaitingMail:
    """The recipients of one store that wait for what is suspended.

    Args:
        perform: of its `commit.GroupCommit`.
        domains: returns the domains to count.
        clock: for the interval.
    """

    _log = Logger()

    def __init__(
        self,
        perform: Callable[[CountWaiting], Deferred[Any]],
        domains: Callable[[], Domains],
        *,
        clock: Clock,
    ) -> None:
        self._perform = perform
        self._domains = domains
        self._clock = clock
        self._counts: dict[str, int] = {}
        self._counted_at: float | None = None  # by the clock
        self._counting = False

    def counts(self) -> Mapping[str, int]:
        """Return the recipients by the name of the next hop or destination, by the last count.

        At most 1,000 recipients of a domain are counted, and some hundred domains.
        """
        now = self._clock.seconds()
        if not self._counting and (self._counted_at is None or now - self._counted_at >= _INTERVAL):
            self._count(now)
        return self._counts

    def _count(self, now: float) -> None:
        domains = self._domains()
        if not domains:  # no count: one that is suspended next is counted at once
            self._counts, self._counted_at = {}, None
            return
        self._counting, self._counted_at = True, now
        all_domains = dict.fromkeys(name for names in domains.values() for name in names)
        asked = CountWaiting(tuple(all_domains)[:_MOST_DOMAINS])
        counted = self._perform(asked).addCallback(self._counted, domains)
        counted.addErrback(self._not_counted)

    def _counted(self, counts: WaitingCounts, domains: Domains) -> None:
        self._counting = False
        self._counts = {
            hop: sum(counts.by_domain.get(name, 0) for name in names)
            for hop, names in domains.items()
        }

    def _not_counted(self, failure: Failure) -> None:
        self._counting = False
        if not failure.check(StoreError):  # the store is closed, and will be opened again
            self._log.failure("mail that waits for what is suspended could not be counted", failure)
