"""The group of commands ``twisted-mta queue``."""

from __future__ import annotations

import click

from .actions import hold, release, remove, retry
from .listing import list_command
from .message import show_command
from .move import move_command
from .summary import summary_command
from .suspending import resume_command, suspend_command, suspended_command
from .transfer import export_command, import_command


@click.group("queue")
def queue() -> None:
    """List, show and change messages of the queue.

    Messages are named by their IDs or selected by filters; if several filters are given, all have
    to match. --to, --domain and --state select recipients: of a message to two domains, a filter
    for one domain leaves the recipients of the other alone.
    """


for _command in (
    list_command,
    show_command,
    summary_command,
    retry,
    hold,
    release,
    remove,
    suspend_command,
    resume_command,
    suspended_command,
    export_command,
    import_command,
    move_command,
):
    queue.add_command(_command)
