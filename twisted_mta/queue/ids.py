"""Queue ids: time of arrival first, so that the order of ids is the order of messages."""

from __future__ import annotations

from ..interfaces import Random, WallTime
from ..mail.queue_id import QueueId

_TIME_BITS = 43  # milliseconds since the epoch: enough until the year 2248
_RANDOM_BITS = 14
_WORKER_BITS = 6
_LOW_BITS = _RANDOM_BITS + _WORKER_BITS

WORKERS = 1 << _WORKER_BITS
"""How many processes can draw ids that never meet."""


class QueueIds:
    """The ids of one process (`interfaces.Ids`): strictly increasing, never the same twice.

    An id is 43 bits of milliseconds since the epoch, then 14 random bits, then 6 that are the
    number of the process, so that no two processes of one MTA ever draw the same. A clock that
    steps back does not bring ids back: then the next one is the one after the last.

    Raises:
        ValueError: ``worker`` is not from 0 to 63.
    """

    def __init__(self, *, wall_time: WallTime, random: Random, worker: int = 0) -> None:
        if not 0 <= worker < WORKERS:
            raise ValueError(f"a worker has a number from 0 to {WORKERS - 1}, not {worker}")
        self._wall_time = wall_time
        self._random = random
        self._worker = worker
        self._last = -1

    def __call__(self) -> QueueId:
        """Return the next id."""
        milliseconds = int(self._wall_time() * 1000) & (1 << _TIME_BITS) - 1
        drawn = milliseconds << _RANDOM_BITS | self._random.getrandbits(_RANDOM_BITS)
        self._last = max(self._last + 1, drawn)
        return QueueId(self._last << _WORKER_BITS | self._worker)


def first_id(time: float) -> QueueId:
    """Return what the ids of all messages that arrived at ``time`` (wall time) or later reach."""
    return QueueId(max(0, int(time * 1000)) << _LOW_BITS)


def time_of(id: QueueId) -> float:
    """Return when a message arrived (wall time), to the millisecond."""
    return (id >> _LOW_BITS) / 1000
