"""A file of secrets for its owner alone: read whole, and changed whole under a lock."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator

from ..config.unreadable import unreadable
from ..mail.printable import printable


def read_private(path: str, error: type[ValueError], made_by: str) -> bytes:
    """Return the content of a file. Blocks.

    Args:
        path: of the file.
        error: is raised.
        made_by: the command that makes such files, for the text of an error.

    Raises:
        ValueError: of the type ``error``: the file cannot be read, or others than its owner and
            group can access it.
    """
    try:
        with open(path, "rb", opener=_opener) as file:
            _check_mode(path, os.fstat(file.fileno()), error)
            return file.read()
    except OSError as failed:
        raise error(
            f"{printable(path)}: {unreadable(path, failed)}; expected a file made by {made_by}"
        ) from None


@contextlib.contextmanager
def locked(path: str, error: type[ValueError]) -> Iterator[tuple[int, os.stat_result]]:
    """Lock a file, which is made where it is not there; yield its descriptor and status. Blocks.

    Raises:
        ValueError: of the type ``error``: others than its owner and group can access it.
        OSError: it cannot be opened.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            status = os.fstat(descriptor)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(status, os.stat(path)):
                    _check_mode(path, status, error)
                    yield descriptor, status
                    return
            # Another process has replaced the file while we waited.
        finally:
            os.close(descriptor)


def replace(path: str, text: str, like: os.stat_result) -> None:
    """Replace a file that is locked. A reader sees all or nothing of it, after a crash too. Blocks.

    Args:
        path: of the file.
        text: its new content.
        like: the status whose mode and owner it keeps.

    Raises:
        OSError: the file cannot be written.
    """
    path = os.path.realpath(path)
    name = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name)  # left by a process that crashed: we have the lock
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(descriptor, stat.S_IMODE(like.st_mode))
            with contextlib.suppress(PermissionError):
                os.fchown(descriptor, like.st_uid, like.st_gid)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        os.rename(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _opener(path: str, flags: int) -> int:
    # Without waiting for the writer of a pipe, which `_check_mode` refuses.
    return os.open(path, flags | os.O_NONBLOCK)


def _check_mode(path: str, status: os.stat_result, error: type[ValueError]) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise error(f"{printable(path)}: not a regular file")
    if status.st_mode & 0o027:
        raise error(
            f"{printable(path)}: found mode {stat.S_IMODE(status.st_mode):04o}, expected 0600"
            " or 0640: others can read or write it"
        )
