"""The reply to a command that is not obeyed, because of the state, TLS, or the settings."""

from __future__ import annotations

from ...mail.reply import Reply
from ..command import UNKNOWN_COMMAND
from . import replies
from .machine import NOT_OFFERED, State
from .settings import SessionSettings


def why_not(
    verb: str, *, state: State, in_clear: bool, settings: SessionSettings, own: bool
) -> Reply:
    """Return the reply to a command that is not allowed here and now.

    Args:
        verb: in upper case.
        state: of the session.
        in_clear: whether the session is without TLS.
        settings: of the session.
        own: whether sessions obey the verb elsewhere.
    """
    if state is State.TLS_TOO_WEAK:
        return replies.TLS_TOO_WEAK  # RFC 3207 §4.1
    if verb in settings.dialect.foreign:
        return settings.dialect.foreign[verb]
    if settings.require_tls and in_clear:
        return replies.TLS_REQUIRED  # RFC 3207 §4
    if verb == "BDAT" and not settings.chunking:
        return replies.NOT_IMPLEMENTED
    if verb in settings.commands:
        return replies.RESET_FIRST
    if verb in settings.dialect.misplaced:
        return settings.dialect.misplaced[verb]
    if own:
        return replies.RESET_FIRST
    # RFC 5321 §4.2.4: 502 for a verb that is known and not implemented, 500 for all others.
    return replies.NOT_IMPLEMENTED if verb in NOT_OFFERED else UNKNOWN_COMMAND
