"""Accounts, checkers of credentials, and what is left of AUTH on each listener."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...auth.accounts import AccountsError
from ...auth.accounts_file import read_accounts
from ...auth.authenticator import judged_mechanisms
from ...auth.checker import credentials_of
from ...auth.tokens import TokensError, read_tokens
from ...config import Config, ConfigError, Listener
from ...mail.printable import printable
from .finding import Finding


def accounts(config: Config) -> Iterator[Finding]:
    """Yield findings about accounts, checkers and tokens, and listeners without AUTH in effect."""
    taken: list[Any] = []  # interfaces of credentials
    known = True
    if config.auth is not None:
        try:
            taken += getattr(config.auth.make(), "credentialInterfaces", ())
        except ConfigError as error:
            known = False
            yield Finding.from_error("error", str(error))
    if config.users is not None:
        try:
            ours = read_accounts(config.users)
        except AccountsError as error:
            known = False
            yield Finding.from_error("error", str(error))
        else:
            taken += credentials_of(ours)
            if not ours.by_name:
                yield Finding(
                    "warning",
                    "[mta] users",
                    f"{printable(config.users)} has no accounts: no user can authenticate",
                    "twisted-mta users add NAME",
                )
    yield from _web_access(config)
    for listener in config.listeners:
        if listener.auth == "off":
            continue
        if config.users is None and config.auth is None:
            yield Finding(
                "warning",
                _place(listener),
                "no user can authenticate: there are no accounts",
                "name them by --users FILE, or a checker by --auth",
            )
        elif known:
            yield from _mechanisms(listener, judged_mechanisms(taken))


def _web_access(config: Config) -> Iterator[Finding]:
    try:
        if config.web_page.users is not None:
            read_accounts(config.web_page.users)
    except AccountsError as error:
        yield Finding.from_error("error", str(error))
    try:
        if config.web_page.tokens is not None:
            read_tokens(config.web_page.tokens)
    except TokensError as error:
        yield Finding.from_error("error", str(error))


def _mechanisms(listener: Listener, judged: tuple[str, ...]) -> Iterator[Finding]:
    usable = [name for name in judged if _is_possible(name, listener)]
    if not usable:
        yield Finding(
            "warning",
            _place(listener),
            "no user can authenticate: the checker takes no credentials that AUTH brings here",
            "name accounts by --users FILE, or another checker by --auth",
        )
    elif listener.auth_mechanisms and not set(usable).intersection(listener.auth_mechanisms):
        yield Finding(
            "warning",
            f"{_place(listener)}, auth_mechanisms",
            "no user can authenticate: none of"
            f" {', '.join(map(printable, listener.auth_mechanisms))} can be used here",
            f"expected one of {', '.join(usable)}",
        )


def _is_possible(mechanism: str, listener: Listener) -> bool:
    """Whether a session of a listener may come to offer a mechanism."""
    if mechanism == "EXTERNAL":
        return listener.client_certificates != "none"
    return listener.tls != "none" or not mechanism.endswith("-PLUS")


def _place(listener: Listener) -> str:
    return f"listener {printable(listener.endpoint)}"
