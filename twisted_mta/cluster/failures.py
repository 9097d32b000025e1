"""Failed authentications of other machines: counts that are shared every few seconds.

A machine counts failures by itself, and subtracts those of the others from its limits. So more than
the limit are possible: what all machines count within two beats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from ..interfaces import LimitKey
from .limit_names import key_of, name_of
from .schema import Database

_MOST = 50_000  # counts of other machines; beyond it the oldest are forgotten
_MOST_AT_ONCE = 5_000  # rows that are read in one transaction
_OVERLAP = 4.0  # seconds that are read again: a transaction that took as long was not seen
_KEPT = 86_400.0

_WRITE = """
    INSERT INTO failures (name, machine, count, changed)
    SELECT name, %s, count, clock_timestamp()
    FROM unnest(%s::text[], %s::int[]) AS new (name, count) ORDER BY name
    ON CONFLICT (name, machine) DO UPDATE SET count = excluded.count, changed = excluded.changed
"""
_READ = """
    SELECT name, machine, count, extract(epoch FROM changed)::float8,
        extract(epoch FROM clock_timestamp() - changed)::float8
    FROM failures WHERE changed > to_timestamp(%s) AND machine <> %s ORDER BY changed LIMIT %s
"""


@frozen
class Failures:
    """The count of one limit in another machine.

    Attributes:
        key: of the limit.
        machine: the other one.
        count: failures in the period.
        age: seconds since it was written.
    """

    key: LimitKey
    machine: str
    count: int
    age: float


def share(
    database: Database, machine: str, counts: Mapping[LimitKey, int], since: float
) -> tuple[Sequence[Failures], float]:
    """Write the counts of a machine that have changed, and read those of the others.

    Args:
        database: the connection.
        machine: its id.
        counts: those that have changed, by limit.
        since: the second value of the last call; 0: the first call.

    Returns:
        The counts of others that have changed, some of them again; and the time of the last.
    """
    with database.transaction():
        database.execute("SET LOCAL synchronous_commit = off")
        if counts:
            names = [name_of(key) for key in counts]
            database.execute(_WRITE, (machine, names, list(counts.values())))
        rows = database.execute(
            _READ, (max(0.0, since - _OVERLAP), machine, _MOST_AT_ONCE)
        ).fetchall()
    read = [Failures(key_of(name), other, count, age) for name, other, count, _, age in rows]
    last: float = rows[-1][3] if rows else since
    return read, last


def sweep(database: Database) -> None:
    """Remove counts that are of no use any more."""
    database.execute(
        "DELETE FROM failures WHERE changed < clock_timestamp() - make_interval(secs => %s)",
        (_KEPT,),
    )


class FailuresElsewhere:
    """The failures that other machines have counted.

    Attributes:
        period: seconds for which a count stays that is not written again.
    """

    def __init__(self) -> None:
        self.period = 600.0
        self._counts: dict[tuple[LimitKey, str], tuple[int, float]] = {}  # and when it ends
        self._sums: dict[LimitKey, int] = {}

    def __getitem__(self, key: LimitKey) -> int:
        """Return how many failures count in a limit."""
        return self._sums.get(key, 0)

    def take(self, read: Sequence[Failures], now: float) -> None:
        """Take counts of other machines, and forget what is over.

        Args:
            read: the counts.
            now: by the clock.
        """
        for each in read:
            self._set(each.key, each.machine, each.count, now + self.period - each.age)
        while self._counts:
            place, (_, end) = next(iter(self._counts.items()))
            if end > now and len(self._counts) <= _MOST:
                break
            self._set(*place, 0, 0.0)

    def _set(self, key: LimitKey, machine: str, count: int, end: float) -> None:
        before, _ = self._counts.pop((key, machine), (0, 0.0))
        if count:
            self._counts[key, machine] = count, end  # behind the others, which end before it
        total = self._sums.get(key, 0) + count - before
        if total:
            self._sums[key] = total
        else:
            self._sums.pop(key, None)
