"""The embedded store: SQLite in WAL mode, `synchronous=FULL`, one connection, large bodies beside.

One connection and no other, in `locking_mode=EXCLUSIVE`: SQLite before 3.51.3 can corrupt a WAL
that two connections of one file reset, and everything that reads goes through this one.

Statements take many rows at once. A statement for each row gives up the interpreter's lock as
often, and with a busy reactor in the other thread it waits for it as long.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from attrs import define, evolve

from ..envelope import (
    Body,
    Envelope,
    HeldBody,
    Message,
    Parameters,
    QueueId,
    Recipient,
    RecipientNumber,
)
from ..interfaces import Files
from ..smtp.address import Mailbox
from ..smtp.reply import Reply
from .schema import scripts, transaction, upgrade
from .spool import Spool
from .store import (
    Accept,
    Census,
    Forget,
    Lease,
    Leased,
    NewerSchema,
    Operation,
    Recovery,
    Settle,
    StoreError,
    StoreFull,
)

_ROWS = 500  # to a statement: 12 values each, of the 32,766 that SQLite takes

# Octets that are left free for outcomes: the write-ahead log grows to 1,000 pages (4 MiB) before
# SQLite copies it into the database and begins it anew, and what is copied may need room there.
_RESERVE = 6 << 20

Row = Sequence[str | bytes | int | float | None]
Key = tuple[int, int]  # of a recipient: message, number


class SQLiteStore:
    """`store.Store` in one file, with a directory for large bodies.

    Args:
        path: of the file; its directory exists.
        spool: the large bodies.
        files: the disk.
        reserve: octets that stay free when messages are accepted.
    """

    def __init__(self, path: str, *, spool: Spool, files: Files, reserve: int = _RESERVE) -> None:
        self._path = path
        self._reserve = reserve
        self._spool = spool
        self._files = files
        self._database: sqlite3.Connection | None = None
        self._reconciled = False
        self._reusable = 0
        self._page = 0  # octets; fixed when the file is made
        self._leases: dict[Key, None] = {}
        self._kept = _Kept()

    # Opening and closing.

    def open(self) -> Recovery:
        """Open the database and the spool (`store.Store`)."""
        try:
            self._files.make_directories(self._spool.directory)
            # Its file is made private before SQLite makes it as the umask would have it.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            database = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
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
            upgrade(database, scripts())
            self._database = database
            # The database's own name has to be as durable as what is in it.
            self._files.sync_directory(os.path.dirname(self._path))
            swept, quarantined = self._reconcile(database)
            self._kept = _count_all(database)
            (self._page,) = database.execute("PRAGMA page_size").fetchone()
            self._reusable = self._empty_pages(database)
        except (OSError, sqlite3.Error) as error:
            database.close()
            self._database = None
            raise StoreError(f"{self._path} cannot be opened: {error}") from error
        except NewerSchema:
            database.close()
            raise
        return Recovery(swept, quarantined, self.census())

    def close(self) -> None:
        """Close the database (`store.Store`)."""
        database, self._database = self._database, None
        if database is not None:
            with contextlib.suppress(sqlite3.Error):
                database.close()

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
                        "UPDATE recipient SET next_attempt = NULL WHERE message = ?", (id,)
                    )
        self._reconciled = True
        return swept, missing

    def census(self) -> Census:
        """Return the kept counts (`store.Store`)."""
        kept = self._kept
        return Census(
            messages=kept.messages,
            recipients=kept.recipients,
            deferred=kept.deferred,
            leased=len(self._leases),
            quarantined=kept.quarantined,
            failures=kept.failures,
        )

    # One transaction.

    def apply(self, batch: Sequence[Operation]) -> list[Leased | None]:
        """Do all of ``batch`` in one transaction (`store.Store`)."""
        database = self._database
        if database is None:
            raise StoreError("the store is closed")
        accepts = [each for each in batch if isinstance(each, Accept)]
        settles = [each for each in batch if isinstance(each, Settle)]
        forgets = [each for each in batch if isinstance(each, Forget)]
        if accepts:
            self._check_room()
        # Before anything is leased in this batch, so that it does not lease these once more.
        begun = list(_begun(accepts, settles))
        self._leases.update(dict.fromkeys(begun))
        before, self._kept = self._kept, evolve(self._kept)
        files: list[str] = []
        try:
            with transaction(database):
                self._insert(database, [each.message for each in accepts], "INSERT")
                if settles:
                    files += self._settle(database, settles)
                for forget in forgets:
                    files += self._forget(database, forget)
                results: list[Leased | None] = []
                for each in batch:
                    leased = self._lease(database, each) if isinstance(each, Lease) else None
                    results.append(leased)
                    if leased is not None:
                        keys = list(_keys(leased.messages))
                        self._leases.update(dict.fromkeys(keys))
                        begun += keys
        except BaseException as error:
            self._kept = before
            for key in begun:
                self._leases.pop(key, None)
            if not isinstance(error, sqlite3.Error | OSError):
                raise
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise StoreFull(str(error)) from error
            raise StoreError(str(error)) from error
        for settle in settles:
            for number in settle.done:
                self._leases.pop((settle.message.id, number), None)
            for deferral in settle.deferred:
                self._leases.pop((settle.message.id, deferral.outcome.number), None)
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
        rows = _insert_rows(
            database,
            f"{verb} INTO message (id, sender_local, sender_domain, parameters, trace, body, size,"
            " received_at, expires_at) VALUES ",
            [_message_row(message) for message in messages],
        )
        self._kept.messages += rows
        rows = _insert_rows(
            database,
            f"{verb} INTO recipient (message, number, local_part, domain, parameters, attempts,"
            " next_attempt) VALUES ",
            [
                (
                    message.id,
                    recipient.number,
                    recipient.mailbox.local_part,
                    recipient.mailbox.domain,
                    _json(recipient.parameters),
                    0,
                    message.received_at,
                )
                for message in messages
                for recipient in message.envelope.recipients
            ],
        )
        self._kept.recipients += rows

    def _settle(self, database: sqlite3.Connection, settles: Sequence[Settle]) -> list[str]:
        done = [(settle.message.id, number) for settle in settles for number in settle.done]
        removed = 0
        for part in _parts(done):
            removed += database.execute(
                "DELETE FROM recipient WHERE (message, number) IN"
                f" (VALUES {','.join(['(?,?)'] * len(part))})",
                _flat(part),
            ).rowcount
        self._kept.recipients -= removed
        if removed == len(done):
            self._kept.deferred -= sum(map(_tried, settles))
        else:  # applied twice
            self._kept.deferred = _count(database, "recipient WHERE attempts > 0")
        for settle in settles:
            if settle.deferred:
                self._defer(database, settle)
            if settle.unreported:
                self._record(database, settle)
        # A DSN has its id for good, so an answer that was lost does not bring a second one.
        self._insert(
            database,
            [notice for settle in settles for notice in settle.notices],
            "INSERT OR IGNORE",
        )
        return self._remove_empty(
            database, [settle.message.id for settle in settles if settle.done]
        )

    def _defer(self, database: sqlite3.Connection, settle: Settle) -> None:
        before = {each.number: each.attempts for each in settle.message.envelope.recipients}
        for deferral in settle.deferred:
            outcome = deferral.outcome
            attempts = before[outcome.number]
            changed = database.execute(
                "UPDATE recipient SET attempts = ?, next_attempt = ?, last_code = ?,"
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

    def _record(self, database: sqlite3.Connection, settle: Settle) -> None:
        recipients = {each.number: each.mailbox for each in settle.message.envelope.recipients}
        self._kept.failures += _insert_rows(
            database,
            "INSERT OR IGNORE INTO failure (message, number, recipient, reverse_path, failed_at,"
            " reply, remote) VALUES ",
            [
                (
                    settle.message.id,
                    outcome.number,
                    str(recipients[outcome.number]),
                    str(settle.message.envelope.reverse_path or ""),
                    settle.at,
                    str(outcome.reply),
                    outcome.remote,
                )
                for outcome in settle.unreported
            ],
        )

    def _forget(self, database: sqlite3.Connection, forget: Forget) -> list[str]:
        for part in _parts([(id,) for id in forget.ids]):
            self._kept.recipients -= database.execute(
                f"DELETE FROM recipient WHERE message IN ({_marks(part)})",
                _flat(part),
            ).rowcount
        self._remove_empty(database, forget.ids)
        return [self._spool.path(id) for id in forget.ids]  # without a row as well

    def _remove_empty(self, database: sqlite3.Connection, ids: Sequence[QueueId]) -> list[str]:
        """Remove those messages that have no recipient left; return their files."""
        files = []
        for part in _parts([(id,) for id in ids]):
            removed = database.execute(
                f"DELETE FROM message WHERE id IN ({_marks(part)}) AND NOT EXISTS"
                " (SELECT 1 FROM recipient WHERE recipient.message = message.id)"
                " RETURNING id, body IS NULL",
                _flat(part),
            ).fetchall()
            self._kept.messages -= len(removed)
            files += [self._spool.path(QueueId(id)) for id, in_file in removed if in_file]
        return files

    def _lease(self, database: sqlite3.Connection, lease: Lease) -> Leased:
        # What is leased is due as well, and first in the order; it is stepped over here. There is
        # never more of it than a runner keeps in memory.
        limit = lease.limit + len(self._leases)
        due = database.execute(
            "SELECT message, number FROM recipient WHERE next_attempt <= ?"
            " ORDER BY next_attempt LIMIT ?",
            (lease.now, limit),
        ).fetchall()
        more = len(due) == limit
        ids: dict[int, None] = {}
        for key in due:
            if key in self._leases:
                continue
            if len(ids) == lease.limit and key[0] not in ids:
                more = True
                break
            ids[key[0]] = None
        messages = []
        for part in _parts([(id,) for id in ids]):
            recipients: dict[int, list[Recipient]] = {}
            for row in database.execute(
                "SELECT message, number, local_part, domain, parameters, attempts, last_code,"
                " last_status, last_text, last_remote FROM recipient"
                f" WHERE message IN ({_marks(part)}) AND next_attempt <= ?"
                " ORDER BY message, number",
                (*_flat(part), lease.now),
            ):
                if (row[0], row[1]) not in self._leases:
                    recipients.setdefault(row[0], []).append(_recipient(row))
            for row in database.execute(
                "SELECT id, sender_local, sender_domain, parameters, trace, body, size,"
                " received_at, expires_at FROM message"
                f" WHERE id IN ({_marks(part)}) ORDER BY id",
                _flat(part),
            ):
                messages.append(self._message(row, tuple(recipients[row[0]])))
        (next_due,) = database.execute(
            "SELECT min(next_attempt) FROM recipient WHERE next_attempt > ?", (lease.now,)
        ).fetchone()
        return Leased(tuple(messages), more, next_due)

    def _message(self, row: Sequence[Any], recipients: tuple[Recipient, ...]) -> Message:
        id, local_part, domain, parameters, trace, content, size, received_at, expires_at = row
        body: Body = HeldBody(content or b"")
        if content is None:
            body = self._spool.stored(QueueId(id), size)
        reverse_path = None if domain is None else Mailbox(local_part, domain)
        return Message(
            id=QueueId(id),
            envelope=Envelope(reverse_path, recipients, json.loads(parameters)),
            trace=trace,
            body=body,
            received_at=received_at,
            expires_at=expires_at,
        )


@define
class _Kept:
    """The counts of a census that are kept as rows come and go."""

    messages: int = 0
    recipients: int = 0
    deferred: int = 0
    quarantined: int = 0
    failures: int = 0


def _count(database: sqlite3.Connection, rows: str) -> int:
    return int(database.execute(f"SELECT count(*) FROM {rows}").fetchone()[0])


def _count_all(database: sqlite3.Connection) -> _Kept:
    return _Kept(
        messages=_count(database, "message"),
        recipients=_count(database, "recipient"),
        deferred=_count(database, "recipient WHERE attempts > 0"),
        quarantined=_count(database, "message WHERE quarantine IS NOT NULL"),
        failures=_count(database, "failure"),
    )


def _tried(settle: Settle) -> int:
    """Return how many of the recipients that are done had been deferred before."""
    recipients = settle.message.envelope.recipients
    if not any(recipient.attempts for recipient in recipients):
        return 0
    return sum(1 for each in recipients if each.attempts and each.number in settle.done)


def _begun(accepts: Sequence[Accept], settles: Sequence[Settle]) -> Iterator[Key]:
    yield from _keys(each.message for each in accepts if each.lease)
    for settle in settles:
        yield from _keys(settle.notices)


def _keys(messages: Iterable[Message]) -> Iterator[Key]:
    for message in messages:
        for recipient in message.envelope.recipients:
            yield message.id, recipient.number


def _insert_rows(database: sqlite3.Connection, start: str, rows: Sequence[Row]) -> int:
    inserted = 0
    for part in _parts(rows):
        marks = "(" + ",".join("?" * len(part[0])) + ")"
        inserted += database.execute(start + ",".join([marks] * len(part)), _flat(part)).rowcount
    return inserted


def _parts(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    for start in range(0, len(rows), _ROWS):
        yield rows[start : start + _ROWS]


def _flat(rows: Iterable[Row]) -> list[str | bytes | int | float | None]:
    return [value for row in rows for value in row]


def _marks(rows: Sequence[Row]) -> str:
    return ",".join("?" * len(rows))


def _json(parameters: Parameters) -> str:
    return json.dumps(parameters) if parameters else "{}"


def _message_row(message: Message) -> Row:
    body, envelope = message.body, message.envelope
    reverse_path = envelope.reverse_path
    return (
        message.id,
        reverse_path.local_part if reverse_path else None,
        reverse_path.domain if reverse_path else None,
        _json(envelope.parameters),
        message.trace,
        body.content if isinstance(body, HeldBody) else None,
        body.size,
        message.received_at,
        message.expires_at,
    )


def _recipient(row: Sequence[Any]) -> Recipient:
    _, number, local_part, domain, parameters, attempts, code, status, text, remote = row
    return Recipient(
        number=RecipientNumber(number),
        mailbox=Mailbox(local_part, domain),
        parameters=json.loads(parameters),
        attempts=attempts,
        last_reply=None if code is None else Reply(code, status, (text,)),
        last_remote=remote,
    )
