"""``twisted-mta webhooks``: the URLs that are told of events."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import click

from ..admin.status import moment, short_duration
from ..auth.private_file import locked, replace
from ..config import ConfigError
from ..mail.printable import printable
from ..system.real_world import secret_octets
from ..webhooks.signature import LENGTH, written
from .client import (
    REFUSED,
    answer_or_exit,
    client,
    failure,
    json_option,
    require_version,
    state_dir_option,
)

_PATH = "/v1/webhooks"
_PATIENCE = 70.0  # seconds: a receiver may have a minute
COLUMNS = ("URL", "State", "Waiting", "Posted", "Last success", "Failing for", "Last failure")


@click.group()
def webhooks() -> None:
    """Show the webhooks, test them, and make their secrets."""


@webhooks.command("list")
@state_dir_option
@json_option
def list_command(state_dir: str | None, as_json: bool) -> None:
    """List the webhooks, and how many events wait for each.

    Exit status: 0 done, 1 refused, 3 no MTA is running.
    """
    asked = client(state_dir)
    answer = answer_or_exit(lambda: asked.get(_PATH))
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    require_version(answer)
    now = answer_or_exit(lambda: asked.get("/v1/status"))["now"]
    click.echo("\t".join(COLUMNS))
    for each in answer["webhooks"]:
        click.echo("\t".join(row(each, now)))


def row(webhook: Mapping[str, Any], now: float) -> Sequence[str]:
    """Return the cells of `COLUMNS`, printable."""
    since, last = webhook["failing_since"], webhook["last_success"]
    return tuple(
        printable(str(cell))
        for cell in (
            webhook["url"],
            webhook["state"],
            webhook["waiting"],
            webhook["posted"],
            "" if last is None else moment(last),
            "" if since is None else short_duration(now - since),
            webhook["error"],
        )
    )


@webhooks.command()
@click.argument("url", required=False)
@state_dir_option
@json_option
def test(url: str | None, state_dir: str | None, as_json: bool) -> None:
    """Post a test event to URL, one of the settings; without it, to all.

    It is posted once, with a signature like all others; its type is "test".

    Exit status: 0 taken, 1 not taken or refused, 3 no MTA is running.
    """
    query = "" if url is None else f"?{urlencode({'url': url})}"
    asked = client(state_dir, timeout=_PATIENCE)
    answer = answer_or_exit(lambda: asked.post(f"{_PATH}/test{query}"))
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        require_version(answer)
        for each in answer["results"]:
            said = f"not taken: {each['problem']}" if each["problem"] else "taken"
            click.echo(f"{printable(each['url'])}: {printable(said)}")
    if any(each["problem"] for each in answer["results"]):
        raise click.exceptions.Exit(REFUSED)


@webhooks.command()
@click.argument("file")
def secret(file: str) -> None:
    """Add a new secret to FILE, which is made with mode 0600, and print it for the receiver.

    With several secrets each signs. To replace one: add another, run twisted-mta reload, give it to
    the receiver, remove the line of the old one, and reload again.

    Exit status: 0 done, 1 the file cannot be written.
    """
    new = written(secret_octets(LENGTH))
    try:
        with locked(file, ConfigError) as (descriptor, status):
            before = os.read(descriptor, status.st_size).decode("utf-8")
            separator = "\n" if before and not before.endswith("\n") else ""
            replace(file, f"{before}{separator}{new}\n", status)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise failure(f"{file}: {reason}; expected a file of secrets, or none", REFUSED) from None
    click.echo(new)
