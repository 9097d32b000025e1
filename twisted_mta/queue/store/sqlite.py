"""The embedded store: SQLite in WAL mode, `synchronous=FULL`, one connection, large bodies beside.

One connection and no other, in `locking_mode=EXCLUSIVE`: SQLite before 3.51.3 can corrupt a WAL
that two connections of one file reset, and everything that reads goes through this one.

Statements take many rows at once. A statement for each row gives up the interpreter's lock as
often, and with a busy reactor in the other thread it waits for it as long.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Container, Iterator, Sequence
from urllib.parse import quote

from attrs import astuple, define, evolve, fields, frozen

from ...interfaces import Files
from ...mail.envelope import Recipient, RecipientNumber
from ...mail.message import Message
from ...mail.outcome import Outcome
from ...mail.queue_id import QueueId
from ...system.files import identity
from ..operator.operations import Browse, Inspect, Intervene, Removed, Tally
from ..schedule.priority import Levels
from . import due, history, operator_queries
from .contract import (
    Accept,
    Census,
    Deferral,
    Forget,
    Lease,
    Operation,
    Overdue,
    Recovery,
    Result,
    Settle,
    StateInUse,
    StoreError,
    StoreFull,
    Survey,
)
from .leases import Key, Leases
from .lock import StateLock
from .rows import (
    MESSAGE,
    RECIPIENT_AT_FIRST,
    chunks,
    flat,
    insert_rows,
    marks,
    message_row,
    recipient_row,
)
from .schema import scripts, transaction, upgrade
from .spool import Spool

# Octets that are left free for outcomes: the write-ahead log grows to 1,000 pages (4 MiB) before
# SQLite copies it into the database and begins it anew, and what is copied may need room there.
RESERVE = 6 << 20

# Statements that are kept ready. Those that take as many rows as a batch has come in 64 lengths
# each, more in all than the 128 that are kept without being asked.
_STATEMENTS = 512


class SQLiteStore:
    """`contract.Store` in one file, with a directory for large bodies.

    Args:
        path: of the file; its directory exists.
        spool: the large bodies.
        files: the disk.
        lock: what keeps other processes out; its file has to stay where it is, too.
        reserve: octets that stay free when messages are accepted.
    """

    def __init__(
        self,
        path: str,
        *,
        spool: Spool,
        files: Files,
        lock: StateLock | None = None,
        reserve: int = RESERVE,
    ) -> None:
        self._path = path
        self._lock = lock
        self._reserve = reserve
        self._spool = spool
        self._files = files
        self._database: sqlite3.Connection | None = None
        self._known: _Known | None = None  # since it was first opened
        self._place = _Place()
        # A descriptor of the database that is open, or was: as long as there is one, no other file
        # has its inode. It is not closed while the database is open, or SQLite would lose its lock.
        self._held: int | None = None
        self._reconciled = False
        self._reusable = 0
        self._page = 0  # octets; fixed when the file is made
        self._leases = Leases()
        self._levels = Levels()
        self._removing: dict[Key, None] = {}  # leased, and removed by the operator
        self._kept = _Kept()

    # Opening and closing.

    def open(self) -> Recovery:
        """Open the database and the spool (`contract.Store`).

        The first time it makes what is not there. After that it makes nothing: where the state
        directory has gone, an empty queue in its place would hide all that is in it.
        """
        self.close()  # where that failed before
        try:
            if self._known is None:
                self._files.make_directories(self._spool.directory)
                # Its file is made private before SQLite makes it as the umask would have it.
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
                os.close(os.open(self._path, flags, 0o600))
            else:
                self._recognize(self._known)
            database = sqlite3.connect(
                f"{self._uri}?mode=rw",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=_STATEMENTS,
            )
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"{self._path} cannot be opened: {error}") from error
        try:
            for setting in (
                "locking_mode = EXCLUSIVE",
                "synchronous = FULL",
                "fullfsync = ON",  # macOS: what fsync means elsewhere
                "checkpoint_fullfsync = ON",
                "foreign_keys = OFF",  # kept by the statements below, at no cost
            ):
                database.execute(f"PRAGMA {setting}")
            (mode,) = database.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":  # SQLite says so in no other way
                raise OSError(f"no write-ahead log can be had there, only {mode!r}")
            if upgrade(database, scripts()):
                # Its identity is to be found in its own file (`_recognize`), room or not.
                with contextlib.suppress(sqlite3.Error):
                    database.execute("PRAGMA wal_checkpoint(PASSIVE)")
            if self._known is not None:
                self._recognize_bodies(database, self._known)
                if self._lock is not None:
                    self._lock.renew()
            self._database = database
            # The database's own name has to be as durable as what is in it.
            self._files.sync_directory(os.path.dirname(self._path))
            removed, files = self._end_removals(database)
            for path in files:
                self._files.unlink(path)
            swept, quarantined = self._reconcile(database)
            self._kept = self._counted(database)
            self._levels.read(database)
            (self._page,) = database.execute("PRAGMA page_size").fetchone()
            self._reusable = self._empty_pages(database)
            self._remember(database)
        except BaseException as error:
            self._database = None
            with contextlib.suppress(sqlite3.Error):
                database.close()
            if isinstance(error, OSError | sqlite3.Error | StateInUse):
                raise StoreError(f"{self._path} cannot be opened: {error}") from error
            raise
        return Recovery(swept, quarantined, self.census(), removed)

    def close(self) -> None:
        """Close the database (`contract.Store`)."""
        database, self._database = self._database, None
        if database is not None:
            with contextlib.suppress(sqlite3.Error):
                database.close()
        if self._held is not None and self._is_there():
            self._let_go()

    # What was opened is what has its names, and stays so.

    @property
    def _uri(self) -> str:
        return f"file:{quote(os.fsencode(os.path.abspath(self._path)))}"

    def _recognize(self, known: _Known) -> None:
        """See that what is to be opened is what was open before.

        It is not really opened for that: SQLite would begin with the write-ahead log beside it,
        which it removes where the file is empty, and writes into any other.
        """
        log = f"{self._path}-wal"
        moved = identity(self._path) != self._place.database
        if moved and os.path.exists(log) and identity(log) == self._place.log:
            raise OSError(
                f"it is another file than the one that was open, and {log} belongs to that one;"
                " put that one back, or move the log away"
            )
        id: object = None
        file = sqlite3.connect(f"{self._uri}?mode=ro&immutable=1", uri=True)
        with contextlib.closing(file), contextlib.suppress(sqlite3.Error):
            (id,) = file.execute("SELECT id FROM identity").fetchone() or (None,)
        if id != known.id:
            raise OSError(
                "it is not the queue that was open; when that is back, it is used, and until then"
                " none is made in its place"
            )

    def _recognize_bodies(self, database: sqlite3.Connection, known: _Known) -> None:
        bodies = self._spool.directory
        there = self._files.identity(bodies)
        if there == known.bodies:
            return
        # The same file system may have another number now, and a copy has other inodes.
        names = dict.fromkeys(self._files.names(bodies))
        expected = database.execute(
            "SELECT id FROM message WHERE body IS NULL AND quarantine IS NULL"
        ).fetchall()
        missing = sum(str(QueueId(id)) not in names for (id,) in expected)
        beside = known.beside and there[0] == self._device_beside()
        if missing or not (expected or beside):
            raise OSError(
                f"{bodies} is another directory than the one that was open, and has {missing} of"
                f" {len(expected)} bodies not; when that is back, it is used"
            )

    def _remember(self, database: sqlite3.Connection) -> None:
        """Keep by what the queue that is open is known."""
        (id,) = database.execute("SELECT id FROM identity").fetchone()
        bodies = self._files.identity(self._spool.directory)
        self._known = _Known(id, bodies, beside=bodies[0] == self._device_beside())
        log = f"{self._path}-wal"
        self._place = _Place(identity(self._path), identity(log))
        if self._held is not None and not self._is_there():
            self._let_go()
        if self._held is None:
            self._held = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    def _is_there(self) -> bool:
        """Whether the name of the database leads to the one that is held."""
        assert self._held is not None
        held = os.fstat(self._held)
        try:
            return identity(self._path) == (held.st_dev, held.st_ino)
        except OSError:
            return False

    def _let_go(self) -> None:
        assert self._held is not None
        held, self._held = self._held, None
        os.close(held)

    def _device_beside(self) -> int:
        return self._files.identity(os.path.dirname(os.path.abspath(self._path)))[0]

    def _check_place(self) -> None:
        """See that all that is written reaches the files that have their names.

        What was unlinked, or is on a file system that was unmounted behind our back, takes writes
        as ever, and nobody will find them there.

        Raises:
            OSError: it does not.
        """
        place, known = self._place, self._known
        assert known is not None
        if identity(self._path) != place.database:
            raise OSError(f"{self._path} is another file than the one that is open")
        if identity(f"{self._path}-wal") != place.log:
            raise OSError(f"{self._path}-wal is another file than the one that is open")
        if self._files.identity(self._spool.directory) != known.bodies:
            raise OSError(f"{self._spool.directory} is another directory than before")
        if self._lock is not None and not self._lock.in_place:
            raise OSError("the file of the lock has gone, or is another one")

    def _reconcile(
        self, database: sqlite3.Connection
    ) -> tuple[tuple[str, ...], tuple[QueueId, ...]]:
        """Bring files and rows together, once in the life of a process.

        Later there are files on their way whose rows do not exist yet.
        """
        if self._reconciled:
            return (), ()
        expected = {
            str(QueueId(id)): QueueId(id)
            for (id,) in database.execute("SELECT id FROM message WHERE body IS NULL")
        }
        names = self._files.names(self._spool.directory)
        swept = tuple(name for name in names if name not in expected)
        for name in swept:
            self._files.unlink(os.path.join(self._spool.directory, name))
        for name in names:
            expected.pop(name, None)
        missing = tuple(expected.values())
        if missing:
            with transaction(database):
                for id in missing:
                    database.execute(
                        "UPDATE message SET quarantine = 'its body file is missing' WHERE id = ?",
                        (id,),
                    )
                    database.execute(
                        "UPDATE recipient SET next_attempt = NULL, held = NULL WHERE message = ?",
                        (id,),
                    )
                database.execute(
                    "UPDATE census SET quarantined ="
                    " (SELECT count(*) FROM message WHERE quarantine IS NOT NULL),"
                    " held = (SELECT count(*) FROM recipient WHERE held IS NOT NULL)"
                )
        self._reconciled = True
        return swept, missing

    def _end_removals(
        self, database: sqlite3.Connection
    ) -> tuple[tuple[QueueId, ...], Sequence[str]]:
        """Let go what was removed while a process that is no more was at work on it."""
        if self._reconciled:
            return (), ()
        keys = database.execute(
            "SELECT message, number FROM recipient WHERE removing IS NOT NULL"
        ).fetchall()
        if not keys:
            return (), ()
        ids = tuple(QueueId(id) for id in dict.fromkeys(id for id, _ in keys))
        self._kept = self._counted(database)
        with transaction(database):
            self._count_out([row[2:] for row in operator_queries.delete(database, keys)])
            files = self._remove_empty(database, ids)
            self._keep(database)
        return ids, files

    def census(self) -> Census:
        """Return the kept counts (`contract.Store`)."""
        kept = self._kept
        return Census(
            messages=kept.messages,
            recipients=kept.recipients,
            deferred=kept.deferred,
            leased=len(self._leases),
            held=kept.held,
            quarantined=kept.quarantined,
            failures=kept.failures,
        )

    def _counted(self, database: sqlite3.Connection) -> _Kept:
        return _Kept(*database.execute(f"SELECT {_COUNTS} FROM census").fetchone())

    def _keep(self, database: sqlite3.Connection) -> None:
        counts = astuple(self._kept)
        database.execute(f"UPDATE census SET ({_COUNTS}) = ({','.join('?' * len(counts))})", counts)

    # One transaction.

    def apply(self, batch: Sequence[Operation]) -> list[Result]:
        """Do all of ``batch`` in one transaction (`contract.Store`)."""
        database = self._database
        if database is None:
            raise StoreError("the store is closed")
        accepts = [each for each in batch if isinstance(each, Accept)]
        settles = [each for each in batch if isinstance(each, Settle)]
        forgets = [each for each in batch if isinstance(each, Forget)]
        if accepts:
            self._check_room()
        # Before anything is leased in this batch, so that it does not lease these once more.
        begun = list(self._leases.add(_begun(accepts, settles)))
        before, self._kept = self._kept, evolve(self._kept)
        files: list[str] = []
        struck: dict[Key, None] = {}
        interventions: list[operator_queries.Done] = []
        # Leases end after the commit; for what is asked meanwhile they have ended.
        ended: Container[Key] = dict.fromkeys(_ended(settles)) if len(batch) > len(settles) else ()

        def is_leased(key: Key) -> bool:
            return key in self._leases and key not in ended

        try:
            with transaction(database):
                self._insert(database, [each.message for each in accepts], "INSERT")
                if any(each.notices for each in accepts):
                    notices = [notice for each in accepts for notice in each.notices]
                    self._insert(database, notices, "INSERT")
                for accept in accepts:
                    if accept.unreported:
                        refused = [each.recipient for each in accept.message.refused]
                        at = accept.message.received_at
                        self._record(database, accept.message, refused, accept.unreported, at)
                if settles:
                    files += self._settle(database, settles)
                if settles and self._removing:
                    files += self._strike(database, settles, struck)
                for forget in forgets:
                    files += self._forget(database, forget)
                results: list[Result] = []
                for each in batch:
                    result: Result = None
                    if isinstance(each, Lease):
                        result = due.lease(database, each, self._leases, self._levels, self._spool)
                        begun += self._leases.add(result.messages)
                    elif isinstance(each, Overdue):
                        result = due.overdue(database, each, self._leases, self._spool)
                        begun += self._leases.add(result.messages)
                    elif isinstance(each, Survey):
                        result = due.survey(database, each, self._levels)
                    elif isinstance(each, Browse):
                        result = operator_queries.browse(database, each, is_leased)
                    elif isinstance(each, Inspect):
                        result = operator_queries.inspect(database, each, is_leased, self._spool)
                    elif isinstance(each, Tally):
                        result = operator_queries.tally(database, each)
                    elif isinstance(each, Intervene):
                        done = operator_queries.intervene(database, each, is_leased)
                        files += self._intervened(database, done)
                        interventions.append(done)
                        result = done.page
                    elif isinstance(each, Settle) and struck:
                        result = _struck(each, struck)
                    results.append(result)
                if self._kept != before:
                    self._keep(database)
            self._check_place()  # before anybody hears of it
        except BaseException as error:
            self._kept = before
            self._leases.end_all(begun)
            if not isinstance(error, sqlite3.Error | OSError):
                raise
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise StoreFull(str(error)) from error
            raise StoreError(str(error)) from error
        self._leases.end_all(_ended(settles))
        for key in _ended(settles) if self._removing else ():
            self._removing.pop(key, None)
        for done in interventions:
            self._removing.update(dict.fromkeys(done.marked))
        self._reusable = self._empty_pages(database)
        # After the commit: a file without a row is swept, a row without its file would be lost.
        for path in files:
            with contextlib.suppress(OSError):
                self._files.unlink(path)
        return results

    def free(self) -> int:
        """Return how many octets can still be stored: on the disk, and in pages left empty.

        The file never shrinks, so what has left the queue is room of its own.

        Raises:
            OSError: the disk cannot be asked.
        """
        return self._files.free(os.path.dirname(self._path)) + self._reusable

    def _empty_pages(self, database: sqlite3.Connection) -> int:
        (pages,) = database.execute("PRAGMA freelist_count").fetchone()
        return int(pages) * self._page

    def _check_room(self) -> None:
        try:
            free = self.free()
        except OSError as error:
            raise StoreError(str(error)) from error
        if free < self._reserve:
            # What is here already is still to be delivered, and that takes room until it is done.
            raise StoreFull(f"{free} octets are free, and {self._reserve} are kept for outcomes")

    def _insert(self, database: sqlite3.Connection, messages: Sequence[Message], verb: str) -> None:
        self._levels.add(messages)
        rows = insert_rows(
            database,
            f"{verb} INTO message ({MESSAGE}) VALUES ",
            [message_row(message) for message in messages],
        )
        self._kept.messages += rows
        rows = insert_rows(
            database,
            f"{verb} INTO recipient ({RECIPIENT_AT_FIRST}) VALUES ",
            [
                recipient_row(message, recipient)
                for message in messages
                for recipient in message.envelope.recipients
            ],
        )
        self._kept.recipients += rows

    def _settle(self, database: sqlite3.Connection, settles: Sequence[Settle]) -> list[str]:
        done = [(settle.message.id, number) for settle in settles for number in settle.done]
        for chunk in chunks(done):
            self._count_out(
                database.execute(
                    # By way of the WITH: a plain IN (VALUES …) of more than one row scans it all.
                    f"WITH done (message, number) AS (VALUES {','.join(['(?,?)'] * len(chunk))})"
                    " DELETE FROM recipient WHERE (message, number) IN (SELECT * FROM done)"
                    " RETURNING attempts, held",
                    flat(chunk),
                ).fetchall()
            )
        for settle in settles:
            if settle.deferred:
                self._defer(database, settle)
            if settle.unreported:
                message = settle.message
                recipients = message.envelope.recipients
                self._record(database, message, recipients, settle.unreported, settle.at)
            if settle.warned:
                self._warn(database, settle)
        # A DSN has its id for good, so an answer that was lost does not bring a second one.
        self._insert(
            database,
            [notice for settle in settles for notice in settle.notices],
            "INSERT OR IGNORE",
        )
        return self._remove_empty(
            database, [settle.message.id for settle in settles if settle.done]
        )

    def _count_out(self, gone: Sequence[tuple[int, float | None]]) -> None:
        """Count recipients out: (attempts, since when it was held) of each."""
        self._kept.recipients -= len(gone)
        self._kept.deferred -= sum(1 for attempts, _ in gone if attempts)
        # SQLite 3.40 returns a wrong "held IS NOT NULL" of what it deletes without a rowid.
        self._kept.held -= sum(1 for _, held in gone if held is not None)

    def _strike(
        self, database: sqlite3.Connection, settles: Sequence[Settle], struck: dict[Key, None]
    ) -> list[str]:
        """Let go what the operator had removed, now that its delivery came to nothing."""
        keys = [key for key in _ended(settles) if key in self._removing]
        gone = operator_queries.delete(database, keys, "removing IS NOT NULL")
        self._count_out([row[2:] for row in gone])
        struck.update(((id, number), None) for id, number, *_ in gone)
        return self._remove_empty(database, [QueueId(id) for id, *_ in gone])

    def _intervened(self, database: sqlite3.Connection, done: operator_queries.Done) -> list[str]:
        """Count what an operator's action did; return files that are nobody's any more."""
        self._kept.held += done.held
        self._count_out(done.gone)
        return self._remove_empty(database, done.emptied)

    def _defer(self, database: sqlite3.Connection, settle: Settle) -> None:
        before = {each.number: each.attempts for each in settle.message.envelope.recipients}
        recorded: list[Deferral] = []
        for deferral in settle.deferred:
            outcome = deferral.outcome
            attempts = before[outcome.number]
            changed = database.execute(
                "UPDATE recipient SET attempts = ?,"
                " next_attempt = CASE WHEN coalesce(held, removing) IS NULL THEN ? END,"
                " last_code = ?,"
                " last_status = ?, last_text = ?, last_remote = ?"
                " WHERE message = ? AND number = ? AND attempts = ?",  # once, if applied twice
                (
                    attempts + 1,
                    deferral.next_attempt,
                    outcome.reply.code,
                    outcome.reply.status,
                    outcome.reply.text,
                    outcome.remote,
                    settle.message.id,
                    outcome.number,
                    attempts,
                ),
            ).rowcount
            if attempts == 0:
                self._kept.deferred += changed
            if changed:
                recorded.append(deferral)
        if recorded:
            history.record(database, settle, recorded)

    def _warn(self, database: sqlite3.Connection, settle: Settle) -> None:
        for chunk in chunks([(number,) for number in settle.warned]):
            database.execute(
                f"UPDATE recipient SET warned = 1 WHERE message = ? AND number IN ({marks(chunk)})",
                (settle.message.id, *flat(chunk)),
            )

    def _record(
        self,
        database: sqlite3.Connection,
        message: Message,
        recipients: Sequence[Recipient],
        failures: Sequence[Outcome],
        at: float,
    ) -> None:
        mailboxes = {each.number: each.mailbox for each in recipients}
        self._kept.failures += insert_rows(
            database,
            "INSERT OR IGNORE INTO failure (message, number, recipient, reverse_path, failed_at,"
            " reply, remote) VALUES ",
            [
                (
                    message.id,
                    outcome.number,
                    str(mailboxes[outcome.number]),
                    str(message.envelope.reverse_path or ""),
                    at,
                    str(outcome.reply),
                    outcome.remote,
                )
                for outcome in failures
            ],
        )

    def _forget(self, database: sqlite3.Connection, forget: Forget) -> list[str]:
        for chunk in chunks([(id,) for id in forget.ids]):
            gone = database.execute(
                f"DELETE FROM recipient WHERE message IN ({marks(chunk)})"
                " RETURNING message, number, attempts, held",
                flat(chunk),
            ).fetchall()
            self._count_out([row[2:] for row in gone])
            # Of those that could not be forgotten at once, and were leased meanwhile.
            self._leases.end_all((id, number) for id, number, *_ in gone)
            self._kept.failures -= database.execute(
                f"DELETE FROM failure WHERE message IN ({marks(chunk)})", flat(chunk)
            ).rowcount
        self._remove_empty(database, forget.ids)
        return [self._spool.path(id) for id in forget.ids]  # without a row as well

    def _remove_empty(self, database: sqlite3.Connection, ids: Sequence[QueueId]) -> list[str]:
        """Remove those messages that have no recipient left; return their files."""
        files = []
        for chunk in chunks([(id,) for id in ids]):
            removed = database.execute(
                f"DELETE FROM message WHERE id IN ({marks(chunk)}) AND NOT EXISTS"
                " (SELECT 1 FROM recipient WHERE recipient.message = message.id)"
                " RETURNING id, body IS NULL, quarantine IS NOT NULL",
                flat(chunk),
            ).fetchall()
            self._kept.messages -= len(removed)
            self._kept.quarantined -= sum(lost for *_, lost in removed)
            files += [self._spool.path(QueueId(id)) for id, in_file, _ in removed if in_file]
        return files


@frozen
class _Known:
    """By what a queue is known that was open.

    Attributes:
        id: its own.
        bodies: the directory of its bodies (`Files.identity`).
        beside: whether that is on the file system of the queue itself.
    """

    id: bytes
    bodies: tuple[int, int]
    beside: bool


@frozen
class _Place:
    """What is open: the database and its write-ahead log (`files.identity`)."""

    database: tuple[int, int] = (0, 0)
    log: tuple[int, int] = (0, 0)


@define
class _Kept:
    """The counts of a census that are kept as rows come and go."""

    messages: int = 0
    recipients: int = 0
    deferred: int = 0
    quarantined: int = 0
    failures: int = 0
    held: int = 0


_COUNTS = ", ".join(each.name for each in fields(_Kept))


def _begun(accepts: Sequence[Accept], settles: Sequence[Settle]) -> Iterator[Message]:
    for accept in accepts:
        if accept.lease:
            yield accept.message
    for settle in settles:
        if settle.lease:
            yield from settle.notices


def _ended(settles: Sequence[Settle]) -> Iterator[tuple[QueueId, RecipientNumber]]:
    """Yield the recipients whose leases end."""
    for settle in settles:
        for number in (*settle.done, *settle.untried):
            yield settle.message.id, number
        for deferral in settle.deferred:
            yield settle.message.id, deferral.outcome.number


def _struck(settle: Settle, struck: Container[Key]) -> Removed | None:
    numbers = tuple(number for id, number in _ended((settle,)) if (id, number) in struck)
    return Removed(numbers) if numbers else None
