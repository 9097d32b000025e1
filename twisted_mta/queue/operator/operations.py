"""What an operator asks of a store, beside the operations in `store`.

All of it goes by *slices*: each looks at a bounded number of recipients, in the order of ids, and
says where the next one begins. So nothing that is asked of a queue of any length takes long, what
comes in and goes out meanwhile finds its place between two slices, and what is given up half-way
has done what it has said and no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from attrs import field, frozen

from ...mail.address import Mailbox
from ...mail.envelope import RecipientNumber
from ...mail.message import Message
from ...mail.queue_id import QueueId
from ..store.attempts import PastAttempt
from .selection import QueuedRecipient, Selection

FIRST = -1
"""Before all ids."""

FEW = 20
"""Recipients that something was done to at once, up to which each has a line in the log."""

REACH = 4000
"""Recipients that the database passes over at once: a few milliseconds."""

Action = Literal["retry", "hold", "release", "remove"]
"""What can be done to a recipient:

    retry     what waits for its time is due now; what is held, or at work already, stays as it is
    hold      it is never tried, and so never returned, until it is released; what is at work ends
              first, and is held where that was not the end of it
    release   what is held is due now
    remove    it leaves the queue without a notice; what is at work ends first, and was delivered
              where that was what it came to
"""

ACTIONS: tuple[Action, ...] = get_args(Action)


def can(action: Action, entry: QueuedRecipient) -> bool:
    """Whether an action changes anything about a recipient."""
    if action == "release":
        return entry.held is not None
    if action == "remove":
        return not entry.removing
    return entry.next_attempt is not None and (action == "hold" or not entry.leased)


@frozen
class Browse:
    """Ask what is there; the result is a `Page`.

    Attributes:
        selection: what is wanted.
        after: where to begin: behind this id.
        limit: recipients to pick, give or take those of the last message.
        reach: recipients to pass over for that.
    """

    selection: Selection
    after: int = FIRST
    limit: int = 100
    reach: int = REACH


@frozen
class Intervene:
    """Do something to what is there; the result is a `Page` of what it was done to.

    Attributes:
        action: see `Action`.
        selection: to what.
        now: wall time.
        after: where to begin: behind this id.
        limit: recipients to pick, give or take those of the last message.
        dry_run: whether it is only to be said what would be done.
        reach: recipients to pass over for that.
    """

    action: Action
    selection: Selection
    now: float
    after: int = FIRST
    limit: int = 200
    dry_run: bool = False
    reach: int = REACH


@frozen
class Inspect:
    """Ask for one message with all its recipients; the result is `Inspected`, or None.

    Attributes:
        id: see there.
    """

    id: QueueId


@frozen
class Tally:
    """Count a slice; the result is `Tallied`.

    Attributes:
        ages: ids in rising order that part the messages by their age.
        after: where to begin: behind this id.
        limit: recipients to look at.
    """

    ages: tuple[QueueId, ...]
    after: int = FIRST
    limit: int = 2000


OperatorsOperation = Browse | Intervene | Inspect | Tally


@frozen
class ListedMessage:
    """A message, with those of its recipients that were asked for.

    Attributes:
        id: see there.
        reverse_path: None is the null reverse-path.
        recipients: as they were before anything was done to them.
        size: octets of the body; 0 where nobody asked.
    """

    id: QueueId
    reverse_path: Mailbox | None
    recipients: tuple[QueuedRecipient, ...]
    size: int = 0


@frozen
class Page:
    """A slice.

    Attributes:
        messages: what was picked, in the order of ids.
        looked_at: recipients that were looked at for that.
        next: behind which id the next slice begins; None: there is none.
        more: what was picked besides of which no more needs to be known: id, number and domain of
            each recipient, none of them leased.
    """

    messages: tuple[ListedMessage, ...]
    looked_at: int
    next: QueueId | None
    more: tuple[tuple[QueueId, RecipientNumber, str], ...] = ()

    @property
    def ids(self) -> list[QueueId]:
        """The ids of all messages that something was picked of."""
        listed = [each.id for each in self.messages]
        return list(dict.fromkeys([*listed, *(id for id, _, _ in self.more)]))


@frozen
class Inspected:
    """One message.

    Attributes:
        message: with all its recipients, and its body.
        entries: of the same recipients.
        quarantine: why it is never tried; None: it is.
        attempts: those at each recipient that are remembered, the oldest first.
    """

    message: Message
    entries: tuple[QueuedRecipient, ...]
    quarantine: str | None = None
    attempts: Mapping[RecipientNumber, tuple[PastAttempt, ...]] = field(factory=dict)


@frozen
class Category:
    """What is counted together.

    Attributes:
        age: the place among `Tally.ages` that a message has: 0 is older than all of them.
        deferred: whether it was tried before.
        waiting: whether it has a next attempt.
        held: whether it is held.
        code: of the last reply.
        status: its enhanced status code, without the class.
        ours: whether it was we who gave it.
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
    """What a slice has.

    Attributes:
        counts: recipients of each class.
        looked_at: recipients in all.
        next: as in a `Page`.
    """

    counts: Mapping[Category, int] = field(factory=dict)
    looked_at: int = 0
    next: QueueId | None = None


@frozen
class Removed:
    """What left the queue as its lease ended, since the operator had removed it.

    Attributes:
        numbers: of recipients.
    """

    numbers: tuple[RecipientNumber, ...]
