"""The operator's queries of the store in PostgreSQL, slice by slice (`operator.operations`)."""

from __future__ import annotations

from collections.abc import Collection, Container, Sequence
from typing import Any

from ....mail.address import Mailbox
from ....mail.envelope import RecipientNumber
from ....mail.queue_id import QueueId
from ...operator.operations import (
    FEW,
    FIRST,
    Action,
    Browse,
    CountWaiting,
    FindKnown,
    Inspect,
    Inspected,
    Intervene,
    Known,
    ListedMessage,
    Page,
    Retry,
    Summarize,
    Summarized,
    Tallied,
    Tally,
    WaitingCounts,
    can,
)
from ...operator.selection import QueuedRecipient, Selection
from ...operator.suspended import SuspendedDestination
from .. import counting
from ..counting import LAST, Read, between, reached
from ..leases import RecipientKey
from ..narrowing import POSTGRESQL, is_exact, narrowed
from ..spool import Spool
from . import history
from .rows import (
    CHOSEN,
    IS_CHOSEN,
    MESSAGE,
    RECIPIENT,
    Database,
    Left,
    delete,
    keys,
    message,
    recipient,
    text,
)

_IDS = 200  # messages of one slice, where the selection names ids
_MANY = 500  # recipients that are changed at once, where they need not be read

_SELECT = f"SELECT {RECIPIENT}, next_attempt, held, removing IS NOT NULL, lease FROM recipient"

_CHANGES: dict[Action, str] = {
    "retry": "held = NULL, next_attempt = %s",
    "release": "held = NULL, next_attempt = %s",
    "hold": "next_attempt = NULL, held = %s",
    "remove": "next_attempt = NULL, held = NULL, removing = %s",
}

Changes = tuple[Page, int, Sequence[Left]]
"""The recipients, as they were before; by how many the number of held ones grew; who left."""


def browse(database: Database, browse: Browse, machine: str) -> Page:
    """Return the selected recipients of a slice, as a machine sees them."""
    selected, looked_at, following = _slice(database, browse, elsewhere=_away(database, machine))
    return Page(_listed(database, browse.selection, selected, "size"), looked_at, following)


def intervene(database: Database, intervention: Intervene, machine: str) -> Changes:
    """Change the selected recipients of a slice, and return them as a machine sees them."""
    away = _away(database, machine)
    many = _intervene_many(database, intervention, away)
    if many is not None:
        return many
    action = intervention.action
    selected, looked_at, following = _slice(database, intervention, action, elsewhere=away)
    page = Page(_listed(database, intervention.selection, selected, "0"), looked_at, following)
    keyed: list[tuple[RecipientKey, QueuedRecipient]] = [
        ((message.id, each.recipient.number), each)
        for message in page.messages
        for each in message.recipients
    ]
    if intervention.dry_run or not keyed:
        return page, 0, ()
    if action != "remove":
        _update(database, action, intervention.now, [key for key, _ in keyed])
        return page, {"hold": len(keyed), "release": -len(keyed)}.get(action, 0), ()
    busy = [key for key, each in keyed if each.leased]
    was_held = sum(1 for _, each in keyed if each.leased and each.held is not None)
    _update(database, action, intervention.now, busy)
    left = delete(database, [key for key, each in keyed if not each.leased], "true")
    return page, -was_held, left


def _intervene_many(
    database: Database, intervention: Intervene, elsewhere: Container[int]
) -> Changes | None:
    """Change the recipients of a slice by one statement, without reading those not leased.

    Args:
        database: the connection.
        intervention: the operation.
        elsewhere: the workers of other machines.

    Returns:
        None where the selection is not all in SQL, or where there are so few recipients that each
        can be logged.
    """
    action, selection = intervention.action, intervention.selection
    if intervention.dry_run or action == "remove" or not is_exact(selection):
        return None
    condition, values = narrowed(selection, POSTGRESQL, action)
    last = LAST if selection.before is None else selection.before
    reach = max(_MANY, intervention.reach)
    end, looked_at = reached(_reader(database), intervention.after, last, reach)
    following = QueueId(end) if looked_at == reach else None
    few, full = (
        database.execute(
            f"SELECT message FROM recipient WHERE message > %s AND message <= %s AND {condition}"
            " ORDER BY message, number LIMIT 1 OFFSET %s",
            (intervention.after, end, *values, offset),
        ).fetchone()
        for offset in (FEW, _MANY - 1)
    )
    if few is None:
        return None
    if full is not None:
        (end,) = full
        following = QueueId(end)
        looked_at = between(_reader(database), intervention.after, end)
    # A leased recipient is being tried already.
    free = " AND lease = 0" if action == "retry" else ""
    rows = database.execute(
        f"UPDATE recipient SET {_CHANGES[action]}"
        f" WHERE message > %s AND message <= %s AND {condition}{free}"
        " RETURNING message, number, domain, lease",
        (intervention.now, intervention.after, end, *values),
    ).fetchall()
    rows.sort()
    busy = [(id, number) for id, number, _, lease in rows if lease]
    selected: dict[QueueId, list[QueuedRecipient]] = {}
    for row in database.execute(
        f"{_SELECT}, {CHOSEN} WHERE {IS_CHOSEN} ORDER BY message, number", keys(busy)
    ).fetchall():
        selected.setdefault(QueueId(row[0]), []).append(_queued(row, elsewhere))
    more = tuple(
        (QueueId(id), RecipientNumber(number), domain)
        for id, number, domain, lease in rows
        if not lease
    )
    page = Page(_listed(database, selection, selected, "0"), looked_at, following, more)
    return page, {"hold": len(rows), "release": -len(rows)}.get(action, 0), ()


def _away(database: Database, machine: str) -> frozenset[int]:
    """Return the workers of other machines."""
    rows = database.execute("SELECT id FROM worker WHERE machine <> %s AND id <> 0", (machine,))
    return frozenset(id for (id,) in rows.fetchall())


def inspect(database: Database, inspect: Inspect, spool: Spool, machine: str) -> Inspected | None:
    """Return one message, as a machine sees it; None: it is not in the queue."""
    row = database.execute(
        f"SELECT {MESSAGE}, quarantine, machine FROM message WHERE id = %s", (inspect.id,)
    ).fetchone()
    if row is None:
        return None
    leases = database.execute(
        "SELECT recipient.number, worker.machine, worker.slot FROM recipient"
        " JOIN worker ON worker.id = lease WHERE message = %s AND lease <> 0",
        (inspect.id,),
    ).fetchall()
    *values, quarantine, accepted_by = row
    names = history.machine_names(database, [accepted_by, *(each[1] for each in leases)])
    rows = database.execute(
        f"{_SELECT} WHERE message = %s ORDER BY number", (inspect.id,)
    ).fetchall()
    away = _away(database, machine)
    recipients = tuple(_queued(each, away) for each in rows)
    inspected = message(values, tuple(each.recipient for each in recipients), spool)
    return Inspected(
        inspected,
        recipients,
        quarantine,
        history.read(database, inspect.id),
        machine=names[accepted_by],
        leased_to={
            RecipientNumber(number): f"{names[its]}, process {slot}" for number, its, slot in leases
        },
    )


def summarize(database: Database, summarize: Summarize) -> Summarized:
    """Count the recipients of a slice in groups (`counting.summarize`)."""
    return counting.summarize(_reader(database), summarize, POSTGRESQL)


def tally(database: Database, tally: Tally) -> Tallied:
    """Count the recipients of a slice by age, reason and domain."""
    return counting.tally(_reader(database), tally)


def _reader(database: Database) -> Read:
    return lambda statement, values: database.execute(
        statement.replace("?", "%s"), values
    ).fetchall()


def find_known(database: Database, find: FindKnown, spool: Spool) -> Known:
    """Return what is known of a message that is to be imported."""
    row = database.execute(f"SELECT {MESSAGE} FROM message WHERE id = %s", (find.id,)).fetchone()
    numbers = database.execute(
        "SELECT number FROM recipient WHERE message = %s"
        " UNION SELECT number FROM imported WHERE message = %s AND NOT %s",
        (find.id, find.id, find.again),
    ).fetchall()
    found = None if row is None else message(row, (), spool)
    return Known(found, frozenset(number for (number,) in numbers))


def count_waiting(database: Database, count: CountWaiting) -> WaitingCounts:
    """Count the recipients of domains that wait, from the index alone."""
    rows = database.execute(
        "SELECT domain.name, waiting.count FROM unnest(%s::text[]) AS domain (name)"
        " CROSS JOIN LATERAL (SELECT count(*) FROM (SELECT 1 FROM recipient"
        " WHERE recipient.domain = domain.name AND lease = 0 AND next_attempt IS NOT NULL"
        " LIMIT %s) AS found"
        ") AS waiting",
        (list(count.domains), count.most),
    ).fetchall()
    return WaitingCounts({row[0]: row[1] for row in rows})


def _slice(
    database: Database,
    operation: Browse | Intervene,
    action: Action | None = None,
    *,
    elsewhere: Container[int] = (),
) -> tuple[dict[QueueId, list[QueuedRecipient]], int, QueueId | None]:
    """Return the recipients of a slice that the selection picks, whatever their messages are."""
    selection, after = operation.selection, operation.after
    last = LAST if selection.before is None else selection.before
    # Until the end of the transaction no other worker may lease them, or end their lease.
    lock = "" if action is None else " FOR UPDATE OF recipient"
    if selection.ids is not None:
        ids = [id for id in selection.ids if after < id < last]
        following = ids[_IDS - 1] if len(ids) > _IDS else None
        rows = database.execute(
            f"{_SELECT} WHERE message = ANY(%s) ORDER BY message, number{lock}", (ids[:_IDS],)
        ).fetchall()
        looked_at = len(rows)
    else:
        rows, looked_at, following = _walked(database, operation, last, action, lock)
    selected: dict[QueueId, list[QueuedRecipient]] = {}
    for row in rows:
        recipient = _queued(row, elsewhere)
        if selection.picks_recipient(recipient) and (action is None or can(action, recipient)):
            selected.setdefault(QueueId(row[0]), []).append(recipient)
    return selected, looked_at, following


def _walked(
    database: Database, operation: Browse | Intervene, last: int, action: Action | None, lock: str
) -> tuple[list[Any], int, QueueId | None]:
    """Return recipients that may be selected, in the order of ids.

    The database passes over recipients that do not match; but over a bounded number of them, since
    other operations wait meanwhile.
    """
    condition, values = narrowed(operation.selection, POSTGRESQL, action)
    # Where all recipients match, none is passed over.
    reach = (
        operation.limit
        if condition == POSTGRESQL.everything
        else max(operation.limit, operation.reach)
    )
    end, looked_at = reached(_reader(database), operation.after, last, reach)
    if not looked_at:
        return [], 0, None
    rows = database.execute(
        f"{_SELECT} WHERE message > %s AND message <= %s AND {condition}"
        f" ORDER BY message, number LIMIT %s{lock}",
        (operation.after, end, *values, operation.limit),
    ).fetchall()
    following = QueueId(end) if looked_at == reach else None
    if len(rows) >= operation.limit:  # the last message of a full slice is never split
        rows += database.execute(
            f"{_SELECT} WHERE message = %s AND number > %s AND {condition} ORDER BY number{lock}",
            (*rows[-1][:2], *values),
        ).fetchall()
        following = QueueId(rows[-1][0])
        looked_at = between(_reader(database), operation.after, following)
    return rows, looked_at, following


def _listed(
    database: Database,
    selection: Selection,
    selected: dict[QueueId, list[QueuedRecipient]],
    size: str,
) -> tuple[ListedMessage, ...]:
    listed = []
    for id, local_part, domain, octets in database.execute(
        f"SELECT id, sender_local, sender_domain, {size} FROM message"
        " WHERE id = ANY(%s) ORDER BY id",
        (list(selected),),
    ).fetchall():
        reverse_path = None if local_part is None else Mailbox(local_part, domain)
        if selection.picks_message(QueueId(id), reverse_path):
            recipients = tuple(selected[QueueId(id)])
            listed.append(ListedMessage(QueueId(id), reverse_path, recipients, octets))
    return tuple(listed)


def _queued(row: Sequence[Any], elsewhere: Container[int] = ()) -> QueuedRecipient:
    *columns, next_attempt, held, removing, lease = row
    return QueuedRecipient(
        recipient=recipient(columns),
        next_attempt=next_attempt,
        held=held,
        removing=removing,
        leased=lease != 0,
        elsewhere=lease in elsewhere,
    )


def _update(database: Database, action: Action, now: float, which: Sequence[RecipientKey]) -> None:
    database.execute(
        f"UPDATE recipient SET {_CHANGES[action]} FROM {CHOSEN} WHERE {IS_CHOSEN}",
        (now, *keys(which)),
    )


def note_retry(database: Database, worker: int, intervention: Intervene, page: Page) -> None:
    """Note a retry or release for the other processes (`read_retried`)."""
    begins = intervention.after == FIRST
    if begins or page.domains:
        # Rows that another worker removes are not waited for: both may go on to lock others.
        database.execute(
            "DELETE FROM retried WHERE id IN (SELECT id FROM retried"
            " WHERE at < now() - interval '1 minute' FOR UPDATE SKIP LOCKED)"
        )
        database.execute(
            "INSERT INTO retried (worker, begins, domains) VALUES (%s, %s, %s)",
            (worker, begins, page.domains),
        )


def read_retried(database: Database, worker: int, known: Collection[int]) -> tuple[Retry, ...]:
    """Return the retries of all other workers in the last minute; known ones without domains."""
    rows = database.execute(
        "SELECT id, begins, CASE WHEN id = ANY (%s::bigint[]) THEN '{}' ELSE domains END"
        " FROM retried WHERE worker <> %s AND at >= now() - interval '1 minute' ORDER BY id",
        (list(known), worker),
    )
    return tuple(Retry(id, begins, tuple(domains)) for id, begins, domains in rows.fetchall())


def read_suspended(database: Database) -> tuple[SuspendedDestination, ...]:
    """Return the destinations that the operator has suspended, by name."""
    rows = database.execute(
        "SELECT name, since, until, reason, by_operator FROM suspended ORDER BY name"
    )
    return tuple(
        SuspendedDestination(name, since, until, text(reason), text(by))
        for name, since, until, reason, by in rows.fetchall()
    )
