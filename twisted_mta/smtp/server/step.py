"""What a session asks of its shell, one value for each thing to do (see `session`)."""

from __future__ import annotations

from typing import NamedTuple

from attrs import frozen

from ...mail.address import Mailbox
from ...mail.envelope import Parameters
from ..sasl.evidence import Evidence


class Mail(NamedTuple):
    """Decide on a reverse-path (None: the null one), then `Session.answer`."""

    reverse_path: Mailbox | None
    parameters: Parameters


class Rcpt(NamedTuple):
    """Decide on a forward-path, then `Session.answer`."""

    forward_path: Mailbox
    parameters: Parameters


@frozen
class Open:
    """Get ready for the content of ``session.transaction``, then `Session.answer`."""


class Write(NamedTuple):
    """Take a piece of the content; nothing to answer."""

    content: bytes


@frozen
class Finish:
    """The content is complete: make it safe, then `Session.answer`."""


@frozen
class Abort:
    """The content will not be completed: forget it; nothing to answer."""


class Authenticate(NamedTuple):
    """Judge evidence, then `Session.answer_auth`."""

    evidence: Evidence


@frozen
class StartTLS:
    """Write the output, begin the handshake, then `Session.tls_established`."""


class Violation(NamedTuple):
    """Octets came before their turn: log and count; `Close` follows."""

    verb: str


@frozen
class Downgrade:
    """MAIL came in clear from a peer that is known to speak TLS: sound the alarm (RFC 3207 §6)."""


@frozen
class Represent:
    """`Session.proxy` speaks for `Session.peer` from now on: log it."""


@frozen
class Rest:
    """Many commands were obeyed in one go: let others have their turn; nothing to answer."""


@frozen
class Close:
    """Write the output and close the connection."""


Step = (
    Mail
    | Rcpt
    | Open
    | Write
    | Finish
    | Abort
    | Authenticate
    | StartTLS
    | Violation
    | Downgrade
    | Represent
    | Rest
    | Close
)
