"""Due recipients of the store in PostgreSQL, found by domain: other domains are not looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ....mail.envelope import Recipient
from ....mail.message import Message
from ....mail.queue_id import QueueId
from ...schedule.priority import effective_due, has_return_time
from ..contract import Lease, Leased, Overdue, Survey, Want
from ..leases import RecipientKey
from ..spool import Spool
from .rows import CHOSEN, IS_CHOSEN, MESSAGE, RECIPIENT, Database, keys, message, recipient

_LAST = 2**63 - 1  # the highest id
_LOOKED_AT = 1000  # messages that one `Overdue` looks at
_OVERDUE = 50  # messages that one `Overdue` brings, with their bodies

# One step down the index for each domain and level, past all their rows.
_SURVEY = """
    WITH RECURSIVE part (domain, level) AS (
        (
            SELECT domain, level FROM recipient WHERE lease = 0 AND next_attempt IS NOT NULL
            ORDER BY domain, level LIMIT 1
        )
        UNION ALL
        SELECT following.* FROM part CROSS JOIN LATERAL (
            SELECT recipient.domain, recipient.level FROM recipient
            WHERE lease = 0 AND next_attempt IS NOT NULL
            AND (recipient.domain, recipient.level) > (part.domain, part.level)
            ORDER BY recipient.domain, recipient.level LIMIT 1
        ) AS following
    )
    SELECT part.domain, first.due, last.due FROM part
    CROSS JOIN LATERAL (
        SELECT next_attempt AS due FROM recipient
        WHERE (recipient.domain, recipient.level) = (part.domain, part.level)
        AND lease = 0 AND next_attempt IS NOT NULL ORDER BY next_attempt LIMIT 1
    ) AS first
    CROSS JOIN LATERAL (
        SELECT next_attempt AS due FROM recipient
        WHERE (recipient.domain, recipient.level) = (part.domain, part.level)
        AND lease = 0 AND next_attempt IS NOT NULL ORDER BY next_attempt DESC LIMIT 1
    ) AS last
"""

# Brings recipients forward that a wrong clock put off, except where the sender asked for a release
# time (FUTURERELEASE).
_SET_RIGHT = """
    UPDATE recipient SET next_attempt = {due}
    WHERE domain = %(domain)s AND next_attempt > %(beyond)s AND lease = 0
    AND NOT EXISTS (
        SELECT 1 FROM message WHERE message.id = recipient.message
        AND (message.parameters::json ->> 'HOLDUNTIL')::float8 >= recipient.next_attempt
    )
"""
_NOW = "%(now)s::float8"
_EARLIER = "greatest(%(now)s::float8, next_attempt - %(set_back)s::float8)"

# The first free rows of each wanted domain and each of its levels. Rows that another worker takes
# at this moment are passed over.
_FIRST = """
    WITH want (domain, last, rows) AS (
        SELECT * FROM unnest(%s::text[], %s::bigint[], %s::int[])
    )
    SELECT want.domain, its.level, its.message, its.number, its.next_attempt FROM want
    CROSS JOIN LATERAL (
        WITH RECURSIVE its (level) AS (
            (
                SELECT recipient.level FROM recipient
                WHERE recipient.domain = want.domain AND lease = 0 AND next_attempt IS NOT NULL
                ORDER BY recipient.level LIMIT 1
            )
            UNION ALL
            SELECT following.level FROM its CROSS JOIN LATERAL (
                SELECT recipient.level FROM recipient
                WHERE recipient.domain = want.domain AND lease = 0 AND next_attempt IS NOT NULL
                AND recipient.level > its.level ORDER BY recipient.level LIMIT 1
            ) AS following
        )
        SELECT level FROM its
    ) AS levels
    CROSS JOIN LATERAL (
        SELECT recipient.level, recipient.message, recipient.number, recipient.next_attempt
        FROM recipient
        WHERE recipient.domain = want.domain AND lease = 0 AND recipient.level = levels.level
        AND next_attempt IS NOT NULL
        AND (recipient.message <= want.last OR recipient.level & 1 = 1)
        ORDER BY next_attempt, message, number LIMIT want.rows FOR UPDATE SKIP LOCKED
    ) AS its
"""

# Leases recipients, in the order of their keys; those that another worker has taken meanwhile are
# passed over.
_TAKE = f"""
    WITH free AS MATERIALIZED (
        SELECT message AS m, number AS n FROM recipient, {CHOSEN}
        WHERE {IS_CHOSEN} AND lease = 0 AND next_attempt IS NOT NULL
        ORDER BY message, number FOR UPDATE OF recipient SKIP LOCKED
    )
    UPDATE recipient SET lease = %s FROM free AS chosen WHERE {IS_CHOSEN} RETURNING {RECIPIENT}
"""


class _Row(NamedTuple):
    message: int
    number: int
    due: float
    level: int


def survey(database: Database, survey: Survey) -> Leased:
    """Return all domains (`contract.Survey`)."""
    rest: dict[str, float | None] = {}
    last_of: dict[str, float] = {}
    for domain, first, last in database.execute(_SURVEY).fetchall():
        known = rest.get(domain)
        rest[domain] = first if known is None else min(first, known)
        last_of[domain] = max(last, last_of.get(domain, last))
    for domain, last in last_of.items():
        first = rest[domain]
        assert first is not None
        values = {"domain": domain, "now": survey.now, "set_back": survey.set_back}
        if survey.set_back and last > survey.now:
            database.execute(_SET_RIGHT.format(due=_EARLIER), {**values, "beyond": survey.now})
            first = min(first, max(survey.now, first - survey.set_back))
        if last - survey.set_back > survey.latest:
            database.execute(_SET_RIGHT.format(due=_NOW), {**values, "beyond": survey.latest})
            first = min(first, survey.now)
        rest[domain] = first
    return Leased((), rest)


def lease(database: Database, lease: Lease, worker: int, spool: Spool) -> Leased:
    """Lease the due messages that a lease asks for to a worker."""
    wanted = {want.domain: want for want in lease.wants}
    allowed = {**{domain: Want(domain, 0) for domain in lease.also}, **wanted}
    first = _first(database, lease.wants)
    ids: dict[int, None] = {}
    with_return_time: dict[RecipientKey, None] = {}
    for domain, rows in first.items():
        due = [row for row in rows if row.due <= lease.now]
        due.sort(key=lambda row: (effective_due(row.due, row.level), row.message, row.number))
        ids_of_domain: dict[int, None] = {}
        for row in due:
            if len(ids_of_domain) == wanted[domain].limit:
                break
            ids_of_domain[row.message] = None
            if has_return_time(row.level):
                with_return_time[row.message, row.number] = None
        ids.update(ids_of_domain)
    candidates = [
        (id, number)
        for id, number, domain in database.execute(
            "SELECT message, number, domain FROM recipient WHERE message = ANY(%s)"
            " AND next_attempt <= %s AND lease = 0 AND domain = ANY(%s)",
            (list(ids), lease.now, list(allowed)),
        ).fetchall()
        if _within(allowed[domain], id) or (id, number) in with_return_time
    ]
    taken, messages = _take(database, candidates, worker, spool)
    rest = {
        domain: _next_time(rows, wanted[domain].limit + 1, taken) for domain, rows in first.items()
    }
    return Leased(messages, rest)


def overdue(database: Database, overdue: Overdue, worker: int, spool: Spool) -> Leased:
    """Lease old messages (`contract.Overdue`) to a worker."""
    # By the primary key: messages before `after` are not looked at.
    ids = [
        id
        for (id,) in database.execute(
            "SELECT DISTINCT message FROM recipient WHERE message > %s AND message < %s"
            " ORDER BY message LIMIT %s",
            (overdue.after, overdue.before, _LOOKED_AT),
        ).fetchall()
    ]
    through = QueueId(ids[-1]) if len(ids) == _LOOKED_AT else None
    found: dict[int, list[int]] = {}
    for id, number in database.execute(
        "SELECT message, number FROM recipient WHERE message = ANY(%s) AND lease = 0"
        " AND warned = 0 AND next_attempt IS NOT NULL AND message IN"
        " (SELECT id FROM message WHERE id = ANY(%s) AND sender_domain IS NOT NULL)"
        " ORDER BY message, number",
        (ids, ids),
    ).fetchall():
        if id not in found and len(found) == _OVERDUE:
            through = QueueId(next(reversed(found)))
            break
        found.setdefault(id, []).append(number)
    candidates = [(id, number) for id, numbers in found.items() for number in numbers]
    _, messages = _take(database, candidates, worker, spool)
    return Leased(messages, {}, through)


def _take(
    database: Database, candidates: Sequence[RecipientKey], worker: int, spool: Spool
) -> tuple[Mapping[RecipientKey, None], tuple[Message, ...]]:
    """Lease those of some recipients that are free; return them, and their messages."""
    if not candidates:
        return {}, ()
    taken = database.execute(_TAKE, (*keys(candidates), worker))
    ids = list(dict.fromkeys(id for id, _ in candidates))
    read = database.execute(
        f"SELECT {MESSAGE} FROM message WHERE id = ANY(%s) AND EXISTS (SELECT 1 FROM recipient"
        " WHERE recipient.message = message.id AND recipient.lease = %s) ORDER BY id",
        (ids, worker),
    )
    rows = taken.fetchall()
    rows.sort(key=lambda row: row[:2])
    recipients: dict[int, list[Recipient]] = {}
    for row in rows:
        recipients.setdefault(row[0], []).append(recipient(row))
    messages = tuple(
        message(row, tuple(recipients[row[0]]), spool)
        for row in read.fetchall()
        if row[0] in recipients
    )
    return {(row[0], row[1]): None for row in rows}, messages


def _first(database: Database, wants: Sequence[Want]) -> dict[str, list[_Row]]:
    """Return the first free rows of each domain, of all its levels."""
    first: dict[str, list[_Row]] = {want.domain: [] for want in wants}
    values = (
        [want.domain for want in wants],
        [_LAST if want.before is None else want.before - 1 for want in wants],
        [want.limit + 1 for want in wants],
    )
    for domain, level, id, number, due in database.execute(_FIRST, values).fetchall():
        first[domain].append(_Row(id, number, due, level))
    return first


def _next_time(
    rows: Sequence[_Row], length: int, taken: Mapping[RecipientKey, None]
) -> float | None:
    """Return the time before which no further row of a domain is due."""
    times: list[float] = []
    for level in dict.fromkeys(row.level for row in rows):
        its = [row for row in rows if row.level == level]
        left = [row.due for row in its if (row.message, row.number) not in taken]
        if left:
            times.append(min(left))
        elif len(its) == length:  # the next one is not due before the last of them
            times.append(max(row.due for row in its))
    return min(times, default=None)


def _within(want: Want, id: int) -> bool:
    return want.before is None or id < want.before
