"""Why a file that the settings name cannot be read, and by which user."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterator

from ..mail.printable import printable


def unreadable(path: str, error: Exception) -> str:
    """Return why opening or reading a file failed: printable, without the path itself at its start.

    Args:
        path: of the file.
        error: an `OSError`, or the `ValueError` of a path with NUL.
    """
    reason = printable(getattr(error, "strerror", None) or str(error))
    if isinstance(error, IsADirectoryError):
        return "cannot be read: found a directory, expected a file"
    if not isinstance(error, PermissionError):
        return f"cannot be read: {reason}"
    by = f"cannot be read by user {printable(_name_of(os.geteuid()))}: {reason}"
    closed = next(_closed(os.path.abspath(path)), None)
    return by if closed is None else f"{by}: {closed}"


def _closed(path: str) -> Iterator[str]:
    """Yield the directories above a file, and the file, that this user may not pass or read."""
    names = path.split("/")
    for number in range(1, len(names) + 1):
        place = "/".join(names[:number]) or "/"
        needed = os.R_OK if number == len(names) else os.X_OK
        try:
            if not os.access(place, needed, effective_ids=os.access in os.supports_effective_ids):
                status = os.stat(place)
                mode = stat.S_IMODE(status.st_mode)
                owner = printable(_name_of(status.st_uid))
                yield f"{printable(place)} belongs to user {owner} and has mode {mode:04o}"
        except OSError:
            return


def _name_of(user: int) -> str:
    # As `system.ownership.name_of`, which the tool uses without loading the settings.
    try:
        return f"{pwd.getpwuid(user).pw_name} ({user})"
    except (KeyError, OverflowError):
        return f"number {user}"
