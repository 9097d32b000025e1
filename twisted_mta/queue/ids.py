"""Queue ids: the time of arrival comes first, so that ids sort by age."""

from __future__ import annotations

from ..interfaces import Random, WallTime
from ..mail.queue_id import QueueId

_TIME_BITS = 43  # milliseconds since the epoch: enough until the year 2248
_RANDOM_BITS = 14
_WORKER_BITS = 6
_LOW_BITS = _RANDOM_BITS + _WORKER_BITS

WORKERS = 1 << _WORKER_BITS
"""Processes at most whose ids are different."""


class QueueIds:
    """The ids of one process (`interfaces.Ids`), strictly increasing.

    An id has 43 bits of milliseconds since the epoch, 14 random bits, and 6 bits with the number of
    the process, so that no two processes of one MTA draw the same id. Where the clock was set back,
    ids go on from the last one.

    Raises:
        ValueError: ``worker`` is not from 0 to 63.
    """

    def __init__(self, *, wall_time: WallTime, random: Random, worker: int = 0) -> None:
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
        if not 0 <= worker < WORKERS:
            raise ValueError(f"found worker number {worker}, expected 0 to {WORKERS - 1}")
        self._worker = worker

    def __call__(self) -> QueueId:
        """Return the next id."""
        milliseconds = int(self._wall_time() * 1000) & (1 << _TIME_BITS) - 1
        drawn = milliseconds << _RANDOM_BITS | self._random.getrandbits(_RANDOM_BITS)
        self._last = max(self._last + 1, drawn)
        return QueueId(self._last << _WORKER_BITS | self._worker)


def first_id(time: float) -> QueueId:
    """Return the lowest id of a message that arrives at ``time`` (wall time)."""
    return QueueId(max(0, int(time * 1000)) << _LOW_BITS)


def worker_of(id: QueueId) -> int:
    """Return the number of the process that drew an id."""
    return id & WORKERS - 1


def time_of(id: QueueId) -> float:
    """Return the wall time at which a message arrived, to the millisecond."""
    return (id >> _LOW_BITS) / 1000
