"""Processor time in tests that bound it."""

from __future__ import annotations

import gc
from typing import Any


def collect_nothing(case: Any) -> None:
    """Collect no garbage until the end of a test.

    A collection comes at any time. In a process that has run thousands of tests it takes longer
    than what is measured.

    Args:
        case: the test case.
    """
    if gc.isenabled():
        gc.disable()
        case.addCleanup(gc.enable)
