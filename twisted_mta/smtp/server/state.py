"""What a session is allowed when: states, and the verbs that lead from each to the next, as data.

`TRANSITIONS` is the whole of it; `session` obeys it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType


class State(enum.Enum):
    """Where a session is between two commands."""

    START = "after the greeting or a TLS handshake"
    GREETED = "after EHLO or HELO"
    MAIL = "a reverse-path is known"
    RCPT = "at least one recipient was accepted"
    DATA = "reading the content of a message, or a chunk of it"
    BDAT = "between two chunks of a message"
    FAILED = "a chunk was refused"  # RFC 3030 §2: until a new beginning nothing is known
    AUTH = "a challenge was given, and its answer is awaited"  # RFC 4954 §4
    TLS = "220 was sent to STARTTLS, the handshake has not ended"
    REFUSED = "TLS is active and not good enough"  # RFC 3207 §4.1
    CLOSED = "the last reply was given"


_HERE: Mapping[str, State | None] = {"NOOP": None, "HELP": None, "VRFY": None, "QUIT": State.CLOSED}
_OPEN: Mapping[str, State | None] = {
    "EHLO": State.GREETED,
    "HELO": State.GREETED,
    "STARTTLS": State.TLS,
    **_HERE,
}

# {state: {verb: the state it leads to if it is accepted}}; None: it stays. RFC 5321 §4.1.4.
# A verb that is not in its row is out of place: 503.
TRANSITIONS: Mapping[State, Mapping[str, State | None]] = MappingProxyType(
    {
        State.START: {**_OPEN, "RSET": None},
        State.GREETED: {**_OPEN, "RSET": None, "MAIL": State.MAIL, "AUTH": State.AUTH},
        State.MAIL: {**_OPEN, "RSET": State.GREETED, "RCPT": State.RCPT},
        State.RCPT: {
            **_OPEN,
            "RSET": State.GREETED,
            "RCPT": State.RCPT,
            "DATA": State.DATA,
            "BDAT": State.BDAT,
        },
        State.BDAT: {**_OPEN, "RSET": State.GREETED, "BDAT": State.BDAT},
        State.FAILED: {
            "RSET": State.GREETED,
            "EHLO": State.GREETED,
            "NOOP": None,
            "QUIT": State.CLOSED,
        },
        State.REFUSED: {"QUIT": State.CLOSED},
    }
)

FOR_EXTENSIONS = (State.START, State.GREETED, State.MAIL, State.RCPT)
"""Where verbs of extensions may come: nowhere between the chunks of a message."""

REPLACEABLE = ("VRFY",)
"""Verbs of the session that an extension may obey in its place."""

# RFC 2920 §3.1, RFC 3207 §4: each of these is the last command of its group, because what follows
# depends on its reply. Octets behind it were not written by someone who had read that reply. The
# same holds for verbs of extensions.
LAST_IN_GROUP = ("EHLO", "DATA", "STARTTLS", "AUTH")

# RFC 3207 §4: what a client may say before STARTTLS where STARTTLS is required.
WITHOUT_TLS = ("NOOP", "EHLO", "LHLO", "STARTTLS", "QUIT")

# Known verbs that are never obeyed: 502 and not 500 (RFC 5321 §4.2.4).
NOT_OFFERED = ("EXPN", "TURN", "ETRN", "SEND", "SOML", "SAML", "LHLO", "BURL", "ATRN")
