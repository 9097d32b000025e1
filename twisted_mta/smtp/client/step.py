"""What a client session waits for, for how long, and the steps that it asks its shell to take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from attrs import frozen

from ...mail.outcome import Outcome
from ...mail.reply import Reply
from ...mail.tls_facts import TLSFacts

Dialect = Literal["smtp", "lmtp"]

TLSLevel = Literal["none", "may", "encrypt", "verify"]
"""What a connection must have: ``may`` goes on in clear where TLS cannot be had (RFC 7435);
``verify`` asks for a certificate that proves the next hop's name, which is for the shell to see."""


@frozen
class Ready:
    """The session is open, under TLS if it could be had: `ClientSession.transact` may be called."""


@frozen
class StartTLS:
    """Begin the handshake now, then call `ClientSession.handshake_completed`."""


@frozen
class Derive:
    """Make the response to a challenge, then call `ClientSession.derived` with it.

    Attributes:
        respond: makes it; blocks for up to 0.2 s, and belongs into a thread.
    """

    respond: Callable[[], bytes]


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
class NeedsConversion:
    """The server does not take the content as it is; nothing was said, and the session is idle.

    With a content of 7 bits, and an envelope that says so, `ClientSession.transact` may be called
    once more.

    Attributes:
        reply: what the recipients get if the content cannot be converted.
    """

    reply: Reply


@frozen
class Unusable:
    """The connection ended and says nothing about the message: another may be tried at once.

    Attributes:
        reply: the peer's, or ours that says what happened.
        remote: who said so; None where the reply is ours.
        tls: what protected the connection.
        clear_retry: the handshake failed where TLS was only wished for: worth one try in clear, on
            a new connection (RFC 3207 §6, RFC 7435 §4).
        credentials_refused: the server does not know us by our credentials, or they cannot be used
            with it: for the operator to mend, since no other host will do better.
    """

    reply: Reply
    remote: str | None = None
    tls: TLSFacts | None = None
    clear_retry: bool = False
    credentials_refused: bool = False


@frozen
class Close:
    """Close the connection; with ``abort`` at once, without sending what is still buffered."""

    abort: bool = False


Step: TypeAlias = (
    Ready | StartTLS | Derive | SendBody | TransactionDone | NeedsConversion | Unusable | Close
)
