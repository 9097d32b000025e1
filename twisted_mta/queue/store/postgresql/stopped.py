"""The queue in a database, read without a change to it by a machine whose MTA does not run.

Other machines may work on it meanwhile. A standby is good enough.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from typing import TypeVar

import psycopg
from attrs import evolve

from ....interfaces import Executor, Files
from ....mail.message import Message
from ....mail.queue_id import QueueId
from ...operator.operations import (
    Browse,
    CountWaiting,
    Inspect,
    Inspected,
    ListedMessage,
    Page,
    ReadSuspended,
    Summarize,
    Summarized,
    Suspended,
    Tallied,
    WaitingCounts,
)
from ..contract import NewerSchema, StoreError
from ..spool import FileBody, Spool
from ..stopped import Reading
from . import operator_queries
from .connection import Connection, connect
from .rows import pieces
from .schema import require_version

_Message = TypeVar("_Message", ListedMessage, Inspected)


class StoppedDatabase:
    """Reads a queue (as `store.stopped.StoppedQueue` reads another).

    Args:
        url: of the database, as libpq reads it.
        machine: the id of this machine; empty: it has none.
        files: the disk: the large body that was read last is copied into a temporary directory.
        executor: runs calls in the caller's turn.
        seconds: a monotonic clock.
    """

    def __init__(
        self,
        url: str,
        *,
        machine: str,
        files: Files,
        executor: Executor,
        seconds: Callable[[], float],
    ) -> None:
        self._url = url
        self._machine = machine
        self._files = files
        self._seconds = seconds
        self._database: Connection | None = None
        self._directory = tempfile.mkdtemp(prefix="twisted-mta-")
        self._spool = Spool(self._directory, files=files, executor=executor)
        self._copied: QueueId | None = None

    def open(self) -> None:
        """Connect.

        Raises:
            StoreError: the database cannot be read.
            NewerSchema: a newer program has made its tables.
        """
        try:
            self._database = connect(self._url, self._seconds, read_only=True)
            require_version(self._database)
        except (OSError, psycopg.Error) as error:
            self.close()
            raise StoreError(f"the queue in PostgreSQL cannot be read: {error}") from error
        except (StoreError, NewerSchema):
            self.close()
            raise

    def perform(
        self, operation: Reading
    ) -> Page | Inspected | Tallied | Summarized | WaitingCounts | Suspended | None:
        """Return the result of an operation.

        Raises:
            StoreError: the database cannot be read.
        """
        database = self._database
        if database is None:
            raise StoreError("the queue is not open")
        try:
            with database.transaction():
                if isinstance(operation, Browse):
                    page = operator_queries.browse(database, operation, self._machine)
                    return evolve(page, messages=tuple(map(_seen, page.messages)))
                if isinstance(operation, Inspect):
                    return self._inspected(database, operation)
                if isinstance(operation, Summarize):
                    return operator_queries.summarize(database, operation)
                if isinstance(operation, CountWaiting):
                    return operator_queries.count_waiting(database, operation)
                if isinstance(operation, ReadSuspended):
                    return Suspended(operator_queries.read_suspended(database))
                return operator_queries.tally(database, operation)
        except (OSError, psycopg.Error) as error:
            raise StoreError(f"the queue in PostgreSQL cannot be read: {error}") from error

    def _inspected(self, database: Connection, inspect: Inspect) -> Inspected | None:
        found = operator_queries.inspect(database, inspect, self._spool, self._machine)
        if found is None:
            return None
        found = _seen(found)
        if not isinstance(found.message.body, FileBody) or found.quarantine:
            return found
        message = found.message
        if self._copied != message.id:
            self._copy(database, message)
        return found

    def _copy(self, database: Connection, message: Message) -> None:
        """Copy a large body, in place of the one before."""
        if self._copied is not None:
            self._files.unlink(self._spool.path(self._copied))
        file = self._files.create(self._spool.path(message.id))
        try:
            for piece in pieces(database, message.id):
                file.write(piece)
        finally:
            file.close()
        self._copied = message.id

    def close(self) -> None:
        """Close the connection, and remove the copy."""
        database, self._database = self._database, None
        if database is not None:
            database.close()
        shutil.rmtree(self._directory, ignore_errors=True)


def _seen(message: _Message) -> _Message:
    """Return a message without leases of this machine: the process that had them has died."""
    recipients = tuple(evolve(each, leased=each.elsewhere) for each in message.recipients)
    return evolve(message, recipients=recipients)
