"""Owners and modes: whether another user could replace our files, or write to them.

Root is trusted: it may do so anyhow. So are these groups: the user's own primary group, with the
user's name or without a name, and without other members (many systems make one for each user, with
a umask of 002); a group without any other user; a group without a name that the process belongs to,
such as containers get for their volume, since only the container's manager can assign it. A
directory with the sticky bit may be writable by all: only owners can remove files from it.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import re
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from ..mail.printable import printable

_MOST_LINKS = 40  # as many as Linux follows
_CREDENTIALS = struct.Struct("=iII")  # unix(7): struct ucred
_OVERFLOW = "/proc/sys/kernel/overflowuid"

# The files that this program creates in a state directory; others belong to the operator.
_OURS = re.compile(
    r"(lock|queue\.(lock|sqlite(-\w+)?)|control\.sock|self-signed\.pem(\.new)?|srs\S*|body|tls|maildrop"
    r"|shard-[0-9]+)\Z"
)


class NotOurs(Exception):
    """Another user could change a file or directory; the message has what was expected."""


def require_ours(state_dir: str, user: int | None = None) -> None:
    """Require that only a user, and root, can change a state directory.

    Args:
        state_dir: need not exist.
        user: None: the effective user.

    Raises:
        NotOurs: another user can.
        OSError: it cannot be examined.
    """
    for fault in state_faults(state_dir, os.geteuid() if user is None else user):
        raise NotOurs(fault)


def state_faults(state_dir: str, user: int) -> Iterator[str]:
    """Yield faults in owners and modes of a state directory and its files.

    A symbolic link in the path is followed if it belongs to root or the user.

    Raises:
        OSError: it cannot be examined.
    """
    faults = list(dict.fromkeys(path_faults(state_dir, user)))
    if faults:
        yield from faults
        return
    if not os.path.isdir(state_dir):
        return
    yield from _content_faults(state_dir, user)


def path_faults(path: str, user: int) -> Iterator[str]:
    """Yield why other users could replace a directory of the user."""
    directory = "/"
    steps = [each for each in os.path.abspath(path).split("/") if each]
    links = 0
    status = os.lstat(directory)
    while steps:
        yield from _above_faults(directory, status, user)
        step = steps.pop(0)
        here = os.path.dirname(directory) if step == ".." else os.path.join(directory, step)
        try:
            status = os.lstat(here)
        except (FileNotFoundError, NotADirectoryError):
            return  # it does not exist yet
        if not stat.S_ISLNK(status.st_mode):
            directory = here
            continue
        links += 1
        if not _is_trusted(status.st_uid, user):
            yield f"{_shown(here, status)} is a symbolic link; {_expected(user)}"
            return
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        target = os.readlink(here)
        steps = [each for each in target.split("/") if each not in ("", ".")] + steps
        if target.startswith("/"):
            directory = "/"
        status = os.lstat(directory)
    yield from _own_faults(directory, status, user)


def _above_faults(path: str, status: os.stat_result, user: int) -> Iterator[str]:
    """Yield why other users could replace what a directory contains."""
    if not _is_trusted(status.st_uid, user) and not _is_unmapped(status.st_uid):
        yield (
            f"{_shown(path, status)} is above the state directory, which its owner could replace;"
            f" {_expected(user)}"
        )
    elif _others_write(status, user) and not status.st_mode & stat.S_ISVTX:
        yield (
            f"{_shown(path, status)} is above the state directory, which other users could replace;"
            " expected no write permission for others, or the sticky bit"
        )


def _own_faults(path: str, status: os.stat_result, user: int) -> Iterator[str]:
    owned = status.st_uid == user or (status.st_uid == 0 and _group_is_own(status.st_gid, user))
    if not owned:
        yield f"{_shown(path, status)} is not ours; {_expected(user, root=False)}"
    elif _others_write(status, user):
        yield f"{_shown(path, status)} is writable by other users; expected mode 0700"


def _content_faults(directory: str, user: int) -> Iterator[str]:
    for name in sorted(os.listdir(directory)):
        if not _OURS.match(name):
            continue
        path = os.path.join(directory, name)
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            yield (
                f"{_shown(path, status)} is a symbolic link; expected a file or directory that this"
                " program has created"
            )
        elif not _is_trusted(status.st_uid, user):
            yield f"{_shown(path, status)} is not ours; {_expected(user)}"
        elif stat.S_ISREG(status.st_mode) and name.endswith("lock") and status.st_nlink > 1:
            yield f"{_shown(path, status)} has {status.st_nlink} names; expected one"
        elif _others_write(status, user):
            yield f"{_shown(path, status)} is writable by other users; expected mode 0600 or 0700"
        elif stat.S_ISDIR(status.st_mode) and name.startswith("shard-"):
            yield from _content_faults(path, user)


def mailbox_fault(root: str, path: str, user: int) -> str:
    """Return why mail that is written below ``path`` could end elsewhere; empty: it cannot.

    Args:
        root: the directory of all Maildirs, which is examined too.
        path: an existing path below it.
        user: the user that delivers. Root delivers only into its own directories; another user may
            deliver into those of others, such as a store that a group shares.
    """
    names = os.path.relpath(path, root).split("/")
    for count in range(len(names) + 1):
        here = os.path.join(root, *names[:count])
        status = os.lstat(here)
        if stat.S_ISLNK(status.st_mode):
            if not _is_trusted(status.st_uid, user):
                return f"{_shown(here, status)} is a symbolic link; {_expected(user)}"
            status = os.stat(here)
        if user == 0 and status.st_uid != 0:
            return f"{_shown(here, status)}: root delivers only into its own directories"
        if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
            return f"{_shown(here, status)} is writable by all users"
    return ""


def others_may_write(status: os.stat_result) -> str:
    """Return that users other than the owner may write a file; empty: they may not."""
    if not _others_write(status, status.st_uid):
        return ""
    return f"mode {stat.S_IMODE(status.st_mode):04o}: others than its owner may write it"


def open_log(path: str, flags: int, mode: int) -> int:
    """Open a file; a symbolic link has to belong to root, or to the user that opens it.

    If root followed another user's link, it would write to any file which that user chose.

    Raises:
        OSError: it cannot be opened, or is a link of another user.
    """
    if _is_trusted_link(path, os.geteuid()):
        return os.open(path, flags, mode)
    try:
        return os.open(path, flags | os.O_NOFOLLOW, mode)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        reason = "a symbolic link that another user could have made; expected a file"
        raise OSError(errno.ELOOP, reason, path) from None


def _is_trusted_link(path: str, user: int) -> bool:
    """Whether ``path`` is a symbolic link that no other user has made, or could replace."""
    try:
        link, above = os.lstat(path), os.stat(os.path.dirname(os.path.abspath(path)))
    except OSError:
        return False
    return (
        stat.S_ISLNK(link.st_mode)
        and _is_trusted(link.st_uid, user)
        and _is_trusted(above.st_uid, user)
        and (bool(above.st_mode & stat.S_ISVTX) or not _others_write(above, user))
    )


def name_of(user: int) -> str:
    """Return a user's name, if it has one, and number."""
    try:
        return f"{pwd.getpwuid(user).pw_name} ({user})"
    except (KeyError, OverflowError):
        return f"number {user}"


def _shown(path: str, status: os.stat_result) -> str:
    mode = stat.S_IMODE(status.st_mode)
    return f"{printable(path)} (user {printable(name_of(status.st_uid))}, mode {mode:04o})"


def _expected(user: int, *, root: bool = True) -> str:
    return f"expected it to be of user {printable(name_of(user))}" + (
        " or root" if root and user else ""
    )


def _is_trusted(owner: int, user: int) -> bool:
    return owner in (0, user)


def _is_unmapped(owner: int) -> bool:
    """Whether an owner stands for all users outside of this user namespace."""
    with suppress(OSError, ValueError), open("/proc/self/uid_map", encoding="ascii") as file:
        if sum(int(line.split()[2]) for line in file) < 1 << 31:
            with open(_OVERFLOW, encoding="ascii") as overflow:
                return owner == int(overflow.read())
    return False


def _others_write(status: os.stat_result, user: int) -> bool:
    mode = status.st_mode
    return bool(mode & stat.S_IWOTH) or (
        bool(mode & stat.S_IWGRP) and not _group_is_own(status.st_gid, user)
    )


def _group_is_own(group: int, user: int) -> bool:
    if group == 0:
        return True
    try:
        owner = pwd.getpwuid(user)
        name, own = owner.pw_name, owner.pw_gid
    except KeyError:
        name, own = "", os.getegid()
    try:
        entry = grp.getgrgid(group)
    except KeyError:
        return group == own or (user == os.geteuid() and group in os.getgroups())
    if any(member != name for member in entry.gr_mem):
        return False
    # Debian's /var/local is of a group without members.
    return (group == own and entry.gr_name == name) or all(
        each.pw_uid in (0, user) for each in pwd.getpwall() if each.pw_gid == group
    )


class Peer(NamedTuple):
    """The process at the other end of a UNIX socket; of a listener, as it was when it began."""

    process: int
    user: int


def peer(connected: socket.socket) -> Peer | None:
    """Return the process at the other end of a UNIX socket; None: the system does not show it.

    Raises:
        OSError: the socket is not connected.
    """
    option = getattr(socket, "SO_PEERCRED", None)  # Linux
    if option is None:
        return None
    credentials = connected.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)
    process, user, _ = _CREDENTIALS.unpack(credentials)
    return Peer(process, user)
