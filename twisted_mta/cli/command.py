"""The operator's tool, ``twisted-mta``: the group of all its commands."""

from __future__ import annotations

import errno
import os
import sys
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

from .._version import __version__

_MODULES = {
    "check": "check.command",
    "completion": "completion",
    "dkim": "dkim.command",
    "explain": "explain",
    "feedback": "feedback",
    "queue": "queue.command",
    "reload": "reload",
    "reopen-logs": "reload",
    "status": "status",
    "suppression": "suppression",
    "tls": "tls.command",
    "trace": "trace",
    "users": "users",
}
"""The module of each command, imported when the command runs: so the tool starts fast."""


class _Tool(click.Group):
    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a command, and exit with status 1 where its output cannot be written."""
        try:
            try:
                return super().main(*args, **extra)
            finally:
                sys.stdout.flush()
        except OSError as error:
            # What is left in the buffer would be written at the interpreter's end, and fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if error.errno != errno.EPIPE:  # a reader such as `head` has read enough
                print(f"twisted-mta: cannot write the output: {error.strerror}", file=sys.stderr)
            sys.exit(1)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _MODULES:
            return None
        module = import_module(f".{_MODULES[cmd_name]}", __package__)
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _MODULES and not ctx.resilient_parsing:
            close = get_close_matches(args[0], _MODULES, n=1)
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
