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

from ..admin.status import moment
from ..mail.counted import counted
from ..mail.printable import printable
from .client import answer_or_exit, client, require_version, state_dir_option
from .terminal import wrapped


@click.command()
@click.option("--client", "network", metavar="NET", help="only clients there, as 192.0.2.0/24")
@click.option("--next-hop", metavar="HOST", help="only servers there, as mx.example.net:25")
@click.option("--sender", metavar="ADDRESS", help="only mail with that reverse-path; or @DOMAIN")
@click.option("--recipient", metavar="ADDRESS", help="only mail to that address; or @DOMAIN")
@click.option("--in", "direction", flag_value="in", help="only sessions of clients with us")
@click.option("--out", "direction", flag_value="out", help="only our sessions with servers")
@click.option("--recent", is_flag=True, help="list the last sessions that have ended, and end")
@click.option("--refused", is_flag=True, help="with --recent: only those with a refusal")
@state_dir_option
@click.option("--json", "as_json", is_flag=True, help="write each line as JSON, for programs")
def trace(
    network: str | None,
    next_hop: str | None,
    sender: str | None,
    recipient: str | None,
    direction: str | None,
    recent: bool,
    refused: bool,
    state_dir: str | None,
    as_json: bool,
) -> None:
    """Show the dialogue of sessions, live, until Control-C.

    Credentials and the content of messages are left out. With --sender or --recipient, a session is
    shown from its beginning once it names the address.

    --recent lists the last sessions that have ended instead, with the last refusals of each;
    --client may then also be a part of the name that clients gave, or of their account, and
    --next-hop a network, or a part of the name of servers.

    Exit status: 0 done, 1 refused, 3 no MTA is running.
    """
    if refused and not recent:
        raise click.UsageError("--refused is for --recent")
    if recent:
        if sender or recipient:
            raise click.UsageError("--recent takes no --sender and no --recipient")
        if network and (next_hop or direction == "out"):
            raise click.UsageError("--client is of sessions of clients, which are --in")
        if next_hop and direction == "in":
            raise click.UsageError("--next-hop is of sessions with servers, which are --out")
        if network or next_hop:
            direction = "in" if network else "out"
        _list_recent(state_dir, network or next_hop, direction, refused, as_json)
        return
    filters = {
        "client": network,
        "next_hop": next_hop,
        "sender": sender,
        "recipient": recipient,
        "direction": direction,
    }
    query = urlencode({name: value for name, value in filters.items() if value is not None})
    events = client(state_dir).lines("/v1/trace" + (f"?{query}" if query else ""))
    with suppress(KeyboardInterrupt):
        beginning = answer_or_exit(lambda: next(events, None))
        if as_json:
            click.echo(json.dumps(beginning))
        else:
            require_version(beginning)
            click.echo("Control-C ends it.", err=True)
        while (event := answer_or_exit(lambda: next(events, None))) is not None:
            click.echo(json.dumps(event) if as_json else event_text(event))
            sys.stdout.flush()


_COLUMNS = (
    *("Began", "Seconds", "Direction", "With", "Name", "Account", "Kind", "TLS", "Certificate"),
    *("Taken", "Refused", "End", "Last refusals"),
)


def _list_recent(
    state_dir: str | None, peer: str | None, direction: str | None, refused: bool, as_json: bool
) -> None:
    wanted = {"peer": peer or "", "refused": "true" if refused else "false", "limit": "200"}
    if direction is not None:
        wanted["direction"] = direction
    path = f"/v1/sessions?{urlencode(wanted)}"
    answer = answer_or_exit(lambda: client(state_dir).get(path))
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    require_version(answer)
    click.echo("\t".join(_COLUMNS))
    for each in answer["sessions"]:
        cells = (
            *(moment(each["began"]), f"{each['seconds']:.1f}", each["direction"], each["peer"]),
            *(each["helo"] or each["host"], each["account"] or "", each["kind"]),
            *(each["tls"] or "none", each["verdict"], each["accepted"], each["refused"]),
            *(each["end"], " | ".join(each["replies"])),
        )
        click.echo("\t".join(printable(str(cell)) for cell in cells))


_SIGNS = {"client": "C: ", "server": "S: "}
_COLORS = {"client": None, "server": "cyan", "note": "yellow"}


def event_text(event: Mapping[str, Any]) -> str:
    """Return an event as a printable line, in colors, which `click.echo` drops for a pipe."""
    lost = event.get("lost")
    if lost is not None:
        return click.style(f"... {counted(lost, 'line')} lost: this reader is too slow", fg="red")
    time = datetime.fromtimestamp(event["at"]).strftime("%H:%M:%S.%f")[:-3]
    arrow = "<-" if event["direction"] == "in" else "->"
    speaker = event["who"]
    start = printable(f"{time} {event['session']} {arrow} {event['peer']} ")
    first, *rest = wrapped(start + printable(f"{_SIGNS.get(speaker, '* ')}{event['text']}"))
    text = "\n".join((first[len(start) :], *rest))
    return click.style(first[: len(start)], dim=True) + click.style(text, fg=_COLORS.get(speaker))
