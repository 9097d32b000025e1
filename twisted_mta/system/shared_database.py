"""A small SQLite file that all processes of one MTA write to, in short transactions.

Each transaction opens the file for itself and blocks, so it runs in a thread. The rollback journal
is used: SQLite before 3.51.3 can corrupt a write-ahead log that two connections of one file reset.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from urllib.parse import quote


class SharedDatabase:
    """The file.

    Args:
        path: of the file, in a directory of its own below the state directory.
        schema: the statements that make its tables where they are missing.
        patience: seconds to wait for another process's transaction.

    All methods raise `OSError` or `sqlite3.Error` where the disk refuses.
    """

    def __init__(self, path: str, schema: Sequence[str], *, patience: float) -> None:
        self.path = path
        self._schema = schema
        self._patience = patience
        self._is_made = False

    def make(self) -> None:
        """Make the file where it is missing: once, lest it be made in a wrong state directory."""
        if self._is_made:
            return
        directory = os.path.dirname(self.path)
        with suppress(FileExistsError):  # another process may make it at the same time
            os.mkdir(directory, 0o700)
            _sync(os.path.dirname(directory))  # SQLite syncs the directory of the file alone
        # The file is made with its mode before SQLite makes it with that of the umask.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        os.close(os.open(self.path, flags, 0o600))
        with self.transaction() as database:
            for statement in self._schema:
                database.execute(statement)
        self._is_made = True

    @contextmanager
    def opened(self) -> Iterator[sqlite3.Connection]:
        """Open the file, to read it; fails where it is missing."""
        path = quote(os.fsencode(os.path.abspath(self.path)))
        connection = sqlite3.connect(
            f"file:{path}?mode=rw", uri=True, isolation_level=None, timeout=self._patience
        )
        with closing(connection) as database:
            yield database

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Begin a transaction that may write, and commit it; an exception rolls it back."""
        with self.opened() as database:
            database.execute("BEGIN IMMEDIATE")
            yield database  # an exception closes the connection, which rolls back
            database.execute("COMMIT")


def _sync(directory: str) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
