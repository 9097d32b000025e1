"""The MTA that a command of the tool asks, and how the tool ends if it cannot answer."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ..admin.control.client import ControlClient, NotRunning, Refused
from ..admin.status import VERSION
from ..mail.printable import printable
from ..system.ownership import name_of

_DEFAULT_STATE_DIR = "mta-state"

REFUSED = 1
"""Exit status: refused, or not found."""

NOT_RUNNING = 3
"""Exit status: no MTA runs on the state directory."""

_Answer = TypeVar("_Answer")

state_dir_option: Callable[[Any], Any] = click.option(
    "--state-dir",
    metavar="DIR",
    help="state directory of the MTA  [default: $STATE_DIRECTORY, else ./mta-state]",
)
json_option: Callable[[Any], Any] = click.option(
    "--json", "as_json", is_flag=True, help="write JSON, for programs"
)


def client(state_dir: str | None, *, timeout: float = 30.0) -> ControlClient:
    """Return a client of the MTA on a state directory.

    Args:
        state_dir: the value of ``--state-dir``; None: that of the option before the command, else
            ``$STATE_DIRECTORY``, else ``./mta-state``.
        timeout: seconds that each step of an answer may take.
    """
    if state_dir is None:
        state_dir = click.get_current_context().find_root().params.get("state_dir")
    if state_dir and state_dir.startswith("~"):
        raise click.UsageError(
            f"--state-dir {printable(state_dir)}: only a shell replaces ~; expected the whole path,"
            f" such as {printable(os.path.expanduser(state_dir))}"
        )
    if state_dir and state_dir.startswith("~"):
        raise click.UsageError(
            f"--state-dir {printable(state_dir)}: only a shell replaces ~; expected the whole path,"
            f" such as {printable(os.path.expanduser(state_dir))}"
        )
    named = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]  # systemd separates by colons
    if not state_dir and not named and os.geteuid() == 0:
        _require_root_owned(_DEFAULT_STATE_DIR)
    return ControlClient(state_dir or named or _DEFAULT_STATE_DIR, timeout=timeout)


def _require_root_owned(directory: str) -> None:
    """Exit if root would ask an MTA of another user without having named it."""
    try:
        owner = os.stat(directory).st_uid
    except OSError:
        return  # the client reports that nothing runs there
    if owner != 0:
        raise failure(
            f"./{directory} belongs to user {printable(name_of(owner))}, and this runs as root;"
            " name it with --state-dir"
        )


def failure(problem: str, status: int = REFUSED) -> click.exceptions.Exit:
    """Write an error; return the exception that ends the tool with ``status``."""
    click.echo(f"twisted-mta: {problem}", err=True)
    return click.exceptions.Exit(status)


def answer_or_exit(ask: Callable[[], _Answer]) -> _Answer:
    """Return the result of ``ask``, or exit with the status of its failure."""
    try:
        return ask()
    except NotRunning as error:
        raise failure(str(error), NOT_RUNNING) from None
    except Refused as error:
        raise failure(str(error), REFUSED) from None


def require_version(answer: Any) -> None:
    """Exit if an answer has another version of the format than this program reads."""
    if not isinstance(answer, dict) or answer.get("version") != VERSION:
        raise failure("that MTA has another version; --json shows its answer")
