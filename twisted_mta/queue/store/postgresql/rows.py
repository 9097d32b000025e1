"""Rows of the store in PostgreSQL: values to columns and back, many rows to a statement.

A statement takes an array for each column, so that its text is the same for any number of rows and
is parsed once for each connection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from psycopg import Connection, Cursor

from ....mail.envelope import Recipient
from ....mail.message import Message
from ....mail.queue_id import QueueId
from .. import rows
from ..leases import RecipientKey
from ..spool import Spool

Database = Connection[tuple[Any, ...]]
"""A connection, in a transaction as long as operations are applied."""

Row = Sequence[Any]

_MESSAGE_TYPES = (
    *("bigint", "text", "text", "text", "bytea", "bytea", "bigint", "float8", "float8", "text"),
    "text",
)
_RECIPIENT_TYPES = (
    *("bigint", "int", "text", "text", "text", "int", "float8", "float8"),
    *("text", "text", "text", "text", "int", "text", "bigint"),
)
MESSAGE, RECIPIENT = rows.MESSAGE, rows.RECIPIENT


def octets(text: str) -> bytes:
    """Return a text as it is stored where a peer wrote it: PostgreSQL's text has no NUL."""
    return text.encode("utf-8", "surrogateescape")


def text(octets: bytes) -> str:
    """Return the text that `octets` stored."""
    return octets.decode("utf-8", "surrogateescape")


def arrays(types: Sequence[str]) -> str:
    """Return ``unnest(…)`` over one array parameter for each type of a column."""
    # In a text each octet would be two digits.
    marks = (f"{'%b' if type == 'bytea' else '%s'}::{type}[]" for type in types)
    return f"unnest({', '.join(marks)})"


def columns(rows: Sequence[Row], width: int) -> list[list[Any]]:
    """Return the arrays of ``rows``, one for each of their columns."""
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]


def insert(
    database: Database,
    table: str,
    names: str,
    types: Sequence[str],
    rows: Sequence[Row],
    end: str = "",
) -> int:
    """Insert ``rows``; return how many were inserted.

    Args:
        database: the connection.
        table: its name.
        names: of the columns.
        types: of the columns.
        rows: their values.
        end: what follows in the statement; where it is empty, all are inserted, or none of the
            transaction is.
    """
    if not rows:
        return 0
    returning = f" {end} RETURNING 1" if end else ""
    inserted = database.execute(
        f"INSERT INTO {table} ({names}) SELECT * FROM {arrays(types)}{returning}",
        columns(rows, len(types)),
    )
    return changed(inserted) if end else len(rows)


def changed(statement: Cursor[tuple[Any, ...]]) -> int:
    """Return how many rows a statement with RETURNING has changed."""
    return len(statement.fetchall())


def insert_messages(database: Database, messages: Sequence[Message], machine: str) -> int:
    """Insert the rows of messages without their recipients; return how many were inserted."""
    new = [(*rows.message_row(message), machine) for message in messages]
    return insert(database, "message", f"{MESSAGE}, machine", _MESSAGE_TYPES, new)


def insert_recipients(
    database: Database, messages: Sequence[Message], leases: Sequence[int]
) -> int:
    """Insert the recipients of messages, each leased to the worker that ``leases`` has for it."""
    new = [
        (*rows.recipient_row(message, recipient), lease)
        for message, lease in zip(messages, leases, strict=True)
        for recipient in message.envelope.recipients
    ]
    names = f"{rows.NEW_RECIPIENT}, lease"
    return insert(database, "recipient", names, _RECIPIENT_TYPES, new)


def insert_restored(database: Database, restored: Sequence[Row]) -> int:
    """Insert recipients of another queue, as `store.rows.restored_row` returns them."""
    new = [
        (*row[:16], None if row[16] is None else octets(row[16]), *row[17:], 0) for row in restored
    ]
    names = f"{rows.RESTORED_RECIPIENT}, lease"
    types = (*_RECIPIENT_TYPES[:-1], "int", "text", "bytea", "text", "int", "bigint")
    return insert(database, "recipient", names, types, new)


def recipient(row: Row) -> Recipient:
    """Return the recipient of a row of `RECIPIENT`."""
    last = None if row[8] is None else text(row[8])
    return rows.recipient((*row[:8], last, *row[9:]))


def message(row: Row, recipients: tuple[Recipient, ...], spool: Spool) -> Message:
    """Return the message of a row of `MESSAGE`, with some or all of its recipients."""
    return rows.message(row, recipients, spool)


def pieces(database: Database, id: int) -> Iterator[bytes]:
    """Yield a large body, piece by piece."""
    number = 0
    while row := database.execute(
        "SELECT content FROM piece WHERE message = %s AND number = %s", (id, number), binary=True
    ).fetchone():
        yield row[0]
        number += 1


def keys(keys: Sequence[RecipientKey]) -> list[list[int]]:
    """Return the arrays of `CHOSEN`."""
    return [[id for id, _ in keys], [number for _, number in keys]]


CHOSEN = "unnest(%s::bigint[], %s::int[]) AS chosen (m, n)"
"""The keys of recipients, in the order of the array."""

IS_CHOSEN = "recipient.message = chosen.m AND recipient.number = chosen.n"

Left = tuple[int, int, int, "float | None"]
"""A recipient that left the queue: message, number, attempts, and since when it was held."""


def delete(database: Database, which: Sequence[RecipientKey], condition: str) -> list[Left]:
    """Delete recipients that meet a condition, with their past attempts."""
    if not which:
        return []
    left = left_of(deletion(database, which, condition))
    forget_attempts(database, [(id, number) for id, number, attempts, _ in left if attempts])
    return left


def deletion(
    database: Database, which: Sequence[RecipientKey], condition: str
) -> Cursor[tuple[Any, ...]]:
    """Delete recipients that meet a condition; their past attempts stay (`left_of`)."""
    return database.execute(
        f"DELETE FROM recipient USING {CHOSEN} WHERE {IS_CHOSEN} AND {condition}"
        " RETURNING message, number, attempts, held",
        keys(which),
    )


def left_of(rows: Cursor[tuple[Any, ...]]) -> list[Left]:
    """Return the recipients that a statement has deleted."""
    return [(id, number, attempts, held) for id, number, attempts, held in rows.fetchall()]


def forget_attempts(database: Database, tried: Sequence[RecipientKey]) -> None:
    """Delete the past attempts of recipients that have left."""
    if not tried:
        return
    database.execute(
        f"DELETE FROM attempt USING {CHOSEN} WHERE message = m AND number = n AND NOT EXISTS"
        " (SELECT 1 FROM recipient WHERE recipient.message = m AND recipient.number = n)",
        keys(tried),
    )
    database.execute(
        "DELETE FROM conversation WHERE message = ANY(%s) AND NOT EXISTS"
        " (SELECT 1 FROM attempt WHERE attempt.message = conversation.message)",
        ([id for id, _ in tried],),
    )


def ids(rows: Sequence[Row]) -> list[QueueId]:
    """Return the ids in the first column, each once."""
    return [QueueId(id) for id in dict.fromkeys(row[0] for row in rows)]
