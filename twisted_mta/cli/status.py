"""The commands of the operator's tool that ask a running MTA, by its control socket."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Any

import click

from ..admin.status import label, short_duration
from ..mail.address import AddressError, domain_name
from ..mail.printable import printable
from .terminal import (
    Table,
    asked,
    client,
    json_option,
    lines,
    moment,
    same_version,
    show,
    state_dir_option,
)

_PATIENCE = 600.0  # seconds for an action: a reload is done by one worker after the other
_FEW = 10  # messages that a terminal shows: all 50 would push the rest out of sight


@click.command()
@state_dir_option
@json_option
def status(state_dir: str | None, as_json: bool) -> None:
    """Say how a running MTA stands.

    Exits with 0 when it could be told, with 1 when it was refused, with 3 when nothing is running.
    """
    found = asked(lambda: client(state_dir).get("/v1/status"))
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    same_version(found)
    if sys.stdout.isatty():
        show(_facts(found), _tables(found, brief=True))
    else:
        for line in lines(_facts(found), _tables(found, brief=False)):
            click.echo(line)


def _action(name: str, text: str) -> click.Command:
    def act(state_dir: str | None) -> None:
        done = asked(lambda: client(state_dir, timeout=_PATIENCE).post(f"/v1/{name}"))
        for line in done.get("lines") or ["done"]:
            click.echo(printable(str(line)))

    act.__doc__ = text
    return click.command(name)(state_dir_option(act))


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
@state_dir_option
@json_option
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
    same_version(found)
    rows = [_host(each) for each in found["hosts"]]
    if not sys.stdout.isatty():
        for row in (_TLS_COLUMNS, *rows):
            click.echo("\t".join(row))
    elif rows:
        show([], [("", _TLS_COLUMNS, rows)])
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
    said = ("" if time is None else moment(time) for time in times)
    return printable(str(entry["host"])), str(entry["port"]), *said


# What is said: facts, and tables.


def _facts(status: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "host", printable(str(status["hostname"]))
    yield "version", printable(str(status["program"]))
    unready = printable(str(status["unready"]))
    state = str(status["state"])
    if unready:
        state = f"not ready: {unready}" if state == "ready" else f"{state}, not ready: {unready}"
    yield "state", state
    for trouble in status.get("troubles", ()):  # one of an earlier build does not say it
        if trouble["text"] not in status["unready"]:
            yield "trouble", printable(str(trouble["text"]))
    for line in status.get("incomplete", ()):
        yield "incomplete", printable(str(line))
    yield "up for", short_duration(status["now"] - status["started_at"])
    shown = [("queue", status["queue"])]
    for title, name in (("by age", "ages"), ("deferred by reason", "reasons")):
        # One of an earlier build does not say it, and nothing but zeros is not worth a line.
        numbers = {word: count for word, count in status.get(name, {}).items() if count}
        if numbers:
            shown.append((title, numbers))
    for title, numbers in (*shown, ("since the start", status["counters"])):
        words = ", ".join(f"{number} {printable(label(name))}" for name, number in numbers.items())
        yield title, words or "nothing"
    yield "deliveries under way", str(status["deliveries"])


def _tables(status: Mapping[str, Any], *, brief: bool) -> Iterator[Table]:
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
    return printable(str(hop["next_hop"])), short_duration(hop["seconds"]), str(hop["times"]), last


def _message(message: Mapping[str, Any], named: int) -> Sequence[str]:
    reverse_path = message["reverse_path"]
    to = ", ".join(message["recipients"][:named])
    more = message["more"] + len(message["recipients"][named:])
    return tuple(
        printable(str(cell))
        for cell in (
            moment(message["received_at"]),
            "<>" if reverse_path is None else reverse_path,
            f"{to} and {more} more" if more else to,
            message["size"],
            message["state"],
            message["last"],
            message["id"],
        )
    )
