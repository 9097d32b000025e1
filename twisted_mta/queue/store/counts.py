"""The counts of the census, in a row that every transaction keeps up to date.

Counting a million rows with their bodies would take seconds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from attrs import define, fields

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
        database.execute(_UPDATE, self._values())

    def copy(self) -> Counts:
        """Return another object with the same counts."""
        return Counts(*self._values())

    def _values(self) -> tuple[int, ...]:
        return (
            *(self.messages, self.recipients, self.deferred),
            *(self.quarantined, self.failures, self.held),
        )

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
        for attempts, held in rows:
            if attempts:
                self.deferred -= 1
            # SQLite 3.40 returns a wrong "held IS NOT NULL" of what it deletes without a rowid.
            if held is not None:
                self.held -= 1


_COLUMNS = ", ".join(each.name for each in fields(Counts))
_UPDATE = f"UPDATE census SET ({_COLUMNS}) = ({', '.join('?' * len(fields(Counts)))})"
