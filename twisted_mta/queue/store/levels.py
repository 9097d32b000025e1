"""The priority levels that the domains in the embedded store have mail of.

Mail of each level but 0 is asked for by itself, so a lease of a domain with ordinary mail alone is
one statement as long as it is known that there is nothing else.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from ...mail.message import Message
from ..schedule.priority import level

# The next pair of domain and level: one step down the index for each.
_NEXT = (
    "SELECT domain, level FROM recipient WHERE next_attempt IS NOT NULL AND level <> 0"
    " AND (domain, level) > (?, ?) ORDER BY domain, level LIMIT 1"
)


class Levels:
    """The levels that each domain may have mail of, without 0 (`schedule.priority`)."""

    def __init__(self) -> None:
        self._levels: dict[str, dict[int, None]] = {}

    def of(self, domain: str) -> Iterable[int]:
        """Return the levels of a domain."""
        return self._levels.get(domain, ())

    def add(self, messages: Iterable[Message]) -> None:
        """Add the levels of messages that enter the store."""
        for message in messages:
            if message.envelope.parameters and (its := level(message)):
                for recipient in message.envelope.recipients:
                    self._add(recipient.mailbox.domain, its)

    def read(self, database: sqlite3.Connection) -> None:
        """Replace the levels by those that the database has now."""
        self._levels.clear()
        row = database.execute(_NEXT, ("", 0)).fetchone()
        while row is not None:
            self._add(*row)
            row = database.execute(_NEXT, row).fetchone()

    def pairs(self) -> list[tuple[str, int]]:
        """Return each domain with each of its levels."""
        return [(domain, level) for domain, levels in self._levels.items() for level in levels]

    def _add(self, domain: str, level: int) -> None:
        self._levels.setdefault(domain, {})[level] = None
