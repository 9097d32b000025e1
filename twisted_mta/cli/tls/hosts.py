"""``twisted-mta tls [DOMAIN]``: hosts with TLS."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

import click

from ...mail.address import AddressError, domain_name
from ...mail.printable import printable
from ..client import answer_or_exit, client, json_option, require_version, state_dir_option
from ..terminal import moment, show

_COLUMNS = ("Host", "Port", "First TLS", "Last TLS", "Missing since")


@click.command("show")
@click.argument("domain", required=False)
@state_dir_option
@json_option
@click.option("--probe", is_flag=True, help="ask the mail exchangers of DOMAIN (not built yet)")
def show_hosts(domain: str | None, state_dir: str | None, as_json: bool, probe: bool) -> None:
    """Show which hosts have had TLS, and where it is missing.

    DOMAIN selects one host, or all hosts below that domain. Hosts are mail exchangers and hosts of
    routes, not the domains that mail is addressed to.

    Exit status: 0 done, 1 refused, 3 no MTA is running.
    """
    if probe:
        raise click.UsageError("--probe is not built yet")
    path = "/v1/tls" if domain is None else f"/v1/tls/{host_name(domain)}"
    answer = answer_or_exit(lambda: client(state_dir).get(path))
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    require_version(answer)
    rows = [_row(host) for host in answer["hosts"]]
    if not sys.stdout.isatty():
        for row in (_COLUMNS, *rows):
            click.echo("\t".join(row))
    elif rows:
        show([], [("", _COLUMNS, rows)])
    else:
        click.echo("No such host has had TLS.")


def host_name(text: str) -> str:
    """Return the canonical form of a domain, with A-labels, or of an address."""
    with suppress(ValueError):
        return str(ip_address(text))
    try:
        return domain_name(text.removeprefix("."))
    except AddressError as error:
        raise click.BadParameter(printable(f"{text}: {error}")) from None


def _row(host: Mapping[str, Any]) -> Sequence[str]:
    times = (host["first"], host["last"], host["missing"])
    texts = ("" if time is None else moment(time) for time in times)
    return printable(str(host["host"])), str(host["port"]), *texts
