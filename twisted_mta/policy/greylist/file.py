"""What greylisting remembers on disk: one SQLite file for all processes of one MTA.

A pair is a sender and a recipient, as a network has tried them. Those that have not been tried
again are bounded for each network and in all, so that no flood fills the disk, nor makes others
forgotten. Every method blocks, and opens the file for itself. The rollback journal is used, as for
the counters of reports.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Literal

from attrs import frozen

from ...system.shared_database import SharedDatabase

WINDOW = 2 * 86_400.0
"""Seconds in which a pair has to be tried again."""

LIFETIME = 36 * 86_400.0
"""Seconds that a pair or a network is remembered from its last mail on: a little more than a month,
so that monthly mail is not deferred each time."""

ENOUGH = 5
"""Successes after which a network is not greylisted any more; at most one an hour counts."""

MOST_PAIRS = 500_000
"""Pairs in all, some 100 octets each; and networks."""

MOST_WAITING = 1_000
"""Pairs of one network that have not been tried again."""

_PATIENCE = 5.0  # seconds to wait for another process's transaction
_HOUR = 3_600.0
_MOST_FORGOTTEN = 2_000  # pairs that are removed at a time

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS pair (
        key BLOB PRIMARY KEY, network TEXT NOT NULL, first REAL NOT NULL, last REAL NOT NULL,
        passed INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID""",
    """CREATE TABLE IF NOT EXISTS network (
        name TEXT PRIMARY KEY, successes INTEGER NOT NULL, last REAL NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS waiting ON pair (network) WHERE passed = 0",
    "CREATE INDEX IF NOT EXISTS oldest ON pair (passed, last)",
    "CREATE INDEX IF NOT EXISTS seen ON network (last)",
)


@frozen
class Attempt:
    """A recipient that a client asks for.

    Attributes:
        network: of the client.
        key: of the network, the sender and the recipient.
        delay: seconds until another attempt is accepted.
        at: wall time.
    """

    network: str
    key: bytes
    delay: float
    at: float


@frozen
class Decision:
    """What follows.

    Attributes:
        wait: seconds until an attempt is accepted; 0: this one is.
        why: ``network``: enough mail came from it; ``known``: the pair has been accepted before;
            ``again``: it has waited long enough now; ``new``: it waits.
    """

    wait: float
    why: Literal["network", "known", "again", "new"]


class GreylistFile:
    """The pairs and networks that are known.

    Args:
        path: of the file, in a directory of its own below the state directory.
        most_pairs: see `MOST_PAIRS`.
        most_waiting: see `MOST_WAITING`.

    All methods raise `OSError` or `sqlite3.Error` where the disk refuses.
    """

    def __init__(
        self, path: str, *, most_pairs: int = MOST_PAIRS, most_waiting: int = MOST_WAITING
    ) -> None:
        self._database = SharedDatabase(path, _SCHEMA, patience=_PATIENCE)
        self._most_pairs = most_pairs
        self._most_waiting = most_waiting
        self._cleaned_at: float | None = None
        self._new = 0  # pairs since the last count
        self._counted = 0  # pairs at the last count

    @property
    def size(self) -> tuple[int, int]:
        """How many pairs were known at the last count of this process, and how many can be."""
        return self._counted, self._most_pairs

    def decide(self, attempts: Sequence[Attempt]) -> list[Decision]:
        """Decide on attempts, in one transaction, and remember them."""
        self._database.make()
        with self._database.transaction() as database:
            decisions = [self._decide(database, each) for each in attempts]
            self._forget(database, attempts[-1].at)
        return decisions

    def foretell(self, attempt: Attempt) -> Decision:
        """Return what would be decided on an attempt, and remember nothing."""
        self._database.make()
        with self._database.transaction() as database:
            decision = self._decide(database, attempt)
            database.execute("ROLLBACK")
            database.execute("BEGIN")
        return decision

    def _decide(self, database: sqlite3.Connection, attempt: Attempt) -> Decision:
        now = attempt.at
        successes, last = database.execute(
            "SELECT successes, last FROM network WHERE name = ?", (attempt.network,)
        ).fetchone() or (0, 0.0)
        if now - last > LIFETIME:
            successes = 0
        if successes >= ENOUGH:
            if not 0 <= now - last < _HOUR:
                database.execute(
                    "UPDATE network SET last = ? WHERE name = ?", (now, attempt.network)
                )
            return Decision(0.0, "network")
        first, seen, passed = database.execute(
            "SELECT first, last, passed FROM pair WHERE key = ?", (attempt.key,)
        ).fetchone() or (now, now, None)
        # After a step of the wall clock into the past, a pair begins anew.
        if passed is not None and not 0 <= now - seen <= (LIFETIME if passed else WINDOW):
            first, passed = now, 0
        if passed:
            if now - seen >= _HOUR:
                self._keep(database, attempt, first, passed=True)
            return Decision(0.0, "known")
        wait = first + attempt.delay - now
        if wait > 0:
            if passed is None:
                self._begin(database, attempt)
            elif first == now:
                self._keep(database, attempt, first, passed=False)
            return Decision(wait, "new")
        self._keep(database, attempt, first, passed=True)
        if successes == 0 or not 0 <= now - last < _HOUR:
            database.execute(
                "INSERT OR REPLACE INTO network VALUES (?, ?, ?)",
                (attempt.network, successes + 1, now),
            )
        return Decision(0.0, "again")

    def _begin(self, database: sqlite3.Connection, attempt: Attempt) -> None:
        """Remember a new pair, unless its network has too many of them."""
        (waiting,) = database.execute(
            # By name: SQLite would take another index, and read all pairs that wait.
            "SELECT count(*) FROM pair INDEXED BY waiting WHERE network = ? AND passed = 0",
            (attempt.network,),
        ).fetchone()
        if waiting < self._most_waiting:
            self._new += 1
            self._keep(database, attempt, attempt.at, passed=False)

    def _keep(
        self, database: sqlite3.Connection, attempt: Attempt, first: float, *, passed: bool
    ) -> None:
        # ``last`` of a pair that waits is its first attempt: its window does not move.
        last = attempt.at if passed else first
        database.execute(
            "INSERT OR REPLACE INTO pair VALUES (?, ?, ?, ?, ?)",
            (attempt.key, attempt.network, first, last, passed),
        )

    def _forget(self, database: sqlite3.Connection, now: float) -> None:
        """Remove what has expired, some at a time, and the oldest where there are too many."""
        is_time = self._cleaned_at is None or not 0 <= now - self._cleaned_at < _HOUR
        if not is_time and self._new < self._most_pairs // 100:
            return
        gone = 0
        for passed, lifetime in ((0, WINDOW), (1, LIFETIME)):
            gone += database.execute(
                "DELETE FROM pair WHERE key IN"
                " (SELECT key FROM pair WHERE passed = ? AND last < ? ORDER BY last LIMIT ?)",
                (passed, now - lifetime, _MOST_FORGOTTEN),
            ).rowcount
        gone += database.execute(
            "DELETE FROM network WHERE name IN"
            " (SELECT name FROM network WHERE last < ? ORDER BY last LIMIT ?)",
            (now - LIFETIME, _MOST_FORGOTTEN),
        ).rowcount
        (count,) = database.execute("SELECT count(*) FROM pair").fetchone()
        self._counted = min(count, self._most_pairs)
        if count > self._most_pairs:
            # First those that wait; they are the work of a flood.
            database.execute(
                "DELETE FROM pair WHERE key IN"
                " (SELECT key FROM pair ORDER BY passed, last LIMIT ?)",
                (count - self._most_pairs,),
            )
        database.execute(
            "DELETE FROM network WHERE name IN"
            " (SELECT name FROM network ORDER BY last DESC LIMIT -1 OFFSET ?)",
            (self._most_pairs,),
        )
        self._new = 0
        if gone < _MOST_FORGOTTEN:  # else there may be more, for the next time
            self._cleaned_at = now
