"""What is due in the embedded store: asked for by domain, so that nothing else is looked at."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from ..envelope import Message, QueueId, Recipient
from .leases import Key, Leases
from .rows import MESSAGE, RECIPIENT, flat, marks, message, parts, recipient
from .spool import Spool
from .store import Lease, Leased, Overdue, Survey, Want

_WANTS = 100  # to a statement: SQLite joins 500 at most
_LAST = 2**63 - 1  # no id is higher
_LOOKED_AT = 1000  # messages that are looked at for `Overdue` at once
_OVERDUE = 50  # messages that are taken of them: bodies come along

# Which domains there are: one step down the index for each, over all that they have.
_SURVEY = """
    WITH RECURSIVE held (domain) AS (
        SELECT min(domain) FROM recipient WHERE next_attempt IS NOT NULL
        UNION ALL
        SELECT (
            SELECT min(domain) FROM recipient
            WHERE next_attempt IS NOT NULL AND recipient.domain > held.domain
        )
        FROM held WHERE held.domain IS NOT NULL
    )
    SELECT
        domain,
        (
            SELECT min(next_attempt) FROM recipient
            WHERE recipient.domain = held.domain AND next_attempt IS NOT NULL
        ),
        (
            SELECT max(next_attempt) FROM recipient
            WHERE recipient.domain = held.domain AND next_attempt IS NOT NULL
        )
    FROM held WHERE domain IS NOT NULL
"""

# The first of one domain, by the index alone.
_FIRST = (
    "SELECT * FROM (SELECT domain, message, number, next_attempt FROM recipient"
    " WHERE domain = ? AND next_attempt IS NOT NULL AND message <= ?"
    " ORDER BY next_attempt LIMIT ?)"
)


def survey(database: sqlite3.Connection, survey: Survey) -> Leased:
    """Name all domains (`store.Survey`)."""
    rest: dict[str, float | None] = {}
    for domain, first, last in database.execute(_SURVEY).fetchall():
        if last > survey.latest:
            database.execute(
                "UPDATE recipient SET next_attempt = ? WHERE domain = ? AND next_attempt > ?",
                (survey.now, domain, survey.latest),
            )
            first = min(first, survey.now)
        rest[domain] = first
    return Leased((), rest)


def lease(database: sqlite3.Connection, lease: Lease, leases: Leases, spool: Spool) -> Leased:
    """Return what is due of what is wanted; it is for the caller to lease it.

    Args:
        database: the connection.
        lease: see there.
        leases: what is leased already.
        spool: where large bodies are.
    """
    wanted = {want.domain: want for want in lease.wants}
    allowed = {**{domain: Want(domain, 0) for domain in lease.also}, **wanted}
    first = _first(database, lease.wants, leases)
    ids: dict[int, None] = {}
    for domain, rows in first.items():
        messages_of_it: dict[int, None] = {}
        for id, number, time in rows:
            if time > lease.now or len(messages_of_it) == wanted[domain].limit:
                break
            if (id, number) not in leases:
                messages_of_it[id] = None
        ids.update(messages_of_it)
    taken: dict[Key, None] = {}
    messages: list[Message] = []
    for part in parts([(id,) for id in sorted(ids)]):
        recipients: dict[int, list[Recipient]] = {}
        for row in database.execute(
            f"SELECT {RECIPIENT} FROM recipient"
            f" WHERE message IN ({marks(part)}) AND next_attempt <= ?"
            " ORDER BY message, number",
            (*flat(part), lease.now),
        ):
            key, want = (row[0], row[1]), allowed.get(row[3])
            if want is None or key in leases or not _within(want, row[0]):
                continue
            taken[key] = None
            recipients.setdefault(row[0], []).append(recipient(row))
        for row in database.execute(
            f"SELECT {MESSAGE} FROM message WHERE id IN ({marks(part)}) ORDER BY id",
            flat(part),
        ):
            messages.append(message(row, tuple(recipients[row[0]]), spool))
    rest: dict[str, float | None] = {}
    for domain, rows in first.items():
        free = (
            time
            for id, number, time in rows
            if (id, number) not in leases and (id, number) not in taken
        )
        # Where all that was looked at is leased, what comes next is not before the last of it.
        full = len(rows) == _length(wanted[domain], leases)
        rest[domain] = next(free, rows[-1][2] if full else None)
    return Leased(tuple(messages), rest)


def overdue(database: sqlite3.Connection, overdue: Overdue, leases: Leases, spool: Spool) -> Leased:
    """Return what has been here for long (`store.Overdue`); it is for the caller to lease it."""
    # By the primary key: what is older than `after` is not looked at.
    ids = database.execute(
        "SELECT DISTINCT message FROM recipient WHERE message > ? AND message < ?"
        " ORDER BY message LIMIT ?",
        (overdue.after, overdue.before, _LOOKED_AT),
    ).fetchall()
    through = QueueId(ids[-1][0]) if len(ids) == _LOOKED_AT else None
    recipients: dict[int, list[Recipient]] = {}
    for part in parts(ids):
        for row in database.execute(
            f"SELECT {RECIPIENT} FROM recipient"
            f" WHERE message IN ({marks(part)}) AND warned = 0 AND next_attempt IS NOT NULL"
            " AND message IN (SELECT id FROM message WHERE sender_domain IS NOT NULL)"
            " ORDER BY message, number",
            flat(part),
        ):
            if (row[0], row[1]) in leases:
                continue
            if row[0] not in recipients and len(recipients) == _OVERDUE:
                through = QueueId(next(reversed(recipients)))
                break
            recipients.setdefault(row[0], []).append(recipient(row))
        else:
            continue
        break
    wanted = [(id,) for id in recipients]
    messages = [
        message(row, tuple(recipients[row[0]]), spool)
        for part in parts(wanted)
        for row in database.execute(
            f"SELECT {MESSAGE} FROM message WHERE id IN ({marks(part)}) ORDER BY id", flat(part)
        )
    ]
    return Leased(tuple(messages), {}, through)


def _within(want: Want, id: int) -> bool:
    return want.before is None or id < want.before


def _length(want: Want, leases: Leases) -> int:
    """Return how many rows of a domain are looked at: what is leased is stepped over."""
    return want.limit + leases.of(want.domain) + 1


def _first(
    database: sqlite3.Connection, wants: Sequence[Want], leases: Leases
) -> dict[str, list[tuple[int, int, float]]]:
    """Return (message, number, next attempt) of the first of each domain."""
    first: dict[str, list[tuple[int, int, float]]] = {want.domain: [] for want in wants}
    for start in range(0, len(wants), _WANTS):
        some = wants[start : start + _WANTS]
        values = [
            (want.domain, _LAST if want.before is None else want.before - 1, _length(want, leases))
            for want in some
        ]
        statement = " UNION ALL ".join([_FIRST] * len(some))
        for domain, *row in database.execute(statement, flat(values)):
            first[domain].append(tuple(row))
    return first
