"""The commands of the operator's tool for accounts: they change a file, MTA or not."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import click

from ..auth.accounts import Account, AccountsError, account_key
from ..auth.accounts_file import changing, read_accounts
from ..mail.printable import printable
from ..system.real_world import secret_octets

_REFUSED = 1

_FILE: Callable[[Any], Any] = click.option(
    "--file",
    "file",
    metavar="FILE",
    help="the file of accounts  [default: the users of --config]",
)
_CONFIG: Callable[[Any], Any] = click.option(
    "--config", "config", metavar="FILE", help="the TOML file that names it"
)


@click.group()
def users() -> None:
    """Manage the accounts that AUTH is checked against.

    A running MTA reads them anew at `twisted-mta reload`, or SIGHUP.
    """


@users.command("add")
@_FILE
@_CONFIG
@click.option(
    "--address",
    "addresses",
    metavar="ADDRESS",
    multiple=True,
    help="as whom mail may be sent, besides the name: an address, @domain, or *; repeatable",
)
@click.option(
    "--certificate",
    "certificates",
    metavar="SHA256",
    multiple=True,
    help="fingerprint of a client certificate, for AUTH EXTERNAL; repeatable",
)
@click.option("--no-password", is_flag=True, help="nobody comes in with a password")
@click.argument("name")
def add(
    file: str | None,
    config: str | None,
    addresses: tuple[str, ...],
    certificates: tuple[str, ...],
    no_password: bool,
    name: str,
) -> None:
    """Add an account, or give it a new password.

    The password comes from a prompt, or is one line of standard input where that is no terminal.
    Addresses and certificates replace those that there were, if any are given.
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

    click.echo(f"{printable(name)} {_done(change)}")


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

    click.echo(f"{printable(name)} {_done(change)}")


@users.command("list")
@_FILE
@_CONFIG
@click.argument("name", required=False)
def list_command(file: str | None, config: str | None, name: str | None) -> None:
    """List the accounts, or one: name, how they can authenticate, as whom they may send."""
    path = _path(file, config)
    accounts = _done(lambda: read_accounts(path))
    if name is not None and accounts.get(name) is None:
        click.echo(f"twisted-mta: {printable(name)}: no such account", err=True)
        raise click.exceptions.Exit(_REFUSED)
    for account in accounts.by_name.values():
        if name is not None and account is not accounts.get(name):
            continue
        ways = ["password"] if account.argon2 else []
        ways += ["certificate"] if account.certificates else []
        fields = (account.name, "+".join(ways) or "nothing", " ".join(account.addresses))
        click.echo("\t".join(map(printable, fields)).rstrip("\t"))


def _path(file: str | None, config: str | None) -> str:
    if file is not None:
        return os.path.abspath(file)
    if config is None:
        raise click.UsageError("which file? --file FILE, or --config FILE that names it, would do")
    from ..config import ConfigError, load

    try:
        found = load({}, config).users
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    if found is None:
        raise click.UsageError(f"{printable(config)} names no users; --file FILE would do")
    return found


def _password(name: str) -> str:
    if sys.stdin.isatty():
        password: str = click.prompt(
            f"Password of {printable(name)}", hide_input=True, confirmation_prompt=True
        )
        return password
    try:
        return sys.stdin.readline().rstrip("\r\n")
    except UnicodeDecodeError:
        raise AccountsError("the password is not UTF-8") from None


def _done(change: Callable[[], Any]) -> Any:
    try:
        return change()
    except AccountsError as error:
        problem = str(error)
    except OSError as error:
        problem = f"{printable(str(error.filename))}: {error.strerror}"
    click.echo(f"twisted-mta: {problem}", err=True)
    raise click.exceptions.Exit(_REFUSED)
