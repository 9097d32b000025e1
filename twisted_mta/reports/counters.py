"""The counters of aggregate reports on disk: one SQLite file for all processes of one MTA.

Every method blocks, and opens the file for itself. Processes write a batch a minute each, so they
hardly ever wait for one another. The rollback journal is used: SQLite before 3.51.3 can corrupt a
write-ahead log that two connections of one file reset.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import quote

from attrs import field, frozen

from ..policy.dmarc.handling import Reason
from ..policy.dmarc.identifiers import Signature
from ..policy.dmarc.observation import Row

MOST_ROWS = 5_000
"""Rows of one report; messages that would need further ones are counted as omitted."""

MOST_REPORTS = 10_000
"""Reports on one day; messages of further domains are not counted."""

_PATIENCE = 10.0  # seconds to wait for another process's transaction
_CLAIM = 3_600.0  # seconds after which a report that was begun and not sent is begun again
_KEPT = 3  # days after which a report that could not be sent is given up

_SCHEMA = (
    # The reports: those that were sent stay until their day is forgotten, so that a count that
    # comes late makes no second report.
    """CREATE TABLE IF NOT EXISTS report (
        day INTEGER NOT NULL, domain TEXT NOT NULL, record BLOB NOT NULL,
        rows INTEGER NOT NULL DEFAULT 0, omitted INTEGER NOT NULL DEFAULT 0,
        id TEXT, claimed REAL, sent INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (day, domain)
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS count (
        day INTEGER NOT NULL, domain TEXT NOT NULL, row TEXT NOT NULL, messages INTEGER NOT NULL,
        PRIMARY KEY (day, domain, row)
    ) WITHOUT ROWID""",
)


@frozen
class Counts:
    """The messages of one policy domain on one day.

    Attributes:
        record: the text of the last record.
        rows: the messages of each row.
    """

    record: bytes
    rows: Counter[Row] = field(factory=Counter)


Batch = Mapping[tuple[int, str], Counts]
"""Counts by day (its number since the epoch, in UTC) and policy domain."""


@frozen
class Claimed:
    """A report that this process has to send, with its id, which stays the same in each attempt."""

    day: int
    domain: str
    id: str
    record: bytes
    rows: Sequence[tuple[Row, int]]
    omitted: int


class CountersFile:
    """The counters of all processes.

    Args:
        path: of the file, in a directory of its own below the state directory.
        most_rows: see `MOST_ROWS`.
        most_reports: see `MOST_REPORTS`.

    All methods raise `OSError` or `sqlite3.Error` where the disk refuses.
    """

    def __init__(
        self, path: str, *, most_rows: int = MOST_ROWS, most_reports: int = MOST_REPORTS
    ) -> None:
        self._path = path
        self._most_rows = most_rows
        self._most_reports = most_reports
        self._is_made = False

    def make(self) -> None:
        """Make the file where it is missing: once, lest it be made in a wrong state directory."""
        if self._is_made:
            return
        directory = os.path.dirname(self._path)
        if not os.path.isdir(directory):
            os.mkdir(directory, 0o700)
        # The file is made with its mode before SQLite makes it with that of the umask.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        os.close(os.open(self._path, flags, 0o600))
        with self._transaction() as database:
            for statement in _SCHEMA:
                database.execute(statement)
        self._is_made = True

    def add(self, batch: Batch) -> None:
        """Add counts; those of a report that was sent are dropped."""
        with self._transaction() as database:
            for (day, domain), counts in batch.items():
                self._add(database, day, domain, counts)

    def _add(self, database: sqlite3.Connection, day: int, domain: str, counts: Counts) -> None:
        key = (day, domain)
        found = database.execute(
            "SELECT rows, sent FROM report WHERE day = ? AND domain = ?", key
        ).fetchone()
        if found is None:
            (reports,) = database.execute(
                "SELECT count(*) FROM report WHERE day = ?", (day,)
            ).fetchone()
            if reports >= self._most_reports:
                return
            database.execute(
                "INSERT INTO report (day, domain, record) VALUES (?, ?, ?)", (*key, counts.record)
            )
            found = (0, 0)
        rows, sent = found
        if sent:
            return
        omitted = 0
        for row, messages in counts.rows.items():
            text = row_text(row)
            changed = database.execute(
                "UPDATE count SET messages = messages + ? WHERE day = ? AND domain = ? AND row = ?",
                (messages, *key, text),
            ).rowcount
            if changed:
                continue
            if rows >= self._most_rows:
                omitted += messages
                continue
            database.execute("INSERT INTO count VALUES (?, ?, ?, ?)", (*key, text, messages))
            rows += 1
        database.execute(
            "UPDATE report SET record = ?, rows = ?, omitted = omitted + ?"
            " WHERE day = ? AND domain = ?",
            (counts.record, rows, omitted, *key),
        )

    def claim(self, today: int, now: float, id: str) -> Claimed | None:
        """Return a report of an earlier day that is to be sent, and that no process is sending.

        Args:
            today: the number of the day.
            now: wall time.
            id: of the report, if it has none yet.

        Returns:
            None: there is none.
        """
        with self._transaction() as database:
            database.execute("DELETE FROM count WHERE day < ?", (today - _KEPT,))
            database.execute("DELETE FROM report WHERE day < ?", (today - _KEPT,))
            found = database.execute(
                "SELECT day, domain, ifnull(id, ?), record, omitted FROM report"
                " WHERE day < ? AND sent = 0 AND rows > 0"
                " AND (claimed IS NULL OR claimed NOT BETWEEN ? AND ?) LIMIT 1",
                (id, today, now - _CLAIM, now),
            ).fetchone()
            if found is None:
                return None
            day, domain, id, record, omitted = found
            database.execute(
                "UPDATE report SET id = ?, claimed = ? WHERE day = ? AND domain = ?",
                (id, now, day, domain),
            )
            rows = database.execute(
                "SELECT row, messages FROM count WHERE day = ? AND domain = ? ORDER BY row",
                (day, domain),
            ).fetchall()
        counted = [(text_row(text), messages) for text, messages in rows]
        return Claimed(day, domain, id, record, counted, omitted)

    def sent(self, claimed: Claimed) -> None:
        """Record that a report was sent, or needs not be."""
        key = (claimed.day, claimed.domain)
        with self._transaction() as database:
            database.execute("UPDATE report SET sent = 1 WHERE day = ? AND domain = ?", key)
            database.execute("DELETE FROM count WHERE day = ? AND domain = ?", key)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        path = quote(os.fsencode(os.path.abspath(self._path)))
        connection = sqlite3.connect(
            f"file:{path}?mode=rw", uri=True, isolation_level=None, timeout=_PATIENCE
        )
        with closing(connection) as database:
            database.execute("BEGIN IMMEDIATE")
            yield database  # an exception closes the connection, which rolls back
            database.execute("COMMIT")


def row_text(row: Row) -> str:
    """Return a row as text, the same for equal rows."""
    return json.dumps(
        [
            row.source,
            row.disposition,
            int(row.dkim),
            int(row.spf),
            [[reason.type, reason.comment] for reason in row.reasons],
            row.header_from,
            row.envelope_from,
            [[one.domain, one.selector, one.result] for one in row.signatures],
            row.spf_domain,
            row.spf_result,
        ],
        separators=(",", ":"),
    )


def text_row(text: str) -> Row:
    """Return the row that `row_text` has written."""
    values: list[Any] = json.loads(text)
    source, disposition, dkim, spf, reasons, header_from, envelope_from, signatures, *rest = values
    return Row(
        source=source,
        disposition=disposition,
        dkim=bool(dkim),
        spf=bool(spf),
        reasons=tuple(Reason(*each) for each in reasons),
        header_from=header_from,
        envelope_from=envelope_from,
        signatures=tuple(Signature(*each) for each in signatures),
        spf_domain=rest[0],
        spf_result=rest[1],
    )
