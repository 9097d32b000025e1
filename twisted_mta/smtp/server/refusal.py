"""Why a verb is not obeyed here and now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...mail.reply import Reply
from ..command import UNKNOWN_COMMAND
from . import replies
from .state import NOT_OFFERED, State

if TYPE_CHECKING:
    from .session import Session


def why_not(session: Session, verb: str, *, own: bool) -> Reply:
    """Return what a verb gets that `state.TRANSITIONS`, TLS or the settings do not allow.

    Args:
        session: see there.
        verb: in upper case.
        own: whether sessions obey it elsewhere.
    """
    settings = session.settings
    if session.state is State.REFUSED:
        return replies.TLS_TOO_WEAK  # RFC 3207 §4.1
    if verb in settings.dialect.foreign:
        return settings.dialect.foreign[verb]
    if settings.require_tls and session.tls is None:
        return replies.TLS_REQUIRED  # RFC 3207 §4
    if verb == "BDAT" and not settings.chunking:
        return replies.NOT_IMPLEMENTED
    if verb in settings.commands:
        return replies.RESET_FIRST
    if verb in settings.dialect.misplaced:
        return settings.dialect.misplaced[verb]
    if own:
        return replies.RESET_FIRST
    return replies.NOT_IMPLEMENTED if verb in NOT_OFFERED else UNKNOWN_COMMAND
