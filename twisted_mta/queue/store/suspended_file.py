"""The suspended destinations of an embedded queue: one small file for all its shards.

A worker has a shard of its own, and the number of workers may change between two starts, so the
file is beside the shards and not in them. It is there once a destination was suspended.
"""

from __future__ import annotations

import os
import sqlite3
from urllib.parse import quote

from ...system.shared_database import SharedDatabase
from ..operator.suspended import SuspendedDestination

SUSPENDED_FILE = os.path.join("suspended", "suspended.sqlite")
"""The file, in the state directory."""

_PATIENCE = 5.0  # seconds to wait for another process's transaction
_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS destination (
        name TEXT PRIMARY KEY, since REAL NOT NULL, until REAL, reason TEXT NOT NULL,
        by_operator TEXT NOT NULL
    ) WITHOUT ROWID""",
)


class SuspendedFile:
    """The file. Every method blocks, and opens the file for itself.

    Args:
        path: of the file, in a directory of its own below the state directory.

    All methods raise `OSError` or `sqlite3.Error` where the disk refuses.
    """

    def __init__(self, path: str) -> None:
        self._database = SharedDatabase(path, _SCHEMA, patience=_PATIENCE)

    def read(self) -> tuple[SuspendedDestination, ...]:
        """Return all of them, by name, also those whose time is over."""
        if not os.path.exists(self._database.path):
            return ()
        with self._database.opened() as database:
            return _read(database)

    def read_stopped(self) -> tuple[SuspendedDestination, ...]:
        """Return all of them, without a change to the file or its directory."""
        if not os.path.exists(self._database.path):
            return ()
        path = quote(os.fsencode(os.path.abspath(self._database.path)))
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)
        try:
            return _read(database)
        finally:
            database.close()

    def put(self, destination: SuspendedDestination) -> None:
        """Suspend a destination, or change how; those whose time is over are forgotten."""
        self._database.make()
        values = destination.name, destination.since, destination.until
        with self._database.transaction() as database:
            database.execute("DELETE FROM destination WHERE until <= ?", (destination.since,))
            database.execute(
                "INSERT OR REPLACE INTO destination VALUES (?, ?, ?, ?, ?)",
                (*values, destination.reason, destination.by),
            )

    def remove(self, name: str | None) -> tuple[SuspendedDestination, ...]:
        """Resume a destination, or all (None); return those that were suspended."""
        if not os.path.exists(self._database.path):
            return ()
        with self._database.transaction() as database:
            there = _read(database)
            removed = tuple(each for each in there if name is None or name == each.name)
            database.executemany(
                "DELETE FROM destination WHERE name = ?", [(each.name,) for each in removed]
            )
        return removed


def _read(database: sqlite3.Connection) -> tuple[SuspendedDestination, ...]:
    made = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'destination'").fetchone()
    if made is None:  # the process that was to make it has died
        return ()
    rows = database.execute("SELECT * FROM destination ORDER BY name")
    return tuple(SuspendedDestination(*row) for row in rows)
