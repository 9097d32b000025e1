"""Queue ids: time of arrival first, so that the order of ids is the order of messages."""

from __future__ import annotations

from ..envelope import QueueId
from ..interfaces import Random, WallTime

_RANDOM_BITS = 20
_TIME_BITS = 43  # milliseconds since the epoch: enough until the year 2248


class QueueIds:
    """The ids of one process (`interfaces.Ids`): strictly increasing, never the same twice.

    An id is 43 bits of milliseconds since the epoch, then 20 random bits, which keep apart the ids
    of processes that share a queue. A clock that steps back does not bring ids back: then the next
    one is the last one plus one.
    """

    def __init__(self, *, wall_time: WallTime, random: Random) -> None:
        self._wall_time = wall_time
        self._random = random
        self._last = -1

    def __call__(self) -> QueueId:
        """Return the next id."""
        milliseconds = int(self._wall_time() * 1000) & (1 << _TIME_BITS) - 1
        drawn = milliseconds << _RANDOM_BITS | self._random.getrandbits(_RANDOM_BITS)
        self._last = max(self._last + 1, drawn)
        return QueueId(self._last)
