"""The search: make and change cases, run them, and keep those that reach new lines."""

from __future__ import annotations

import gc
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random

from attrs import define, evolve, field, frozen

from .case import Case
from .coverage import Coverage
from .mutation import Mutation
from .targets import Target

SLOW = 5.0
"""The limit of processor time for one case, in seconds."""

_FRESH = 0.15  # share of new cases; the others are changed ones
_MOST_KEPT = 4000


@frozen
class Finding:
    """A case that breaks a property, reduced."""

    case: Case
    error: str
    trace: str


@define
class Result:
    """The result of searching one target.

    Attributes:
        executions: the number of executed cases.
        seconds: the duration.
        lines: the number of lines of the code under test that were reached, and of all.
        steps: the number of steps from line to line.
        kept: the cases that reached a new step, the smallest first.
        findings: one for each kind of error.
    """

    target: Target
    executions: int = 0
    seconds: float = 0.0
    lines: tuple[int, int] = (0, 0)
    steps: int = 0
    kept: list[Case] = field(factory=list)
    findings: list[Finding] = field(factory=list)

    def __str__(self) -> str:
        reached, lines = self.lines
        return (
            f"{self.target.name:8} {self.executions:9} cases"
            f" {self.executions / max(self.seconds, 1e-9):7.0f}/s,"
            f" lines {reached}/{lines}, steps {self.steps}, kept {len(self.kept)},"
            f" findings {len(self.findings)}"
        )


class Search:
    """The search of one target; the same seed and corpus give the same cases.

    Args:
        target: the target.
        seed: the seed of all random choices.
        corpus: the cases to begin with.
        traced: one of so many changed cases is traced for its coverage, which takes about as long
            as all checks.
    """

    def __init__(
        self, target: Target, *, seed: int, corpus: Iterable[Case] = (), traced: int = 2
    ) -> None:
        self.result = Result(target)
        self.target = target
        self._draw = Random(f"{target.name} {seed}")
        self._mutation = Mutation(self._draw, target.words, target.knobs)
        self._coverage = Coverage(target.modules)
        self._corpus = list(corpus)
        self._kept: list[Case] = []
        self._traced = traced
        self._errors: dict[str, None] = {}

    def run(self, seconds: float, executions: int | None = None) -> Result:
        """Search for some seconds, or for at most ``executions`` cases; return the result."""
        start = time.monotonic()
        result = self.result
        for case in self._corpus:
            self._run(case, traced=True)
        self._corpus.clear()
        while time.monotonic() - start < seconds:
            if executions is not None and result.executions >= executions:
                break
            self._run(self._next(), traced=result.executions % self._traced == 0)
        result.seconds += time.monotonic() - start
        result.lines = self._coverage.lines()
        result.steps = self._coverage.steps()
        result.kept = sorted(self._kept, key=lambda case: case.size)
        return result

    def missed(self) -> list[str]:
        """Return the lines that no case has reached."""
        return self._coverage.missed()

    def _next(self) -> Case:
        draw = self._draw
        if not self._kept or draw.random() < _FRESH:
            return self.target.new(draw)
        # Late cases have been changed less often than early ones.
        place = max(draw.randrange(len(self._kept)) for _ in range(draw.choice((1, 2))))
        return self._mutation.changed(self._kept[place], draw.choice(self._kept))

    def _run(self, case: Case, *, traced: bool) -> None:
        self.result.executions += 1
        if self._fails(case) is not None:
            self._found(case)
            return
        if traced:
            with self._coverage:
                self.target.probe(case)
            if self._coverage.news() and len(self._kept) < _MOST_KEPT:
                self._kept.append(case)

    def _fails(self, case: Case) -> BaseException | None:
        return failure(self.target, case)

    def _found(self, case: Case) -> None:
        error = self._fails(case)
        kind = _kind(error)
        if kind in self._errors:
            return
        self._errors[kind] = None
        small = smaller(case, lambda other: _kind(self._fails(other)) == kind)
        error = self._fails(small)
        trace = "".join(traceback.format_exception(error)) if error else ""
        self.result.findings.append(Finding(small, f"{type(error).__name__}: {error}", trace))


def failure(target: Target, case: Case) -> BaseException | None:
    """Return the exception that ``case`` causes; None: every property holds."""
    began = time.process_time()
    try:
        target.check(case)
    except Exception as error:
        return error
    took = time.process_time() - began
    return TimeoutError(f"took more than {SLOW:g} s") if took > SLOW else None


def _kind(error: BaseException | None) -> str:
    """Return a text that is the same for all cases that fail for one reason."""
    if error is None:
        return ""
    frames = traceback.extract_tb((error.__cause__ or error).__traceback__)
    where = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-3:]]
    return " ".join([type(error).__name__, *where])


def smaller(case: Case, fails: Callable[[Case], bool], tries: int = 3000) -> Case:
    """Return ``case`` without the octets and numbers that it does not need to fail."""

    def attempt(other: Case) -> bool:
        nonlocal case, tries
        tries -= 1
        if tries < 0 or other == case or not fails(other):
            return False
        case = other
        return True

    size = -1
    while size != (size := case.size + len(case.pieces)) and tries > 0:
        for place in reversed(range(len(case.pieces))):
            attempt(evolve(case, pieces=case.pieces[:place] + case.pieces[place + 1 :]))
        for place in range(len(case.pieces)):
            length = max(1, len(case.pieces[place]) // 2)
            while length and tries > 0:
                start = 0
                while start < len(case.pieces[place]) and tries > 0:
                    piece = case.pieces[place]
                    cut = piece[:start] + piece[start + length :]
                    if not attempt(_with(case, place, cut)):
                        start += length
                length //= 2
    for place in range(len(case.knobs)):
        attempt(evolve(case, knobs=_zeroed(case.knobs, place)))
    for place in range(len(case.choices)):
        attempt(evolve(case, choices=_zeroed(case.choices, place)))
    return case


def _zeroed(numbers: tuple[int, ...], place: int) -> tuple[int, ...]:
    return (*numbers[:place], 0, *numbers[place + 1 :])


def _with(case: Case, place: int, piece: bytes) -> Case:
    pieces = list(case.pieces)
    pieces[place] = piece
    return evolve(case, pieces=tuple(pieces))


def growth(target: Target, cases: Sequence[Case], executions: int) -> int:
    """Run cases again and again in two stretches; return the smaller growth of memory, in octets.

    A leak grows in both; a cache that fills does not.
    """
    tracemalloc.start()
    try:
        held = []
        for stretch in (max(executions // 10, 2 * len(cases)), executions, executions):
            for number in range(stretch):
                target.probe(cases[number % len(cases)])
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
        return min(held[1] - held[0], held[2] - held[1])
    finally:
        tracemalloc.stop()
