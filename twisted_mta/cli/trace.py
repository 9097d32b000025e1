"""``twisted-mta trace``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import click

from ..mail.printable import printable
from .terminal import asked, client, same_version, state_dir_option


@click.command()
@click.option("--client", "network", metavar="NET", help="only clients there: 192.0.2.0/24")
@click.option("--next-hop", metavar="HOST", help="only servers of that name or address")
@click.option("--sender", metavar="ADDRESS", help="only mail with that reverse-path; @DOMAIN")
@click.option("--recipient", metavar="ADDRESS", help="only mail to that address; @DOMAIN")
@click.option("--in", "direction", flag_value="in", help="only what clients say to us")
@click.option("--out", "direction", flag_value="out", help="only what we say to servers")
@state_dir_option
@click.option("--json", "as_json", is_flag=True, help="write a line of JSON for each, for programs")
def trace(
    network: str | None,
    next_hop: str | None,
    sender: str | None,
    recipient: str | None,
    direction: str | None,
    state_dir: str | None,
    as_json: bool,
) -> None:
    """Show what sessions say, in and out, as they say it, until Control-C.

    What is said for AUTH, and what is in messages, is taken out. Of a filter by ADDRESS the session
    is shown from its beginning as soon as it names that address.
    """
    said = {
        "client": network,
        "next_hop": next_hop,
        "sender": sender,
        "recipient": recipient,
        "direction": direction,
    }
    query = urlencode({name: value for name, value in said.items() if value is not None})
    lines = client(state_dir).lines("/v1/trace" + (f"?{query}" if query else ""))
    with suppress(KeyboardInterrupt):
        begun = asked(lambda: next(lines, None))
        if as_json:
            click.echo(json.dumps(begun))
        else:
            same_version(begun)
            click.echo("Control-C ends it.", err=True)
        while (event := asked(lambda: next(lines, None))) is not None:
            click.echo(json.dumps(event) if as_json else shown(event))
            sys.stdout.flush()


def shown(event: Mapping[str, Any]) -> str:
    """Return a line for people; printable, in colour (`click.echo` takes that out for a pipe)."""
    lost = event.get("lost")
    if lost is not None:
        return click.style(f"... {lost} lines are lost: this reader is too slow", fg="red")
    time = datetime.fromtimestamp(event["at"]).strftime("%H:%M:%S.%f")[:-3]
    arrow = "<-" if event["direction"] == "in" else "->"
    who = event["who"]
    sign = {"client": "C: ", "server": "S: "}.get(who, "* ")
    start = printable(f"{time} {event['session']} {arrow} {event['peer']} ")
    text = printable(f"{sign}{event['text']}")
    colours = {"client": None, "server": "cyan", "note": "yellow"}
    return click.style(start, dim=True) + click.style(text, fg=colours.get(who))
