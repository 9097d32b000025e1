"""An inventory of the doubles that a test makes, so that the test can end with nothing open.

A double adds itself when it is made, and lists in ``left_open`` what was opened in it and is not
closed. Nothing is kept while no inventory is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol


class Double(Protocol):
    """A double that knows what is open in it."""

    def left_open(self) -> Sequence[str]:
        """Return a line for each thing that is open."""
        ...


_inventories: list[list[Double]] = []


def add(double: Double) -> None:
    """Add a double to the inventories that are taken now."""
    for each in _inventories:
        each.append(double)


@contextmanager
def inventory() -> Iterator[list[Double]]:
    """Yield a list of the doubles that are made within the ``with`` block."""
    doubles: list[Double] = []
    _inventories.append(doubles)
    try:
        yield doubles
    finally:
        _inventories[:] = [each for each in _inventories if each is not doubles]
