"""The statements of the store in PostgreSQL on events that wait for webhooks.

A process has events of its own, which no other one reads. Those of a process that is no more are
adopted by another one of its machine; those of a machine that does not come back are removed by the
others when they are old.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..webhook_events import (
    ChangeEvents,
    DropEvents,
    EventCount,
    EventCounts,
    NewEvent,
    TakeEvents,
    TakenEvents,
    WaitingEvent,
)
from .rows import Database, columns, insert

Place = tuple[str, int]
"""A process: its machine and slot."""

_TYPES = ("text", "int", "text", "text", "bytea", "float8", "float8")
_ABANDONED = 30 * 86_400.0  # seconds


def record(database: Database, place: Place, events: Sequence[NewEvent]) -> None:
    """Insert events."""
    insert(
        database,
        "webhook_event",
        "machine, slot, webhook, name, body, at, next_attempt",
        _TYPES,
        [(*place, each.webhook, each.name, each.body, each.at, each.at) for each in events],
    )


def take(database: Database, place: Place, take: TakeEvents) -> TakenEvents:
    """Read due events."""
    rows = database.execute(
        "SELECT id, name, body, at, attempts FROM webhook_event WHERE machine = %s AND slot = %s"
        " AND webhook = %s AND next_attempt <= %s ORDER BY next_attempt, id LIMIT %s",
        (*place, take.webhook, take.now, take.limit),
    ).fetchall()
    following: float | None = None
    if len(rows) < take.limit:
        [(following,)] = database.execute(
            "SELECT min(next_attempt) FROM webhook_event"
            " WHERE machine = %s AND slot = %s AND webhook = %s AND next_attempt > %s",
            (*place, take.webhook, take.now),
        ).fetchall()
    return TakenEvents(tuple(WaitingEvent(*row) for row in rows), following)


def change(database: Database, change: ChangeEvents) -> None:
    """Remove and postpone events."""
    if change.ended:
        database.execute("DELETE FROM webhook_event WHERE id = ANY(%s)", (list(change.ended),))
    if change.postponed:
        rows = [(each.id, each.attempts, each.next_attempt) for each in change.postponed]
        database.execute(
            "UPDATE webhook_event SET attempts = a, next_attempt = t"
            " FROM unnest(%s::bigint[], %s::int[], %s::float8[]) AS chosen (i, a, t) WHERE id = i",
            columns(rows, 3),
        )


def drop(database: Database, place: Place, drop: DropEvents) -> EventCount:
    """Remove the oldest events; and those of other machines that are much older."""
    before = float("inf") if drop.before is None else drop.before
    rows = database.execute(
        "DELETE FROM webhook_event WHERE id IN (SELECT id FROM webhook_event"
        " WHERE machine = %s AND slot = %s AND webhook = %s AND at < %s ORDER BY id LIMIT %s)"
        " RETURNING length(body)",
        (*place, drop.webhook, before, drop.limit),
    ).fetchall()
    if drop.before is not None:
        database.execute(
            "DELETE FROM webhook_event WHERE machine <> %s AND at < %s",
            (place[0], drop.before - _ABANDONED),
        )
    return EventCount(len(rows), sum(octets for (octets,) in rows))


def count(database: Database, place: Place) -> EventCounts:
    """Count the events of a process."""
    rows = database.execute(
        "SELECT webhook, count(*), sum(length(body))::bigint FROM webhook_event"
        " WHERE machine = %s AND slot = %s GROUP BY webhook",
        place,
    ).fetchall()
    return EventCounts({webhook: EventCount(number, octets) for webhook, number, octets in rows})


def adopt(database: Database, place: Place) -> None:
    """Take over the events of processes of the same machine that are no more."""
    database.execute(
        "UPDATE webhook_event SET slot = %s WHERE machine = %s AND slot <> %s AND NOT EXISTS"
        " (SELECT 1 FROM worker WHERE worker.machine = webhook_event.machine"
        " AND worker.slot = webhook_event.slot)",
        (place[1], place[0], place[1]),
    )
