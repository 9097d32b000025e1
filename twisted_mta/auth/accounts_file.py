"""The file of accounts: read whole, and changed line by line under a lock.

Empty lines, and lines that begin with ``#``, are kept as they are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from io import BytesIO

from ..config.text_file import without_mark
from ..mail.printable import printable
from ..system.slices import Work, finished
from .accounts import Account, Accounts, AccountsError, AccountTable, account_key
from .private_file import locked, read_private, replace

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
    return read_private(path, AccountsError, "twisted-mta users add")


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
    with locked(path, AccountsError) as (descriptor, status):
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
        replace(path, "".join(f"{line}\n" for line in lines), status)


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
