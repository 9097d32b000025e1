"""The contract of a queue's store, and the states of what is in it.

A *recipient* of a message is what has a state; a message is there as long as one of its recipients
is.

    queued        to be tried at ``next_attempt``; due once that time has come
    leased        a runner is at work on it: queued on disk, and in a list of this process. A lease
                  is not written down, so it ends with the process, and what was leased is due
    held          by the operator: never tried until it is released
    quarantined   its body is gone: never tried, shown to the operator
    (no row)      settled: delivered, discarded, failed with its DSN or its record, or removed

What moves between them is an *operation*; those that an operator asks for are in `operator`. A
store applies a batch of them in one transaction: all or nothing, durable when `Store.apply`
returns. That is what makes settling safe: the last recipient of a message, the message, and the DSN
that its failure causes go and come in the same instant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from attrs import frozen

from ...mail.envelope import RecipientNumber
from ...mail.message import Message
from ...mail.outcome import Outcome
from ...mail.queue_id import QueueId
from ..operator.operations import Inspected, OperatorsOperation, Page, Removed, Tallied


class StoreError(Exception):
    """The store could not do it, and nothing of the batch is known to have happened.

    It is to be closed and opened again: after a failed fsync nobody knows what the kernel has kept.
    """


class StoreFull(Exception):
    """There was no room, and nothing of the batch has happened. The store remains good."""


class StateInUse(Exception):
    """Another process uses the state directory; the message names both."""


class NewerSchema(Exception):
    """The store was written by a newer version of this program."""


@frozen
class Accept:
    """Put a message into the queue, all its recipients due at once.

    Attributes:
        message: complete; if its body is in a file, the file is durable already.
        lease: whether the one who asks begins with the delivery now.
        notices: DSNs that it is the cause of; they are due, and nobody's yet.
        unreported: failures of those that it is refused for (`Message.refused`) that no DSN tells
            of; each leaves a record.
    """

    message: Message
    lease: bool = True
    notices: tuple[Message, ...] = ()
    unreported: tuple[Outcome, ...] = ()


@frozen
class Deferral:
    """A recipient is to be tried again.

    Attributes:
        outcome: what the attempt came to.
        next_attempt: wall time.
    """

    outcome: Outcome
    next_attempt: float


@frozen
class Settle:
    """Record what one attempt came to, and end its leases.

    May be applied twice: an answer that was lost is asked for again.

    Attributes:
        message: what was attempted, with the recipients that were.
        done: recipients with a final answer: they leave the queue.
        deferred: recipients to be tried again.
        notices: DSNs of what happened to some of them.
        unreported: failures that no DSN may be sent for; a record of each is kept.
        at: wall time.
        lease: whether the one who asks begins with the delivery of the notices now.
        untried: recipients that were leased and not tried after all; they are as due as before.
        next_hop: where those that are deferred were tried, for people.
        warned: recipients whose senders are told by a notice that they are delayed.
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


@frozen
class Survey:
    """Ask which domains have mail; the result is `Leased` without messages.

    It names each domain that has a recipient that will be due, with a time before which none is.

    Attributes:
        now: wall time.
        latest: wall time that nothing can honestly be put off beyond. What is has a time of a clock
            that was wrong, and is due now.
        set_back: seconds that the wall clock was set back by while this process ran: what waits is
            due so much earlier, but not what its sender asked to be held.
    """

    now: float
    latest: float
    set_back: float = 0.0


@frozen
class Want:
    """What is to be leased of one domain, the longest due first (see `priority.turn`).

    Attributes:
        domain: of recipients.
        limit: how many messages at most, give or take those that are leased for another domain.
        before: only messages whose id is lower, and those that are to be returned by a time of
            their own; None for any.
    """

    domain: str
    limit: int
    before: QueueId | None = None


@frozen
class Lease:
    """Take what is due; the result is `Leased`.

    It costs what it brings, and no more with millions of others in the queue.

    Attributes:
        now: wall time.
        wants: of which domains, each of them once.
        also: domains whose recipients may come with the messages that are leased for others, so
            that they can share a transaction.
    """

    now: float
    wants: tuple[Want, ...]
    also: tuple[str, ...] = ()


@frozen
class Overdue:
    """Take what has been here for long, and no sender knows of it; the result is `Leased`.

    That are recipients that will be tried again, due or not, and were not ``warned``, of messages
    that have a sender. It is asked for by age, in pieces, so that it costs what it looks at.

    Attributes:
        after: only messages whose id is higher.
        before: only messages whose id is lower.
    """

    after: QueueId
    before: QueueId


@frozen
class Leased:
    """What a lease brought.

    Attributes:
        messages: each with those of its recipients that were due and of the domains wanted.
        rest: for each domain that was wanted, the wall time before which nothing else of what was
            wanted is due; None if there is nothing else.
        through: of `Overdue`: the id up to which all was looked at; None: there is nothing behind
            it.
    """

    messages: tuple[Message, ...]
    rest: Mapping[str, float | None]
    through: QueueId | None = None


@frozen
class Forget:
    """Remove messages that were not taken responsibility for, if they are there at all.

    After a failed commit nobody knows whether its messages are on the disk. Their senders were told
    to try again, so what is there would be a second copy.
    """

    ids: tuple[QueueId, ...]


Operation = Accept | Settle | Survey | Lease | Overdue | Forget | OperatorsOperation

Result = Leased | Page | Inspected | Tallied | Removed | None
"""What an operation comes to; a `Settle` to `Removed` where it was the end of what was removed."""


@frozen
class Census:
    """How much is in the queue.

    Attributes:
        messages: all of them.
        recipients: all of them, whatever their state.
        deferred: recipients that were tried before.
        leased: recipients at work now.
        held: recipients that the operator holds.
        quarantined: messages without their body.
        failures: records of failures that no DSN was sent for.
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
    """What opening a store came upon.

    Attributes:
        swept: files of bodies without a row, which were removed: they were never acknowledged.
        quarantined: messages whose file was missing.
        census: what is in the queue.
        removed: messages with recipients that the operator had removed while they were at work,
            and that are gone now.
    """

    swept: tuple[str, ...]
    quarantined: tuple[QueueId, ...]
    census: Census
    removed: tuple[QueueId, ...] = ()


class Store(Protocol):
    """A durable queue. Synchronous: `commit.GroupCommit` decides where it runs.

    Calls never overlap, though they may come from different threads.
    """

    def open(self) -> Recovery:
        """Open it, making or upgrading what is there.

        The first time it also brings files and rows together. Opened again after an error it keeps
        its leases, because the work on them goes on.

        Raises:
            NewerSchema: see there.
            StoreError: it cannot be opened.
        """
        ...

    def apply(self, batch: Sequence[Operation]) -> list[Result]:
        """Do all of ``batch`` in one transaction; return a result for each.

        Raises:
            StoreFull: there was no room; nothing was done.
            StoreError: see there.
        """
        ...

    def census(self) -> Census:
        """Return counts that are kept, not counted."""
        ...

    def close(self) -> None:
        """Close it, whatever state it is in."""
        ...
