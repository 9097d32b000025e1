"""One transaction of the embedded store: the statements that accept, settle and forget.

The statements that read are in `due` and `operator_queries`.

Statements take many rows at once. A statement for each row would release the interpreter's lock
once for each, and wait for it while the reactor is busy in the other thread.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from ...mail.envelope import Recipient, RecipientNumber
from ...mail.message import Message
from ...mail.outcome import Outcome
from ...mail.queue_id import QueueId
from ..operator.operations import (
    Browse,
    CountWaiting,
    FilesHeld,
    FindKnown,
    HoldFiles,
    Inspect,
    Inspected,
    Intervene,
    Known,
    Page,
    ReadRetried,
    Removed,
    Restore,
    Resume,
    Retried,
    Summarize,
    Summarized,
    Suspend,
    Suspended,
    Tallied,
    Tally,
    WaitingCounts,
)
from . import due, history, operator_queries, webhook_rows
from .contract import (
    FAILURE_LIFE,
    IMPORT_LIFE,
    MOST_FAILURES,
    Accept,
    Deferral,
    Forget,
    Lease,
    Leased,
    LostBody,
    Overdue,
    SetAside,
    Settle,
    Survey,
)
from .counts import Counts
from .leases import Leases, RecipientKey
from .levels import Levels
from .rows import (
    FILED_MESSAGE,
    NEW_RECIPIENT,
    RESTORED_RECIPIENT,
    chunks,
    filed_row,
    flat,
    insert_rows,
    marks,
    recipient_row,
    restored_row,
)
from .spool import Spool
from .suspended_file import SuspendedFile
from .webhook_events import (
    ChangeEvents,
    DropEvents,
    EventCount,
    EventCounts,
    NewEvent,
    TakeEvents,
    TakenEvents,
)

_EXPIRED = 500  # records of failures that one operation removes for their age


class SQLiteTransaction:
    """What one batch does to the rows, and to the leases (`contract.StoreTransaction`).

    `finish` follows after the database's COMMIT, or `undo` after its ROLLBACK.

    Args:
        database: the connection, in a transaction as long as operations are applied.
        counts: of the store, before the batch.
        leases: of the store. New leases count at once; those that end do so in `finish`.
        levels: of the store.
        spool: the directory of body files.
        suspended: the destinations that the operator has suspended; a file with transactions of its
            own, in which each operation may be applied twice.
        held: the name of the copy that the files are kept for; empty: they are not.
        check_files: raises `OSError` where the files are not those that were open.

    Attributes:
        hold: what the batch does about that; None: nothing.
        counts: of the store, after the batch.
        files: body files to be removed after the COMMIT: the message that each was made for, and
            the message whose row is gone.
        delivered: likewise, of messages that no operation names any more: these may be used again.
    """

    def __init__(
        self,
        database: sqlite3.Connection,
        *,
        counts: Counts,
        leases: Leases,
        levels: Levels,
        spool: Spool,
        suspended: SuspendedFile,
        held: str = "",
        check_files: Callable[[], None],
    ) -> None:
        self._check_files = check_files
        self.hold: HoldFiles | None = None
        self._held = held
        self.counts = counts.copy()
        self.files: list[tuple[QueueId, QueueId]] = []
        self.delivered: list[tuple[QueueId, QueueId]] = []
        self._counts_before = counts
        self._database = database
        self._leases = leases
        self._levels = levels
        self._spool = spool
        self._suspended = suspended
        self._begun: list[RecipientKey] = []  # leases
        self._ended: dict[RecipientKey, None] = {}  # leases
        self._removed_later: list[RecipientKey] = []  # leased, and removed by the operator

    def write_counts(self) -> None:
        """Write the counts, as the last statement of the transaction."""
        if self.counts != self._counts_before:
            self.counts.write(self._database)

    def finish(self) -> None:
        """End leases, now that the transaction is committed."""
        self._leases.end(self._ended)
        self._leases.mark_removed(self._removed_later)

    def undo(self) -> None:
        """End the leases that began, as the transaction was rolled back."""
        self._leases.end(self._begun)

    def _is_leased(self, key: RecipientKey) -> bool:
        """Whether a recipient will be leased once the transaction is committed."""
        return key in self._leases and key not in self._ended

    # Operations that read, and interventions.

    def survey(self, survey: Survey) -> Leased:
        """List the domains that have mail."""
        self._expire_failures(survey.now)
        return due.survey(self._database, survey, self._levels)

    def lease(self, lease: Lease) -> Leased:
        """Lease due recipients."""
        leased = due.lease(self._database, lease, self._leases, self._levels, self._spool)
        self._begun += self._leases.add(leased.messages)
        return leased

    def overdue(self, overdue: Overdue) -> Leased:
        """Lease recipients whose delay is to be reported."""
        leased = due.overdue(self._database, overdue, self._leases, self._spool)
        self._begun += self._leases.add(leased.messages)
        return leased

    def browse(self, browse: Browse) -> Page:
        """List recipients."""
        return operator_queries.browse(self._database, browse, self._is_leased)

    def inspect(self, inspect: Inspect) -> Inspected | None:
        """Read one message."""
        return operator_queries.inspect(self._database, inspect, self._is_leased, self._spool)

    def tally(self, tally: Tally) -> Tallied:
        """Count recipients."""
        return operator_queries.tally(self._database, tally)

    def set_aside(self, message: SetAside) -> LostBody | None:
        """Quarantine a message if its body is lost."""
        row = self._database.execute(
            "SELECT size, file, quarantine FROM message WHERE id = ? AND body IS NULL",
            (message.id,),
        ).fetchone()
        if row is None:
            return None
        size, file, quarantine = row
        reason = self._spool.loss(message.id, size, file)
        if not reason:
            return None
        self._check_files()  # else all bodies are gone with their file system
        if quarantine is None:
            self._database.execute(
                "UPDATE message SET quarantine = ? WHERE id = ?", (reason, message.id)
            )
            self.counts.quarantined += 1
        (held,) = self._database.execute(
            "SELECT count(held) FROM recipient WHERE message = ?", (message.id,)
        ).fetchone()
        self.counts.held -= held
        self._database.execute(
            "UPDATE recipient SET next_attempt = NULL, held = NULL WHERE message = ?",
            (message.id,),
        )
        return LostBody(reason)

    def count_waiting(self, count: CountWaiting) -> WaitingCounts:
        """Count the recipients of domains."""
        return operator_queries.count_waiting(self._database, count)

    def summarize(self, summarize: Summarize) -> Summarized:
        """Count recipients in groups."""
        return operator_queries.summarize(self._database, summarize)

    def find_known(self, find: FindKnown) -> Known:
        """Find recipients of a message that are in the queue, or were imported."""
        return operator_queries.find_known(self._database, find, self._spool)

    def suspend(self, suspend: Suspend) -> Suspended:
        """Suspend a destination."""
        self._suspended.put(suspend.destination)
        return self.read_suspended()

    def resume(self, resume: Resume) -> Suspended:
        """Resume destinations."""
        return Suspended(self._suspended.remove(resume.name))

    def read_suspended(self) -> Suspended:
        """Return the suspended destinations."""
        return Suspended(self._suspended.read())

    def read_retried(self, read: ReadRetried) -> Retried:
        """Return nothing: no other process has this queue."""
        return Retried(())

    def restore(self, restore: Restore) -> None:
        """Insert recipients that another queue has exported."""
        message = restore.message
        if restore.sweep:
            self._database.execute(
                "DELETE FROM imported WHERE imported_at < ?", (restore.at - IMPORT_LIFE,)
            )
        known = self.find_known(FindKnown(message.id, restore.again)).numbers
        rows = [
            restored_row(message, recipient, next_attempt, held)
            for recipient, next_attempt, held in zip(
                message.envelope.recipients, restore.next_attempts, restore.held, strict=True
            )
            if recipient.number not in known
        ]
        if not rows:
            return
        self._levels.add([message])
        self.counts.messages += insert_rows(
            self._database,
            f"INSERT OR IGNORE INTO message ({FILED_MESSAGE}) VALUES ",
            [filed_row(message)],
        )
        self.counts.recipients += insert_rows(
            self._database, f"INSERT INTO recipient ({RESTORED_RECIPIENT}) VALUES ", rows
        )
        self.counts.deferred += sum(1 for row in rows if row[5])
        self.counts.held += sum(1 for row in rows if row[7] is not None)
        insert_rows(
            self._database,
            "INSERT OR REPLACE INTO imported (message, number, imported_at) VALUES ",
            [(row[0], row[1], restore.at) for row in rows],
        )

    def hold_files(self, hold: HoldFiles) -> FilesHeld:
        """Keep the files of the queue as they are, or no longer: after the COMMIT."""
        if hold.action == "begin" or (hold.action == "end" and hold.copy == self._held):
            self.hold = hold
        return FilesHeld(hold.copy == self._held)

    def intervene(self, intervention: Intervene) -> Page:
        """Change recipients."""
        changes = operator_queries.intervene(self._database, intervention, self._is_leased)
        self.counts.held += changes.held
        self.counts.recipients_left(changes.left)
        self.files += self._remove_empty(changes.emptied)
        self._removed_later += changes.removed_later
        return changes.page

    def end_removals(self, keys: Sequence[RecipientKey]) -> None:
        """Remove recipients that were removed while leased to a process that is no more."""
        self.counts.recipients_left([row[2:] for row in self._delete(keys)])
        self.files += self._remove_empty(
            [QueueId(id) for id in dict.fromkeys(id for id, _ in keys)]
        )

    # Events for webhooks.

    def record_events(self, events: tuple[NewEvent, ...]) -> None:
        """Insert events."""
        webhook_rows.record(self._database, events)

    def take_events(self, take: TakeEvents) -> TakenEvents:
        """Read due events."""
        return webhook_rows.take(self._database, take)

    def change_events(self, change: ChangeEvents) -> None:
        """Remove and postpone events."""
        webhook_rows.change(self._database, change)

    def drop_events(self, drop: DropEvents) -> EventCount:
        """Remove the oldest events."""
        return webhook_rows.drop(self._database, drop)

    def count_events(self) -> EventCounts:
        """Count all events."""
        return webhook_rows.count(self._database)

    # Accept.

    def accept(self, accepts: Sequence[Accept]) -> None:
        """Insert messages, with the notices and records of failures that come with them."""
        self._begun += self._leases.add(each.message for each in accepts if each.lease)
        self._insert([each.message for each in accepts])
        if notices := [notice for each in accepts for notice in each.notices]:
            self._insert(notices)
        for each in accepts:
            if each.unreported:
                recipients = [refused.recipient for refused in each.message.refused]
                self._record(each.message, recipients, each.unreported, each.message.received_at)

    def _insert(self, messages: Sequence[Message], verb: str = "INSERT") -> None:
        self._levels.add(messages)
        self.counts.messages += insert_rows(
            self._database,
            f"{verb} INTO message ({FILED_MESSAGE}) VALUES ",
            [filed_row(message) for message in messages],
        )
        self.counts.recipients += insert_rows(
            self._database,
            f"{verb} INTO recipient ({NEW_RECIPIENT}) VALUES ",
            [
                recipient_row(message, recipient)
                for message in messages
                for recipient in message.envelope.recipients
            ],
        )
        self.counts.held += sum(
            len(message.envelope.recipients) for message in messages if message.assessment.hold
        )

    def _record(
        self,
        message: Message,
        recipients: Sequence[Recipient],
        failures: Sequence[Outcome],
        at: float,
    ) -> None:
        """Record failures that no DSN reports."""
        mailboxes = {each.number: each.mailbox for each in recipients}
        self.counts.failures += insert_rows(
            self._database,
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
        self._remove_failures("1", (), self.counts.failures - MOST_FAILURES)
        self._expire_failures(at)

    def _expire_failures(self, now: float) -> None:
        """Remove records of failures whose life has ended."""
        if self.counts.failures:
            self._remove_failures("failed_at < ?", (now - FAILURE_LIFE,), _EXPIRED)

    def _remove_failures(self, condition: str, values: Sequence[float], most: int) -> None:
        """Remove so many records of failures, the oldest first."""
        if most > 0:
            self.counts.failures -= self._database.execute(
                "DELETE FROM failure WHERE (message, number) IN (SELECT message, number FROM"
                f" failure WHERE {condition} ORDER BY failed_at LIMIT ?)",
                (*values, most),
            ).rowcount

    # Settle.

    def settle(self, settles: Sequence[Settle]) -> Sequence[Removed | None]:
        """Record outcomes; remove recipients that the operator had removed meanwhile."""
        self._begun += self._leases.add(
            notice for each in settles if each.lease for notice in each.notices
        )
        for each in settles:
            self._ended.update(dict.fromkeys(each.ended()))
        done = [(int(each.message.id), number) for each in settles for number in each.done]
        self.counts.recipients_left([row[2:] for row in self._delete(done)])
        for each in settles:
            if each.deferred:
                self._defer(each)
            if each.unreported:
                recipients = each.message.envelope.recipients
                self._record(each.message, recipients, each.unreported, each.at)
            if each.warned:
                self._warn(each)
        # A notice keeps its id: a settle that is applied twice inserts it once.
        if notices := [notice for each in settles for notice in each.notices]:
            self._insert(notices, "INSERT OR IGNORE")
        # Only messages that were leased: others may be forgotten (`forget`) later, by their id.
        self.delivered += self._remove_empty([each.message.id for each in settles if each.done])
        return self._end_removals_of(settles)

    def _defer(self, settle: Settle) -> None:
        before = {each.number: each.attempts for each in settle.message.envelope.recipients}
        recorded: list[Deferral] = []
        is_lost = self._is_quarantined(settle.message.id)  # since it was leased
        for deferral in settle.deferred:
            outcome = deferral.outcome
            attempts = before[outcome.number]
            changed = self._database.execute(
                "UPDATE recipient SET attempts = ?,"
                " next_attempt = CASE WHEN coalesce(held, removing) IS NULL THEN ? END,"
                " last_code = ?,"
                " last_status = ?, last_text = ?, last_remote = ?"
                " WHERE message = ? AND number = ? AND attempts = ?",  # once, if applied twice
                (
                    attempts + 1,
                    None if is_lost else deferral.next_attempt,
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
                self.counts.deferred += changed
            if changed:
                recorded.append(deferral)
        if recorded:
            history.record(self._database, settle, recorded)

    def _is_quarantined(self, id: QueueId) -> bool:
        if not self.counts.quarantined:  # nearly always
            return False
        condition = "id = ? AND quarantine IS NOT NULL"
        found = self._database.execute(f"SELECT 1 FROM message WHERE {condition}", (id,))
        return found.fetchone() is not None

    def _warn(self, settle: Settle) -> None:
        for chunk in chunks([(number,) for number in settle.warned]):
            self._database.execute(
                f"UPDATE recipient SET warned = 1 WHERE message = ? AND number IN ({marks(chunk)})",
                (settle.message.id, *flat(chunk)),
            )

    def _end_removals_of(self, settles: Sequence[Settle]) -> Sequence[Removed | None]:
        """Remove recipients whose lease ends and that the operator had removed."""
        keys = self._leases.removed_of(self._ended)
        if not keys:
            return [None] * len(settles)
        rows = self._delete(keys, "removing IS NOT NULL")
        self.counts.recipients_left([row[2:] for row in rows])
        self.files += self._remove_empty([QueueId(id) for id, *_ in rows])
        left = {(id, number): None for id, number, *_ in rows}
        return [_removed(each, left) for each in settles]

    # Forget, and what is left of messages.

    def forget(self, forgets: Sequence[Forget]) -> None:
        """Remove messages, with their files and records of failures."""
        for forget in forgets:
            for chunk in chunks([(id,) for id in forget.ids]):
                rows = self._database.execute(
                    f"DELETE FROM recipient WHERE message IN ({marks(chunk)})"
                    " RETURNING message, number, attempts, held",
                    flat(chunk),
                ).fetchall()
                self.counts.recipients_left([row[2:] for row in rows])
                # They may have been leased since their commit failed.
                self._ended.update(((id, number), None) for id, number, *_ in rows)
                self.counts.failures -= self._database.execute(
                    f"DELETE FROM failure WHERE message IN ({marks(chunk)})", flat(chunk)
                ).rowcount
            self.files += self._remove_empty(forget.ids)
            # Without a row as well.
            self.files += [(self._spool.file_of(id), id) for id in forget.ids]

    def _delete(
        self, keys: Sequence[RecipientKey], condition: str = "1"
    ) -> list[tuple[int, int, int, float | None]]:
        return operator_queries.delete(self._database, keys, condition)

    def _remove_empty(self, ids: Sequence[QueueId]) -> list[tuple[QueueId, QueueId]]:
        """Remove those messages that have no recipient left; return their body files."""
        files: list[tuple[QueueId, QueueId]] = []
        for chunk in chunks([(int(id),) for id in ids]):
            rows = self._database.execute(
                f"DELETE FROM message WHERE id IN ({marks(chunk)}) AND NOT EXISTS"
                " (SELECT 1 FROM recipient WHERE recipient.message = message.id)"
                " RETURNING id, body IS NULL, coalesce(file, id), quarantine IS NOT NULL",
                flat(chunk),
            ).fetchall()
            self.counts.messages -= len(rows)
            self.counts.quarantined -= sum(quarantined for *_, quarantined in rows)
            files += [(QueueId(file), QueueId(id)) for id, in_file, file, _ in rows if in_file]
        return files


def _removed(settle: Settle, left: dict[RecipientKey, None]) -> Removed | None:
    numbers = tuple(
        RecipientNumber(number) for id, number in settle.ended() if (id, number) in left
    )
    return Removed(numbers) if numbers else None
