"""The policies of MTA-STS on disk: one SQLite file for all processes of one MTA.

Every method blocks, and opens the file for itself. A policy is written about once a day, and read
once a minute while mail goes to its domain. As in `reports.counters`, the rollback journal is used.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from math import inf
from typing import Any

from ...system.shared_database import SharedDatabase
from .kept import Kept
from .policy import Policy

MOST = 20_000
"""Domains at the most; beyond, those are forgotten that no mail went to for the longest time."""

MOST_OCTETS = 64 << 20
"""Octets of all policies together at the most."""

_PATIENCE = 10.0  # seconds to wait for another process's transaction
_DAY = 86_400.0
_FORGOTTEN = 90 * _DAY  # after the last mail a policy is fetched no more
_CLAIM = 900.0  # seconds in which the process that fetches a policy again has to have done so

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS policy (
        domain TEXT PRIMARY KEY NOT NULL, body BLOB, expires REAL NOT NULL, octets INTEGER NOT NULL,
        id TEXT NOT NULL, since REAL NOT NULL, fetched REAL NOT NULL, used REAL NOT NULL,
        refresh REAL NOT NULL, tried REAL NOT NULL, tried_id TEXT NOT NULL,
        failures INTEGER NOT NULL, problem TEXT NOT NULL, trouble TEXT NOT NULL
    )""",
    "CREATE INDEX IF NOT EXISTS policy_refresh ON policy (refresh)",
    "CREATE INDEX IF NOT EXISTS policy_used ON policy (used, octets)",
)

_SELECT = (
    "SELECT domain, body, id, since, fetched, used, refresh, tried, tried_id, failures, problem,"
    " trouble FROM policy "
)
_REPLACE = (
    "INSERT OR REPLACE INTO policy (domain, body, id, since, fetched, used, refresh, tried,"
    " tried_id, failures, problem, trouble, expires, octets)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class PolicyFile:
    """The policies of all processes.

    Args:
        path: of the file, in a directory of its own below the state directory.
        most: see `MOST`.
        most_octets: see `MOST_OCTETS`.

    All methods raise `OSError` or `sqlite3.Error` where the disk refuses.
    """

    def __init__(self, path: str, *, most: int = MOST, most_octets: int = MOST_OCTETS) -> None:
        self._database = SharedDatabase(path, _SCHEMA, patience=_PATIENCE)
        self._most = most
        self._most_octets = most_octets

    def read(self, domain: str) -> Kept | None:
        """Return what is kept of a domain; None: nothing."""
        if not os.path.exists(self._database.path):
            return None
        with self._database.opened() as database:
            return self._read(database, domain)

    def all(self) -> Sequence[Kept]:
        """Return everything, by domain."""
        if not os.path.exists(self._database.path):
            return []
        with self._database.opened() as database:
            rows = database.execute(_SELECT + "ORDER BY domain").fetchall()
        return [_kept(row) for row in rows]

    def write(self, kept: Kept) -> Kept:
        """Keep what a process has found out; return what all of them know together."""
        self._database.make()
        with self._database.transaction() as database:
            before = self._read(database, kept.domain)
            if before is not None:
                kept = kept.merged(before)
            database.execute(_REPLACE, _row(kept))
            self._make_room(database)
        return kept

    def use(self, domain: str, now: float) -> None:
        """Record that mail goes to a domain."""
        with self._database.transaction() as database:
            database.execute("UPDATE policy SET used = ? WHERE domain = ?", (now, domain))

    def due(self, now: float, most: int) -> Sequence[Kept]:
        """Return policies that are to be fetched again, and that no process is fetching."""
        if not os.path.exists(self._database.path):
            return []
        with self._database.opened() as database:
            # Hardly ever is there one, and this look locks no process out.
            (is_any,) = database.execute(
                "SELECT EXISTS (SELECT * FROM policy WHERE refresh <= ?)", (now,)
            ).fetchone()
        if not is_any:
            return []
        with self._database.transaction() as database:
            database.execute(
                "DELETE FROM policy WHERE refresh <= ? AND expires < ? AND tried < ?",
                (now, now - _DAY, now - _DAY),
            )
            rows = database.execute(
                _SELECT + "WHERE refresh <= ? ORDER BY refresh LIMIT ?", (now, most)
            ).fetchall()
            found = [_kept(row) for row in rows]
            # The others are looked at again when they have expired.
            claims = [
                (
                    now + _CLAIM
                    if _is_wanted(kept, now)
                    else max(kept.expires, kept.tried) + 2 * _DAY,
                    kept.domain,
                )
                for kept in found
            ]
            database.executemany("UPDATE policy SET refresh = ? WHERE domain = ?", claims)
        return [kept for kept in found if _is_wanted(kept, now)]

    def next_refresh(self) -> float:
        """Return when the first policy is to be fetched again; infinite: there is none."""
        if not os.path.exists(self._database.path):
            return inf
        with self._database.opened() as database:
            (first,) = database.execute("SELECT min(refresh) FROM policy").fetchone()
        return inf if first is None else float(first)

    def _read(self, database: sqlite3.Connection, domain: str) -> Kept | None:
        row = database.execute(_SELECT + "WHERE domain = ?", (domain,)).fetchone()
        return None if row is None else _kept(row)

    def _make_room(self, database: sqlite3.Connection) -> None:
        while True:
            domains, octets = database.execute(
                "SELECT count(*), ifnull(sum(octets), 0) FROM policy"
            ).fetchone()
            if domains <= self._most and octets <= self._most_octets:
                return
            # Those without a policy first.
            database.execute(
                "DELETE FROM policy WHERE domain IN"
                " (SELECT domain FROM policy ORDER BY body IS NOT NULL, used LIMIT ?)",
                (max(1, domains // 100),),
            )


def _is_wanted(kept: Kept, now: float) -> bool:
    """Whether a policy that is due is fetched again: as long as it holds, and is of use."""
    return kept.in_force(now) and kept.used > now - _FORGOTTEN


def _row(kept: Kept) -> Sequence[object]:
    body = None if kept.policy is None else kept.policy.body
    return (
        kept.domain,
        body,
        kept.id,
        kept.since,
        kept.fetched,
        kept.used,
        kept.refresh,
        kept.tried,
        kept.tried_id,
        kept.failures,
        kept.problem,
        kept.trouble,
        kept.expires,
        len(body or b""),
    )


def _kept(row: Sequence[Any]) -> Kept:
    """Return what `_row` has written."""
    domain, body, id, since, fetched, used, refresh, tried, tried_id, failures, *rest = row
    problem, trouble = rest
    return Kept(
        domain=domain,
        policy=None if body is None else Policy.parse(body),
        id=id,
        since=since,
        fetched=fetched,
        used=used,
        refresh=refresh,
        tried=tried,
        tried_id=tried_id,
        failures=failures,
        problem=problem,
        trouble=trouble,
    )
