"""The statements of the embedded store on events that wait for webhooks."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from .rows import chunks, flat, insert_rows, marks
from .webhook_events import (
    ChangeEvents,
    DropEvents,
    EventCount,
    EventCounts,
    NewEvent,
    TakeEvents,
    TakenEvents,
    WaitingEvent,
)


def record(database: sqlite3.Connection, events: Sequence[NewEvent]) -> None:
    """Insert events."""
    insert_rows(
        database,
        "INSERT INTO webhook_event (webhook, name, body, at, next_attempt) VALUES ",
        [(each.webhook, each.name, each.body, each.at, each.at) for each in events],
    )


def take(database: sqlite3.Connection, take: TakeEvents) -> TakenEvents:
    """Read due events."""
    rows = database.execute(
        "SELECT id, name, body, at, attempts FROM webhook_event"
        " WHERE webhook = ? AND next_attempt <= ? ORDER BY next_attempt, id LIMIT ?",
        (take.webhook, take.now, take.limit),
    ).fetchall()
    following: float | None = None
    if len(rows) < take.limit:
        (following,) = database.execute(
            "SELECT min(next_attempt) FROM webhook_event WHERE webhook = ? AND next_attempt > ?",
            (take.webhook, take.now),
        ).fetchone()
    return TakenEvents(tuple(WaitingEvent(*row) for row in rows), following)


def change(database: sqlite3.Connection, change: ChangeEvents) -> None:
    """Remove and postpone events."""
    for chunk in chunks([(id,) for id in change.ended]):
        database.execute(f"DELETE FROM webhook_event WHERE id IN ({marks(chunk)})", flat(chunk))
    for each in change.postponed:
        database.execute(
            "UPDATE webhook_event SET attempts = ?, next_attempt = ? WHERE id = ?",
            (each.attempts, each.next_attempt, each.id),
        )


def drop(database: sqlite3.Connection, drop: DropEvents) -> EventCount:
    """Remove the oldest events."""
    before = float("inf") if drop.before is None else drop.before
    rows = database.execute(
        # Rows are numbered as they come, so that their order is that of time.
        "DELETE FROM webhook_event WHERE id IN (SELECT id FROM webhook_event"
        " WHERE webhook = ? AND at < ? ORDER BY id LIMIT ?) RETURNING length(body)",
        (drop.webhook, before, drop.limit),
    ).fetchall()
    return EventCount(len(rows), sum(octets for (octets,) in rows))


def count(database: sqlite3.Connection) -> EventCounts:
    """Count all events."""
    rows = database.execute(
        "SELECT webhook, count(*), sum(length(body)) FROM webhook_event GROUP BY webhook"
    ).fetchall()
    return EventCounts({webhook: EventCount(number, octets) for webhook, number, octets in rows})
