"""CPU time and memory of processes, from ``/proc`` (Linux)."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    # The name, in brackets, may contain spaces and brackets: continue after the last bracket.
    text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    return text[text.rindex(")") + 2 :].split()


def family(pid: int) -> list[int]:
    """Return ``pid`` and all its descendants that run now."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                parents[int(entry)] = int(_stat(int(entry))[1])
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has just ended
    members = [pid]
    for member in members:
        members.extend(child for child, parent in parents.items() if parent == member)
    return members


def cpu_seconds(pid: int) -> float:
    """Return the CPU time, user and system, of ``pid`` and all its descendants, past ones included.

    The time of a process that ends is added to its parent, so the sum never decreases.
    """
    ticks = 0
    for member in family(pid):
        try:
            ticks += sum(map(int, _stat(member)[11:15]))  # utime stime cutime cstime
        except (FileNotFoundError, ProcessLookupError):
            continue
    return ticks / _TICKS


def resident(pid: int) -> int:
    """Return the memory of ``pid`` and all its descendants, in octets.

    Shared memory is counted once (PSS) if the system shows that, which it does only to the owner.
    """
    return sum(map(_resident, family(pid)))


def _resident(pid: int) -> int:
    for file, field in (("smaps_rollup", "Pss"), ("status", "VmRSS")):
        with contextlib.suppress(OSError):
            return _field(pid, file, field)
    return 0


def _field(pid: int, file: str, field: str) -> int:
    for line in Path(f"/proc/{pid}/{file}").read_text("utf-8", "replace").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0  # a zombie has none


def memory(pid: int, field: str) -> dict[int, int]:
    """Return the octets of each process of a family.

    Args:
        pid: the parent of all.
        field: ``VmRSS``: resident now; ``VmHWM``: the peak since `forget_peaks`.
    """
    found = {}
    for member in family(pid):
        with contextlib.suppress(OSError):
            found[member] = _field(member, "status", field)
    return found


def forget_peaks(pid: int) -> None:
    """Reset the memory peaks of all processes of a family (proc(5), ``clear_refs``)."""
    for member in family(pid):
        with contextlib.suppress(OSError):
            Path(f"/proc/{member}/clear_refs").write_text("5", "ascii")
