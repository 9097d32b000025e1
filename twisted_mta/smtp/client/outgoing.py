"""A transaction of a client session: its commands, its content on the wire, its outcomes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import cast

from attrs import Factory, define, field

from ...mail.body import DotlessFile, MemoryBody
from ...mail.message import Message
from ...mail.outcome import Outcome
from ...mail.reply import Reply
from ...mail.tls_facts import TLSFacts
from .agreement import Agreement

Piece = bytes | DotlessFile
"""A piece of content for the wire; a file goes there whole, as it is."""

PIECE = 65_536
"""Octets of content that are dot-stuffed and handed on at a time."""


_FINAL_DOT = b".\r\n"


class DotStuffer:
    """The dot-stuffing of content for DATA (RFC 5321 §4.5.2), wherever it is split."""

    def __init__(self) -> None:
        self._tail = b"\r\n"  # the last two octets so far, if they are CR LF; else the last one

    def feed(self, chunk: bytes) -> bytes:
        """Return the octets to send for the next ``chunk`` of the content."""
        if not chunk:
            return chunk
        stuffed = chunk.replace(b"\r\n.", b"\r\n..")
        if self._tail == b"\r\n":
            if chunk.startswith(b"."):
                stuffed = b"." + stuffed
        elif self._tail == b"\r" and chunk.startswith(b"\n."):
            stuffed = b"\n." + stuffed[1:]
        if chunk.endswith(b"\r\n") or (chunk == b"\n" and self._tail == b"\r"):
            self._tail = b"\r\n"
        else:
            self._tail = chunk[-1:]
        return stuffed

    def end(self) -> bytes:
        """Return the end of the content: the final dot, on a line of its own."""
        return _FINAL_DOT if self._tail == b"\r\n" else b"\r\n" + _FINAL_DOT


def stuffed(message: Message, *, files: bool = False) -> Iterator[Piece]:
    """Yield the content of ``message`` with its trace fields, dot-stuffed; last the final dot.

    Args:
        message: the message.
        files: whether a body without dots to stuff is yielded as a file.

    Raises:
        OSError: the content cannot be read.
    """
    body, trace = message.body, message.trace
    stuffer = DotStuffer()
    if isinstance(body, DotlessFile) and (trace.endswith(b"\r\n") or not trace):
        yield stuffer.feed(trace)
        if files and body.is_sent_from_file:
            yield body
        else:
            yield from body.chunks()
        yield _FINAL_DOT
        return
    for piece in _pieces(message):
        yield stuffer.feed(piece)
    yield stuffer.end()


def in_one_piece(message: Message) -> bytes:
    """Return what `stuffed` yields, for a small content.

    Raises:
        OSError: the content cannot be read.
    """
    body = message.body
    if isinstance(body, MemoryBody):
        stuffer = DotStuffer()
        return stuffer.feed(message.trace + body.content) + stuffer.end()
    pieces = cast("Iterator[bytes]", stuffed(message))  # no files
    return b"".join(pieces)


def chunked(message: Message) -> Iterator[bytes]:
    """Yield the content of ``message`` with its trace fields as one chunk behind its BDAT command.

    RFC 3030 §2. No octet is added or changed.

    Raises:
        OSError: the content cannot be read, or its length has changed. The server counts octets:
            it would take our next command for content, or content for commands. So the length is
            checked before the last piece is yielded, and never more octets than announced are.
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
        raise OSError("its length has changed")
    if command:
        yield command


def _pieces(message: Message) -> Iterator[bytes]:
    body = message.body
    if isinstance(body, MemoryBody) and body.size <= PIECE:
        yield message.trace + body.content
        return
    if message.trace:
        yield message.trace
    for chunk in body.chunks():
        if len(chunk) <= PIECE:
            yield chunk
        else:
            for start in range(0, len(chunk), PIECE):
                yield chunk[start : start + PIECE]


def _size(message: Message) -> int:
    return len(message.trace) + message.body.size


@define(eq=False)
class OutgoingTransaction:
    """One transaction, and the final reply of each recipient.

    A *place* is the index of a recipient in the envelope.

    Attributes:
        message: the message to send.
        remote: the server, as outcomes name it.
        agreement: the extensions that may be used with the server.
        offered: the places of the recipients for which RCPT is sent.
        replied: how many of these have their reply to RCPT.
        accepted: the places of those that the server accepted.
        answers: how many of these have a reply of their own to the content (RFC 2033 §4.2).
        answered: whether the server has replied to MAIL.
        dot_sent: whether the final dot, or the end of the last chunk, may have been sent.
        setup: see `Outcome`.
        source: likewise.
        held: the piece of the content that was read last: it is not written until it is known
            whether it ends the content.
        binary: whether the content goes by BDAT (RFC 3030 §3); all other content goes by DATA.
    """

    message: Message
    remote: str
    agreement: Agreement
    offered: list[int] = Factory(list)
    replied: int = 0
    accepted: list[int] = Factory(list)
    answers: int = 0
    answered: bool = False
    dot_sent: bool = False
    setup: float = 0.0
    source: str | None = None
    held: Piece = b""
    binary: bool = field(init=False)
    _fits: bool = field(default=False, init=False)  # whether no extension asks for a conversion
    _octets: int | None = field(default=None, init=False)
    _settled: dict[int, tuple[Reply, str | None, bool, bool]] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.binary = self.message.envelope.binary

    @property
    def capabilities(self) -> Mapping[str, str]:
        """What the server announced: parameters by upper-case keyword."""
        return self.agreement.capabilities

    @property
    def size(self) -> int:
        """Octets of the content with its trace fields, as SIZE counts them (RFC 1870 §3)."""
        if self._octets is None:
            self._octets = _size(self.message)
        return self._octets

    @property
    def delivered(self) -> bool:
        """Whether the content was accepted for every accepted recipient."""
        return all(self._settled[place][0].code < 300 for place in self.accepted)

    def settle(
        self,
        places: Iterable[int],
        reply: Reply,
        *,
        ours: bool = False,
        uncertain: bool = False,
        temporary: bool = False,
    ) -> None:
        """Give the recipients at ``places`` their final reply, unless they have one.

        Args:
            places: of the recipients.
            reply: the final reply.
            ours: whether the reply is our own, and not the server's.
            uncertain: whether the server may have accepted the message all the same.
            temporary: whether a ``5yz`` counts as temporary.
        """
        remote = None if ours else self.remote
        for place in places:
            self._settled.setdefault(place, (reply, remote, uncertain, temporary))

    def is_settled(self, place: int) -> bool:
        """Whether the recipient at ``place`` has its final reply."""
        return place in self._settled

    def outcomes(self, tls: TLSFacts | None) -> tuple[Outcome, ...]:
        """Return the outcome for each recipient, when all are settled.

        Args:
            tls: what the TLS handshake achieved; None in clear.
        """
        settled = self._settled
        notifies = self.agreement.notifies
        outcomes = []
        for place, recipient in enumerate(self.message.envelope.recipients):
            reply, remote, uncertain, temporary = settled[place]
            outcomes.append(
                Outcome(
                    recipient.number,
                    reply,
                    remote,
                    tls,
                    uncertain,
                    self.setup,
                    notifies=notifies,
                    temporary=temporary,
                    source=self.source,
                )
            )
        return tuple(outcomes)

    def offer(self) -> None:
        """Fill `offered`; settle the recipients that the server cannot take, going by its EHLO."""
        refusal = self._refusal(converted=False) or self._refusal(converted=True)
        recipients = self.message.envelope.recipients
        if refusal is not None:
            self.settle(range(len(recipients)), refusal, ours=True)
            return
        for place, recipient in enumerate(recipients):
            refusal = self.agreement.recipient_refusal(self, recipient)
            if refusal is None:
                self.offered.append(place)
            else:
                self.settle([place], refusal, ours=True)

    def needs_conversion(self) -> bool:
        """Whether all recipients fail unless the content is converted, and would not fail then."""
        self._fits = self._refusal(converted=True) is None
        return not self._fits and self._refusal(converted=False) is None

    def _refusal(self, *, converted: bool) -> Reply | None:
        if converted and self._fits:
            return None
        return self.agreement.refusal(self, converted=converted)

    def mail(self) -> bytes:
        """Return the MAIL command, with parameters of extensions that the server announced."""
        return self.agreement.mail(self)

    def rcpt(self, place: int) -> bytes:
        """Return the RCPT command for the recipient at ``place``."""
        return self.agreement.rcpt(self, self.message.envelope.recipients[place])
