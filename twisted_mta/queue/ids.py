"""Queue ids: the time of arrival comes first, so that ids sort by age."""

from __future__ import annotations

from ..interfaces import Random, WallTime
from ..mail.queue_id import QueueId

_TIME_BITS = 43  # milliseconds since the epoch: enough until the year 2248
_LOW_BITS = 20  # random ones, then those of the process

WORKERS = 64
"""Processes of one machine at most."""

SHARED_WORKERS = 1024
"""Processes at most of all machines with one queue."""


class QueueIds:
    """The ids of one process (`interfaces.Ids`), strictly increasing.

    An id has 43 bits of milliseconds since the epoch, 14 random bits, and 6 bits with the number of
    the process, so that no two processes of one MTA draw the same id. Where several machines have
    one queue, 10 bits are random and 10 have the number. Where the clock was set back, ids go on
    from the last one.

    Args:
        wall_time: of arrival.
        random: for the random bits.
        worker: the number of the process.
        workers: how many numbers there can be, a power of two.

    Raises:
        ValueError: ``worker`` is not from 0 to ``workers`` - 1.
    """

    def __init__(
        self, *, wall_time: WallTime, random: Random, worker: int = 0, workers: int = WORKERS
    ) -> None:
        self._worker_bits = workers.bit_length() - 1
        self._random_bits = _LOW_BITS - self._worker_bits
        self.worker = worker
        self._wall_time = wall_time
        self._random = random
        self._last = -1

    @property
    def worker(self) -> int:
        """The number of the process."""
        return self._worker

    @worker.setter
    def worker(self, worker: int) -> None:
        workers = 1 << self._worker_bits
        if not 0 <= worker < workers:
            raise ValueError(f"found worker number {worker}, expected 0 to {workers - 1}")
        self._worker = worker

    def __call__(self) -> QueueId:
        """Return the next id."""
        milliseconds = int(self._wall_time() * 1000) & (1 << _TIME_BITS) - 1
        drawn = milliseconds << self._random_bits | self._random.getrandbits(self._random_bits)
        self._last = max(self._last + 1, drawn)
        return QueueId(self._last << self._worker_bits | self._worker)


def first_id(time: float) -> QueueId:
    """Return the lowest id of a message that arrives at ``time`` (wall time)."""
    return QueueId(max(0, int(time * 1000)) << _LOW_BITS)


def time_of(id: QueueId) -> float:
    """Return the wall time at which a message arrived, to the millisecond."""
    return (id >> _LOW_BITS) / 1000
