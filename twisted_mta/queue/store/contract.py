"""The contract of a queue's store: operations, their results, and the states of a recipient.

It is the *recipient* of a message that has a state. A message is in the store as long as one of its
recipients is.

    queued        waits for ``next_attempt``; due from that time on
    leased        leased to a runner that delivers it. The lease ends with that process, and the
                  recipient is due again. How it ends is up to the store: the embedded one keeps
                  leases in memory only; one that several processes share has to find out
    held          by the operator: not tried until it is released
    quarantined   the message's body file is missing, not its own, or too short: never tried, shown
                  to the operator
    (no row)      settled: delivered, discarded, failed with its DSN or its record, or removed

An *operation* moves recipients from one state to another; those of the operator are in
`operator.operations`. A store applies a batch of operations in one transaction: all or nothing,
durable when `Store.apply` returns. That makes settling safe: the last recipient of a message, the
message, and the DSN about the failure leave and enter the queue in the same instant.

An operation is a value that knows its method of a `StoreTransaction`. A store implements those
methods, one for each operation, and calls `apply_batch`, which knows the order. So a new store
(`sqlite` is one, `testing.store` another) has statements of its own and no dispatch of its own, and
a new operation is one class here and one method in each store; the type checker names the stores
that lack it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred

from ...mail.envelope import RecipientNumber
from ...mail.message import Message
from ...mail.outcome import Outcome
from ...mail.queue_id import QueueId
from ..operator.operations import (
    FilesHeld,
    Inspected,
    Known,
    OperatorOperation,
    OperatorTransaction,
    Page,
    Removed,
    Retried,
    Summarized,
    Suspended,
    Tallied,
    WaitingCounts,
)
from ..operator.suspended import SuspendedDestination
from .webhook_events import (
    EventCount,
    EventCounts,
    EventsOperation,
    EventsTransaction,
    NewEvent,
    TakenEvents,
)

FAILURE_LIFE = 30 * 86_400.0
"""Seconds for which the record of a failure that no DSN reports is kept."""

IMPORT_LIFE = 30 * 86_400.0
"""Seconds for which the import of a recipient is remembered at least."""

MOST_FAILURES = 100_000
"""Records of failures that a store keeps; of more, the oldest are removed."""


class StoreError(Exception):
    """The store failed, and it is not known whether any of the batch was written.

    The store has to be closed and opened again: after a failed fsync the kernel may have dropped
    the pages that it could not write.
    """


class StoreUnavailable(StoreError):
    """The store cannot be opened now, and may be later, without anybody's change to the settings.

    Only a store on another host raises it.
    """


class StoreBusy(Exception):
    """The store was waited for in vain, and nothing of the batch was written; it remains good.

    Someone else has locked rows, or a table, that the batch needs.
    """


class StoreFull(Exception):
    """The disk has no room, and nothing of the batch was written. The store remains good."""


class StateInUse(Exception):
    """Another process uses the state directory; the message names the directory and the process."""


class NewerSchema(Exception):
    """A newer version of this program has written the store."""


# Operations.


@frozen
class Accept:
    """Put a message into the queue, all its recipients due at its `Message.released_at`.

    They are held where its assessment says so; such a message is not leased.

    Attributes:
        message: complete; a body in a file is durable already.
        lease: whether the recipients are leased to the caller, who delivers them now.
        notices: DSNs that the acceptance causes; due at once and not leased.
        unreported: failures of refused recipients (`Message.refused`) that no DSN reports; each
            leaves a record.
        events: for webhooks.
    """

    message: Message
    lease: bool = True
    notices: tuple[Message, ...] = ()
    unreported: tuple[Outcome, ...] = ()
    events: tuple[NewEvent, ...] = ()


@frozen
class Deferral:
    """A recipient that is to be tried again.

    Attributes:
        outcome: of the attempt that failed.
        next_attempt: wall time.
    """

    outcome: Outcome
    next_attempt: float


@frozen
class Settle:
    """Record the outcomes of one attempt, and end its leases.

    The result is `Removed` where recipients left because the operator had removed them, else None.
    A settle may be applied twice with the same effect as once: it is tried again where it is not
    known whether it was written.

    Attributes:
        message: the message, with the recipients of the attempt.
        done: recipients with a final outcome; they leave the queue.
        deferred: recipients to be tried again.
        notices: DSNs about the recipients.
        unreported: failures that no DSN reports; each leaves a record.
        at: wall time.
        lease: whether the notices are leased to the caller, who delivers them now.
        untried: recipients whose lease ends without an attempt; they are due as before.
        next_hop: where the deferred recipients were tried, as people see it.
        warned: recipients whose delay one of the notices reports.
        events: for webhooks; a settle that is applied twice may write them twice.
    """

    message: Message
    done: tuple[RecipientNumber, ...] = ()
    deferred: tuple[Deferral, ...] = ()
    notices: tuple[Message, ...] = ()
    unreported: tuple[Outcome, ...] = ()
    at: float = 0.0
    lease: bool = True
    untried: tuple[RecipientNumber, ...] = ()
    next_hop: str = ""
    warned: tuple[RecipientNumber, ...] = ()
    events: tuple[NewEvent, ...] = ()

    def ended(self) -> Iterator[tuple[QueueId, RecipientNumber]]:
        """Yield the recipients whose leases end."""
        id = self.message.id
        for number in (*self.done, *self.untried):
            yield id, number
        for deferral in self.deferred:
            yield id, deferral.outcome.number


@frozen
class Forget:
    """Remove messages that were refused, if they are in the store at all.

    After a failed commit it is not known whether its messages are on the disk. Their senders were
    told to try again, so a message that is on the disk would be a second copy.
    """

    ids: tuple[QueueId, ...]


@frozen
class Survey:
    """List the domains that have mail; the result is `Leased` without messages.

    It names each domain with a recipient that is or will be due, and a time before which none is. A
    domain may be left out where all its recipients are leased.

    Attributes:
        now: wall time.
        latest: wall time beyond which no recipient can have been put off, unless the clock was
            wrong; such recipients are made due now.
        set_back: seconds that the wall clock was set back by while this process ran: recipients
            are made due so much earlier, except where the sender asked for a release time.
    """

    now: float
    latest: float
    set_back: float = 0.0

    def apply(self, transaction: StoreTransaction) -> Leased:
        """Apply it."""
        return transaction.survey(self)


@frozen
class Want:
    """How much of one domain a `Lease` is to bring, the longest due first (`priority`).

    Attributes:
        domain: of recipients.
        limit: messages at most, apart from those that are leased for another domain as well.
        before: only messages with a lower id, and those that have to be returned by a time of
            their own (DELIVERBY); None: any.
    """

    domain: str
    limit: int
    before: QueueId | None = None


@frozen
class Lease:
    """Lease due recipients; the result is `Leased`.

    Its cost is that of the messages it brings, however many others are in the queue.

    Attributes:
        now: wall time.
        wants: the domains to lease of, each of them once.
        also: domains whose due recipients are leased along with a message that is leased for
            another domain, so that they share a transaction.
    """

    now: float
    wants: tuple[Want, ...]
    also: tuple[str, ...] = ()

    def apply(self, transaction: StoreTransaction) -> Leased:
        """Apply it."""
        return transaction.lease(self)


@frozen
class Overdue:
    """Lease old recipients whose sender was not told of the delay; the result is `Leased`.

    Those are recipients that will be tried again, due or not, that are not ``warned`` and whose
    message has a sender. They come in the order of ids and piece by piece, so that the cost is that
    of the messages that are looked at.

    Attributes:
        after: only messages with a higher id.
        before: only messages with a lower id.
    """

    after: QueueId
    before: QueueId

    def apply(self, transaction: StoreTransaction) -> Leased:
        """Apply it."""
        return transaction.overdue(self)


@frozen
class SetAside:
    """Set a message aside for the operator if its body is lost; the result is `LostBody` or None.

    Attributes:
        id: of the message.
    """

    id: QueueId

    def apply(self, transaction: StoreTransaction) -> LostBody | None:
        """Apply it."""
        return transaction.set_aside(self)


Operation = (
    Accept
    | Settle
    | Forget
    | Survey
    | Lease
    | Overdue
    | SetAside
    | OperatorOperation
    | EventsOperation
)


# Results.


@frozen
class Leased:
    """Messages that were leased.

    Attributes:
        messages: each with its leased recipients and no others.
        rest: for each wanted domain, the wall time before which no further recipient of it is due;
            None: there is none.
        through: of `Overdue`: the id up to which all was looked at; None: up to the end.
    """

    messages: tuple[Message, ...]
    rest: Mapping[str, float | None]
    through: QueueId | None = None


@frozen
class LostBody:
    """The body of a message is lost: it is quarantined.

    Attributes:
        reason: how that shows.
    """

    reason: str


Result = (
    Leased
    | LostBody
    | FilesHeld
    | Page
    | Inspected
    | Tallied
    | WaitingCounts
    | Summarized
    | Known
    | Suspended
    | Retried
    | Removed
    | TakenEvents
    | EventCount
    | EventCounts
    | None
)
"""The result of an operation; None where it says nothing."""


@frozen
class Census:
    """How much is in the queue.

    Attributes:
        messages: all messages.
        recipients: all recipients, whatever their state.
        deferred: recipients that were tried before.
        leased: recipients that are leased.
        held: recipients that the operator holds.
        quarantined: messages whose body file is lost.
        failures: records of failures that no DSN reported, of the last 30 days (`FAILURE_LIFE`).
    """

    messages: int = 0
    recipients: int = 0
    deferred: int = 0
    leased: int = 0
    held: int = 0
    quarantined: int = 0
    failures: int = 0


@frozen
class Recovery:
    """What opening a store found and repaired.

    Attributes:
        swept: names of body files without a row, which were removed; they were never acknowledged.
        quarantined: messages whose body file is lost.
        census: how much is in the queue.
        removed: messages with recipients that the operator had removed while they were leased to a
            process that is no more; those recipients have left the queue now.
        suspended: destinations that the operator has suspended.
    """

    swept: tuple[str, ...]
    quarantined: tuple[QueueId, ...]
    census: Census
    removed: tuple[QueueId, ...] = ()
    suspended: tuple[SuspendedDestination, ...] = ()


# Stores.


class StoreTransaction(OperatorTransaction, EventsTransaction, Protocol):
    """What a store does for each operation, within the transaction of one batch."""

    def accept(self, accepts: Sequence[Accept], /) -> None:
        """Insert the messages of ``accepts``."""
        ...

    def settle(self, settles: Sequence[Settle], /) -> Sequence[Removed | None]:
        """Record the outcomes of ``settles``; return a result for each."""
        ...

    def forget(self, forgets: Sequence[Forget], /) -> None:
        """Remove the messages of ``forgets``, with their files."""
        ...

    def survey(self, survey: Survey, /) -> Leased:
        """List the domains that have mail."""
        ...

    def lease(self, lease: Lease, /) -> Leased:
        """Lease due recipients."""
        ...

    def overdue(self, overdue: Overdue, /) -> Leased:
        """Lease recipients whose delay is to be reported."""
        ...

    def set_aside(self, message: SetAside, /) -> LostBody | None:
        """Quarantine a message if its body is lost."""
        ...


def apply_batch(batch: Sequence[Operation], transaction: StoreTransaction) -> list[Result]:
    """Apply a batch in the order that every store keeps; return a result for each operation.

    First all messages are inserted, then all outcomes recorded, then messages forgotten. The other
    operations follow one by one as they stand in the batch, and see all of that. Operations that
    write come together so that one statement takes the rows of many.
    """
    accepts: list[Accept] = []
    settles: list[Settle] = []
    forgets: list[Forget] = []
    for each in batch:
        if isinstance(each, Settle):
            settles.append(each)
        elif isinstance(each, Accept):
            accepts.append(each)
        elif isinstance(each, Forget):
            forgets.append(each)
    removals: Iterator[Removed | None] = iter(())
    if accepts:
        transaction.accept(accepts)
    if settles:
        removals = iter(transaction.settle(settles))
    if forgets:
        transaction.forget(forgets)
    events = [event for each in accepts for event in each.events]
    events += [event for each in settles for event in each.events]
    if events:
        transaction.record_events(tuple(events))
    results: list[Result] = []
    for operation in batch:
        if isinstance(operation, Settle):
            results.append(next(removals))
        elif isinstance(operation, (Accept, Forget)):  # `|` would make a type each time
            results.append(None)
        else:
            results.append(operation.apply(transaction))
    return results


class Transfers(Protocol):
    """What copies large bodies into a store and out of it, so that its transactions need not."""

    def bring(self, message: Message, /) -> Deferred[None]:
        """Copy the body of a message that is about to be accepted; fails as `Store.apply`."""
        ...

    def fetch(self, result: Result, /) -> Deferred[Any] | None:
        """Copy the bodies that a result needs; fires with the result.

        It fails with `StoreError` where there is no result without a body.

        Returns:
            None: there are none.
        """
        ...


class Store(Protocol):
    """A durable queue. Its methods block; `commit.GroupCommit` decides in which thread they run.

    Calls never overlap, though they may come from different threads.
    """

    def open(self) -> Recovery:
        """Open the store, making or upgrading it where necessary.

        The first time it also reconciles files and rows. Opened again after an error, the store
        keeps its leases, because their deliveries go on.

        Raises:
            NewerSchema: a newer version of this program has written it.
            StoreUnavailable: it cannot be opened now.
            StoreError: it cannot be opened.
        """
        ...

    def apply(self, batch: Sequence[Operation]) -> list[Result]:
        """Apply all of ``batch`` in one transaction; return a result for each operation.

        Raises:
            StoreFull: the disk has no room; nothing was written.
            StoreBusy: others keep it locked; nothing was written.
            StoreError: the store failed, or is closed.
        """
        ...

    def census(self) -> Census:
        """Return how much is in the queue, from counts that are kept along with the rows."""
        ...

    def close(self) -> None:
        """Close the store, whatever state it is in."""
        ...
