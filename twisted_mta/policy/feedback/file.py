"""Reports of complaints on disk: one SQLite file for all processes of one MTA, bounded."""

from __future__ import annotations

from hashlib import sha256

from attrs import frozen

from ...system.shared_database import SharedDatabase

KEPT = 90 * 86_400.0
"""Seconds that a report is kept."""

MOST_REPORTS = 50_000
"""Reports in all, some 300 octets each; beyond it the oldest are forgotten."""

_PATIENCE = 5.0  # seconds to wait for another process's transaction

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS report (
        key BLOB PRIMARY KEY, at REAL NOT NULL, account TEXT NOT NULL, message TEXT NOT NULL,
        type TEXT NOT NULL, reporter TEXT NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS oldest ON report (at)",
    "CREATE INDEX IF NOT EXISTS accounts ON report (account, at)",
)


@frozen
class CountedReport:
    """A report that counts; all texts are printable.

    Attributes:
        at: wall time.
        account: that has sent the message; empty: the client had no name.
        message: its queue id.
        type: of the complaint.
        reporter: the domain that has proven to be the report's sender.
    """

    at: float
    account: str
    message: str
    type: str
    reporter: str


@frozen
class AccountReports:
    """The reports about one account: their number, and the first and last wall time."""

    account: str
    reports: int
    first: float
    last: float


class FeedbackFile:
    """The reports.

    Args:
        path: of the file, in a directory of its own below the state directory.
        most: see `MOST_REPORTS`.

    All methods block, and raise `OSError` or `sqlite3.Error` where the disk refuses.
    """

    def __init__(self, path: str, *, most: int = MOST_REPORTS) -> None:
        self._database = SharedDatabase(path, _SCHEMA, patience=_PATIENCE)
        self._most = most

    def add(self, report: CountedReport, message_id: str) -> bool:
        """Keep a report; return False where it was there: a second copy has the same Message-ID.

        Those of one reporter about one message that have no Message-ID count as copies, too.
        """
        self._database.make()
        words = (report.message, report.account, report.reporter, message_id)
        key = sha256("\0".join(words).encode("utf-8", "surrogatepass")).digest()[:16]
        with self._database.transaction() as database:
            added: int = database.execute(
                "INSERT OR IGNORE INTO report VALUES (?, ?, ?, ?, ?, ?)",
                (key, report.at, report.account, report.message, report.type, report.reporter),
            ).rowcount
            database.execute("DELETE FROM report WHERE at < ?", (report.at - KEPT,))
            (count,) = database.execute("SELECT count(*) FROM report").fetchone()
            if count > self._most:
                database.execute(
                    "DELETE FROM report WHERE key IN (SELECT key FROM report ORDER BY at LIMIT ?)",
                    (count - self._most,),
                )
        return bool(added)

    def accounts(self, since: float, limit: int) -> list[AccountReports]:
        """Return the accounts with reports, those with most first; ``not-spam`` is no complaint."""
        self._database.make()
        with self._database.opened() as database:
            rows = database.execute(
                "SELECT account, count(*), min(at), max(at) FROM report"
                " WHERE at >= ? AND type != 'not-spam'"
                " GROUP BY account ORDER BY count(*) DESC, account LIMIT ?",
                (since, limit),
            )
            return [AccountReports(*row) for row in rows]

    def last(self, account: str | None, limit: int) -> list[CountedReport]:
        """Return the last reports, the newest first: of one account; None: of all."""
        self._database.make()
        with self._database.opened() as database:
            rows = database.execute(
                "SELECT at, account, message, type, reporter FROM report"
                " WHERE ?1 IS NULL OR account = ?1 ORDER BY at DESC LIMIT ?2",
                (account, limit),
            )
            return [CountedReport(*row) for row in rows]
