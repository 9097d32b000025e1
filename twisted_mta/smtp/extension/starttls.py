"""STARTTLS (RFC 3207 §2, §3): announced without parameter, never while TLS is active.

Its verb is in the session, because what it does, it does to the framing.
"""

from __future__ import annotations

from . import Extension
from .views import SessionView


class StartTLSExtension(Extension):
    """Announced only where the handshake could begin now."""

    def announcement(self, session: SessionView) -> str | None:
        """Return the keyword if a certificate is loaded and TLS is not active (RFC 3207 §4.2).

        A proxy that speaks for another client has had its chance: see `Session.represent`.
        """
        if session.tls is not None or session.proxy is not None:
            return None
        if session.tls_ready is None or not session.tls_ready():
            return None
        return self.keyword


STARTTLS = StartTLSExtension("STARTTLS")
