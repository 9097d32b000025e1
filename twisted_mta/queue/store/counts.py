"""The counts of the census, in a row that every transaction keeps up to date.

Counting a million rows with their bodies would take seconds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from attrs import astuple, define, fields

from .contract import Census


@define
class Counts:
    """The counts of a `Census`, without leases."""

    messages: int = 0
    recipients: int = 0
    deferred: int = 0
    quarantined: int = 0
    failures: int = 0
    held: int = 0

    @classmethod
    def read(cls, database: sqlite3.Connection) -> Counts:
        """Read the counts."""
        return cls(*database.execute(f"SELECT {_COLUMNS} FROM census").fetchone())

    def write(self, database: sqlite3.Connection) -> None:
        """Write the counts, within the transaction that changed them."""
        counts = astuple(self)
        marks = ",".join("?" * len(counts))
        database.execute(f"UPDATE census SET ({_COLUMNS}) = ({marks})", counts)

    def census(self, leased: int) -> Census:
        """Return the census, with so many recipients leased."""
        return Census(
            messages=self.messages,
            recipients=self.recipients,
            deferred=self.deferred,
            leased=leased,
            held=self.held,
            quarantined=self.quarantined,
            failures=self.failures,
        )

    def recipients_left(self, rows: Sequence[tuple[int, float | None]]) -> None:
        """Subtract recipients that left: attempts, and since when it was held, of each."""
        self.recipients -= len(rows)
        self.deferred -= sum(1 for attempts, _ in rows if attempts)
        # SQLite 3.40 returns a wrong "held IS NOT NULL" of what it deletes without a rowid.
        self.held -= sum(1 for _, held in rows if held is not None)


_COLUMNS = ", ".join(each.name for each in fields(Counts))
