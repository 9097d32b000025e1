"""Coverage of the code under test: the steps from line to line that cases have reached."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType, ModuleType, TracebackType
from typing import Any

Step = tuple[CodeType, int, int]
"""A function, and two lines of it that ran in succession; 0 is its beginning or end."""

CountedStep = tuple[Step, int]
"""A step, and the number of bits of how often one run took it: 4 times counts like 7."""


class Coverage:
    """Tracing of some modules inside a ``with`` statement.

    Attributes:
        reached: every step of all runs, with its count.
    """

    def __init__(self, modules: Sequence[ModuleType]) -> None:
        self._files = {str(module.__file__): module for module in modules}
        self.reached: dict[CountedStep, None] = {}
        self._run: dict[Step, int] = {}
        self._before: Any = None

    def __enter__(self) -> Coverage:
        self._run = {}
        self._before = sys.gettrace()
        sys.settrace(self._enter)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        sys.settrace(self._before)

    def news(self) -> int:
        """Add the steps of the last run; return how many of them are new."""
        known = len(self.reached)
        for step, times in self._run.items():
            self.reached[step, times.bit_length()] = None
        return len(self.reached) - known

    def lines(self) -> tuple[int, int]:
        """Return the number of lines inside functions that were reached, and of all."""
        everything = [
            (file, line) for file in self._files for line in _lines_of_functions(Path(file))
        ]
        reached = self._reached_lines()
        return len(reached.intersection(everything)), len(everything)

    def missed(self) -> list[str]:
        """Return the lines inside functions that no run reached, as ``module:line``."""
        reached = self._reached_lines()
        return [
            f"{module.__name__}:{line}"
            for file, module in self._files.items()
            for line in _lines_of_functions(Path(file))
            if (file, line) not in reached
        ]

    def steps(self) -> int:
        """Return the number of steps that were reached."""
        return len({step for step, _ in self.reached})

    def _reached_lines(self) -> frozenset[tuple[str, int]]:
        return frozenset(
            (code.co_filename, line) for (code, *lines), _ in self.reached for line in lines if line
        )

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        if code.co_filename not in self._files:
            return None
        run = self._run
        last = 0

        def follow(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal last
            if event == "line":
                step = (code, last, frame.f_lineno)
                run[step] = run.get(step, 0) + 1
                last = frame.f_lineno
            elif event == "return":
                run[code, last, 0] = 1
            return follow

        return follow


def _lines_of_functions(path: Path) -> Iterator[int]:
    numbers = set()
    waiting = [compile(path.read_text(encoding="utf-8"), str(path), "exec")]
    while waiting:
        code = waiting.pop()
        waiting.extend(each for each in code.co_consts if isinstance(each, CodeType))
        if code.co_flags & inspect.CO_NEWLOCALS:
            lines = {line for _, _, line in code.co_lines() if line}
            if not code.co_name.startswith("<"):  # the line of ``def`` runs at its definition
                lines.discard(code.co_firstlineno)
            numbers |= lines
    yield from sorted(numbers)
