"""What the tool's commands share: which MTA they ask, how they end, and how they print.

Everything that came over the socket goes through `printable`: peers have chosen some of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import IO, Any, TypeAlias, TypeVar

import click

from ..admin.control.client import ControlClient, NotRunning, Refused
from ..admin.status import VERSION
from ..mail.printable import printable
from ..system.ownership import name_of

_HERE = "mta-state"  # the state directory, where nothing names another

REFUSED = 1
NOT_RUNNING = 3

_Answer = TypeVar("_Answer")

Table: TypeAlias = tuple[str, Sequence[str], list[Sequence[str]]]
"""Title, columns, rows."""

state_dir_option: Callable[[Any], Any] = click.option(
    "--state-dir",
    metavar="DIR",
    help="which MTA: its state directory  [default: $STATE_DIRECTORY, else ./mta-state]",
)
json_option: Callable[[Any], Any] = click.option(
    "--json", "as_json", is_flag=True, help="write JSON, for programs"
)


def client(state_dir: str | None, *, timeout: float = 30.0) -> ControlClient:
    """Return a client for the MTA that an option names, or the environment, or this directory.

    Args:
        state_dir: what the option says.
        timeout: seconds that any one step of an answer may take.
    """
    if state_dir is None:
        # It may stand before the command as well.
        state_dir = click.get_current_context().find_root().params.get("state_dir")
    named = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]  # systemd separates by colons
    if not state_dir and not named and os.geteuid() == 0:
        _require_roots(_HERE)
    return ControlClient(state_dir or named or _HERE, timeout=timeout)


def _require_roots(directory: str) -> None:
    """End the program as root where it would ask whoever has a directory here, unnamed."""
    try:
        owner = os.stat(directory).st_uid
    except OSError:
        return  # that nothing is there is said by who asks it
    if owner != 0:
        click.echo(
            f"twisted-mta: ./{directory} is of user {printable(name_of(owner))}, and this is run"
            " by root; --state-dir says that it is meant",
            err=True,
        )
        raise click.exceptions.Exit(REFUSED)


def asked(ask: Callable[[], _Answer]) -> _Answer:
    """Return what ``ask`` does, or end the program with the status that its failure has."""
    try:
        return ask()
    except NotRunning as error:
        click.echo(f"twisted-mta: {error}", err=True)
        raise click.exceptions.Exit(NOT_RUNNING) from None
    except Refused as error:
        click.echo(f"twisted-mta: {error}", err=True)
        raise click.exceptions.Exit(REFUSED) from None


def same_version(found: Any) -> None:
    """End the program if an answer is of another version than this program reads."""
    if not isinstance(found, dict) or found.get("version") != VERSION:
        click.echo(
            "twisted-mta: that MTA is of another version; --json shows what it says", err=True
        )
        raise click.exceptions.Exit(REFUSED)


def lines(facts: Iterable[tuple[str, str]], tables: Iterable[Table]) -> Iterator[str]:
    """Yield what a pipe gets: a line for each fact, and tables whose cells are parted by tabs."""
    for name, fact in facts:
        yield f"{name}: {fact}"
    for title, columns, rows in tables:
        if rows:
            yield ""
            yield f"{title}:"
            yield "\t".join(columns)
            yield from map("\t".join, rows)


def show(
    facts: Iterable[tuple[str, str]],
    tables: Iterable[Table],
    *,
    file: IO[str] | None = None,
    width: int | None = None,
) -> None:
    """Show it on a terminal (``file``, None: standard output), as wide as that is."""
    from rich import box  # here: nothing else of the tool needs it, and it takes its time
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

    def texts(cells: Iterable[str]) -> Iterator[Text]:
        # Text is shown as it is: in a str, what a peer wrote in brackets would be markup.
        return (Text(cell, style=_STYLES.get(cell, "")) for cell in cells)

    console = Console(file=file, width=width, highlight=False)
    shown = Drawn(box=None, show_header=False, pad_edge=False)
    for name, fact in facts:
        shown.add_row(Text(name, style="dim"), *texts((fact,)))
    if shown.row_count:
        console.print(shown)
    for title, columns, rows in tables:
        if rows:
            table = Drawn(title=title or None, title_justify="left", box=box.SIMPLE, pad_edge=False)
            for column in columns:
                table.add_column(column, overflow="fold", no_wrap=column in _WHOLE)
            for row in rows:
                table.add_row(*texts(row))
            console.print(table)


_WHOLE = ("Received", "State", "Id", "TLS first had", "Last had", "Missing since")
_STYLES = {
    "ready": "green",
    "delivered": "green",
    "failed": "red",
    "not answering": "bold red",
    "starting": "yellow",
    "draining": "yellow",
    "deferred": "yellow",
    "held": "cyan",
    "quarantined": "red",
}


def moment(time: float) -> str:
    """Return a wall time as people write it, in UTC."""
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M:%S}"
