"""``twisted-mta dkim``: commands that make, list and check the keys that mail is signed with."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import click

from ...config import Config, ConfigError, DKIMKey, load
from ...dns import read_resolv_conf
from ...mail.address import AddressError, domain_name
from ...mail.printable import printable
from ...policy.dkim.signing_keys import SigningKey
from ...system.real_world import wall_time
from ...tls.certificates import CertificateError
from ..client import failure, state_dir_option
from ..questions import NoAnswer, Questions, TooLate
from ..terminal import show
from .key_file import new_key, write_key
from .records import published, record_of, zone_lines

_COLUMNS = ("Domain", "Selector", "Algorithm", "Bits", "File", "Age")
_SECONDS = 20.0  # for all questions together
_SHOWN = 5  # tables in an error
_INITIALS = {"rsa": "s", "ed25519": "e"}

_CONFIG: Callable[[Any], Any] = click.option(
    "--config", "config", metavar="FILE", help="TOML file of the MTA"
)
_DOMAIN: Callable[[Any], Any] = click.option(
    "--domain", metavar="DOMAIN", help="domain that signs  [default: all]"
)
_SELECTOR: Callable[[Any], Any] = click.option(
    "--selector", metavar="NAME", help="selector of the key  [default: all]"
)


@click.group()
def dkim() -> None:
    """Make, list and check the keys that mail is signed with.

    A running MTA reads them again at `twisted-mta reload` or SIGHUP.
    """


@dkim.command("new")
@_CONFIG
@state_dir_option
@click.option(
    "--domain",
    metavar="DOMAIN",
    help="domain that signs  [default: the first local domain with a dot in it]",
)
@click.option(
    "--selector", metavar="NAME", help="selector of the key  [default: by the month, as s202611]"
)
@click.option(
    "--algorithm",
    type=click.Choice(["rsa", "ed25519"]),
    default="rsa",
    show_default=True,
    help="kind of key; rsa has 2048 bits, and is the one that all receivers know",
)
@click.option("--file", "file", metavar="FILE", help="the new file  [default: in STATE/dkim]")
def new(
    config: str | None,
    state_dir: str | None,
    domain: str | None,
    selector: str | None,
    algorithm: Literal["rsa", "ed25519"],
    file: str | None,
) -> None:
    """Make a key.

    Its record for the DNS and its table for the configuration are printed. The file has mode 0600.
    A file that exists is never replaced.

    Exit status: 0 done, 1 the file cannot be written.
    """
    settings = _settings(config, state_dir)
    wanted = _wanted(settings, domain, selector, algorithm, file)
    used = [each.key for each in settings.dkim_keys if each.record_name == wanted.record_name]
    if used:
        raise failure(
            f"{wanted.record_name} is in use, by {printable(used[0])}; expected another --selector"
        )
    try:
        write_key(wanted.key, new_key(algorithm), _state(settings) if file is None else None)
        key = SigningKey.read(wanted)
    except FileExistsError as error:
        place = str(error.filename or wanted.key)
        if place != wanted.key:
            raise failure(f"{printable(place)}: found a file, expected a directory") from None
        raise failure(
            f"{printable(wanted.key)} exists; expected another --selector or --file"
        ) from None
    except OSError as error:
        where = printable(str(error.filename or wanted.key))
        raise failure(f"{where}: {error.strerror}") from None
    click.echo(f"{printable(wanted.key)}: a new key ({key.algorithm}, {key.bits} bits)")
    if file is not None and os.geteuid() == 0:
        click.echo("It belongs to root; give it to the user that runs the MTA.")
    for line in _instructions(key, wanted, config):
        click.echo(line)


def _wanted(
    settings: Config,
    domain: str | None,
    selector: str | None,
    algorithm: Literal["rsa", "ed25519"],
    file: str | None,
) -> DKIMKey:
    """Return the table of the new key.

    Raises:
        click.UsageError: it has no valid form.
    """
    if domain is None:
        local = (name for name in settings.local_domains if "." in name and name[0] != "[")
        domain = next(local, None)
        if domain is None:
            raise click.UsageError(
                "no local domain has a dot in it; expected --domain DOMAIN, or --config FILE with"
                " local_domains"
            )
    if selector is None:
        month = datetime.fromtimestamp(wall_time(), UTC)
        selector = f"{_INITIALS[algorithm]}{month:%Y%m}"
    try:
        wanted = DKIMKey(domain=domain, selector=selector, key=file or "new")
        if file is not None:
            return wanted
        name = f"{wanted.domain}-{wanted.selector}.pem"
        return DKIMKey(
            domain=domain, selector=selector, key=os.path.join(settings.state_dir, "dkim", name)
        )
    except ConfigError as error:
        raise click.UsageError(str(error)) from None


def _instructions(key: SigningKey, wanted: DKIMKey, config: str | None) -> Sequence[str]:
    words = ["--domain", wanted.domain, "--selector", wanted.selector, "--file", wanted.key]
    if config is not None:
        words = ["--config", config, *words]
    return [
        "",
        "1. Publish its record. In a zone file:",
        "",
        *zone_lines(key),
        "",
        f"or, in the form of a provider, as TXT of {key.record_name}:",
        "",
        record_of(key),
        "",
        "2. Look whether the DNS has it:",
        "",
        f"twisted-mta dkim check {printable(shlex.join(words))}",
        "",
        "3. Add it to the configuration, and reload:",
        "",
        "[[dkim]]",
        f'domain = "{wanted.domain}"',
        f'selector = "{wanted.selector}"',
        f"key = {json.dumps(wanted.key)}",
    ]


def _state(settings: Config) -> os.stat_result | None:
    """Return the status of the state directory; None: it does not exist yet."""
    try:
        return os.stat(settings.state_dir)
    except OSError:
        return None


@dkim.command("list")
@_CONFIG
@_DOMAIN
@_SELECTOR
def list_command(config: str | None, domain: str | None, selector: str | None) -> None:
    """List the keys of the configuration.

    Exit status: 0 done, 1 a key cannot be used, or there is none.
    """
    rows: list[Sequence[str]] = []
    broken = False
    for table in _chosen(_settings(config, None), config, domain, selector):
        try:
            key = SigningKey.read(table)
        except CertificateError as error:
            click.echo(f"twisted-mta: {error}", err=True)
            broken = True
            continue
        age = (wall_time() - os.stat(table.key).st_mtime) / 86400
        length = str(key.bits)
        file = printable(table.key)
        rows.append((key.domain, key.selector, key.algorithm, length, file, _days(age)))
    if sys.stdout.isatty():
        show([], [("", _COLUMNS, rows)])
    else:
        for row in (_COLUMNS, *rows):
            click.echo("\t".join(row))
    if broken:
        raise click.exceptions.Exit(1)


def _days(age: float) -> str:
    return "1 day" if 1 <= age < 2 else f"{max(0, int(age))} days"


@dkim.command("check")
@_CONFIG
@_DOMAIN
@_SELECTOR
@click.option(
    "--file",
    "file",
    metavar="FILE",
    help="a key that is not in the configuration yet; needs --selector",
)
def check(config: str | None, domain: str | None, selector: str | None, file: str | None) -> None:
    """Compare keys with the DNS.

    These are the keys of the configuration, or a new one. The name servers of the configuration are
    asked, or those of the system.

    Exit status: 0 the DNS has the records of all keys, 1 a record is missing or another one, or it
    could not be found out.
    """
    settings = _settings(config, None)
    if file is None:
        tables: Sequence[DKIMKey] = _chosen(settings, config, domain, selector)
    elif selector is None:
        raise click.UsageError("--file without --selector; expected both")
    else:
        tables = [_wanted(settings, domain, selector, "rsa", file)]
    nameservers = settings.dns.nameservers or read_resolv_conf().nameservers
    questions = Questions(list(nameservers), wall_time() + _SECONDS, wall_time)
    missing = sum(not _is_published(table, questions) for table in tables)
    if missing:
        raise click.exceptions.Exit(1)


def _is_published(table: DKIMKey, questions: Questions) -> bool:
    """Say whether the DNS has a key; return it."""
    where = table.record_name
    try:
        key = SigningKey.read(table)
        result = published(key, questions)
    except CertificateError as error:
        click.echo(f"{where}: {error}")
        return False
    except NoAnswer as error:
        click.echo(f"{where}: the name servers do not answer: {error}")
        return False
    except TooLate:
        click.echo(f"{where}: the name servers have not answered within {_SECONDS:.0f} s")
        return False
    click.echo(f"{where}: {result.text}")
    if not result.same:
        for record in result.found:
            click.echo(f"  found:    {record}")
        click.echo(f"  expected: {record_of(key)}")
    return result.same


def _settings(config: str | None, state_dir: str | None) -> Config:
    state_dir = state_dir or click.get_current_context().find_root().params.get("state_dir")
    try:
        return load({} if state_dir is None else {"state-dir": state_dir}, config)
    except ConfigError as error:
        raise click.UsageError(str(error)) from None


def _chosen(
    settings: Config, config: str | None, domain: str | None, selector: str | None
) -> Sequence[DKIMKey]:
    """Return the keys of the configuration with a domain and a selector; None: with any."""
    try:
        named = None if domain is None else domain_name(domain)
    except AddressError as error:
        raise click.UsageError(f"--domain {printable(domain or '')}: {error}") from None
    chosen = [
        table
        for table in settings.dkim_keys
        if named in (None, table.domain)
        and (selector is None or selector.lower() == table.selector)
    ]
    if not chosen:
        raise failure(_missing(settings, config, domain, selector))
    return chosen


def _missing(settings: Config, config: str | None, domain: str | None, selector: str | None) -> str:
    """Return why no key was chosen, and what was expected instead."""
    if config is None:
        return "no configuration, so no [[dkim]] table; expected --config FILE"
    file = printable(config)
    if not settings.dkim_keys:
        return (
            f"{file} has no [[dkim]] table; twisted-mta dkim new makes a key and prints its table"
        )
    wanted = [
        f"{name} = {json.dumps(value)}"
        for name, value in (("domain", domain), ("selector", selector))
        if value is not None
    ]
    tables = ", ".join(table.record_name for table in settings.dkim_keys[:_SHOWN])
    more = ", …" if len(settings.dkim_keys) > _SHOWN else ""
    return f"{file} has no [[dkim]] table with {', '.join(wanted)}; found {tables}{more}"
