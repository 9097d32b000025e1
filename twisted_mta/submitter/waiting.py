"""The directory where messages wait for the MTA."""

from __future__ import annotations

import errno
import os
import socket

from ..message.maildrop import PARTIAL, READY, WaitingEnvelope, written

# The group is that of the directory (it has the set-group-ID bit), and so the MTA's.
_MODE = 0o640

_SPARE_INODES = 1_000  # that stay free: a flood of small messages uses up these first


def keep(
    directory: str, envelope: WaitingEnvelope, content: bytes, *, minimum_free: int = 0
) -> str:
    """Let a message wait; return the path of its file, which is on the disk.

    Args:
        directory: of waiting messages.
        envelope: of the message.
        content: of the message.
        minimum_free: octets of the file system that have to stay free; 0: no limit, nor of inodes.

    Raises:
        OSError: it cannot be written, or the file system is nearly full.
        ValueError: the envelope cannot be written.
    """
    name = os.urandom(16).hex()  # noqa: TID251 - a name that no other user has taken
    partial = os.path.join(directory, f"{PARTIAL}{name}")
    ready = os.path.join(directory, f"{READY}{name}")
    octets = written(envelope) + content
    if minimum_free:
        _check_room(directory, minimum_free + len(octets))
    file = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0)
    try:
        if os.geteuid() == 0:
            owner = os.stat(directory)
            os.fchown(file, owner.st_uid, owner.st_gid)
        os.fchmod(file, _MODE)  # whatever the umask is
        view = memoryview(octets)
        while view:
            view = view[os.write(file, view) :]
        os.fsync(file)
        os.rename(partial, ready)
        _sync_directory(directory)
    except BaseException:
        if os.path.lexists(partial):
            os.unlink(partial)
        raise
    finally:
        os.close(file)
    return ready


def _check_room(directory: str, least: int) -> None:
    """Leave the rest of a file system to others, such as the queue.

    Raises:
        OSError: less is free.
    """
    found = os.statvfs(directory)
    free = found.f_bavail * found.f_frsize
    if free < least:
        raise OSError(errno.ENOSPC, f"found {free} octets free, expected {least} or more")
    # Some file systems have no fixed number of inodes, and tell 0.
    if found.f_files and found.f_favail < _SPARE_INODES:
        raise OSError(
            errno.ENOSPC, f"found {found.f_favail} inodes free, expected {_SPARE_INODES} or more"
        )


def _sync_directory(directory: str) -> None:
    """Put the new name on the disk."""
    try:
        opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        os.sync()  # users may write to the directory, and not read it
        return
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def wake(state_dir: str, timeout: float) -> None:
    """Tell the MTA that a message waits, where we may; otherwise it finds it by itself."""
    with socket.socket(socket.AF_UNIX) as connected:
        connected.settimeout(timeout)
        try:
            connected.connect(os.path.join(state_dir, "control.sock"))
            connected.sendall(
                b"POST /v1/take-in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n"
                b"Connection: close\r\n\r\n"
            )
            while connected.recv(4096):
                pass
        except OSError:
            return  # it is not there, or another user's
