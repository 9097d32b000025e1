"""Whether a reader takes more than its share of time: four times the octets, four times the time.

A shape is a few octets that are repeated, as often as it takes to fill a size, between a beginning
and an end. It is read at sizes that grow fourfold, and what is compared is the processor time of
this thread, the least of several runs: whatever else the machine does makes no run shorter. Times
below a floor are noise, so sizes grow until they are above it, or are the largest that the reader
is given.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from typing import Literal

from attrs import field, frozen

FLOOR = 0.005
"""Seconds below which times are not compared."""

STEEPEST = 10.0
"""How much longer four times the octets may take: 4 is linear, 16 is quadratic."""

HELD = 0.25
"""Seconds for which one call may keep the reactor. It is to be 0.02, on any machine and however
busy it is; `test_scaling` looks at the worst message more closely."""

_SMALLEST = 256
_LARGER = 4  # than the size before
_RUNS = 3
_LOOKS = 4  # more, before anything is held against a reader
_ENOUGH = 0.2  # seconds of runs of one size, which are long enough to be told from others
_LONGEST = 1.0  # seconds of one run, after which no larger size is tried

Place = Literal["reactor", "turns", "thread", "start", "library"]
"""Where a reader is at work: in the reactor, where nothing else happens meanwhile; there, but in
turns; in a thread beside it; before there is anything to do; or in a library, which has its time
bounded by what it is given."""


@frozen(kw_only=True)
class Reader:
    """What reads octets that others have written.

    Attributes:
        name: what it is called in a case.
        read: reads some, whatever they are.
        words: octets that mean something to it.
        frames: what may stand before and behind what is repeated.
        most: octets that are tried; in the reactor, those that it is given in one call at most.
        place: see there.
    """

    name: str
    read: Callable[[bytes], object]
    words: tuple[bytes, ...]
    frames: tuple[tuple[bytes, bytes], ...] = ((b"", b""),)
    most: int = 65_536
    place: Place = "reactor"


@frozen
class Shape:
    """Octets of any size.

    Attributes:
        start: what they begin with.
        end: what they end with.
        repeated: what is repeated one behind the other, each as many octets: ``aaa…bbb…``.
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
    """How long a reader took.

    Attributes:
        times: seconds by size, smallest first.
    """

    times: dict[int, float] = field(factory=dict)

    @property
    def steep(self) -> bool:
        """Whether the last size took too much longer than the one before."""
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
    """Return how long ``reader`` takes for growing sizes of ``shape``, up to one that is steep.

    What looks steep is looked at a few times more: only what is so each time is.
    """
    found = Measured()
    collecting = gc.isenabled()
    gc.disable()  # it comes at any time, and takes as long as all else that is alive
    try:
        for size in _sizes(reader.most):
            octets = shape.octets(size)
            found.times[size] = _least(reader, octets, _RUNS)
            for _ in range(_LOOKS):
                if not found.steep:
                    break
                found.times[size] = min(found.times[size], _least(reader, octets, 1))
            if found.steep or found.times[size] > _LONGEST:
                break
    finally:
        if collecting:
            gc.enable()
    return found


def _sizes(most: int) -> Iterator[int]:
    """Yield sizes that grow, the last of which is ``most``."""
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
