"""``twisted-mta queue suspend``, ``resume`` and ``suspended``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import click

from ...admin.status import moment
from ...mail.counted import counted
from ...mail.printable import printable
from ..client import (
    answer_or_exit,
    client,
    json_option,
    reader,
    require_version,
    state_dir_option,
)
from ..terminal import shortened, show
from .listing import exit_if_incomplete
from .selection import PATH

SUSPENDED = f"{PATH}/suspended"
_COLUMNS = ("Destination", "Since", "Until", "Waiting", "By", "Reason")


def _seconds(context: click.Context, option: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    # Imported here: other commands start faster without it.
    from ...config.amounts import period

    try:
        return period(text)
    except ValueError as error:
        raise click.BadParameter(printable(str(error))) from None


@click.command("suspend")
@click.argument("destination")
@click.option("--reason", default="", metavar="TEXT", help="for operators; senders never see it")
@click.option(
    "--for",
    "seconds",
    metavar="DURATION",
    callback=_seconds,
    help='"2 hours", "30 min"  [default: until it is resumed]',
)
@click.option("--dry-run", is_flag=True, help="change nothing; say how much mail would wait")
@state_dir_option
@json_option
def suspend_command(
    destination: str,
    reason: str,
    seconds: float | None,
    dry_run: bool,
    state_dir: str | None,
    as_json: bool,
) -> None:
    """Suspend deliveries to DESTINATION; its mail is accepted, and waits.

    DESTINATION is the domain of recipients; .example.net for all domains below one; or a next hop
    by the name that "twisted-mta status" and the log give it, such as smtp:relay.example.net:25 or
    smtp:exchanger=.provider.example.

    No attempt begins until the destination is resumed, or DURATION is over; one that is under way
    ends by itself. Time goes on for the mail: senders are told of the delay, and it is returned at
    the end of its lifetime. A destination that is suspended already gets the new reason and time.

    Exit status: 0 done, 1 refused, 3 no MTA is running.
    """
    wish = {"destination": destination, "reason": reason, "seconds": seconds, "dry_run": dry_run}
    answer = answer_or_exit(lambda: client(state_dir).post(SUSPENDED, wish))
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        require_version(answer)
        would = "would be suspended" if dry_run else "suspended"
        until = "" if answer.get("until") is None else f" until {moment(answer['until'])}"
        waiting = answer["waiting"]
        verb = "waits" if waiting == 1 else "wait"
        click.echo(
            f"{would}: {printable(str(answer['destination']))}{until};"
            f" {counted(waiting, 'recipient')} {verb} for it"
        )
    exit_if_incomplete([], {str(each["why"]): None for each in answer["missing"]})


@click.command("resume")
@click.argument("destination", required=False)
@click.option("--all", "everything", is_flag=True, help="all suspended destinations")
@state_dir_option
@json_option
def resume_command(
    destination: str | None, everything: bool, state_dir: str | None, as_json: bool
) -> None:
    """Resume deliveries to DESTINATION; its mail is due at once.

    DESTINATION is one of those that "twisted-mta queue suspended" lists.

    The limits of the destination hold as always: connections, rate, and what it has shown to bear.

    Exit status: 0 done, 1 not suspended or refused, 3 no MTA is running.
    """
    if (destination is None) != everything:
        raise click.UsageError("expected a destination, or --all")
    query = urlencode({"all": "true"} if destination is None else {"destination": destination})
    answer = answer_or_exit(lambda: client(state_dir).delete(f"{SUSPENDED}?{query}"))
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    require_version(answer)
    names = ", ".join(printable(str(each)) for each in answer["resumed"])
    click.echo(f"resumed: {names or 'nothing was suspended'}")


@click.command("suspended")
@state_dir_option
@json_option
def suspended_command(state_dir: str | None, as_json: bool) -> None:
    """List the destinations that the operator has suspended.

    Next hops that the MTA itself has suspended, as no session with them could be opened, are shown
    by "twisted-mta status".

    Exit status: 0 done, 1 refused, 3 no MTA is running and there is no queue. Without a running MTA
    the files of the queue are read.
    """
    asker = reader(state_dir)
    answer = answer_or_exit(lambda: asker.get(SUSPENDED))
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        require_version(answer)
        rows = [_row(each) for each in answer["destinations"]]
        if sys.stdout.isatty():
            show([], [("", _COLUMNS, rows)])
            if not rows:
                click.echo("No destination is suspended by the operator.")
        else:
            click.echo("\t".join(_COLUMNS))
            for row in rows:
                click.echo("\t".join(row))
    exit_if_incomplete([], {str(each["why"]): None for each in answer["missing"]})


def _row(each: Mapping[str, Any]) -> Sequence[str]:
    until = "resumed" if each["until"] is None else moment(each["until"])
    cells = each["destination"], moment(each["since"]), until, each["waiting"]
    return tuple(printable(str(cell)) for cell in (*cells, each["by"], each["reason"]))


def note(each: Mapping[str, Any], longest: int | None = None) -> str:
    """Return why mail for a destination waits, in one line.

    Args:
        each: the suspended destination.
        longest: columns of the operator's reason; None: all of it.
    """
    until = "until it is resumed" if each["until"] is None else f"until {moment(each['until'])}"
    reason = printable(str(each["reason"]))
    if longest is not None:
        reason = shortened(reason, longest)
    name = printable(str(each["destination"]))
    return f"{name} is suspended by the operator {until}{reason and f': {reason}'}"
