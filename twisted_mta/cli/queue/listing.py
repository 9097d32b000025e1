"""``twisted-mta queue list``, and the pages of messages that it asks for."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any
from urllib.parse import urlencode

import click

from ...admin.status import moment
from ...mail.printable import printable
from ..client import REFUSED, Reader, answer_or_exit, reader, require_version
from ..terminal import show
from .selection import PATH, Filters, filters_of, queue_ids, selecting

_PAGE = 100  # messages of one request: between two of them the MTA is free for mail
_TERMINAL_LIMIT = 100  # messages that a terminal shows without --limit
IDS_OF_A_REQUEST = 100
"""Queue ids that fit into the address of one request."""

_COLUMNS = ("Id", "Received", "Size", "From", "To", "State", "Attempts", "Next attempt", "Last")


def _queue_id(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    return None if text is None else queue_ids(context, parameter, (text,))[0]


@click.command("list")
@selecting
@click.option(
    "--after",
    metavar="ID",
    callback=_queue_id,
    help="only messages behind this one: continue a list that was cut short",
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    metavar="N",
    help="most messages; 0: all  [default: 100 on a terminal, else all]",
)
def list_command(
    state_dir: str | None,
    as_json: bool,
    after: str | None,
    limit: int | None,
    ids: list[str],
    **options: Any,
) -> None:
    """List messages, oldest first, with a row for each recipient.

    Exit status: 0 done, 1 refused or an ID not found, 3 no MTA is running
    and there is no queue. Without a running MTA the queue itself is read.
    """
    terminal = sys.stdout.isatty() and not as_json
    most = limit if limit is not None else _TERMINAL_LIMIT if terminal else 0
    listing = Listing(reader(state_dir), filters_of(ids, **options), most, after=after)
    rest = iter(listing)
    messages = chain(tuple(islice(rest, 1)), rest)  # a refusal comes before any output
    if as_json:
        _write_json(messages, listing)
    elif terminal:
        rows = [row for message in messages for row in _rows(message)]
        show([], [("", _COLUMNS, rows)])
        if not rows and not ids:
            click.echo("No message matches." if any(options.values()) else "The queue is empty.")
    else:
        click.echo("\t".join(_COLUMNS))
        for message in messages:
            for row in _rows(message):
                click.echo("\t".join(row))
    if listing.more and terminal:
        click.echo(
            f"There are more: --after {listing.more} continues, --limit 0 shows all.", err=True
        )
    sought = [id for id in ids if (after is None or id > after) and not listing.more]
    exit_if_incomplete(absent(sought, listing.seen), listing.missing)


class Listing:
    """The messages that filters select, read page by page.

    Attributes:
        seen: the ids of all messages so far.
        more: the id behind which a next list continues, as the limit was reached; empty: all
            messages were read.
        missing: why parts of the queue could not be asked.
    """

    def __init__(
        self, asker: Reader, filters: Filters, most: int, *, after: str | None = None
    ) -> None:
        self._asker = asker
        self._filters = filters
        self._most = most
        self._after = after
        self.seen: dict[str, None] = {}
        self.more = ""
        self.missing: dict[str, None] = {}

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        filters = dict(self._filters)
        ids = sorted(filters.pop("ids", ()))
        for start in range(0, max(1, len(ids)), IDS_OF_A_REQUEST):
            yield from self._pages({**filters, "id": ids[start : start + IDS_OF_A_REQUEST]})

    def _pages(self, filters: Filters) -> Iterator[Mapping[str, Any]]:
        after = self._after
        while True:
            left = self._most - len(self.seen) if self._most else _PAGE
            if left <= 0:
                self.more = self.more or max([after or "", *self.seen])
                return
            query = {**filters, "limit": min(_PAGE, left)}
            if after is not None:
                query["after"] = after
            path = f"{PATH}?{urlencode(query, doseq=True)}"
            page = answer_or_exit(lambda path=path: self._asker.get(path))  # type: ignore[misc]
            require_version(page)
            for message in page["messages"]:
                self.seen[str(message["id"])] = None
                yield message
            self.missing.update((str(shard["why"]), None) for shard in page["missing"])
            after = page["next"]
            if after is None:
                return


def absent(ids: Sequence[str], seen: Mapping[str, None]) -> list[str]:
    """Return the ids that are not among those seen."""
    return [id for id in ids if id not in seen]


def exit_if_incomplete(absent: Sequence[str], missing: Mapping[str, None]) -> None:
    """Exit with 1 if ids were not found, or parts of the queue could not be asked."""
    for id in absent:
        click.echo(f"twisted-mta: {id} is not in the queue", err=True)
    for why in missing:
        click.echo(f"twisted-mta: a part of the queue was not asked: {printable(why)}", err=True)
    if absent or missing:
        raise click.exceptions.Exit(REFUSED)


def _write_json(messages: Iterable[Mapping[str, Any]], listing: Listing) -> None:
    """Write one JSON object piece by piece: a long queue does not fit into memory."""
    click.echo('{"version": 1, "messages": [', nl=False)
    separator = "\n"
    for message in messages:
        click.echo(separator + json.dumps(message), nl=False)
        separator = ",\n"
    rest = {
        "more": bool(listing.more),
        "next": listing.more or None,
        "missing": list(listing.missing),
    }
    click.echo("\n], " + json.dumps(rest)[1:])


def _rows(message: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for recipient in message["recipients"]:
        yield tuple(
            printable(str(cell))
            for cell in (
                message["id"],
                moment(message["received_at"]),
                message["size"],
                sender(message),
                recipient["address"],
                state(recipient),
                recipient["attempts"],
                next_attempt(recipient),
                last_reply(recipient),
            )
        )


# Cells of this table, and of that of one message.


def sender(message: Mapping[str, Any]) -> str:
    """Return the reverse-path of a message; the null one is ``<>``."""
    return "<>" if message["reverse_path"] is None else str(message["reverse_path"])


def state(recipient: Mapping[str, Any]) -> str:
    """Return the state of a recipient."""
    words = [str(recipient["state"])]
    if recipient["in_delivery"]:
        words.append("in delivery")
    if recipient.get("waiting"):  # an MTA before 0.2.0 does not tell
        words.append("waiting")
    if recipient.get("elsewhere"):
        words.append("leased by another machine")
    if recipient["removing"]:
        words.append("to be removed")
    if recipient.get("suspended"):
        words.append("suspended by the operator")
    return ", ".join(words)


def next_attempt(recipient: Mapping[str, Any]) -> str:
    """Return the time of a recipient's next attempt; empty if none is planned or one runs.

    For a recipient that waits for its turn, it is the time that a rate gives, or none.
    """
    if recipient.get("waiting"):
        expected_at = recipient["expected_at"]
        return "" if expected_at is None else f"about {moment(expected_at)}"
    if recipient["in_delivery"] or recipient.get("elsewhere"):
        return ""
    if recipient["next_attempt"] is None:
        return ""
    suspended = recipient.get("suspended")
    if suspended:
        until = suspended["until"]
        if until is None:
            return "when it is resumed"
        return moment(max(until, recipient["next_attempt"]))
    return moment(recipient["next_attempt"])


def last_reply(recipient: Mapping[str, Any]) -> str:
    """Return the reply to a recipient's last attempt, with the server that gave it."""
    last = recipient["last"]
    if last is None:
        return ""
    remote = f"{last['remote']}: " if last["remote"] else ""
    return f"{remote}{last['reply']}{classified(last)}"


def classified(facts: Mapping[str, Any]) -> str:
    """Return why mail was not taken, in brackets; empty where it was, or an MTA does not tell."""
    known = facts.get("classification")
    return f" ({known})" if known else ""
