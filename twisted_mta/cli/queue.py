"""``twisted-mta queue``: what is in the queue, and what is to become of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import click

from ..admin.control.client import ControlClient
from ..mail.printable import printable
from ..mail.queue_id import QueueId
from .terminal import (
    REFUSED,
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

_PATH = "/v1/queue"
_PAGE = 100  # messages of a list that are asked for at once: mail has its turn between two pages
_FEW = 100  # messages that a terminal shows, if nothing else is said
_PART = 2000  # recipients that are looked at between two looks at the progress
_IDS = 100  # that fit into the address of one request

Filters = dict[str, Any]


@click.group("queue")
def queue() -> None:
    """Look into the queue, and say what is to become of what is there.

    Messages are named by their ids, or picked by what is said of them; where more than one thing is
    said, all of it has to be true. --to, --domain and --state pick recipients: of a message to two
    domains, one that names a domain leaves the recipients of the other alone.
    """


def _id(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> list[str]:
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
    from ..config.amounts import duration

    try:
        return duration(text)
    except ValueError as error:
        raise click.BadParameter(printable(str(error))) from None


_PICKING: tuple[Callable[[Any], Any], ...] = (
    click.argument("ids", nargs=-1, metavar="[ID]...", callback=_id),
    click.option("--to", metavar="ADDRESS", help="recipient; * and ? are wildcards"),
    click.option("--from", "from_", metavar="ADDRESS", help="sender, likewise; <> is the null one"),
    click.option("--domain", metavar="DOMAIN", help="of recipients; .DOMAIN: all below it"),
    click.option(
        "--state",
        type=click.Choice(["queued", "deferred", "held", "quarantined"]),
        help="not tried yet, tried before, held, or without its body",
    ),
    click.option("--older", metavar="AGE", callback=_age, help='than "2 h", "30 min", "5 days"'),
    state_dir_option,
    json_option,
)


def _picking(command: Any) -> Any:
    for each in reversed(_PICKING):
        command = each(command)
    return command


def _filters(
    ids: Sequence[str],
    to: str | None,
    from_: str | None,
    domain: str | None,
    state: str | None,
    older: float | None,
) -> Filters:
    said = {"to": to, "from": from_, "domain": domain, "state": state, "older": older}
    filters = {name: value for name, value in said.items() if value is not None}
    return {"ids": list(ids), **filters} if ids else filters


# Listing.


@queue.command("list")
@_picking
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    help="messages at most, 0 for all  [default: 100 at a terminal, else all]",
)
def list_command(
    state_dir: str | None, as_json: bool, limit: int | None, ids: list[str], **picked: Any
) -> None:
    """List messages, the oldest first, with a line for each recipient.

    Exits with 0 when it could be told, with 1 when it was refused or an ID is not there, with 3
    when nothing is running.
    """
    terminal = sys.stdout.isatty() and not as_json
    most = limit if limit is not None else _FEW if terminal else 0
    asker = client(state_dir)
    found = _Listing(asker, _filters(ids, **picked), most)
    later = iter(found)
    messages = chain(tuple(islice(later, 1)), later)  # a refusal comes before anything is written
    if as_json:
        _write_json(messages, found)
    else:
        rows = (row for message in messages for row in _rows(message))
        if terminal:
            told = list(rows)
            show([], [("", _COLUMNS, told)])
            if not told and not ids:
                click.echo("Nothing in the queue is like that." if any(picked.values()) else _EMPTY)
        else:
            click.echo("\t".join(_COLUMNS))
            for row in rows:
                click.echo("\t".join(row))
    if found.more and terminal:
        click.echo(f"There is more; --limit 0 shows all. Next is {found.more}.", err=True)
    _end(_not_there(ids, found.seen), found.missing)


_EMPTY = "The queue is empty."
_COLUMNS = ("Id", "Received", "Size", "From", "To", "State", "Attempts", "Next attempt", "Last")


class _Listing:
    """Messages, page by page.

    Attributes:
        seen: the ids of what was read.
        more: where it stopped because there were enough; empty: it did not.
        missing: parts of the queue that could not be asked.
    """

    def __init__(self, asker: ControlClient, filters: Filters, most: int) -> None:
        self._asker = asker
        self._filters = filters
        self._most = most
        self.seen: dict[str, None] = {}
        self.more = ""
        self.missing: dict[str, None] = {}

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        filters = dict(self._filters)
        ids = sorted(filters.pop("ids", ()))
        for start in range(0, max(1, len(ids)), _IDS):
            yield from self._pages({**filters, "id": ids[start : start + _IDS]})

    def _pages(self, filters: Filters) -> Iterator[Mapping[str, Any]]:
        after: str | None = None
        while True:
            left = self._most - len(self.seen) if self._most else _PAGE
            if left <= 0:
                self.more = after or "another"
                return
            query = {**filters, "limit": min(_PAGE, left)}
            if after is not None:
                query["after"] = after
            path = f"{_PATH}?{urlencode(query, doseq=True)}"
            page = asked(lambda path=path: self._asker.get(path))  # type: ignore[misc]
            same_version(page)
            for message in page["messages"]:
                self.seen[str(message["id"])] = None
                yield message
            self.missing.update((str(each["why"]), None) for each in page["missing"])
            after = page["next"]
            if after is None:
                return


def _write_json(messages: Iterable[Mapping[str, Any]], found: _Listing) -> None:
    """Write one JSON object, without having all of it in memory."""
    click.echo('{"version": 1, "messages": [', nl=False)
    separator = "\n"
    for message in messages:
        click.echo(separator + json.dumps(message), nl=False)
        separator = ",\n"
    rest = {"more": bool(found.more), "missing": list(found.missing)}
    click.echo("\n], " + json.dumps(rest)[1:])


def _rows(message: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    for each in message["recipients"]:
        yield tuple(
            printable(str(cell))
            for cell in (
                message["id"],
                moment(message["received_at"]),
                message["size"],
                _sender(message),
                each["address"],
                _state(each),
                each["attempts"],
                _when(each),
                _last(each),
            )
        )


def _sender(message: Mapping[str, Any]) -> str:
    return "<>" if message["reverse_path"] is None else str(message["reverse_path"])


def _state(recipient: Mapping[str, Any]) -> str:
    words = [str(recipient["state"])]
    if recipient["in_delivery"]:
        words.append("in delivery")
    if recipient["removing"]:
        words.append("to be removed")
    return ", ".join(words)


def _when(recipient: Mapping[str, Any]) -> str:
    if recipient["in_delivery"] or recipient["next_attempt"] is None:
        return ""
    return moment(recipient["next_attempt"])


def _last(recipient: Mapping[str, Any]) -> str:
    last = recipient["last"]
    if last is None:
        return ""
    remote = f"{last['remote']}: " if last["remote"] else ""
    return f"{remote}{last['reply']}"


def _not_there(ids: Sequence[str], seen: Mapping[str, None]) -> list[str]:
    return [id for id in ids if id not in seen]


def _end(absent: Sequence[str], missing: Mapping[str, None]) -> None:
    """End with 1 if something was not there, or could not be asked."""
    for id in absent:
        click.echo(f"twisted-mta: {id} is not in the queue", err=True)
    for why in missing:
        click.echo(f"twisted-mta: a part of the queue was not asked: {printable(why)}", err=True)
    if absent or missing:
        raise click.exceptions.Exit(REFUSED)


# One message.


@queue.command("show")
@click.argument("id", callback=lambda context, option, text: _id(context, option, (text,))[0])
@click.option("--body", is_flag=True, help="write the message itself, as it is kept")
@state_dir_option
@json_option
def show_command(id: str, body: bool, state_dir: str | None, as_json: bool) -> None:
    """Show one message: envelope, recipients, what was tried, and its header section.

    With --body it is the content alone, octet by octet: the fields that were put before it here,
    then what came. Exits with 0 when it could be told, with 1 when it is not there, with 3 when
    nothing is running.
    """
    asker = client(state_dir)
    if body:
        if as_json:
            raise click.UsageError("--body writes the message itself, and never JSON")
        asked(lambda: _write_body(asker, id))
        return
    found = asked(lambda: asker.get(f"{_PATH}/{quote(id)}"))
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    same_version(found)
    message = found["message"]
    facts, tables = list(_facts(message)), list(_tables(message))
    if sys.stdout.isatty():
        show(facts, tables)
    else:
        for line in lines(facts, tables):
            click.echo(line)


def _write_body(asker: ControlClient, id: str) -> None:
    output = sys.stdout.buffer
    for piece in asker.content(f"{_PATH}/{quote(id)}/body"):
        output.write(piece)
    output.flush()


def _facts(message: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "id", printable(str(message["id"]))
    yield "from", printable(_sender(message))
    if message["parameters"]:
        yield "parameters", printable(_parameters(message["parameters"]))
    yield "received", moment(message["received_at"])
    yield "given up", moment(message["expires_at"])
    yield "size", f"{message['size']} octets"
    if message["quarantine"]:
        yield "quarantined", printable(str(message["quarantine"]))


def _parameters(parameters: Mapping[str, Any]) -> str:
    return " ".join(
        name if value is None else f"{name}={value}" for name, value in parameters.items()
    )


def _tables(message: Mapping[str, Any]) -> Iterator[Table]:
    rows: list[Sequence[str]] = []
    for each in message["recipients"]:
        to = str(each["address"])
        if each["original"]:
            to = f"{to} (sent to {each['original']})"
        cells = (to, _state(each), str(each["attempts"]), _when(each), _last(each))
        rows.append(tuple(map(printable, (*cells, _parameters(each["parameters"])))))
    yield (
        "Recipients",
        ("To", "State", "Attempts", "Next attempt", "Last", "Parameters"),
        rows,
    )
    names = {each["number"]: each["address"] for each in message["recipients"]}
    yield (
        "Attempts",
        ("To", "Attempt", "Ended", "Next hop", "Answer", "TLS"),
        [_attempt(each, names) for each in message["attempts"]],
    )
    # Recipients that were tried together share what was said.
    said = {each["transcript"]: each for each in message["attempts"] if each.get("transcript")}
    for transcript, each in said.items():
        yield (
            f"What was said at attempt {each['attempt']}, {moment(each['ended_at'])}",
            (printable(str(each["next_hop"])),),
            [(printable(line),) for line in transcript.splitlines()],
        )
    yield (
        "Header section" + (" (its beginning)" if message.get("header_truncated") else ""),
        ("Field", "Value"),
        [(printable(name), printable(value)) for name, value in message.get("header") or ()],
    )


def _attempt(attempt: Mapping[str, Any], names: Mapping[int, str]) -> Sequence[str]:
    remote = f"{attempt['remote']}: " if attempt["remote"] else ""
    return tuple(
        printable(str(cell))
        for cell in (
            names.get(attempt["recipient"], attempt["recipient"]),
            attempt["attempt"],
            moment(attempt["ended_at"]),
            attempt["next_hop"],
            f"{remote}{attempt['reply']}",
            attempt["tls"] or "",
        )
    )


# Doing something.


class _Progress(Protocol):
    def __call__(self, looked_at: int) -> None:
        """So many more recipients were looked at."""
        ...


def _action(name: str, done: str, text: str) -> click.Command:
    def act(
        state_dir: str | None,
        as_json: bool,
        everything: bool,
        dry_run: bool,
        ids: list[str],
        yes: bool = False,
        **picked: Any,
    ) -> None:
        filters = _filters(ids, **picked)
        if everything and filters:
            raise click.UsageError("--all goes with no ID and no other filter")
        if not everything and not filters:
            raise click.UsageError("say what: an ID, a filter, or --all")
        asker = client(state_dir)
        absent: list[str] = []
        if ids:
            there = _Listing(asker, {"ids": ids}, 0)
            for _ in there:
                pass
            absent = _not_there(ids, there.seen)
            if not there.seen:
                _end(absent, there.missing)
            filters["ids"] = list(there.seen)
        wish = {**filters, **({"all": True} if everything else {})}
        acting = _Acting(asker, name, wish)
        if name == "remove" and not (yes or dry_run or ids) and sys.stdin.isatty():
            acting.run(dry_run=True)
            click.confirm(f"Remove {_amount(acting.said)} for good?", abort=True, err=True)
        try:
            acting.run(dry_run=dry_run)
        except KeyboardInterrupt:
            click.echo(f"twisted-mta: stopped; {done} so far: {_amount(acting.said)}", err=True)
            raise click.exceptions.Exit(REFUSED) from None
        if as_json:
            missing = list(acting.missing)
            click.echo(json.dumps({"version": 1, **acting.said, "missing": missing}, indent=2))
        else:
            click.echo(f"{'would be ' if dry_run else ''}{done}: {_amount(acting.said)}")
            if acting.said["busy"] and name != "retry":
                click.echo(
                    f"in delivery now: {acting.said['busy']}; {done} when that ends, unless it"
                    " delivers them"
                )
        _end(absent, acting.missing)

    act.__doc__ = text
    command: Any = act
    if name == "remove":
        command = click.option("--yes", is_flag=True, help="do not ask whether it is meant")(
            command
        )
    command = click.option("--dry-run", is_flag=True, help="say what would be done")(command)
    command = click.option("--all", "everything", is_flag=True, help="all that is there")(command)
    return queue.command(name)(_picking(command))


class _Acting:
    """One action, part by part.

    Attributes:
        said: what it came to so far.
        missing: parts of the queue that could not be asked.
    """

    def __init__(self, asker: ControlClient, action: str, wish: Filters) -> None:
        self._asker = asker
        self._action = action
        self._wish = wish
        self.said: dict[str, Any] = {}
        self.missing: dict[str, None] = {}

    def run(self, *, dry_run: bool) -> None:
        """Do it, or only count."""
        self.said = {
            "action": self._action,
            "dry_run": dry_run,
            **dict.fromkeys(("messages", "recipients", "busy", "looked_at"), 0),
        }
        with self._progress() as progress:
            after: str | None = None
            while True:
                wish = {**self._wish, "dry_run": dry_run, "limit": _PART, "after": after}
                part = asked(lambda wish=wish: self._asker.post(f"{_PATH}/{self._action}", wish))  # type: ignore[misc]
                same_version(part)
                for name in ("messages", "recipients", "busy", "looked_at"):
                    self.said[name] += part[name]
                self.missing.update((str(each["why"]), None) for each in part["missing"])
                progress(part["looked_at"])
                after = part["next"]
                if after is None:
                    return

    def _progress(self) -> _Bar | _NoBar:
        if not sys.stderr.isatty() or "ids" in self._wish:
            return _NoBar()
        total = asked(lambda: self._asker.get("/v1/status"))["queue"].get("recipients", 0)
        if total <= _PART:
            return _NoBar()
        return _Bar(self._action, total)


class _NoBar:
    """Nothing, in its place."""

    def __enter__(self) -> _Progress:
        return lambda looked_at: None

    def __exit__(self, *_: object) -> None:
        """Show nothing."""


class _Bar:
    """A progress bar on standard error."""

    def __init__(self, title: str, total: int) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self._progress = Progress(console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task(title, total=total)

    def __enter__(self) -> _Progress:
        self._progress.start()
        return lambda looked_at: self._progress.update(self._task, advance=looked_at)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _amount(said: Mapping[str, Any]) -> str:
    def count(number: int, name: str) -> str:
        return f"{number:,} {name}{'' if number == 1 else 's'}"

    return f"{count(said['recipients'], 'recipient')} of {count(said['messages'], 'message')}"


_EXITS = """

    Exits with 0 when it was done, with 1 when it was refused or an ID is not there, with 3 when
    nothing is running.
    """

_action(
    "retry",
    "to be tried now",
    """Try again now, whatever time was set.

    A next hop that is left alone because it could not be reached is probed at once; what waits for
    it goes as soon as the probe gets through. What is held stays held, and what is in delivery is
    left to that."""
    + _EXITS,
)
_action(
    "hold",
    "held",
    """Hold: never try, and never return, until it is released.

    What is in delivery ends first, and is held if that did not deliver it."""
    + _EXITS,
)
_action(
    "release",
    "released",
    """Release what is held, and try it now.

    What has passed the end of its lifetime meanwhile is tried once, and returned if that does not
    deliver it."""
    + _EXITS,
)
_action(
    "remove",
    "removed",
    """Remove for good, without a notice to anybody.

    What is in delivery ends first: it may be delivered yet. The log says what was removed, and who
    asked for it. At a terminal it asks first, unless IDs are named or --yes is given."""
    + _EXITS,
)
