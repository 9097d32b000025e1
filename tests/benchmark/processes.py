"""What processes cost, from ``/proc`` (Linux)."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    # The name, in brackets, may hold spaces and brackets itself: read on from the last one.
    text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    return text[text.rindex(")") + 2 :].split()


def family(pid: int) -> list[int]:
    """Return ``pid`` and all processes below it that are alive now."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                parents[int(entry)] = int(_stat(int(entry))[1])
            except (FileNotFoundError, ProcessLookupError):
                continue  # ended while we were looking
    members = [pid]
    for member in members:
        members.extend(child for child, parent in parents.items() if parent == member)
    return members


def cpu_seconds(pid: int) -> float:
    """Return the CPU time, user and system, of ``pid`` and everything below it, living or ended.

    A process that ends hands its time to its parent, so the sum never goes back.
    """
    ticks = 0
    for member in family(pid):
        try:
            ticks += sum(map(int, _stat(member)[11:15]))  # utime stime cutime cstime
        except (FileNotFoundError, ProcessLookupError):
            continue
    return ticks / _TICKS
