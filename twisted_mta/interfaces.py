"""What rooms ask of each other and of the world, so that every one of them can be handed in.

The whole MTA is to be simulated from a seed: crashes, losses and days of retries replayed exactly.
So time, randomness, ids, threads and files come from outside, always.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import IO, Any, ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from .mail.address import Mailbox
from .mail.body import Body
from .mail.envelope import Parameters, RecipientNumber
from .mail.final_recipient import FinalRecipient
from .mail.message import Message
from .mail.next_hop import NextHop, Target
from .mail.outcome import Outcome
from .mail.queue_id import QueueId
from .mail.reply import Reply
from .smtp.server.session import Session

Clock = IReactorTime
"""Monotonic time and timers: a reactor, or `twisted.internet.task.Clock`."""

WallTime = Callable[[], float]
"""Seconds since the epoch, as people and mail headers count them."""

Ids = Callable[[], QueueId]
"""The next queue id, never the same twice."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Random(Protocol):
    """The part of `random.Random` that is used."""

    def random(self) -> float:
        """Return a number in [0, 1)."""
        ...

    def getrandbits(self, k: int, /) -> int:
        """Return ``k`` random bits as a number."""
        ...

    def shuffle(self, x: list[Any], /) -> None:
        """Put a list in random order, in place."""
        ...


class Executor(Protocol):
    """Where blocking calls run: a thread in production, the caller's own turn in a simulation."""

    def __call__(
        self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> Deferred[_T]:
        """Run ``function`` and return its result, or its exception as a failure."""
        ...


class Files(Protocol):
    """The file operations that durability depends on; paths are absolute or below the cwd.

    All of them block, and raise `OSError`. A test double loses what was not synced.
    """

    def create(self, path: str) -> WritableFile:
        """Open a new file (mode 0600) for writing.

        Raises:
            FileExistsError: there is one already.
        """
        ...

    def open(self, path: str) -> IO[bytes]:
        """Open an existing file for reading."""
        ...

    def rename(self, old: str, new: str) -> OSError | None:
        """Move a file within its file system, replacing none: ``new`` must not exist.

        Returns:
            None; or why ``old`` is still there beside ``new``: the file was moved all the same.
        """
        ...

    def unlink(self, path: str) -> None:
        """Remove a file; one that is not there is no error."""
        ...

    def is_directory(self, path: str) -> bool:
        """Whether there is a directory at ``path``."""
        ...

    def identity(self, path: str) -> tuple[int, int]:
        """Return what tells a file or directory from all others: device and inode."""
        ...

    def make_directories(self, path: str) -> None:
        """Make ``path`` and what is missing above it (mode 0700), each synced in its parent."""
        ...

    def mailbox_fault(self, root: str, path: str) -> str:
        """Say why mail that is written below ``path`` could end elsewhere; empty: it cannot.

        Args:
            root: the directory of all Maildirs.
            path: a directory below it.
        """
        ...

    def names(self, path: str) -> list[str]:
        """Return the names in a directory, sorted."""
        ...

    def sync_directory(self, path: str) -> None:
        """Return when all names in the directory are as durable as the disk can make them."""
        ...

    def free(self, path: str) -> int:
        """Return how many octets can still be written on the file system of ``path``."""
        ...


class WritableFile(Protocol):
    """A file that is being written."""

    def write(self, content: bytes) -> None:
        """Append all of ``content``."""
        ...

    def sync(self) -> None:
        """Return when what was written is as durable as the disk can make it."""
        ...

    def close(self) -> None:
        """Close the file; says nothing about durability."""
        ...


LimitKey = tuple[str, ...]
"""What is counted: ``("connections", listener)``, ``("peer", listener, address)``,
``("deliveries",)``, ``("hop", next hop)``, …"""


class Limits(Protocol):
    """Counts what is in use, over all processes of one MTA together.

    Who asks says the limit, because it is in everybody's settings; the newest word on it holds.
    """

    def take(self, key: LimitKey, limit: int) -> bool | Deferred[bool]:
        """Count one more in, if that keeps within ``limit``; says whether it did."""
        ...

    def wait(self, key: LimitKey, limit: int) -> bool | Deferred[bool]:
        """Count one more in as soon as that keeps within ``limit``; the result is True.

        What waits is served in its order. A Deferred that is cancelled counts nothing.
        """
        ...

    def give_back(self, key: LimitKey) -> None:
        """Count one out that was counted in."""
        ...


class Resolver(Protocol):
    """DNS as a mail transfer agent needs it; domains are A-labels without a trailing dot.

    Each failure is `dns.LookupFailed` or `dns.NoSuchDomain` of this package.
    """

    def mail_exchangers(self, domain: str) -> Deferred[Sequence[tuple[int, str]]]:
        """Return (preference, host) of all MX records, in no order; empty where there are none.

        A null MX (RFC 7505) is ``(0, "")``.
        """
        ...

    def addresses(self, host: str, *, search: bool = False) -> Deferred[Sequence[str]]:
        """Return the AAAA and A records of ``host`` as text; empty where there are none.

        Args:
            host: whose.
            search: whether it is looked up as the system does, in the domains of its search list.
        """
        ...


class NoTarget(Exception):
    """A next hop has no address to connect to now (``4yz``) or at all (``5yz``); carries why."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


Locate = Callable[[NextHop], "Deferred[Sequence[Target]]"]
"""Says which addresses a next hop has, in the order to try them; fails with `NoTarget`."""

Route = Callable[[Mailbox], NextHop]
"""Says where a mailbox goes next; static, without DNS."""


Expand = Callable[[Mailbox, "Mailbox | None"], "Sequence[FinalRecipient] | Reply"]
"""Says where mail for a mailbox of ours, with that reverse-path, goes: to at least one that gets
it, or the reply that refuses it. A mailbox that has no alias is its own final recipient."""

Deliver = Callable[[NextHop, Message], "Deferred[Sequence[Outcome]]"]
"""Tries one transaction for all recipients of a message's envelope: an outcome for each."""


class Refused(Exception):
    """The queue does not take a message; ``reply`` (``4yz``) says why."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class BodyWriter(Protocol):
    """Takes the content of one message on its way to the queue, never whole in memory if large."""

    def write(self, content: bytes) -> None:
        """Append ``content``.

        Raises:
            OSError: the disk did not take it.
        """
        ...

    def seal(self) -> Body | Deferred[Body]:
        """End the content; what comes back may be named by a row of the queue.

        Either it goes into that row, or it is in a file that is as durable as the disk can make
        it. Fails with `OSError`; then there is nothing left of it.
        """
        ...

    def discard(self) -> None:
        """Leave nothing of it."""
        ...


NewBody = Callable[[QueueId], BodyWriter]
"""Begins the body of a message."""

Accept = Callable[[Message], "Deferred[None]"]
"""Takes responsibility for a message: fires after the commit, or fails with `Refused`."""

Decision = Reply | None
"""What a delivery decides: a reply, whose class accepts or refuses; None accepts as usual."""

ContentDecision = Decision | Sequence[Decision]
"""What is decided on a content: one decision, or one for each recipient of the transaction, in the
order of their RCPT commands. Over SMTP, which has one reply for all, a ``4yz`` among them stands
for all, then a ``5yz``; over LMTP each has its own."""


Take = Callable[[Message, "Sequence[Sequence[RecipientNumber]]"], "Deferred[ContentDecision]"]
"""Takes a message otherwise than into the queue alone. Gets for each RCPT the recipients of the
message that it led to, and decides on each RCPT; what is decided stays true. May fail."""


class Sink(Protocol):
    """Takes the content of one message, in the reactor's thread."""

    def write(self, content: bytes) -> None:
        """Take a piece; an exception makes the message fail with 451."""
        ...

    def finish(self) -> ContentDecision | Deferred[ContentDecision]:
        """The content is complete: make it safe, and only then say so."""
        ...

    def abort(self) -> None:
        """The content will not be completed: forget what came."""
        ...


class Delivery(Protocol):
    """What a session asks while it receives mail; every answer may be a Deferred.

    A failure that is not a decision is logged and becomes 451 (RFC 5321 §4.2.1).
    """

    def mail(
        self, session: Session, reverse_path: Mailbox | None, parameters: Parameters
    ) -> Decision | Deferred[Decision]:
        """Decide on the reverse-path of a transaction."""
        ...

    def rcpt(
        self, session: Session, forward_path: Mailbox, parameters: Parameters
    ) -> Decision | Deferred[Decision]:
        """Decide on one recipient of ``session.transaction``."""
        ...

    def open(self, session: Session) -> Sink | Reply | Deferred[Sink | Reply]:
        """Return where the content of ``session.transaction`` goes, or a reply that refuses it."""
        ...

    def ended(self, session: Session) -> None:
        """The session is over, in whichever way; nothing more will be asked for it."""
        ...
