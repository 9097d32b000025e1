"""The files of an open queue: whether their names still lead to them.

A file that was unlinked, or that is on a file system which was unmounted while it was in use, takes
writes as before, and what is written there is lost. So the files that are open are compared with
those that have their names, by device and inode, after each commit; and when the queue is opened
again, it has to be the queue that was open before.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from urllib.parse import quote

from attrs import frozen

from ...interfaces import Files
from ...mail.queue_id import QueueId
from ...system.files import identity
from .lock import StateLock


@frozen
class _Queue:
    """What a queue that was open is recognized by.

    Attributes:
        id: its random id.
        bodies: the directory of its bodies (`Files.identity`).
        beside: whether that directory is on the file system of the database.
    """

    id: bytes
    bodies: tuple[int, int]
    beside: bool


class QueueFiles:
    """The database, its write-ahead log, the directory of bodies and the lock file.

    Args:
        path: of the database.
        bodies: path of the directory of bodies.
        files: the disk.
        lock: the lock of the state directory; None: there is none.
    """

    def __init__(self, path: str, bodies: str, *, files: Files, lock: StateLock | None) -> None:
        self._path = path
        self._log = f"{path}-wal"
        self._bodies = bodies
        self._files = files
        self._lock = lock
        self._queue: _Queue | None = None  # that was open, or is
        self._database_identity = (0, 0)
        self._log_identity = (0, 0)
        # A descriptor of the database that is open, or was: as long as it is open, no other file
        # gets its inode. It must not be closed while the database is open: SQLite's lock on the
        # file would end (POSIX).
        self._descriptor: int | None = None

    @property
    def are_known(self) -> bool:
        """Whether a queue was open before, so that none may be made."""
        return self._queue is not None

    @property
    def uri(self) -> str:
        """The database, as SQLite opens it."""
        return f"file:{quote(os.fsencode(os.path.abspath(self._path)))}"

    def remember(self, database: sqlite3.Connection) -> None:
        """Remember the queue that is open now."""
        (id,) = database.execute("SELECT id FROM identity").fetchone()
        bodies = self._files.identity(self._bodies)
        self._queue = _Queue(id, bodies, beside=bodies[0] == self._device_of_database())
        self._database_identity = identity(self._path)
        self._log_identity = identity(self._log)
        if self._descriptor is not None and not self._is_in_place(self._descriptor):
            self._close_descriptor()
        if self._descriptor is None:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    def closed(self) -> None:
        """Take note that the database is closed."""
        if self._descriptor is not None and self._is_in_place(self._descriptor):
            self._close_descriptor()

    def recognize_database(self) -> None:
        """Check, before the database is opened again, that it is the one that was open.

        It is read without its write-ahead log: SQLite would remove the log of an empty file, and
        write it into any other.

        Raises:
            OSError: it is another one, or is not there.
        """
        assert self._queue is not None
        moved = identity(self._path) != self._database_identity
        if moved and os.path.exists(self._log) and identity(self._log) == self._log_identity:
            raise OSError(
                "it is another file than the one that was open, and the log of that one,"
                f" {self._log}, is still there; put that file back, or move the log away"
            )
        id: object = None
        file = sqlite3.connect(f"{self.uri}?mode=ro&immutable=1", uri=True)
        with contextlib.closing(file), contextlib.suppress(sqlite3.Error):
            (id,) = file.execute("SELECT id FROM identity").fetchone() or (None,)
        if id != self._queue.id:
            raise OSError(
                "it is another queue than the one that was open; that one is used again when it is"
                " back, and no queue is made in its place"
            )

    def recognize_bodies(self, database: sqlite3.Connection) -> None:
        """Check that the directory of bodies is the one that belongs to the database.

        Raises:
            OSError: it is another one.
        """
        queue = self._queue
        assert queue is not None
        bodies = self._files.identity(self._bodies)
        if bodies == queue.bodies:
            return
        # A file system that was mounted again may have another number, and a copy has other inodes.
        names = dict.fromkeys(self._files.names(self._bodies))
        expected = database.execute(
            "SELECT coalesce(file, id) FROM message WHERE body IS NULL AND quarantine IS NULL"
        ).fetchall()
        missing = sum(str(QueueId(id)) not in names for (id,) in expected)
        beside = queue.beside and bodies[0] == self._device_of_database()
        if missing or not (expected or beside):
            raise OSError(
                f"{self._bodies} is another directory than the one that was open, and lacks"
                f" {missing} of {len(expected)} bodies; that one is used again when it is back"
            )

    def check(self) -> None:
        """Check that the names of all files lead to those that are open.

        Raises:
            OSError: one does not.
        """
        assert self._queue is not None
        if identity(self._path) != self._database_identity:
            raise OSError(f"{self._path} is another file than the one that is open")
        if identity(self._log) != self._log_identity:
            raise OSError(f"{self._log} is another file than the one that is open")
        if self._files.identity(self._bodies) != self._queue.bodies:
            raise OSError(f"{self._bodies} is another directory than before")
        if self._lock is not None and not self._lock.in_place:
            raise OSError("the lock file is gone, or is another file")

    def _is_in_place(self, descriptor: int) -> bool:
        """Whether the name of the database leads to the file of a descriptor."""
        opened = os.fstat(descriptor)
        try:
            return identity(self._path) == (opened.st_dev, opened.st_ino)
        except OSError:
            return False

    def _close_descriptor(self) -> None:
        assert self._descriptor is not None
        descriptor, self._descriptor = self._descriptor, None
        os.close(descriptor)

    def _device_of_database(self) -> int:
        return self._files.identity(os.path.dirname(os.path.abspath(self._path)))[0]
