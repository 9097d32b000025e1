"""Passwords of destinations, read from their files."""

from __future__ import annotations

import os
import stat

from attrs import frozen

from ..config import ConfigError, Destination
from ..config.setting import shown
from ..config.text_file import without_mark
from ..config.unreadable import unreadable
from ..mail.printable import printable
from ..smtp.sasl.client import Credentials
from ..system.ownership import others_may_write

_LONGEST = 4096  # octets


@frozen
class LoadedCredentials:
    """The account of a destination.

    Attributes:
        credentials: for AUTH.
        file: the path of the file with the password.
        warnings: about the permissions of the file, printable.
    """

    credentials: Credentials
    file: str
    warnings: tuple[str, ...] = ()


def load_credentials(destination: Destination) -> LoadedCredentials | None:
    """Read the password of a destination: the first line of its file. Blocks.

    Returns:
        None where the destination has no account.

    Raises:
        ConfigError: the file cannot be read, or has no password.
    """
    file, username = destination.password_file, destination.username
    if file is None or username is None:
        return None

    def error(problem: str) -> ConfigError:
        return ConfigError(
            f"[[destination]] {printable(destination.name)}, password_file = {shown(file)}:"
            f" {problem}"
        )

    try:
        with open(file, "rb") as opened:
            status = os.fstat(opened.fileno())
            first = opened.readline(_LONGEST + 1)
    except (OSError, ValueError) as problem:
        raise error(f"{unreadable(file, problem)}; expected a readable file") from None
    mode, writable = status.st_mode, others_may_write(status)
    if writable:
        raise error(f"{writable}; expected chmod 600")
    line = without_mark(first).rstrip(b"\r\n")
    if not line or len(line) > _LONGEST:
        raise error("holds no password; expected one on its first line")
    try:
        credentials = Credentials(username, line.decode("utf-8"))
    except ValueError:  # not chained: a UnicodeDecodeError shows the password
        raise error("no UTF-8, or a NUL in it; expected a line of text") from None
    warnings: tuple[str, ...] = ()
    if mode & (stat.S_IRWXG | stat.S_IRWXO) & ~stat.S_IXGRP & ~stat.S_IXOTH:
        warnings = (
            f"{printable(file)}: others than its owner can read or write it; expected chmod 600",
        )
    return LoadedCredentials(credentials, file, warnings)
