"""The suppression list of all machines of a queue, in the database of their cluster.

Each machine has a copy in its file (`SuppressionFile.copy`): the lookup of a recipient never waits
for the database. The list is changed in the database, one transaction after the other, and each
change has a number, which copies follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...cluster.database import ClusterDatabase
from ...cluster.schema import Database
from .file import (
    DAY,
    LONGEST_REPLY,
    MOST_ADDRESSES,
    Attempted,
    Changed,
    Entry,
    SuppressionFile,
    Terms,
    entry_after,
)

_LOCK = 0x7477_6D74_63  # "twmtc": the advisory lock of those that change the list
_AT_ONCE = 1_000  # changes that a copy takes over in one transaction
_HOUR = 3_600.0
_REMEMBERED = 30 * DAY  # for which copies can learn that an address was taken off
_MOST_FORGOTTEN = 5_000  # rows that are removed at a time

_KNOWN = """
    SELECT address FROM unnest(%s::text[]) AS asked (address)
    WHERE EXISTS (SELECT FROM bounce WHERE bounce.address = asked.address)
        OR EXISTS (
            SELECT FROM suppression WHERE suppression.address = asked.address AND NOT removed
        )
"""
_FIND = """
    SELECT address, since, until, bounces, reply FROM suppression
    WHERE address = %s AND NOT removed AND (until IS NULL OR until > %s)
"""
_PUT = """
    INSERT INTO suppression (address, since, until, bounces, reply, removed, change)
    VALUES (%s, %s, %s, %s, %s, %s, nextval('suppression_number'))
    ON CONFLICT (address) DO UPDATE SET since = excluded.since, until = excluded.until,
        bounces = excluded.bounces, reply = excluded.reply, removed = excluded.removed,
        change = excluded.change
"""
_BEGIN = """
    INSERT INTO suppression (address, since, until, bounces, reply, change)
    VALUES (%s, %s, %s, %s, %s, nextval('suppression_number')) ON CONFLICT DO NOTHING
"""
_CHANGES = """
    SELECT address, since, until, bounces, reply, removed, change FROM suppression
    WHERE change > %s ORDER BY change LIMIT %s
"""


class SharedSuppression:
    """The list of all machines (`suppression.Changing`).

    Args:
        file: the copy of this machine.
        database: its executor is where all methods are to be called.

    All methods raise `cluster.away.DatabaseAway` where the database fails, and what the file does.
    """

    def __init__(self, file: SuppressionFile, database: ClusterDatabase) -> None:
        self._file = file
        self._database = database
        self._cleaned_at: float | None = None

    def note(self, attempts: Sequence[Attempted], terms: Terms) -> list[Changed]:
        """Take note of attempts; return what has changed on the list."""
        changes = self._database.call(_note, attempts, terms)
        now = attempts[-1].at
        if self._cleaned_at is None or not 0 <= now - self._cleaned_at < _HOUR:
            self._cleaned_at = now
            self._database.call(_forget, now, terms)
        if changes:
            self.follow()
        return changes

    def add(self, address: str, reason: str, now: float) -> None:
        """Put an address on the list, until it is removed."""
        self._database.call(_add, Entry(address, now, None, 0, reason[:LONGEST_REPLY]))
        self.follow()

    def remove(self, address: str, now: float) -> bool:
        """Take an address off the list, and forget its bounces; return whether it was there."""
        was_there = self._database.call(_remove, address, now)
        self.follow()
        return was_there

    def follow(self) -> None:
        """Take over the changes of all machines into the file.

        A file that was no copy before is the beginning of the list, or is added to it.
        """
        before = self._file.copied()
        if before is None:
            self._database.call(_begin, *self._file.everything())
        done, anew = before or 0, before is None
        if before is not None and before < self._database.call(_forgotten):
            done, anew = 0, True  # it was away for too long to learn what was taken off
        while True:
            rows = self._database.call(_changes, done)
            if not rows and not anew:
                return
            entries = [Entry(*row[:5]) for row in rows if not row[5]]
            removed = [row[0] for row in rows if row[5]]
            done = rows[-1][6] if rows else done
            self._file.copy(entries, removed, done, anew=anew)
            anew = False
            if len(rows) < _AT_ONCE:
                return


def _lock(database: Database) -> None:
    # Changes get their numbers in the order of their commits.
    database.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))


def _note(database: Database, attempts: Sequence[Attempted], terms: Terms) -> list[Changed]:
    # Most are deliveries to addresses that have never bounced: nothing is written.
    asked = list(dict.fromkeys(each.address for each in attempts))
    known = dict.fromkeys(row[0] for row in database.execute(_KNOWN, (asked,)).fetchall())
    attempts = [each for each in attempts if each.reply is not None or each.address in known]
    if not attempts:
        return []
    changes: list[Changed] = []
    with database.transaction():
        _lock(database)
        for each in attempts:
            noted = _delivered if each.reply is None else _bounced
            changes += noted(database, each, terms)
    return changes


def _bounced(database: Database, attempt: Attempted, terms: Terms) -> Iterator[Changed]:
    address, now = attempt.address, attempt.at
    known = _found(database, address, now)
    if known is not None and known.until is None:
        return
    day = int(now // DAY)
    database.execute("INSERT INTO bounce VALUES (%s, %s) ON CONFLICT DO NOTHING", (address, day))
    [(bounces,)] = database.execute(
        "SELECT count(*) FROM bounce WHERE address = %s AND day > %s",
        (address, day - max(1, int(terms.within // DAY))),
    ).fetchall()
    entry = entry_after(attempt, known, bounces, terms)
    if entry is None:
        return
    _put(database, entry)
    if known is None:
        yield Changed("added", entry)


def _delivered(database: Database, attempt: Attempted, terms: Terms) -> Iterator[Changed]:
    known = _found(database, attempt.address, attempt.at)
    if known is not None and known.until is None:
        return
    database.execute("DELETE FROM bounce WHERE address = %s", (attempt.address,))
    if known is not None:
        _put(database, Entry(attempt.address, attempt.at, None, 0, ""), removed=True)
        yield Changed("delivered", known)


def _add(database: Database, entry: Entry) -> None:
    with database.transaction():
        _lock(database)
        _put(database, entry)


def _remove(database: Database, address: str, now: float) -> bool:
    with database.transaction():
        _lock(database)
        found = _found(database, address, now) is not None
        database.execute("DELETE FROM bounce WHERE address = %s", (address,))
        if found:
            _put(database, Entry(address, now, None, 0, ""), removed=True)
    return found


def _put(database: Database, entry: Entry, *, removed: bool = False) -> None:
    values = (entry.address, entry.since, entry.until, entry.bounces, entry.reply, removed)
    database.execute(_PUT, values)


def _found(database: Database, address: str, now: float) -> Entry | None:
    row = database.execute(_FIND, (address, now)).fetchone()
    return None if row is None else Entry(*row)


def _begin(
    database: Database, entries: Sequence[Entry], bounces: Sequence[tuple[str, int]]
) -> None:
    with database.transaction():
        _lock(database)
        for each in entries:
            database.execute(
                _BEGIN, (each.address, each.since, each.until, each.bounces, each.reply)
            )
        database.execute(
            "INSERT INTO bounce SELECT * FROM unnest(%s::text[], %s::int[]) ON CONFLICT DO NOTHING",
            ([address for address, _ in bounces], [day for _, day in bounces]),
        )


def _changes(
    database: Database, after: int
) -> list[tuple[str, float, float | None, int, str, bool, int]]:
    return database.execute(_CHANGES, (after, _AT_ONCE)).fetchall()


def _forgotten(database: Database) -> int:
    [(change,)] = database.execute("SELECT change FROM suppression_forgotten").fetchall()
    return int(change)


def _forget(database: Database, now: float, terms: Terms) -> None:
    """Remove what has expired, some at a time, and the oldest where there are too many."""
    with database.transaction():
        _lock(database)
        database.execute(
            "DELETE FROM bounce WHERE (address, day) IN"
            " (SELECT address, day FROM bounce WHERE day < %s ORDER BY day LIMIT %s)",
            (int((now - terms.within) // DAY), _MOST_FORGOTTEN),
        )
        # Copies know by themselves when an entry ends.
        database.execute("DELETE FROM suppression WHERE until <= %s AND NOT removed", (now,))
        gone = database.execute(
            "DELETE FROM suppression WHERE removed AND since < %s RETURNING change",
            (now - _REMEMBERED,),
        ).fetchall()
        [(count,)] = database.execute("SELECT count(*) FROM suppression").fetchall()
        if count > MOST_ADDRESSES:
            # Those of the operator are the last to go.
            gone += database.execute(
                "DELETE FROM suppression WHERE address IN (SELECT address FROM suppression"
                " ORDER BY until IS NULL, until LIMIT %s) RETURNING change",
                (count - MOST_ADDRESSES,),
            ).fetchall()
        if gone:
            database.execute(
                "UPDATE suppression_forgotten SET change = greatest(change, %s)",
                (max(change for (change,) in gone),),
            )
