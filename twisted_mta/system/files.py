"""The file operations that durability depends on, on a real disk (`interfaces.Files`).

The order in which callers use them is what makes a message survive a power cut; here each of them
only does what it says. A failed sync is never tried again: the kernel may have dropped the pages
and would report success the second time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from typing import IO

from .ownership import mailbox_fault

# What link(2) says on a file system that has no hard links (FAT, some network and FUSE mounts), or
# under a security module that forbids them.
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})


# What stat(2) says where there is nothing: everything else says that it is not known.
_NOTHING_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP})


def identity(path: str) -> tuple[int, int]:
    """Return what tells a file or directory from all others of this machine: device and inode.

    Raises:
        OSError: there is none, or it cannot be looked at.
    """
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _sync_content(descriptor: int) -> None:
    if sys.platform == "darwin":
        _sync_device(descriptor)
    else:
        # The size is part of what fdatasync keeps; only times are left out, and nobody needs them.
        os.fdatasync(descriptor)


def _sync_device(descriptor: int) -> None:
    if sys.platform == "darwin":
        import fcntl

        # On macOS fsync stops at the drive's own cache, which a power cut empties; F_FULLFSYNC
        # goes on to the medium. Network file systems refuse it: fsync is all that they have.
        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY):
                raise
        else:
            return
    os.fsync(descriptor)


def _are_one(old: str, new: str) -> bool:
    """Whether two names are there, of one and the same file."""
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
    """A new file that is being written (`interfaces.WritableFile`), without a buffer of its own."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, content: bytes) -> None:
        """Append all of ``content``.

        Raises:
            OSError: some of it could not be written; how much of it was is not known.
        """
        # write(2) may take less than it was given: at a signal, at a limit, and at most 2 GiB.
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]

    def sync(self) -> None:
        """Return when content and size are as durable as the disk can make them.

        Raises:
            OSError: they may be lost; a second try would not tell the truth.
        """
        _sync_content(self._descriptor)

    def close(self) -> None:
        """Close the file; closing it again is no error."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class DiskFiles:
    """The disk. Keeps nothing, so it may be used from several threads at once."""

    def create(self, path: str) -> DiskFile:
        """Open a new file (mode 0600) for writing.

        Raises:
            FileExistsError: there is one already, be it a dangling symbolic link.
        """
        return DiskFile(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))

    def open(self, path: str) -> IO[bytes]:
        """Open an existing file for reading; a symbolic link is an error."""
        return open(path, "rb", opener=_opener)

    def rename(self, old: str, new: str) -> OSError | None:
        """Move a file within its file system, replacing none.

        A crash in between can leave both names, of one and the same file.

        Returns:
            None; or why ``old`` is still there beside ``new``: the file was moved all the same.

        Raises:
            FileExistsError: there is something at ``new``.
        """
        # rename(2) would replace what is there; link(2) refuses.
        try:
            os.link(old, new, follow_symlinks=False)
        except OSError as error:
            # link(2), BUGS: over NFS it may fail although the server has made the link.
            if _are_one(old, new):
                return _unlinked(old)
            if error.errno not in _NO_LINKS:
                raise
            # Two steps, so another process could come between; names are unique by their making,
            # and this only guards against a mistake.
            if os.path.lexists(new):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new) from None
            os.rename(old, new)
            return None
        return _unlinked(old)

    def unlink(self, path: str) -> None:
        """Remove a file; one that is not there is no error."""
        try:
            os.unlink(path)
        except FileNotFoundError:
            return

    def is_directory(self, path: str) -> bool:
        """Whether there is a directory at ``path``.

        Raises:
            OSError: that cannot be found out.
        """
        try:
            return stat.S_ISDIR(os.stat(path).st_mode)
        except OSError as error:
            if error.errno in _NOTHING_THERE:
                return False
            raise

    def identity(self, path: str) -> tuple[int, int]:
        """Return device and inode of what is at ``path``."""
        return identity(path)

    def make_directories(self, path: str) -> None:
        """Make ``path`` and what is missing above it (mode 0700), each synced in its parent.

        Raises:
            FileExistsError: something that is no directory has the name of ``path``.
            NotADirectoryError: likewise, above it.
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
            # Somebody else made it just now, and may not have synced it yet.
        self.sync_directory(parent)

    def mailbox_fault(self, root: str, path: str) -> str:
        """Say why mail that is written below ``path`` could end elsewhere; empty: it cannot."""
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
            with contextlib.suppress(OSError):  # it says nothing of what was synced
                os.close(descriptor)

    def free(self, path: str) -> int:
        """Return how many octets can still be written on the file system of ``path``.

        What is kept for the superuser does not count, whoever we are.
        """
        space = os.statvfs(path)
        return space.f_bavail * space.f_frsize
