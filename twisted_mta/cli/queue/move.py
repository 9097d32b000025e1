"""``twisted-mta queue move``: a queue goes into a database of several machines, and back."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import click

from ...mail.counted import counted
from ...mail.printable import printable
from ...system.real_world import monotonic_microseconds, secret_octets
from ..client import NOT_RUNNING, REFUSED, failure, json_option, state_dir_option, state_directory

if TYPE_CHECKING:
    from ...queue.moving.database import SharedDatabase
    from ...queue.moving.file import QueueFile
    from ...queue.moving.move import Moved
    from ...queue.store.suspended_file import SuspendedFile

_REPORTS = 5.0  # seconds between two lines about the progress
_SHOWN = 20  # messages that stay, on standard error


def _url(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    from ...config.tables import queue_url  # imported here: the settings take a while to load

    if text is None:
        return None
    try:
        if queue_url(text) == "sqlite:":
            raise ValueError("found sqlite:, expected postgresql://HOST/DATABASE")
    except ValueError as error:
        raise click.BadParameter(printable(str(error))) from None
    return text


@click.command("move")
@click.option(
    "--to",
    metavar="URL",
    callback=_url,
    help="move the queue in the state directory to this database, postgresql://HOST/DATABASE",
)
@click.option(
    "--from",
    "from_",
    metavar="URL",
    callback=_url,
    help="move the queue in this database into the state directory",
)
@state_dir_option
@json_option
def move_command(state_dir: str | None, as_json: bool, to: str | None, from_: str | None) -> None:
    """Move all mail between the queue in the state directory and one in PostgreSQL.

    The MTA on the state directory has to be stopped. Other machines may use the database while mail
    comes --to it, and deliver that mail at once; for a move --from it, all of them have to be
    stopped. Envelopes, states, attempts with their transcripts, holds, times of retries, records of
    failures and contents are kept.

    The command can be interrupted anywhere: repeat it, and it goes on. Meanwhile each message is on
    one side only, or is reserved there until the command has been repeated.

    Exit status: 0 done, 1 refused, interrupted or a message has stayed where it was, 3 an MTA is
    running.
    """
    if (to is None) == (from_ is None):
        raise click.UsageError("expected one of --to URL and --from URL")
    directory = state_directory(state_dir)
    if not os.path.isdir(directory):
        raise failure(f"{printable(directory)} is no directory; expected the state directory")
    _require_owner(directory)
    import psycopg

    from ...queue.moving.parcel import InUse, MoveRefused
    from ...queue.store.contract import NewerSchema, StoreError

    mover = _Mover(directory)
    status = 0
    try:
        if to is not None:
            mover.out(to)
        else:
            assert from_ is not None
            mover.back(from_)
    except InUse as error:
        _problem(str(error))
        status = NOT_RUNNING
    except (MoveRefused, StoreError, NewerSchema, OSError, ValueError, psycopg.Error) as error:
        _problem(str(error).strip())
        status = REFUSED
    except KeyboardInterrupt:
        _problem("interrupted; repeat the command to go on")
        status = REFUSED
    mover.report(as_json=as_json)
    if mover.left:
        status = status or REFUSED
    raise click.exceptions.Exit(status)


def _seconds() -> float:
    return monotonic_microseconds() / 1e6


def _problem(text: str) -> None:
    click.echo(f"twisted-mta: {printable(text)}", err=True)


def _require_owner(directory: str) -> None:
    owner = os.stat(directory).st_uid
    if owner != os.geteuid():
        from ...system.ownership import name_of

        user = printable(name_of(owner))
        raise failure(
            f"{printable(directory)} belongs to user {user}: do this as that user, as in"
            f" runuser -u {user} -- twisted-mta queue move …"
        )


class _Mover:
    """The moves of all parts of a state directory, with their sum."""

    def __init__(self, directory: str) -> None:
        from ...system.files import DiskFiles

        self._directory = directory
        self._files = DiskFiles()
        self._began = _seconds()
        self._reported = _seconds()
        self._parts: list[Moved] = []
        self._total = 0
        self._reserved = self._behind = 0

    @property
    def left(self) -> bool:
        """Whether a message has stayed where it was."""
        return bool(self._behind or any(each.left for each in self._parts))

    def out(self, url: str) -> None:
        """Move everything in the directory to a database."""
        from ...agent.shard import QUEUE, shard_directory, shards_there
        from ...agent.shared_state import known_url, note_url
        from ...queue.moving.parcel import MoveRefused

        folders = [
            folder
            for folder in (
                shard_directory(self._directory, number)
                for number in (0, *shards_there(self._directory))
            )
            if os.path.exists(os.path.join(folder, QUEUE))
        ]
        if not folders:
            if known_url(self._directory, self._files) == url:
                return  # it was done before
            raise MoveRefused(f"there is no {QUEUE} in {self._directory}: nothing is to be moved")
        with ExitStack() as stack:
            opened = [stack.enter_context(self._file(folder)) for folder in folders]
            database = stack.enter_context(self._database(url))
            self._total = sum(file.messages for file in opened)
            suspended = self._suspended()
            database.suspend(suspended.read())  # before the mail that must not go there
            for file in opened:
                self._move(file, database, "out")
            if all(file.is_empty for file in opened):
                note_url(url, self._directory, self._files, secret_octets)
                for file in opened:
                    file.remove()
                suspended.remove(None)

    def back(self, url: str) -> None:
        """Move everything in a database into the directory."""
        from ...agent.shared_state import URL_FILE, known_machine
        from ...queue.moving.move import wait_for_rest

        with self._file(self._directory) as file, self._database(url) as database:
            machine = known_machine(self._directory, self._files)
            wait_for_rest(database, machine, lambda seconds: threading.Event().wait(seconds))
            self._total = database.messages
            suspended = self._suspended()
            there = {each.name: None for each in suspended.read()}
            for each in database.suspended():
                if each.name not in there:
                    suspended.put(each)
            self._move(file, database, "back")
            self._behind, self._reserved = database.left()
            if not self._behind:
                database.forget_suspended()
                self._files.unlink(os.path.join(self._directory, URL_FILE))

    def _suspended(self) -> SuspendedFile:
        from ...queue.store.suspended_file import SUSPENDED_FILE, SuspendedFile

        return SuspendedFile(os.path.join(self._directory, SUSPENDED_FILE))

    def _move(self, file: QueueFile, database: SharedDatabase, way: str) -> None:
        from ...queue.moving.move import Move

        before = sum(each.messages for each in self._parts)
        move = Move(
            file,
            database,
            token=lambda: secret_octets(16).hex(),
            progress=lambda messages: self._progress(before + messages),
        )
        self._parts.append(move.moved)
        move.resume()
        move.out() if way == "out" else move.back()

    @contextmanager
    def _file(self, folder: str) -> Iterator[QueueFile]:
        from ...agent.shard import QUEUE
        from ...queue.moving.file import QueueFile
        from ...queue.store.spool import Spool
        from ...system.executors import inline_executor

        names = ("lock", "queue.lock") if folder == self._directory else ("queue.lock",)
        file = QueueFile(
            os.path.join(folder, QUEUE),
            locks=[os.path.join(folder, name) for name in names],
            spool=Spool(os.path.join(folder, "body"), files=self._files, executor=inline_executor),
            files=self._files,
        )
        file.open()
        try:
            yield file
        finally:
            file.close()

    @contextmanager
    def _database(self, url: str) -> Iterator[SharedDatabase]:
        from ...cluster.identity import machine_id
        from ...queue.moving.database import SharedDatabase
        from ...queue.store.spool import Spool
        from ...system.executors import inline_executor

        spool = Spool(
            os.path.join(self._directory, "body"), files=self._files, executor=inline_executor
        )
        poster = machine_id(self._directory, self._files, secret_octets)
        database = SharedDatabase(url, seconds=_seconds, spool=spool, poster=poster)
        database.open()
        try:
            yield database
        finally:
            database.close()

    def _progress(self, messages: int) -> None:
        now = _seconds()
        if now - self._reported >= _REPORTS:
            self._reported = now
            click.echo(f"moved so far: {messages:,} of {self._total:,} messages", err=True)

    def report(self, *, as_json: bool) -> None:
        """Write what was done."""
        left = {_id_text(id): why for each in self._parts for id, why in each.left.items()}
        result: dict[str, Any] = {
            "messages": sum(each.messages for each in self._parts),
            "recipients": sum(each.recipients for each in self._parts),
            "finished": sum(each.finished for each in self._parts),
            "left": left,
            "behind": self._behind,
            "reserved": self._reserved,
            "seconds": round(_seconds() - self._began, 3),
        }
        for id, why in list(left.items())[:_SHOWN]:
            _problem(f"{id} stays where it was: {why}")
        if len(left) > _SHOWN:
            stay = counted(
                len(left) - _SHOWN,
                "further message stays where it was",
                "further messages stay where they were",
            )
            _problem(stay)
        if self._reserved:
            _problem(
                counted(
                    self._reserved,
                    "message in the database belongs",
                    "messages in the database belong",
                )
                + " to another move that was interrupted: repeat that one in its state directory"
            )
        if as_json:
            click.echo(json.dumps({"version": 1, **result}, indent=2))
            return
        finished = result["finished"]
        if finished:
            click.echo(f"finished an earlier move: {counted(finished, 'message')}")
        click.echo(
            f"moved: {counted(result['recipients'], 'recipient')} of"
            f" {counted(result['messages'], 'message')}"
        )


def _id_text(id: int) -> str:
    """Return a queue id as it is shown."""
    from ...mail.queue_id import QueueId

    return str(QueueId(id))
