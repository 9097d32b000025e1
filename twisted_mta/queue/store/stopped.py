"""The queue of a process that does not run, read from its files without a change to them."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from urllib.parse import quote

from ..operator.operations import (
    Browse,
    CountWaiting,
    Inspect,
    Inspected,
    Page,
    ReadSuspended,
    Summarize,
    Summarized,
    Suspended,
    Tallied,
    Tally,
    WaitingCounts,
)
from . import operator_queries
from .contract import NewerSchema, StateInUse, StoreError
from .schema import scripts
from .spool import Spool
from .suspended_file import SuspendedFile

Reading = Browse | Inspect | Tally | Summarize | CountWaiting | ReadSuspended
"""Operations that change nothing."""


class StoppedQueue:
    """Reads a queue. No process can open it meanwhile.

    Args:
        path: of the database.
        spool: the directory of large bodies.
        suspended: the suspended destinations of all shards.
    """

    def __init__(self, path: str, *, spool: Spool, suspended: SuspendedFile) -> None:
        self._suspended = suspended
        self._path = path
        self._spool = spool
        self._database: sqlite3.Connection | None = None
        self._locked: int | None = None

    def open(self, lock: str) -> None:
        """Open it.

        Args:
            lock: path of the file that a process which works on the queue has locked.

        Raises:
            StateInUse: a process works on it.
            StoreError: it cannot be read.
            FileNotFoundError: there is none.
            NewerSchema: a newer program has written it.
        """
        os.stat(self._path)
        try:
            self._locked = os.open(lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            fcntl.flock(self._locked, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise StateInUse(f"{os.path.dirname(self._path)} is in use by an MTA") from None
        except FileNotFoundError:
            pass  # a copy: it was not started yet
        except OSError as error:
            self.close()
            raise StoreError(f"{lock} cannot be locked: {error.strerror}") from error
        try:
            self._connect()
        except sqlite3.Error as error:
            self.close()
            raise StoreError(f"{self._path} cannot be read: {error}") from error
        except NewerSchema:
            self.close()
            raise

    def _connect(self) -> None:
        # Without a log the file is all there is, and no file is made beside it. With one, SQLite
        # makes an index of it, which it leaves there.
        log = f"{self._path}-wal"
        has_log = os.path.exists(log) and os.path.getsize(log) > 0
        options = "mode=ro" if has_log else "mode=ro&immutable=1"
        uri = f"file:{quote(os.fsencode(os.path.abspath(self._path)))}?{options}"
        self._database = sqlite3.connect(uri, uri=True, isolation_level=None)
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version > len(scripts()):
            raise NewerSchema(
                f"the queue has schema version {version}, and this program knows"
                f" {len(scripts())}: a newer program used it; read it with that program"
            )
        if version < len(scripts()):
            raise StoreError(
                f"{self._path} has schema version {version}, of an older program, and this program"
                f" reads {len(scripts())}; start the MTA once, or read it with that program"
            )

    def perform(
        self, operation: Reading
    ) -> Page | Inspected | Tallied | Summarized | WaitingCounts | Suspended | None:
        """Return the result of an operation.

        Raises:
            StoreError: the files cannot be read.
        """
        database = self._database
        if database is None:
            raise StoreError("the queue is not open")
        try:
            if isinstance(operation, Browse):
                return operator_queries.browse(database, operation, lambda key: False)
            if isinstance(operation, Inspect):
                return operator_queries.inspect(database, operation, lambda key: False, self._spool)
            if isinstance(operation, Summarize):
                return operator_queries.summarize(database, operation)
            if isinstance(operation, CountWaiting):
                return operator_queries.count_waiting(database, operation)
            if isinstance(operation, ReadSuspended):
                return Suspended(self._suspended.read_stopped())
            return operator_queries.tally(database, operation)
        except sqlite3.Error as error:
            raise StoreError(f"{self._path} cannot be read: {error}") from error

    def close(self) -> None:
        """Close it, and let processes open it."""
        database, self._database = self._database, None
        if database is not None:
            database.close()
        locked, self._locked = self._locked, None
        if locked is not None:
            os.close(locked)
