"""Passwords in files: who we are to a smarthost."""

from __future__ import annotations

import os
import stat

from attrs import frozen

from ..config import ConfigError, Destination
from ..config.setting import shown
from ..mail.printable import printable
from ..smtp.sasl.client import Credentials
from ..system.ownership import others_may_write

_LONGEST = 4096  # octets; a password file is no document


@frozen
class LoadedCredentials:
    """What a destination's password file came to.

    Attributes:
        credentials: for AUTH.
        warnings: what is wrong with the file all the same, printable.
    """

    credentials: Credentials
    warnings: tuple[str, ...] = ()


def load_credentials(destination: Destination) -> LoadedCredentials | None:
    """Read the password of a destination, None where it has no account. Blocks.

    The password is the first line of the file, without its line end.

    Raises:
        ConfigError: the file cannot be read, or holds no password.
    """
    file, username = destination.password_file, destination.username
    if file is None or username is None:
        return None

    def error(problem: str) -> ConfigError:
        return ConfigError(
            f"[[destination]] {printable(destination.domain)}, password_file = {shown(file)}:"
            f" {problem}"
        )

    try:
        with open(file, "rb") as opened:
            found = os.fstat(opened.fileno())
            first = opened.readline(_LONGEST + 1)
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        raise error(f"cannot be read: {printable(reason)}; a readable file would do") from None
    mode, written = found.st_mode, others_may_write(found)
    if written:
        raise error(f"{written}; chmod 600 would do")
    line = first.rstrip(b"\r\n")
    if not line or len(line) > _LONGEST:
        raise error("holds no password; one on its first line would do")
    try:
        credentials = Credentials(username, line.decode("utf-8"))
    except ValueError:  # a UnicodeDecodeError shows what it could not decode
        raise error("no UTF-8, or a NUL in it; a line of text would do") from None
    warnings: tuple[str, ...] = ()
    if mode & (stat.S_IRWXG | stat.S_IRWXO) & ~stat.S_IXGRP & ~stat.S_IXOTH:
        warnings = (f"{printable(file)}: others than its owner can read or write it; chmod 600",)
    return LoadedCredentials(credentials, warnings)
