"""The due time of each domain: all that is in memory of mail that waits in the store.

Each recipient domain that has mail in the store, and whose mail is not being read, has one time
before which none of its mail is due. That time may be too early, never too late; reading the mail
brings the next one. 10,000 domains take some 3 MB.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator


class DueTimes:
    """The earliest due time of each domain."""

    def __init__(self) -> None:
        self._times: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []  # with times that are no longer in `_times`

    def __len__(self) -> int:
        return len(self._times)

    def __iter__(self) -> Iterator[str]:
        return iter(self._times)

    def add(self, domain: str, due: float) -> None:
        """Note that mail of ``domain`` is due at ``due`` (wall time)."""
        known = self._times.get(domain)
        if known is None or due < known:
            self._times[domain] = due
            heapq.heappush(self._heap, (due, domain))
            if len(self._heap) > 2 * len(self._times) + 100:
                self._heap = [(due, domain) for domain, due in self._times.items()]
                heapq.heapify(self._heap)

    def earliest(self) -> float | None:
        """Return the earliest time of all domains; None: there is none."""
        while self._heap:
            due, domain = self._heap[0]
            if self._times.get(domain) == due:
                return due
            heapq.heappop(self._heap)
        return None

    def take_due(self, now: float, most: int) -> list[tuple[float, str]]:
        """Take out at most ``most`` domains that are due at ``now`` (wall time), earliest first."""
        domains: list[tuple[float, str]] = []
        while len(domains) < most and (due := self.earliest()) is not None and due <= now:
            domain = heapq.heappop(self._heap)[1]
            del self._times[domain]
            domains.append((due, domain))
        return domains
