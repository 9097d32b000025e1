"""The lock of a state directory: one process at a time, until it ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os

from ...system.files import identity
from .contract import StateInUse


class StateLock:
    """``flock`` on a file that is opened once and stays open.

    SQLite's own lock is not enough: it ends silently as soon as the process opens and closes the
    database file anywhere else.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            StateInUse: another process has it.
            OSError: the file cannot be opened or locked.
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
                " give this one a --state-dir of its own, or stop the other one"
            ) from None
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        with contextlib.suppress(OSError):  # the number is for people; the disk may be full
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)

    @property
    def in_place(self) -> bool:
        """Whether the lock is held, on the file that has its name now."""
        if self._descriptor is None:
            return False
        held = os.fstat(self._descriptor)
        try:
            return identity(self._path) == (held.st_dev, held.st_ino)
        except OSError:
            return False

    def renew(self) -> None:
        """Take the lock again where its file is gone, or is another file.

        Raises:
            StateInUse: another process has it.
            OSError: the file cannot be opened or locked.
        """
        if self.in_place:
            return
        renewed = StateLock(self._path)
        renewed.acquire()
        self.release()
        self._descriptor = renewed._descriptor

    def release(self) -> None:
        """Release the lock; the file stays, since its removal would let two processes in."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
