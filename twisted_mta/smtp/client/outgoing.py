"""One message on its way out: what is said for it, what goes over the wire, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from attrs import Factory, define, field

from ...mail.envelope import Recipient
from ...mail.message import Message
from ...mail.outcome import Outcome
from ...mail.reply import Reply
from ...mail.tls_facts import TLSFacts
from ..extension.outgoing import OutgoingExtension
from ..extension.standard import OUTGOING

PIECE = 65_536
"""Octets of content that are dot-stuffed and handed on at a time."""


class DotStuffer:
    """Makes a content transparent for DATA (RFC 5321 §4.5.2), wherever it is cut into chunks."""

    def __init__(self) -> None:
        self._tail = b"\r\n"  # the last octets of the stream, as far as they matter

    def feed(self, chunk: bytes) -> bytes:
        """Return the octets to send for the next ``chunk`` of the content."""
        if not chunk:
            return chunk
        stuffed = chunk.replace(b"\r\n.", b"\r\n..")
        if self._tail == b"\r\n":
            if chunk[0] == 0x2E:
                stuffed = b"." + stuffed
        elif self._tail == b"\r" and chunk.startswith(b"\n."):
            stuffed = b"\n." + stuffed[1:]
        if chunk.endswith(b"\r\n") or (chunk == b"\n" and self._tail == b"\r"):
            self._tail = b"\r\n"
        else:
            self._tail = chunk[-1:]
        return stuffed

    def end(self) -> bytes:
        """Return what ends the content: the final dot, on a line of its own."""
        return b".\r\n" if self._tail == b"\r\n" else b"\r\n.\r\n"


def stuffed(message: Message) -> Iterator[bytes]:
    """Yield the content of ``message`` with its trace fields, dot-stuffed; last the final dot.

    Raises:
        OSError: the content cannot be read.
    """
    stuffer = DotStuffer()
    for piece in _pieces(message):
        yield stuffer.feed(piece)
    yield stuffer.end()


def chunked(message: Message) -> Iterator[bytes]:
    """Yield the content of ``message`` with its trace fields as one chunk behind its BDAT command.

    RFC 3030 §2. No octet is added or changed.

    Raises:
        OSError: the content cannot be read, or its length is not what it was said to be. The peer
            counts: it would take what we say next for content, or content for what we say next. So
            that is found out before the last piece is handed out, and never more than was said is.
    """
    left = _size(message)
    command = b"BDAT %d LAST\r\n" % left
    for piece in _pieces(message):
        left -= len(piece)
        if left < 0:
            break
        yield command + piece
        command = b""
    if left:
        raise OSError("it has not the length that it had")
    if command:
        yield command


def _pieces(message: Message) -> Iterator[bytes]:
    if message.trace:
        yield message.trace
    for chunk in message.body.chunks():
        if len(chunk) <= PIECE:
            yield chunk
        else:
            for start in range(0, len(chunk), PIECE):
                yield chunk[start : start + PIECE]


def _size(message: Message) -> int:
    return len(message.trace) + message.body.size


@define(eq=False)
class OutgoingTransaction:
    """One transaction and what is known of each of its recipients.

    Attributes:
        message: what is sent.
        remote: the peer, as outcomes name it.
        capabilities: what it announced: parameters by upper-case keyword.
        extensions: what may be said for the message.
        offered: the places in the envelope of the recipients that the peer is asked for.
        asked: how many of them have their reply to RCPT.
        taken: the places of those that the peer took.
        answers: how many of those had a reply of their own to the content (RFC 2033 §4.2).
        answered: whether the peer said anything about this transaction yet.
        dot_sent: whether the final dot, or the end of the last chunk, may be on its way.
    """

    message: Message
    remote: str
    capabilities: Mapping[str, str]
    extensions: Sequence[OutgoingExtension] = OUTGOING
    offered: list[int] = Factory(list)
    asked: int = 0
    taken: list[int] = Factory(list)
    answers: int = 0
    answered: bool = False
    dot_sent: bool = False
    _settled: dict[int, tuple[Reply, str | None, bool]] = field(factory=dict, init=False)

    @property
    def size(self) -> int:
        """Octets of the content with its trace fields, as SIZE counts them (RFC 1870 §3)."""
        return _size(self.message)

    @property
    def binary(self) -> bool:
        """Whether the content goes by BDAT (RFC 3030 §3); all other content goes by DATA."""
        return self.message.envelope.binary

    @property
    def delivered(self) -> bool:
        """Whether all that were taken were delivered."""
        return all(self._settled[place][0].code < 300 for place in self.taken)

    def settle(
        self, places: Iterable[int], reply: Reply, *, ours: bool = False, uncertain: bool = False
    ) -> None:
        """Give the recipients at ``places`` their final reply, unless they have one."""
        remote = None if ours else self.remote
        for place in places:
            self._settled.setdefault(place, (reply, remote, uncertain))

    def is_settled(self, place: int) -> bool:
        """Whether the recipient at ``place`` has its final reply."""
        return place in self._settled

    def outcomes(self, tls: TLSFacts | None) -> tuple[Outcome, ...]:
        """Return an outcome for each recipient; all of them are settled.

        Args:
            tls: what protected the transaction.
        """
        settled = self._settled
        notifies = "DSN" in self.capabilities
        outcomes = []
        for place, recipient in enumerate(self.message.envelope.recipients):
            reply, remote, uncertain = settled[place]
            outcomes.append(
                Outcome(recipient.number, reply, remote, tls, uncertain, notifies=notifies)
            )
        return tuple(outcomes)

    def offer(self) -> None:
        """Fill `offered`; settle the recipients that the peer cannot take, going by its EHLO."""
        everyone = range(len(self.message.envelope.recipients))
        refusal = self._refusal(converted=False) or self._refusal(converted=True)
        if refusal is not None:
            self.settle(everyone, refusal, ours=True)
            return
        for place, recipient in enumerate(self.message.envelope.recipients):
            refusal = self._recipient_refusal(recipient)
            if refusal is None:
                self.offered.append(place)
            else:
                self.settle([place], refusal, ours=True)

    def needs_conversion(self) -> Reply | None:
        """Return what everyone gets unless the content is converted; None: that would not help."""
        if self._refusal(converted=False) is not None:
            return None
        return self._refusal(converted=True)

    def _refusal(self, *, converted: bool) -> Reply | None:
        for extension in self.extensions:
            if extension.converts is converted:
                refusal = extension.refusal(self, self.capabilities.get(extension.keyword))
                if refusal is not None:
                    return refusal
        return None

    def _recipient_refusal(self, recipient: Recipient) -> Reply | None:
        for extension in self.extensions:
            announced = self.capabilities.get(extension.keyword)
            refusal = extension.recipient_refusal(self, recipient, announced)
            if refusal is not None:
                return refusal
        return None

    def mail(self) -> bytes:
        """Return the MAIL command with the parameters that the peer knows."""
        words = [f"MAIL FROM:<{self.message.envelope.reverse_path or ''}>"]
        for extension in self.extensions:
            announced = self.capabilities.get(extension.keyword)
            if announced is not None:
                words.extend(extension.mail(self, announced))
        return f"{' '.join(words)}\r\n".encode()

    def rcpt(self, place: int) -> bytes:
        """Return the RCPT command for the recipient at ``place``."""
        recipient = self.message.envelope.recipients[place]
        words = [f"RCPT TO:<{recipient.mailbox}>"]
        for extension in self.extensions:
            announced = self.capabilities.get(extension.keyword)
            if announced is not None:
                words.extend(extension.rcpt(self, recipient, announced))
        return f"{' '.join(words)}\r\n".encode()
