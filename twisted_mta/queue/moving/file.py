"""The side of a move that is a file: the embedded store of a machine that is stopped.

Its transactions decide. A message that the database has reserved for the move belongs to it, or
does not, by whether this file has noted it in ``moved``.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

from attrs import astuple, frozen

from ...interfaces import Files
from ...mail.queue_id import QueueId
from ..store.contract import StateInUse
from ..store.counts import Counts
from ..store.lock import StateLock
from ..store.rows import flat, insert_rows, marks
from ..store.schema import transaction
from ..store.spool import Spool
from ..store.sqlite import SETTINGS, SQLiteStore
from .parcel import (
    ATTEMPT_COLUMNS,
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

Direction = Literal["out", "in"]
"""Out of the file into the database, or in again."""

_RECORDS = 1_000  # of other tables, that go in one transaction


@frozen
class Pending:
    """A move that is under way, or was interrupted.

    Attributes:
        token: names it in the database.
        direction: of the move.
        place: the database, for people.
    """

    token: str
    direction: Direction
    place: str


class QueueFile:
    """The queue in a directory, locked as long as this is open.

    Args:
        path: of the file of the queue.
        locks: paths of the files that an MTA locks which works on it.
        spool: its large bodies.
        files: the disk.
    """

    def __init__(self, path: str, *, locks: Sequence[str], spool: Spool, files: Files) -> None:
        self.path = path
        self._locks = [StateLock(lock) for lock in locks]
        self._spool = spool
        self._files = files
        self._held: list[StateLock] = []
        self._connection: sqlite3.Connection | None = None
        self._counts = Counts()

    def open(self) -> None:
        """Lock and open it; finish what its last process left, and upgrade it.

        Raises:
            InUse: an MTA works on it.
            StoreError, NewerSchema: it cannot be opened.
        """
        try:
            for lock in self._locks:
                lock.acquire()
                self._held.append(lock)
            store = SQLiteStore(self.path, spool=self._spool, files=self._files)
            store.open()
            store.close()
            self._connection = database = sqlite3.connect(self.path, isolation_level=None)
            for setting in SETTINGS:
                database.execute(f"PRAGMA {setting}")
            self._counts = Counts.read(database)
        except StateInUse as error:
            self.close()
            raise InUse(f"{error}: stop that MTA, and repeat the command") from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close it, and let an MTA open it."""
        database, self._connection = self._connection, None
        if database is not None:
            with contextlib.suppress(sqlite3.Error):
                database.close()
        while self._held:
            self._held.pop().release()

    def remove(self) -> None:
        """Remove the file, which is empty, and let an MTA open the place."""
        database, self._connection = self._database, None
        with contextlib.closing(database):
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for name in (self.path, f"{self.path}-wal", f"{self.path}-shm"):
            self._files.unlink(name)
        self._files.sync_directory(os.path.dirname(self.path))
        self.close()

    @property
    def _database(self) -> sqlite3.Connection:
        assert self._connection is not None
        return self._connection

    @property
    def messages(self) -> int:
        """How many messages are there."""
        return self._counts.messages

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all is left, of any kind."""
        (left,) = self._database.execute(
            "SELECT EXISTS (SELECT 1 FROM message) OR EXISTS (SELECT 1 FROM failure)"
            " OR EXISTS (SELECT 1 FROM imported) OR EXISTS (SELECT 1 FROM move)"
            " OR EXISTS (SELECT 1 FROM webhook_event)"
        ).fetchone()
        return not left

    # What is under way.

    def pending(self) -> Pending | None:
        """Return the move that was begun and not finished."""
        row = self._database.execute("SELECT token, direction, place FROM move").fetchone()
        return None if row is None else Pending(*row)

    def begin(self, pending: Pending) -> None:
        """Note a move before anything else."""
        with transaction(self._database):
            self._database.execute("INSERT INTO move VALUES (?, ?, ?)", astuple(pending))

    def moved(self) -> list[int]:
        """Return the messages that the last transaction of the move gave away, or took."""
        return [id for (id,) in self._database.execute("SELECT message FROM moved ORDER BY 1")]

    def forget_moved(self) -> None:
        """Forget them, as the database has done its part."""
        with transaction(self._database):
            self._database.execute("DELETE FROM moved")

    def finish(self) -> None:
        """Forget the move, of which the database knows nothing any more."""
        with transaction(self._database):
            self._database.execute("DELETE FROM move")

    # Messages.

    def read(self, after: int) -> list[Parcel]:
        """Return messages behind an id, as many as go in one transaction."""
        parcels: list[Parcel] = []
        octets = 0
        for row in self._database.execute(
            f"SELECT {', '.join(MESSAGE_COLUMNS)} FROM message WHERE id > ? ORDER BY id", (after,)
        ):
            parcel = Parcel(row, partial(self._chunks, QueueId(row[0])))
            parcels.append(parcel)
            octets += parcel.size
            if len(parcels) >= MESSAGES or octets >= OCTETS:
                break
        if not parcels:
            return []
        parcels = self._with_recipients(parcels)
        by_id = {each.id: each for each in parcels}
        span = parcels[0].id, parcels[-1].id
        for row in self._database.execute(
            f"SELECT {', '.join(ATTEMPT_COLUMNS)} FROM attempt WHERE message BETWEEN ? AND ?"
            " ORDER BY message, number, attempt",
            span,
        ):
            by_id[row[0]].attempts.append(row)
        for id, message, transcript in self._database.execute(
            "SELECT id, message, transcript FROM conversation WHERE message BETWEEN ? AND ?", span
        ):
            by_id[message].conversations[id] = transcript
        return parcels

    def _with_recipients(self, parcels: list[Parcel]) -> list[Parcel]:
        """Return the first messages, with their recipients, up to a number of those."""
        place = 0
        rows = self._database.execute(
            f"SELECT {', '.join(RECIPIENT_COLUMNS)} FROM recipient WHERE message BETWEEN ? AND ?"
            " ORDER BY message, number",
            (parcels[0].id, parcels[-1].id),
        )
        for recipients, row in enumerate(rows):
            while parcels[place].id != row[0]:
                place += 1
                if recipients >= RECIPIENTS:
                    return parcels[:place]
            parcels[place].recipients.append(row)
        return parcels

    def _chunks(self, id: QueueId) -> Iterator[bytes]:
        size, file = self._database.execute(
            "SELECT size, file FROM message WHERE id = ?", (id,)
        ).fetchone()
        body = self._spool.stored(id, size, file)
        try:
            octets = os.stat(body.path).st_size - body.start
            # A file that was used again may have more, of a longer body.
            if octets < size or (file is None and octets != size):
                raise Unmovable(
                    f"its body file {body.path} has another size than the {size} octets"
                )
            yield from body.chunks()
        except OSError as error:
            raise Unmovable(f"its body file cannot be read: {error}") from None

    def give(self, parcels: Sequence[Parcel]) -> None:
        """Remove messages that the database has reserved, and note that they are its own now."""
        ids = [(each.id,) for each in parcels]
        files = self._database.execute(
            "SELECT coalesce(file, id) FROM message"
            f" WHERE id IN ({marks(ids)}) AND body IS NULL AND quarantine IS NULL",
            flat(ids),
        ).fetchall()
        with self._changing() as add:
            for parcel in parcels:
                add(parcel, -1)
            self._note_moved(ids)
            for table, column in (("recipient", "message"), ("message", "id")):
                # The attempts leave with their recipients (a trigger).
                self._database.execute(
                    f"DELETE FROM {table} WHERE {column} IN ({marks(ids)})", flat(ids)
                )
        for (file,) in files:
            self._files.unlink(self._spool.path(QueueId(file)))

    def taken(self, parcels: Sequence[Parcel]) -> dict[int, None]:
        """Return the ids that messages of this file or their body files have, of some others."""
        ids = [(each.id,) for each in parcels]
        return {
            id: None
            for (id,) in self._database.execute(
                f"SELECT id FROM message WHERE id IN ({marks(ids)})"
                f" UNION SELECT file FROM message WHERE file IN ({marks(ids)})",
                flat(ids) * 2,
            )
        }

    def write_body(self, parcel: Parcel) -> None:
        """Write a large body, durably.

        Raises:
            Unmovable: it has another size than it should have.
        """
        path = self._spool.path(QueueId(parcel.id))
        self._files.unlink(path)
        file = self._files.create(path)
        size = 0
        try:
            for chunk in parcel.chunks():
                size += len(chunk)
                file.write(chunk)
            if size != parcel.size:
                raise Unmovable(f"found {size} octets of its body, expected {parcel.size}")
            file.sync()
        except BaseException:
            file.close()
            self._files.unlink(path)
            raise
        file.close()
        self._files.sync_directory(self._spool.directory)

    def take(self, parcels: Sequence[Parcel]) -> None:
        """Insert messages that the database has reserved, and note that they are this file's now.

        Large bodies are written before.
        """
        with self._changing() as add:
            self._note_moved([(each.id,) for each in parcels])
            for parcel in parcels:
                add(parcel, 1)
            self._insert("message", MESSAGE_COLUMNS, [each.message for each in parcels])
            for table, columns, rows in (
                ("recipient", RECIPIENT_COLUMNS, [each.recipients for each in parcels]),
                ("attempt", ATTEMPT_COLUMNS, list(map(self._attempts, parcels))),
            ):
                self._insert(table, columns, [row for each in rows for row in each])

    def _attempts(self, parcel: Parcel) -> list[Sequence[Any]]:
        """Insert the transcripts of a message; return its attempts with their keys here."""
        keys: dict[int | None, int | None] = {None: None}
        for id, transcript in parcel.conversations.items():
            keys[id] = self._database.execute(
                "INSERT INTO conversation (message, transcript) VALUES (?, ?)",
                (parcel.id, transcript),
            ).lastrowid
        return [(*row[:-1], keys.get(row[-1])) for row in parcel.attempts]

    def _insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        insert_rows(self._database, f"INSERT INTO {table} ({', '.join(columns)}) VALUES ", rows)

    def _note_moved(self, ids: Sequence[tuple[int]]) -> None:
        self._database.execute("DELETE FROM moved")
        insert_rows(self._database, "INSERT INTO moved (message) VALUES ", ids)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[Callable[[Parcel, int], None]]:
        """Commit the statements of the ``with`` block, with the counts of what it adds."""
        counts = Counts(*astuple(self._counts))

        def add(parcel: Parcel, sign: int) -> None:
            nonlocal counts
            sums = zip(astuple(counts), parcel.counts, strict=True)
            counts = Counts(*(before + sign * more for before, more in sums))

        with transaction(self._database):
            yield add
            counts.write(self._database)
        self._counts = counts

    # Records that are no messages: it does no harm if both sides have them for a while.

    def records(self, table: str) -> list[Sequence[Any]]:
        """Return some records of a table."""
        columns = RECORDS[table]
        return self._database.execute(
            f"SELECT {', '.join(columns)} FROM {table}"
            f" ORDER BY {', '.join(columns[:2])} LIMIT {_RECORDS}"
        ).fetchall()

    def add_records(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        """Insert records, in place of those that came before."""
        with transaction(self._database):
            removed = self._remove_records(table, rows)
            self._insert(table, RECORDS[table], rows)
            self._count_failures(table, len(rows) - removed)

    def remove_records(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        """Remove records that the database has now."""
        with transaction(self._database):
            self._count_failures(table, -self._remove_records(table, rows))

    def _remove_records(self, table: str, rows: Sequence[Sequence[Any]]) -> int:
        first, second = RECORDS[table][:2]
        return sum(
            self._database.execute(
                f"DELETE FROM {table} WHERE {first} = ? AND {second} = ?", row[:2]
            ).rowcount
            for row in rows
        )

    def _count_failures(self, table: str, added: int) -> None:
        if table == "failure":
            self._counts.failures += added
            self._counts.write(self._database)
