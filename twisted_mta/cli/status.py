"""``twisted-mta status``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from ..admin.status import label, moment, short_duration
from ..mail.printable import printable
from .client import answer_or_exit, client, json_option, require_version, state_dir_option
from .terminal import Table, lines, show

_TERMINAL_MESSAGES = 10  # recent messages on a terminal: 50 would push the rest out of sight


@click.command()
@state_dir_option
@json_option
def status(state_dir: str | None, as_json: bool) -> None:
    """Show the state of a running MTA.

    Exit status: 0 done, 1 refused, 3 no MTA is running.
    """
    answer = answer_or_exit(lambda: client(state_dir).get("/v1/status"))
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    require_version(answer)
    if sys.stdout.isatty():
        show(facts(answer), tables(answer, brief=True))
    else:
        for line in lines(facts(answer), tables(answer, brief=False)):
            click.echo(line)


def facts(status: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield names with printable texts."""
    yield "host", printable(str(status["hostname"]))
    yield "version", printable(str(status["program"]))
    unready = printable(str(status["unready"]))
    state = str(status["state"])
    if unready:
        state = f"not ready: {unready}" if state == "ready" else f"{state}, not ready: {unready}"
    yield "state", state
    for trouble in status.get("troubles", ()):  # missing in answers of earlier builds
        if trouble["text"] not in status["unready"] or trouble.get("remedy"):
            yield "trouble", _trouble(trouble)
    for line in status.get("incomplete", ()):
        yield "incomplete", printable(str(line))
    yield "up for", short_duration(status["now"] - status["started_at"])
    groups = [("queue", status["queue"])]
    for title, name in (
        ("by age", "ages"),
        ("deferred by reason", "reasons"),
        ("mail of this machine", "local_submission"),
    ):
        # Missing in answers of earlier builds; a line of zeros is left out.
        numbers = {word: count for word, count in status.get(name, {}).items() if count}
        if numbers:
            groups.append((title, numbers))
    for title, numbers in (*groups, ("since the start", status["counters"])):
        words = ", ".join(f"{number} {printable(label(name))}" for name, number in numbers.items())
        yield title, words or "nothing"
    yield "deliveries under way", str(status["deliveries"])
    cluster = status.get("cluster")
    if cluster is not None:
        yield "limits of all machines", printable(str(cluster["limits"]))


def _trouble(trouble: Mapping[str, Any]) -> str:
    """Return a trouble in one line; earlier builds told the text alone."""
    text = printable(str(trouble["text"]))
    if "severity" not in trouble:
        return text
    lasts = ""
    if trouble["since"] is not None:
        lasts = f", for {short_duration(trouble['seconds'])}"
    return f"{trouble['severity']}{lasts}: {text}. {printable(str(trouble['remedy']))}".rstrip(". ")


def tables(status: Mapping[str, Any], *, brief: bool) -> Iterator[Table]:
    """Yield tables with printable cells; ``brief``: fewer messages and recipients."""
    columns: Sequence[str]
    connections = status["connections"]
    listeners: list[Sequence[str]] = []
    for name in dict.fromkeys((*status["listeners"], *connections)):
        counts = connections.get(name)
        cells = ("", "") if counts is None else (str(counts["open"]), str(counts["taken"]))
        listeners.append((printable(name), *cells))
    yield "Listeners", ("Listener", "Open", "Accepted"), listeners
    processes = status["processes"]
    if len(processes) > 1:
        columns = ("Worker", "Process", "State", "Restarts", "Open", "Accepted", "Messages")
        yield "Workers", columns, [_process(process) for process in processes]
    cluster = status.get("cluster")
    if cluster is not None:
        columns = ("Machine", "Id", "State", "Up for", "Program", "Workers", "In delivery")
        rows = [_machine(each, cluster, status["now"]) for each in cluster["machines"]]
        yield "Machines", columns, rows
    columns = ("Next hop", "Next probe in", "Failures in a row", "Last reply")
    hops = status.get("suspended", ())  # missing in answers of earlier builds
    yield "Suspended next hops", columns, [_suspended(hop) for hop in hops]
    columns = ("Destination", "Since", "Until", "Waiting", "Reason")
    by_operator = status.get("suspended_by_operator", ())  # missing in answers of earlier builds
    yield "Suspended by the operator", columns, [_by_operator(each) for each in by_operator]
    hooks = status.get("webhooks", ())
    if hooks:
        rows = [_webhook(each, status["now"]) for each in hooks]
        yield "Webhooks", ("URL", "State", "Waiting", "Last success", "Last failure"), rows
    columns = ("Received", "From", "To", "Size", "State", "Last reply", "Id")
    messages = status["recent"][:_TERMINAL_MESSAGES] if brief else status["recent"]
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


def _machine(machine: Mapping[str, Any], cluster: Mapping[str, Any], now: float) -> Sequence[str]:
    state = "alive"
    if not machine["alive"]:
        state = f"silent for {short_duration(machine['silent'] + (cluster['seen'] or 0.0))}"
    if machine["id"] == cluster["own"]:
        state += ", this one"
    cells = (
        machine["hostname"],
        machine["id"][:8],
        state,
        short_duration(now - machine["since"]),
        machine["version"],
        machine["workers"],
        machine["leases"],
    )
    return tuple(printable(str(cell)) for cell in cells)


def _suspended(hop: Mapping[str, Any]) -> Sequence[str]:
    last = printable(str(hop["last"]))
    return printable(str(hop["next_hop"])), short_duration(hop["seconds"]), str(hop["times"]), last


def _by_operator(each: Mapping[str, Any]) -> Sequence[str]:
    until = "resumed" if each["until"] is None else moment(each["until"])
    cells = (each["destination"], moment(each["since"]), until, each["waiting"], each["reason"])
    return tuple(printable(str(cell)) for cell in cells)


def _webhook(hook: Mapping[str, Any], now: float) -> Sequence[str]:
    since, last = hook["failing_since"], hook["last_success"]
    state = hook["state"] if since is None else f"{hook['state']} for {short_duration(now - since)}"
    success = "" if last is None else moment(last)
    cells = (hook["url"], state, hook["waiting"], success, hook["error"])
    return tuple(printable(str(cell)) for cell in cells)


def _message(message: Mapping[str, Any], named: int) -> Sequence[str]:
    """Return the row of a message, with the first ``named`` recipients."""
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
