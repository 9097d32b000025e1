"""The counters of daily reports on disk: one SQLite file for all processes of one MTA.

Every method blocks, and opens the file for itself. Processes write a batch a minute each, so they
hardly ever wait for one another. The rollback journal is used: SQLite before 3.51.3 can corrupt a
write-ahead log that two connections of one file reset.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from attrs import field, frozen

from ..system.shared_database import SharedDatabase

DAY = 86_400
"""Seconds in a day, the period of a report."""

MOST_ROWS = 5_000
"""Rows of one report; what would need further ones is counted as omitted."""

MOST_REPORTS = 10_000
"""Reports on one day; further domains are not counted."""

R = TypeVar("R")
"""What all that is counted in one row has in common; compared by value."""

_PATIENCE = 10.0  # seconds to wait for another process's transaction
_CLAIM = 3_600.0  # seconds after which a report that was begun and not sent is begun again
_FIRST_WAIT = 1_800.0  # seconds until the second attempt to send a report; doubled each time
_LONGEST_WAIT = 14_400.0
_KEPT = 3  # days after which a report that could not be sent is given up

_SCHEMA = (
    # The reports: those that were sent stay until their day is forgotten, so that a count that
    # comes late makes no second report.
    """CREATE TABLE IF NOT EXISTS report (
        day INTEGER NOT NULL, domain TEXT NOT NULL, record BLOB NOT NULL,
        rows INTEGER NOT NULL DEFAULT 0, omitted INTEGER NOT NULL DEFAULT 0,
        id TEXT, begin INTEGER NOT NULL, claimed REAL, attempts INTEGER NOT NULL DEFAULT 0,
        again REAL, reached TEXT NOT NULL DEFAULT '[]', sent INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (day, domain)
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS count (
        day INTEGER NOT NULL, domain TEXT NOT NULL, row TEXT NOT NULL, number INTEGER NOT NULL,
        PRIMARY KEY (day, domain, row)
    ) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS pending ON report (day, domain) WHERE sent = 0",
)


@frozen
class RowForm(Generic[R]):
    """How rows are written in the file.

    Attributes:
        text: returns a row as text, the same for equal rows.
        row: returns the row that ``text`` has written.
    """

    text: Callable[[R], str]
    row: Callable[[str], R]


@frozen
class Counts(Generic[R]):
    """What was counted for one domain on one day.

    Attributes:
        record: the text of the last record that asks for the report, as far as it is known by now.
        rows: the number of each row.
    """

    record: bytes
    rows: Counter[R] = field(factory=Counter)


Batch = Mapping[tuple[int, str], Counts[R]]
"""Counts by day (its number since the epoch, in UTC) and domain."""


@frozen(kw_only=True)
class Claimed(Generic[R]):
    """A report that this process has to send.

    Attributes:
        day: the number of the day.
        domain: that gets it.
        id: letters and digits; the same in each attempt.
        record: see `Counts`.
        rows: with the number of each.
        omitted: what is in none of them.
        begin: the first second of the period, since the epoch.
        end: the last one.
        attempts: to send it, before this one.
        reached: the destinations that have it already.
    """

    day: int
    domain: str
    id: str
    record: bytes
    rows: Sequence[tuple[R, int]]
    omitted: int
    begin: int
    end: int
    attempts: int = 0
    reached: frozenset[str] = frozenset()

    @property
    def is_partial(self) -> bool:
        """Whether the day goes on, so that a further report follows."""
        return self.end < (self.day + 1) * DAY - 1


class CountersFile(Generic[R]):
    """The counters of all processes, for one kind of reports.

    Args:
        path: of the file, in a directory of its own below the state directory.
        form: of rows.
        keeps_sent: whether the counts of reports that were sent can be read for some days more.
        most_rows: see `MOST_ROWS`.
        most_reports: see `MOST_REPORTS`.

    All methods raise `OSError` or `sqlite3.Error` where the disk refuses.
    """

    def __init__(
        self,
        path: str,
        form: RowForm[R],
        *,
        keeps_sent: bool = False,
        most_rows: int = MOST_ROWS,
        most_reports: int = MOST_REPORTS,
    ) -> None:
        self._database = SharedDatabase(path, _SCHEMA, patience=_PATIENCE)
        self._form = form
        self._keeps_sent = keeps_sent
        self._most_rows = most_rows
        self._most_reports = most_reports

    def make(self) -> None:
        """Make the file where it is missing."""
        self._database.make()

    def add(self, batch: Batch[R]) -> None:
        """Add counts; those of a report that was sent are dropped."""
        with self._database.transaction() as database:
            totals = {
                day: database.execute(
                    "SELECT count(*) FROM report WHERE day = ?", (day,)
                ).fetchone()[0]
                for day in dict.fromkeys(day for day, _ in batch)
            }
            for (day, domain), counts in batch.items():
                if self._add(database, day, domain, counts, totals[day]):
                    totals[day] += 1

    def _add(
        self,
        database: sqlite3.Connection,
        day: int,
        domain: str,
        counts: Counts[R],
        reports: int,
    ) -> bool:
        """Add the counts of one domain; return whether the report is a new one of ``reports``."""
        key = (day, domain)
        found = database.execute(
            "SELECT rows, sent FROM report WHERE day = ? AND domain = ?", key
        ).fetchone()
        is_new = found is None
        if found is None:
            if reports >= self._most_reports:
                return False
            database.execute(
                "INSERT INTO report (day, domain, record, begin) VALUES (?, ?, ?, ?)",
                (*key, counts.record, day * DAY),
            )
            found = (0, 0)
        rows, sent = found
        if sent:
            return False
        omitted = 0
        for row, number in counts.rows.items():
            text = self._form.text(row)
            changed = database.execute(
                "UPDATE count SET number = number + ? WHERE day = ? AND domain = ? AND row = ?",
                (number, *key, text),
            ).rowcount
            if changed:
                continue
            if rows >= self._most_rows:
                omitted += number
                continue
            database.execute("INSERT INTO count VALUES (?, ?, ?, ?)", (*key, text, number))
            rows += 1
        database.execute(
            "UPDATE report SET record = ?, rows = ?, omitted = omitted + ?"
            " WHERE day = ? AND domain = ?",
            (counts.record, rows, omitted, *key),
        )
        return is_new

    def claim(
        self,
        today: int,
        now: float,
        id: str,
        *,
        domain: str | None = None,
        at_once: bool = False,
        after: tuple[int, str] = (-1, ""),
    ) -> Claimed[R] | None:
        """Return a report that is to be sent, and that no process is sending.

        Args:
            today: the number of the day.
            now: wall time.
            id: of the report, if it has none yet.
            domain: that gets it; None: any.
            at_once: whether the report may be on a day that goes on, and whether one that could
                not be sent lately is tried before its time.
            after: the day and the domain of a report; only those that follow it are returned.

        Returns:
            None: there is none.
        """
        with self._database.transaction() as database:
            database.execute("DELETE FROM count WHERE day < ?", (today - _KEPT,))
            database.execute("DELETE FROM report WHERE day < ?", (today - _KEPT,))
            found = database.execute(
                "SELECT day, domain FROM report WHERE day < ? AND sent = 0 AND rows > 0"
                " AND (claimed IS NULL OR claimed NOT BETWEEN ? AND ?)"
                " AND (? OR again IS NULL OR again NOT BETWEEN ? AND ?)"
                " AND (? IS NULL OR domain = ?) AND (day, domain) > (?, ?)"
                " ORDER BY day, domain LIMIT 1",
                (
                    today + at_once,
                    *(now - _CLAIM, now),
                    *(at_once, now, now + _LONGEST_WAIT),
                    *(domain, domain, *after),
                ),
            ).fetchone()
            if found is None:
                return None
            day, domain = found
            database.execute(
                "UPDATE report SET id = ifnull(id, ?), claimed = ? WHERE day = ? AND domain = ?",
                (id, now, day, domain),
            )
            end = int(now) if day >= today else (day + 1) * DAY - 1
            return self._read(database, day, domain, end)

    def read(self, now: float, domain: str | None, most: int) -> Sequence[Claimed[R]]:
        """Return the reports as they would be sent now, the last one of each domain.

        Args:
            now: wall time.
            domain: that would get it; None: all.
            most: reports to return.
        """
        with self._database.transaction() as database:
            keys = database.execute(
                "SELECT max(day), domain FROM report WHERE rows > 0 AND (? IS NULL OR domain = ?)"
                " GROUP BY domain ORDER BY domain LIMIT ?",
                (domain, domain, most),
            ).fetchall()
            ends = (min(int(now), (day + 1) * DAY - 1) for day, _ in keys)
            return [
                self._read(database, day, domain, end)
                for (day, domain), end in zip(keys, ends, strict=True)
            ]

    def _read(self, database: sqlite3.Connection, day: int, domain: str, end: int) -> Claimed[R]:
        key = (day, domain)
        id, record, omitted, begin, attempts, reached = database.execute(
            "SELECT ifnull(id, ''), record, omitted, begin, attempts, reached FROM report"
            " WHERE day = ? AND domain = ?",
            key,
        ).fetchone()
        rows = database.execute(
            "SELECT row, number FROM count WHERE day = ? AND domain = ? ORDER BY row", key
        ).fetchall()
        return Claimed(
            day=day,
            domain=domain,
            id=id,
            record=record,
            rows=[(self._form.row(text), number) for text, number in rows],
            omitted=omitted,
            begin=begin,
            end=max(begin, end),
            attempts=attempts,
            reached=frozenset(json.loads(reached)),
        )

    def reached(self, claimed: Claimed[R], destination: str) -> None:
        """Record that a destination has a report, before all have it."""
        with self._database.transaction() as database:
            database.execute(
                "UPDATE report SET reached = json_insert(reached, '$[#]', ?)"
                " WHERE day = ? AND domain = ?",
                (destination, claimed.day, claimed.domain),
            )

    def postpone(self, claimed: Claimed[R], now: float) -> None:
        """Let a report that could not be sent wait, longer after each attempt."""
        wait = min(_FIRST_WAIT * 2 ** min(claimed.attempts, 10), _LONGEST_WAIT)
        with self._database.transaction() as database:
            database.execute(
                "UPDATE report SET claimed = NULL, attempts = attempts + 1, again = ?"
                " WHERE day = ? AND domain = ?",
                (now + wait, claimed.day, claimed.domain),
            )

    def sent(self, claimed: Claimed[R]) -> None:
        """Record that a report was sent, or needs not be."""
        key = (claimed.day, claimed.domain)
        with self._database.transaction() as database:
            if claimed.is_partial:
                self._begin_next(database, claimed)
                return
            database.execute(
                "UPDATE report SET sent = 1, claimed = NULL WHERE day = ? AND domain = ?", key
            )
            if not self._keeps_sent:
                database.execute("DELETE FROM count WHERE day = ? AND domain = ?", key)

    def _begin_next(self, database: sqlite3.Connection, claimed: Claimed[R]) -> None:
        """Leave what was counted while the report on a part of the day was sent."""
        key = (claimed.day, claimed.domain)
        database.executemany(
            "UPDATE count SET number = number - ? WHERE day = ? AND domain = ? AND row = ?",
            [(number, *key, self._form.text(row)) for row, number in claimed.rows],
        )
        gone = database.execute(
            "DELETE FROM count WHERE day = ? AND domain = ? AND number <= 0", key
        ).rowcount
        database.execute(
            "UPDATE report SET rows = rows - ?, omitted = omitted - ?, begin = ?, id = NULL,"
            " claimed = NULL, attempts = 0, again = NULL, reached = '[]'"
            " WHERE day = ? AND domain = ?",
            (gone, claimed.omitted, claimed.end + 1, *key),
        )


def as_text(values: Any) -> str:
    """Return JSON without spaces, for `RowForm.text`."""
    return json.dumps(values, separators=(",", ":"))
