"""The operator's operations on a store; the others are in `store.contract`.

Each operation works on one *slice* of the queue: it looks at a bounded number of recipients, in the
order of ids, and returns where the next slice begins. So no operation takes long, however long the
queue is; messages come and go between two slices; and a request that is broken off half-way has
done what it reported and no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, get_args

from attrs import field, frozen

from ...mail.address import Mailbox
from ...mail.classification import classify
from ...mail.envelope import RecipientNumber
from ...mail.message import Message
from ...mail.queue_id import QueueId
from ...mail.reply import Reply
from ..store.attempts import PastAttempt
from .selection import QueuedRecipient, Selection
from .suspended import SuspendedDestination

FIRST = -1
"""Before all ids."""

FEW = 20
"""Recipients that one intervention may change and still log each on a line of its own."""

REACH = 4000
"""Recipients that the database passes over in one slice: a few milliseconds."""

Action = Literal["retry", "hold", "release", "remove"]
"""What an operator can do to a recipient:

    retry     one that waits for its next attempt is due now; others stay as they are
    hold      it is neither tried nor returned until it is released; an attempt under way ends
              first, and the recipient is held unless that was final
    release   a held recipient is due now
    remove    it leaves the queue without a notice; an attempt under way ends first, and the
              recipient counts as delivered if that delivered it
"""

ACTIONS: tuple[Action, ...] = get_args(Action)


def can(action: Action, recipient: QueuedRecipient) -> bool:
    """Whether an action changes anything about a recipient."""
    if action == "release":
        return recipient.held is not None
    if action == "remove":
        return not recipient.removing
    return recipient.next_attempt is not None and (action == "hold" or not recipient.leased)


@frozen
class Browse:
    """List recipients; the result is a `Page`.

    Attributes:
        selection: of recipients.
        after: the slice begins behind this id.
        limit: recipients to return, apart from further ones of the last message.
        reach: recipients to pass over in search of them.
    """

    selection: Selection
    after: int = FIRST
    limit: int = 100
    reach: int = REACH

    def apply(self, transaction: OperatorTransaction) -> Page:
        """Apply it."""
        return transaction.browse(self)


@frozen
class Intervene:
    """Retry, hold, release or remove recipients; the result is a `Page` of them.

    Attributes:
        action: one of `Action`.
        selection: of recipients.
        now: wall time.
        after: the slice begins behind this id.
        limit: recipients to change, apart from further ones of the last message.
        dry_run: whether to return the recipients without changing them.
        reach: recipients to pass over in search of them.
    """

    action: Action
    selection: Selection
    now: float
    after: int = FIRST
    limit: int = 200
    dry_run: bool = False
    reach: int = REACH

    def apply(self, transaction: OperatorTransaction) -> Page:
        """Apply it."""
        return transaction.intervene(self)


@frozen
class Inspect:
    """Read one message with all its recipients; the result is `Inspected`, or None."""

    id: QueueId

    def apply(self, transaction: OperatorTransaction) -> Inspected | None:
        """Apply it."""
        return transaction.inspect(self)


@frozen
class Tally:
    """Count the recipients of a slice by category; the result is `Tallied`.

    Attributes:
        ages: ids in rising order that divide the messages by their age.
        after: the slice begins behind this id.
        limit: recipients to count.
        now: wall time; mail that is due then, or was tried before, waits.
    """

    ages: tuple[QueueId, ...]
    after: int = FIRST
    limit: int = 2000
    now: float = 0.0

    def apply(self, transaction: OperatorTransaction) -> Tallied:
        """Apply it."""
        return transaction.tally(self)


@frozen
class CountWaiting:
    """Count the recipients of domains that wait for an attempt; the result is `WaitingCounts`.

    Attributes:
        domains: whose.
        most: of each domain to count.
    """

    domains: tuple[str, ...]
    most: int = 1000

    def apply(self, transaction: OperatorTransaction) -> WaitingCounts:
        """Apply it."""
        return transaction.count_waiting(self)


By = Literal["domain", "sender", "reason"]
"""What recipients are summarized by: their domain, the reverse-path of their message, or the reason
why they are in the queue (`reason`)."""

BYS: tuple[By, ...] = get_args(By)


@frozen
class Summarize:
    """Count the recipients of a slice in groups; the result is `Summarized`.

    Attributes:
        by: what makes a group.
        selection: of recipients, by their domain, state and age alone.
        after: the slice begins behind this id.
        reach: recipients to look at, apart from further ones of the last message.
    """

    by: By
    selection: Selection
    after: int = FIRST
    reach: int = 2000

    def apply(self, transaction: OperatorTransaction) -> Summarized:
        """Apply it."""
        return transaction.summarize(self)


@frozen
class FindKnown:
    """Find out which recipients of a message need no import; the result is `Known`.

    Attributes:
        id: of the message.
        again: whether recipients that were imported before, and have left, need it.
    """

    id: QueueId
    again: bool = False

    def apply(self, transaction: OperatorTransaction) -> Known:
        """Apply it."""
        return transaction.find_known(self)


@frozen
class Restore:
    """Put recipients into the queue that another queue has exported; the result is None.

    Recipients that are known (`FindKnown`) are left alone, so that a restore may be applied twice.

    Attributes:
        message: with those recipients, their attempts and last replies; a body in a file is durable
            already.
        next_attempts: wall time for each recipient; None: it is held.
        held: since when each is held, wall time; None: it is not.
        at: wall time.
        again: as in `FindKnown`; such a restore must not be applied twice.
        sweep: whether the store forgets imports of more than 30 days ago first. It reads all
            records of imports for that, so that one restore of many has it.
    """

    message: Message
    next_attempts: tuple[float | None, ...]
    held: tuple[float | None, ...]
    at: float
    again: bool = False
    sweep: bool = False

    def apply(self, transaction: OperatorTransaction) -> None:
        """Apply it."""
        transaction.restore(self)


@frozen
class Suspend:
    """Suspend a destination, or change how it is suspended; the result is `Suspended`: all of them.

    It has to be in force in every process as well (`runner.Runner.take_suspended`).
    """

    destination: SuspendedDestination

    def apply(self, transaction: OperatorTransaction) -> Suspended:
        """Apply it."""
        return transaction.suspend(self)


@frozen
class Resume:
    """Resume destinations; the result is `Suspended`: those that were suspended.

    Attributes:
        name: of the destination; None: all.
    """

    name: str | None

    def apply(self, transaction: OperatorTransaction) -> Suspended:
        """Apply it."""
        return transaction.resume(self)


@frozen
class ReadSuspended:
    """Read which destinations are suspended; the result is `Suspended`."""

    def apply(self, transaction: OperatorTransaction) -> Suspended:
        """Apply it."""
        return transaction.read_suspended()


@frozen
class ReadRetried:
    """Read which retries other processes have done in the last minute; the result is `Retried`.

    Those of a queue that several processes share: each of them has its own view of next hops.

    Attributes:
        known: the ids of those whose domains are not read again.
    """

    known: frozenset[int] = frozenset()

    def apply(self, transaction: OperatorTransaction) -> Retried:
        """Apply it."""
        return transaction.read_retried(self)


HoldAction = Literal["begin", "check", "end"]
"""What is done about a hold of files (`HoldFiles`)."""


@frozen
class HoldFiles:
    """Keep the files of the queue as they are, for a copy; the result is `FilesHeld`.

    From the commit of a ``begin`` on, the file of the database does not change, commits are in its
    log alone, and no body file is removed. A store that cannot keep that up, because its log grows
    too long, ends the hold by itself; so does one that is closed. Another ``begin`` replaces it.

    Attributes:
        action: ``begin`` and ``end`` take effect after the commit.
        copy: the name of the copy.
    """

    action: HoldAction
    copy: str

    def apply(self, transaction: OperatorTransaction) -> FilesHeld:
        """Apply it."""
        return transaction.hold_files(self)


OperatorOperation = (
    Browse
    | Intervene
    | Inspect
    | Tally
    | CountWaiting
    | Summarize
    | FindKnown
    | Restore
    | HoldFiles
    | Suspend
    | Resume
    | ReadSuspended
    | ReadRetried
)


class OperatorTransaction(Protocol):
    """What a store does for each of the operator's operations (`contract.StoreTransaction`)."""

    def browse(self, browse: Browse, /) -> Page:
        """List recipients."""
        ...

    def intervene(self, intervention: Intervene, /) -> Page:
        """Change recipients; return them as they were before."""
        ...

    def inspect(self, inspect: Inspect, /) -> Inspected | None:
        """Read one message; None: it is not in the queue."""
        ...

    def tally(self, tally: Tally, /) -> Tallied:
        """Count recipients."""
        ...

    def count_waiting(self, count: CountWaiting, /) -> WaitingCounts:
        """Count the recipients of domains."""
        ...

    def summarize(self, summarize: Summarize, /) -> Summarized:
        """Count recipients in groups."""
        ...

    def find_known(self, find: FindKnown, /) -> Known:
        """Find recipients of a message that are in the queue, or were imported."""
        ...

    def restore(self, restore: Restore, /) -> None:
        """Insert recipients that another queue has exported."""
        ...

    def hold_files(self, hold: HoldFiles, /) -> FilesHeld:
        """Keep the files of the queue as they are, or no longer."""
        ...

    def suspend(self, suspend: Suspend, /) -> Suspended:
        """Suspend a destination; return all that are suspended."""
        ...

    def resume(self, resume: Resume, /) -> Suspended:
        """Resume destinations; return those that were suspended."""
        ...

    def read_suspended(self) -> Suspended:
        """Return the suspended destinations."""
        ...

    def read_retried(self, read: ReadRetried, /) -> Retried:
        """Return the retries of other processes."""
        ...


@frozen
class FilesHeld:
    """Whether the files of the queue are kept for a copy (`HoldFiles`).

    Attributes:
        held: whether they were, before the operation, without a break since its ``begin``.
    """

    held: bool


@frozen
class ListedMessage:
    """A message with the recipients of it that were selected.

    Attributes:
        id: its queue id.
        reverse_path: None is the null reverse-path.
        recipients: as they were before an intervention changed them.
        size: octets of the body; 0 in the result of an intervention.
    """

    id: QueueId
    reverse_path: Mailbox | None
    recipients: tuple[QueuedRecipient, ...]
    size: int = 0


@frozen
class Page:
    """The selected recipients of a slice.

    Attributes:
        messages: in the order of ids.
        looked_at: recipients that the slice has.
        next: the id behind which the next slice begins; None: this is the last one.
        more: further recipients that were changed, where there were too many to read each: id,
            number and domain, none of them leased.
    """

    messages: tuple[ListedMessage, ...]
    looked_at: int
    next: QueueId | None
    more: Sequence[tuple[QueueId, RecipientNumber, str]] = ()

    @property
    def ids(self) -> list[QueueId]:
        """The ids of all messages with a selected recipient."""
        listed = [each.id for each in self.messages]
        return list(dict.fromkeys([*listed, *(id for id, _, _ in self.more)]))

    @property
    def domains(self) -> list[str]:
        """The domains of all selected recipients."""
        listed = (each.recipient.mailbox.domain for one in self.messages for each in one.recipients)
        return list(dict.fromkeys([*listed, *(domain for _, _, domain in self.more)]))


@frozen
class Inspected:
    """One message.

    Attributes:
        message: with all its recipients, and its body.
        recipients: the same recipients, as they are in the store.
        quarantine: why the message is never tried; None: it is.
        attempts: the remembered attempts at each recipient, the oldest first.
        machine: that has accepted it, for people; empty: the queue is that of one machine.
        leased_to: the machine and process that have leased each recipient, for people; likewise.
    """

    message: Message
    recipients: tuple[QueuedRecipient, ...]
    quarantine: str | None = None
    attempts: Mapping[RecipientNumber, tuple[PastAttempt, ...]] = field(factory=dict)
    machine: str = ""
    leased_to: Mapping[RecipientNumber, str] = field(factory=dict)


@frozen
class Group:
    """Recipients that have the same domain, sender or reason.

    Attributes:
        recipients: how many.
        messages: how many they belong to.
        deferred: recipients that were tried before.
        held: recipients that the operator holds.
        oldest: the first of the messages.
    """

    recipients: int
    messages: int
    deferred: int
    held: int
    oldest: QueueId

    def __add__(self, other: Group) -> Group:
        """Return the group of both, which have no message in common."""
        return Group(
            self.recipients + other.recipients,
            self.messages + other.messages,
            self.deferred + other.deferred,
            self.held + other.held,
            min(self.oldest, other.oldest),
        )


def reason(*, held: bool, attempts: int, code: int | None, status: str | None) -> str:
    """Return the name of a group by reason: the last code and its class, or ``held``.

    The class is that of the code alone. To look for words in a million texts would take minutes.

    Args:
        held: whether the operator holds the recipient.
        attempts: how many there were.
        code: of the last reply.
        status: its enhanced code, without the class.
    """
    if held:
        return "held"
    if not attempts or code is None:
        return "not tried yet"
    enhanced = "" if status is None else f" {code // 100}.{status}"
    return f"{code}{enhanced} {classify(Reply.of(code, status)) or ''}".rstrip()


@frozen
class Summarized:
    """The groups of a slice.

    Attributes:
        groups: by domain, reverse-path (``<>`` is the null one) or reason.
        looked_at: recipients that the slice has.
        next: as in a `Page`.
    """

    groups: Mapping[str, Group]
    looked_at: int
    next: QueueId | None


@frozen
class Known:
    """What a store knows of a message that is to be imported.

    Attributes:
        message: as it is in the queue, without recipients; None: it is not there.
        numbers: its recipients that are in the queue, or were imported before.
    """

    message: Message | None
    numbers: frozenset[int]


@frozen(cache_hash=True)  # a slice may count two thousand groups by it
class Category:
    """The properties by which recipients are counted.

    Attributes:
        age: the index among `Tally.ages` of the first id that is higher; 0 is the oldest.
        deferred: whether the recipient was tried before.
        waiting: whether it has a next attempt.
        held: whether the operator holds it.
        code: of the last reply.
        status: the enhanced code of the last reply, without the class.
        ours: whether that reply is our own, not the next hop's.
    """

    age: int
    deferred: bool
    waiting: bool
    held: bool
    code: int | None = None
    status: str | None = None
    ours: bool = True


@frozen
class Tallied:
    """The counts of a slice.

    Attributes:
        counts: recipients in each category.
        domains: the same by domain: for each the recipients in each category, and its first
            message.
        looked_at: recipients in all.
        next: as in a `Page`.
        oldest: the first message that waits for its delivery, and is not on hold, quarantined or
            to be released later; None: there is none.
    """

    counts: Mapping[Category, int] = field(factory=dict)
    looked_at: int = 0
    next: QueueId | None = None
    oldest: QueueId | None = None
    domains: Mapping[str, tuple[Mapping[Category, int], QueueId]] = field(factory=dict)


@frozen
class WaitingCounts:
    """The recipients of some domains that wait.

    Attributes:
        by_domain: how many of each.
    """

    by_domain: Mapping[str, int]


@frozen
class Suspended:
    """Suspended destinations, by name; those whose time is over may be among them.

    Attributes:
        destinations: all that the operation is about.
    """

    destinations: tuple[SuspendedDestination, ...]


@frozen
class Retry:
    """A slice of a retry or release that another process has done.

    Attributes:
        id: of the slice.
        begins: whether it is the first one of its intervention.
        domains: whose mail is due.
    """

    id: int
    begins: bool
    domains: tuple[str, ...]


@frozen
class Retried:
    """Retries of other processes, in their order (`ReadRetried`).

    Attributes:
        retries: those of the last minute; the known ones without domains.
    """

    retries: tuple[Retry, ...]


@frozen
class Removed:
    """Recipients that left the queue as their lease ended, because the operator had removed them.

    Attributes:
        numbers: of the recipients.
    """

    numbers: tuple[RecipientNumber, ...]
