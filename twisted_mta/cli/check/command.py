"""``twisted-mta check``."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from ...mail.printable import printable
from ..terminal import wrapped

if TYPE_CHECKING:
    from .finding import Finding


@click.command("check")
@click.option("--config", "file", metavar="FILE", help="TOML file to check")
@click.option("--state-dir", metavar="DIR", help="state directory, instead of that of the file")
@click.option(
    "--dns",
    is_flag=True,
    help="check MX, PTR, SPF, DKIM, DMARC, TLSA, MTA-STS and TLS-RPT records of the local domains",
)
@click.option("--no-dns", is_flag=True, help="do not ask name servers")
@click.option(
    "--uid",
    "user",
    metavar="USER",
    help="check as root for a start by twistd --uid: ports as root, all else as that user",
)
@click.option("--json", "as_json", is_flag=True, help="write JSON, for programs")
def check(
    file: str | None,
    state_dir: str | None,
    dns: bool,
    no_dns: bool,
    user: str | None,
    as_json: bool,
) -> None:
    """Check a configuration, and everything that it names.

    Ports are bound for an instant, certificates are examined, names are looked up. Nothing is
    started or written. Without --config, the defaults of `twistd mta` are checked.

    Exit status: 0 a start would succeed (there may be warnings), 1 it would fail, or --dns has
    found a record to correct.
    """
    from .report import report  # imported here: it needs most of the MTA

    if dns and no_dns:
        raise click.UsageError("--dns and --no-dns: expected one of them")
    state_dir = state_dir or click.get_current_context().find_root().params["state_dir"]
    options = {} if state_dir is None else {"state-dir": state_dir}
    change_user = None if user is None else _changing(user)
    checked = report(options, file, ask_dns=not no_dns, ask_records=dns, change_user=change_user)
    if as_json:
        click.echo(json.dumps(checked.as_json(), indent=2))
    else:
        for finding in checked.findings:
            first, *rest = wrapped(f"{finding.severity}: {finding}")
            click.echo(_severity(finding) + first.removeprefix(f"{finding.severity}:"))
            for line in rest:
                click.echo(line)
            for record in finding.records:
                click.echo(f"    {record}")  # never wrapped: it is to be copied
        if checked.expiries:
            click.secho("expires:", bold=True)
        for line in checked.expiry_lines:
            for part in wrapped(f"  {line}"):
                click.echo(part)
        click.secho(checked.verdict, bold=True)
    if not checked.passed:
        raise click.exceptions.Exit(1)


def _changing(user: str) -> Callable[[], None]:
    """Return what makes this process one of another user, for good, with that user's groups.

    Raises:
        click.UsageError: there is no such user, or this one may not become another.
    """
    try:
        account = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, OverflowError, ValueError):
        raise click.UsageError(f"--uid {printable(user)}: found no such user") from None
    if os.geteuid() != 0:
        raise click.UsageError("--uid: only root can check for another user; expected to be root")

    def change() -> None:
        os.initgroups(account.pw_name, account.pw_gid)
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)

    return change


_COLORS = {"error": "red", "warning": "yellow", "note": "cyan", "pass": "green", "fail": "red"}


def _severity(finding: Finding) -> str:
    # click leaves out colors if the output is not a terminal.
    return click.style(f"{finding.severity}:", fg=_COLORS[finding.severity], bold=True)
