"""Due recipients of the embedded store, found by domain: other domains are not looked at."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ...mail.envelope import Recipient
from ...mail.message import Message
from ...mail.queue_id import QueueId
from ..schedule.priority import effective_due, has_return_time
from .contract import Lease, Leased, Overdue, Survey, Want
from .leases import Leases, RecipientKey
from .levels import Levels
from .rows import FILED_MESSAGE, RECIPIENT, chunks, flat, marks, message, recipient
from .spool import Spool

_WANTS = 100  # to a statement: SQLite joins 500 at most
_LAST = 2**63 - 1  # the highest id
_LOOKED_AT = 1000  # messages that one `Overdue` looks at
_OVERDUE = 50  # messages that one `Overdue` brings, with their bodies

# The domains: one step down the index for each, past all its rows.
_SURVEY = """
    WITH RECURSIVE held (domain) AS (
        SELECT min(domain) FROM recipient WHERE next_attempt IS NOT NULL AND level = 0
        UNION ALL
        SELECT (
            SELECT min(domain) FROM recipient
            WHERE next_attempt IS NOT NULL AND level = 0 AND recipient.domain > held.domain
        )
        FROM held WHERE held.domain IS NOT NULL
    )
    SELECT
        domain,
        (
            SELECT min(next_attempt) FROM recipient
            WHERE recipient.domain = held.domain AND next_attempt IS NOT NULL AND level = 0
        ),
        (
            SELECT max(next_attempt) FROM recipient
            WHERE recipient.domain = held.domain AND next_attempt IS NOT NULL AND level = 0
        )
    FROM held WHERE domain IS NOT NULL
"""

# The same times for one domain and level.
_SURVEY_LEVEL = """
    SELECT
        (
            SELECT min(next_attempt) FROM recipient
            WHERE domain = ?1 AND level = ?2 AND level <> 0 AND next_attempt IS NOT NULL
        ),
        (
            SELECT max(next_attempt) FROM recipient
            WHERE domain = ?1 AND level = ?2 AND level <> 0 AND next_attempt IS NOT NULL
        )
"""

# Brings recipients forward that a wrong clock put off, except where the sender asked for a release
# time (FUTURERELEASE).
_SET_RIGHT = """
    UPDATE recipient SET next_attempt = {due}
    WHERE domain = :domain AND level = :level AND {level} AND next_attempt > :beyond
    AND NOT EXISTS (
        SELECT 1 FROM message WHERE message.id = recipient.message
        AND json_extract(message.parameters, '$.HOLDUNTIL') >= recipient.next_attempt
    )
"""
_NOW, _EARLIER = ":now", "max(:now, next_attempt - :set_back)"
_LEVEL_0, _OTHER_LEVELS = "level = 0", "level <> 0"  # as in the conditions of the indexes

# The first rows of one domain and level, from the index alone.
_FIRST = (
    "SELECT * FROM (SELECT domain, level, message, number, next_attempt FROM recipient"
    " WHERE domain = ? AND level = 0 AND next_attempt IS NOT NULL AND message <= ?"
    " ORDER BY next_attempt LIMIT ?)"
)
_FIRST_OF_LEVEL = (
    "SELECT domain, level, message, number, next_attempt FROM recipient"
    " WHERE domain = ? AND level = ? AND level <> 0 AND next_attempt IS NOT NULL AND message <= ?"
    " ORDER BY next_attempt LIMIT ?"
)


class _Row(NamedTuple):
    message: int
    number: int
    due: float
    level: int


def survey(database: sqlite3.Connection, survey: Survey, levels: Levels) -> Leased:
    """Return all domains (`contract.Survey`), and read their levels anew."""
    rest: dict[str, float | None] = {}
    for domain, first, last in database.execute(_SURVEY).fetchall():
        rest[domain] = _set_right(database, survey, domain, 0, first, last)
    levels.read(database)
    for domain, level in levels.pairs():
        first, last = database.execute(_SURVEY_LEVEL, (domain, level)).fetchone()
        first = _set_right(database, survey, domain, level, first, last)
        known = rest.get(domain)
        rest[domain] = first if known is None else min(first, known)
    return Leased((), rest)


def _set_right(
    database: sqlite3.Connection,
    survey: Survey,
    domain: str,
    level: int,
    first: float,
    last: float,
) -> float:
    """Bring forward recipients that a wrong clock put off; return the earliest due time."""
    which = _LEVEL_0 if level == 0 else _OTHER_LEVELS
    values = {
        "domain": domain,
        "level": level,
        "now": survey.now,
        "set_back": survey.set_back,
    }
    if survey.set_back and last > survey.now:
        statement = _SET_RIGHT.format(due=_EARLIER, level=which)
        database.execute(statement, {**values, "beyond": survey.now})
        first = min(first, max(survey.now, first - survey.set_back))
    if last - survey.set_back > survey.latest:
        statement = _SET_RIGHT.format(due=_NOW, level=which)
        database.execute(statement, {**values, "beyond": survey.latest})
        first = min(first, survey.now)
    return first


def lease(
    database: sqlite3.Connection, lease: Lease, leases: Leases, levels: Levels, spool: Spool
) -> Leased:
    """Return the due messages that a lease asks for; the caller adds them to ``leases``.

    Args:
        database: the connection.
        lease: the operation.
        leases: the recipients that are leased already.
        levels: of each domain.
        spool: the directory of large bodies.
    """
    wanted = {want.domain: want for want in lease.wants}
    allowed = {**{domain: Want(domain, 0) for domain in lease.also}, **wanted}
    first = _first(database, lease.wants, leases, levels)
    ids: dict[int, None] = {}
    with_return_time: dict[RecipientKey, None] = {}
    for domain, lists in first.items():
        ids_of_domain: dict[int, None] = {}
        for row in _due_in_order(lists, lease.now):
            if len(ids_of_domain) == wanted[domain].limit:
                break
            if (row.message, row.number) not in leases:
                ids_of_domain[row.message] = None
                if has_return_time(row.level):
                    with_return_time[row.message, row.number] = None
        ids.update(ids_of_domain)
    taken: dict[RecipientKey, None] = {}
    messages: list[Message] = []
    domains = json.dumps(list(allowed))
    for chunk in chunks([(id,) for id in sorted(ids)]):
        recipients: dict[int, list[Recipient]] = {}
        for row in database.execute(
            f"SELECT {RECIPIENT} FROM recipient"
            f" WHERE message IN ({marks(chunk)}) AND next_attempt <= ?"
            " AND +domain IN (SELECT value FROM json_each(?))"
            " ORDER BY message, number",
            (*flat(chunk), lease.now, domains),
        ):
            key, want = (row[0], row[1]), allowed.get(row[3])
            if want is None or key in leases:
                continue
            if not (_within(want, row[0]) or key in with_return_time):
                continue
            taken[key] = None
            recipients.setdefault(row[0], []).append(recipient(row))
        for row in database.execute(
            f"SELECT {FILED_MESSAGE} FROM message WHERE id IN ({marks(chunk)}) ORDER BY id",
            flat(chunk),
        ):
            messages.append(message(row, tuple(recipients[row[0]]), spool))
    rest: dict[str, float | None] = {}
    for domain, lists in first.items():
        length = _length(wanted[domain], leases)
        times = (_next_time(rows, length, leases, taken) for rows in lists)
        rest[domain] = min((time for time in times if time is not None), default=None)
    return Leased(tuple(messages), rest)


def overdue(database: sqlite3.Connection, overdue: Overdue, leases: Leases, spool: Spool) -> Leased:
    """Return old messages (`contract.Overdue`); the caller adds them to ``leases``."""
    # By the primary key: messages before `after` are not looked at.
    ids = database.execute(
        "SELECT DISTINCT message FROM recipient WHERE message > ? AND message < ?"
        " ORDER BY message LIMIT ?",
        (overdue.after, overdue.before, _LOOKED_AT),
    ).fetchall()
    through = QueueId(ids[-1][0]) if len(ids) == _LOOKED_AT else None
    recipients: dict[int, list[Recipient]] = {}
    for chunk in chunks(ids):
        for row in database.execute(
            f"SELECT {RECIPIENT} FROM recipient"
            f" WHERE message IN ({marks(chunk)}) AND warned = 0 AND next_attempt IS NOT NULL"
            " AND message IN (SELECT id FROM message WHERE sender_domain IS NOT NULL)"
            " ORDER BY message, number",
            flat(chunk),
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
        for chunk in chunks(wanted)
        for row in database.execute(
            f"SELECT {FILED_MESSAGE} FROM message WHERE id IN ({marks(chunk)}) ORDER BY id",
            flat(chunk),
        )
    ]
    return Leased(tuple(messages), {}, through)


def _due_in_order(lists: Sequence[Sequence[_Row]], now: float) -> Iterator[_Row]:
    """Yield the due rows of all lists, the most urgent first; each list is in order."""
    due = ([row for row in rows if row.due <= now] for rows in lists)
    if len(lists) == 1:
        return iter(next(due))
    return iter(
        sorted(
            (row for rows in due for row in rows),
            key=lambda row: effective_due(row.due, row.level),
        )
    )


def _next_time(
    rows: Sequence[_Row], length: int, leases: Leases, taken: Mapping[RecipientKey, None]
) -> float | None:
    """Return the time before which no further row of a list is due."""
    for row in rows:
        key = row.message, row.number
        if key not in leases and key not in taken:
            return row.due
    # Where all rows that were read are leased, the next one is not due before the last of them.
    return rows[-1].due if len(rows) == length else None


def _within(want: Want, id: int) -> bool:
    return want.before is None or id < want.before


def _length(want: Want, leases: Leases) -> int:
    """Return how many rows of a list are read: enough to step over those that are leased."""
    return want.limit + leases.of(want.domain) + 1


def _first(
    database: sqlite3.Connection, wants: Sequence[Want], leases: Leases, levels: Levels
) -> dict[str, list[list[_Row]]]:
    """Return the first rows of each domain, a list for each of its levels."""
    first: dict[str, list[list[_Row]]] = {want.domain: [[]] for want in wants}
    for start in range(0, len(wants), _WANTS):
        some = wants[start : start + _WANTS]
        values = [(want.domain, _last_id(want), _length(want, leases)) for want in some]
        statement = " UNION ALL ".join([_FIRST] * len(some))
        for domain, level, id, number, due in database.execute(statement, flat(values)):
            first[domain][0].append(_Row(id, number, due, level))
    for want in wants:
        for level in levels.of(want.domain):
            last = _LAST if has_return_time(level) else _last_id(want)
            its = want.domain, level, last, _length(want, leases)
            rows = database.execute(_FIRST_OF_LEVEL, its).fetchall()
            if rows:
                first[want.domain].append(
                    [_Row(id, number, due, level) for _, _, id, number, due in rows]
                )
    return first


def _last_id(want: Want) -> int:
    return _LAST if want.before is None else want.before - 1
