"""The side of a move that is a database, on which other machines may work meanwhile.

A move has a row of its own among the workers, and its leases do not end: its row never goes stale.
So a message that is on its way is seen in the queue, and is not sent, until the move has decided
what becomes of it, or another run has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from attrs import astuple, fields, frozen
from psycopg import errors

from ..operator.operations import Resume, Suspend
from ..operator.suspended import SuspendedDestination
from ..store.counts import Counts
from ..store.leases import Leases
from ..store.postgresql.connection import Connection, connect
from ..store.postgresql.large_bodies import PIECE
from ..store.postgresql.operator_queries import read_suspended
from ..store.postgresql.rows import columns, insert, octets, pieces, text
from ..store.postgresql.schema import scripts, upgrade
from ..store.postgresql.store import LEASE
from ..store.postgresql.transaction import PostgreSQLTransaction
from ..store.spool import Spool
from .parcel import (
    ATTEMPT_COLUMNS,
    FAILURE_COLUMNS,
    MESSAGE_COLUMNS,
    MESSAGES,
    OCTETS,
    RECIPIENT_COLUMNS,
    RECIPIENTS,
    RECORDS,
    InUse,
    Parcel,
    Unmovable,
)

_PREFIX = "move "  # of the machine in the row of a move
_RECORDS = 1_000

_MESSAGE_TYPES = (
    *("bigint", "text", "text", "text", "bytea", "bytea", "bigint", "float8", "float8", "text"),
    *("text", "text"),
)
_RECIPIENT_TYPES = (
    *("bigint", "int", "int", "int", "float8", "float8", "int", "int", "text", "bytea", "text"),
    *("text", "text", "text", "text", "text", "text", "text", "text", "bigint"),
)
_ATTEMPT_TYPES = (
    *("bigint", "int", "int", "float8", "text", "int", "text", "bytea", "text", "text"),
    *("boolean", "boolean", "bigint"),
)
_RECORD_TYPES = {
    "failure": ("bigint", "int", "text", "text", "float8", "bytea", "text"),
    "imported": ("bigint", "int", "float8"),
    "webhook_event": ("text", "text", "bytea", "float8", "int", "float8"),
}
_TEXT = RECIPIENT_COLUMNS.index("last_text")
_REPLY = FAILURE_COLUMNS.index("reply")
_ATTEMPT_TEXT = ATTEMPT_COLUMNS.index("text")
_UNCERTAIN = ATTEMPT_COLUMNS.index("uncertain")
_COUNTS = [each.name for each in fields(Counts)]


@frozen
class User:
    """A process that uses the database.

    Attributes:
        machine: its id.
        slot: the process, of those of the machine.
        age: seconds since its last transaction.
    """

    machine: str
    slot: int
    age: float


class SharedDatabase:
    """The queue in a database.

    Args:
        url: as libpq reads it.
        seconds: a monotonic clock.
        spool: a place for copies of bodies, of which this makes none.
        poster: the id of the machine that posts events to webhooks which come from a file.
    """

    def __init__(
        self, url: str, *, seconds: Callable[[], float], spool: Spool, poster: str = ""
    ) -> None:
        self._url = url
        self._poster = poster
        self._seconds = seconds
        self._spool = spool
        self._connection: Connection | None = None
        self._worker = 0
        self._machine = ""

    def open(self) -> None:
        """Connect, and make or upgrade the tables.

        Raises:
            OSError, psycopg.Error, NewerSchema: that is not possible.
        """
        self._connection = database = connect(self._url, self._seconds)
        with database.transaction():
            upgrade(database, scripts())

    def close(self) -> None:
        """Close the connection."""
        database, self._connection = self._connection, None
        if database is not None:
            database.close()

    @property
    def _database(self) -> Connection:
        assert self._connection is not None
        return self._connection

    @property
    def place(self) -> str:
        """The database as people name it, without a user."""
        info = self._database.info
        return f"postgresql://{info.host}:{info.port}/{info.dbname}"

    @property
    def messages(self) -> int:
        """How many messages are there."""
        [(messages,)] = self._database.execute(
            "SELECT sum(messages)::bigint FROM worker"
        ).fetchall()
        return int(messages)

    # The row of a move.

    def find(self, token: str) -> bool:
        """Go on with a move that was begun before; return whether it is known here."""
        row = self._database.execute(
            "SELECT id FROM worker WHERE machine = %s", (_PREFIX + token,)
        ).fetchone()
        if row is not None:
            self._worker, self._machine = row[0], _PREFIX + token
        return row is not None

    def begin(self, token: str) -> None:
        """Make the row of a new move."""
        self._machine = _PREFIX + token
        [(self._worker,)] = self._database.execute(
            "INSERT INTO worker (machine, slot, seen) VALUES (%s, 0, 'infinity') RETURNING id",
            (self._machine,),
        ).fetchall()

    def finish(self) -> None:
        """Remove the row; its part of the counts stays."""
        with self._database.transaction():
            [counts] = self._database.execute(
                f"DELETE FROM worker WHERE id = %s RETURNING {', '.join(_COUNTS)}",
                (self._worker,),
            ).fetchall()
            self._count(Counts(*counts), worker=0)

    def users(self) -> list[User]:
        """Return the processes that have used the database in the time of a lease."""
        return [
            User(machine, slot, age)
            for machine, slot, age in self._database.execute(
                "SELECT machine, slot, extract(epoch FROM clock_timestamp() - seen)::float8"
                " FROM worker WHERE seen <> 'infinity'"
                " AND seen >= clock_timestamp() - make_interval(secs => %s) ORDER BY id",
                (LEASE,),
            ).fetchall()
        ]

    def end_users(self, machine: str) -> None:
        """End the leases of processes that are no more: those of a machine, and stale ones.

        Raises:
            InUse: another process goes on.
        """
        with self._database.transaction():
            gone = [
                id
                for (id,) in self._database.execute(
                    "SELECT id FROM worker WHERE seen <> 'infinity' AND (machine = %s"
                    " OR seen < clock_timestamp() - make_interval(secs => %s)) FOR UPDATE",
                    (machine, LEASE),
                ).fetchall()
            ]
            changes = self._changes()
            rows = self._database.execute(
                "UPDATE recipient SET lease = 0 WHERE lease = ANY(%s) AND lease <> 0"
                " RETURNING message, number, removing",
                (gone,),
            ).fetchall()
            changes.end_removals(sorted(row[:2] for row in rows if row[2] is not None))
            sums = [
                sum(column)
                for column in columns(
                    self._database.execute(
                        f"DELETE FROM worker WHERE id = ANY(%s) RETURNING {', '.join(_COUNTS)}",
                        (gone,),
                    ).fetchall(),
                    len(_COUNTS),
                )
            ]
            self._count(Counts(*sums), worker=0)
            self._count(changes.counts, worker=0)

    def left(self) -> tuple[int, int]:
        """Return how many messages are here, and how many of those another move has reserved."""
        [row] = self._database.execute(
            "SELECT (SELECT count(*) FROM message), (SELECT count(DISTINCT message) FROM recipient"
            " WHERE lease IN (SELECT id FROM worker WHERE machine LIKE %s AND id <> %s))",
            (f"{_PREFIX}%", self._worker),
        ).fetchall()
        return int(row[0]), int(row[1])

    # Messages that the move has reserved.

    def reserved(self) -> list[int]:
        """Return their ids."""
        rows = self._database.execute(
            "SELECT DISTINCT message FROM recipient WHERE lease = %s ORDER BY 1", (self._worker,)
        ).fetchall()
        return [id for (id,) in rows]

    def release(self, ids: Sequence[int]) -> None:
        """Let the machines deliver messages."""
        with self._database.transaction():
            self._release(ids)

    def drop(self, ids: Sequence[int]) -> None:
        """Remove messages, as they are in the file."""
        with self._database.transaction():
            self._drop(ids)

    def insert(self, parcels: Sequence[Parcel], before: Sequence[int]) -> dict[int, str]:
        """Insert messages and reserve them; release those that came before.

        Returns:
            Why a message was not inserted, by its id.

        Raises:
            psycopg.Error: nothing was written.
        """
        try:
            return self._insert_all(parcels, before)
        except (errors.DataError, errors.IntegrityError, Unmovable) as error:
            if len(parcels) == 1:
                self.release(before)
                return {parcels[0].id: str(error).splitlines()[0]}
        # One of them cannot be inserted: find it.
        refused: dict[int, str] = {}
        for parcel in parcels:
            refused.update(self.insert([parcel], before))
            before = ()
        return refused

    def _insert_all(self, parcels: Sequence[Parcel], before: Sequence[int]) -> dict[int, str]:
        database = self._database
        with database.transaction():
            self._release(before)
            taken = {
                id: "another message has its id there"
                for (id,) in database.execute(
                    "SELECT id FROM message WHERE id = ANY(%s)", ([each.id for each in parcels],)
                ).fetchall()
            }
            new = [each for each in parcels if each.id not in taken]
            insert(
                database,
                "message",
                f"{', '.join(MESSAGE_COLUMNS)}, machine",
                _MESSAGE_TYPES,
                [(*each.message, self._machine) for each in new],
            )
            insert(
                database,
                "recipient",
                f"{', '.join(RECIPIENT_COLUMNS)}, lease",
                _RECIPIENT_TYPES,
                [(*_encoded(row, _TEXT), self._worker) for each in new for row in each.recipients],
            )
            for each in new:
                if each.is_large:
                    self._insert_pieces(each)
            attempts = [row for each in new for row in self._attempts(each)]
            insert(database, "attempt", ", ".join(ATTEMPT_COLUMNS), _ATTEMPT_TYPES, attempts)
            sums = [sum(column) for column in columns([each.counts for each in new], len(_COUNTS))]
            self._count(Counts(*sums))
        return taken

    def _insert_pieces(self, parcel: Parcel) -> None:
        gathered, number = bytearray(), 0
        for chunk in parcel.chunks():
            gathered += chunk
            while len(gathered) >= PIECE:
                self._insert_piece(parcel.id, number, bytes(gathered[:PIECE]))
                del gathered[:PIECE]
                number += 1
        if gathered:
            self._insert_piece(parcel.id, number, bytes(gathered))

    def _insert_piece(self, id: int, number: int, content: bytes) -> None:
        self._database.execute(
            "INSERT INTO piece (message, number, content) VALUES (%s, %s, %b)",
            (id, number, content),
        )

    def _attempts(self, parcel: Parcel) -> Iterator[Sequence[Any]]:
        """Insert the transcripts of a message; yield its attempts with their keys here."""
        keys: dict[int | None, int | None] = {None: None}
        for id, transcript in parcel.conversations.items():
            [(keys[id],)] = self._database.execute(
                "INSERT INTO conversation (message, transcript) VALUES (%s, %s) RETURNING id",
                (parcel.id, octets(transcript)),
            ).fetchall()
        for row in parcel.attempts:
            *values, uncertain, unreachable, conversation = _encoded(row, _ATTEMPT_TEXT)
            yield (*values, bool(uncertain), bool(unreachable), keys.get(conversation))

    def take(self, after: int, before: Sequence[int]) -> list[Parcel]:
        """Reserve messages behind an id and return them; remove those that came before.

        Messages of which another process has a part are passed over.
        """
        database = self._database
        with database.transaction():
            self._drop(before)
            free = database.execute(
                "SELECT id, size, (SELECT count(*) FROM recipient WHERE message = id)"
                " FROM message WHERE id > %s AND NOT EXISTS (SELECT 1 FROM recipient"
                " WHERE message = id AND lease <> 0) ORDER BY id LIMIT %s FOR UPDATE",
                (after, MESSAGES),
            ).fetchall()
            ids = _first(free)
            database.execute(
                "UPDATE recipient SET lease = %s WHERE message = ANY(%s) AND lease = 0",
                (self._worker, ids),
            )
            split = database.execute(
                "SELECT DISTINCT message FROM recipient WHERE message = ANY(%s) AND lease <> %s",
                (ids, self._worker),
            ).fetchall()
            if split:  # a machine was started meanwhile, and has leased a part
                raise InUse("a machine works on the queue: stop its MTA, and repeat the command")
        return self._read(ids)

    def _read(self, ids: Sequence[int]) -> list[Parcel]:
        database = self._database
        parcels = {
            row[0]: Parcel(row, partial(pieces, database, row[0]))
            for row in database.execute(
                f"SELECT {', '.join(MESSAGE_COLUMNS)} FROM message WHERE id = ANY(%s) ORDER BY id",
                (list(ids),),
                binary=True,
            ).fetchall()
        }
        for row in database.execute(
            f"SELECT {', '.join(RECIPIENT_COLUMNS)} FROM recipient WHERE message = ANY(%s)"
            " ORDER BY message, number",
            (list(ids),),
        ).fetchall():
            parcels[row[0]].recipients.append(_decoded(row, _TEXT))
        for row in database.execute(
            f"SELECT {', '.join(ATTEMPT_COLUMNS)} FROM attempt WHERE message = ANY(%s)"
            " ORDER BY message, number, attempt",
            (list(ids),),
        ).fetchall():
            *values, uncertain, unreachable, conversation = _decoded(row, _ATTEMPT_TEXT)
            parcels[row[0]].attempts.append(
                (*values, int(uncertain), int(unreachable), conversation)
            )
        for id, message, transcript in database.execute(
            "SELECT id, message, transcript FROM conversation WHERE message = ANY(%s)",
            (list(ids),),
        ).fetchall():
            parcels[message].conversations[id] = text(transcript)
        return list(parcels.values())

    def _release(self, ids: Sequence[int]) -> None:
        if not ids:
            return
        rows = self._database.execute(
            "UPDATE recipient SET lease = 0 WHERE message = ANY(%s) AND lease = %s"
            " RETURNING message, number, removing",
            (list(ids), self._worker),
        ).fetchall()
        # The operator of a running machine may have removed some meanwhile.
        if removed := sorted(row[:2] for row in rows if row[2] is not None):
            changes = self._changes()
            changes.end_removals(removed)
            self._count(changes.counts)

    def _drop(self, ids: Sequence[int]) -> None:
        if not ids:
            return
        database = self._database
        values = (list(ids),)
        left = database.execute(
            "DELETE FROM recipient WHERE message = ANY(%s) RETURNING attempts, held", values
        ).fetchall()
        for table in ("attempt", "conversation", "piece"):
            database.execute(f"DELETE FROM {table} WHERE message = ANY(%s)", values)
        messages = database.execute(
            "DELETE FROM message WHERE id = ANY(%s) RETURNING quarantine IS NOT NULL", values
        ).fetchall()
        counts = Counts(
            messages=-len(messages), quarantined=-sum(quarantined for (quarantined,) in messages)
        )
        counts.recipients_left(left)
        self._count(counts)

    def _changes(self) -> PostgreSQLTransaction:
        return PostgreSQLTransaction(
            self._database,
            worker=self._worker,
            machine=self._machine,
            slot=0,  # of what a move does not write: events for webhooks
            counts=Counts(),
            known_failures=0,
            leases=Leases(),
            spool=self._spool,
        )

    def _count(self, counts: Counts, *, worker: int | None = None) -> None:
        self._database.execute(
            f"UPDATE worker SET {', '.join(f'{name} = {name} + %s' for name in _COUNTS)}"
            " WHERE id = %s",
            (*astuple(counts), self._worker if worker is None else worker),
        )

    # Destinations that the operator has suspended.

    def suspended(self) -> Sequence[SuspendedDestination]:
        """Return them, by name."""
        return read_suspended(self._database)

    def suspend(self, destinations: Sequence[SuspendedDestination]) -> None:
        """Suspend those that are not suspended here; messages for them may come then."""
        there = {each.name: None for each in self.suspended()}
        with self._database.transaction():
            for each in destinations:
                if each.name not in there:
                    self._changes().suspend(Suspend(each))

    def forget_suspended(self) -> None:
        """Resume all: the file has them now."""
        with self._database.transaction():
            self._changes().resume(Resume(None))

    # Records that are no messages.

    def records(self, table: str) -> list[Sequence[Any]]:
        """Return some records of a table."""
        columns = RECORDS[table]
        rows = self._database.execute(
            f"SELECT {', '.join(columns)} FROM {table}"
            f" ORDER BY {', '.join(columns[:2])} LIMIT {_RECORDS}"
        ).fetchall()
        return [_decoded(row, _REPLY) for row in rows] if table == "failure" else list(rows)

    def add_records(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        """Insert records, in place of those that came before."""
        names, types = ", ".join(RECORDS[table]), _RECORD_TYPES[table]
        if table == "failure":
            new: Sequence[Sequence[Any]] = [_encoded(row, _REPLY) for row in rows]
        elif table == "webhook_event":  # a process posts its own
            new = [(*row, self._poster, 0) for row in rows]
            names, types = f"{names}, machine, slot", (*types, "text", "int")
        else:
            new = rows
        with self._database.transaction():
            removed = self._remove_records(table, rows)
            insert(self._database, table, names, types, new)
            self._count_failures(table, len(rows) - removed)

    def remove_records(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        """Remove records that the file has now."""
        with self._database.transaction():
            self._count_failures(table, -self._remove_records(table, rows))

    def _remove_records(self, table: str, rows: Sequence[Sequence[Any]]) -> int:
        first, second = RECORDS[table][:2]
        types = "::{}[], %s::{}[]".format(*_RECORD_TYPES[table][:2])
        return self._database.execute(
            f"DELETE FROM {table} USING unnest(%s{types}) AS chosen (a, b)"
            f" WHERE {first} = a AND {second} = b",
            columns([row[:2] for row in rows], 2),
        ).rowcount

    def _count_failures(self, table: str, added: int) -> None:
        if table == "failure":
            self._count(Counts(failures=added))


def _first(rows: Sequence[Sequence[Any]]) -> list[int]:
    """Return the first messages, as many as go in one transaction."""
    ids: list[int] = []
    octets = recipients = 0
    for id, size, count in rows:
        ids.append(id)
        octets += size
        recipients += count
        if octets >= OCTETS or recipients >= RECIPIENTS:
            break
    return ids


def _encoded(row: Sequence[Any], place: int) -> Sequence[Any]:
    """Return a row with a peer's text as the database stores it."""
    if row[place] is None:
        return row
    return (*row[:place], octets(row[place]), *row[place + 1 :])


def _decoded(row: Sequence[Any], place: int) -> Sequence[Any]:
    """Return a row with a peer's text as a str."""
    if row[place] is None:
        return row
    return (*row[:place], text(row[place]), *row[place + 1 :])
