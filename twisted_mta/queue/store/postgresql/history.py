"""The remembered attempts at each recipient, as rows of the store in PostgreSQL.

Rows are written only when a recipient is deferred, in the transaction that defers it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from attrs import asdict

from ....mail.envelope import RecipientNumber
from ....mail.printable import printable
from ....mail.queue_id import QueueId
from ....mail.reply import Reply
from ....mail.tls_facts import TLSFacts
from ..attempts import KEPT_ATTEMPTS, KEPT_TRANSCRIPTS, PastAttempt
from ..contract import Deferral, Settle
from .rows import Database, Row, arrays, columns, octets, text

_COLUMNS = (
    "message, number, attempt, ended_at, next_hop, code, status, text, remote, tls, uncertain,"
    " unreachable, machine"
)
_TYPES = (
    *("bigint", "int", "int", "float8", "text", "int", "text", "bytea", "text", "text"),
    *("boolean", "boolean", "text"),
)


def record(database: Database, settle: Settle, deferred: Sequence[Deferral], machine: str) -> None:
    """Record the attempts that ended in a deferral; drop older ones than are kept.

    Args:
        database: the connection.
        settle: the settle that the deferrals belong to.
        deferred: the deferrals that are recorded for the first time.
        machine: the id of the one that has made the attempts.
    """
    id = settle.message.id
    before = {each.number: each.attempts for each in settle.message.envelope.recipients}
    # Recipients that were tried in one session share its transcript.
    by_transcript: dict[str, list[Row]] = {}
    for deferral in deferred:
        outcome = deferral.outcome
        row = (
            id,
            outcome.number,
            before[outcome.number] + 1,
            settle.at,
            settle.next_hop,
            outcome.reply.code,
            outcome.reply.status,
            octets(outcome.reply.text),
            outcome.remote,
            None if outcome.tls is None else json.dumps(asdict(outcome.tls)),
            bool(outcome.uncertain),
            bool(outcome.unreachable),
            machine,
        )
        by_transcript.setdefault(outcome.transcript, []).append(row)
    for transcript, rows in by_transcript.items():
        if transcript:
            database.execute(
                "INSERT INTO conversation (message, transcript) VALUES (%s, %s)",
                (id, octets(transcript)),
            )
        # Its id is not fetched, since that would be a round trip.
        conversation = "currval('conversation_id_seq')" if transcript else "NULL"
        database.execute(
            f"INSERT INTO attempt ({_COLUMNS}, conversation) SELECT its.*, {conversation}"
            f" FROM {arrays(_TYPES)} AS its ON CONFLICT DO NOTHING",
            columns(rows, len(_TYPES)),
        )
    numbers = [deferral.outcome.number for deferral in deferred]
    if max(before[number] for number in numbers) >= KEPT_TRANSCRIPTS:
        _drop_old(database, id, numbers)


def _drop_old(database: Database, id: QueueId, numbers: Sequence[RecipientNumber]) -> None:
    which = (
        "message = %s AND number = ANY(%s) AND attempt <= (SELECT attempts FROM recipient"
        " WHERE recipient.message = attempt.message AND recipient.number = attempt.number) - %s"
    )
    database.execute(f"DELETE FROM attempt WHERE {which}", (id, list(numbers), KEPT_ATTEMPTS))
    database.execute(
        f"UPDATE attempt SET conversation = NULL WHERE {which} AND conversation IS NOT NULL",
        (id, list(numbers), KEPT_TRANSCRIPTS),
    )
    database.execute(
        "DELETE FROM conversation WHERE message = %s AND NOT EXISTS (SELECT 1 FROM attempt"
        " WHERE attempt.message = %s AND attempt.conversation = conversation.id)",
        (id, id),
    )


def machine_names(database: Database, ids: Sequence[str]) -> dict[str, str]:
    """Return the names of machines for people, by id: a label, and the beginning of the id."""
    if not ids:
        return {}
    known: dict[str, str] = {}
    [(table,)] = database.execute("SELECT to_regclass('machine')").fetchall()
    if table is not None:  # it is made a moment after the tables of the queue
        known = dict(
            database.execute(
                "SELECT id, hostname FROM machine WHERE id = ANY(%s)", (list(ids),)
            ).fetchall()
        )
    return {
        each: printable(f"{known[each]} ({each[:8]})" if each in known else each[:8])
        for each in ids
    }


def read(database: Database, id: QueueId) -> dict[RecipientNumber, tuple[PastAttempt, ...]]:
    """Return the remembered attempts at each recipient of a message, the oldest first."""
    attempts: dict[RecipientNumber, list[PastAttempt]] = {}
    rows = database.execute(
        "SELECT number, attempt, ended_at, next_hop, code, status, text, remote, tls, uncertain,"
        " unreachable, transcript, machine FROM attempt LEFT JOIN conversation"
        " ON conversation.id = attempt.conversation WHERE attempt.message = %s"
        " ORDER BY number, attempt",
        (id,),
    ).fetchall()
    names = machine_names(database, [row[-1] for row in rows if row[-1]])
    for row in rows:
        number, attempt, ended_at, next_hop, code, status, reply, remote, tls, *more = row
        uncertain, unreachable, transcript, machine = more
        attempts.setdefault(RecipientNumber(number), []).append(
            PastAttempt(
                attempt=attempt,
                ended_at=ended_at,
                next_hop=next_hop,
                reply=Reply.of(code, status, text(reply)),
                remote=remote,
                tls=None if tls is None else TLSFacts(**json.loads(tls)),
                uncertain=uncertain,
                unreachable=unreachable,
                transcript="" if transcript is None else text(transcript),
                machine=names.get(machine, ""),
            )
        )
    return {number: tuple(each) for number, each in attempts.items()}
