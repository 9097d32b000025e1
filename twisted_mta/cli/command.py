"""``twisted-mta``: the operator's tool."""

from __future__ import annotations

from importlib import import_module

import click

from .._version import __version__

_HOMES = {
    "check": "check.command",
    "explain": "explain",
    "queue": "queue",
    "reload": "status",
    "reopen-logs": "status",
    "status": "status",
    "tls": "status",
    "trace": "trace",
    "users": "users",
}
"""Where each command is: what is not asked for is not loaded, so that the tool answers at once."""


class _Tool(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_HOMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _HOMES:
            return None
        home = import_module(f".{_HOMES[cmd_name]}", __package__)
        command: click.Command = getattr(home, cmd_name.replace("-", "_"))
        return command


@click.group(cls=_Tool, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="twisted-mta", message="%(prog)s %(version)s")
@click.option("--state-dir", metavar="DIR", help="which MTA; after the command it may stand too")
def main(state_dir: str | None) -> None:
    """Look after a mail transfer agent that `twistd mta` runs."""
