"""The steps that a client session asks its shell to take (see `session`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from attrs import frozen

from ...mail.outcome import Outcome
from ...mail.reply import Reply
from ...mail.tls_facts import TLSFacts

Dialect = Literal["smtp", "lmtp"]

Stage = Literal["connection", "session", "tls", "auth"]
"""The stage at which a server failed us before any transaction: connecting, its greeting or reply
to EHLO, TLS, or AUTH."""


@frozen
class Ready:
    """The session is open, under TLS if offered: `ClientSession.transact` may be called."""


@frozen
class StartTLS:
    """Do the TLS handshake now, then call `ClientSession.handshake_completed`."""


@frozen
class Derive:
    """Compute the response to a challenge, then call `ClientSession.derived` with it.

    Attributes:
        respond: returns the response; blocks for up to 0.2 s, so call it in a thread.
    """

    respond: Callable[[], bytes]


@frozen
class SendBody:
    """Write all octets that `ClientSession.body` yields, as fast as the connection takes them.

    Attributes:
        size: octets of the content with its trace fields, before dot-stuffing.
    """

    size: int


@frozen
class TransactionDone:
    """The transaction has ended; ``outcomes`` has one for each recipient, in their order."""

    outcomes: tuple[Outcome, ...]


@frozen
class Unusable:
    """The connection ended without a reply about the message: another may be tried at once.

    Attributes:
        reply: the server's, or our own about the end of the connection.
        remote: the server if the reply is its own; None if the reply is ours.
        tls: what the TLS handshake achieved; None in clear.
        clear_retry: whether STARTTLS was of no use where TLS is opportunistic: then one attempt in
            clear, on a new connection, is worthwhile (RFC 3207 §6, RFC 7435 §4).
        tls_missing: whether TLS was wanted and not achieved.
        temporary: whether a ``5yz`` of the server counts as temporary: it is about the session,
            our account or TLS, and not about the message.
        credentials_refused: whether the server refused our credentials, or cannot use them: a
            matter for the operator, and no other host will do better.
        stage: what had been reached.
    """

    reply: Reply
    remote: str | None = None
    tls: TLSFacts | None = None
    clear_retry: bool = False
    credentials_refused: bool = False
    tls_missing: bool = False
    temporary: bool = False
    stage: Stage = "session"


@frozen
class Close:
    """Close the connection; with ``abort`` at once, without sending octets still buffered."""

    abort: bool = False


Step: TypeAlias = Ready | StartTLS | Derive | SendBody | TransactionDone | Unusable | Close
