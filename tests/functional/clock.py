"""Steps of the wall clock of one program while it runs."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from .machine import run

_SOURCE = Path(__file__).with_name("clock_step.c")


class WallClock:
    """The wall clock of programs that are started with its `environment`.

    Args:
        home: folder of the library that is preloaded, and of its file.
    """

    def __init__(self, home: Path) -> None:
        library = home / "clock_step.so"
        compiled = run("cc", "-shared", "-fPIC", "-O2", "-o", library, _SOURCE, "-ldl")
        if compiled.returncode:
            raise AssertionError(compiled.stdout)
        self._step = home / "clock_step"
        self.set(0.0)
        self.environment: Mapping[str, str] = {
            "LD_PRELOAD": str(library),
            "CLOCK_STEP": str(self._step),
        }

    def set(self, seconds: float) -> None:
        """Set the clock to ``seconds`` after the true time, or before if they are negative."""
        if self._step.exists():
            with self._step.open("r+b") as file:
                file.write(struct.pack("d", seconds))
        else:
            self._step.write_bytes(struct.pack("d", seconds))
