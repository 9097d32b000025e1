"""The file of accounts."""

from __future__ import annotations

from ..system.work import Work, finished
from .accounts import Account, Accounts, AccountsError, AccountTable
from .entry_file import EntryFile

_PER_SLICE = 8  # accounts read before other work may have its turn


_FILE = EntryFile(Account.parse, AccountsError, "twisted-mta users add")
read_content = _FILE.read
changing = _FILE.changing


def read_accounts(path: str) -> Accounts:
    """Return the accounts of a file. Blocks.

    Raises:
        AccountsError: the file cannot be used.
    """
    return finished(parse_in_slices(read_content(path), path))


def parse_in_slices(content: bytes, path: str) -> Work[Accounts]:
    """Return the accounts in the content of a file, in slices of work.

    Args:
        content: UTF-8.
        path: of the file, for error texts.

    Raises:
        AccountsError: a line is not valid.
    """
    by_name = AccountTable()
    for number, (_, account) in enumerate(_FILE.lines(content, path)):
        if number % _PER_SLICE == 0:
            yield
        if account is not None:
            by_name.put(account)
    return Accounts(by_name)
