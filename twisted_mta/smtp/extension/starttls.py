"""STARTTLS (RFC 3207 §2): announced without parameters, and never while TLS is active.

The session obeys the verb itself, because it changes the framing. RFC 3207 replaces RFC 2487, with
the same commands and replies.
"""

from __future__ import annotations

from . import Extension
from .views import SessionView


class StartTLSExtension(Extension):
    """STARTTLS, announced only where a handshake could begin now."""

    def announcement(self, session: SessionView) -> str | None:
        """Return the keyword if a certificate is loaded and TLS is not active.

        RFC 3207 §4.2: a server MUST NOT return the STARTTLS extension after a TLS handshake. After
        XCLIENT it is not announced either, because it would be refused.
        """
        if session.tls is not None or session.proxy is not None:
            return None
        if session.tls_ready is None or not session.tls_ready():
            return None
        return self.keyword


STARTTLS = StartTLSExtension("STARTTLS")
