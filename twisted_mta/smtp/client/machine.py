"""The states of a client session, and `TRANSITIONS`: the ways from one to another, as data.

These are the phases of a connection. Within the opening and within a transaction, replies are due
one after the other: see `awaited.Awaited` and the table of replies in `session`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class State(StrEnum):
    """The phase of a client session."""

    OPENING = "from the connection to the end of EHLO, TLS and AUTH"
    IDLE = "ready for a transaction"
    TRANSACTION = "from MAIL to the last reply to the content"
    LEAVING = "QUIT was sent"
    CLOSED = "nothing more is read or sent"


class Event(StrEnum):
    """An event of a client session as a whole."""

    OPENED = "session opened"
    BEGUN = "transaction begun"
    ENDED = "transaction ended"
    QUIT = "QUIT sent"
    CLOSE = "connection closed"


TRANSITIONS: Mapping[State, Mapping[Event, State]] = MappingProxyType(
    {
        State.OPENING: {
            Event.OPENED: State.IDLE,
            Event.QUIT: State.LEAVING,
            Event.CLOSE: State.CLOSED,
        },
        State.IDLE: {
            Event.BEGUN: State.TRANSACTION,
            Event.QUIT: State.LEAVING,
            Event.CLOSE: State.CLOSED,
        },
        State.TRANSACTION: {Event.ENDED: State.IDLE, Event.CLOSE: State.CLOSED},
        State.LEAVING: {Event.CLOSE: State.CLOSED},
        State.CLOSED: {},
    }
)
"""{state: {event: next state}} of a client session."""
