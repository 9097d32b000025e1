"""``twisted-mta queue export`` and ``import``: messages on their way to another queue."""

from __future__ import annotations

import json
import os
import stat
import sys
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from tempfile import SpooledTemporaryFile
from typing import IO, Any
from urllib.parse import quote, urlencode

import click

from ...admin.control.client import Refused
from ...mail.counted import counted
from ...mail.printable import printable
from ..client import (
    NOT_RUNNING,
    REFUSED,
    Reader,
    answer_or_exit,
    failure,
    reader,
    require_version,
    state_dir_option,
    state_directory,
)
from .listing import IDS_OF_A_REQUEST, exit_if_incomplete
from .selection import PATH, Filters, filters_of, selecting_without_json
from .suspending import SUSPENDED, note

_BASE64 = 57 * 1024  # octets that become base64 without padding, at once
_IN_MEMORY = 1 << 20  # octets of a content that need no file on their way


def _tell_of_suspended(asker: Reader) -> None:
    """Name the destinations whose mail would leave at the place of the import."""
    try:
        destinations = asker.get(SUSPENDED)["destinations"]
    except (Refused, OSError):
        return  # an earlier build: it has none
    for each in destinations:
        click.echo(
            f"twisted-mta: {note(each)}; an export does not say so: suspend it where the mail goes"
            " before it is imported",
            err=True,
        )


@click.command("export")
@selecting_without_json
@click.option("--all", "everything", is_flag=True, help="all messages")
@click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="write there, with mode 0600; it must not exist  [default: standard output]",
)
def export_command(
    state_dir: str | None, everything: bool, path: str | None, ids: list[str], **options: Any
) -> None:
    """Write messages as JSON, one in a line, for another queue to import.

    Nothing is changed: hold mail before its export, and remove it after its import. Without a
    running MTA the queue itself is read. Destinations that the operator has suspended do not go
    along; they are named on standard error.

    Exit status: 0 done, 1 refused, an ID not found or a message without its body, 3 no MTA is
    running and there is no queue.
    """
    filters = filters_of(ids, **options)
    if everything and filters:
        raise click.UsageError("--all excludes IDs and filters")
    if not everything and not filters:
        raise click.UsageError("nothing is selected; expected an ID, a filter, or --all")
    asker = reader(state_dir)
    export = _Export(asker, ids)
    with _output(path) as output:
        for exported in _records(asker, filters, export.missing):
            export.write(exported, output)
        output.flush()
    click.echo(f"exported: {_amount(export.messages, export.recipients)}", err=True)
    if export.in_delivery:
        click.echo(
            f"twisted-mta: {export.in_delivery:,} of the recipients were in delivery: import them"
            " and they may get the mail twice; hold mail first, and export when the hold is over",
            err=True,
        )
    _tell_of_suspended(asker)
    exit_if_incomplete(list(export.absent), export.missing)
    if export.failed:
        raise click.exceptions.Exit(REFUSED)


def _records(asker: Reader, filters: Filters, missing: dict[str, None]) -> Iterator[Any]:
    """Yield what the MTA exports, many messages with each request.

    Args:
        asker: the MTA.
        filters: of messages.
        missing: gets the reasons why parts of the queue could not be asked.
    """
    selected = dict(filters)
    ids = sorted(selected.pop("ids", ()))
    for start in range(0, max(1, len(ids)), IDS_OF_A_REQUEST):
        query = {**selected, "id": ids[start : start + IDS_OF_A_REQUEST]}
        while True:
            path = f"{PATH}/records?{urlencode(query, doseq=True)}"
            page = answer_or_exit(lambda path=path: asker.get(path))  # type: ignore[misc]
            require_version(page)
            yield from page["records"]
            missing.update((str(shard["why"]), None) for shard in page["missing"])
            if page["next"] is None:
                break
            query["after"] = page["next"]


class _Export:
    def __init__(self, asker: Reader, ids: Sequence[str]) -> None:
        self._asker = asker
        self.messages = self.recipients = self.in_delivery = self.failed = 0
        self.absent = dict.fromkeys(ids)  # those that were asked for, and not seen yet
        self.missing: dict[str, None] = {}

    def write(self, answer: Any, output: IO[bytes]) -> None:
        """Write the line of a message, whole or not at all."""
        record = answer["record"]
        id = str(record["id"])
        self.absent.pop(id, None)
        try:
            if not record["recipients"]:
                return  # they are removed
            if answer["quarantine"]:
                raise Refused(f"it has no content: {printable(str(answer['quarantine']))}")
            head = json.dumps(record).encode("ascii")[:-1] + b', "content": "'
            if answer["content"] is not None:
                output.write(head + answer["content"].encode("ascii") + b'"}\n')
            else:
                self._write_long(id, record, head, answer["content_begins"], output)
        except Refused as error:
            if "is not in the queue" in str(error):
                return  # it has been delivered meanwhile
            self.failed += 1
            click.echo(f"twisted-mta: {id} is not exported: {error}", err=True)
            return
        self.messages += 1
        self.recipients += len(record["recipients"])
        numbers = {each["number"] for each in record["recipients"]}
        self.in_delivery += len(numbers.intersection(answer["in_delivery"]))

    def _write_long(
        self, id: str, record: Any, head: bytes, begins: int, output: IO[bytes]
    ) -> None:
        with SpooledTemporaryFile(_IN_MEMORY) as content:
            for piece in self._asker.content(f"{PATH}/{quote(id)}/body"):
                content.write(piece)
            size = content.seek(0, os.SEEK_END) - begins
            if size != record["size"]:
                raise Refused(f"found {size} octets of content, expected {record['size']}")
            content.seek(begins)
            output.write(head)
            while piece := content.read(_BASE64):
                output.write(b64encode(piece))
            output.write(b'"}\n')


@contextmanager
def _output(path: str | None) -> Iterator[IO[bytes]]:
    if path is None:
        yield sys.stdout.buffer
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise failure(f"{printable(path)} cannot be written: {error.strerror}") from None


@click.command("import")
@state_dir_option
@click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="read it  [default: standard input]",
)
@click.option(
    "--again",
    is_flag=True,
    help="import also recipients that were imported before and have left the queue: of mail that"
    " was moved away and comes back",
)
def import_command(state_dir: str | None, path: str | None, again: bool) -> None:
    """Put exported messages into the queue of an MTA that is stopped.

    All lines are read and checked before the first message is taken, so that a wrong line leaves
    the queue as it was. Recipients that are in the queue, or that were imported in the last 30
    days, are left out: the same file can be imported again. Holds, attempts and the times of
    retries are kept.

    Exit status: 0 done, 1 a line is wrong or the queue cannot be written, 3 an MTA is running.
    """
    directory = state_directory(state_dir)
    if not os.path.isdir(directory):
        raise failure(f"{printable(directory)} is no directory; expected the state directory")
    owner = os.stat(directory).st_uid
    if owner != os.geteuid():
        from ...system.ownership import name_of

        user = printable(name_of(owner))
        raise failure(
            f"{printable(directory)} belongs to user {user}: do this as that user, as in"
            f" runuser -u {user} -- twisted-mta queue import …"
        )
    from ...queue.store.contract import NewerSchema, StateInUse, StoreError, StoreFull
    from .importing import Importer, WrongLine

    try:
        with _input(path) as file:
            result = Importer(directory, again=again).run(file)
    except StateInUse as error:
        raise failure(
            f"{printable(str(error))}: stop that MTA, import, and start it again", NOT_RUNNING
        ) from None
    except (WrongLine, NewerSchema, StoreError, StoreFull, OSError) as error:
        raise failure(printable(str(error))) from None
    known = f"; here before: {counted(result.known, 'recipient')}" if result.known else ""
    click.echo(f"imported: {_amount(result.messages, result.recipients)}{known}")


def _amount(messages: int, recipients: int) -> str:
    return f"{counted(recipients, 'recipient')} of {counted(messages, 'message')}"


@contextmanager
def _input(path: str | None) -> Iterator[IO[bytes]]:
    """Yield a file that can be read twice."""
    if path is not None:
        with open(path, "rb") as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                yield file
                return
            with _copied(file) as copy:
                yield copy
        return
    with _copied(sys.stdin.buffer) as copy:
        yield copy


@contextmanager
def _copied(source: IO[bytes]) -> Iterator[IO[bytes]]:
    with SpooledTemporaryFile(_IN_MEMORY) as copy:
        while piece := source.read(1 << 16):
            copy.write(piece)
        copy.seek(0)
        yield copy
