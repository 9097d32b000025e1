"""``twisted-mta feedback``: reports of complaints about our mail, by account."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import click

from ..admin.status import moment
from ..mail.printable import printable
from .client import answer_or_exit, client, json_option, require_version, state_dir_option

_ACCOUNTS = ("Account", "Reports", "First", "Last")
_REPORTS = ("Received", "Type", "Message", "Account", "Reporter")


@click.command()
@click.argument("account", required=False)
@state_dir_option
@json_option
def feedback(account: str | None, state_dir: str | None, as_json: bool) -> None:
    """Show the reports of complaints of the last 90 days.

    First the accounts, those with most reports first; then the last reports. ACCOUNT selects those
    about one account.

    Exit status: 0 done, 1 refused, 3 no MTA is running.
    """
    query = "" if account is None else "?" + urlencode({"account": account})
    answer = answer_or_exit(lambda: client(state_dir).get(f"/v1/feedback{query}"))
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    require_version(answer)
    click.echo("\t".join(_ACCOUNTS))
    for each in answer["accounts"]:
        name = each["account"] or "(none)"
        cells = (name, each["reports"], moment(each["first"]), moment(each["last"]))
        click.echo("\t".join(printable(str(cell)) for cell in cells))
    click.echo()
    click.echo("\t".join(_REPORTS))
    for each in answer["reports"]:
        name = each["account"] or "(none)"
        report = (moment(each["at"]), each["type"], each["message"], name, each["reporter"])
        click.echo("\t".join(printable(str(cell)) for cell in report))
