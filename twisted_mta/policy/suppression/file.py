"""The suppression list on disk: one SQLite file for all processes of one MTA.

It has the days on which an address has bounced, and the addresses that are on the list. Both are
bounded. Every method blocks, and opens the file for itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Literal

from attrs import frozen

from ...system.shared_database import SharedDatabase

DAY = 86_400.0
"""Seconds. One bounce a day counts: a fault of a receiver, which lasts hours, lists nothing."""

MOST_ADDRESSES = 200_000
"""Addresses on the list, some 300 octets each; beyond it those that end first are forgotten."""

MOST_BOUNCES = 500_000
"""Days of addresses that are not on the list; beyond it the oldest are forgotten."""

_PATIENCE = 5.0  # seconds to wait for another process's transaction
_HOUR = 3_600.0
_MOST_FORGOTTEN = 2_000  # rows that are removed at a time
LONGEST_REPLY = 300
"""Characters of a reply or reason that are kept."""

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS bounce (
        address TEXT NOT NULL, day INTEGER NOT NULL, PRIMARY KEY (address, day)
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS entry (
        address TEXT PRIMARY KEY, since REAL NOT NULL, until REAL, bounces INTEGER NOT NULL,
        reply TEXT NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS oldest ON bounce (day)",
    "CREATE INDEX IF NOT EXISTS ending ON entry (until)",
    "CREATE TABLE IF NOT EXISTS copied (change INTEGER NOT NULL)",
)


@frozen
class Terms:
    """When an address comes on the list.

    Attributes:
        bounces: days with a bounce that put it there.
        within: seconds in which they are.
        keep: seconds that it stays.
    """

    bounces: int
    within: float
    keep: float


@frozen
class Attempted:
    """What an attempt at an address has come to.

    Attributes:
        address: as `Suppression` writes it.
        at: wall time.
        reply: of a bounce, printable; None: it was delivered.
    """

    address: str
    at: float
    reply: str | None


@frozen
class Entry:
    """An address on the list.

    Attributes:
        address: with its local part in lower case.
        since: wall time.
        until: wall time; None: the operator has put it there, and takes it off.
        bounces: that have put it there; 0 for the operator.
        reply: the last one, printable; or the operator's reason.
    """

    address: str
    since: float
    until: float | None
    bounces: int
    reply: str


def entry_after(
    attempt: Attempted, known: Entry | None, bounces: int, terms: Terms
) -> Entry | None:
    """Return the entry of an address after a bounce; None: it is not suppressed yet.

    Args:
        attempt: that has bounced.
        known: its entry so far, which has an end; None: it has none.
        bounces: days with one within the period of ``terms``, this one included.
        terms: when addresses are suppressed, and for how long.
    """
    if known is None and bounces < terms.bounces:
        return None
    since = attempt.at if known is None else known.since
    reply = (attempt.reply or "")[:LONGEST_REPLY]
    return Entry(attempt.address, since, attempt.at + terms.keep, bounces, reply)


@frozen
class Changed:
    """An address that has come on the list, or has left it."""

    change: Literal["added", "delivered"]
    entry: Entry


class SuppressionFile:
    """The list, and what leads to it.

    Args:
        path: of the file, in a directory of its own below the state directory.
        most_addresses: see `MOST_ADDRESSES`.
        most_bounces: see `MOST_BOUNCES`.

    All methods raise `OSError` or `sqlite3.Error` where the disk refuses.
    """

    def __init__(
        self,
        path: str,
        *,
        most_addresses: int = MOST_ADDRESSES,
        most_bounces: int = MOST_BOUNCES,
    ) -> None:
        self._database = SharedDatabase(path, _SCHEMA, patience=_PATIENCE)
        self._most_addresses = most_addresses
        self._most_bounces = most_bounces
        self._cleaned_at: float | None = None
        self._new = 0  # rows since the last count

    def find(self, addresses: Sequence[str], now: float) -> list[Entry | None]:
        """Return for each address whether it is on the list."""
        self._database.make()
        with self._database.opened() as database:
            return [_found(database, each, now) for each in addresses]

    def note(self, attempts: Sequence[Attempted], terms: Terms) -> list[Changed]:
        """Take note of attempts, in one transaction; return what has changed on the list."""
        self._database.make()
        with self._database.opened() as database:
            # Most are deliveries to addresses that have never bounced: nothing is written.
            attempts = [
                each for each in attempts if each.reply is not None or _is_known(database, each)
            ]
        if not attempts:
            return []
        changes: list[Changed] = []
        with self._database.transaction() as database:
            for each in attempts:
                noted = _delivered if each.reply is None else self._bounced
                changes += noted(database, each, terms)
            self._forget(database, attempts[-1].at, terms)
        return changes

    def page(self, after: str, limit: int, now: float) -> list[Entry]:
        """Return the entries behind an address, in their order."""
        self._database.make()
        with self._database.opened() as database:
            rows = database.execute(
                "SELECT address, since, until, bounces, reply FROM entry WHERE address > ?"
                " AND (until IS NULL OR until > ?) ORDER BY address LIMIT ?",
                (after, now, limit),
            )
            return [Entry(*row) for row in rows]

    def add(self, address: str, reason: str, now: float) -> None:
        """Put an address on the list, until it is removed."""
        self._database.make()
        entry = Entry(address, now, None, 0, reason[:LONGEST_REPLY])
        with self._database.transaction() as database:
            _put(database, entry)

    def remove(self, address: str, now: float) -> bool:
        """Take an address off the list, and forget its bounces; return whether it was there."""
        self._database.make()
        with self._database.transaction() as database:
            found = _found(database, address, now) is not None
            _take_off(database, address)
        return found

    # The copy of a list that all machines of a queue share.

    def copied(self) -> int | None:
        """Return up to which change this is a copy of a shared list; None: it never was one."""
        self._database.make()
        with self._database.opened() as database:
            found = database.execute("SELECT change FROM copied").fetchone()
        return None if found is None else found[0]

    def everything(self) -> tuple[list[Entry], list[tuple[str, int]]]:
        """Return all entries, and all days with bounces, to begin a shared list with them."""
        self._database.make()
        with self._database.opened() as database:
            entries = database.execute("SELECT address, since, until, bounces, reply FROM entry")
            return (
                [Entry(*row) for row in entries],
                database.execute("SELECT address, day FROM bounce").fetchall(),
            )

    def copy(
        self, entries: Sequence[Entry], removed: Sequence[str], change: int, *, anew: bool
    ) -> None:
        """Take over changes of a shared list.

        Args:
            entries: that are there now.
            removed: addresses that are not.
            change: the last of the changes.
            anew: whether all other entries are no longer there.
        """
        self._database.make()
        with self._database.transaction() as database:
            if anew:
                database.execute("DELETE FROM entry")
                database.execute("DELETE FROM bounce")
            for each in entries:
                _put(database, each)
            for address in removed:
                _take_off(database, address)
            database.execute("DELETE FROM copied")
            database.execute("INSERT INTO copied VALUES (?)", (change,))

    def _bounced(
        self, database: sqlite3.Connection, attempt: Attempted, terms: Terms
    ) -> Iterator[Changed]:
        address, now = attempt.address, attempt.at
        known = _found(database, address, now)
        if known is not None and known.until is None:
            return
        day = int(now // DAY)
        self._new += database.execute(
            "INSERT OR IGNORE INTO bounce VALUES (?, ?)", (address, day)
        ).rowcount
        (bounces,) = database.execute(
            "SELECT count(*) FROM bounce WHERE address = ? AND day > ?",
            (address, day - max(1, int(terms.within // DAY))),
        ).fetchone()
        entry = entry_after(attempt, known, bounces, terms)
        if entry is None:
            return
        _put(database, entry)
        if known is None:
            self._new += 1
            yield Changed("added", entry)

    def _forget(self, database: sqlite3.Connection, now: float, terms: Terms) -> None:
        """Remove what has expired, some at a time, and the oldest where there are too many."""
        is_time = self._cleaned_at is None or not 0 <= now - self._cleaned_at < _HOUR
        if not is_time and self._new < max(1, self._most_addresses // 100):
            return
        self._new = 0
        first_day = int((now - terms.within) // DAY)
        gone = database.execute(
            "DELETE FROM bounce WHERE (address, day) IN"
            " (SELECT address, day FROM bounce WHERE day < ? ORDER BY day LIMIT ?)",
            (first_day, _MOST_FORGOTTEN),
        ).rowcount
        gone += database.execute(
            "DELETE FROM entry WHERE address IN"
            " (SELECT address FROM entry WHERE until <= ? ORDER BY until LIMIT ?)",
            (now, _MOST_FORGOTTEN),
        ).rowcount
        (count,) = database.execute("SELECT count(*) FROM bounce").fetchone()
        if count > self._most_bounces:
            database.execute(
                "DELETE FROM bounce WHERE (address, day) IN"
                " (SELECT address, day FROM bounce ORDER BY day LIMIT ?)",
                (count - self._most_bounces,),
            )
        (count,) = database.execute("SELECT count(*) FROM entry").fetchone()
        if count > self._most_addresses:
            # Those of the operator are the last to go.
            database.execute(
                "DELETE FROM entry WHERE address IN"
                " (SELECT address FROM entry ORDER BY until IS NULL, until LIMIT ?)",
                (count - self._most_addresses,),
            )
        if gone < _MOST_FORGOTTEN:  # else there may be more, for the next time
            self._cleaned_at = now


def _found(database: sqlite3.Connection, address: str, now: float) -> Entry | None:
    row = database.execute(
        "SELECT address, since, until, bounces, reply FROM entry WHERE address = ?"
        " AND (until IS NULL OR until > ?)",
        (address, now),
    ).fetchone()
    return None if row is None else Entry(*row)


def _is_known(database: sqlite3.Connection, attempt: Attempted) -> bool:
    found = database.execute(
        "SELECT EXISTS (SELECT 1 FROM bounce WHERE address = ?1)"
        " OR EXISTS (SELECT 1 FROM entry WHERE address = ?1)",
        (attempt.address,),
    ).fetchone()
    return bool(found[0])


def _delivered(database: sqlite3.Connection, attempt: Attempted, terms: Terms) -> Iterator[Changed]:
    known = _found(database, attempt.address, attempt.at)
    if known is not None and known.until is None:
        return
    _take_off(database, attempt.address)
    if known is not None:
        yield Changed("delivered", known)


def _take_off(database: sqlite3.Connection, address: str) -> None:
    database.execute("DELETE FROM bounce WHERE address = ?", (address,))
    database.execute("DELETE FROM entry WHERE address = ?", (address,))


def _put(database: sqlite3.Connection, entry: Entry) -> None:
    database.execute(
        "INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?)",
        (entry.address, entry.since, entry.until, entry.bounces, entry.reply),
    )
