"""Whether the time of a reader grows faster than its octets: measurements at growing sizes.

A shape is a few octets, repeated to fill any size, between a beginning and an end. It is read at
sizes that grow fourfold. The measure is the processor time of this thread, the least of several
runs, as a busy machine makes no run shorter. Times below a floor are noise, so the sizes grow until
the time is above it, or to the largest size that the reader gets.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from typing import Literal

from attrs import field, frozen

FLOOR = 0.005
"""Seconds below which times are not compared."""

STEEPEST = 8.0
"""The largest ratio of times for four times the octets: 4 is linear, 16 is quadratic."""

HELD = 0.25
"""Seconds that one call may keep the reactor.

The aim is 0.02 on any machine; `test_scaling` measures the worst message more closely.
"""

_SMALLEST = 256
_LARGER = 4  # than the size before
_RUNS = 3
_LOOKS = 4  # more runs before a time counts as steep
_ENOUGH = 0.2  # seconds of runs of one size, after which there is no other run
_LONGEST = 1.0  # seconds of one run, after which no larger size is tried

Place = Literal["reactor", "turns", "thread", "start", "library"]
"""Where a reader runs.

In the reactor, which it blocks; in the reactor in short turns; in a thread; at the start of the
program; or in a library that gets inputs of bounded size.
"""


@frozen(kw_only=True)
class Reader:
    """A function of the program that reads octets of strangers.

    Attributes:
        name: its name in a case.
        read: the function; it takes any octets.
        words: octets that have a meaning in its grammar.
        frames: beginnings and ends to put around repeated octets.
        most: the most octets of a measurement; in the reactor, those of one call at most.
        place: where it runs.
    """

    name: str
    read: Callable[[bytes], object]
    words: tuple[bytes, ...]
    frames: tuple[tuple[bytes, bytes], ...] = ((b"", b""),)
    most: int = 65_536
    place: Place = "reactor"


@frozen
class Shape:
    """A pattern for octets of any size.

    Attributes:
        start: the beginning.
        end: the end.
        repeated: the octets that are repeated, each to the same size: ``aaa…bbb…``.
    """

    start: bytes
    end: bytes
    repeated: tuple[bytes, ...]

    def octets(self, size: int) -> bytes:
        """Return about ``size`` octets of this shape."""
        words = [word for word in self.repeated if word]
        share = max(0, size - len(self.start) - len(self.end)) // max(1, len(words))
        return b"".join(
            (self.start, *(word * max(1, share // len(word)) for word in words), self.end)
        )


@frozen
class Measured:
    """The times of a reader.

    Attributes:
        times: seconds by size, the smallest first.
    """

    times: dict[int, float] = field(factory=dict)

    @property
    def steep(self) -> bool:
        """Whether the last size took far more than four times the time of the one before."""
        if len(self.times) < 2:
            return False
        *_, before, last = self.times.values()
        return last > max(FLOOR, STEEPEST * before)

    @property
    def longest(self) -> float:
        """Seconds of the longest run."""
        return max(self.times.values())

    def __str__(self) -> str:
        return ", ".join(f"{size}: {1000 * taken:.2f} ms" for size, taken in self.times.items())


def measured(reader: Reader, shape: Shape) -> Measured:
    """Return the times of ``reader`` for growing sizes of ``shape``, up to the first steep one.

    A time that seems steep is measured a few times more, and counts only if it stays so.
    """
    result = Measured()
    collecting = gc.isenabled()
    gc.disable()  # a collection comes at any time, and takes longer the more objects there are
    try:
        for size in _sizes(reader.most):
            octets = shape.octets(size)
            result.times[size] = _least(reader, octets, _RUNS)
            for _ in range(_LOOKS):
                if not result.steep:
                    break
                result.times[size] = min(result.times[size], _least(reader, octets, 1))
            if result.steep or result.times[size] > _LONGEST:
                break
    finally:
        if collecting:
            gc.enable()
    return result


def _sizes(most: int) -> Iterator[int]:
    """Yield growing sizes up to ``most``."""
    sizes = [most]
    while sizes[-1] // _LARGER >= _SMALLEST:
        sizes.append(sizes[-1] // _LARGER)
    yield from reversed(sizes)


def _least(reader: Reader, octets: bytes, runs: int) -> float:
    least, spent = float("inf"), 0.0
    for _ in range(runs):
        began = time.thread_time()
        reader.read(octets)
        taken = time.thread_time() - began
        least, spent = min(least, taken), spent + taken
        if least < FLOOR / 16 or spent > _ENOUGH:
            break
    return least
