"""One message on its way out: what is said for it, what goes over the wire, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from attrs import Factory, define, field

from ..envelope import Message, Outcome, TLSFacts
from .reply import Reply

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
        offered: the places in the envelope of the recipients that the peer is asked for.
        asked: how many of them have their reply to RCPT.
        taken: the places of those that the peer took.
        answers: how many of those had a reply of their own to the content (RFC 2033 §4.2).
        answered: whether the peer said anything about this transaction yet.
        dot_sent: whether the final dot, or the end of the last chunk, may be on its way.
    """

    message: Message
    remote: str
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
        outcomes = []
        for place, recipient in enumerate(self.message.envelope.recipients):
            reply, remote, uncertain = settled[place]
            outcomes.append(Outcome(recipient.number, reply, remote, tls, uncertain))
        return tuple(outcomes)

    def offer(self, capabilities: Mapping[str, str], size_limit: int) -> None:
        """Fill `offered`; settle the recipients that the peer cannot take, going by its EHLO.

        Args:
            capabilities: by upper-case keyword.
            size_limit: octets, 0: none is known.
        """
        everyone = range(len(self.message.envelope.recipients))
        refusal = self._refusal(capabilities, size_limit) or self._unconverted(capabilities)
        if refusal is not None:
            self.settle(everyone, refusal, ours=True)
            return
        utf8 = "SMTPUTF8" in capabilities
        for place, recipient in enumerate(self.message.envelope.recipients):
            if utf8 or recipient.mailbox.is_ascii:
                self.offered.append(place)
            else:
                self.settle([place], self._needs_utf8(), ours=True)

    def needs_conversion(self, capabilities: Mapping[str, str], size_limit: int) -> Reply | None:
        """Return what everyone gets unless the content is converted; None: that would not help.

        Args:
            capabilities: by upper-case keyword.
            size_limit: octets, 0: none is known.
        """
        if self._refusal(capabilities, size_limit) is not None:
            return None
        return self._unconverted(capabilities)

    def _refusal(self, capabilities: Mapping[str, str], size_limit: int) -> Reply | None:
        if 0 < size_limit < self.size:  # RFC 1870 §6.1
            return Reply.of(
                552, "3.4", f"{self.remote} takes {size_limit} octets, the message has {self.size}"
            )
        envelope = self.message.envelope
        reverse_path = envelope.reverse_path
        if "SMTPUTF8" not in capabilities and (
            "SMTPUTF8" in envelope.parameters or not (reverse_path is None or reverse_path.is_ascii)
        ):
            return self._needs_utf8()
        return None

    def _unconverted(self, capabilities: Mapping[str, str]) -> Reply | None:
        if self.binary and not ("CHUNKING" in capabilities and "BINARYMIME" in capabilities):
            text = "takes no binary content (CHUNKING and BINARYMIME), and it is not converted"
            return Reply.of(554, "6.3", f"{self.remote} {text}")  # RFC 3030 §3
        body = self.message.envelope.parameters.get("BODY")
        if body == "8BITMIME" and "8BITMIME" not in capabilities:
            text = "takes no content of 8 bits, and it is not converted"
            return Reply.of(554, "6.3", f"{self.remote} {text}")  # RFC 6152 §3
        return None

    def _needs_utf8(self) -> Reply:
        return Reply.of(553, "6.7", f"{self.remote} does not offer SMTPUTF8")  # RFC 6531 §3.5

    def mail(self, capabilities: Mapping[str, str]) -> bytes:
        """Return the MAIL command with the parameters that the peer knows."""
        # todo RFC 3461 §4: pass on RET, ENVID, NOTIFY and ORCPT.
        envelope = self.message.envelope
        line = f"MAIL FROM:<{envelope.reverse_path or ''}>"
        if "SMTPUTF8" in capabilities and (
            "SMTPUTF8" in envelope.parameters
            or not line.isascii()
            or not all(recipient.mailbox.is_ascii for recipient in envelope.recipients)
        ):
            line += " SMTPUTF8"  # RFC 6531 §3.4
        if "SIZE" in capabilities:
            line += f" SIZE={self.size}"
        body = envelope.parameters.get("BODY")
        if body in ("8BITMIME", "BINARYMIME"):
            line += f" BODY={body}"
        return f"{line}\r\n".encode()

    def rcpt(self, place: int) -> bytes:
        """Return the RCPT command for the recipient at ``place``."""
        return f"RCPT TO:<{self.message.envelope.recipients[place].mailbox}>\r\n".encode()
