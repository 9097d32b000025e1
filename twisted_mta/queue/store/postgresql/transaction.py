"""One transaction of the store in PostgreSQL: the statements that accept, settle and forget.

The statements that read are in `due` and `operator_queries`.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from operator import itemgetter
from typing import Any

from attrs import evolve, frozen
from psycopg import Cursor

from ....mail.body import MemoryBody
from ....mail.envelope import Recipient, RecipientNumber
from ....mail.message import Message
from ....mail.outcome import Outcome
from ....mail.queue_id import QueueId
from ...operator.operations import (
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
from ..contract import (
    FAILURE_LIFE,
    IMPORT_LIFE,
    MOST_FAILURES,
    Accept,
    Forget,
    Lease,
    Leased,
    LostBody,
    Overdue,
    SetAside,
    Settle,
    Survey,
)
from ..counts import Counts
from ..leases import Leases, RecipientKey
from ..rows import restored_row
from ..spool import Spool
from ..webhook_events import (
    ChangeEvents,
    DropEvents,
    EventCount,
    EventCounts,
    NewEvent,
    TakeEvents,
    TakenEvents,
)
from . import due, history, operator_queries, webhook_rows
from .large_bodies import cut
from .operator_queries import read_suspended
from .rows import (
    CHOSEN,
    IS_CHOSEN,
    Database,
    Left,
    arrays,
    changed,
    columns,
    delete,
    deletion,
    forget_attempts,
    ids,
    insert,
    insert_messages,
    insert_recipients,
    insert_restored,
    keys,
    left_of,
    octets,
)

_EXPIRED = 500  # records of failures that one operation removes for their age

_FAILURE = "message, number, recipient, reverse_path, failed_at, reply, remote"
_FAILURE_TYPES = ("bigint", "int", "text", "text", "float8", "bytea", "text")

# The lease may have been taken from this worker and given to no other one yet: then its outcome
# counts, and there is no second copy. If another worker has it, that one's outcome counts.
_OURS_OR_FREE = "recipient.lease IN (0, {worker})"


_DEFERRAL_TYPES = ("bigint", "int", "int", "float8", "int", "text", "bytea", "text")

# Of messages those that have recipients which are not leased to a worker.
_LOCK_CONTESTED = (
    "SELECT 1 FROM message WHERE id = ANY(%s) AND EXISTS (SELECT 1 FROM recipient"
    " WHERE recipient.message = message.id AND recipient.lease <> {worker})"
    " ORDER BY id FOR UPDATE"
)
_REMOVE_EMPTY = (
    "DELETE FROM message WHERE id = ANY(%s) AND NOT EXISTS"
    " (SELECT 1 FROM recipient WHERE recipient.message = message.id)"
    " RETURNING id, body IS NULL, quarantine IS NOT NULL"
)


# Makes bodies those of messages that are accepted. It fails where one of them is gone: the leases
# of this worker, and what it had brought, were taken from it.
_ADOPT = (
    "WITH adopted AS (DELETE FROM incoming WHERE message = ANY(%s) AND worker = %s RETURNING 1)"
    " SELECT 1 / (count(*) = %s)::int FROM adopted"
)

Stayed = dict[RecipientKey, bool]
"""Recipients whose leases have ended, with whether the operator has removed them meanwhile."""


@frozen
class _Leaving:
    """Statements that remove recipients, and their messages, whose results were not read yet."""

    recipients: Cursor[tuple[Any, ...]]
    messages: Cursor[tuple[Any, ...]]


class PostgreSQLTransaction:
    """What one batch does to the rows, and to the leases (`contract.StoreTransaction`).

    `finish` follows after the database's COMMIT, or `undo` after its ROLLBACK.

    Args:
        database: the connection, in a transaction as long as operations are applied.
        worker: the id of this process's row.
        machine: the id of this machine.
        slot: the number of this process among those of the machine.
        counts: what this worker added to the counts before.
        known_failures: records of failures that other workers have added, as far as is known.
        leases: of this worker.
        spool: the directory of body files: those of messages that are leased, as copies.
        brought: messages whose large bodies are in the database already.

    Attributes:
        counts: what this worker added to the counts, with the batch.
        gone: messages whose copy is of no use after the COMMIT.
    """

    def __init__(
        self,
        database: Database,
        *,
        worker: int,
        machine: str,
        slot: int,
        counts: Counts,
        known_failures: int,
        leases: Leases,
        spool: Spool,
        brought: Container[QueueId] = (),
    ) -> None:
        self.counts = evolve(counts)
        self._known_failures = known_failures
        self.gone: dict[QueueId, None] = {}
        self._database = database
        self._worker = worker
        self._machine = machine
        self._place = machine, slot
        self._leases = leases
        self._spool = spool
        self._brought = brought
        self._ours_or_free = _OURS_OR_FREE.format(worker=worker)
        self._begun: list[RecipientKey] = []  # leases
        self._ended: dict[RecipientKey, None] = {}  # leases

    def finish(self) -> None:
        """End leases, now that the transaction is committed."""
        self._leases.end(self._ended)

    def undo(self) -> None:
        """End the leases that began, as the transaction was rolled back."""
        self._leases.end(self._begun)

    # Operations that read, and interventions.

    def survey(self, survey: Survey) -> Leased:
        """List the domains that have mail."""
        self._expire_failures(survey.now)
        return due.survey(self._database, survey)

    def lease(self, lease: Lease) -> Leased:
        """Lease due recipients."""
        return self._leased(due.lease(self._database, lease, self._worker, self._spool))

    def overdue(self, overdue: Overdue) -> Leased:
        """Lease recipients whose delay is to be reported."""
        return self._leased(due.overdue(self._database, overdue, self._worker, self._spool))

    def _leased(self, leased: Leased) -> Leased:
        self._begun += self._leases.add(leased.messages)
        return leased

    def browse(self, browse: Browse) -> Page:
        """List recipients."""
        return operator_queries.browse(self._database, browse, self._machine)

    def inspect(self, inspect: Inspect) -> Inspected | None:
        """Read one message."""
        return operator_queries.inspect(self._database, inspect, self._spool, self._machine)

    def tally(self, tally: Tally) -> Tallied:
        """Count recipients."""
        return operator_queries.tally(self._database, tally)

    def set_aside(self, message: SetAside) -> LostBody | None:
        """Do nothing: bodies are in the database, and files are copies of them."""
        return None

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
        destination = suspend.destination
        self._database.execute(
            "DELETE FROM suspended WHERE until <= %s AND name <> %s",
            (destination.since, destination.name),
        )
        self._database.execute(
            "INSERT INTO suspended (name, since, until, reason, by_operator)"
            " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (name) DO UPDATE SET since = EXCLUDED.since,"
            " until = EXCLUDED.until, reason = EXCLUDED.reason, by_operator = EXCLUDED.by_operator",
            (
                *(destination.name, destination.since, destination.until),
                *(octets(destination.reason), octets(destination.by)),
            ),
        )
        return self.read_suspended()

    def resume(self, resume: Resume) -> Suspended:
        """Resume destinations."""
        there = self.read_suspended().destinations
        removed = [each for each in there if resume.name is None or each.name == resume.name]
        self._database.execute(
            "DELETE FROM suspended WHERE name = ANY (%s)", ([each.name for each in removed],)
        )
        return Suspended(tuple(removed))

    def read_suspended(self) -> Suspended:
        """Return the suspended destinations."""
        return Suspended(read_suspended(self._database))

    def read_retried(self, read: ReadRetried) -> Retried:
        """Return the retries of other processes."""
        return Retried(operator_queries.read_retried(self._database, self._worker, read.known))

    def restore(self, restore: Restore) -> None:
        """Insert recipients that another queue has exported."""
        message = restore.message
        if restore.sweep:
            self._database.execute(
                "DELETE FROM imported WHERE imported_at < %s", (restore.at - IMPORT_LIFE,)
            )
        known = self.find_known(FindKnown(message.id, restore.again))
        new = [
            restored_row(message, recipient, next_attempt, held)
            for recipient, next_attempt, held in zip(
                message.envelope.recipients, restore.next_attempts, restore.held, strict=True
            )
            if recipient.number not in known.numbers
        ]
        if not new:
            return
        if known.message is None:
            self.counts.messages += insert_messages(self._database, [message], self._machine)
            if not isinstance(message.body, MemoryBody):
                self._insert_pieces(message)
        self.counts.recipients += insert_restored(self._database, new)
        self.counts.deferred += sum(1 for row in new if row[5])
        self.counts.held += sum(1 for row in new if row[7] is not None)
        insert(
            self._database,
            "imported",
            "message, number, imported_at",
            ("bigint", "int", "float8"),
            [(row[0], row[1], restore.at) for row in new],
            "ON CONFLICT (message, number) DO UPDATE SET imported_at = excluded.imported_at",
        )

    def hold_files(self, hold: HoldFiles) -> FilesHeld:
        """Hold nothing: the database has tools of its own for copies."""
        return FilesHeld(held=False)

    def intervene(self, intervention: Intervene) -> Page:
        """Change recipients."""
        page, held, left = operator_queries.intervene(self._database, intervention, self._machine)
        self.counts.held += held
        self._left(left)
        if intervention.action in ("retry", "release") and not intervention.dry_run:
            operator_queries.note_retry(self._database, self._worker, intervention, page)
        return page

    # Events for webhooks.

    def record_events(self, events: tuple[NewEvent, ...]) -> None:
        """Insert events."""
        webhook_rows.record(self._database, self._place, events)

    def take_events(self, take: TakeEvents) -> TakenEvents:
        """Read due events."""
        return webhook_rows.take(self._database, self._place, take)

    def change_events(self, change: ChangeEvents) -> None:
        """Remove and postpone events."""
        webhook_rows.change(self._database, change)

    def drop_events(self, drop: DropEvents) -> EventCount:
        """Remove the oldest events."""
        return webhook_rows.drop(self._database, self._place, drop)

    def count_events(self) -> EventCounts:
        """Count all events of this process."""
        return webhook_rows.count(self._database, self._place)

    # Accept.

    def accept(self, accepts: Sequence[Accept]) -> None:
        """Insert messages, with the notices and records of failures that come with them."""
        self._begun += self._leases.add(each.message for each in accepts if each.lease)
        messages = [each.message for each in accepts]
        leases = [self._worker if each.lease else 0 for each in accepts]
        notices = [notice for each in accepts for notice in each.notices]
        self._insert([*messages, *notices], [*leases, *[0] * len(notices)])
        for each in accepts:
            if each.unreported:
                recipients = [refused.recipient for refused in each.message.refused]
                self._record(each.message, recipients, each.unreported, each.message.received_at)

    def _insert(self, messages: Sequence[Message], leases: Sequence[int]) -> None:
        database = self._database
        self.counts.messages += insert_messages(database, messages, self._machine)
        self.counts.recipients += insert_recipients(database, messages, leases)
        for each in messages:
            if each.assessment.hold:
                self.counts.held += len(each.envelope.recipients)
            if not isinstance(each.body, MemoryBody) and each.id not in self._brought:
                self._insert_pieces(each)
        brought = [each.id for each in messages if each.id in self._brought]
        if brought:
            database.execute(_ADOPT, (brought, self._worker, len(brought)))

    def _insert_pieces(self, message: Message) -> None:
        for number, piece in enumerate(cut(message.body)):
            self._database.execute(
                "INSERT INTO piece (message, number, content) VALUES (%s, %s, %b) RETURNING number",
                (message.id, number, piece),
            ).fetchone()  # so that no more than one piece is in memory

    def _record(
        self,
        message: Message,
        recipients: Sequence[Recipient],
        failures: Sequence[Outcome],
        at: float,
    ) -> None:
        """Record failures that no DSN reports."""
        mailboxes = {each.number: each.mailbox for each in recipients}
        rows = [
            (
                message.id,
                outcome.number,
                str(mailboxes[outcome.number]),
                str(message.envelope.reverse_path or ""),
                at,
                octets(str(outcome.reply)),
                outcome.remote,
            )
            for outcome in failures
        ]
        self.counts.failures += insert(
            self._database,
            *("failure", _FAILURE, _FAILURE_TYPES, rows),
            "ON CONFLICT DO NOTHING",
        )
        self._remove_failures("true", (), self._failures() - MOST_FAILURES)
        self._expire_failures(at)

    def _failures(self) -> int:
        """Return about how many records there are: all that this worker knows of."""
        return self._known_failures + self.counts.failures

    def _expire_failures(self, now: float) -> None:
        """Remove records of failures whose life has ended."""
        if self._failures() > 0:
            self._remove_failures("failed_at < %s", (now - FAILURE_LIFE,), _EXPIRED)

    def _remove_failures(self, condition: str, values: Sequence[float], most: int) -> None:
        """Remove so many records of failures, the oldest first."""
        if most > 0:
            self.counts.failures -= changed(
                self._database.execute(
                    "DELETE FROM failure WHERE (message, number) IN (SELECT message, number FROM"
                    f" failure WHERE {condition} ORDER BY failed_at LIMIT %s"
                    " FOR UPDATE SKIP LOCKED) RETURNING 1",
                    (*values, most),
                )
            )

    # Settle.

    def settle(self, settles: Sequence[Settle]) -> Sequence[Removed | None]:
        """Record outcomes; remove recipients that the operator had removed meanwhile.

        What a settle says of recipients that another worker has taken over is passed over: that
        worker settles them. So are its notices where none of its recipients is this worker's any
        more; or it was written before, and the notices have gone out since.
        """
        self._ended.update((key, None) for each in settles for key in each.ended())
        leaving = self._leave(settles)
        deferring = self._defer(settles)
        # From here on results are needed.
        gone = self._gone(leaving)
        deferred = self._deferred(settles, deferring)
        effective: list[Settle] = []
        repeated: list[Settle] = []
        for each in settles:
            id = each.message.id
            took_effect = any((id, number) in gone for number in each.done) or any(
                (id, deferral.outcome.number) in deferred for deferral in each.deferred
            )
            took_effect = self._warn(each) or took_effect
            (effective if took_effect else repeated).append(each)
        for each in effective:
            if each.unreported:
                recipients = each.message.envelope.recipients
                self._record(each.message, recipients, each.unreported, each.at)
        self._insert_notices(effective)
        self._lease_notices(repeated)
        removed = self._end_removed(deferred, self._end_untried(settles))
        return [_removed(each, removed) for each in settles]

    def _insert_notices(self, settles: Sequence[Settle]) -> None:
        notices = [(notice, each.lease) for each in settles for notice in each.notices]
        if not notices:
            return
        messages = [notice for notice, _ in notices]
        self._begun += self._leases.add(notice for notice, lease in notices if lease)
        self._insert(messages, [self._worker if lease else 0 for _, lease in notices])

    def _lease_notices(self, settles: Sequence[Settle]) -> None:
        """Lease the notices of settles that were written before without an answer."""
        notices = [notice for each in settles if each.lease for notice in each.notices]
        if not notices:
            return
        leased = self._database.execute(
            f"UPDATE recipient SET lease = {self._worker} WHERE message = ANY(%s)"
            f" AND {self._ours_or_free} RETURNING message",
            ([each.id for each in notices],),
        ).fetchall()
        ours = dict.fromkeys(ids(leased))
        self._begun += self._leases.add(each for each in notices if each.id in ours)

    def _warn(self, settle: Settle) -> bool:
        """Note whose delay is reported; return whether there is one."""
        if not settle.warned:
            return False
        warned = self._database.execute(
            "UPDATE recipient SET warned = 1 WHERE message = %s AND number = ANY(%s)"
            f" AND warned = 0 AND {self._ours_or_free} RETURNING 1",
            (settle.message.id, list(settle.warned)),
        )
        return changed(warned) > 0

    def _leave(self, settles: Sequence[Settle]) -> _Leaving | None:
        """Remove recipients with a final outcome, and messages that have none any more.

        No result is waited for: what depends on the outcome is decided by the statements.
        """
        database = self._database
        leaving = [each for each in settles if each.done]
        if not leaving:
            return None
        done = sorted((each.message.id, number) for each in leaving for number in each.done)
        ids = sorted({each.message.id: None for each in leaving})
        # Where two workers settle the last two recipients, each of them sees the other one's. So
        # the second waits here, and its next statements see what the first has done.
        database.execute(_LOCK_CONTESTED.format(worker=self._worker), (ids,))
        recipients = deletion(database, done, self._ours_or_free)
        forget_attempts(
            database,
            [
                (each.message.id, recipient.number)
                for each in leaving
                for recipient in each.message.envelope.recipients
                if recipient.attempts and recipient.number in each.done
            ],
        )
        return _Leaving(recipients, database.execute(_REMOVE_EMPTY, (ids,)))

    def _gone(self, leaving: _Leaving | None) -> dict[RecipientKey, None]:
        """Count what has left; return the recipients among it."""
        if leaving is None:
            return {}
        left = left_of(leaving.recipients)
        self.counts.recipients_left([row[2:] for row in left])
        self._messages_left(leaving.messages)
        return {(id, number): None for id, number, *_ in left}

    def _defer(self, settles: Sequence[Settle]) -> Cursor[tuple[Any, ...]] | None:
        """Put recipients off and end their leases, without waiting for the result."""
        rows: list[tuple[Any, ...]] = []
        for settle in settles:
            before = _attempts_before(settle)
            for deferral in settle.deferred:
                outcome = deferral.outcome
                rows.append(
                    (
                        settle.message.id,
                        outcome.number,
                        before[outcome.number],
                        deferral.next_attempt,
                        outcome.reply.code,
                        outcome.reply.status,
                        octets(outcome.reply.text),
                        outcome.remote,
                    )
                )
        if not rows:
            return None
        rows.sort(key=itemgetter(0, 1))
        return self._database.execute(
            "UPDATE recipient SET lease = 0, attempts = its.attempts + 1, next_attempt ="
            " CASE WHEN coalesce(held, removing) IS NULL THEN its.due END, last_code = its.code,"
            " last_status = its.status, last_text = its.text, last_remote = its.remote"
            f" FROM {arrays(_DEFERRAL_TYPES)} AS its"
            " (message, number, attempts, due, code, status, text, remote)"
            " WHERE recipient.message = its.message AND recipient.number = its.number"
            " AND recipient.attempts = its.attempts"  # once, if applied twice
            f" AND {self._ours_or_free}"
            " RETURNING recipient.message, recipient.number, removing IS NOT NULL",
            columns(rows, len(_DEFERRAL_TYPES)),
        )

    def _deferred(
        self, settles: Sequence[Settle], deferring: Cursor[tuple[Any, ...]] | None
    ) -> Stayed:
        """Record the attempts at recipients that were put off; return those."""
        if deferring is None:
            return {}
        deferred = _stayed(deferring)
        for settle in settles:
            before = _attempts_before(settle)
            recorded = [
                each
                for each in settle.deferred
                if (settle.message.id, each.outcome.number) in deferred
            ]
            self.counts.deferred += sum(before[each.outcome.number] == 0 for each in recorded)
            if recorded:
                history.record(self._database, settle, recorded, self._machine)
        return deferred

    def _end_untried(self, settles: Sequence[Settle]) -> Stayed:
        """End the leases of recipients that were not tried; return those that were ours."""
        untried = sorted((each.message.id, number) for each in settles for number in each.untried)
        if not untried:
            return {}
        return _stayed(
            self._database.execute(
                f"UPDATE recipient SET lease = 0 FROM {CHOSEN} WHERE {IS_CHOSEN}"
                f" AND recipient.lease = {self._worker}"
                " RETURNING message, number, removing IS NOT NULL",
                keys(untried),
            )
        )

    def _end_removed(self, *stayed: Stayed) -> dict[RecipientKey, None]:
        """Remove recipients that the operator had removed while they were leased."""
        gone = sorted(key for each in stayed for key, removing in each.items() if removing)
        rows = delete(self._database, gone, "removing IS NOT NULL")
        self._left(rows)
        return {(id, number): None for id, number, *_ in rows}

    # Forget, and what is left of messages.

    def forget(self, forgets: Sequence[Forget]) -> None:
        """Remove messages that this machine accepted, with their records of failures."""
        named = [id for each in forgets for id in each.ids]
        if not named:
            return
        known = ids(
            self._database.execute(
                "SELECT id FROM message WHERE id = ANY(%s) AND machine = %s ORDER BY id FOR UPDATE",
                (named, self._machine),
            ).fetchall()
        )
        rows = left_of(
            self._database.execute(
                "DELETE FROM recipient WHERE message = ANY(%s)"
                " RETURNING message, number, attempts, held",
                (known,),
            )
        )
        # They may have been leased since their commit failed.
        self._ended.update(((id, number), None) for id, number, *_ in rows)
        forget_attempts(self._database, [(id, number) for id, number, *_ in rows])
        self._left(rows)
        self.counts.failures -= changed(
            self._database.execute(
                "DELETE FROM failure WHERE message = ANY(%s) RETURNING 1", (known,)
            )
        )
        self.gone.update(dict.fromkeys(named))  # a copy without a row as well
        # Bodies that were brought for messages which were not accepted.
        self._database.execute(
            "WITH gone AS (DELETE FROM incoming WHERE message = ANY(%s) AND worker = %s"
            " RETURNING message) DELETE FROM piece USING gone WHERE piece.message = gone.message",
            (named, self._worker),
        )

    def end_removals(self, which: Sequence[RecipientKey]) -> None:
        """Remove recipients that were removed while leased to a worker that is no more."""
        self._left(delete(self._database, which, "removing IS NOT NULL"))

    def _left(self, rows: Sequence[Left]) -> None:
        """Count recipients that left, and remove those messages that have none any more."""
        if not rows:
            return
        self.counts.recipients_left([row[2:] for row in rows])
        emptied = ids(rows)
        # As in `_leave`; here other workers' recipients may have left as well.
        self._database.execute(
            "SELECT 1 FROM message WHERE id = ANY(%s) ORDER BY id FOR UPDATE", (emptied,)
        )
        self._messages_left(self._database.execute(_REMOVE_EMPTY, (emptied,)))

    def _messages_left(self, removed: Cursor[tuple[Any, ...]]) -> None:
        """Count messages that were removed, and remove the pieces of their bodies."""
        gone = removed.fetchall()
        self.counts.messages -= len(gone)
        self.counts.quarantined -= sum(quarantined for *_, quarantined in gone)
        in_pieces = [QueueId(id) for id, is_in_pieces, _ in gone if is_in_pieces]
        if in_pieces:
            self._database.execute("DELETE FROM piece WHERE message = ANY(%s)", (in_pieces,))
            self.gone.update(dict.fromkeys(in_pieces))


def _stayed(ended: Cursor[tuple[Any, ...]]) -> Stayed:
    return {(id, number): removing for id, number, removing in ended.fetchall()}


def _attempts_before(settle: Settle) -> dict[RecipientNumber, int]:
    return {each.number: each.attempts for each in settle.message.envelope.recipients}


def _removed(settle: Settle, left: dict[RecipientKey, None]) -> Removed | None:
    numbers = tuple(
        RecipientNumber(number) for id, number in settle.ended() if (id, number) in left
    )
    return Removed(numbers) if numbers else None
