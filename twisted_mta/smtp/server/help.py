"""The reply to HELP (RFC 5321 §4.1.1.8): the verbs that this session obeys."""

from __future__ import annotations

from ...mail.reply import Reply
from .machine import Event
from .settings import SessionSettings

_ORDER = (
    *(Event.LHLO, Event.EHLO, Event.HELO, Event.STARTTLS, Event.AUTH, Event.MAIL, Event.RCPT),
    *(Event.DATA, Event.BDAT, Event.RSET, Event.NOOP, Event.VRFY, Event.HELP, Event.QUIT),
)


def help_reply(settings: SessionSettings, *, tls: bool) -> Reply:
    """Return the reply to HELP.

    Args:
        settings: of the session.
        tls: whether STARTTLS is configured.
    """
    known = [event for row in settings.dialect.transitions.values() for event in row]
    off = {
        Event.BDAT: not settings.chunking,
        Event.STARTTLS: not tls,
        Event.AUTH: not settings.auth,
    }
    own = (verb for verb in _ORDER if verb in known and not off.get(verb))
    verbs = " ".join(dict.fromkeys((*own, *settings.commands)))
    return Reply.of(214, "0.0", f"Commands: {verbs} (RFC 5321)")
