"""What goes before other mail, or behind it, or has to come back by a time of its own.

Most mail has level 0, and costs what it would without all this. Of the rest, the *level* is twice
its priority (RFC 6710), and one more where it is to be returned rather than late (RFC 2852).

A level is worth time: what has priority 1 goes as if it had waited an hour longer, what has
priority -1 as if it had waited an hour less. So the more urgent goes first where there are not
transactions enough for all, and nothing waits for ever: even a flood with priority 9 delays what
has none by nine hours at most, in which that would not have been delivered at once anyway.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from ...mail.message import Message
from ...smtp.extension.deliverby import DeliverBy

HOUR = 3600.0
"""Seconds that a priority of 1 is worth."""

# The next pair of domain and level behind another.
_NEXT = (
    "SELECT domain, level FROM recipient WHERE next_attempt IS NOT NULL AND level <> 0"
    " AND (domain, level) > (?, ?) ORDER BY domain, level LIMIT 1"
)


def level(message: Message) -> int:
    """Return the level of a message."""
    parameters = message.envelope.parameters
    if not parameters:
        return 0
    by = DeliverBy.of(parameters)
    return 2 * message.envelope.priority + (by is not None and by.returned)


def is_timed(level: int) -> bool:
    """Whether what has this level is to be returned by a time of its own."""
    return level % 2 == 1


def turn(due: float, level: int) -> float:
    """Return by which time something is sorted that is due at ``due``."""
    return due - HOUR * (level // 2)


class Levels:
    """The levels that there may be of each domain, beside 0."""

    def __init__(self) -> None:
        self._levels: dict[str, dict[int, None]] = {}

    def of(self, domain: str) -> Iterable[int]:
        """Return those of a domain."""
        return self._levels.get(domain, ())

    def add(self, messages: Iterable[Message]) -> None:
        """Take note of what comes into the store."""
        for message in messages:
            if message.envelope.parameters and (its := level(message)):
                for recipient in message.envelope.recipients:
                    self._add(recipient.mailbox.domain, its)

    def read(self, database: sqlite3.Connection) -> None:
        """Look what there is, one step down the index for each."""
        self._levels.clear()
        found = database.execute(_NEXT, ("", 0)).fetchone()
        while found is not None:
            self._add(*found)
            found = database.execute(_NEXT, found).fetchone()

    def pairs(self) -> list[tuple[str, int]]:
        """Return (domain, level) of all."""
        return [(domain, level) for domain, levels in self._levels.items() for level in levels]

    def _add(self, domain: str, level: int) -> None:
        self._levels.setdefault(domain, {})[level] = None
