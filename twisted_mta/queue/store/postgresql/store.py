"""The store of several machines: a database in PostgreSQL that all of them share.

This file opens and closes the connection, keeps the worker's row, takes over from workers that are
no more, and applies batches. The statements are in `transaction`, `due`, `operator_queries` and
`history`.

A *worker* is one process from one start to the next, with a row in the database. Its leases last
as long as that row. Each transaction changes the row of its worker as the last thing before the
COMMIT: that renews the leases; it fails where another worker has taken them; and after a COMMIT
whose answer was lost it shows whether the transaction took place.

Bodies are in the database. Large ones are copied into files while their messages are leased, so
that they are read like those of the embedded store; the copies are worth nothing after a crash.
That is done in the transaction that needs it, or apart from it (`bring`, `fetch`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence

import psycopg
from attrs import astuple, fields
from psycopg import errors

from ....interfaces import Files
from ....mail.message import Message
from ....mail.queue_id import QueueId
from ...ids import SHARED_WORKERS
from ...operator.operations import Inspected
from ..contract import (
    Accept,
    Census,
    Forget,
    Leased,
    Operation,
    Recovery,
    Result,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreUnavailable,
    apply_batch,
)
from ..counts import Counts
from ..leases import Leases
from ..spool import FileBody, Spool
from . import webhook_rows
from .connection import PATIENCE, Connection, Timeline, connect, may_pass
from .large_bodies import REMOVE_LEFT, LargeBodies, copy_body
from .operator_queries import read_suspended
from .rows import CHOSEN, IS_CHOSEN, Database, columns, keys
from .schema import scripts, upgrade
from .transaction import PostgreSQLTransaction

LEASE = 30.0
"""Seconds after its last transaction at which the leases of a worker may be taken from it."""

_MARGIN = 5.0  # seconds for a transaction to end, and for clocks that do not run alike
_REGISTRATION = 0x7477_6D74_62  # "twmtb": the advisory lock of those that register
_COUNTS = [each.name for each in fields(Counts)]
_AWAITED = 4.0  # seconds that a statement may take where clients wait for it
_KEPT = 60.0  # seconds that a copy of a large body is kept after its lease, for operators
_LOOKS = 2.0  # seconds between two looks at the other workers and their counts
_REPEATS = 5  # transactions that the database ended because of another one are begun again

# It fails where the row is gone, so that the COMMIT may be sent along with it.
_RENEW = (
    "WITH renewed AS (UPDATE worker SET seen = clock_timestamp(), batch = %s, "
    + ", ".join(f"{name} = %s" for name in _COUNTS)
    + " WHERE id = %s AND machine = %s AND slot = %s RETURNING 1)"
    " SELECT 1 / count(*) FROM renewed"
)
_OTHERS = (
    f"SELECT {', '.join(f'coalesce(sum({name}), 0)::bigint' for name in _COUNTS)}"
    " FROM worker WHERE id <> %s"
)
_INHERIT = (
    "UPDATE worker SET "
    + ", ".join(f"{name} = worker.{name} + %s" for name in _COUNTS)
    + " WHERE id = 0"
)


class PostgreSQLStore:
    """`contract.Store` in a database that several machines share.

    Args:
        url: of the database, as libpq reads it.
        machine: returns the random id of this machine, from its state directory; blocks.
        slot: the number of this process among those of the machine. No other process that runs has
            the same two.
        spool: the directory of copies of large bodies; of this process alone.
        files: the disk of that directory.
        seconds: a monotonic clock.

    Attributes:
        brings_bodies: whether large bodies are brought and fetched apart, and not by `apply`.
        taken_over: workers whose leases were ended here, so that their mail is due.
        number: the number of this worker, from 0 to 1,023; ids that are drawn with it are not drawn
            by another worker. It may change in `open`.
        leases_until: until when the leases are this worker's for certain, by the clock. After that
            nothing may be sent that cannot be taken back: another worker may be sending it.
    """

    def __init__(
        self,
        url: str,
        *,
        machine: Callable[[], str],
        slot: int,
        spool: Spool,
        files: Files,
        seconds: Callable[[], float],
    ) -> None:
        self._url = url
        self._read_machine = machine
        self._machine = ""
        self._slot = slot
        self._spool = spool
        self._files = files
        self._seconds = seconds
        self._database: Connection | None = None
        self._timeline: Timeline | None = None
        self._worker: int | None = None
        self._batch = 0
        self._leases = Leases()
        self._counts = Counts()  # what this worker has added to them
        self._others = Counts()  # of all other workers, as they were seen last
        self._looked_at_others = 0.0
        # Messages of failed batches that may be in the database, until they are forgotten: their
        # senders were told to try again.
        self._in_doubt: dict[QueueId, None] = {}
        self._copies: dict[QueueId, float] = {}  # of large bodies, with the time they were made
        self._brought: dict[QueueId, None] = {}  # large bodies whose messages are not accepted yet
        self._bodies = LargeBodies(self._connect, files=files)
        self.brings_bodies = False
        self.number = 0
        self.taken_over = 0
        self.leases_until = 0.0

    # Opening and closing.

    def open(self) -> Recovery:
        """Connect, and register this process as a worker (`contract.Store`)."""
        self.close()
        try:
            if self._worker is None:
                self._machine = self._read_machine()
                self._sweep()
            self._database = database = self._connect()
            removed: tuple[QueueId, ...] = ()
            with database.transaction():
                upgrade(database, scripts())
            begun = self._seconds()
            with database.transaction():
                if self._is_registered(database):
                    self._end_lost_leases(database)
                else:
                    removed = self._register(database)
                self._others = self._read_others(database)
                suspended = read_suspended(database)
        except (OSError, psycopg.Error) as error:
            self.close()
            kind = StoreUnavailable if may_pass(error) else StoreError
            raise kind(f"the queue in PostgreSQL cannot be opened: {error}") from error
        except BaseException:
            self.close()
            raise
        self.leases_until = begun + LEASE - _MARGIN
        return Recovery((), (), self.census(), removed, suspended)

    def close(self) -> None:
        """Close the connection (`contract.Store`); the leases stay."""
        database, self._database = self._database, None
        if database is not None:
            with contextlib.suppress(psycopg.Error):
                database.close()

    def _connect(self) -> Connection:
        database = connect(self._url, self._seconds, since=self._timeline)
        self._timeline = database.timeline
        return database

    def _sweep(self) -> None:
        """Remove the copies of an earlier process; the bodies themselves are in the database."""
        self._files.make_directories(self._spool.directory)
        for name in self._files.names(self._spool.directory):
            self._files.unlink(os.path.join(self._spool.directory, name))

    # Workers.

    @property
    def _place(self) -> tuple[int | None, str, int]:
        """The worker's id, machine and slot."""
        return self._worker, self._machine, self._slot

    def _is_registered(self, database: Database) -> bool:
        """Whether this worker still has its leases, whatever became of its last batch."""
        if self._worker is None:
            return False
        row = database.execute(
            # In a database that was made anew, the id may be another worker's.
            "UPDATE worker SET seen = clock_timestamp()"
            " WHERE id = %s AND machine = %s AND slot = %s"
            f" RETURNING batch, {', '.join(_COUNTS)}",
            self._place,
        ).fetchone()
        if row is None:
            return False
        # The last batch may have been written though it was reported as failed.
        self._batch, self._counts = row[0], Counts(*row[1:])
        return True

    def _end_lost_leases(self, database: Database) -> None:
        """End the leases that began in a batch which was written though it was reported as failed.

        The messages of senders that were told to try again stay leased until they are forgotten.
        """
        rows = database.execute(
            "SELECT message, number FROM recipient WHERE lease = %s", (self._worker,)
        ).fetchall()
        lost = [
            (id, number)
            for id, number in rows
            if (id, number) not in self._leases and id not in self._in_doubt
        ]
        if lost:
            database.execute(
                f"UPDATE recipient SET lease = 0 FROM {CHOSEN} WHERE {IS_CHOSEN}", keys(lost)
            )

    def _register(self, database: Database) -> tuple[QueueId, ...]:
        """Make the row of this worker; end those of earlier processes in its place."""
        database.execute("SELECT pg_advisory_xact_lock(%s)", (_REGISTRATION,))
        former = database.execute(
            "SELECT id FROM worker WHERE machine = %s AND slot = %s FOR UPDATE",
            (self._machine, self._slot),
        ).fetchall()
        numbers = database.execute("SELECT number FROM worker WHERE number IS NOT NULL").fetchall()
        taken = dict.fromkeys(number for (number,) in numbers)
        free = next((each for each in range(SHARED_WORKERS) if each not in taken), None)
        if free is None:
            raise OSError(f"{SHARED_WORKERS} processes use it, and no more are possible")
        [(self._worker,)] = database.execute(
            "INSERT INTO worker (machine, slot, number, seen)"
            " VALUES (%s, %s, %s, clock_timestamp()) RETURNING id",
            (self._machine, self._slot, free),
        ).fetchall()
        self.number = free
        self._batch, self._counts = 0, Counts()
        self._leases = Leases()
        changes = self._transaction(database)
        removed = self._end_workers(database, [id for (id,) in former], changes)
        database.execute(REMOVE_LEFT)
        webhook_rows.adopt(database, (self._machine, self._slot))
        self._renew(database, changes)
        self._batch += 1
        self._counts = changes.counts
        return removed

    def _take_over(self, database: Database, changes: PostgreSQLTransaction) -> None:
        """End workers that have not been seen for as long as a lease lasts."""
        gone = database.execute(
            "SELECT id FROM worker WHERE seen < clock_timestamp() - make_interval(secs => %s)"
            " AND id <> %s ORDER BY id FOR UPDATE SKIP LOCKED",
            (LEASE, self._worker),
        ).fetchall()
        if gone:
            self._end_workers(database, [id for (id,) in gone], changes)
            database.execute(REMOVE_LEFT)
            webhook_rows.adopt(database, (self._machine, self._slot))
        self.taken_over += len(gone)

    def _end_workers(
        self, database: Database, workers: Sequence[int], changes: PostgreSQLTransaction
    ) -> tuple[QueueId, ...]:
        """End the leases of workers whose rows are locked, and the rows; keep their counts."""
        if not workers:
            return ()
        rows = database.execute(
            "UPDATE recipient SET lease = 0 WHERE lease = ANY(%s) AND lease <> 0"
            " RETURNING message, number, removing",
            (list(workers),),
        ).fetchall()
        removed = sorted((id, number) for id, number, since in rows if since is not None)
        changes.end_removals(removed)
        ended = database.execute(
            f"DELETE FROM worker WHERE id = ANY(%s) RETURNING {', '.join(_COUNTS)}",
            (list(workers),),
        ).fetchall()
        if sums := [sum(column) for column in columns(ended, len(_COUNTS))]:
            database.execute(_INHERIT, sums)
        return tuple(QueueId(id) for id in dict.fromkeys(id for id, _ in removed))

    def _renew(self, database: Database, changes: PostgreSQLTransaction) -> None:
        """Change the row of this worker, as the last statement of the transaction.

        It fails with a `DivisionByZero` where another worker has taken its leases; then nothing may
        be written.
        """
        values = (self._batch + 1, *astuple(changes.counts), *self._place)
        database.execute(_RENEW, values)

    def _read_others(self, database: Database) -> Counts:
        self._looked_at_others = self._seconds()
        row = database.execute(_OTHERS, (self._worker,)).fetchone()
        assert row is not None
        return Counts(*row)

    # Batches.

    def apply(self, batch: Sequence[Operation]) -> list[Result]:
        """Apply ``batch`` in one transaction (`contract.Store`)."""
        repeats = 0
        while True:
            try:
                return self._apply(batch)
            except (errors.DeadlockDetected, errors.SerializationFailure) as error:
                repeats += 1
                if repeats > _REPEATS:
                    raise StoreError(str(error)) from error
            except (errors.LockNotAvailable, errors.QueryCanceled) as error:
                raise StoreBusy(_one_line(error)) from error
            except errors.DivisionByZero as error:
                raise StoreError(
                    "the leases of this process were taken over by another one"
                ) from error
            except errors.DiskFull as error:
                raise StoreFull(str(error)) from error
            except (errors.DataError, errors.IntegrityError) as error:
                # An operation that the database cannot take must not fail the others.
                raise ValueError(str(error)) from error
            except (psycopg.Error, OSError) as error:
                raise StoreError(str(error)) from error

    def _apply(self, batch: Sequence[Operation]) -> list[Result]:
        database = self._database
        if database is None:
            raise StoreError("the store is closed")
        changes = self._transaction(database)
        others, begun = self._others, self._seconds()
        look_at_others = begun - self._looked_at_others >= _LOOKS
        is_awaited = any(isinstance(each, Accept) for each in batch)
        database.patience = _AWAITED if is_awaited else PATIENCE
        committing = False
        try:
            with database.pipeline():
                database.execute("BEGIN")
                if look_at_others:
                    self._take_over(database, changes)
                results = apply_batch(batch, changes)
                for result in () if self.brings_bodies else results:
                    self._fetch(database, result)
                if look_at_others:
                    others = self._read_others(database)
                self._renew(database, changes)
                committing = True
                database.execute("COMMIT")
        except BaseException as error:
            answer_is_lost = committing and database.closed and isinstance(error, psycopg.Error)
            if not (answer_is_lost and self._was_committed()):
                changes.undo()
                self._in_doubt.update(dict.fromkeys(_inserted(batch)))
                with contextlib.suppress(psycopg.Error):
                    database.execute("ROLLBACK")
                raise
        self._batch += 1
        self.leases_until = begun + LEASE - _MARGIN
        changes.finish()
        for id in _inserted(batch):
            self._in_doubt.pop(id, None)  # where an earlier try has failed
            self._brought.pop(id, None)
        for each in batch:
            for id in each.ids if isinstance(each, Forget) else ():
                self._in_doubt.pop(id, None)
                self._brought.pop(id, None)
        self._counts, self._others = changes.counts, others
        self._copies.update(
            (each.message.id, begun)
            for each in batch
            if isinstance(each, Accept) and isinstance(each.message.body, FileBody)
        )
        unused = [*changes.gone, *self._unused(batch)]
        if look_at_others:
            unused += self._left_over()
        for id in unused:
            self._copies.pop(id, None)
            with contextlib.suppress(OSError):
                self._files.unlink(self._spool.path(id))
        return results

    def _was_committed(self) -> bool:
        """Look on a new connection whether the batch was written; False: not, or it is not known.

        What was written all the same is found, and forgotten, when the store is opened again.
        """
        try:
            self._database = database = self._connect()
            with database.transaction():
                # The lock is waited for until the transaction has ended, if it has not yet.
                database.execute("SET LOCAL lock_timeout = 2000")
                row = database.execute(
                    "SELECT batch FROM worker WHERE id = %s FOR UPDATE", (self._worker,)
                ).fetchone()
        except (OSError, psycopg.Error):
            return False
        return row is not None and row[0] == self._batch + 1

    def _transaction(self, database: Database) -> PostgreSQLTransaction:
        assert self._worker is not None
        return PostgreSQLTransaction(
            database,
            worker=self._worker,
            machine=self._machine,
            slot=self._slot,
            counts=self._counts,
            known_failures=self._others.failures,
            leases=self._leases,
            spool=self._spool,
            brought=self._brought,
        )

    def is_leased(self, message: Message) -> bool:
        """Whether all recipients of a message are this worker's for certain; from any thread.

        If not, nothing may be sent that cannot be taken back: another worker may be sending it.
        """
        return self._seconds() < self.leases_until and all(
            (message.id, each.number) in self._leases for each in message.envelope.recipients
        )

    def census(self) -> Census:
        """Return the kept counts, those of other workers as of the last look (`contract.Store`)."""
        sums = map(sum, zip(astuple(self._counts), astuple(self._others), strict=True))
        return Counts(*sums).census(len(self._leases))

    def free(self) -> int:
        """Return how many octets of large bodies the disk has room for on their way in or out.

        Raises:
            OSError: the file system cannot be asked.
        """
        return self._files.free(os.path.dirname(self._spool.directory))

    # Copies of large bodies.

    def _fetch(self, database: Database, result: Result) -> None:
        """Copy the large bodies of messages that are to be read into files."""
        for message in large_messages(result):
            if not self._has_copy(message.id):
                copy_body(database, self._files, message.id, self._spool.path(message.id))
                self._copies[message.id] = self._seconds()

    def _has_copy(self, id: QueueId) -> bool:
        return str(id) in self._files.names(self._spool.directory)

    def bring(self, message: Message) -> None:
        """Write the large body of a message, apart from the transaction that will accept it.

        It may be called from another thread, like `fetch` and `end_transfers`, from one at a time.

        Raises:
            StoreFull: the disk of the database has no room.
            StoreError: it could not be written.
        """
        if self._worker is None:
            raise StoreError("the store is closed")
        try:
            self._bodies.bring(message, self._worker)
        except errors.DiskFull as error:
            raise StoreFull(str(error)) from error
        except (OSError, psycopg.Error) as error:
            raise StoreError(str(error)) from error
        self._brought[message.id] = None

    def fetch(self, message: Message) -> None:
        """Copy the large body of a message into a file, unless it is there.

        Raises:
            StoreError: it could not be copied.
        """
        try:
            if not self._has_copy(message.id):
                self._bodies.fetch(message.id, self._spool.path(message.id))
                self._copies[message.id] = self._seconds()
        except (OSError, psycopg.Error) as error:
            raise StoreError(str(error)) from error

    def end_transfers(self) -> None:
        """Close the connection of `bring` and `fetch`."""
        self._bodies.close()

    def _left_over(self) -> list[QueueId]:
        """Return messages whose copy was made some time ago, and which are not leased here."""
        past = self._seconds() - _KEPT
        return [
            id
            for id, made in list(self._copies.items())  # another thread may add one
            if made < past and not self._leases.of_message(id)
        ]

    def _unused(self, batch: Sequence[Operation]) -> list[QueueId]:
        """Return accepted messages whose copy is not read: they are not leased."""
        return [
            each.message.id
            for each in batch
            if isinstance(each, Accept)
            and not each.lease
            and isinstance(each.message.body, FileBody)
        ]


def _one_line(error: psycopg.Error) -> str:
    """Return what the server said, and where, without the text of the statement."""
    said = error.diag
    return "; ".join(each for each in (said.message_primary, said.context) if each)


def large_messages(result: Result) -> Sequence[Message]:
    """Return the messages of a result whose bodies are in files."""
    messages: Sequence[Message] = ()
    if isinstance(result, Leased):
        messages = result.messages
    elif isinstance(result, Inspected):
        messages = (result.message,)
    return [each for each in messages if isinstance(each.body, FileBody)]


def _inserted(batch: Sequence[Operation]) -> Iterator[QueueId]:
    """Yield the ids of the messages that a batch accepts."""
    for each in batch:
        if isinstance(each, Accept):
            yield each.message.id
            yield from (notice.id for notice in each.notices)
