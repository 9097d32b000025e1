"""The messages that have left from each source address today, counted by all machines."""

from __future__ import annotations

from ..cluster.database import ClusterDatabase
from ..cluster.schema import Database

_KEPT = 40  # days

_TAKE = """
    INSERT INTO sent AS known (address, day, messages) VALUES (%(address)s, %(day)s, %(wanted)s)
    ON CONFLICT (address, day) DO UPDATE SET messages = known.messages + excluded.messages
    RETURNING messages
"""


class SharedSentCounts:
    """Counts in the database of a cluster (`source_pools.Counts`).

    Args:
        database: its executor is where the methods are to be called.

    All methods block, and raise `cluster.away.DatabaseAway` where the database fails.
    """

    def __init__(self, database: ClusterDatabase) -> None:
        self._database = database

    def take(self, address: str, day: int, limit: int, wanted: int) -> int:
        """Count some messages more, within a limit; return how many.

        Args:
            address: that they are to leave from.
            day: since the epoch, in UTC.
            limit: messages of that day.
            wanted: messages to count at most.
        """
        return self._database.call(_take, address, day, limit, wanted)

    def counted(self, day: int) -> dict[str, int]:
        """Return the messages of a day that were counted, by address."""
        return self._database.call(_counted, day)


def _take(database: Database, address: str, day: int, limit: int, wanted: int) -> int:
    with database.transaction():
        values = {"address": address, "day": day, "wanted": wanted}
        [(messages,)] = database.execute(_TAKE, values).fetchall()
        before = int(messages) - wanted
        granted = max(0, min(wanted, limit - before))
        if granted < wanted:
            database.execute(
                "UPDATE sent SET messages = %s WHERE address = %s AND day = %s",
                (before + granted, address, day),
            )
        if not before:
            database.execute("DELETE FROM sent WHERE day < %s", (day - _KEPT,))
    return granted


def _counted(database: Database, day: int) -> dict[str, int]:
    rows = database.execute("SELECT address, messages FROM sent WHERE day = %s", (day,))
    return dict(rows.fetchall())
