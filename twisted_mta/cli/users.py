"""``twisted-mta users``: commands that list and change the files of accounts and of tokens."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..auth.accounts import Account, AccountsError, account_key
from ..auth.accounts_file import changing, read_accounts
from ..auth.tokens import Token, TokensError, read_tokens
from ..auth.tokens import changing as changing_tokens
from ..mail.printable import printable
from ..system.real_world import secret_octets
from .client import failure, json_option

_Result = TypeVar("_Result")

_FILE: Callable[[Any], Any] = click.option(
    "--file", "file", metavar="FILE", help="the file of accounts  [default: users of --config]"
)
_CONFIG: Callable[[Any], Any] = click.option(
    "--config", "config", metavar="FILE", help="TOML file of the MTA, which names the file"
)


@click.group()
def users() -> None:
    """List and change the accounts for AUTH and for the page, and the tokens of programs.

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
@json_option
@click.argument("name", required=False)
def list_command(file: str | None, config: str | None, as_json: bool, name: str | None) -> None:
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
    found = [(account, _ways(account)) for account in listed]
    if as_json:
        accounts_found = [
            {"name": account.name, "ways": ways, "addresses": list(account.addresses)}
            for account, ways in found
        ]
        click.echo(json.dumps({"version": 1, "accounts": accounts_found}, indent=2))
        return
    for account, ways in found:
        fields = (account.name, "+".join(ways) or "nothing", " ".join(account.addresses))
        click.echo("\t".join(map(printable, fields)).rstrip("\t"))


def _ways(account: Account) -> list[str]:
    ways = ["password"] if account.argon2 else []
    return ways + (["certificate"] if account.certificates else [])


_TOKEN_FILE: Callable[[Any], Any] = click.option(
    "--file",
    "file",
    metavar="FILE",
    help="the file of tokens  [default: tokens of [web] of --config]",
)


@users.command("token")
@_TOKEN_FILE
@_CONFIG
@click.option(
    "--scope",
    "scope",
    metavar="SCOPE,…",
    default="read",
    show_default=True,
    help="what it is for: read, act (the actions of an operator), submit (mail); by commas",
)
@click.option("--remove", is_flag=True, help="remove the token of that name instead")
@click.argument("name")
def token(file: str | None, config: str | None, scope: str, remove: bool, name: str) -> None:
    """Make a bearer token for a program, or a new one in place of its old.

    It is printed, and stored nowhere: the file has its SHA-256 alone.
    """
    path = _token_path(file, config)

    def change() -> str:
        if remove and not os.path.exists(path):
            raise TokensError(f"{printable(path)}: no such file")
        made, text = Token.new(name, [each.strip() for each in scope.split(",")], secret_octets)
        with changing_tokens(path) as tokens:
            before = tokens.pop(account_key(made.name), None)
            if not remove:
                tokens[account_key(made.name)] = made
        if remove and before is None:
            raise TokensError(f"{printable(name)}: no such token in {printable(path)}")
        return f"{printable(name)} removed" if remove else text

    click.echo(_result_or_exit(change))


@users.command("tokens")
@_TOKEN_FILE
@_CONFIG
def tokens_command(file: str | None, config: str | None) -> None:
    """List the tokens of programs: the name and the scopes of each, separated by a tab."""
    path = _token_path(file, config)
    for each in _result_or_exit(lambda: read_tokens(path)).by_digest.values():
        click.echo(f"{printable(each.name)}\t{','.join(each.scopes)}")


def _token_path(file: str | None, config: str | None) -> str:
    return _named(file, config, "tokens", lambda loaded: loaded.web_page.tokens)


def _path(file: str | None, config: str | None) -> str:
    return _named(file, config, "accounts", lambda loaded: loaded.users)


def _named(
    file: str | None, config: str | None, kind: str, named: Callable[[Any], str | None]
) -> str:
    if file is not None:
        return os.path.abspath(file)
    if config is None:
        raise click.UsageError(
            f"no file of {kind} is named; expected --file FILE, or --config FILE that names it"
        )
    from ..config import ConfigError, load  # imported here: the settings take a while to load

    try:
        path = named(load({}, config))
    except ConfigError as error:
        raise click.UsageError(str(error)) from None
    if path is None:
        what = "users" if kind == "accounts" else kind
        raise click.UsageError(f"{printable(config)} names no {what}; expected --file FILE")
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
    except (AccountsError, TokensError) as error:
        raise failure(str(error)) from None
    except OSError as error:
        raise failure(f"{printable(str(error.filename))}: {error.strerror}") from None
