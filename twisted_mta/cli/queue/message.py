"""``twisted-mta queue show``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import click

from ...admin.status import moment
from ...mail.printable import printable
from ..client import (
    Reader,
    answer_or_exit,
    json_option,
    reader,
    require_version,
    state_dir_option,
)
from ..terminal import Table, lines, show
from .listing import classified, last_reply, next_attempt, sender, state
from .selection import PATH, offered_ids, queue_ids
from .suspending import note


@click.command("show")
@click.argument(
    "id",
    callback=lambda context, option, text: queue_ids(context, option, (text,))[0],
    shell_complete=offered_ids,
)
@click.option("--body", is_flag=True, help="write only the stored content, octet by octet")
@state_dir_option
@json_option
def show_command(id: str, body: bool, state_dir: str | None, as_json: bool) -> None:
    """Show one message in full.

    That is its envelope, recipients, attempts and header section. The content that --body writes
    begins with the fields that this MTA has added.

    Exit status: 0 done, 1 not found or refused, 3 no MTA is running
    and there is no queue. Without a running MTA the queue itself is read.
    """
    asker = reader(state_dir)
    if body:
        if as_json:
            raise click.UsageError("--body writes the content, and never JSON")
        answer_or_exit(lambda: _write_body(asker, id))
        return
    answer = answer_or_exit(lambda: asker.get(f"{PATH}/{quote(id)}"))
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    require_version(answer)
    message = answer["message"]
    facts, tables = list(_facts(message)), list(_tables(message))
    if sys.stdout.isatty():
        show(facts, tables)
    else:
        for line in lines(facts, tables):
            click.echo(line)


def _write_body(asker: Reader, id: str) -> None:
    output = sys.stdout.buffer
    for piece in asker.content(f"{PATH}/{quote(id)}/body"):
        output.write(piece)
    output.flush()


def _facts(message: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "id", printable(str(message["id"]))
    yield "from", printable(sender(message))
    if message["parameters"]:
        yield "parameters", printable(_parameters(message["parameters"]))
    by = f" by {message['machine']}" if message.get("machine") else ""
    yield "received", printable(f"{moment(message['received_at'])}{by}")
    yield "expires", moment(message["expires_at"])
    yield "size", f"{message['size']} octets"
    if message["quarantine"]:
        yield "quarantined", printable(str(message["quarantine"]))
    assessment = message.get("assessment") or {}  # an MTA of 0.1 has none
    if assessment.get("quarantine"):
        yield "junk", printable(str(assessment["quarantine"]))
    if assessment.get("hold"):
        yield "held", printable(str(assessment["hold"]))
    if assessment.get("signs"):
        yield "signed", "at delivery, if there is a key for the domain of From"
    for recipient in message["recipients"]:
        if recipient.get("leased_to"):
            yield "leased", printable(f"{recipient['address']}: {recipient['leased_to']}")
    suspended = (recipient.get("suspended") for recipient in message["recipients"])
    for line in dict.fromkeys(note(each) for each in suspended if each):
        yield "suspended", line


def _parameters(parameters: Mapping[str, Any]) -> str:
    return " ".join(
        name if value is None else f"{name}={value}" for name, value in parameters.items()
    )


def _tables(message: Mapping[str, Any]) -> Iterator[Table]:
    rows: list[Sequence[str]] = []
    for recipient in message["recipients"]:
        to = str(recipient["address"])
        if recipient["original"]:
            to = f"{to} (sent to {recipient['original']})"
        cells = (
            to,
            state(recipient),
            str(recipient["attempts"]),
            next_attempt(recipient),
            last_reply(recipient),
            _parameters(recipient["parameters"]),
        )
        rows.append(tuple(map(printable, cells)))
    yield "Recipients", ("To", "State", "Attempts", "Next attempt", "Last", "Parameters"), rows
    yield (
        "Verdicts",
        ("Policy", "Result", "About"),
        [
            tuple(printable(str(each[name])) for name in ("policy", "result", "text"))
            for each in (message.get("assessment") or {}).get("verdicts", ())
        ],
    )
    machines = any(each.get("machine") for each in message["attempts"])
    addresses = {each["number"]: each["address"] for each in message["recipients"]}
    yield (
        "Attempts",
        ("To", "Attempt", "Ended", "Next hop", "Reply", "TLS", *(("Machine",) if machines else ())),
        [_attempt(attempt, addresses, machines) for attempt in message["attempts"]],
    )
    # Recipients of one transaction share its transcript.
    transcripts = {
        attempt["transcript"]: attempt
        for attempt in message["attempts"]
        if attempt.get("transcript")
    }
    for transcript, attempt in transcripts.items():
        yield (
            f"Transcript of attempt {attempt['attempt']}, {moment(attempt['ended_at'])}",
            (printable(str(attempt["next_hop"])),),
            [(printable(line),) for line in transcript.splitlines()],
        )
    yield (
        "Header section" + (" (its beginning)" if message.get("header_truncated") else ""),
        ("Field", "Value"),
        [(printable(name), printable(value)) for name, value in message.get("header") or ()],
    )


def _attempt(
    attempt: Mapping[str, Any], addresses: Mapping[int, str], machines: bool
) -> Sequence[str]:
    remote = f"{attempt['remote']}: " if attempt["remote"] else ""
    return tuple(
        printable(str(cell))
        for cell in (
            addresses.get(attempt["recipient"], attempt["recipient"]),
            attempt["attempt"],
            moment(attempt["ended_at"]),
            attempt["next_hop"],
            f"{remote}{attempt['reply']}{classified(attempt)}",
            attempt["tls"] or "",
            *((attempt["machine"],) if machines else ()),
        )
    )
