"""Answers, each for its time to live, by name and type; pure.

That there is nothing is kept by name *and* type as well, NXDOMAIN too: name servers answer it to
AAAA for names that have an A record (RFC 4074 §4.2), and to MX behind search proxies.
"""

from __future__ import annotations

from collections import OrderedDict

from .message import Answer

Key = tuple[bytes, int]
"""A name in wire form, and a type."""

_MOST_ANSWERS = 10_000
_MOST_OCTETS = 8 << 20
_OVERHEAD = 400  # octets of an answer besides its records, about
_OF_A_RECORD = 40

_LONGEST_POSITIVE = 86_400  # seconds; RFC 8767 §4 caps them at days to weeks
_LONGEST_NEGATIVE = 3 * 3600  # RFC 2308 §5


class Cache:
    """Keeps answers within bounds of number and size; what was used last stays longest.

    Args:
        answers: how many at the most.
        octets: how much memory at the most, about.
    """

    def __init__(self, *, answers: int = _MOST_ANSWERS, octets: int = _MOST_OCTETS) -> None:
        self._answers = answers
        self._octets = octets
        self._held = 0
        self._kept: OrderedDict[Key, tuple[Answer, float]] = OrderedDict()

    def get(self, key: Key, now: float) -> Answer | None:
        """Return the answer to a question, if one is kept whose time is not over.

        Args:
            key: see there.
            now: by the clock.
        """
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept[1] <= now:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return kept[0]

    def put(self, key: Key, answer: Answer, now: float) -> None:
        """Keep an answer as long as it says, within reason; one that does not say is not kept."""
        longest = _LONGEST_POSITIVE if answer.records or answer.alias else _LONGEST_NEGATIVE
        ttl = min(answer.ttl or 0, longest)
        if key in self._kept:
            self._drop(key)
        size = _size(answer)
        if ttl <= 0 or size > self._octets:
            return
        self._kept[key] = answer, now + ttl
        self._held += size
        while len(self._kept) > self._answers or self._held > self._octets:
            self._drop(next(iter(self._kept)))

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
        self._held = 0

    def _drop(self, key: Key) -> None:
        answer, _ = self._kept.pop(key)
        self._held -= _size(answer)


def _size(answer: Answer) -> int:
    return _OVERHEAD + sum(_OF_A_RECORD + len(record) for record in answer.records)
