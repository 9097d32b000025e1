"""The reply to mail while a filter or policy service fails: ``default_action``."""

from __future__ import annotations

from collections.abc import Mapping

from ..mail.reply import Reply

UNAVAILABLE = Reply.fixed(451, "7.1", "Service unavailable, try again later")

_REPLIES: Mapping[str, Reply | None] = {
    "defer": UNAVAILABLE,
    "accept": None,
    "refuse": Reply.fixed(550, "7.1", "Service unavailable"),
}


def default_of(action: str) -> Reply | None:
    """Return the answer of a ``default_action``; None: the mail goes on."""
    return _REPLIES[action]
