"""The remembered attempts at each recipient, as rows of the embedded store.

Rows are written only when a recipient is deferred, in the transaction that defers it. A trigger of
the schema removes them along with their recipient.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from attrs import asdict

from ...mail.envelope import RecipientNumber
from ...mail.queue_id import QueueId
from ...mail.reply import Reply
from ...mail.tls_facts import TLSFacts
from .attempts import KEPT_ATTEMPTS, KEPT_TRANSCRIPTS, PastAttempt
from .contract import Deferral, Settle
from .rows import chunks, flat, insert_rows, marks

_COLUMNS = (
    "message, number, attempt, ended_at, next_hop, code, status, text, remote, tls, uncertain,"
    " unreachable, conversation"
)


def record(database: sqlite3.Connection, settle: Settle, deferred: Sequence[Deferral]) -> None:
    """Record the attempts that ended in a deferral; drop older ones than are kept.

    Args:
        database: the connection, in a transaction.
        settle: the settle that the deferrals belong to.
        deferred: the deferrals that are recorded for the first time.
    """
    id = settle.message.id
    before = {each.number: each.attempts for each in settle.message.envelope.recipients}
    # Recipients that were tried in one session share its transcript.
    transcripts: dict[str, int | None] = {"": None}
    for deferral in deferred:
        transcript = deferral.outcome.transcript
        if transcript not in transcripts:
            transcripts[transcript] = database.execute(
                "INSERT INTO conversation (message, transcript) VALUES (?, ?)", (id, transcript)
            ).lastrowid
    insert_rows(
        database,
        f"INSERT OR IGNORE INTO attempt ({_COLUMNS}) VALUES ",
        [
            (
                id,
                outcome.number,
                before[outcome.number] + 1,
                settle.at,
                settle.next_hop,
                outcome.reply.code,
                outcome.reply.status,
                outcome.reply.text,
                outcome.remote,
                _tls_to_json(outcome.tls),
                outcome.uncertain,
                outcome.unreachable,
                transcripts[outcome.transcript],
            )
            for outcome in (each.outcome for each in deferred)
        ],
    )
    numbers = [each.outcome.number for each in deferred]
    if max(before[number] for number in numbers) >= KEPT_TRANSCRIPTS:
        _drop_old(database, id, numbers)


def _drop_old(
    database: sqlite3.Connection, id: QueueId, numbers: Sequence[RecipientNumber]
) -> None:
    for chunk in chunks([(number,) for number in numbers]):
        which = (
            f"message = ? AND number IN ({marks(chunk)}) AND attempt <= (SELECT attempts FROM"
            " recipient WHERE recipient.message = attempt.message"
            " AND recipient.number = attempt.number) - ?"
        )
        database.execute(f"DELETE FROM attempt WHERE {which}", (id, *flat(chunk), KEPT_ATTEMPTS))
        database.execute(
            f"UPDATE attempt SET conversation = NULL WHERE {which} AND conversation IS NOT NULL",
            (id, *flat(chunk), KEPT_TRANSCRIPTS),
        )
    database.execute(
        "DELETE FROM conversation WHERE message = ? AND id NOT IN"
        " (SELECT conversation FROM attempt WHERE message = ? AND conversation IS NOT NULL)",
        (id, id),
    )


def read(
    database: sqlite3.Connection, id: QueueId
) -> dict[RecipientNumber, tuple[PastAttempt, ...]]:
    """Return the remembered attempts at each recipient of a message, the oldest first."""
    attempts: dict[RecipientNumber, list[PastAttempt]] = {}
    for row in database.execute(
        "SELECT number, attempt, ended_at, next_hop, code, status, text, remote, tls, uncertain,"
        " unreachable, transcript FROM attempt LEFT JOIN conversation"
        " ON conversation.id = attempt.conversation WHERE attempt.message = ?"
        " ORDER BY number, attempt",
        (id,),
    ):
        number, attempt, ended_at, next_hop, code, status, text, remote, tls, *more = row
        uncertain, unreachable, transcript = more
        attempts.setdefault(RecipientNumber(number), []).append(
            PastAttempt(
                attempt=attempt,
                ended_at=ended_at,
                next_hop=next_hop,
                reply=Reply.of(code, status, text),
                remote=remote,
                tls=_tls_from_json(tls),
                uncertain=bool(uncertain),
                unreachable=bool(unreachable),
                transcript=transcript or "",
            )
        )
    return {number: tuple(each) for number, each in attempts.items()}


def _tls_to_json(tls: TLSFacts | None) -> str | None:
    return None if tls is None else json.dumps(asdict(tls))


def _tls_from_json(tls: str | None) -> TLSFacts | None:
    return None if tls is None else TLSFacts(**json.loads(tls))
