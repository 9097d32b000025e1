"""A large mapping that grows without a pause, for the tables that files of the operator define."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from itertools import chain
from typing import TypeVar

from .work import Work

V = TypeVar("V")

_PARTS = 64
_EMPTIED_AT_ONCE = 512  # entries
# A dictionary chooses places by the lowest bits of a hash, so parts go by others.
_SHIFT = 40


class LargeTable(MutableMapping[str, V]):
    """A mapping in 64 dictionaries, by the hashes of keys.

    A dictionary moves all its entries when it grows: a million of them takes 20 to 50 ms, in which
    nothing else runs. A part of that size takes less than one.
    """

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: tuple[dict[str, V], ...] = tuple({} for _ in range(_PARTS))

    # The expression that finds the part stands in each method: a call would take as long as that.

    def __getitem__(self, key: str) -> V:
        return self._parts[(hash(key) >> _SHIFT) % _PARTS][key]

    def find(self, key: str) -> V | None:
        """Return the value of a key, None where there is none: in half the time of `get`."""
        return self._parts[(hash(key) >> _SHIFT) % _PARTS].get(key)

    def __setitem__(self, key: str, value: V) -> None:
        self._parts[(hash(key) >> _SHIFT) % _PARTS][key] = value

    def __delitem__(self, key: str) -> None:
        del self._parts[(hash(key) >> _SHIFT) % _PARTS][key]

    def __contains__(self, key: object) -> bool:
        return key in self._parts[(hash(key) >> _SHIFT) % _PARTS]

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self._parts)

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __bool__(self) -> bool:
        return any(self._parts)

    def emptying(self) -> Work[None]:
        """Remove all entries of a table that is no longer used, so that none are freed at once."""
        for part in self._parts:
            while part:
                for _ in range(min(_EMPTIED_AT_ONCE, len(part))):
                    part.popitem()
                yield
