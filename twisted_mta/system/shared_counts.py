"""How many connections each worker has, in memory that all of them and their parent see.

The kernel gives a connection to whoever asks first, and that is the worker that happens to run: of
20 connections that came at once one worker often had 19, and the other processor was idle. So who
has more than another leaves the next one to that other for a moment (`ports`).

Each number has one writer, its worker, or the parent once that is dead; what is read may be a
moment old, and decides nothing but who is served by whom.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import Self

_OCTETS = 4
_ABSENT = 0xFFFF_FFFF  # takes no connections: nobody has more than that


class SharedCounts:
    """The numbers.

    Args:
        descriptor: of the memory.
        number: which worker's this is, from 0; None for the parent.

    Attributes:
        descriptor: see the argument; open until `close`.
    """

    def __init__(self, descriptor: int, number: int | None = None) -> None:
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, 0)
        self._numbers = memoryview(self._memory).cast("I")
        self._place = -1 if number is None else number
        self._own = 0
        self._serving = False

    @classmethod
    def of(cls, workers: int) -> Self:
        """Return those of so many workers, of whom none takes connections yet.

        Raises:
            OSError: there is no descriptor or no memory left.
        """
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("twisted-mta-loads")
        else:
            with tempfile.TemporaryFile() as file:  # without a name, and gone with the last of us
                descriptor = os.dup(file.fileno())
        try:
            os.ftruncate(descriptor, workers * _OCTETS)
            loads = cls(descriptor)
        except OSError:
            os.close(descriptor)
            raise
        for number in range(workers):
            loads.gone(number)
        return loads

    def close(self) -> None:
        """Hand the memory to nobody else, and forget it."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
            self._numbers.release()
            self._memory.close()

    def gone(self, number: int) -> None:
        """A worker is dead, says its parent."""
        self._numbers[number] = _ABSENT

    def serve(self) -> None:
        """Connections are taken here from now on."""
        self._serving = True
        self._tell()

    def retire(self) -> None:
        """No more are."""
        self._serving = False
        self._tell()

    def enter(self) -> None:
        """One was taken."""
        self._own += 1
        self._tell()

    def leave(self) -> None:
        """One has ended."""
        self._own -= 1
        self._tell()

    @property
    def ahead(self) -> bool:
        """Whether another worker has so much fewer that the next one should be its own.

        Not at once: to leave a connection to another costs something, and where each carries one
        message the numbers go up and down all the time.
        """
        least = min(self._numbers)
        return self._own > least + max(2, least // 2)

    def _tell(self) -> None:
        if self._place >= 0:
            self._numbers[self._place] = self._own if self._serving else _ABSENT
