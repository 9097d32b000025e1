"""Arguments and options that select messages and recipients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

import click
from click.exceptions import Exit

from ...admin.control.client import NotRunning, Refused
from ...mail.printable import printable
from ...mail.queue_id import QueueId
from ..client import client, json_option, state_dir_option

PATH = "/v1/queue"
"""Of the queue in the control socket's API."""

Filters = dict[str, Any]
"""Filters by name, as the API takes them."""


def queue_ids(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> list[str]:
    """Read queue ids of the command line; return them in canonical form, without repeats."""
    ids = []
    for text in texts:
        try:
            ids.append(str(QueueId.parse(text)))
        except ValueError as error:
            raise click.BadParameter(printable(str(error))) from None
    return list(dict.fromkeys(ids))


def _age(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    from ...config.amounts import duration  # imported here: the settings take a while to load

    try:
        return duration(text)
    except ValueError as error:
        raise click.BadParameter(printable(str(error))) from None


domain_option: Callable[[Any], Any] = click.option(
    "--domain", metavar="DOMAIN", help="domain of recipients; .DOMAIN: all domains below it"
)
state_option: Callable[[Any], Any] = click.option(
    "--state",
    type=click.Choice(["queued", "deferred", "held", "quarantined"]),
    metavar="STATE",
    help="state of recipients: queued (not tried yet), deferred (tried before), held, or"
    " quarantined (without its body)",
)
age_option: Callable[[Any], Any] = click.option(
    "--older",
    metavar="AGE",
    callback=_age,
    help='received longer ago than "2 h", "30 min", "5 days"',
)


_OFFERED = 50  # ids


def offered_ids(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Return ids in the queue of the running MTA that complete what was typed; none on errors."""
    try:
        state_dir = context.params.get("state_dir")
        start = QueueId.parse((incomplete + "0" * 13)[:13])
        query = {"limit": _OFFERED, **({"after": str(QueueId(start - 1))} if start else {})}
        page = client(state_dir, timeout=2.0).get(f"{PATH}?{urlencode(query)}")
        ids = [str(each["id"]) for each in page["messages"]]
    except (NotRunning, Refused, ValueError, LookupError, TypeError, click.ClickException, Exit):
        return []
    return [id for id in ids if id.startswith(incomplete.upper())]


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.argument(
        "ids", nargs=-1, metavar="[ID]...", callback=queue_ids, shell_complete=offered_ids
    ),
    click.option("--to", metavar="ADDRESS", help="recipient; * and ? are wildcards"),
    click.option(
        "--from",
        "from_",
        metavar="ADDRESS",
        help="sender; * and ? are wildcards, <> is the null sender",
    ),
    domain_option,
    state_option,
    age_option,
    state_dir_option,
    json_option,
)


def selecting(command: Any) -> Any:
    """Add the options to a command that selects messages."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def selecting_without_json(command: Any) -> Any:
    """Add the options to a command that selects messages, and has an output of its own."""
    for option in reversed(_OPTIONS[:-1]):
        command = option(command)
    return command


def filters_of(
    ids: Sequence[str],
    to: str | None,
    from_: str | None,
    domain: str | None,
    state: str | None,
    older: float | None,
) -> Filters:
    """Return the filters that the options give."""
    options = {"to": to, "from": from_, "domain": domain, "state": state, "older": older}
    filters = {name: value for name, value in options.items() if value is not None}
    return {"ids": list(ids), **filters} if ids else filters
