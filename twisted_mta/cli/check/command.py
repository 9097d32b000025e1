"""``twisted-mta check``."""

from __future__ import annotations

import json

import click

from .finding import Finding
from .report import report


@click.command("check")
@click.option("--config", "file", metavar="FILE", help="the TOML file to check")
@click.option("--state-dir", metavar="DIR", help="instead of the one that the file names")
@click.option("--no-dns", is_flag=True, help="ask no name server")
@click.option("--json", "as_json", is_flag=True, help="write JSON, for programs")
def check(file: str | None, state_dir: str | None, no_dns: bool, as_json: bool) -> None:
    """Check a configuration as a start would, and try what it names.

    Ports are bound for an instant, certificates are judged, names are looked up. Nothing is
    started or written. Exits with 0 when a start would work (there may be warnings), with 1 when it
    would not.
    """
    state_dir = state_dir or click.get_current_context().find_root().params["state_dir"]
    options = {} if state_dir is None else {"state-dir": state_dir}
    found = report(options, file, ask_dns=not no_dns)
    if as_json:
        click.echo(json.dumps(found.as_json(), indent=2))
    else:
        for finding in found.findings:
            click.echo(f"{_severity(finding)} {finding}")
        click.secho(found.verdict, bold=True)
    if not found.good:
        raise click.exceptions.Exit(1)


_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def _severity(finding: Finding) -> str:
    # click leaves colour out where the output is no terminal.
    return click.style(f"{finding.severity}:", fg=_COLOURS[finding.severity], bold=True)
