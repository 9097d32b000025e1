"""Rows of the embedded store: values to columns and back, many rows to a statement.

For each value that is neither a plain number nor text, `sqlite3` looks for an adapter, with an
exception inside, which takes longer than to bind the others of its row. So ids are written as plain
integers, and a column that is empty in all rows of a statement is NULL in its text.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import compress
from typing import Any

from ...mail.address import Mailbox
from ...mail.body import Body, MemoryBody
from ...mail.envelope import Envelope, Parameters, Recipient, RecipientNumber
from ...mail.message import Message
from ...mail.queue_id import QueueId
from ...mail.reply import Reply
from ..schedule.priority import level
from . import assessments
from .spool import FileBody, Spool

_ROWS = 500  # to a statement: 14 values each, of the 32,766 that SQLite takes

_Value = str | bytes | int | float | None
Row = Sequence[_Value]

MESSAGE = (
    "id, sender_local, sender_domain, parameters, trace, body, size, received_at, expires_at,"
    " assessment"
)
"""The columns of a message, as `message` reads and `message_row` writes them."""

FILED_MESSAGE = f"{MESSAGE}, file"
"""Those of a message whose body file may have been made for another one (`filed_row`)."""

RECIPIENT = (
    "message, number, local_part, domain, parameters, attempts, last_code, last_status, last_text,"
    " last_remote, original_local, original_domain, reverse_local, reverse_domain,"
    " warned, aliases"
)
"""The columns of a recipient, as `recipient` reads them."""

NEW_RECIPIENT = (
    "message, number, local_part, domain, parameters, attempts, next_attempt, held,"
    " original_local, original_domain, reverse_local, reverse_domain, level, aliases"
)
"""The columns of a recipient that was not tried yet, as `recipient_row` writes them."""


RESTORED_RECIPIENT = f"{NEW_RECIPIENT}, last_code, last_status, last_text, last_remote, warned"
"""The columns of a recipient of another queue, as `restored_row` writes them."""


def insert_rows(database: sqlite3.Connection, start: str, rows: Sequence[Row]) -> int:
    """Insert ``rows`` by statements that begin with ``start``; return how many were inserted."""
    inserted = 0
    for chunk in chunks(rows):
        used = [column.count(None) < len(column) for column in zip(*chunk, strict=True)]
        values = f"({','.join(['?' if each else 'NULL' for each in used])})"
        inserted += database.execute(
            start + ",".join([values] * len(chunk)), flat([compress(row, used) for row in chunk])
        ).rowcount
    return inserted


def chunks(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Yield ``rows`` in pieces of the size that one statement takes."""
    for start in range(0, len(rows), _ROWS):
        yield rows[start : start + _ROWS]


def flat(rows: Iterable[Iterable[_Value]]) -> list[_Value]:
    """Return the values of all rows in one list."""
    return [value for row in rows for value in row]


def marks(rows: Sequence[Row]) -> str:
    """Return parameter marks for rows of one value, separated by commas."""
    return ",".join("?" * len(rows))


def _json(parameters: Parameters) -> str:
    return json.dumps(parameters) if parameters else "{}"


def message_row(message: Message) -> Row:
    """Return the row of a message, without its recipients."""
    body, envelope = message.body, message.envelope
    reverse_path = envelope.reverse_path
    return (
        int(message.id),
        *_mailbox_row(reverse_path),
        _json(envelope.parameters),
        message.trace,
        body.content if isinstance(body, MemoryBody) else None,
        body.size,
        message.received_at,
        message.expires_at,
        assessments.to_column(message.assessment),
    )


def filed_row(message: Message) -> Row:
    """Return the row of a message, without its recipients, as the embedded store has it."""
    body = message.body
    file = body.id if isinstance(body, FileBody) else None
    return (*message_row(message), None if file is None else int(file))


def _mailbox_row(mailbox: Mailbox | None) -> tuple[str | None, str | None]:
    return (None, None) if mailbox is None else (mailbox.local_part, mailbox.domain)


def _mailbox(local_part: str | None, domain: str | None) -> Mailbox | None:
    return None if local_part is None or domain is None else Mailbox(local_part, domain)


@lru_cache(maxsize=256)  # the members of a mailing list share them
def _aliases(text: str | None) -> tuple[Mailbox, ...]:
    return () if text is None else tuple(map(Mailbox.parse, text.split("\n")))


def recipient(row: Sequence[Any]) -> Recipient:
    """Return the recipient of a row."""
    _, number, local_part, domain, parameters, attempts, code, status, text, remote, *more = row
    return Recipient(
        number=RecipientNumber(number),
        mailbox=Mailbox(local_part, domain),
        parameters={} if parameters == "{}" else json.loads(parameters),
        attempts=attempts,
        last_reply=None if code is None else Reply.of(code, status, text),
        last_remote=remote,
        original=_mailbox(*more[:2]),
        reverse_path=_mailbox(*more[2:4]),
        warned=bool(more[4]),
        aliases=_aliases(more[5]),
    )


def recipient_row(message: Message, recipient: Recipient) -> Row:
    """Return the row of a recipient that was not tried yet."""
    return (
        int(message.id),
        recipient.number,
        recipient.mailbox.local_part,
        recipient.mailbox.domain,
        _json(recipient.parameters),
        0,
        *((None, message.received_at) if message.assessment.hold else (message.released_at, None)),
        *_mailbox_row(recipient.original),
        *_mailbox_row(recipient.reverse_path),
        level(message),
        "\n".join(map(str, recipient.aliases)) if recipient.aliases else None,
    )


def restored_row(
    message: Message, recipient: Recipient, next_attempt: float | None, held: float | None
) -> Row:
    """Return the row of a recipient that another queue has exported."""
    row = list(recipient_row(message, recipient))
    row[5:8] = recipient.attempts, next_attempt, held
    reply = recipient.last_reply
    last = (None, None, None) if reply is None else (reply.code, reply.status, reply.text)
    return (*row, *last, recipient.last_remote, int(recipient.warned))


def message(row: Sequence[Any], recipients: tuple[Recipient, ...], spool: Spool) -> Message:
    """Return the message of a row, with ``recipients``, which are some or all of its own.

    Args:
        row: of `MESSAGE` or `FILED_MESSAGE`.
        recipients: of the message.
        spool: the directory of large bodies.
    """
    id, local_part, domain, parameters, trace, content, size, received_at, expires_at, *more = row
    found, *file = more
    body: Body = MemoryBody(content or b"")
    if content is None:
        body = spool.stored(QueueId(id), size, *file)
    return Message(
        id=QueueId(id),
        envelope=Envelope(_mailbox(local_part, domain), recipients, json.loads(parameters)),
        trace=trace,
        body=body,
        received_at=received_at,
        expires_at=expires_at,
        assessment=assessments.from_column(found),
    )
