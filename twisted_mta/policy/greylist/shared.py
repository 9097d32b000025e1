"""What greylisting remembers for all machines of a queue, in the database of their cluster.

A batch is decided in one transaction. Two machines that decide on the same pair at the same time
both read what was there before; the later one writes what stays, which costs a client one more
attempt at worst.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred

from ...cluster.database import ClusterDatabase
from ...cluster.schema import Database
from .file import (
    LIFETIME,
    MOST_PAIRS,
    MOST_WAITING,
    WINDOW,
    Attempt,
    Decision,
    Network,
    Pair,
    judge,
)

_HOUR = 3_600.0
_MOST_FORGOTTEN = 10_000  # rows that are removed at a time

_WRITE_PAIRS = """
    INSERT INTO greylist_pair (key, network, first, last, passed)
    SELECT * FROM unnest(%s::bytea[], %s::text[], %s::float8[], %s::float8[], %s::boolean[])
        AS new (key, network, first, last, passed) ORDER BY key
    ON CONFLICT (key) DO UPDATE SET network = excluded.network, first = excluded.first,
        last = excluded.last, passed = excluded.passed
"""
_WRITE_NETWORKS = """
    INSERT INTO greylist_network (name, successes, last)
    SELECT * FROM unnest(%s::text[], %s::int[], %s::float8[]) AS new (name, successes, last)
    ORDER BY name
    ON CONFLICT (name) DO UPDATE SET successes = excluded.successes, last = excluded.last
"""


class SharedGreylist:
    """The pairs and networks that all machines know.

    Args:
        database: of the cluster.
    """

    def __init__(self, database: ClusterDatabase) -> None:
        self._database = database
        self._cleaned_at: float | None = None

    def decide(self, attempts: Sequence[Attempt]) -> Deferred[list[Decision]]:
        """Decide on attempts, and remember them (`decisions.Shared`)."""
        return self._database.run(self._decide, attempts)

    def foretell(self, attempts: Sequence[Attempt]) -> Deferred[list[Decision]]:
        """Return what would be decided, and remember nothing (`decisions.Shared`)."""
        return self._database.run(_foretell, attempts)

    def _decide(self, database: Database, attempts: Sequence[Attempt]) -> list[Decision]:
        now = attempts[-1].at
        with database.transaction():
            # What a crash of the database loses costs a client one more attempt.
            database.execute("SET LOCAL synchronous_commit = off")
            decisions = _decided(database, attempts, writes=True)
        if self._cleaned_at is None or not 0 <= now - self._cleaned_at < _HOUR:
            self._cleaned_at = now
            _forget(database, now)
        return decisions


def _foretell(database: Database, attempts: Sequence[Attempt]) -> list[Decision]:
    return _decided(database, attempts, writes=False)


def _decided(database: Database, attempts: Sequence[Attempt], *, writes: bool) -> list[Decision]:
    names = list(dict.fromkeys(each.network for each in attempts))
    keys = list(dict.fromkeys(each.key for each in attempts))
    networks = {
        name: Network(successes, last)
        for name, successes, last in database.execute(
            "SELECT name, successes, last FROM greylist_network WHERE name = ANY(%s)", (names,)
        ).fetchall()
    }
    pairs = {
        bytes(key): Pair(first, last, passed)
        for key, first, last, passed in database.execute(
            "SELECT key, first, last, passed FROM greylist_pair WHERE key = ANY(%s)", (keys,)
        ).fetchall()
    }
    waiting: dict[str, int] = dict(
        database.execute(
            "SELECT network, count(*) FROM greylist_pair WHERE network = ANY(%s) AND NOT passed"
            " GROUP BY network",
            (names,),
        ).fetchall()
    )
    decisions = []
    new_networks: dict[str, Network] = {}
    new_pairs: dict[bytes, tuple[str, Pair]] = {}
    for each in attempts:
        judgment = judge(each, networks.get(each.network), pairs.get(each.key))
        decisions.append(judgment.decision)
        if judgment.network is not None:
            networks[each.network] = new_networks[each.network] = judgment.network
        if judgment.pair is not None:
            waits = waiting.get(each.network, 0)
            if judgment.is_new and waits >= MOST_WAITING:
                continue
            waiting[each.network] = waits + judgment.is_new
            pairs[each.key] = judgment.pair
            new_pairs[each.key] = each.network, judgment.pair
    if writes and new_pairs:
        rows = [
            (key, network, pair.first, pair.last, pair.passed)
            for key, (network, pair) in new_pairs.items()
        ]
        database.execute(_WRITE_PAIRS, [list(column) for column in zip(*rows, strict=True)])
    if writes and new_networks:
        known = [(name, each.successes, each.last) for name, each in new_networks.items()]
        database.execute(_WRITE_NETWORKS, [list(column) for column in zip(*known, strict=True)])
    return decisions


def _forget(database: Database, now: float) -> None:
    """Remove what has expired, some at a time, and the oldest where there are too many."""
    for passed, lifetime in ((False, WINDOW), (True, LIFETIME)):
        database.execute(
            "DELETE FROM greylist_pair WHERE key IN (SELECT key FROM greylist_pair"
            " WHERE passed = %s AND last < %s ORDER BY last LIMIT %s)",
            (passed, now - lifetime, _MOST_FORGOTTEN),
        )
    database.execute(
        "DELETE FROM greylist_network WHERE name IN (SELECT name FROM greylist_network"
        " WHERE last < %s ORDER BY last LIMIT %s)",
        (now - LIFETIME, _MOST_FORGOTTEN),
    )
    [(count,)] = database.execute("SELECT count(*) FROM greylist_pair").fetchall()
    if count > MOST_PAIRS:
        # First those that wait; they are the work of a flood.
        database.execute(
            "DELETE FROM greylist_pair WHERE key IN (SELECT key FROM greylist_pair"
            " ORDER BY passed, last LIMIT %s)",
            (min(count - MOST_PAIRS, _MOST_FORGOTTEN),),
        )
