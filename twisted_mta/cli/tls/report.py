"""``twisted-mta tls report``: reports on TLS to other domains, now (RFC 8460)."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import click

from ...mail.address import AddressError, domain_name
from ...mail.printable import printable
from ..client import REFUSED, answer_or_exit, client, failure, require_version, state_dir_option

_PATIENCE = 300.0  # seconds: collectors are given a minute each


@click.command("report")
@click.argument("domain", required=False)
@state_dir_option
@click.option("--dry-run", is_flag=True, help="print the reports, and send nothing")
def report(domain: str | None, state_dir: str | None, dry_run: bool) -> None:
    """Send reports on TLS now, or print them.

    A report has what was counted and not sent yet: today, or else on the last day. DOMAIN selects
    the one to that domain. Without this command, reports are sent after the end of each day.

    With --dry-run the last report of each domain is printed as JSON, also one that was sent; the
    error output has where it goes.

    Exit status: 0 done, 1 refused, or there is nothing to report, or a destination did not take its
    report, which is sent there again later; 3 no MTA is running.
    """
    query = "" if domain is None else "?" + urlencode({"domain": _domain(domain)})
    asked = client(state_dir, timeout=_PATIENCE)
    path = f"/v1/tls-reports{query}"
    answer = answer_or_exit(lambda: asked.get(path) if dry_run else asked.post(path))
    require_version(answer)
    if not answer["reports" if dry_run else "attempts"]:
        where = "" if domain is None else f" to {printable(domain)}"
        raise failure(f"there is nothing to report{where}", REFUSED)
    if not dry_run:
        for each in answer["attempts"]:
            click.echo(f"{printable(each['domain'])}: {printable(each['what'])}")
        if not all(each["done"] for each in answer["attempts"]):
            raise click.exceptions.Exit(REFUSED)
        return
    for each in answer["reports"]:
        to = ", ".join(map(printable, each["to"])) or "nowhere"
        faults = "".join(f"; {printable(fault)}" for fault in each["faults"])
        click.echo(f"{printable(each['domain'])}: to {to}{faults}", err=True)
        click.echo(json.dumps(each["report"], indent=2))


def _domain(text: str) -> str:
    try:
        return domain_name(text)
    except AddressError as error:
        raise click.BadParameter(printable(f"{text}: {error}")) from None
