"""REQUIRETLS (RFC 8689): a message goes on only under TLS with a server that proves its name.

The server announces it under TLS alone, since it promises that the message stays protected on its
whole way. The queue keeps the parameter; the delivery opens a connection that meets the demand
(`delivery.terms`), and another host is tried where one does not announce the extension.

The header field ``TLS-Required: No`` is the opposite wish. It is read when a message is accepted,
and kept with the envelope (`mail.envelope.TLS_OPTIONAL`).
"""

from __future__ import annotations

from collections.abc import Iterable

from ...mail.reply import Reply
from ..command import CommandError
from . import Extension
from .outgoing import OutgoingExtension
from .views import OutgoingView, SessionView

# RFC 8689 §2: the option MUST only be given in a session that employs TLS.
NEEDS_TLS = Reply.of(530, "7.10", "REQUIRETLS needs TLS: must issue a STARTTLS command first")


def _read(value: str | None) -> None:
    if value is not None:  # RFC 8689 §2
        raise CommandError(Reply.of(501, "5.4", "Syntax: REQUIRETLS (it has no value)"))


class RequireTLSExtension(Extension):
    """REQUIRETLS, announced only under TLS."""

    def announcement(self, session: SessionView) -> str | None:
        """Return the keyword under TLS (RFC 8689 §2); None in clear."""
        return None if session.tls is None else self.keyword


# RFC 8689 §2: the MAIL line may be 11 octets longer.
REQUIRETLS = RequireTLSExtension("REQUIRETLS", mail={"REQUIRETLS": _read}, mail_octets=11)


class OutgoingRequireTLS(OutgoingExtension):
    """The parameter, given to servers with REQUIRETLS; other servers do not get the message.

    A notice goes to them all the same, without the parameter (`delivery.adaptation`).
    """

    keyword = "REQUIRETLS"

    def refusal(self, transaction: OutgoingView, announced: str | None) -> Reply | None:
        """Fail a message with REQUIRETLS where the server lacks it (RFC 8689 §4.2.1)."""
        if announced is not None or not transaction.message.envelope.requires_tls:
            return None
        return not_announced(transaction.remote)

    def mail(self, transaction: OutgoingView, announced: str) -> Iterable[str]:
        """Return ``REQUIRETLS`` where the message came with it."""
        return ("REQUIRETLS",) if transaction.message.envelope.requires_tls else ()


REQUIRETLS_OUT = OutgoingRequireTLS()


def not_announced(remote: str) -> Reply:
    """Return the reply about a message with REQUIRETLS and a server without (RFC 8689 §4.2.1)."""
    return Reply.of(550, "7.30", f"REQUIRETLS support required, and {remote} does not offer it")


def unprotected(reason: str) -> Reply:
    """Return the reply about a message with REQUIRETLS where TLS is not good enough (§4.2.1).

    Args:
        reason: names the server, or the next hop.
    """
    return Reply.of(550, "7.10", f"encryption needed (REQUIRETLS of the message): {reason}")
