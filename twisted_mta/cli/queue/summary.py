"""``twisted-mta queue summary``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import click

from ...admin.status import moment
from ...mail.printable import printable
from ..client import answer_or_exit, json_option, reader, require_version, state_dir_option
from ..terminal import shortened, show
from .listing import exit_if_incomplete
from .selection import PATH, age_option, domain_option, state_option
from .suspending import note

_COLUMNS = ("Recipients", "Messages", "Deferred", "Held", "Oldest")
_LONGEST_NAME = 26  # columns of a terminal: the others have 54 of 80
_LONGEST_REASON = 60  # columns of a terminal, of a suspension; "queue suspended" has all of it


@click.command("summary")
@click.option(
    "--by",
    type=click.Choice(["domain", "sender", "reason"]),
    default="domain",
    show_default=True,
    help="what makes a group",
)
@domain_option
@state_option
@age_option
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=100,
    metavar="N",
    show_default=True,
    help="most groups; the others are added up",
)
@state_dir_option
@json_option
def summary_command(
    state_dir: str | None, as_json: bool, by: str, limit: int, **filters: Any
) -> None:
    """Count the recipients in the queue by domain, sender or reason, the largest groups first.

    The reason is the code of the last reply with its class, "held", or "not tried yet". The
    messages of "(others)" are added up: one with recipients in several groups counts in each.

    Exit status: 0 done, 1 refused or a part of the queue was not asked, 3 no MTA is running and
    there is no queue. Without a running MTA the queue itself is read.
    """
    query = {name: value for name, value in filters.items() if value is not None}
    asker = reader(state_dir, timeout=70.0)
    path = f"{PATH}/summary?{urlencode({**query, 'by': by, 'limit': limit})}"
    answer = answer_or_exit(lambda: asker.get(path))
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        require_version(answer)
        _write(by.capitalize(), [*answer["groups"], *filter(None, [answer["others"]])])
        for each in answer.get("suspended", ()):
            # Beside the table, which programs may read.
            longest = _LONGEST_REASON if sys.stderr.isatty() else None
            click.echo(f"{note(each, longest)} ({each['waiting']:,} waiting)", err=True)
    exit_if_incomplete([], {str(each["why"]): None for each in answer["missing"]})


def _write(title: str, groups: Sequence[Mapping[str, Any]]) -> None:
    if sys.stdout.isatty():
        rows = [_row(each, _LONGEST_NAME) for each in groups]
        show([], [("", (title, *_COLUMNS), rows)])
        if not rows:
            click.echo("No recipient matches.")
        return
    click.echo("\t".join((title, *_COLUMNS)))
    for each in groups:
        click.echo("\t".join(_row(each, None)))


def _row(group: Mapping[str, Any], longest: int | None) -> Sequence[str]:
    name = "(others)" if group["name"] is None else printable(str(group["name"]))
    return (
        name if longest is None else shortened(name, longest),
        *(str(group[each]) for each in ("recipients", "messages", "deferred", "held")),
        moment(group["oldest"]),
    )
