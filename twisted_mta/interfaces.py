"""The interfaces between rooms, and of rooms to the world.

Time, randomness, queue ids, threads, files and DNS are always handed in, so that the whole MTA can
be simulated from a seed: crashes, losses and days of retries are replayed exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import IO, Any, Literal, ParamSpec, Protocol, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from .mail.address import Mailbox
from .mail.body import Body
from .mail.decision import ContentDecision, Decision
from .mail.dns_answer import Answered
from .mail.envelope import Parameters, RecipientNumber
from .mail.final_recipient import FinalRecipient
from .mail.message import Message
from .mail.next_hop import NextHop, Target
from .mail.outcome import Outcome
from .mail.queue_id import QueueId
from .mail.reply import Reply
from .mail.tls_policy import TLSPolicy, TLSTerms
from .mail.tls_result import TLSResult
from .mail.tlsa import TLSA
from .smtp.server.session import Session

_P = ParamSpec("_P")
_T = TypeVar("_T")

# The world: time, randomness, threads, files, DNS.

Clock = IReactorTime
"""Monotonic time and timers: a reactor, or `twisted.internet.task.Clock`."""

WallTime = Callable[[], float]
"""Return the time in seconds since the epoch."""

Ids = Callable[[], QueueId]
"""Return the next queue id, never one twice."""


class Random(Protocol):
    """The methods of `random.Random` that are used."""

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
    """A runner of blocking calls: in a thread, or at once in a simulation."""

    def __call__(
        self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs
    ) -> Deferred[_T]:
        """Call ``function``; the Deferred fires with its result, or fails with its exception."""
        ...


@frozen
class Space:
    """The room on a file system.

    Attributes:
        octets: free for us.
        inodes: free for us; None: the file system does not limit them.
        device: identifies the file system.
    """

    octets: int
    inodes: int | None
    device: int


class Files(Protocol):
    """The file operations that durability depends on.

    Paths are absolute or relative to the working directory. Every method blocks and raises
    `OSError`. A simulated file system loses in a crash whatever was not synced.
    """

    def create(self, path: str) -> WritableFile:
        """Open a new file (mode 0600) for writing.

        Raises:
            FileExistsError: the file exists.
        """
        ...

    def open(self, path: str) -> IO[bytes]:
        """Open an existing file for reading."""
        ...

    def rename(self, old: str, new: str) -> OSError | None:
        """Move a file within its file system to a path that does not exist yet.

        Returns:
            None; or the error that left ``old`` beside ``new``. The file was moved all the same.
        """
        ...

    def replace(self, old: str, new: str) -> None:
        """Move a file within its file system to a path, in place of the file there."""
        ...

    def unlink(self, path: str) -> None:
        """Remove a file, if it exists."""
        ...

    def is_directory(self, path: str) -> bool:
        """Whether ``path`` is a directory."""
        ...

    def identity(self, path: str) -> tuple[int, int]:
        """Return device and inode of a file or directory, which identify it."""
        ...

    def make_directories(self, path: str) -> None:
        """Make a directory and its missing parents (mode 0700), each synced in its parent."""
        ...

    def mailbox_fault(self, root: str, path: str) -> str:
        """Return why mail written below ``path`` could end elsewhere; empty: it cannot.

        Args:
            root: the directory of all Maildirs.
            path: a directory below it.
        """
        ...

    def names(self, path: str) -> list[str]:
        """Return the names in a directory, sorted."""
        ...

    def sync_directory(self, path: str) -> None:
        """Return when the names in a directory are as durable as the disk can make them."""
        ...

    def free(self, path: str) -> int:
        """Return the free octets on the file system of ``path``."""
        ...

    def space(self, path: str) -> Space:
        """Return the room on the file system of ``path``, an existing file or directory."""
        ...


class WritableFile(Protocol):
    """A new file that is open for writing."""

    def write(self, content: bytes) -> None:
        """Write all of ``content`` behind what was written before."""
        ...

    def sync(self) -> None:
        """Return when the content is as durable as the disk can make it."""
        ...

    def close(self) -> None:
        """Close the file, without a sync."""
        ...

    # To use a file again.

    def read(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` octets from ``offset`` on; empty: the file ends there."""
        ...

    def rewind(self) -> None:
        """Overwrite the file from its beginning by the next writes."""
        ...

    def truncate(self, size: int) -> None:
        """End the file after ``size`` octets."""
        ...

    def has_name(self) -> bool:
        """Whether the file has a name still."""
        ...


class Resolver(Protocol):
    """The DNS queries of a mail transfer agent; domains are A-labels without a trailing dot.

    Deferreds fail with `dns.LookupFailed` or `dns.NoSuchDomain`. A name that is not a valid domain
    name does not exist. The result is empty where the name exists without a record of the type.
    """

    def mail_exchangers(self, domain: str) -> Deferred[Sequence[tuple[int, str]]]:
        """Return (preference, host) of all MX records, in any order; empty: there are none.

        A null MX (RFC 7505) is ``(0, "")``.
        """
        ...

    def addresses(self, host: str, *, search: bool = False) -> Deferred[Sequence[str]]:
        """Return the AAAA and A records of a host as text; empty: there are none.

        Args:
            host: a host name.
            search: Whether to look the host up in the domains of the system's search list too.
        """
        ...

    # The same, with what DNSSEC says of them.

    def exchangers(self, domain: str) -> Deferred[Answered[tuple[int, str]]]:
        """Return (preference, host) of all MX records, as `mail_exchangers` does."""
        ...

    def host(self, name: str, *, search: bool = False) -> Deferred[Answered[str]]:
        """Return the AAAA and A records of a host as text, as `addresses` does."""
        ...

    def tlsa(self, domain: str) -> Deferred[Answered[TLSA]]:
        """Return the TLSA records of a domain such as ``_25._tcp.mx.example``, at most 500."""
        ...

    # The records by which strangers prove things about themselves: always those of the DNS itself,
    # never of a hosts file.

    def text(self, domain: str) -> Deferred[Sequence[bytes]]:
        """Return the TXT records of a domain, in any order, at most 500.

        The strings of a record are joined without anything in between, in their order, with their
        octets as they are. All together have less than 64 KiB.
        """
        ...

    def pointers(self, address: str) -> Deferred[Sequence[str]]:
        """Return the names that PTR records give an IP address, in any order, at most 500.

        Args:
            address: IPv4 or IPv6; an IPv4 address in IPv6 form is looked up as IPv4. What is no
                address does not exist.
        """
        ...

    def family_addresses(self, host: str, family: Literal[4, 6]) -> Deferred[Sequence[str]]:
        """Return the A records (4) or the AAAA records (6) of a host as text, at most 500."""
        ...


# Limits that several processes share.

LimitKey = tuple[str, ...]
"""The name of a count: ``("connections", listener)``, ``("peer", listener, address)``,
``("deliveries",)``, ``("hop", next hop)``, …"""


class Limits(Protocol):
    """Counts of things in use, over all processes of one MTA together.

    The caller names the limit with each call, as every process has it in its settings; the latest
    one applies.
    """

    def take(self, key: LimitKey, limit: int) -> bool | Deferred[bool]:
        """Add one to a count if it stays within ``limit``; return whether it did."""
        ...

    def wait(self, key: LimitKey, limit: int) -> Literal[True] | Deferred[bool]:
        """Add one to a count as soon as it stays within ``limit``; the result is True.

        Waiting calls are served in their order. A cancelled Deferred adds nothing.
        """
        ...

    def give_back(self, key: LimitKey) -> None:
        """Subtract one that was added."""
        ...


# The reception of mail.


class Delivery(Protocol):
    """The decisions on one session and its mail; every answer may be a Deferred.

    A Deferred that fails is logged, and the command gets 451 (RFC 5321 §4.2.1), as it does if no
    answer comes in time: then the Deferred is cancelled, as it is if the client goes.
    """

    def client(self, session: Session) -> Decision | Deferred[Decision]:
        """Decide on a client before it is greeted, if the settings have ``decides_on_client``."""
        ...

    def helo(self, session: Session) -> Decision | Deferred[Decision]:
        """Decide on ``session.helo``, if the settings have ``decides_on_helo``."""
        ...

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
        """Return the sink for the content of ``session.transaction``, or a refusal."""
        ...

    def ended(self, session: Session) -> None:
        """Take note that the session has ended; no other method is called for it again."""
        ...


class Sink(Protocol):
    """The destination of one content, written in the reactor's thread."""

    def write(self, content: bytes) -> None:
        """Take the next octets; an exception becomes the reply 451."""
        ...

    def finish(self) -> ContentDecision | Deferred[ContentDecision]:
        """Make the complete content durable, then decide.

        A Deferred may be cancelled (`Delivery`). What cannot be interrupted goes on, and the client
        may send the message again.
        """
        ...

    def abort(self) -> None:
        """Discard the content: the rest of it will not come."""
        ...


class BodyWriter(Protocol):
    """A writer of the body of one message; a large one is never whole in memory."""

    def write(self, content: bytes) -> None:
        """Append ``content``.

        Raises:
            OSError: the disk refused it.
        """
        ...

    def seal(self) -> Body | Deferred[Body]:
        """Finish the body, so that a row of the queue may name it.

        A small body goes into that row; a large one is in a file that is as durable as the disk can
        make it. After a failure with `OSError` nothing of it is left.
        """
        ...

    def open(self) -> IO[bytes]:
        """Return a file with all that was written so far, at its beginning; the caller closes it.

        Raises:
            OSError: the disk refused it.
        """
        ...

    def discard(self) -> None:
        """Remove everything that was written."""
        ...


NewBody = Callable[[QueueId], BodyWriter]
"""Begin the body of a message."""

Expand = Callable[[Mailbox, "Mailbox | None"], "Sequence[FinalRecipient] | Reply"]
"""Return the final recipients of mail for a local mailbox with that reverse-path.

At least one of them gets the mail; otherwise the result is the reply that refuses it. A mailbox
without an alias is its own final recipient.
"""

Take = Callable[
    [Message, "Sequence[Sequence[RecipientNumber]]"], "Deferred[ContentDecision] | Deferred[None]"
]
"""Deliver or queue a received message, and decide on each RCPT.

The second argument has, for each RCPT, the numbers of the recipients that it led to. The decision
is final; None: the whole message is in the queue. The Deferred may fail.
"""


class Refused(Exception):
    """The queue does not accept a message.

    Attributes:
        reply: the reason, ``4yz``.
    """

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


Accept = Callable[[Message], "Deferred[None]"]
"""Take responsibility for a message; fires after the commit, or fails with `Refused`."""

# The delivery of mail.

Route = Callable[[Mailbox], NextHop]
"""Return the next hop of a mailbox, by the routing table alone (without DNS)."""


class NoTarget(Exception):
    """A next hop has no address to connect to.

    Attributes:
        reply: the reason: ``4yz`` for now, ``5yz`` for good.
    """

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class Regrouped(Exception):
    """A look-up has shown that a next hop shares its limits with others, or no longer does.

    Nothing was tried. The mail is to be routed again.
    """


Locate = Callable[[NextHop], "Deferred[Sequence[Target]]"]
"""Return the targets of a next hop, in the order to try them; fails with `NoTarget`."""


class TLSPolicies(Protocol):
    """Decides what TLS the connection to one host must have."""

    def policy(
        self, next_hop: NextHop, target: Target, terms: TLSTerms
    ) -> TLSPolicy | Deferred[TLSPolicy]:
        """Return the policy for a host, which all its addresses share.

        A look-up that fails is a policy with a ``problem``: the host is not used now, and never
        with less TLS than it may have asked for. The Deferred may be canceled.

        Args:
            next_hop: that the host belongs to.
            target: one of the addresses of the host.
            terms: what the configuration, and the message, demand.
        """
        ...


NoteTLSResult = Callable[[TLSResult], None]
"""Take note of a session that was tried, or of a policy that could not be had (RFC 8460)."""

Sign = Callable[[Message], "Message | Deferred[Message]"]
"""Return a message with signatures in front, or as it is where there is nothing to sign with.

It is called for each transaction with a next hop and for each local delivery, after the last other
change of the message. The envelope is that of the transaction. The Deferred may fail: the message
is deferred then.
"""


def unsigned(message: Message) -> Message:
    """Return a message as it is (`Sign`)."""
    return message


Deliver = Callable[[NextHop, Message], "Deferred[Sequence[Outcome]]"]
"""Try one transaction for all recipients in a message's envelope; return an outcome for each.

It fails with `Regrouped` where nothing was tried since the limits of another next hop apply.
"""
