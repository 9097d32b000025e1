"""The numbers of connections that workers have, in memory that they share with their parent.

The kernel gives a connection to the first process that accepts, which is the worker that happens to
run: of 20 connections that came at once one worker often had 19, and the other processor was idle.
So a worker that has more than another leaves the next connection to it for a moment (`ports`).

Each number has one writer: its worker, or the parent once the worker is dead. A number may be a
moment old; it only decides which worker serves which client.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import Self

_OCTETS = 4
_ABSENT = 0xFFFF_FFFF  # takes no connections: no worker has more than that


class SharedCounts:
    """The number of connections of each worker.

    Args:
        descriptor: of the shared memory.
        number: the worker that this process is, from 0; None: the parent.

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
        """Return the counts of so many workers, none of which takes connections yet.

        Raises:
            OSError: no descriptor or no memory is left.
        """
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("twisted-mta-counts")
        else:
            with tempfile.TemporaryFile() as file:  # it has no name, and ends with the last process
                descriptor = os.dup(file.fileno())
        try:
            os.ftruncate(descriptor, workers * _OCTETS)
            counts = cls(descriptor)
        except OSError:
            os.close(descriptor)
            raise
        for number in range(workers):
            counts.gone(number)
        return counts

    def close(self) -> None:
        """Unmap the memory, and close its descriptor."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
            self._numbers.release()
            self._memory.close()

    def gone(self, number: int) -> None:
        """Note that a worker is dead (in the parent)."""
        self._numbers[number] = _ABSENT

    def serve(self) -> None:
        """Take connections from now on."""
        self._serving = True
        self._write()

    def retire(self) -> None:
        """Take no more connections."""
        self._serving = False
        self._write()

    def enter(self) -> None:
        """Count a connection in."""
        self._own += 1
        self._write()

    def leave(self) -> None:
        """Count a connection out."""
        self._own -= 1
        self._write()

    @property
    def ahead(self) -> bool:
        """Whether another worker has so many fewer that the next connection should be its own.

        A small difference does not count: leaving a connection costs time, and with one message to
        a connection the numbers change all the time.
        """
        least = min(self._numbers)
        return self._own > least + max(2, least // 2)

    @property
    def behind(self) -> bool:
        """Whether no other worker has fewer: then this one may take several connections at once."""
        return self._own <= min(self._numbers)

    def _write(self) -> None:
        if self._place >= 0:
            self._numbers[self._place] = self._own if self._serving else _ABSENT
