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


@frozen
class Network:
    """What is known of a network.

    Attributes:
        successes: hours in which a pair of it has passed for the first time.
        last: wall time of its last mail.
    """

    successes: int
    last: float


@frozen
class Pair:
    """What is known of a sender and a recipient in a network.

    Attributes:
        first: wall time of the first attempt.
        last: of the last one that was accepted; of a pair that waits, of the first: its window does
            not move.
        passed: whether it was accepted.
    """

    first: float
    last: float
    passed: bool


@frozen
class Judgment:
    """A decision, and what is to be remembered.

    Attributes:
        decision: the decision.
        network: as it is to be remembered from now on; None: as before.
        pair: likewise.
        is_new: whether the pair was not known; it is remembered if there is room.
    """

    decision: Decision
    network: Network | None = None
    pair: Pair | None = None
    is_new: bool = False


def judge(attempt: Attempt, network: Network | None, pair: Pair | None) -> Judgment:
    """Decide on an attempt, by what is known. Pure."""
    now = attempt.at
    successes, last = (0, 0.0) if network is None else (network.successes, network.last)
    if now - last > LIFETIME:
        successes = 0
    is_recent = 0 <= now - last < _HOUR
    if successes >= ENOUGH:
        known = None if is_recent else Network(successes, now)
        return Judgment(Decision(0.0, "network"), network=known)
    is_new = pair is None
    if pair is None or not 0 <= now - pair.last <= (LIFETIME if pair.passed else WINDOW):
        pair = Pair(now, now, passed=False)
    if pair.passed:
        again = Pair(pair.first, now, passed=True) if now - pair.last >= _HOUR else None
        return Judgment(Decision(0.0, "known"), pair=again)
    wait = pair.first + attempt.delay - now
    if wait > 0:
        begun = Pair(now, now, passed=False) if pair.first == now else None
        return Judgment(Decision(wait, "new"), pair=begun, is_new=is_new)
    return Judgment(
        Decision(0.0, "again"),
        network=None if successes and is_recent else Network(successes + 1, now),
        pair=Pair(pair.first, now, passed=True),
    )


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
        network = database.execute(
            "SELECT successes, last FROM network WHERE name = ?", (attempt.network,)
        ).fetchone()
        pair = database.execute(
            "SELECT first, last, passed FROM pair WHERE key = ?", (attempt.key,)
        ).fetchone()
        judgment = judge(
            attempt,
            None if network is None else Network(*network),
            None if pair is None else Pair(pair[0], pair[1], bool(pair[2])),
        )
        if judgment.network is not None:
            database.execute(
                "INSERT OR REPLACE INTO network VALUES (?, ?, ?)",
                (attempt.network, judgment.network.successes, judgment.network.last),
            )
        if judgment.pair is not None and (
            not judgment.is_new or self._has_room(database, attempt.network)
        ):
            self._new += judgment.is_new
            self._keep(database, attempt, judgment.pair)
        return judgment.decision

    def accept(self, attempts: Sequence[Attempt]) -> None:
        """Remember that attempts were accepted, by whatever else has decided that."""
        self._database.make()
        with self._database.transaction() as database:
            for each in attempts:
                self._keep(database, each, Pair(each.at, each.at, passed=True))

    def _has_room(self, database: sqlite3.Connection, network: str) -> bool:
        """Whether a network has not too many pairs that wait."""
        (waiting,) = database.execute(
            # By name: SQLite would take another index, and read all pairs that wait.
            "SELECT count(*) FROM pair INDEXED BY waiting WHERE network = ? AND passed = 0",
            (network,),
        ).fetchone()
        return bool(waiting < self._most_waiting)

    def _keep(self, database: sqlite3.Connection, attempt: Attempt, pair: Pair) -> None:
        database.execute(
            "INSERT OR REPLACE INTO pair VALUES (?, ?, ?, ?, ?)",
            (attempt.key, attempt.network, pair.first, pair.last, pair.passed),
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
