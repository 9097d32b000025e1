"""When each domain has something due, pure: all that is in memory of a queue of any length.

For each recipient domain that has mail in the store, and is not being looked at, the agenda has one
time: nothing of that domain is due before. It may be too early, never too late; whoever looks is
told the next one. 10,000 domains take some 3 MB.
"""

from __future__ import annotations

import heapq


class DueTimes:
    """The earliest time of each domain."""

    def __init__(self) -> None:
        self._times: dict[str, float] = {}
        self._order: list[tuple[float, str]] = []  # may have times that hold no more

    def __len__(self) -> int:
        return len(self._times)

    def add(self, domain: str, time: float) -> None:
        """Something of ``domain`` is due at ``time`` (wall time)."""
        known = self._times.get(domain)
        if known is None or time < known:
            self._times[domain] = time
            heapq.heappush(self._order, (time, domain))
            if len(self._order) > 2 * len(self._times) + 100:
                self._order = [(time, domain) for domain, time in self._times.items()]
                heapq.heapify(self._order)

    def next_time(self) -> float | None:
        """Return the earliest time of all, None if there is none."""
        while self._order:
            time, domain = self._order[0]
            if self._times.get(domain) == time:
                return time
            heapq.heappop(self._order)
        return None

    def take_due(self, now: float, most: int) -> list[tuple[float, str]]:
        """Take out domains whose time has come, the earliest first.

        Args:
            now: wall time.
            most: how many at the most.
        """
        due: list[tuple[float, str]] = []
        while len(due) < most and (time := self.next_time()) is not None and time <= now:
            domain = heapq.heappop(self._order)[1]
            del self._times[domain]
            due.append((time, domain))
        return due
