"""Small random changes of a case: of octets, pieces, knobs and choices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from attrs import evolve

from .case import Case

LARGEST = 20_000
"""The most octets of a changed case."""

_NUMBERS = 16


class Mutation:
    """A source of changed cases.

    Args:
        draw: the source of random numbers.
        words: octets to insert.
        knobs: the number of knobs of a case.
    """

    def __init__(self, draw: Random, words: Sequence[bytes], knobs: int) -> None:
        self._draw = draw
        self._words = words
        self._knobs = knobs
        self._changes: tuple[Callable[[bytes], bytes], ...] = (
            self._with_word,
            self._with_word,
            self._with_octet,
            self._without_some,
            self._with_some_twice,
            self._with_some_moved,
            self._repeated,
        )

    def changed(self, case: Case, other: Case) -> Case:
        """Return ``case`` with one or a few changes; some insert parts of ``other``."""
        for _ in range(self._draw.choice((1, 1, 1, 2, 3, 6))):
            case = self._once(case, other)
        return case

    def _once(self, case: Case, other: Case) -> Case:
        draw = self._draw
        kind = draw.random()
        if kind < 0.08 and self._knobs:
            knobs = [*case.knobs, *(0,) * (self._knobs - len(case.knobs))]
            knobs[draw.randrange(self._knobs)] = draw.randrange(_NUMBERS)
            return evolve(case, knobs=tuple(knobs))
        if kind < 0.12 and case.choices:
            choices = list(case.choices)
            choices[draw.randrange(len(choices))] = draw.randrange(_NUMBERS)
            return evolve(case, choices=tuple(choices + [0] * draw.randrange(2)))
        pieces = list(case.pieces) or [b""]
        place = draw.randrange(len(pieces))
        if kind < 0.2:
            pieces[place : place + 2] = [b"".join(pieces[place : place + 2])]
        elif kind < 0.28:
            cut = draw.randrange(len(pieces[place]) + 1)
            pieces[place : place + 1] = [pieces[place][:cut], pieces[place][cut:]]
        elif kind < 0.34:
            del pieces[place]
        elif kind < 0.4:
            pieces.insert(draw.randrange(len(pieces) + 1), pieces[place])
        elif kind < 0.5 and other.pieces:
            start = draw.randrange(len(other.pieces))
            pieces[place : place + draw.randrange(2)] = other.pieces[start : start + 3]
        else:
            pieces[place] = draw.choice(self._changes)(pieces[place])
        changed = evolve(case, pieces=tuple(pieces[:40]))
        return changed if changed.size <= LARGEST else case

    # One piece.

    def _range(self, octets: bytes) -> tuple[int, int]:
        start = self._draw.randrange(len(octets) + 1)
        length = self._draw.choice((1, 2, 4, 16, 64, 1024))
        return start, min(len(octets), start + self._draw.randrange(length + 1))

    def _with_word(self, octets: bytes) -> bytes:
        start, end = self._range(octets)
        if self._draw.random() < 0.6:
            end = start
        return octets[:start] + self._draw.choice(self._words) + octets[end:]

    def _with_octet(self, octets: bytes) -> bytes:
        start = self._draw.randrange(len(octets) + 1)
        octet = self._draw.choice((b"\r", b"\n", b"\0", bytes((self._draw.randrange(256),))))
        return octets[:start] + octet + octets[start + self._draw.randrange(2) :]

    def _without_some(self, octets: bytes) -> bytes:
        start, end = self._range(octets)
        return octets[:start] + octets[end:]

    def _with_some_twice(self, octets: bytes) -> bytes:
        start, end = self._range(octets)
        return octets[:end] + octets[start:]

    def _with_some_moved(self, octets: bytes) -> bytes:
        start, end = self._range(octets)
        rest = octets[:start] + octets[end:]
        place = self._draw.randrange(len(rest) + 1)
        return rest[:place] + octets[start:end] + rest[place:]

    def _repeated(self, octets: bytes) -> bytes:
        start, end = self._range(octets)
        return octets[:start] + octets[start:end] * self._draw.choice((3, 30, 300)) + octets[end:]
