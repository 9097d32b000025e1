"""AUTH (RFC 4954): announced with the mechanisms that may be used here and now.

The session obeys the verb itself, because it changes the framing. The parameter of MAIL names the
original submitter of a message, as the client claims it; the delivery decides whether to believe
that (§5).
"""

from __future__ import annotations

from ...mail.address import AddressError, Mailbox
from ...mail.reply import Reply
from ...mail.xtext import decode_xtext
from ..command import CommandError
from . import Extension
from .views import SessionView

_MALFORMED = Reply.of(501, "5.4", "Syntax: AUTH=<> or AUTH=address, as xtext")
UNKNOWN = "<>"
"""The submitter of a message whose submitter is not known, or not believed (RFC 4954 §5)."""


class AuthExtension(Extension):
    """AUTH, announced only where a mechanism may be used now."""

    def announcement(self, session: SessionView) -> str | None:
        """Return the keyword and the mechanisms; None where there is none."""
        mechanisms = session.mechanisms
        return " ".join((self.keyword, *mechanisms)) if mechanisms else None


def _read(value: str | None) -> str:
    if value is None:
        raise CommandError(_MALFORMED)
    try:
        submitter = decode_xtext(value)
    except UnicodeDecodeError:
        return UNKNOWN
    except ValueError:
        raise CommandError(_MALFORMED) from None
    try:
        return str(Mailbox.parse(submitter))
    except AddressError:
        return UNKNOWN  # Dovecot names the user that has logged in: AUTH=ann


# RFC 4954 §3: the MAIL line may be 500 octets longer.
AUTH = AuthExtension("AUTH", mail={"AUTH": _read}, mail_octets=500)
