"""What a process uses of the system: memory and descriptors."""

from __future__ import annotations

import os

from .accepting import for_connections, limit

_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_memory() -> int | None:
    """Return the octets of memory that the process has in use; None where it is not known."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return None


def lowest_free_descriptor() -> int:
    """Return the lowest number that no descriptor has: all below it are in use.

    Raises:
        OSError: no descriptor is free.
    """
    # open(2) gives the lowest number that is free.
    lowest = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.close(lowest)
    return lowest


def descriptors_in_use() -> int | None:
    """Return how many descriptors the process has, or at least the lowest number that is free."""
    try:
        return lowest_free_descriptor()
    except OSError:
        return limit()


def descriptors_for_connections() -> tuple[int, int]:
    """Return how many descriptors there can be, and from which number on connections wait."""
    return limit(), for_connections()
