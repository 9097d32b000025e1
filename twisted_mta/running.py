"""The commands of the operator's tool that ask a running MTA, by its control socket."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import IO, Any, TypeAlias, TypeVar

import click

from .control import ControlClient, NotRunning, Refused
from .report import VERSION, label
from .smtp.address import AddressError, domain_name
from .smtp.reply import printable

REFUSED = 1
NOT_RUNNING = 3

_FEW = 10  # messages that a terminal shows: all 50 would push the rest out of sight

_Answer = TypeVar("_Answer")
_Table: TypeAlias = tuple[str, Sequence[str], list[Sequence[str]]]  # title, columns, rows

_STATE_DIR: Callable[[Any], Any] = click.option(
    "--state-dir",
    metavar="DIR",
    help="which MTA: its state directory  [default: $STATE_DIRECTORY, else ./mta-state]",
)


def client(state_dir: str | None) -> ControlClient:
    """Return a client for the MTA that an option names, or the environment, or this directory."""
    named = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]  # systemd separates by colons
    return ControlClient(state_dir or named or "mta-state")


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


@click.command()
@_STATE_DIR
@click.option("--json", "as_json", is_flag=True, help="write JSON, for programs")
def status(state_dir: str | None, as_json: bool) -> None:
    """Say how a running MTA stands.

    Exits with 0 when it could be told, with 1 when it was refused, with 3 when nothing is running.
    """
    found = asked(lambda: client(state_dir).get("/v1/status"))
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    _same_version(found)
    if sys.stdout.isatty():
        _show(_facts(found), _tables(found, brief=True))
    else:
        for line in _lines(found):
            click.echo(line)


def _same_version(found: Any) -> None:
    if not isinstance(found, dict) or found.get("version") != VERSION:
        click.echo(
            "twisted-mta: that MTA is of another version; --json shows what it says", err=True
        )
        raise click.exceptions.Exit(REFUSED)


def _action(name: str, text: str) -> click.Command:
    def act(state_dir: str | None) -> None:
        done = asked(lambda: client(state_dir).post(f"/v1/{name}"))
        for line in done.get("lines") or ["done"]:
            click.echo(printable(str(line)))

    act.__doc__ = text
    return click.command(name)(_STATE_DIR(act))


reload = _action(
    "reload",
    """Read the configuration again, all of it or nothing.

    Certificates, accounts, aliases, routes and what else can change while it runs. The same as
    SIGHUP. Exits with 0 when all was read, with 1 when something was refused and everything stays
    as it was, with 3 when nothing is running.
    """,
)
reopen_logs = _action(
    "reopen-logs",
    """Close and open the log files, after they were moved away.

    The same as SIGUSR1.
    """,
)


@click.command()
@click.argument("domain", required=False)
@_STATE_DIR
@click.option("--json", "as_json", is_flag=True, help="write JSON, for programs")
@click.option("--probe", is_flag=True, help="ask the mail exchangers of DOMAIN (not built yet)")
def tls(domain: str | None, state_dir: str | None, as_json: bool, probe: bool) -> None:
    """Say with which hosts TLS was had, and where it is missing now.

    With DOMAIN only that host, or the hosts below that domain. Hosts are mail exchangers or what
    routes name, and not the domains that mail is addressed to. Exits with 0 when it could be told,
    with 1 when it was refused, with 3 when nothing is running.
    """
    if probe:
        raise click.UsageError("--probe is not built yet")
    path = "/v1/tls" if domain is None else f"/v1/tls/{_host_name(domain)}"
    found = asked(lambda: client(state_dir).get(path))
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    _same_version(found)
    rows = [_host(each) for each in found["hosts"]]
    if not sys.stdout.isatty():
        for row in (_TLS_COLUMNS, *rows):
            click.echo("\t".join(row))
    elif rows:
        _show([], [("", _TLS_COLUMNS, rows)])
    else:
        click.echo("TLS is not remembered to have been had with any such host.")


_TLS_COLUMNS = ("Host", "Port", "TLS first had", "Last had", "Missing since")


def _host_name(text: str) -> str:
    """Return the canonical form of a domain, with A-labels, or of an address."""
    with suppress(ValueError):
        return str(ip_address(text))
    try:
        return domain_name(text.removeprefix("."))
    except AddressError as error:
        raise click.BadParameter(printable(f"{text}: {error}")) from None


def _host(entry: Mapping[str, Any]) -> Sequence[str]:
    times = (entry["first"], entry["last"], entry["missing"])
    said = ("" if time is None else _moment(time) for time in times)
    return printable(str(entry["host"])), str(entry["port"]), *said


COMMANDS: tuple[click.Command, ...] = (status, tls, reload, reopen_logs)
"""What the tool's group adds."""


# What is said, in three parts: lines, numbers, tables. Everything that came over the socket goes
# through `printable`: peers have chosen some of it.


def _facts(status: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "host", printable(str(status["hostname"]))
    yield "version", printable(str(status["program"]))
    unready = printable(str(status["unready"]))
    yield "state", f"{status['state']}, not ready: {unready}" if unready else str(status["state"])
    yield "up for", _span(status["now"] - status["started_at"])
    for title, numbers in (("queue", status["queue"]), ("since the start", status["counters"])):
        words = ", ".join(f"{number} {printable(label(name))}" for name, number in numbers.items())
        yield title, words or "nothing"
    yield "deliveries under way", str(status["deliveries"])


def _tables(status: Mapping[str, Any], *, brief: bool) -> Iterator[_Table]:
    """Yield tables, all printable; ``brief`` leaves out what is many."""
    columns: Sequence[str]
    connections = status["connections"]
    names = dict.fromkeys((*status["listeners"], *connections))
    listeners: list[Sequence[str]] = []
    for name in names:
        each = connections.get(name)
        numbers = ("", "") if each is None else (str(each["open"]), str(each["taken"]))
        listeners.append((printable(name), *numbers))
    yield "Listeners", ("Listener", "Open", "Taken"), listeners
    processes = status["processes"]
    if len(processes) > 1:
        columns = ("Worker", "Process", "State", "Restarts", "Open", "Taken", "Accepted")
        yield "Workers", columns, [_process(process) for process in processes]
    columns = ("Next hop", "Tried again in", "Failures in a row", "Last answer")
    hops = status.get("suspended", ())  # one of an earlier build does not say it
    yield "Next hops that cannot be reached", columns, [_suspended(each) for each in hops]
    columns = ("Received", "From", "To", "Size", "State", "Last answer", "Id")
    messages = status["recent"][:_FEW] if brief else status["recent"]
    yield (
        "Recent messages",
        columns,
        [_message(message, 1 if brief else len(message["recipients"])) for message in messages],
    )


def _process(process: Mapping[str, Any]) -> Sequence[str]:
    state = process["state"] if process["queue_open"] else f"{process['state']}, queue closed"
    return tuple(
        printable(str(cell))
        for cell in (
            "" if process["number"] is None else process["number"],
            process["pid"],
            state,
            process["restarts"],
            process["connections"]["open"],
            process["connections"]["taken"],
            process["accepted"],
        )
    )


def _suspended(hop: Mapping[str, Any]) -> Sequence[str]:
    last = printable(str(hop["last"]))
    return printable(str(hop["next_hop"])), _span(hop["seconds"]), str(hop["times"]), last


def _message(message: Mapping[str, Any], named: int) -> Sequence[str]:
    reverse_path = message["reverse_path"]
    to = ", ".join(message["recipients"][:named])
    more = message["more"] + len(message["recipients"][named:])
    return tuple(
        printable(str(cell))
        for cell in (
            _moment(message["received_at"]),
            "<>" if reverse_path is None else reverse_path,
            f"{to} and {more} more" if more else to,
            message["size"],
            message["state"],
            message["last"],
            message["id"],
        )
    )


def _lines(status: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a pipe gets: a line for each fact, and tables whose cells are parted by tabs."""
    for name, fact in _facts(status):
        yield f"{name}: {fact}"
    for title, columns, rows in _tables(status, brief=False):
        if rows:
            yield ""
            yield f"{title}:"
            yield "\t".join(columns)
            yield from map("\t".join, rows)


def _show(
    facts: Iterable[tuple[str, str]],
    tables: Iterable[_Table],
    *,
    file: IO[str] | None = None,
    width: int | None = None,
) -> None:
    """Show it on a terminal (``file``, None: standard output), as wide as that is."""
    from rich import box  # here: nothing else of the tool needs it, and it takes its time
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def texts(cells: Iterable[str]) -> Iterator[Text]:
        # Text is shown as it is: in a str, what a peer wrote in brackets would be markup.
        return (Text(cell, style=_STYLES.get(cell, "")) for cell in cells)

    console = Console(file=file, width=width, highlight=False)
    shown = Table(box=None, show_header=False, pad_edge=False)
    for name, fact in facts:
        shown.add_row(Text(name, style="dim"), *texts((fact,)))
    if shown.row_count:
        console.print(shown)
    for title, columns, rows in tables:
        if rows:
            table = Table(title=title or None, title_justify="left", box=box.SIMPLE, pad_edge=False)
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
}


def _moment(time: float) -> str:
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M:%S}"


def _span(seconds: float) -> str:
    minutes, hours, days = (max(0, int(seconds)) // unit for unit in (60, 3600, 86400))
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{max(0, int(seconds))} s"
