"""The file operations that durability depends on, on a real disk (`interfaces.Files`).

A message survives a power cut because callers use these operations in the right order. A failed
sync is never repeated: the kernel may have dropped the pages, and would report success.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from typing import IO, TYPE_CHECKING

from .ownership import mailbox_fault

if TYPE_CHECKING:  # the tool checks files without them
    from ..interfaces import Space

# Errors of link(2) on a file system without hard links (FAT, some network and FUSE mounts), or
# under a security module that forbids them.
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})

# Errors of stat(2) if a path does not exist; after any other error, that is unknown.
_NOTHING_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP})


def identity(path: str) -> tuple[int, int]:
    """Return (device, inode) of a file or directory, unique on this machine.

    Raises:
        OSError: it does not exist, or cannot be examined.
    """
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _sync_content(descriptor: int) -> None:
    if sys.platform == "darwin":
        _sync_device(descriptor)
    else:
        # fdatasync includes the size; it leaves out only times, which are not used.
        os.fdatasync(descriptor)


def _sync_device(descriptor: int) -> None:
    if sys.platform == "darwin":
        import fcntl

        # On macOS fsync reaches only the drive's cache, which a power cut empties; F_FULLFSYNC
        # reaches the medium. Network file systems refuse it and have only fsync.
        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY):
                raise
        else:
            return
    os.fsync(descriptor)


def _are_same(old: str, new: str) -> bool:
    """Whether two names exist, and are names of the same file."""
    try:
        return os.path.samestat(os.lstat(old), os.lstat(new))
    except OSError:
        return False


def _unlinked(path: str) -> OSError | None:
    try:
        os.unlink(path)
    except OSError as error:
        return error
    return None


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


class DiskFile:
    """A new file that is being written (`interfaces.WritableFile`), unbuffered."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._place = 0  # where the next octet is written

    def write(self, content: bytes) -> None:
        """Write all of ``content`` behind what was written before.

        Raises:
            OSError: writing failed, after an unknown part of ``content``.
        """
        # pwrite(2) may write only a part: after a signal, at a limit, and at most 2 GiB.
        rest = memoryview(content)
        while rest:
            written = os.pwrite(self._descriptor, rest, self._place)
            self._place += written
            rest = rest[written:]

    def sync(self) -> None:
        """Return when content and size are as durable as the disk can make them.

        Raises:
            OSError: they may be lost; the result of a second call would mean nothing.
        """
        _sync_content(self._descriptor)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def read(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` octets from ``offset`` on; empty: the file ends there."""
        return os.pread(self._descriptor, size, offset)

    def rewind(self) -> None:
        """Overwrite the file from its beginning by the next writes."""
        self._place = 0

    def truncate(self, size: int) -> None:
        """End the file after ``size`` octets."""
        os.ftruncate(self._descriptor, size)

    def has_name(self) -> bool:
        """Whether the file has a name still."""
        return os.fstat(self._descriptor).st_nlink > 0


class DiskFiles:
    """The disk. Has no state, so several threads may use it at once."""

    def create(self, path: str) -> DiskFile:
        """Open a new file (mode 0600) for writing, and for reading what was written.

        Raises:
            FileExistsError: ``path`` exists, perhaps as a dangling symbolic link.
        """
        return DiskFile(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))

    def open(self, path: str) -> IO[bytes]:
        """Open an existing file for reading; a symbolic link is an error."""
        return open(path, "rb", opener=_opener)

    def rename(self, old: str, new: str) -> OSError | None:
        """Move a file within its file system, without replacing another.

        A crash can leave both names for the file.

        Returns:
            None; or why ``old`` still exists beside ``new``, although the file was moved.

        Raises:
            FileExistsError: ``new`` exists.
        """
        # rename(2) would replace an existing file; link(2) refuses.
        try:
            os.link(old, new, follow_symlinks=False)
        except OSError as error:
            # link(2), BUGS: over NFS it may fail although the server has created the link.
            if _are_same(old, new):
                return _unlinked(old)
            if error.errno not in _NO_LINKS:
                raise
            # Two steps, so another process could create ``new`` in between. Names are unique by
            # construction; this check only guards against mistakes.
            if os.path.lexists(new):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new) from None
            os.rename(old, new)
            return None
        return _unlinked(old)

    def replace(self, old: str, new: str) -> None:
        """Move a file within its file system, in place of the one that has the name, if any."""
        os.replace(old, new)

    def unlink(self, path: str) -> None:
        """Remove a file; a missing one is no error."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            return

    def is_directory(self, path: str) -> bool:
        """Whether ``path`` is a directory.

        Raises:
            OSError: it cannot be examined.
        """
        try:
            return stat.S_ISDIR(os.stat(path).st_mode)
        except OSError as error:
            if error.errno in _NOTHING_THERE:
                return False
            raise

    def identity(self, path: str) -> tuple[int, int]:
        """Return (device, inode) of ``path``."""
        return identity(path)

    def make_directories(self, path: str) -> None:
        """Create ``path`` and its missing parents (mode 0700), and sync each in its parent.

        Raises:
            FileExistsError: ``path`` exists, and is not a directory.
            NotADirectoryError: a path above it exists, and is not a directory.
        """
        path = os.path.abspath(path)
        if os.path.isdir(path):
            return
        parent = os.path.dirname(path)
        self.make_directories(parent)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
            # Another process has just created it, and may not have synced it yet.
        self.sync_directory(parent)

    def mailbox_fault(self, root: str, path: str) -> str:
        """Return why mail below ``path`` could end elsewhere; empty: it cannot."""
        return mailbox_fault(root, path, os.geteuid())

    def names(self, path: str) -> list[str]:
        """Return the names in a directory, sorted."""
        return sorted(os.listdir(path))

    def sync_directory(self, path: str) -> None:
        """Return when all names in the directory are as durable as the disk can make them."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _sync_device(descriptor)
        finally:
            with contextlib.suppress(OSError):  # the sync has succeeded already
                os.close(descriptor)

    def free(self, path: str) -> int:
        """Return the free octets on the file system of ``path``; root's reserve is not included."""
        space = os.statvfs(path)
        return space.f_bavail * space.f_frsize

    def space(self, path: str) -> Space:
        """Return the room on the file system of ``path``; root's reserve is not included."""
        from ..interfaces import Space

        space = os.statvfs(path)
        return Space(
            octets=space.f_bavail * space.f_frsize,
            inodes=space.f_favail if space.f_files else None,
            device=os.stat(path).st_dev,
        )
