"""What is copied of a state directory: the queue with its bodies, then all other files."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import stat
from collections.abc import Collection, Iterator
from urllib.parse import quote

from ...agent.shard import QUEUE, shard_directory, shards_there
from ...mail.queue_id import QueueId
from ...queue.store.spool import Spool
from ...system.executors import inline_executor
from ...system.files import DiskFiles
from .destination import Destination

_BODIES = "body"
_MAILDIR = "maildir"
_OF_THE_PROCESS = ("lock", "queue.lock", "control.sock")
_SQLITE = b"SQLite format 3\0"
_LOGS = ("-wal", "-shm", "-journal")
_LARGE = "SELECT id, size, file FROM message WHERE body IS NULL AND quarantine IS NULL"
_OLD_LARGE = "SELECT id, size FROM message WHERE body IS NULL AND quarantine IS NULL"
"""The same in a database that an older program has written: each file has its own message's id."""
_PATIENCE = 30.0  # seconds that another process's transaction may take


class CannotCopy(Exception):
    """The state directory cannot be copied as it is; the text says why."""


class Source:
    """A state directory.

    Args:
        directory: its path.
        destination: where it is copied to.

    Attributes:
        messages: in the copy of the queue.
        left_out: printable lines about what is not in the copy.
    """

    def __init__(self, directory: str, destination: Destination) -> None:
        self._directory = directory
        self._destination = destination
        self.messages = 0
        self.left_out: list[str] = []

    def copy_queue(self, held: Collection[int]) -> None:
        """Copy the queue of each shard.

        Args:
            held: the shards whose files a running MTA holds as they are. No process may work on the
                others.

        Raises:
            CannotCopy: an MTA has been started, or a body is missing.
            OSError, sqlite3.Error: a file cannot be read or written.
        """
        for number in (0, *shards_there(self._directory)):
            directory = shard_directory(self._directory, number)
            if not os.path.exists(os.path.join(directory, QUEUE)):
                continue
            if number in held:
                self._copy_shard(directory, is_held=True)
            else:
                with _unused(directory):
                    self._copy_shard(directory, is_held=False)

    def _copy_shard(self, directory: str, *, is_held: bool) -> None:
        path = os.path.join(directory, QUEUE)
        below = os.path.relpath(directory, self._directory)
        log = f"{path}-wal"
        has_log = not is_held and os.path.exists(log) and os.path.getsize(log) > 0
        self._copy(path, os.path.normpath(os.path.join(below, QUEUE)))
        if has_log:
            self._copy(log, os.path.normpath(os.path.join(below, f"{QUEUE}-wal")))
        # Held files have all in the database; of a crashed process, the rest is in the log.
        options = "mode=ro" if has_log else "mode=ro&immutable=1"
        uri = f"file:{quote(os.fsencode(os.path.abspath(path)))}?{options}"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
            (messages,) = database.execute("SELECT count(*) FROM message").fetchone()
            self.messages += messages
            folder = os.path.normpath(os.path.join(below, _BODIES))
            self._destination.add_directory(folder, os.stat(directory).st_mtime)
            spool = Spool(
                os.path.join(directory, _BODIES), files=DiskFiles(), executor=inline_executor
            )
            columns = {name for _, name, *_ in database.execute("PRAGMA table_info(message)")}
            for id, size, *file in database.execute(_LARGE if "file" in columns else _OLD_LARGE):
                body = spool.stored(QueueId(id), size, *file)
                name = os.path.basename(body.path)
                try:
                    # Behind the body there may be the end of another one, which has left.
                    self._copy(body.path, os.path.join(folder, name), body.start + body.size)
                except FileNotFoundError:
                    raise CannotCopy(f"{name} has lost its body file in {directory}") from None

    def _copy(self, path: str, name: str, most: int | None = None) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as source:
            self._destination.add(name, source, most)

    def copy_rest(self, *, maildir: bool) -> None:
        """Copy all files but the queue.

        Args:
            maildir: whether Maildirs in the state directory are copied as well.

        Raises:
            OSError, sqlite3.Error: a file cannot be read or written.
        """
        skipped = () if maildir else (_MAILDIR,)
        for path, directories, names, descriptor in os.fwalk(
            self._directory, follow_symlinks=False, onerror=_raise
        ):
            below = os.path.relpath(path, self._directory)
            is_top = below == "."
            is_shard = is_top or os.path.exists(os.path.join(path, QUEUE))
            for name in sorted(directories):
                if is_top and name in skipped and not os.path.islink(os.path.join(path, name)):
                    self.left_out.append(f"{name}: copy it by itself, or say --maildir")
            directories[:] = [
                each
                for each in sorted(directories)
                if not (is_shard and each == _BODIES) and not (is_top and each in skipped)
            ]
            if not is_top:
                self._destination.add_directory(below, os.fstat(descriptor).st_mtime)
            for name in sorted(names):
                if name in _OF_THE_PROCESS or (is_shard and name.startswith(QUEUE)):
                    continue
                self._copy_other(os.path.normpath(os.path.join(below, name)), name, descriptor)

    def _copy_other(self, place: str, name: str, directory: int) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                self.left_out.append(f"{place}: a symbolic link")
                return
            if not stat.S_ISREG(status.st_mode):
                return
            descriptor = os.open(name, flags, dir_fd=directory)
        except FileNotFoundError:
            return  # it has gone meanwhile
        with os.fdopen(descriptor, "rb") as source:
            begun = source.read(len(_SQLITE))
            source.seek(0)
            if begun == _SQLITE:
                self._copy_database(place)
            elif not name.endswith(_LOGS):
                self._destination.add(place, source)

    def _copy_database(self, place: str) -> None:
        """Copy a database that all processes write to in short transactions."""
        path = quote(os.fsencode(os.path.abspath(os.path.join(self._directory, place))))
        scratch = self._destination.scratch
        os.close(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            with (
                contextlib.closing(
                    sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=_PATIENCE)
                ) as database,
                contextlib.closing(sqlite3.connect(scratch)) as copy,
            ):
                database.backup(copy)
            self._copy(scratch, place)
        finally:
            os.unlink(scratch)


@contextlib.contextmanager
def _unused(directory: str) -> Iterator[None]:
    """Let no process begin to work on a shard in the ``with`` block."""
    try:
        lock = os.open(
            os.path.join(directory, "queue.lock"), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        )
    except FileNotFoundError:
        yield  # no process has ever worked on it
        return
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotCopy(
                f"{directory} is in use, by an MTA that starts or stops; try again"
            ) from None
        yield
    finally:
        os.close(lock)


def _raise(error: OSError) -> None:
    raise error
