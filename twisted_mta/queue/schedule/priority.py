"""Priorities and return times of messages, as one number for each message: its level.

Most mail has level 0, and costs no more than without priorities. The *level* of other mail is twice
its priority (RFC 6710), plus one where it is to be returned rather than delivered late (RFC 2852).

A priority is worth time: mail of priority 1 is ordered as if it had been due an hour earlier, mail
of priority -1 as if an hour later. So urgent mail goes first where there are fewer transactions
than mail, and no mail waits for ever: even a flood of priority 9 delays mail without priority by
nine hours at most.
"""

from __future__ import annotations

from ...mail.message import Message
from ...smtp.extension.deliverby import DeliverBy

HOUR = 3600.0
"""Seconds that one step of priority is worth."""


def level(message: Message) -> int:
    """Return the level of a message."""
    parameters = message.envelope.parameters
    if not parameters:
        return 0
    by = DeliverBy.of(parameters)
    return 2 * message.envelope.priority + (by is not None and by.returned)


def has_return_time(level: int) -> bool:
    """Whether messages of this level are to be returned at a time of their own (RFC 2852)."""
    return level % 2 == 1


def effective_due(due: float, level: int) -> float:
    """Return the time by which mail due at ``due`` is ordered among other mail."""
    return due - HOUR * (level // 2)
