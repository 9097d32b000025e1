"""The transactions by which a machine renews its lease and exchanges credits with the others.

The credits of a limit are rows of ``part``, one for each machine. Whoever changes the rows of a
limit has its advisory lock, so that their sum stays within the limit. All times are those of the
database.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen

from ..interfaces import LimitKey
from .credits import LEASE, Grant, Request
from .fair_parts import Claim, fair_parts
from .limit_names import key_of, name_of
from .machines import Machine, OwnMachine
from .schema import Database

_REMEMBERED = 86_400.0  # seconds for which a machine is shown that is not alive any more

_RENEW = """
    UPDATE machine SET seen = clock_timestamp()
    WHERE id = %s AND seen > clock_timestamp() - make_interval(secs => %s)
"""
_REGISTER = """
    INSERT INTO machine (id, hostname, version, workers, settings, since, seen, ahead)
    VALUES (%(id)s, %(hostname)s, %(version)s, %(workers)s, %(settings)s,
        clock_timestamp(), clock_timestamp(), 0)
    ON CONFLICT (id) DO UPDATE SET hostname = excluded.hostname, version = excluded.version,
        workers = excluded.workers, settings = excluded.settings, seen = excluded.seen,
        since = CASE WHEN %(starts)s THEN excluded.since ELSE machine.since END
"""
# A number of 64 bits stands for a limit; where two have the same, they wait for each other. In one
# order for all machines, so that none waits for one that waits for it.
_LOCK = """
    WITH locks AS MATERIALIZED (
        SELECT DISTINCT hashtextextended(name, 1) AS lock FROM unnest(%s::text[]) AS name
        ORDER BY lock
    )
    SELECT pg_advisory_xact_lock(lock) FROM locks
"""
# Rows without a machine are of those that have ended: they count until a time of their own.
_OTHERS = """
    SELECT part.name, part.machine, part.held, part.wanted,
        extract(epoch FROM part.since)::float8, part.spare,
        machine.seen > clock_timestamp() - make_interval(secs => %s)
    FROM part LEFT JOIN machine ON machine.id = part.machine
    WHERE part.name = ANY(%s) AND part.machine <> %s AND (
        part.until > clock_timestamp()
        OR part.until IS NULL AND machine.seen
            > clock_timestamp() - make_interval(secs => greatest(%s, part.hold))
    )
"""
_OWN_SINCE = """
    SELECT name, extract(epoch FROM since)::float8, wanted > 0 AND held = 0 FROM part
    WHERE name = ANY(%s) AND machine = %s
"""
_NOW = "SELECT extract(epoch FROM clock_timestamp())::float8"
_WRITE = """
    INSERT INTO part (name, machine, held, spare, wanted, hold, since)
    SELECT name, %s, held, spare, wanted, hold, to_timestamp(since) FROM unnest(
        %s::text[], %s::int[], %s::int[], %s::int[], %s::float8[], %s::float8[]
    ) AS new (name, held, spare, wanted, hold, since)
    ON CONFLICT (name, machine) DO UPDATE SET held = excluded.held, spare = excluded.spare,
        wanted = excluded.wanted, hold = excluded.hold, since = excluded.since
"""
_WANTED = """
    SELECT DISTINCT other.name FROM part AS other JOIN part AS own USING (name)
    JOIN machine ON machine.id = other.machine
    WHERE other.wanted > 0 AND own.machine = %s AND own.held > 0 AND other.machine <> %s
        AND machine.seen > clock_timestamp() - make_interval(secs => %s)
"""
_ALIVE = """
    SELECT count(*) FROM machine WHERE seen > clock_timestamp() - make_interval(secs => %s)
"""
_MACHINES = """
    SELECT id, hostname, version, workers, settings, extract(epoch FROM since)::float8,
        extract(epoch FROM clock_timestamp() - seen)::float8, ahead,
        seen > clock_timestamp() - make_interval(secs => %s)
    FROM machine ORDER BY hostname, id
"""
_LEASES = """
    SELECT worker.machine, count(*) FROM recipient JOIN worker ON worker.id = recipient.lease
    WHERE recipient.lease <> 0 GROUP BY worker.machine
"""
# The parts of a machine that ends: what counts for longer, counts for itself.
_LEAVE_PARTS = """
    WITH own AS (
        DELETE FROM part WHERE machine = %s AND until IS NULL RETURNING name, held, hold
    )
    INSERT INTO part (name, machine, held, spare, wanted, since, hold, until)
    SELECT name, %s || '/' || extract(epoch FROM clock_timestamp()), held, 0, 0,
        clock_timestamp(), hold, clock_timestamp() + make_interval(secs => hold)
    FROM own WHERE hold > 0 AND held > 0 AND %s
"""
_SWEEP_PARTS = """
    DELETE FROM part WHERE until <= clock_timestamp() OR until IS NULL AND NOT EXISTS (
        SELECT FROM machine WHERE machine.id = part.machine AND machine.seen
            > clock_timestamp() - make_interval(secs => greatest(%s, part.hold))
    )
"""
_SWEEP_MACHINES = """
    DELETE FROM machine WHERE seen < clock_timestamp() - make_interval(secs => %s)
"""


class Lapsed(Exception):
    """This machine was taken for dead: others may have its credits."""


@frozen
class Answer:
    """What the database answers.

    Attributes:
        grants: an answer to each request.
        wanted: limits of which this machine has credits and other machines want some.
        machines: how many are alive.
    """

    grants: Sequence[Grant]
    wanted: Sequence[LimitKey]
    machines: int


def channel_of(machine: str) -> str:
    """Return the channel of notifications for a machine."""
    return f"twisted_mta_{machine}"


def register(database: Database, own: OwnMachine, *, starts: bool) -> None:
    """Make a machine alive, with no credits.

    Args:
        database: the connection.
        own: the machine.
        starts: whether it has just started: credits that an earlier process of it has used count
            for as long as they would have. Else it says itself which it uses.
    """
    values: dict[str, Any] = {
        "id": own.id,
        "hostname": own.hostname,
        "version": own.version,
        "workers": own.workers,
        "settings": own.settings,
        "starts": starts,
    }
    with database.transaction():
        database.execute(_LEAVE_PARTS, (own.id, own.id, starts))
        database.execute(_REGISTER, values)


def leave(database: Database, machine: str) -> None:
    """Take a machine out: its credits are free, but for those that count for longer."""
    with database.transaction():
        database.execute(_LEAVE_PARTS, (machine, machine, True))
        database.execute("DELETE FROM machine WHERE id = %s", (machine,))


def exchange(database: Database, machine: str, requests: Sequence[Request]) -> Answer:
    """Renew the lease of a machine, and answer its requests.

    Raises:
        Lapsed: the lease has ended; nothing was changed.
    """
    with database.transaction():
        if database.execute(_RENEW, (machine, LEASE)).rowcount != 1:
            raise Lapsed
        grants, waken = _answer(database, machine, requests) if requests else ([], [])
        wanted = database.execute(_WANTED, (machine, machine, LEASE)).fetchall()
        [(alive,)] = database.execute(_ALIVE, (LEASE,)).fetchall()
        for each in waken:
            database.execute("SELECT pg_notify(%s, '')", (channel_of(each),))
    return Answer(grants, [key_of(name) for (name,) in wanted], alive)


def _answer(
    database: Database, machine: str, requests: Sequence[Request]
) -> tuple[list[Grant], list[str]]:
    names = [name_of(each.key) for each in requests]
    database.execute(_LOCK, (names,))
    rows = database.execute(_OTHERS, (LEASE, names, machine, LEASE)).fetchall()
    waited: dict[str, float] = {
        name: begun
        for name, begun, waits in database.execute(_OWN_SINCE, (names, machine)).fetchall()
        if waits
    }
    current = now(database)
    others: dict[str, list[Claim]] = {}
    ended: dict[str, int] = {}  # credits of machines that are no more, which still count
    for name, other, held, wanted, since, spare, alive in rows:
        if alive:
            others.setdefault(name, []).append(Claim(other, held, wanted, since, spare))
        else:
            ended[name] = ended.get(name, 0) + held
    grants: list[Grant] = []
    written: list[tuple[str, int, int, int, float, float]] = []
    unused: list[str] = []
    waken: dict[str, None] = {}
    for name, request in zip(names, requests, strict=True):
        since = waited.get(name, current)
        claims = others.get(name, [])
        grant, wake = _decide(machine, request, claims, ended.get(name, 0), since)
        grants.append(grant)
        waken.update(dict.fromkeys(wake))
        held = request.held + grant.granted
        wanted = request.wanted - grant.granted
        if held or wanted:
            spare = request.spare + grant.granted
            written.append((name, held, spare, wanted, request.hold, current if held else since))
        else:
            unused.append(name)
    if written:
        database.execute(_WRITE, (machine, *(list(each) for each in zip(*written, strict=True))))
    if unused:
        database.execute(
            "DELETE FROM part WHERE name = ANY(%s) AND machine = %s", (unused, machine)
        )
    return grants, list(waken)


def _decide(
    machine: str, request: Request, others: Sequence[Claim], ended: int, since: float
) -> tuple[Grant, list[str]]:
    """Decide on a request; return which machines are to be woken."""
    limit = request.limit - ended
    free = limit - request.held - sum(each.held for each in others)
    own = Claim(machine, request.held, request.wanted, since, request.spare)
    parts = fair_parts(limit, [own, *others])
    contended = any(each.wanted for each in others)
    most = min(request.wanted, free)
    if contended:
        most = min(most, parts[machine] - request.held)
    granted = max(0, most)
    spare_elsewhere = any(each.spare > 0 for each in others)
    wake: list[str] = []
    if granted < request.wanted:
        wake += [each.machine for each in others if each.held > parts[each.machine]]
    if free - granted > 0:
        wake += [each.machine for each in others if each.wanted and each.held < parts[each.machine]]
    part = parts[machine] if contended else None
    return Grant(request.key, granted, part, spare_elsewhere), wake


def machines(database: Database, own: OwnMachine, ahead: float) -> list[Machine]:
    """Return all machines that were alive within a day, with what they deliver now.

    Args:
        database: the connection.
        own: this machine, as it is now.
        ahead: seconds by which its wall clock is ahead of the database's.
    """
    database.execute(
        "UPDATE machine SET hostname = %s, version = %s, workers = %s, settings = %s, ahead = %s"
        " WHERE id = %s",
        (own.hostname, own.version, own.workers, own.settings, ahead, own.id),
    )
    rows = database.execute(_MACHINES, (LEASE,)).fetchall()
    [(queue,)] = database.execute("SELECT to_regclass('worker')").fetchall()
    leases: dict[str, int] = dict(database.execute(_LEASES).fetchall()) if queue is not None else {}
    return [
        Machine(
            id=row[0],
            hostname=row[1],
            version=row[2],
            workers=row[3],
            settings=row[4],
            since=row[5],
            silent=max(0.0, row[6]),
            ahead=row[7],
            alive=row[8],
            leases=leases.get(row[0], 0),
        )
        for row in rows
    ]


def now(database: Database) -> float:
    """Return the database's wall time."""
    [(seconds,)] = database.execute(_NOW).fetchall()
    return float(seconds)


def sweep(database: Database) -> None:
    """Remove what machines have left that are no more."""
    database.execute(_SWEEP_PARTS, (LEASE,))
    database.execute(_SWEEP_MACHINES, (_REMEMBERED,))
