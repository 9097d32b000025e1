"""HELP (RFC 5321 §4.1.1.8): which verbs may be said."""

from __future__ import annotations

from ...mail.reply import Reply
from .settings import SessionSettings

_ORDER = (
    *("LHLO", "EHLO", "HELO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "BDAT"),
    *("RSET", "NOOP", "VRFY", "HELP", "QUIT"),
)


def help_reply(settings: SessionSettings, *, tls: bool) -> Reply:
    """Return the reply to HELP.

    Args:
        settings: of the session.
        tls: whether STARTTLS is configured.
    """
    known = [verb for row in settings.dialect.transitions.values() for verb in row]
    off = {"BDAT": not settings.chunking, "STARTTLS": not tls, "AUTH": not settings.auth}
    own = (verb for verb in _ORDER if verb in known and not off.get(verb))
    verbs = " ".join(dict.fromkeys((*own, *settings.commands)))
    return Reply.of(214, "0.0", f"Commands: {verbs} (RFC 5321)")
