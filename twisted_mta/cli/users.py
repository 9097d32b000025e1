"""``twisted-mta users``: commands that list and change the file of accounts."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..auth.accounts import Account, AccountsError, account_key
from ..auth.accounts_file import changing, read_accounts
from ..mail.printable import printable
from ..system.real_world import secret_octets
from .client import failure

_Result = TypeVar("_Result")

_FILE: Callable[[Any], Any] = click.option(
    "--file", "file", metavar="FILE", help="the file of accounts  [default: users of --config]"
)
_CONFIG: Callable[[Any], Any] = click.option(
    "--config", "config", metavar="FILE", help="TOML file that names the file of accounts"
)


@click.group()
def users() -> None:
    """List and change the accounts for AUTH.

    A running MTA reads them again at `twisted-mta reload` or SIGHUP.
    """


@users.command("add")
@_FILE
@_CONFIG
@click.option(
    "--address",
    "addresses",
    metavar="ADDRESS",
    multiple=True,
    help="sender that the account may use beside its name: an address, @domain, or *; repeatable",
)
@click.option(
    "--certificate",
    "certificates",
    metavar="SHA256",
    multiple=True,
    help="fingerprint of a client certificate, for AUTH EXTERNAL; repeatable",
)
@click.option("--no-password", is_flag=True, help="no password: certificates only")
@click.argument("name")
def add(
    file: str | None,
    config: str | None,
    addresses: tuple[str, ...],
    certificates: tuple[str, ...],
    no_password: bool,
    name: str,
) -> None:
    """Add an account, or change its password.

    The password is asked for; if standard input is not a terminal, it is one line of that.
    Addresses and certificates, if given, replace those of the account.
    """
    path = _path(file, config)

    def change() -> str:
        Account.of(name, None, addresses=addresses, certificates=certificates, secret=secret_octets)
        password = None if no_password else _password(name)
        with changing(path) as accounts:
            before = accounts.get(account_key(name))
            account = Account.of(
                name if before is None else before.name,
                password,
                addresses=addresses or (before.addresses if before else ()),
                certificates=certificates or (before.certificates if before else ()),
                secret=secret_octets,
            )
            accounts[account_key(account.name)] = account
        return "added" if before is None else "changed"

    click.echo(f"{printable(name)} {_result_or_exit(change)}")


@users.command("remove")
@_FILE
@_CONFIG
@click.argument("name")
def remove(file: str | None, config: str | None, name: str) -> None:
    """Remove an account."""
    path = _path(file, config)

    def change() -> str:
        if not os.path.exists(path):
            raise AccountsError(f"{printable(path)}: no such file")
        with changing(path) as accounts:
            if accounts.pop(account_key(name), None) is None:
                raise AccountsError(f"{printable(name)}: no such account in {printable(path)}")
        return "removed"

    click.echo(f"{printable(name)} {_result_or_exit(change)}")


@users.command("list")
@_FILE
@_CONFIG
@click.argument("name", required=False)
def list_command(file: str | None, config: str | None, name: str | None) -> None:
    """List all accounts, or one.

    A line has the name, the ways to authenticate, and the sender addresses, separated by tabs.
    """
    path = _path(file, config)
    accounts = _result_or_exit(lambda: read_accounts(path))
    listed = list(accounts.by_name.values())
    if name is not None:
        account = accounts.get(name)
        if account is None:
            raise failure(f"{printable(name)}: no such account")
        listed = [account]
    for account in listed:
        ways = ["password"] if account.argon2 else []
        ways += ["certificate"] if account.certificates else []
        fields = (account.name, "+".join(ways) or "nothing", " ".join(account.addresses))
        click.echo("\t".join(map(printable, fields)).rstrip("\t"))


def _path(file: str | None, config: str | None) -> str:
    if file is not None:
        return os.path.abspath(file)
    if config is None:
        raise click.UsageError(
            "no file of accounts is named; expected --file FILE, or --config FILE that names it"
        )
    from ..config import ConfigError, load  # imported here: the settings take a while to load

    try:
        path = load({}, config).users
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    if path is None:
        raise click.UsageError(f"{printable(config)} names no users; expected --file FILE")
    return path


def _password(name: str) -> str:
    if sys.stdin.isatty():
        password: str = click.prompt(
            f"Password of {printable(name)}", hide_input=True, confirmation_prompt=True
        )
        return password
    try:
        return sys.stdin.readline().removeprefix("\ufeff").rstrip("\r\n")
    except UnicodeDecodeError:
        raise AccountsError("the password is not UTF-8") from None


def _result_or_exit(action: Callable[[], _Result]) -> _Result:
    """Return the result of ``action``, or exit with its error."""
    try:
        return action()
    except AccountsError as error:
        raise failure(str(error)) from None
    except OSError as error:
        raise failure(f"{printable(str(error.filename))}: {error.strerror}") from None
