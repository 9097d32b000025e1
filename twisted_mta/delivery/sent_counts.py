"""The messages that have left from each source address today, counted by all processes in a file.

A process takes some messages of the day's number before it sends them, so that a crash can only
make it send fewer.
"""

from __future__ import annotations

from ..system.shared_database import SharedDatabase

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS sent (address TEXT NOT NULL, day INTEGER NOT NULL,"
    " messages INTEGER NOT NULL, PRIMARY KEY (address, day)) WITHOUT ROWID",
)
_PATIENCE = 5.0  # seconds
_KEPT = 40  # days


class SentCounts:
    """The file.

    Args:
        path: of the file, in a directory of its own below the state directory.

    All methods block, and raise `OSError` or `sqlite3.Error` where the disk refuses.
    """

    def __init__(self, path: str) -> None:
        self._database = SharedDatabase(path, _SCHEMA, patience=_PATIENCE)

    def take(self, address: str, day: int, limit: int, wanted: int) -> int:
        """Count some messages more, within a limit; return how many.

        Args:
            address: that they are to leave from.
            day: since the epoch, in UTC.
            limit: messages of that day.
            wanted: messages to count at most.
        """
        self._database.make()
        with self._database.transaction() as database:
            (sent,) = database.execute(
                "SELECT messages FROM sent WHERE address = ? AND day = ?", (address, day)
            ).fetchone() or (0,)
            granted = max(0, min(wanted, limit - sent))
            if granted:
                database.execute(
                    "INSERT OR REPLACE INTO sent VALUES (?, ?, ?)", (address, day, sent + granted)
                )
            if not sent:
                database.execute("DELETE FROM sent WHERE day < ?", (day - _KEPT,))
        return granted

    def counted(self, day: int) -> dict[str, int]:
        """Return the messages of a day that were counted, by address."""
        self._database.make()
        with self._database.opened() as database:
            return dict(
                database.execute("SELECT address, messages FROM sent WHERE day = ?", (day,))
            )
