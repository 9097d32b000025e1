"""Large bodies on their way into the database and out of it, in pieces.

They have a connection of their own, so that no other message waits for them. A body comes before
its message: in a transaction of its own, which also notes whose it is. The transaction that accepts
the message removes the note. Where the worker ends before that, the pieces are removed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import psycopg

from ....interfaces import Files
from ....mail.body import Body
from ....mail.message import Message
from ....mail.queue_id import QueueId
from .connection import Connection
from .rows import Database, pieces

PIECE = 256 * 1024
"""Octets of a large body that are in memory at a time."""

_PATIENCE = 4.0  # seconds without any progress: a client waits

# Seconds of the whole transfer, after which the server ends one of a machine that was cut off.
_LONGEST = 600

_WRITE = "COPY piece (message, number, content) FROM STDIN (FORMAT BINARY)"


class LargeBodies:
    """Copies bodies, one after the other. Its methods block.

    Args:
        connect: returns a connection to the database.
        files: the disk with the files of bodies.
    """

    def __init__(self, connect: Callable[[], Connection], *, files: Files) -> None:
        self._connect = connect
        self._files = files
        self._database: Connection | None = None

    def bring(self, message: Message, worker: int) -> None:
        """Write the body of a message that a worker is about to accept.

        Raises:
            OSError: the body cannot be read.
            psycopg.Error: it cannot be written.
        """
        with self._transaction() as database:
            database.execute(
                "INSERT INTO incoming (message, worker) VALUES (%s, %s)", (message.id, worker)
            )
            with database.cursor().copy(_WRITE) as copy:
                copy.set_types(("int8", "int4", "bytea"))
                for number, piece in enumerate(cut(message.body)):
                    copy.write_row((message.id, number, piece))

    def fetch(self, id: QueueId, path: str) -> None:
        """Copy the body of a message into a file.

        Raises:
            OSError: it cannot be written.
            psycopg.Error: it cannot be read.
        """
        with self._transaction() as database:
            copy_body(database, self._files, id, path)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Connection]:
        database = self._database
        if database is None or database.closed:
            self._database = database = self._connect()
            database.patience = _PATIENCE
        try:
            with database.transaction():
                database.execute(f"SET LOCAL statement_timeout = {_LONGEST * 1000}")
                yield database
        except psycopg.OperationalError:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection; it is opened again when it is needed."""
        database, self._database = self._database, None
        if database is not None:
            with contextlib.suppress(psycopg.Error):
                database.close()


def cut(body: Body) -> Iterator[bytes]:
    """Yield a body in pieces of the size of a row."""
    gathered = bytearray()
    for chunk in body.chunks():
        gathered += chunk
        while len(gathered) >= PIECE:
            yield bytes(gathered[:PIECE])
            del gathered[:PIECE]
    if gathered:
        yield bytes(gathered)


def copy_body(database: Database, files: Files, id: QueueId, path: str) -> None:
    """Copy the pieces of a body into a file.

    Raises:
        OSError: it cannot be written.
        psycopg.Error: they cannot be read.
    """
    file = files.create(path)
    try:
        for piece in pieces(database, id):
            file.write(piece)
    except BaseException:
        file.close()
        files.unlink(path)
        raise
    file.close()


# The bodies of workers that have ended.
REMOVE_LEFT = (
    "WITH gone AS (DELETE FROM incoming WHERE worker NOT IN (SELECT id FROM worker)"
    " RETURNING message) DELETE FROM piece USING gone WHERE piece.message = gone.message"
)
"""Removes the bodies that a worker has brought, and not accepted before its end."""
