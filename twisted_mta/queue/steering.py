"""What an operator asks of the embedded store, slice by slice (`operator`)."""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any

from attrs import frozen

from ..envelope import QueueId, RecipientNumber
from ..smtp.address import Mailbox
from . import history
from .leases import Key
from .operator import (
    Action,
    Browse,
    Class,
    Inspect,
    Inspected,
    Listed,
    Page,
    Steer,
    Tallied,
    Tally,
    can,
)
from .rows import MESSAGE, RECIPIENT, flat, marks, message, parts, recipient
from .selection import Entry, Selection
from .spool import Spool

_LAST = 2**63 - 1  # no id is higher
_MORE = "next_attempt, held, removing IS NOT NULL"
_IDS = 200  # of those that were named, in one slice

IsLeased = Callable[[Key], bool]
"""Says whether a runner is at work on a recipient, and will be when this is committed."""


@frozen
class Done:
    """What was done to a slice.

    Attributes:
        page: see there.
        held: how many more are held.
        gone: (attempts, since when it was held) of each recipient that has left.
        emptied: messages that may have no recipient left.
        marked: recipients that go when they are not leased any more.
    """

    page: Page
    held: int = 0
    gone: Sequence[tuple[int, float | None]] = ()
    emptied: Sequence[QueueId] = ()
    marked: Sequence[Key] = ()


def browse(database: sqlite3.Connection, browse: Browse, leased: IsLeased) -> Page:
    """Return a slice of what is there."""
    found, looked_at, following = _slice(
        database, browse.selection, browse.after, browse.limit, leased
    )
    return Page(_listed(database, browse.selection, found, "size"), looked_at, following)


def steer(database: sqlite3.Connection, steer: Steer, leased: IsLeased) -> Done:
    """Do something to a slice."""
    found, looked_at, following = _slice(
        database, steer.selection, steer.after, steer.limit, leased, steer.action
    )
    page = Page(_listed(database, steer.selection, found, "0"), looked_at, following)
    entries = [(each.id, entry) for each in page.messages for entry in each.recipients]
    if steer.dry_run or not entries:
        return Done(page)
    free = [_key(*each) for each in entries if not each[1].leased]
    busy = [_key(*each) for each in entries if each[1].leased]
    if steer.action in ("retry", "release"):
        _update(database, "held = NULL, next_attempt = ?", steer.now, free + busy)
        return Done(page, held=-len(entries) if steer.action == "release" else 0)
    if steer.action == "hold":
        _update(database, "next_attempt = NULL, held = ?", steer.now, free + busy)
        return Done(page, held=len(entries))
    was_held = sum(1 for _, entry in entries if entry.leased and entry.held is not None)
    _update(database, "next_attempt = NULL, held = NULL, removing = ?", steer.now, busy)
    gone = delete(database, free)
    emptied = [each.id for each in page.messages]
    return Done(page, -was_held, [(each[2], each[3]) for each in gone], emptied, busy)


def delete(
    database: sqlite3.Connection, keys: Sequence[Key], where: str = "1"
) -> list[tuple[int, int, int, float | None]]:
    """Remove recipients; return (message, number, attempts, since when it was held) of each."""
    gone = []
    for part in parts(keys):
        gone += database.execute(
            f"WITH {_chosen(part)} DELETE FROM recipient"
            f" WHERE (message, number) IN (SELECT * FROM chosen) AND {where}"
            " RETURNING message, number, attempts, held",
            flat(part),
        ).fetchall()
    return gone


def inspect(
    database: sqlite3.Connection, inspect: Inspect, leased: IsLeased, spool: Spool
) -> Inspected | None:
    """Return one message, or None."""
    row = database.execute(
        f"SELECT {MESSAGE}, quarantine FROM message WHERE id = ?", (inspect.id,)
    ).fetchone()
    if row is None:
        return None
    rows = database.execute(
        f"SELECT {RECIPIENT}, {_MORE} FROM recipient WHERE message = ? ORDER BY number",
        (inspect.id,),
    ).fetchall()
    entries = tuple(_entry(each, leased) for each in rows)
    found = message(row[:-1], tuple(each.recipient for each in entries), spool)
    return Inspected(found, entries, row[-1], history.attempts(database, inspect.id))


def tally(database: sqlite3.Connection, tally: Tally) -> Tallied:
    """Count a slice; the database does it, without the interpreter."""
    edges = [tally.after, *tally.ages, _LAST]
    counts: dict[Class, int] = {}
    after, left = tally.after, tally.limit
    for age in range(bisect_right(tally.ages, tally.after), len(tally.ages) + 1):
        until = edges[age + 1]
        rows = database.execute(
            "SELECT count(*), max(message), attempts > 0, next_attempt IS NOT NULL,"
            " held IS NOT NULL, last_code, last_status, last_remote IS NULL FROM"
            " (SELECT * FROM recipient WHERE message > ? AND message < ?"
            " ORDER BY message, number LIMIT ?)"
            " GROUP BY 3, 4, 5, 6, 7, 8",
            (after, until, left),
        ).fetchall()
        for count, _, deferred, waiting, held, code, status, ours in rows:
            each = Class(age, bool(deferred), bool(waiting), bool(held), code, status, bool(ours))
            counts[each] = counts.get(each, 0) + count
            left -= count
        if left <= 0:
            after = max(row[1] for row in rows)
            # What the last message has beyond the slice is passed over: it is an estimate.
            return Tallied(counts, tally.limit, QueueId(after))
        after = max(after, until - 1)
    return Tallied(counts, tally.limit - left, None)


def _slice(
    database: sqlite3.Connection,
    selection: Selection,
    after: int,
    limit: int,
    leased: IsLeased,
    action: Action | None = None,
) -> tuple[dict[QueueId, list[Entry]], int, QueueId | None]:
    """Return what of a slice is picked, but for what is said of senders."""
    last = _LAST if selection.before is None else selection.before
    start = f"SELECT {RECIPIENT}, {_MORE} FROM recipient WHERE"
    following: QueueId | None = None
    if selection.ids is not None:
        ids = [id for id in selection.ids if after < id < last]
        if len(ids) > _IDS:
            ids = ids[:_IDS]
            following = ids[-1]
        rows = database.execute(
            f"{start} message IN ({marks([(id,) for id in ids])}) ORDER BY message, number", ids
        ).fetchall()
    else:
        rows = database.execute(
            f"{start} message > ? AND message < ? ORDER BY message, number LIMIT ?",
            (after, last, limit),
        ).fetchall()
        if len(rows) == limit:  # a message is never parted
            following = QueueId(rows[-1][0])
            rows += database.execute(
                f"{start} message = ? AND number > ? ORDER BY number", rows[-1][:2]
            ).fetchall()
    found: dict[QueueId, list[Entry]] = {}
    for row in rows:
        entry = _entry(row, leased)
        if selection.picks_recipient(entry) and (action is None or can(action, entry)):
            found.setdefault(QueueId(row[0]), []).append(entry)
    return found, len(rows), following


def _listed(
    database: sqlite3.Connection,
    selection: Selection,
    found: dict[QueueId, list[Entry]],
    size: str,
) -> tuple[Listed, ...]:
    listed = []
    for part in parts([(id,) for id in found]):
        for id, local_part, domain, octets in database.execute(
            f"SELECT id, sender_local, sender_domain, {size} FROM message"
            f" WHERE id IN ({marks(part)}) ORDER BY id",
            flat(part),
        ):
            reverse_path = None if local_part is None else Mailbox(local_part, domain)
            if selection.picks_message(QueueId(id), reverse_path):
                entries = tuple(found[QueueId(id)])
                listed.append(Listed(QueueId(id), reverse_path, entries, octets))
    return tuple(listed)


def _entry(row: Sequence[Any], leased: IsLeased) -> Entry:
    *columns, next_attempt, held, removing = row
    return Entry(
        recipient=recipient(columns),
        next_attempt=next_attempt,
        held=held,
        removing=bool(removing),
        leased=leased((row[0], row[1])),
    )


def _key(id: QueueId, entry: Entry) -> tuple[QueueId, RecipientNumber]:
    return id, entry.recipient.number


def _chosen(part: Sequence[object]) -> str:
    # By way of the WITH: a plain IN (VALUES …) of more than one row scans it all.
    return f"chosen (message, number) AS (VALUES {','.join(['(?,?)'] * len(part))})"


def _update(
    database: sqlite3.Connection, change: str, now: float, keys: Sequence[tuple[int, int]]
) -> None:
    for part in parts(keys):
        database.execute(
            f"WITH {_chosen(part)} UPDATE recipient SET {change}"
            " WHERE (message, number) IN (SELECT * FROM chosen)",
            [*flat(part), now],
        )
