"""``twisted-mta queue retry``, ``hold``, ``release`` and ``remove``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click

from ...admin.control.client import ControlClient
from ...mail.counted import counted
from ..client import answer_or_exit, client, failure, require_version
from .listing import Listing, absent, exit_if_incomplete
from .selection import PATH, Filters, filters_of, selecting

_PART = 2000  # recipients that one request looks at; the progress is shown in between

_COUNTS = ("messages", "recipients", "busy", "elsewhere", "looked_at")
_ELSEWHERE = "leased by another machine"


def _action(name: str, done: str, text: str) -> click.Command:
    """Return the command of an action.

    Args:
        name: of the command, and of the action in the API.
        done: the participle that says what was done with recipients.
        text: the command's help.
    """

    def act(
        state_dir: str | None,
        as_json: bool,
        everything: bool,
        dry_run: bool,
        ids: list[str],
        yes: bool = False,
        **options: Any,
    ) -> None:
        filters = filters_of(ids, **options)
        if everything and filters:
            raise click.UsageError("--all excludes IDs and filters")
        if not everything and not filters:
            raise click.UsageError("nothing is selected; expected an ID, a filter, or --all")
        asker = client(state_dir)
        not_found: list[str] = []
        if ids:
            listing = Listing(asker, {"ids": ids}, 0)
            for _ in listing:
                pass
            not_found = absent(ids, listing.seen)
            if not listing.seen:
                exit_if_incomplete(not_found, listing.missing)
            filters["ids"] = list(listing.seen)
        action = _Action(asker, name, {**filters, **({"all": True} if everything else {})})
        if name == "remove" and not (yes or dry_run or ids) and sys.stdin.isatty():
            action.run(dry_run=True)
            click.confirm(f"Remove {_amount(action.result)} for good?", abort=True, err=True)
        try:
            action.run(dry_run=dry_run)
        except KeyboardInterrupt:
            raise failure(f"stopped; {done} so far: {_amount(action.result)}") from None
        if as_json:
            missing = list(action.missing)
            click.echo(json.dumps({"version": 1, **action.result, "missing": missing}, indent=2))
        else:
            click.echo(f"{'would be ' if dry_run else ''}{done}: {_amount(action.result)}")
            for count, where in (("busy", "in delivery now"), ("elsewhere", _ELSEWHERE)):
                if action.result[count] and name != "retry":
                    click.echo(
                        f"{where}: {action.result[count]}; {done} when that ends, unless it"
                        " delivers them"
                    )
        exit_if_incomplete(not_found, action.missing)

    act.__doc__ = f"{text}\n\n    {_EXIT_STATUS}\n    "
    command: Any = act
    if name == "remove":
        command = click.option("--yes", is_flag=True, help="do not ask for confirmation")(command)
    command = click.option(
        "--dry-run", is_flag=True, help="change nothing; say what would be changed"
    )(command)
    command = click.option("--all", "everything", is_flag=True, help="all messages")(command)
    return click.command(name)(selecting(command))


class _Action:
    """One action, part by part: mail is handled between two parts.

    Attributes:
        result: the counts so far, with ``action`` and ``dry_run``.
        missing: why parts of the queue could not be asked.
    """

    def __init__(self, asker: ControlClient, action: str, selection: Filters) -> None:
        self._asker = asker
        self._action = action
        self._selection = selection
        self.result: dict[str, Any] = {}
        self.missing: dict[str, None] = {}

    def run(self, *, dry_run: bool) -> None:
        """Act on all that is selected, or only count it."""
        self.result = {"action": self._action, "dry_run": dry_run, **dict.fromkeys(_COUNTS, 0)}
        with self._progress() as advance:
            after: str | None = None
            while True:
                wish = {**self._selection, "dry_run": dry_run, "limit": _PART, "after": after}
                part = answer_or_exit(
                    lambda wish=wish: self._asker.post(f"{PATH}/{self._action}", wish)  # type: ignore[misc]
                )
                require_version(part)
                for name in _COUNTS:
                    self.result[name] += part.get(name, 0)  # one before 0.2.0 has not all
                self.missing.update((str(shard["why"]), None) for shard in part["missing"])
                advance(part["looked_at"])
                after = part["next"]
                if after is None:
                    return

    @contextmanager
    def _progress(self) -> Iterator[Callable[[int], object]]:
        """Show a progress bar for a long queue; yield a function that takes recipients done."""
        total = 0
        if sys.stderr.isatty() and "ids" not in self._selection:
            status = answer_or_exit(lambda: self._asker.get("/v1/status"))
            total = status["queue"].get("recipients", 0)
        if total <= _PART:
            yield lambda count: None
            return
        from rich.console import Console  # imported here: most actions need no bar
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(self._action, total=total)
            yield lambda count: progress.update(task, advance=count)


def _amount(result: Mapping[str, Any]) -> str:
    recipients, messages = result["recipients"], result["messages"]
    return f"{counted(recipients, 'recipient')} of {counted(messages, 'message')}"


_EXIT_STATUS = "Exit status: 0 done, 1 refused or an ID not found, 3 no MTA is running."

retry = _action(
    "retry",
    "to be tried now",
    """Retry now, whatever time was scheduled.

    A suspended next hop is probed at once, and within five seconds by all other processes and
    machines of a queue in PostgreSQL; other mail for it follows when the probe succeeds. Held
    recipients stay held, and deliveries under way go on.""",
)
hold = _action(
    "hold",
    "held",
    """Hold: neither try nor return mail until it is released.

    A delivery under way ends first; what it does not deliver is held.""",
)
release = _action(
    "release",
    "released",
    """Release held mail, and try it now.

    Mail whose lifetime has ended is tried once more, and returned if that fails.""",
)
remove = _action(
    "remove",
    "removed",
    """Remove mail for good, without a notice.

    A delivery under way ends first, and may succeed. The log records each removal and the user who
    asked for it. On a terminal, confirmation is asked for unless IDs or --yes are given.""",
)
