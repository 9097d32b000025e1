"""``twisted-mta reload`` and ``twisted-mta reopen-logs``."""

from __future__ import annotations

import click

from ..mail.printable import printable
from .client import answer_or_exit, client, state_dir_option
from .terminal import wrapped

_TIMEOUT = 1200.0  # seconds: workers reload one after the other, each in slices


def _act(state_dir: str | None, name: str) -> None:
    done = answer_or_exit(lambda: client(state_dir, timeout=_TIMEOUT).post(f"/v1/{name}"))
    for line in done.get("lines") or ["done"]:
        for piece in wrapped(printable(str(line))):
            click.echo(piece)


@click.command("reload")
@state_dir_option
def reload(state_dir: str | None) -> None:
    """Reload the configuration, completely or not at all.

    Certificates, accounts, aliases, routes and all other settings that need no restart are read
    again, as at SIGHUP.

    Exit status: 0 reloaded, 1 refused and nothing changed, 3 no MTA is running.
    """
    _act(state_dir, "reload")


@click.command("reopen-logs")
@state_dir_option
def reopen_logs(state_dir: str | None) -> None:
    """Reopen the log files after they were renamed.

    The same as SIGUSR1.

    Exit status: 0 done, 1 refused, 3 no MTA is running.
    """
    _act(state_dir, "reopen-logs")
