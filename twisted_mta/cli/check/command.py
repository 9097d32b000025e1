"""``twisted-mta check``."""

from __future__ import annotations

import json

import click

from ..terminal import wrapped
from .finding import Finding
from .report import report


@click.command("check")
@click.option("--config", "file", metavar="FILE", help="TOML file to check")
@click.option("--state-dir", metavar="DIR", help="state directory, instead of that of the file")
@click.option(
    "--dns", is_flag=True, help="check MX, PTR, SPF, DKIM and DMARC records of the local domains"
)
@click.option("--no-dns", is_flag=True, help="do not ask name servers")
@click.option("--json", "as_json", is_flag=True, help="write JSON, for programs")
def check(file: str | None, state_dir: str | None, dns: bool, no_dns: bool, as_json: bool) -> None:
    """Check a configuration, and everything that it names.

    Ports are bound for an instant, certificates are examined, names are looked up. Nothing is
    started or written. Without --config, the defaults of `twistd mta` are checked.

    Exit status: 0 a start would succeed (there may be warnings), 1 it would fail, or --dns has
    found a record to correct.
    """
    if dns and no_dns:
        raise click.UsageError("--dns and --no-dns: expected one of them")
    state_dir = state_dir or click.get_current_context().find_root().params["state_dir"]
    options = {} if state_dir is None else {"state-dir": state_dir}
    checked = report(options, file, ask_dns=not no_dns, ask_records=dns)
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
        click.secho(checked.verdict, bold=True)
    if not checked.passed:
        raise click.exceptions.Exit(1)


_COLORS = {"error": "red", "warning": "yellow", "note": "cyan", "pass": "green", "fail": "red"}


def _severity(finding: Finding) -> str:
    # click leaves out colors if the output is not a terminal.
    return click.style(f"{finding.severity}:", fg=_COLORS[finding.severity], bold=True)
