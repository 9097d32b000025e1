"""Which parts of the code under test a run has reached: steps from one line to another."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType, ModuleType, TracebackType
from typing import Any

Step = tuple[CodeType, int, int]
"""A function, and two lines of it that ran one after the other; 0 is its beginning or end."""

Often = tuple[Step, int]
"""A step, and how often a run took it: the bits of that number, so that 4 is as good as 7."""


class Coverage:
    """Traces what runs inside its ``with`` statement, in some modules only.

    Attributes:
        reached: every step since the beginning, and how often runs took it.
    """

    def __init__(self, modules: Sequence[ModuleType]) -> None:
        self._files = {str(module.__file__): module for module in modules}
        self.reached: dict[Often, None] = {}
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
        """Return how many steps the last run was the first to reach, and remember them."""
        known = len(self.reached)
        for step, times in self._run.items():
            self.reached[step, times.bit_length()] = None
        return len(self.reached) - known

    def lines(self) -> tuple[int, int]:
        """Return how many lines inside functions were reached, and how many there are."""
        everything = [
            (file, line) for file in self._files for line in _lines_of_functions(Path(file))
        ]
        reached = self._reached_lines()
        return len(reached.intersection(everything)), len(everything)

    def missed(self) -> list[str]:
        """Return the lines inside functions that were not reached, as ``module:line``."""
        reached = self._reached_lines()
        return [
            f"{module.__name__}:{line}"
            for file, module in self._files.items()
            for line in _lines_of_functions(Path(file))
            if (file, line) not in reached
        ]

    def steps(self) -> int:
        """Return how many steps were reached."""
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
    found = set()
    waiting = [compile(path.read_text(encoding="utf-8"), str(path), "exec")]
    while waiting:
        code = waiting.pop()
        waiting.extend(each for each in code.co_consts if isinstance(each, CodeType))
        if code.co_flags & inspect.CO_NEWLOCALS:
            lines = {line for _, _, line in code.co_lines() if line}
            if not code.co_name.startswith("<"):  # the line of ``def`` runs when it is defined
                lines.discard(code.co_firstlineno)
            found |= lines
    yield from sorted(found)
