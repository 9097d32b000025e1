"""What a client session waits for, for how long, and the steps that it asks its shell to take."""

from __future__ import annotations

from enum import Enum
from typing import Literal, TypeAlias

from attrs import frozen

from ..envelope import Outcome, TLSFacts
from .reply import Reply

TLSLevel = Literal["none", "may", "encrypt"]
"""What a connection must have: ``may`` goes on in clear where TLS cannot be had (RFC 7435)."""


class Awaited(Enum):
    """What a session waits for; the values are the fields of `Deadlines` that bound the wait."""

    GREETING = "greeting"
    EHLO = "ehlo"
    HELO = "helo"
    STARTTLS = "starttls"
    HANDSHAKE = "handshake"
    RSET = "rset"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "block"
    DOT = "dot"
    NOTHING = "nothing"
    QUIT = "quit"


@frozen
class Deadlines:
    """How long to wait for each thing, in seconds (RFC 5321 §4.5.3.2)."""

    connect: float = 30.0
    greeting: float = 300.0  # §4.5.3.2.1
    ehlo: float = 300.0
    helo: float = 300.0
    starttls: float = 120.0
    handshake: float = 30.0
    rset: float = 300.0
    mail: float = 300.0  # §4.5.3.2.2
    rcpt: float = 300.0  # §4.5.3.2.3
    data: float = 120.0  # §4.5.3.2.4
    block: float = 180.0  # §4.5.3.2.5
    dot: float = 600.0  # §4.5.3.2.6: too short a wait here makes duplicates
    nothing: float = 300.0
    quit: float = 5.0  # nothing hangs on the answer any more
    idle: float = 5.0


@frozen
class Ready:
    """The session is open, under TLS if it could be had: `ClientSession.transact` may be called."""


@frozen
class StartTLS:
    """Begin the handshake now, then call `ClientSession.handshake_completed`."""


@frozen
class SendBody:
    """Write all that `ClientSession.body` yields, at the pace of the connection.

    Attributes:
        size: octets of the content with its trace fields, before dot-stuffing.
    """

    size: int


@frozen
class TransactionDone:
    """The transaction is over; ``outcomes`` are in the order of the envelope, one for each."""

    outcomes: tuple[Outcome, ...]


@frozen
class Unusable:
    """The connection ended and says nothing about the message: another may be tried at once.

    Attributes:
        reply: the peer's, or ours that says what happened.
        remote: who said so; None where the reply is ours.
        tls: what protected the connection.
        clear_retry: the handshake failed where TLS was only wished for: worth one try in clear, on
            a new connection (RFC 3207 §6, RFC 7435 §4).
    """

    reply: Reply
    remote: str | None = None
    tls: TLSFacts | None = None
    clear_retry: bool = False


@frozen
class Close:
    """Close the connection; with ``abort`` at once, without sending what is still buffered."""

    abort: bool = False


Step: TypeAlias = Ready | StartTLS | SendBody | TransactionDone | Unusable | Close
