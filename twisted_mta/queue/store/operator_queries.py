"""The operator's queries of the embedded store, slice by slice (`operator.operations`)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen

from ...mail.address import Mailbox
from ...mail.envelope import RecipientNumber
from ...mail.queue_id import QueueId
from ..operator.operations import (
    FEW,
    Action,
    Browse,
    CountWaiting,
    FindKnown,
    Inspect,
    Inspected,
    Intervene,
    Known,
    ListedMessage,
    Page,
    Summarize,
    Summarized,
    Tallied,
    Tally,
    WaitingCounts,
    can,
)
from ..operator.selection import QueuedRecipient, Selection
from . import counting, history
from .counting import LAST, Read, between, reached
from .leases import RecipientKey
from .narrowing import SQLITE, is_exact, narrowed
from .rows import FILED_MESSAGE, RECIPIENT, chunks, flat, marks, message, recipient
from .spool import Spool

_MORE = "next_attempt, held, removing IS NOT NULL"
_IDS = 200  # messages of one slice, where the selection names ids
_MANY = 500  # recipients that are changed at once, where they need not be read
_RARE = 2000  # recipients of a domain up to which its index is used

_SELECT = f"SELECT {RECIPIENT}, {_MORE} FROM recipient"

# The recipients of a domain, by each of the indexes that it may be in (`schema`).
_DUE = "domain = ?1 AND next_attempt IS NOT NULL AND level = 0"
_LEVELS = "domain = ?1 AND next_attempt IS NOT NULL AND level <> 0"
_SELECT_OF_DOMAIN = (
    f"SELECT {RECIPIENT}, {_MORE} FROM ("
    f"SELECT message AS m, number AS n FROM recipient WHERE {_DUE}"
    f" UNION ALL SELECT message, number FROM recipient WHERE {_LEVELS}"
    " UNION ALL SELECT message, number FROM recipient INDEXED BY recipient_held"
    " WHERE held IS NOT NULL AND message > ?2 AND domain = ?1"
    " UNION ALL SELECT message, number FROM recipient INDEXED BY recipient_removing"
    " WHERE removing IS NOT NULL AND message > ?2 AND domain = ?1"
    ") CROSS JOIN recipient ON message = m AND number = n"
)
_COUNT_DUE, _COUNT_LEVELS, _COUNT_HELD = (
    f"SELECT count(*) FROM (SELECT 1 FROM recipient WHERE {each} LIMIT ?)"
    for each in (_DUE, _LEVELS, "held IS NOT NULL AND message > ?1")
)

IsLeased = Callable[[RecipientKey], bool]
"""Return whether a recipient is leased, and will be once the transaction is committed."""


@frozen
class Changes:
    """What an intervention changed.

    Attributes:
        page: the recipients, as they were before.
        held: by how many the number of held recipients grew.
        left: attempts, and since when it was held, of each recipient that left the queue.
        emptied: messages that may have no recipient left.
        removed_later: leased recipients that leave the queue when their lease ends.
    """

    page: Page
    held: int = 0
    left: Sequence[tuple[int, float | None]] = ()
    emptied: Sequence[QueueId] = ()
    removed_later: Sequence[RecipientKey] = ()


def browse(database: sqlite3.Connection, browse: Browse, leased: IsLeased) -> Page:
    """Return the selected recipients of a slice."""
    selected, looked_at, following = _slice(database, browse, leased)
    return Page(_listed(database, browse.selection, selected, "size"), looked_at, following)


def intervene(database: sqlite3.Connection, intervention: Intervene, leased: IsLeased) -> Changes:
    """Change the selected recipients of a slice."""
    many = _intervene_many(database, intervention, leased)
    if many is not None:
        return many
    selected, looked_at, following = _slice(database, intervention, leased, intervention.action)
    page = Page(_listed(database, intervention.selection, selected, "0"), looked_at, following)
    keyed = [
        ((message.id, each.recipient.number), each)
        for message in page.messages
        for each in message.recipients
    ]
    if intervention.dry_run or not keyed:
        return Changes(page)
    free = [key for key, each in keyed if not each.leased]
    busy = [key for key, each in keyed if each.leased]
    if intervention.action in ("retry", "release"):
        _update(database, "held = NULL, next_attempt = ?", intervention.now, free + busy)
        return Changes(page, held=-len(keyed) if intervention.action == "release" else 0)
    if intervention.action == "hold":
        _update(database, "next_attempt = NULL, held = ?", intervention.now, free + busy)
        return Changes(page, held=len(keyed))
    was_held = sum(1 for _, each in keyed if each.leased and each.held is not None)
    _update(database, "next_attempt = NULL, held = NULL, removing = ?", intervention.now, busy)
    left = delete(database, free)
    emptied = [each.id for each in page.messages]
    return Changes(page, -was_held, [row[2:] for row in left], emptied, busy)


_CHANGES: dict[Action, str] = {
    "retry": "held = NULL, next_attempt = ?",
    "release": "held = NULL, next_attempt = ?",
    "hold": "next_attempt = NULL, held = ?",
}


def _intervene_many(
    database: sqlite3.Connection, intervention: Intervene, leased: IsLeased
) -> Changes | None:
    """Change the recipients of a slice by one statement, without reading those not leased.

    Returns:
        None where the selection is not all in SQL, or where there are so few recipients that each
        can be logged.
    """
    if (
        intervention.dry_run
        or intervention.action == "remove"
        or not is_exact(intervention.selection)
    ):
        return None
    condition, values = narrowed(intervention.selection, SQLITE, intervention.action)
    last = LAST if intervention.selection.before is None else intervention.selection.before
    end, looked_at = reached(
        _reader(database), intervention.after, last, max(_MANY, intervention.reach)
    )
    following = QueueId(end) if looked_at == max(_MANY, intervention.reach) else None
    few, full = (
        database.execute(
            f"SELECT message FROM recipient WHERE message > ? AND message <= ? AND {condition}"
            " ORDER BY message, number LIMIT 1 OFFSET ?",
            (intervention.after, end, *values, offset),
        ).fetchone()
        for offset in (FEW, _MANY - 1)
    )
    if few is None:
        return None
    if full is not None:
        (end,) = full
        following = QueueId(end)
        looked_at = between(_reader(database), intervention.after, end)
    rows = database.execute(
        f"UPDATE recipient SET {_CHANGES[intervention.action]}"
        f" WHERE message > ? AND message <= ? AND {condition} RETURNING message, number, domain",
        (intervention.now, intervention.after, end, *values),
    ).fetchall()
    rows.sort()
    busy = {(id, number): None for id, number, _ in rows if leased((id, number))}
    if intervention.action == "retry":  # a leased recipient is being tried already
        rows = [row for row in rows if row[:2] not in busy]
        busy = {}
    selected: dict[QueueId, list[QueuedRecipient]] = {}
    for chunk in chunks(list(busy)):
        for row in database.execute(
            f"WITH {_chosen(chunk)} {_SELECT} WHERE (message, number) IN (SELECT * FROM chosen)"
            " ORDER BY message, number",
            flat(chunk),
        ).fetchall():
            selected.setdefault(QueueId(row[0]), []).append(_queued(row, leased))
    more = tuple(
        (QueueId(id), RecipientNumber(number), domain)
        for id, number, domain in rows
        if (id, number) not in busy
    )
    page = Page(
        _listed(database, intervention.selection, selected, "0"), looked_at, following, more
    )
    held = {"hold": len(rows), "release": -len(rows)}.get(intervention.action, 0)
    return Changes(page, held=held)


def delete(
    database: sqlite3.Connection, keys: Sequence[RecipientKey], where: str = "1"
) -> list[tuple[int, int, int, float | None]]:
    """Delete recipients; return message, number, attempts, and since when it was held, of each."""
    rows = []
    for chunk in chunks(keys):
        rows += database.execute(
            f"WITH {_chosen(chunk)} DELETE FROM recipient"
            f" WHERE (message, number) IN (SELECT * FROM chosen) AND {where}"
            " RETURNING message, number, attempts, held",
            flat(chunk),
        ).fetchall()
    return rows


def inspect(
    database: sqlite3.Connection, inspect: Inspect, leased: IsLeased, spool: Spool
) -> Inspected | None:
    """Return one message; None: it is not in the queue."""
    row = database.execute(
        f"SELECT {FILED_MESSAGE}, quarantine FROM message WHERE id = ?", (inspect.id,)
    ).fetchone()
    if row is None:
        return None
    rows = database.execute(
        f"SELECT {RECIPIENT}, {_MORE} FROM recipient WHERE message = ? ORDER BY number",
        (inspect.id,),
    ).fetchall()
    recipients = tuple(_queued(each, leased) for each in rows)
    inspected = message(row[:-1], tuple(each.recipient for each in recipients), spool)
    return Inspected(inspected, recipients, row[-1], history.read(database, inspect.id))


def summarize(database: sqlite3.Connection, summarize: Summarize) -> Summarized:
    """Count the recipients of a slice in groups (`counting.summarize`)."""
    return counting.summarize(_reader(database), summarize, SQLITE)


def tally(database: sqlite3.Connection, tally: Tally) -> Tallied:
    """Count the recipients of a slice by age, reason and domain."""
    return counting.tally(_reader(database), tally)


def _reader(database: sqlite3.Connection) -> Read:
    return lambda statement, values: database.execute(statement, values).fetchall()


def find_known(database: sqlite3.Connection, find: FindKnown, spool: Spool) -> Known:
    """Return what is known of a message that is to be imported."""
    row = database.execute(
        f"SELECT {FILED_MESSAGE} FROM message WHERE id = ?", (find.id,)
    ).fetchone()
    numbers = database.execute(
        "SELECT number FROM recipient WHERE message = ?1"
        " UNION SELECT number FROM imported WHERE message = ?1 AND NOT ?2",
        (find.id, find.again),
    ).fetchall()
    found = None if row is None else message(row, (), spool)
    return Known(found, frozenset(number for (number,) in numbers))


def count_waiting(database: sqlite3.Connection, count: CountWaiting) -> WaitingCounts:
    """Count the recipients of domains that wait, from the indexes alone."""
    by_domain = {}
    for domain in count.domains:
        (level_0,) = database.execute(
            "SELECT count(*) FROM (SELECT 1 FROM recipient WHERE domain = ?"
            " AND next_attempt IS NOT NULL AND level = 0 LIMIT ?)",
            (domain, count.most),
        ).fetchone()
        (others,) = database.execute(
            "SELECT count(*) FROM (SELECT 1 FROM recipient WHERE domain = ?"
            " AND next_attempt IS NOT NULL AND level <> 0 LIMIT ?)",
            (domain, count.most),
        ).fetchone()
        by_domain[domain] = min(count.most, level_0 + others)
    return WaitingCounts(by_domain)


def _slice(
    database: sqlite3.Connection,
    operation: Browse | Intervene,
    leased: IsLeased,
    action: Action | None = None,
) -> tuple[dict[QueueId, list[QueuedRecipient]], int, QueueId | None]:
    """Return the recipients of a slice that the selection picks, whatever their messages are."""
    selection, after = operation.selection, operation.after
    last = LAST if selection.before is None else selection.before
    if selection.ids is not None:
        rows, looked_at, following = _named(database, selection.ids, after, last)
    else:
        condition, values = narrowed(selection, SQLITE, action)
        rows, looked_at, following = _walked(database, operation, last, condition, values)
    selected: dict[QueueId, list[QueuedRecipient]] = {}
    for row in rows:
        recipient = _queued(row, leased)
        if selection.picks_recipient(recipient) and (action is None or can(action, recipient)):
            selected.setdefault(QueueId(row[0]), []).append(recipient)
    return selected, looked_at, following


_Slice = tuple[list[Any], int, "QueueId | None"]  # rows, recipients looked at, `Page.next`


def _named(database: sqlite3.Connection, named: Sequence[QueueId], after: int, last: int) -> _Slice:
    """Return the recipients of the messages that the selection names."""
    ids = [id for id in named if after < id < last]
    following = ids[_IDS - 1] if len(ids) > _IDS else None
    ids = ids[:_IDS]
    rows = database.execute(
        f"{_SELECT} WHERE message IN ({marks([(id,) for id in ids])}) ORDER BY message, number", ids
    ).fetchall()
    return rows, len(rows), following


def _walked(
    database: sqlite3.Connection,
    operation: Browse | Intervene,
    last: int,
    condition: str,
    values: Sequence[object],
) -> _Slice:
    """Return recipients that may be selected, in the order of ids.

    They are found by the index of their domain, or by the primary key. The database passes over
    recipients that do not match, so that a few among very many are found without the interpreter;
    but over a bounded number of them, since other operations wait meanwhile.
    """
    domain = operation.selection.domain
    if domain is not None and domain[:1] != "." and _is_rare(database, domain, operation.after):
        rows = database.execute(
            f"{_SELECT_OF_DOMAIN} WHERE message > ?2 AND message < ?3 AND {condition}"
            " ORDER BY message, number LIMIT ?",
            (domain, operation.after, last, *values, operation.limit),
        ).fetchall()
        following = _whole(database, rows, operation.limit, condition, values)
        return rows, len(rows), following
    # Where all recipients match, none is passed over.
    reach = (
        operation.limit if condition == SQLITE.everything else max(operation.limit, operation.reach)
    )
    end, looked_at = reached(_reader(database), operation.after, last, reach)
    if not looked_at:
        return [], 0, None
    rows = database.execute(
        f"{_SELECT} WHERE message > ? AND message <= ? AND {condition}"
        " ORDER BY message, number LIMIT ?",
        (operation.after, end, *values, operation.limit),
    ).fetchall()
    following = _whole(database, rows, operation.limit, condition, values)
    if following is not None:
        looked_at = between(_reader(database), operation.after, following)
    elif looked_at == reach:
        following = QueueId(end)
    return rows, looked_at, following


def _whole(
    database: sqlite3.Connection,
    rows: list[Any],
    limit: int,
    condition: str,
    values: Sequence[object],
) -> QueueId | None:
    """Complete the last message of a full slice, which is never split; return its id."""
    if len(rows) < limit:
        return None
    rows += database.execute(
        f"{_SELECT} WHERE message = ? AND number > ? AND {condition} ORDER BY number",
        (*rows[-1][:2], *values),
    ).fetchall()
    return QueueId(rows[-1][0])


def _is_rare(database: sqlite3.Connection, domain: str, after: int) -> bool:
    """Whether a domain has so few recipients that they are soon sorted by id.

    Held recipients have an index of their own; quarantined ones have none.
    """
    (quarantined,) = database.execute("SELECT quarantined FROM census").fetchone()
    if quarantined:
        return False
    for counted, value in ((_COUNT_DUE, domain), (_COUNT_LEVELS, domain), (_COUNT_HELD, after)):
        (count,) = database.execute(counted, (value, _RARE + 1)).fetchone()
        if count > _RARE:
            return False
    return True


def _listed(
    database: sqlite3.Connection,
    selection: Selection,
    selected: dict[QueueId, list[QueuedRecipient]],
    size: str,
) -> tuple[ListedMessage, ...]:
    listed = []
    for chunk in chunks([(id,) for id in selected]):
        for id, local_part, domain, octets in database.execute(
            f"SELECT id, sender_local, sender_domain, {size} FROM message"
            f" WHERE id IN ({marks(chunk)}) ORDER BY id",
            flat(chunk),
        ):
            reverse_path = None if local_part is None else Mailbox(local_part, domain)
            if selection.picks_message(QueueId(id), reverse_path):
                recipients = tuple(selected[QueueId(id)])
                listed.append(ListedMessage(QueueId(id), reverse_path, recipients, octets))
    return tuple(listed)


def _queued(row: Sequence[Any], leased: IsLeased) -> QueuedRecipient:
    *columns, next_attempt, held, removing = row
    return QueuedRecipient(
        recipient=recipient(columns),
        next_attempt=next_attempt,
        held=held,
        removing=bool(removing),
        leased=leased((row[0], row[1])),
    )


def _chosen(chunk: Sequence[object]) -> str:
    # WITH, since SQLite scans the whole table for a plain IN (VALUES …) of more than one row.
    return f"chosen (message, number) AS (VALUES {','.join(['(?,?)'] * len(chunk))})"


def _update(
    database: sqlite3.Connection, change: str, now: float, keys: Sequence[tuple[int, int]]
) -> None:
    for chunk in chunks(keys):
        database.execute(
            f"WITH {_chosen(chunk)} UPDATE recipient SET {change}"
            " WHERE (message, number) IN (SELECT * FROM chosen)",
            [*flat(chunk), now],
        )
