"""The operator's tool, ``twisted-mta``: the group of all its commands."""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from .._version import __version__
from ..mail.printable import printable

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class _Listed(NamedTuple):
    """A command that is imported when it runs, so that the tool starts fast.

    Attributes:
        module: that it is in.
        help: the first sentences of its help.
    """

    module: str
    help: str


COMMANDS = {
    "backup": _Listed(
        "backup.command",
        "Copy the state directory as it is at one moment, while the MTA runs or is stopped.",
    ),
    "check": _Listed("check.command", "Check a configuration, and everything that it names."),
    "completion": _Listed(
        "completion", "Write a script that completes commands, options and queue ids."
    ),
    "dkim": _Listed("dkim.command", "Make, list and check the keys that mail is signed with."),
    "explain": _Listed("explain", "Explain why mail is still queued, or where mail would go."),
    "feedback": _Listed("feedback", "Show the reports of complaints of the last 90 days."),
    "queue": _Listed("queue.command", "List, show and change messages of the queue."),
    "reload": _Listed("reload", "Reload the configuration, completely or not at all."),
    "reopen-logs": _Listed("reload", "Reopen the log files after they were renamed."),
    "status": _Listed("status", "Show the state of a running MTA."),
    "suppression": _Listed("suppression", "Show and change the list of addresses that bounce."),
    "tls": _Listed(
        "tls.command",
        "Show TLS with other hosts, report it to their domains, and print what to publish.",
    ),
    "trace": _Listed("trace", "Show the dialogue of sessions, live, until Control-C."),
    "users": _Listed(
        "users",
        "List and change the accounts for AUTH and for the page, and the tokens of programs.",
    ),
    "webhooks": _Listed("webhooks", "Show the webhooks, test them, and make their secrets."),
}
"""All commands by name."""


def _listing() -> click.Group:
    """Return a group of the same commands that only shows them."""
    return click.Group(
        commands=[click.Command(name, help=each.help) for name, each in COMMANDS.items()]
    )


class _Tool(click.Group):
    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a command, and exit with status 1 where its output cannot be written."""
        if sys.stdout is None:  # the caller has closed it
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - up to the end
        try:
            try:
                return super().main(*args, **extra)
            finally:
                sys.stdout.flush()
        except UnicodeEncodeError as error:
            if not any("\ud800" <= each <= "\udfff" for each in error.object):
                raise
            found = printable(error.object[error.start : error.end])
            print(
                f"twisted-mta: found {found} in an argument, expected text in UTF-8, and a locale"
                " for it such as LC_ALL=C.UTF-8",
                file=sys.stderr,
            )
            sys.exit(2)
        except OSError as error:
            # What is left in the buffer would be written at the interpreter's end, and fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if error.errno != errno.EPIPE:  # a reader such as `head` has read enough
                print(f"twisted-mta: cannot write the output: {error.strerror}", file=sys.stderr)
            sys.exit(1)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f".{COMMANDS[cmd_name].module}", __package__)
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _listing().format_commands(ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        if incomplete and not incomplete[0].isalnum():
            return super().shell_complete(ctx, incomplete)  # an option
        listing = _listing()
        return listing.shell_complete(click.Context(listing), incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not ctx.resilient_parsing:
            from difflib import get_close_matches  # imported here: mistakes are rare

            close = get_close_matches(args[0], COMMANDS, n=1)
            if close:
                ctx.fail(f"No such command {args[0]!r}. Did you mean {close[0]!r}?")
        return super().resolve_command(ctx, args)


@click.group(cls=_Tool, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="twisted-mta", message="%(prog)s %(version)s")
@click.option(
    "--state-dir", metavar="DIR", help="state directory of the MTA; also allowed after the command"
)
def main(state_dir: str | None) -> None:
    """Operate a mail transfer agent that `twistd mta` runs."""
    # The convention of no-color.org, and terminals that know no escape sequences.
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        click.get_current_context().color = False
