"""The targets: each runs one case and checks the properties of some code."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random
from types import ModuleType

from attrs import frozen

from ..case import Case


class Broken(AssertionError):
    """A property does not hold; the message says which, and where."""


def demand(condition: object, text: str) -> None:
    """Fail unless ``condition`` holds.

    Raises:
        Broken: it is false.
    """
    if not condition:
        raise Broken(text)


@frozen(kw_only=True)
class Target:
    """A target.

    Attributes:
        name: its name on the command line.
        shows: the properties that are checked, for people.
        modules: the code under test, whose coverage guides the search.
        new: makes a new case by the grammar of the target.
        words: octets to insert into pieces.
        knobs: the number of knobs.
        probe: runs a case once, unchanged, for its coverage.
        check: runs a case in every way and checks all properties.
    """

    name: str
    shows: str
    modules: Sequence[ModuleType]
    new: Callable[[Random], Case]
    words: Sequence[bytes]
    knobs: int
    probe: Callable[[Case], object]
    check: Callable[[Case], object]


def pieces(octets: bytes, draw: Random, most: int = 6) -> list[bytes]:
    """Cut ``octets`` at a few random places; pieces may be empty."""
    cuts = sorted(draw.randrange(len(octets) + 1) for _ in range(draw.randrange(most)))
    return [octets[start:end] for start, end in zip([0, *cuts], [*cuts, len(octets)], strict=True)]


def one_by_one(octets: bytes, near: int = 300) -> list[bytes]:
    """Cut ``octets`` into single ones, except in the middle of long repetitions."""
    cut = []
    start = 0
    for run in _ALIKE.finditer(octets):
        cut += _singles(octets[start : run.start() + 3], near)
        cut.append(octets[run.start() + 3 : run.end() - 3])
        start = run.end() - 3
    return cut + _singles(octets[start:], near)


_ALIKE = re.compile(rb"(.{1,16}?)\1{24,}", re.DOTALL)


def _singles(octets: bytes, near: int) -> list[bytes]:
    if not octets:
        return []
    middle = range(near, len(octets) - near, 97)
    places = [*range(min(near, len(octets))), *middle]
    places += range(max(near, len(octets) - near), len(octets))
    return [
        octets[start:end] for start, end in zip(places, [*places[1:], len(octets)], strict=True)
    ]
