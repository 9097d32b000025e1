"""The embedded store: SQLite in WAL mode, `synchronous=FULL`, one connection, large bodies beside.

This file opens, recovers and closes the database, and applies batches. The statements are in
`sqlite_transaction`, `due`, `operator_queries` and `history`.

There is one connection and no other, in `locking_mode=EXCLUSIVE`: SQLite before 3.51.3 can corrupt
a WAL that two connections of one file reset, and all reads go through this connection.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Sequence

from ...interfaces import Files
from ...mail.queue_id import QueueId
from ..operator.operations import HoldFiles
from .contract import (
    Accept,
    Census,
    Operation,
    Recovery,
    Result,
    StateInUse,
    StoreError,
    StoreFull,
    apply_batch,
)
from .counts import Counts
from .leases import Leases
from .levels import Levels
from .lock import StateLock
from .queue_files import QueueFiles
from .schema import scripts, transaction, upgrade
from .spool import Spool
from .sqlite_transaction import SQLiteTransaction
from .suspended_file import SUSPENDED_FILE, SuspendedFile

# Octets that are left free for outcomes: the write-ahead log grows to 1,000 pages (4 MiB) before
# SQLite copies it into the database and begins it anew, and the copy may need room there.
RESERVE = 6 << 20

# Prepared statements that are kept. Those that take as many rows as a batch has come in 64 lengths
# each, more in all than the 128 that are kept by default.
_STATEMENTS = 512

_LONGEST_LOG = 256 << 20  # octets of the write-ahead log while the files are held for a copy
_MOST_FILES_KEPT = 100_000  # body files without a message that a hold keeps
_LOOKED_INTO = 1000  # body files at a start, of the newest messages
_CHECKPOINT = 1000  # pages: SQLite's own default

SETTINGS = (
    "locking_mode = EXCLUSIVE",
    "synchronous = FULL",
    "fullfsync = ON",  # macOS: the fsync of other systems
    "checkpoint_fullfsync = ON",
    "foreign_keys = OFF",  # the statements keep them, at no cost
    "cache_size = -1000",  # KiB; 2,000 make mail no faster, and a count of a long queue fills them
    "secure_delete = OFF",  # ON, as in Debian, writes each page of a message that left once more
)


class SQLiteStore:
    """`contract.Store` in one file, with a directory for large bodies.

    Args:
        path: of the database; its directory exists.
        spool: the directory of large bodies.
        files: the disk.
        lock: the lock of the state directory, whose file has to stay in place; None: no lock.
        reserve: octets that have to be free for a message to be accepted.
        suspended: the suspended destinations of all shards; None: a file beside the database.
    """

    def __init__(
        self,
        path: str,
        *,
        spool: Spool,
        files: Files,
        lock: StateLock | None = None,
        reserve: int = RESERVE,
        suspended: SuspendedFile | None = None,
    ) -> None:
        self._path = path
        self._directory = os.path.dirname(path)
        self._lock = lock
        self._reserve = reserve
        self._spool = spool
        beside = os.path.join(self._directory, SUSPENDED_FILE)
        self._suspended = suspended or SuspendedFile(beside)
        self._files = files
        self._queue_files = QueueFiles(path, spool.directory, files=files, lock=lock)
        self._database: sqlite3.Connection | None = None
        self._is_recovered = False
        self._page_size = 0  # octets; fixed when the database is made
        self._free_pages = 0  # octets in pages of the database that are not in use
        self._leases = Leases()
        self._levels = Levels()
        self._counts = Counts()
        self._held = ""  # the copy that the files are kept for
        # The body files of messages that left meanwhile, which are kept for it.
        self._removed_later: list[tuple[QueueId, QueueId]] = []

    # Opening and closing.

    def open(self) -> Recovery:
        """Open the database and the directory of bodies (`contract.Store`).

        The first time both are made if they are missing. After that nothing is made: an empty queue
        in the place of one that went away would hide all its mail.
        """
        self.close()  # where an earlier `open` or `close` failed half-way
        try:
            if self._queue_files.are_known:
                self._queue_files.recognize_database()
            else:
                self._make_files()
            database = sqlite3.connect(
                f"{self._queue_files.uri}?mode=rw",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=_STATEMENTS,
            )
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{self._path} cannot be opened: {error}") from error
        try:
            self._configure(database)
            if self._queue_files.are_known:
                self._queue_files.recognize_bodies(database)
                if self._lock is not None:
                    self._lock.renew()
            self._database = database
            # The name of the database has to be as durable as its content.
            self._files.sync_directory(self._directory)
            removed, swept, quarantined = self._recover(database)
            suspended = self._suspended.read()
            self._counts = Counts.read(database)
            self._levels.read(database)
            (self._page_size,) = database.execute("PRAGMA page_size").fetchone()
            self._free_pages = self._read_free_pages(database)
            self._queue_files.remember(database)
        except BaseException as error:
            self._database = None
            with contextlib.suppress(sqlite3.Error):
                database.close()
            if isinstance(error, OSError | sqlite3.Error | StateInUse):
                raise StoreError(f"{self._path} cannot be opened: {error}") from error
            raise
        return Recovery(swept, quarantined, self.census(), removed, suspended)

    def close(self) -> None:
        """Close the database (`contract.Store`)."""
        database, self._database = self._database, None
        self._end_hold(None)
        if database is not None:
            with contextlib.suppress(sqlite3.Error):
                database.close()
        self._spool.close_files()
        self._queue_files.closed()

    def _make_files(self) -> None:
        self._files.make_directories(self._spool.directory)
        # The file is made with its mode before SQLite makes it with that of the umask.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        os.close(os.open(self._path, flags, 0o600))

    def _configure(self, database: sqlite3.Connection) -> None:
        for setting in SETTINGS:
            database.execute(f"PRAGMA {setting}")
        (mode,) = database.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":  # SQLite reports the failure in no other way
            raise OSError(f"the file system allows no write-ahead log, only {mode!r}")
        if upgrade(database, scripts()):
            # `QueueFiles.recognize_database` reads the identity without the log; where the disk is
            # full, the log is copied later.
            with contextlib.suppress(sqlite3.Error):
                database.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _recover(
        self, database: sqlite3.Connection
    ) -> tuple[tuple[QueueId, ...], tuple[str, ...], tuple[QueueId, ...]]:
        """Finish what an earlier process left, once in the life of this one.

        Later there are body files whose row is still to be written, and recipients whose removal
        waits for the end of their lease.

        Returns:
            Messages of removed recipients, names of files that were swept, and messages that were
            quarantined.
        """
        if self._is_recovered:
            return (), (), ()
        removed = self._end_removals(database)
        swept, quarantined = self._reconcile(database)
        self._is_recovered = True
        return removed, swept, quarantined

    def _end_removals(self, database: sqlite3.Connection) -> tuple[QueueId, ...]:
        """Remove recipients that were removed while leased to a process that is no more."""
        keys = database.execute(
            "SELECT message, number FROM recipient WHERE removing IS NOT NULL"
        ).fetchall()
        if not keys:
            return ()
        self._counts = Counts.read(database)
        changes = self._transaction(database)
        with transaction(database):
            changes.end_removals(keys)
            changes.write_counts()
        self._remove(changes.files)
        return tuple(QueueId(id) for id in dict.fromkeys(id for id, _ in keys))

    def _reconcile(
        self, database: sqlite3.Connection
    ) -> tuple[tuple[str, ...], tuple[QueueId, ...]]:
        """Remove body files without a row; quarantine messages without their file.

        The first lines of all files would be read from a cold disk for minutes. A file that was
        used again after a copy of the database was among those that were written last before it;
        what is not found here is found when the file is opened.
        """
        expected = {
            str(QueueId(id if file is None else file)): (QueueId(id), size, file)
            for id, size, file in database.execute(
                "SELECT id, size, file FROM message WHERE body IS NULL ORDER BY id"
            )
        }
        names = self._files.names(self._spool.directory)
        swept = tuple(name for name in names if name not in expected)
        for name in swept:
            self._files.unlink(os.path.join(self._spool.directory, name))
        there = dict.fromkeys(names)
        newest = dict.fromkeys([id for id, *_ in expected.values()][-_LOOKED_INTO:])
        missing = tuple(
            message
            for name, (message, size, file) in expected.items()
            if name not in there or (message in newest and not self._spool.has(message, size, file))
        )
        if missing:
            with transaction(database):
                for id in missing:
                    database.execute(
                        "UPDATE message SET quarantine = 'its body file is missing' WHERE id = ?",
                        (id,),
                    )
                    database.execute(
                        "UPDATE recipient SET next_attempt = NULL, held = NULL WHERE message = ?",
                        (id,),
                    )
                database.execute(
                    "UPDATE census SET quarantined ="
                    " (SELECT count(*) FROM message WHERE quarantine IS NOT NULL),"
                    " held = (SELECT count(*) FROM recipient WHERE held IS NOT NULL)"
                )
        return swept, missing

    # Batches.

    def apply(self, batch: Sequence[Operation]) -> list[Result]:
        """Apply ``batch`` in one transaction (`contract.Store`)."""
        database = self._database
        if database is None:
            raise StoreError("the store is closed")
        if any(isinstance(each, Accept) for each in batch):
            self._check_room()
        changes = self._transaction(database)
        try:
            with transaction(database):
                results = apply_batch(batch, changes)
                changes.write_counts()
            self._queue_files.check()  # before a result is reported
        except BaseException as error:
            changes.undo()
            if not isinstance(error, sqlite3.Error | OSError):
                raise
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise StoreFull(str(error)) from error
            raise StoreError(str(error)) from error
        changes.finish()
        self._counts = changes.counts
        self._free_pages = self._read_free_pages(database)
        # After the commit: a file without a row is swept, a row without its file would be lost.
        if self._held:
            self._removed_later += changes.files + changes.delivered
        else:
            self._remove(changes.files)
            for id, message in changes.delivered:
                self._spool.release(id, message)
        if changes.hold is not None or self._held:
            self._change_hold(database, changes.hold)
        return results

    def _remove(self, files: Sequence[tuple[QueueId, QueueId]]) -> None:
        for id, message in files:
            self._spool.remove(id, message)

    # Files that are kept for a copy.

    def _change_hold(self, database: sqlite3.Connection, hold: HoldFiles | None) -> None:
        """Begin or end a hold; end one that takes too much room."""
        try:
            if hold is not None:
                self._end_hold(database)
            if hold is not None and hold.action == "begin":
                database.execute("PRAGMA wal_autocheckpoint = 0")
                # With nothing left in the log, the database file is complete; and SQLite writes
                # to it only when it copies the log there.
                (busy, _, _) = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                if not busy:
                    self._held = hold.copy
            if self._held and (
                os.path.getsize(f"{self._path}-wal") > _LONGEST_LOG
                or len(self._removed_later) > _MOST_FILES_KEPT
                or self.free() < 2 * self._reserve
            ):
                self._end_hold(database)
        except (OSError, sqlite3.Error):
            self._end_hold(database)  # the copy is not complete, and mail goes on

    def _end_hold(self, database: sqlite3.Connection | None) -> None:
        """Let the files change again.

        Args:
            database: None: it is closed.
        """
        self._held = ""
        removed, self._removed_later = self._removed_later, []
        self._remove(removed)
        if database is not None:
            with contextlib.suppress(sqlite3.Error):
                database.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT}")

    def _transaction(self, database: sqlite3.Connection) -> SQLiteTransaction:
        return SQLiteTransaction(
            database,
            counts=self._counts,
            leases=self._leases,
            levels=self._levels,
            spool=self._spool,
            suspended=self._suspended,
            held=self._held,
            check_files=self._queue_files.check,
        )

    def census(self) -> Census:
        """Return the kept counts (`contract.Store`)."""
        return self._counts.census(len(self._leases))

    # Room.

    def free(self) -> int:
        """Return how many octets can still be stored: on the disk, and in unused pages.

        The database file never shrinks, so the pages of mail that left take new mail.

        Raises:
            OSError: the file system cannot be asked.
        """
        return self._files.free(self._directory) + self._free_pages

    def _read_free_pages(self, database: sqlite3.Connection) -> int:
        (pages,) = database.execute("PRAGMA freelist_count").fetchone()
        return int(pages) * self._page_size

    def _check_room(self) -> None:
        try:
            free = self.free()
        except OSError as error:
            raise StoreError(str(error)) from error
        if free < self._reserve:
            self._spool.close_files()  # there may be room in spare ones for the next time
            # The mail that is in the queue has to be delivered, and its outcomes need room.
            raise StoreFull(f"{free} octets are free, and {self._reserve} are kept for outcomes")
