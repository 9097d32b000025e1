"""The values that rooms hand on: what goes to whom, by which way, and what came of it.

Pure: nothing here does I/O or knows of a reactor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Literal, NewType, Protocol

from attrs import evolve, field, frozen

from .address import Mailbox
from .reply import Reply

# Crockford's base 32: no I, L, O, U, so an id can be read out over the telephone.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)
_DIGITS = {character: value for value, character in enumerate(_ALPHABET)}
_QUEUE_ID_LENGTH = 13  # 13 x 5 bits hold the 63 bits of a non-negative SQLite integer


class QueueId(int):
    """The id of a queued message: 63 bits, ordered by time of arrival.

    Shown, logged and used as a file name as 13 characters of Crockford's base 32, whose order is
    that of the numbers.
    """

    def __str__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:
        # Once, and ten bits at a time: it is written several times in the life of every message.
        value = int(self)
        return (
            f"{_ALPHABET[value >> 60]}{_PAIRS[value >> 50 & 1023]}{_PAIRS[value >> 40 & 1023]}"
            f"{_PAIRS[value >> 30 & 1023]}{_PAIRS[value >> 20 & 1023]}{_PAIRS[value >> 10 & 1023]}"
            f"{_PAIRS[value & 1023]}"
        )

    __repr__ = __str__

    @classmethod
    def parse(cls, text: str) -> QueueId:
        """Return the id that ``text`` shows, whichever case it is written in.

        Raises:
            ValueError: ``text`` is not 13 digits of Crockford's base 32 below 2**63.
        """
        value = 0
        if len(text) != _QUEUE_ID_LENGTH:
            raise ValueError(f"a queue id has {_QUEUE_ID_LENGTH} characters, not {text!r}")
        for character in text.upper():
            if character not in _DIGITS:
                raise ValueError(f"not a queue id: {text!r}")
            value = value << 5 | _DIGITS[character]
        if value >> 63:
            raise ValueError(f"not a queue id: {text!r}")
        return cls(value)


RecipientNumber = NewType("RecipientNumber", int)
"""The place of a recipient in its envelope, from 0; with the queue id it names one delivery."""

Parameters = Mapping[str, str | int | None]
"""ESMTP parameters by upper-case keyword, as the extension that owns each one read them."""

NO_PARAMETERS: Parameters = {}

Greeting = Literal["HELO", "EHLO", "LHLO"]
"""The command that a client introduced itself with."""


_SHOWN = 200  # characters of one thing that a peer said, in a log line


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


@frozen
class TLSFacts:
    """What a TLS handshake achieved, for the trace field, the log and decisions.

    Attributes:
        version: as RFC 8446 and its forerunners write it: ``TLSv1.3``.
        cipher: OpenSSL's name of the suite: ``TLS_AES_256_GCM_SHA384``.
        bits: the strength of the cipher's key.
        key_exchange: OpenSSL's name of the group that the key was agreed on in: ``x25519``.
        server_name: what the client asked for by SNI, if anything.
        peer_subject: the subject of the peer's certificate (RFC 4514 text), None without one.
        peer_issuer: its issuer, likewise.
        peer_fingerprint: SHA-256 of its DER form, lower-case hex without colons.
        peer_verified: whether its chain led to a certificate authority that we trust.
        peer_problem: why not, in OpenSSL's words, where somebody looked.
    """

    version: str
    cipher: str
    bits: int
    key_exchange: str | None = None
    server_name: str | None = None
    peer_subject: str | None = None
    peer_issuer: str | None = None
    peer_fingerprint: str | None = None
    peer_verified: bool = False
    peer_problem: str | None = None

    @property
    def without_peer(self) -> TLSFacts:
        """The same without the peer's certificate."""
        return evolve(
            self,
            peer_subject=None,
            peer_issuer=None,
            peer_fingerprint=None,
            peer_verified=False,
            peer_problem=None,
        )

    @property
    def description(self) -> str:
        """What a log line says of it: printable, and of bounded length whatever the peer said."""
        words = f"{self.version} {self.cipher}, {self.bits} bits"
        if self.peer_fingerprint is None:
            return words
        # What we found comes first: no name, however it is made up, can then pass for it.
        verdict = f"not verified ({self.peer_problem or 'nobody looked'})"
        subject, issuer = map(_shortened, (self.peer_subject or "none", self.peer_issuer or "none"))
        return (
            f"{words}, client certificate {'verified' if self.peer_verified else verdict}, SHA-256"
            f" {self.peer_fingerprint}, subject {subject}, issuer {issuer}"
        )


@frozen
class Recipient:
    """One forward-path of an envelope, with what the queue knows of it.

    Attributes:
        number: its place in the envelope.
        mailbox: where it is to go.
        parameters: ESMTP parameters of its RCPT command.
        attempts: how many deliveries were tried so far.
        last_reply: what the last attempt got, None before the first.
        last_remote: who said so: ``host[address]:port``, None where it was ourselves.
        original: what the sender wrote, where an alias led from there to ``mailbox``; None where it
            is the same.
        reverse_path: the reverse-path that goes on the wire instead of the envelope's, where mail
            is forwarded in our name (SRS); None: the envelope's. Notices always go to the
            envelope's.
        warned: whether the sender was told that it is delayed.
        aliases: that led from what the sender wrote to ``mailbox``, the first one first. A copy
            that leaves for another host names them (`message.trace.passed`).
    """

    number: RecipientNumber
    mailbox: Mailbox
    parameters: Parameters = NO_PARAMETERS
    attempts: int = 0
    last_reply: Reply | None = None
    last_remote: str | None = None
    original: Mailbox | None = None
    reverse_path: Mailbox | None = None
    warned: bool = False
    aliases: tuple[Mailbox, ...] = ()

    def is_to_notify(self, event: Literal["SUCCESS", "FAILURE", "DELAY"]) -> bool:
        """Whether the sender wants to hear of an event (RFC 3461 §4.1)."""
        asked = self.parameters.get("NOTIFY")
        if not isinstance(asked, str):
            return event != "SUCCESS"
        return event in asked.split(",")


@frozen
class Envelope:
    """What RFC 5321 §2.3.1 calls the envelope.

    Attributes:
        reverse_path: where failures go; None is the null reverse-path, ``<>``.
        recipients: one per accepted RCPT, in their order.
        parameters: ESMTP parameters of MAIL that outlive the session (``BODY``, ``SMTPUTF8``, …).
    """

    reverse_path: Mailbox | None
    recipients: tuple[Recipient, ...]
    parameters: Parameters = NO_PARAMETERS

    @property
    def binary(self) -> bool:
        """Whether the content is octets and not lines, every one to be kept (RFC 3030 §3)."""
        return self.parameters.get("BODY") == "BINARYMIME"

    @property
    def priority(self) -> int:
        """From -9 to 9, the highest first (RFC 6710); 0 is that of every day."""
        return int(self.parameters.get("MT-PRIORITY") or 0)


@frozen
class RefusedRecipient:
    """A recipient that gets nothing of a message that others get, as is known from the start.

    Attributes:
        recipient: see there.
        reply: why.
        owner: who is told instead of the sender; None: the sender.
    """

    recipient: Recipient
    reply: Reply
    owner: Mailbox | None = None


class Body(Protocol):
    """The octets of a message as received; never whole in memory if large.

    Lines are ended by CR LF, but where the envelope is ``binary``: then any octet may be anywhere.
    """

    @property
    def size(self) -> int:
        """Octets."""
        ...

    def chunks(self) -> Iterator[bytes]:
        """Yield the content from its beginning, in pieces of any size but empty.

        Raises:
            OSError: the file that holds it cannot be read.
        """
        ...


@frozen
class HeldBody:
    """A small body, held in memory and stored inside the database."""

    content: bytes

    @property
    def size(self) -> int:
        """Octets."""
        return len(self.content)

    def chunks(self) -> Iterator[bytes]:
        """Yield the content in one piece."""
        if self.content:
            yield self.content


@frozen
class Message:
    """A message in the queue.

    Attributes:
        id: its queue id.
        envelope: sender and recipients. What a lease returns holds only the leased recipients.
        trace: fields that we prepend (Received), complete with CR LF; the body stays as received.
        body: the content as received.
        received_at: wall time of acceptance, seconds since the epoch.
        expires_at: wall time after which a recipient that could not be served is returned.
        expanded: mailboxes of ours that stand for several recipients, and of which the sender wants
            to be told that (RFC 3461 §5.2.7.3). Only as it is accepted: that is when it is told.
        refused: recipients beside those of the envelope, for whom it was not taken; their numbers
            follow those of the envelope. Likewise.
    """

    id: QueueId
    envelope: Envelope
    trace: bytes
    body: Body
    received_at: float
    expires_at: float
    expanded: tuple[Recipient, ...] = ()
    refused: tuple[RefusedRecipient, ...] = ()

    @property
    def released_at(self) -> float:
        """Wall time before which nothing of it is tried: its sender may have it held (RFC 4865)."""
        held = self.envelope.parameters.get("HOLDUNTIL")
        return float(held) if isinstance(held, int) else self.received_at


@frozen(cache_hash=True)
class Host:
    """A host and a port to connect to; ``name`` is a domain or an address without brackets."""

    name: str
    port: int = 25

    def __str__(self) -> str:
        if self.name.startswith("/"):
            return self.name
        name = f"[{self.name}]" if ":" in self.name else self.name
        return f"{name}:{self.port}"


@frozen
class Target:
    """One address to connect to: what a next hop comes to after DNS.

    Attributes:
        name: the host's name, for EHLO checks, SNI and logs; the address itself if it has none.
        address: IPv4 or IPv6, as text; or the path of a UNIX socket, as ``name`` is then.
        port: TCP port.
    """

    name: str
    address: str
    port: int

    def __str__(self) -> str:
        if self.address.startswith("/"):
            return self.address
        return f"{self.name}[{self.address}]:{self.port}"


Transport = Literal["smtp", "lmtp", "maildir", "discard", "error"]


@frozen(cache_hash=True)  # it is looked up by five times for each message
class NextHop:
    """Where a recipient goes next; equal next hops share a transaction and their limits.

    Attributes:
        transport: how it gets there.
        hosts: tried in this order; empty means the mail exchangers of ``domain``. A host whose name
            begins with ``/`` is a UNIX socket, and its port means nothing.
        domain: whose mail exchangers to ask for; empty where ``hosts`` says it.
        reply: what an ``error`` route answers.
        implicit_tls: whether TLS begins with the first octet there (``smtps:``).
        destination: the pattern of the ``[[destination]]`` that says on what terms, where a route
            names the hosts and it is not the same for all: what holds for one domain is not to hold
            up the others that go there. Empty: what holds for all.
        rule: the rule that chose it, for people; says nothing about equality.
    """

    transport: Transport
    hosts: tuple[Host, ...] = ()
    domain: str = ""
    reply: Reply | None = None
    implicit_tls: bool = False
    destination: str = ""
    rule: str = field(default="", eq=False)

    def __str__(self) -> str:
        if self.transport in ("smtp", "lmtp"):
            scheme = "smtps" if self.implicit_tls else self.transport
            return f"{scheme}:" + (",".join(map(str, self.hosts)) or self.domain)
        return self.transport

    @property
    def remote(self) -> bool:
        """Whether another program has to answer."""
        return self.transport in ("smtp", "lmtp")


@frozen
class Outcome:
    """What came of one attempt for one recipient; the first digit of the reply code decides.

    Attributes:
        number: which recipient of the message.
        reply: ``2yz`` delivered, ``4yz`` deferred, ``5yz`` failed. Ours where there was no peer.
        remote: who said so: ``host[address]:port``; None where it was ourselves.
        tls: what protected the transaction, None in clear or where nothing was connected.
        uncertain: the final dot was sent and no answer came: it may have been delivered.
        setup: seconds until a connection was ready for the transaction: names, handshakes; part of
            the time that the attempt took.
        unreachable: this ``4yz`` is about the next hop and not about the message: it could not be
            found, none of its targets could be connected to, or none began a session that is good
            enough (the greeting, EHLO, TLS or AUTH failed or got ``421``). Nothing was said of the
            message, and nothing else would fare better, so the next hop is left alone for a while.
            What is answered to MAIL, RCPT or DATA is about the message, whatever it is.
        transcript: what was said, as far as anybody will want to read it: printable lines, without
            what is secret and without the content. Empty where nobody spoke, and where the
            recipient is not deferred.
        notifies: the next hop knows what the sender wants to hear of (RFC 3461): if it took the
            message, it tells the sender, and we do not.
    """

    number: RecipientNumber
    reply: Reply
    remote: str | None = None
    tls: TLSFacts | None = None
    uncertain: bool = False
    setup: float = 0.0
    unreachable: bool = False
    transcript: str = field(default="", eq=False, repr=False)
    notifies: bool = False

    @property
    def delivered(self) -> bool:
        """Whether the next hop took responsibility."""
        return self.reply.code // 100 == 2

    @property
    def failed(self) -> bool:
        """Whether trying again is no use."""
        return self.reply.code // 100 == 5
