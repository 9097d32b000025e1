"""``twisted-mta suppression``: the addresses that get no mail of our users, since they bounce."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

import click

from ..admin.control.client import ControlClient
from ..admin.status import moment
from ..mail.printable import printable
from .client import answer_or_exit, client, json_option, require_version, state_dir_option

_PATH = "/v1/suppression"
_PAGE = 1_000
_COLUMNS = ("Address", "Since", "Until", "Bounces", "Reply")


@click.group()
def suppression() -> None:
    """Show and change the list of addresses that bounce."""


@suppression.command("list")
@state_dir_option
@json_option
def list_command(state_dir: str | None, as_json: bool) -> None:
    """List the addresses, in their order.

    Exit status: 0 done, 1 refused, 3 no MTA is running.
    """
    entries = list(_entries(client(state_dir)))
    if as_json:
        click.echo(json.dumps({"version": 1, "entries": entries}, indent=2))
        return
    click.echo("\t".join(_COLUMNS))
    for each in entries:
        until = "removed" if each["until"] is None else moment(each["until"])
        cells = (each["address"], moment(each["since"]), until, each["bounces"], each["reply"])
        click.echo("\t".join(printable(str(cell)) for cell in cells))


@suppression.command()
@click.argument("address")
@click.option("--reason", default="", metavar="TEXT", help="is shown to senders, and in the list")
@state_dir_option
@json_option
def add(address: str, reason: str, state_dir: str | None, as_json: bool) -> None:
    """Put ADDRESS on the list, until it is removed.

    Exit status: 0 done, 1 refused, 3 no MTA is running.
    """
    _change("add", state_dir, as_json, address=address, reason=reason)


@suppression.command()
@click.argument("address")
@state_dir_option
@json_option
def remove(address: str, state_dir: str | None, as_json: bool) -> None:
    """Take ADDRESS off the list, and forget its bounces.

    Exit status: 0 done, 1 not found or refused, 3 no MTA is running.
    """
    _change("remove", state_dir, as_json, address=address)


def _change(action: str, state_dir: str | None, as_json: bool, **parameters: str) -> None:
    path = f"{_PATH}/{action}?{urlencode(parameters)}"
    answer = answer_or_exit(lambda: client(state_dir).post(path))
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    require_version(answer)
    done = "Suppressed" if action == "add" else "Removed"
    click.echo(f"{done}: {printable(answer['address'])}")


def _entries(asker: ControlClient) -> Iterator[Mapping[str, Any]]:
    after = ""
    while True:
        query = urlencode({"after": after, "limit": _PAGE})
        answer = answer_or_exit(lambda query=query: asker.get(f"{_PATH}?{query}"))  # type: ignore[misc]
        require_version(answer)
        yield from answer["entries"]
        if len(answer["entries"]) < _PAGE:
            return
        after = answer["entries"][-1]["address"]
