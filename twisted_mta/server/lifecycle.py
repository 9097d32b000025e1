"""The lifecycle of a server connection: its states, and the events that lead from one to the next.

Admission (does a limit allow one more connection?) and the handshake of implicit TLS begin at the
same time. The greeting needs both: the handshake leads to `Lifecycle.ADMISSION`, which is left when
the factory has answered, at once if it has done so before.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class Lifecycle(StrEnum):
    """A state of a server connection."""

    BUILT = "built"  # no transport yet
    IMPLICIT_TLS = "implicit TLS"  # RFC 8314: the handshake comes before the greeting
    SETTLING = "settling"  # octets that came in one read with the handshake may still arrive
    ADMISSION = "admission"  # the limits are being asked
    OPEN = "open"  # greeted, or refused instead of a greeting
    STARTTLS = "STARTTLS"  # RFC 3207: 220 was written, the handshake is under way
    CLOSING = "closing"  # the last reply was written
    ABANDONED = "abandoned"  # this process stops: 421 as soon as it is true, then the end
    LOST = "lost"


class Event(StrEnum):
    """A cause of a transition."""

    CONNECTED = "connected in clear"
    CONNECTED_TLS = "connected under TLS"
    HANDSHAKE_COMPLETED = "handshake completed"
    TURN_ENDED = "end of the reactor's turn"
    ADMITTED = "admission decided"
    STARTTLS = "STARTTLS accepted"
    SESSION_ENDED = "session ended"
    ABANDONED = "abandoned"
    CONNECTION_LOST = "connection lost"


TRANSITIONS: Mapping[Lifecycle, Mapping[Event, Lifecycle]] = MappingProxyType(
    {
        Lifecycle.BUILT: {
            Event.CONNECTED: Lifecycle.ADMISSION,
            Event.CONNECTED_TLS: Lifecycle.IMPLICIT_TLS,
        },
        # A handshake is never abandoned with 421: RFC 3207 §4 allows no reply in clear within it.
        Lifecycle.IMPLICIT_TLS: {
            Event.HANDSHAKE_COMPLETED: Lifecycle.SETTLING,
            Event.CONNECTION_LOST: Lifecycle.LOST,
        },
        Lifecycle.SETTLING: {
            Event.TURN_ENDED: Lifecycle.ADMISSION,
            Event.SESSION_ENDED: Lifecycle.CLOSING,
            Event.ABANDONED: Lifecycle.ABANDONED,
            Event.CONNECTION_LOST: Lifecycle.LOST,
        },
        Lifecycle.ADMISSION: {
            Event.ADMITTED: Lifecycle.OPEN,
            Event.SESSION_ENDED: Lifecycle.CLOSING,
            Event.ABANDONED: Lifecycle.ABANDONED,
            Event.CONNECTION_LOST: Lifecycle.LOST,
        },
        Lifecycle.OPEN: {
            Event.STARTTLS: Lifecycle.STARTTLS,
            Event.SESSION_ENDED: Lifecycle.CLOSING,
            Event.ABANDONED: Lifecycle.ABANDONED,
            Event.CONNECTION_LOST: Lifecycle.LOST,
        },
        Lifecycle.STARTTLS: {
            Event.HANDSHAKE_COMPLETED: Lifecycle.OPEN,
            Event.CONNECTION_LOST: Lifecycle.LOST,
        },
        Lifecycle.CLOSING: {
            Event.ABANDONED: Lifecycle.ABANDONED,
            Event.CONNECTION_LOST: Lifecycle.LOST,
        },
        Lifecycle.ABANDONED: {
            Event.SESSION_ENDED: Lifecycle.ABANDONED,
            Event.CONNECTION_LOST: Lifecycle.LOST,
        },
        Lifecycle.LOST: {},
    }
)
"""{state: {event: next state}}; an event that is not in the row of a state cannot happen in it."""

NOT_GREETED = (
    Lifecycle.BUILT,
    Lifecycle.IMPLICIT_TLS,
    Lifecycle.SETTLING,
    Lifecycle.ADMISSION,
)
"""States in which the client has to wait for the greeting (RFC 5321 §4.3.1)."""

HANDSHAKES = (Lifecycle.IMPLICIT_TLS, Lifecycle.STARTTLS)
"""States in which a TLS handshake is under way."""
