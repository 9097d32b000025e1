"""Long computations in slices, such as parsing a file of 200,000 aliases.

A thread would need as long, and compete with the reactor for the interpreter at each system call.
So a long computation is a generator that yields where it may be interrupted, and a `slices.Pace`
runs it. The tool runs such computations without Twisted, whose import takes longer.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

_T = TypeVar("_T")

Work = Generator[None, None, _T]
"""A computation that yields at least once in a millisecond, and returns its result."""


def finished(work: Work[_T]) -> _T:
    """Run a computation to its end; return its result, or raise its exception."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: _T = end.value
            return result
