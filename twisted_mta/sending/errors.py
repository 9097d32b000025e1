"""The errors of `sendmail`: why no transaction began, by the stage that was reached."""

from __future__ import annotations

from collections.abc import Mapping

from ..mail.next_hop import Target
from ..mail.printable import printable
from ..mail.reply import Reply
from ..mail.tls_facts import TLSFacts
from ..smtp.client.step import Stage, Unusable


class SendError(Exception):
    """No transaction began: no server has seen the message.

    The text is one printable line with the reason of each address that was tried.

    Attributes:
        reply: the reply of the server, or our own where it had none.
        server: the server, ``host[address]:port``, where the reply is its own; else None.
        tls: the TLS session with it, and its certificate; None: there was none.
    """

    def __init__(
        self, text: str, reply: Reply, server: str | None = None, tls: TLSFacts | None = None
    ) -> None:
        super().__init__(text)
        self.reply = reply
        self.server = server
        self.tls = tls


class ConnectionFailed(SendError):
    """The host has no address, or none of its addresses could be connected to."""


class SessionRefused(SendError):
    """The server refused the session, or the connection ended, before any transaction."""


class TLSFailed(SendError):
    """There is no TLS, or the certificate of the server is not verified; the text names it."""


class AuthFailed(SendError):
    """The server refused the user name and password, or offers no AUTH that can be used."""


_ERRORS: Mapping[Stage, type[SendError]] = {
    "connection": ConnectionFailed,
    "session": SessionRefused,
    "tls": TLSFailed,
    "auth": AuthFailed,
}
"""The errors by stage, in the order in which a session reaches the stages."""


def error_of(failures: Mapping[Target, Unusable]) -> SendError:
    """Return the error for the failures of all targets, at least one.

    Its class is that of the target that came furthest.
    """
    stages = list(_ERRORS)
    furthest = max(failures.values(), key=lambda failure: stages.index(failure.stage))
    text = "; ".join(_described(target, failure) for target, failure in failures.items())
    return _ERRORS[furthest.stage](text, furthest.reply, furthest.remote, furthest.tls)


def _described(target: Target, failure: Unusable) -> str:
    text = printable(failure.reply.text)  # our own replies begin with the target
    if failure.remote is not None:
        text = f"{target}: {failure.reply}"
    facts = failure.tls
    if failure.stage == "tls" and facts is not None and facts.peer_fingerprint is not None:
        text += f" ({facts.peer_certificate})"
    return text
