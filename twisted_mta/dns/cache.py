"""A cache of answers by name and type, each for its time to live; pure.

Negative answers are cached by name *and* type too, even NXDOMAIN: name servers answer it to AAAA
for names that have an A record (RFC 4074 §4.2), and search proxies to MX.
"""

from __future__ import annotations

from collections import OrderedDict

from .message import Answer

Key = tuple[bytes, int]
"""A name in wire form, and a type."""

_MOST_ANSWERS = 10_000
_MOST_OCTETS = 8 << 20
# Octets of memory, about: of an answer besides its records, and of a record besides its rdata.
_ANSWER_OVERHEAD = 400
_RECORD_OVERHEAD = 40

_LONGEST_POSITIVE = 86_400  # seconds; RFC 8767 §4 has a cap of days to weeks
_LONGEST_NEGATIVE = 3 * 3600  # RFC 2308 §5


class Cache:
    """Answers within bounds of number and size; the least recently used one is dropped first.

    Args:
        answers: the most answers.
        octets: the most memory, about.
    """

    def __init__(self, *, answers: int = _MOST_ANSWERS, octets: int = _MOST_OCTETS) -> None:
        self._answers = answers
        self._octets = octets
        self._size = 0
        self._entries: OrderedDict[Key, tuple[Answer, float]] = OrderedDict()

    def get(self, key: Key, now: float) -> Answer | None:
        """Return the answer to a query; None where none is cached, or its time to live is over."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[1] <= now:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: Key, answer: Answer, now: float) -> None:
        """Cache an answer for its time to live, within limits; not without one (RFC 2308 §5)."""
        longest = _LONGEST_POSITIVE if answer.records or answer.alias else _LONGEST_NEGATIVE
        ttl = min(answer.ttl or 0, longest)
        if key in self._entries:
            self._drop(key)
        size = _size(answer)
        if ttl <= 0 or size > self._octets:
            return
        self._entries[key] = answer, now + ttl
        self._size += size
        while len(self._entries) > self._answers or self._size > self._octets:
            self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        """Drop all answers."""
        self._entries.clear()
        self._size = 0

    def _drop(self, key: Key) -> None:
        answer, _ = self._entries.pop(key)
        self._size -= _size(answer)


def _size(answer: Answer) -> int:
    return _ANSWER_OVERHEAD + sum(_RECORD_OVERHEAD + len(record) for record in answer.records)
