"""``twisted-mta backup``: a consistent copy of the state directory, while the MTA runs or not."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

import click

from ...admin.control.client import ControlClient, NotRunning, Refused
from ...mail.counted import counted
from ...mail.printable import printable
from ...system.real_world import monotonic_microseconds
from ..client import NOT_RUNNING, client, failure, state_dir_option, state_directory

_RENEW = 5.0  # seconds between two words to the MTA that the copy goes on


class _Hold:
    """The files of a running MTA's queue, held as they are."""

    def __init__(self, asker: ControlClient, copy: str) -> None:
        self._asker = asker
        self._copy = copy
        self._last = monotonic_microseconds()
        self.shards: Collection[int] = ()
        self.is_shared = False
        self.holds = False

    def begin(self) -> None:
        """Begin; where no MTA runs, nothing is held.

        Raises:
            Refused: the files cannot be held.
        """
        try:
            shards = self._ask("begin")
        except NotRunning:
            return
        self.is_shared = any(not each["embedded"] for each in shards)
        self.shards = [] if self.is_shared else [each["shard"] for each in shards]
        self.holds = not self.is_shared

    def tick(self) -> None:
        """Say every few seconds that the copy goes on.

        Raises:
            Refused: the files have changed.
        """
        if self.holds and monotonic_microseconds() >= self._last + _RENEW * 1e6:
            self._last = monotonic_microseconds()
            self._ask("renew")

    def end(self) -> None:
        """End it.

        Raises:
            Refused: the files have changed before.
        """
        if self.holds:
            self.holds = False
            self._ask("end")

    def _ask(self, action: str) -> list[Any]:
        answer = self._asker.post(f"/v1/backup/{action}?copy={self._copy}")
        shards: list[Any] = answer["shards"]
        for each in shards:
            if each["embedded"] and not each["held"]:
                why = each.get("why") or (
                    "its log has grown too long, the disk is nearly full, or its process has ended"
                    if action != "begin"
                    else "its log cannot be written to the database"
                )
                raise Refused(
                    f"the files of shard {each['shard']} could not be kept as they are:"
                    f" {printable(str(why))}; try again when less mail comes in"
                )
        return shards


@click.command("backup")
@click.argument("path", metavar="DIRECTORY|FILE.tar", type=click.Path())
@click.option("--maildir", is_flag=True, help="also Maildirs that are in the state directory")
@state_dir_option
def backup(path: str, maildir: bool, state_dir: str | None) -> None:
    """Copy the state directory as it is at one moment, while the MTA runs or is stopped.

    The copy has the queue with all its mail, keys, certificates, tokens, the TLS memory and lists;
    as a directory, it can be started on. It gets its name when it is complete. Where root makes it,
    it belongs to the user of the MTA, and is made with that user's rights.

    Mail that is delivered later is in the copy still: an MTA that is started on it sends it again.

    Exit status: 0 done, 1 refused or not complete, 3 there is no state directory.
    """
    directory = os.path.abspath(state_directory(state_dir))
    path = os.path.abspath(path)
    if not os.path.isdir(directory):
        raise failure(
            f"{printable(directory)} is no directory; expected the state directory", NOT_RUNNING
        )
    if os.path.commonpath([directory, path]) == directory:
        raise failure(f"{printable(path)} is in the state directory; expected another place")
    import sqlite3

    from ..._version import __version__
    from ...system.real_world import secret_octets, wall_time
    from .destination import Destination, acting_as
    from .source import CannotCopy, Source

    owner = os.stat(directory)
    hold = _Hold(client(state_dir, timeout=90.0), secret_octets(8).hex())
    try:
        with Destination(path, owner.st_uid, owner.st_gid, tick=hold.tick) as destination:
            with acting_as(owner.st_uid, owner.st_gid):
                destination.open()
                moment = wall_time()
                source = Source(directory, destination)
                hold.begin()
                try:
                    if not hold.is_shared:
                        source.copy_queue(hold.shards)
                finally:
                    hold.end()
                source.copy_rest(maildir=maildir)
                if hold.is_shared:
                    source.left_out.insert(0, "the queue: it is in PostgreSQL (pg_dump)")
                destination.finish(
                    {
                        "version": 1,
                        "program": __version__,
                        "taken_at": moment,
                        "state_dir": directory,
                        "messages": source.messages,
                        "files": destination.files,
                        "octets": destination.octets,
                        "left_out": source.left_out,
                    },
                    moment,
                )
            destination.take_name()
    except (Refused, NotRunning, CannotCopy, OSError, sqlite3.Error) as error:
        raise failure(printable(str(error))) from None
    for line in source.left_out:
        click.echo(f"not in the copy: {printable(line)}", err=True)
    click.echo(
        f"{printable(path)}: {counted(source.messages, 'message')},"
        f" {counted(destination.files, 'file')}, {destination.octets:,} octets"
    )
