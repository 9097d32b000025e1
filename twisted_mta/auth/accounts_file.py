"""The file of accounts: read whole, and changed line by line under a lock.

Empty lines, and lines that begin with ``#``, are kept as they are.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from io import BytesIO

from ..config.text_file import without_mark
from ..config.unreadable import unreadable
from ..mail.printable import printable
from ..system.slices import Work, finished
from .accounts import Account, Accounts, AccountsError, AccountTable, account_key

_PER_SLICE = 8  # accounts read before other work may have its turn


def read_accounts(path: str) -> Accounts:
    """Return the accounts of a file. Blocks.

    Raises:
        AccountsError: the file cannot be used.
    """
    return finished(parse_in_slices(read_content(path), path))


def read_content(path: str) -> bytes:
    """Return the content of a file of accounts. Blocks.

    Raises:
        AccountsError: the file cannot be read, or others than its owner and group can access it.
    """
    try:
        with open(path, "rb", opener=_opener) as file:
            _check_mode(path, os.fstat(file.fileno()))
            return file.read()
    except OSError as error:
        raise AccountsError(
            f"{printable(path)}: {unreadable(path, error)};"
            " expected a file made by twisted-mta users add"
        ) from None


def parse_in_slices(content: bytes, path: str) -> Work[Accounts]:
    """Return the accounts in the content of a file, in slices of work.

    Args:
        content: UTF-8.
        path: of the file, for error texts.

    Raises:
        AccountsError: a line is not valid.
    """
    by_name = AccountTable()
    for number, (_, account) in enumerate(_lines(content, path)):
        if number % _PER_SLICE == 0:
            yield
        if account is not None:
            by_name.put(account)
    return Accounts(by_name)


@contextlib.contextmanager
def changing(path: str) -> Iterator[dict[str, Account | None]]:
    """Change a file: yields its accounts by `account_key`, to be changed in place. Blocks.

    Two changes at once wait for each other. A reader sees all or nothing of a change, after a crash
    too.

    Raises:
        AccountsError: the file cannot be used.
        OSError: the file cannot be written.
    """
    with _locked(path) as (descriptor, status):
        with open(descriptor, "rb", closefd=False) as file:
            entries = list(_lines(file.read(), path))
        before = {account_key(each.name): each for _, each in entries if each is not None}
        accounts: dict[str, Account | None] = dict(before)
        yield accounts
        lines: list[str] = []
        for line, account in entries:
            now = None if account is None else accounts.get(account_key(account.name))
            if account == now:  # a comment, or an account that was not changed
                lines.append(line)
            elif now is not None:
                lines.append(now.line())
        added = (each for key, each in accounts.items() if key not in before)
        lines += [each.line() for each in added if each is not None]
        _replace(path, "".join(f"{line}\n" for line in lines), status)


@contextlib.contextmanager
def _locked(path: str) -> Iterator[tuple[int, os.stat_result]]:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            status = os.fstat(descriptor)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(status, os.stat(path)):
                    _check_mode(path, status)
                    yield descriptor, status
                    return
            # Another process has replaced the file while we waited.
        finally:
            os.close(descriptor)


def _replace(path: str, text: str, like: os.stat_result) -> None:
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


def _check_mode(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise AccountsError(f"{printable(path)}: not a regular file")
    if status.st_mode & 0o027:
        raise AccountsError(
            f"{printable(path)}: found mode {stat.S_IMODE(status.st_mode):04o}, expected 0600"
            " or 0640: others can read or write it"
        )


def _lines(content: bytes, path: str) -> Iterator[tuple[str, Account | None]]:
    """Yield each line, and its account; None for an empty line or a comment.

    Raises:
        AccountsError: a line is not valid.
    """
    seen: dict[str, int] = {}
    for number, octets in enumerate(BytesIO(without_mark(content)), 1):
        try:
            line = octets.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise AccountsError(f"{printable(path)}: not UTF-8") from None
        if not line.strip() or line.startswith("#"):
            yield line, None
            continue
        where = f"{printable(path)}: line {number}"
        try:
            account = Account.parse(line)
        except AccountsError as error:
            raise AccountsError(f"{where}: {error}") from None
        key = account_key(account.name)
        if key in seen:
            raise AccountsError(
                f"{where}: found {printable(account.name)} again, which is in line {seen[key]}"
                " already"
            )
        seen[key] = number
        yield line, account
