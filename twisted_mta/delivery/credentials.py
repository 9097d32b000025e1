"""Accounts of destinations: passwords, and files with secrets of token servers."""

from __future__ import annotations

import os
import stat

from attrs import frozen

from ..config import ConfigError, Destination
from ..config.destination import token_account
from ..config.setting import shown
from ..config.text_file import without_mark
from ..config.token_account import TokenAccount, TokenFile, TokenGrant
from ..config.unreadable import unreadable
from ..mail.printable import printable
from ..smtp.sasl.client import Credentials
from ..system.ownership import others_may_write
from .tokens.token import NoToken

_LONGEST = 16_384  # octets; access tokens may have some thousands


@frozen
class LoadedCredentials:
    """The account of a destination.

    Attributes:
        credentials: for AUTH; a `TokenAccount` gets its token when a connection needs it.
        file: the path of the file with the password; empty: there is none.
        warnings: about the permissions of files, printable.
    """

    credentials: Credentials | TokenAccount
    file: str = ""
    warnings: tuple[str, ...] = ()


def load_credentials(destination: Destination) -> LoadedCredentials | None:
    """Read the password of a destination, or look at the files of its token source. Blocks.

    Returns:
        None where the destination has no account.

    Raises:
        ConfigError: a file cannot be read, or has no secret.
    """
    account = token_account(destination)
    if account is not None:
        return LoadedCredentials(account, warnings=tuple(_warnings(destination, account)))
    path, username = destination.password_file, destination.username
    if path is None or username is None:
        return None
    secret, warnings = _secret(destination, "password_file", path, "password")
    try:
        credentials = Credentials(username, secret)
    except ValueError:  # not chained: it may show the password
        raise _error(destination, "password_file", path, "a NUL in it; expected text") from None
    return LoadedCredentials(credentials, path, warnings)


def _warnings(destination: Destination, account: TokenAccount) -> list[str]:
    source = account.source
    files: dict[str, tuple[str | None, str]] = {}
    if isinstance(source, TokenFile):
        files = {"token_file": (source.path, "token")}
    elif isinstance(source, TokenGrant):
        files = {
            "oauth_client_secret_file": (source.client_secret_file, "client secret"),
            "oauth_refresh_token_file": (source.refresh_token_file, "refresh token"),
        }
    warnings: list[str] = []
    for setting, (path, what) in files.items():
        if path is not None:
            warnings += _secret(destination, setting, path, what)[1]
    return warnings


def _secret(
    destination: Destination, setting: str, path: str, what: str
) -> tuple[str, tuple[str, ...]]:
    try:
        return _read(path, what)
    except NoToken as problem:
        raise _error(destination, setting, path, problem.reason) from None


def _error(destination: Destination, setting: str, path: str, problem: str) -> ConfigError:
    where = f"[[destination]] {printable(destination.name)}"
    return ConfigError(f"{where}, {setting} = {shown(path)}: {problem}")


def read_secret(path: str) -> str:
    """Return the first line of a file. Blocks.

    Raises:
        NoToken: the file cannot be read, or has no such line; the text does not repeat the path.
    """
    return _read(path, "token or secret")[0]


def _read(path: str, what: str) -> tuple[str, tuple[str, ...]]:
    try:
        with open(path, "rb") as opened:
            status = os.fstat(opened.fileno())
            first = opened.readline(_LONGEST + 1)
    except (OSError, ValueError) as problem:
        raise NoToken(f"{unreadable(path, problem)}; expected a readable file") from None
    mode, writable = status.st_mode, others_may_write(status)
    if writable:
        raise NoToken(f"{writable}; expected chmod 600", lasting=True)
    line = without_mark(first).rstrip(b"\r\n")
    if not line or len(line) > _LONGEST:
        raise NoToken(f"holds no {what}; expected one on its first line")
    try:
        text = line.decode("utf-8")
    except ValueError:  # not chained: a UnicodeDecodeError shows the secret
        raise NoToken("no UTF-8; expected a line of text") from None
    warnings: tuple[str, ...] = ()
    if mode & (stat.S_IRWXG | stat.S_IRWXO) & ~stat.S_IXGRP & ~stat.S_IXOTH:
        warnings = (
            f"{printable(path)}: others than its owner can read or write it; expected chmod 600",
        )
    return text, warnings
