"""The steps that a server session asks its shell to take (see `session`)."""

from __future__ import annotations

from typing import NamedTuple

from attrs import frozen

from ...mail.address import Mailbox
from ...mail.envelope import Parameters
from ..command import Greeting
from ..sasl.evidence import Evidence


class Hello(NamedTuple):
    """Decide on `Session.helo`, the name in a greeting, then call `Session.answer`.

    Attributes:
        greeting: the verb that was in force before; None: none.
        helo: the name that was.
    """

    greeting: Greeting | None
    helo: str


class Mail(NamedTuple):
    """Decide on a reverse-path (None: the null reverse-path), then call `Session.answer`."""

    reverse_path: Mailbox | None
    parameters: Parameters


class Rcpt(NamedTuple):
    """Decide on a forward-path, then call `Session.answer`."""

    forward_path: Mailbox
    parameters: Parameters


@frozen
class Open:
    """Open the content of `Session.transaction`, then call `Session.answer`."""


class Write(NamedTuple):
    """Write a piece of the content; no answer."""

    content: bytes


@frozen
class Finish:
    """Make the complete content durable, then call `Session.answer`."""


@frozen
class Abort:
    """Give up the content, which will not be completed; no answer."""


class Authenticate(NamedTuple):
    """Judge evidence, then call `Session.answer_auth`."""

    evidence: Evidence


@frozen
class StartTLS:
    """Write the output, do the TLS handshake, then call `Session.tls_established`."""


class Violation(NamedTuple):
    """Log and count octets that came too early after ``verb`` (RFC 2920 §3.1); `Close` follows."""

    verb: str


@frozen
class Downgrade:
    """Raise an alarm: MAIL in clear, from a peer that is known to use TLS (RFC 3207 §6)."""


@frozen
class Represent:
    """Log that `Session.proxy` speaks for `Session.peer` from now on."""


@frozen
class Rest:
    """Give other connections a turn: many commands were obeyed at once; no answer."""


@frozen
class Close:
    """Write the output and close the connection."""


Question = Hello | Mail | Rcpt | Open | Finish | Authenticate
"""A step that an answer is waited for."""

Step = (
    Hello
    | Mail
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
