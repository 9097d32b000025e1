"""One process to a state directory: a lock that ends with the process, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os

from ...system.files import identity
from .contract import StateInUse


class StateLock:
    """``flock`` on a file that is opened once and stays open.

    SQLite's own lock would not do: opening and closing the database anywhere else in the process
    silently drops it.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            StateInUse: another process has it.
            OSError: it cannot be had at all.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW  # it is written to
        descriptor = os.open(self._path, flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise StateInUse(
                f"{os.path.dirname(self._path)} is in use by another MTA (process {holder});"
                " give this one a --state-dir of its own, or stop that one"
            ) from None
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        with contextlib.suppress(OSError):  # for people; the lock counts, on a full disk too
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)

    @property
    def in_place(self) -> bool:
        """Whether it is held, and by the file that has its name now."""
        if self._descriptor is None:
            return False
        held = os.fstat(self._descriptor)
        try:
            return identity(self._path) == (held.st_dev, held.st_ino)
        except OSError:
            return False

    def renew(self) -> None:
        """Take it anew where its file has gone, or is another one.

        Raises:
            StateInUse: another process has it.
            OSError: it cannot be had at all.
        """
        if self.in_place:
            return
        anew = StateLock(self._path)
        anew.acquire()
        self.release()
        self._descriptor = anew._descriptor

    def release(self) -> None:
        """Give the lock back; the file stays, because removing it would let two in."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
