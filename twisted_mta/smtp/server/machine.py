"""The states of a server session, and `TRANSITIONS`: all that each state allows, as data.

Theory of operation. A state is where a session stands between two events. An event is a command of
the client, by its verb, or something that the session itself finds (`Event`). A command that is not
in the row of the present state is out of place: its reply is 503 (RFC 5321 §4.1.4), and the state
stays. A command in the row may still be refused for other reasons (syntax, policy, TLS); its event
happens when it is accepted. `Session._enter` is the only line that changes the state, and it knows
no other way than this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class State(StrEnum):
    """Where a session stands between two events."""

    START = "no EHLO yet: after the opening, or after a TLS handshake"
    GREETED = "after EHLO or HELO, outside of a transaction"
    AUTH = "an AUTH exchange is under way"  # RFC 4954 §4
    MAIL = "in a transaction: MAIL was accepted"
    RCPT = "in a transaction: at least one RCPT was accepted"
    CONTENT = "reading the content after DATA, or a chunk after BDAT"
    BETWEEN_CHUNKS = "a chunk was accepted, and it was not the last"  # RFC 3030 §2
    CHUNK_REFUSED = "a chunk was refused, and it was not the last"  # RFC 3030 §2
    HANDSHAKE = "220 was sent to STARTTLS, and the TLS handshake has not ended"  # RFC 3207 §4
    TLS_TOO_WEAK = "under TLS that does not suffice here"  # RFC 3207 §4.1
    CLOSED = "the last reply was given"


class Event(StrEnum):
    """An event of a server session.

    Commands have their verb as value, so that a verb from the wire can be looked up as it is. All
    other values hold a space, which no verb can, so a client cannot name them.
    """

    EHLO = "EHLO"
    LHLO = "LHLO"
    HELO = "HELO"
    STARTTLS = "STARTTLS"
    AUTH = "AUTH"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    BDAT = "BDAT"
    RSET = "RSET"
    NOOP = "NOOP"
    VRFY = "VRFY"
    HELP = "HELP"
    QUIT = "QUIT"
    EXTENSION = "verb of an extension"
    NEW_CLIENT = "XCLIENT accepted"
    NEW_CLIENT_GREETED = "XCLIENT with HELO accepted"
    TLS_SUFFICES = "handshake completed"
    TLS_TOO_WEAK = "handshake too weak"
    AUTH_ENDED = "AUTH exchange ended"
    CHUNK_ACCEPTED = "chunk accepted"
    CHUNK_REFUSED = "chunk refused"
    CONTENT_ENDED = "content accepted or refused"
    CLOSE = "connection closed by the server"


def _row(state: State, *, rset: State) -> Mapping[Event, State]:
    """Return the transitions from a state in which any command may come."""
    return {
        # RFC 5321 §4.1.4: EHLO and HELO begin anew, within a transaction too.
        Event.EHLO: State.GREETED,
        Event.HELO: State.GREETED,
        Event.STARTTLS: State.HANDSHAKE,
        Event.RSET: rset,
        # RFC 5321 §4.1.4: these may come at any time, and change nothing.
        Event.NOOP: state,
        Event.HELP: state,
        Event.VRFY: state,
        Event.QUIT: State.CLOSED,
        Event.CLOSE: State.CLOSED,
    }


TRANSITIONS: Mapping[State, Mapping[Event, State]] = MappingProxyType(
    {
        State.START: {
            **_row(State.START, rset=State.START),
            Event.EXTENSION: State.START,
            Event.NEW_CLIENT: State.START,
            Event.NEW_CLIENT_GREETED: State.GREETED,
            # Implicit TLS: the handshake comes before the opening (RFC 8314 §3.3).
            Event.TLS_SUFFICES: State.START,
            Event.TLS_TOO_WEAK: State.TLS_TOO_WEAK,
        },
        State.GREETED: {
            **_row(State.GREETED, rset=State.GREETED),
            Event.EXTENSION: State.GREETED,
            Event.NEW_CLIENT: State.START,
            Event.NEW_CLIENT_GREETED: State.GREETED,
            Event.AUTH: State.AUTH,  # RFC 4954 §4: not within a transaction
            Event.MAIL: State.MAIL,
        },
        # RFC 4954 §4: lines are responses to challenges, and not commands.
        State.AUTH: {Event.AUTH_ENDED: State.GREETED, Event.CLOSE: State.CLOSED},
        State.MAIL: {
            **_row(State.MAIL, rset=State.GREETED),
            Event.EXTENSION: State.MAIL,
            Event.RCPT: State.RCPT,
        },
        State.RCPT: {
            **_row(State.RCPT, rset=State.GREETED),
            Event.EXTENSION: State.RCPT,
            Event.RCPT: State.RCPT,
            Event.DATA: State.CONTENT,
            Event.BDAT: State.CONTENT,
            # The delivery refused to open the content, which comes all the same (RFC 3030 §2).
            Event.CHUNK_REFUSED: State.CHUNK_REFUSED,
            Event.CONTENT_ENDED: State.GREETED,
        },
        # RFC 5321 §4.1.1.4, RFC 3030 §2: octets are content up to its end, and not commands.
        State.CONTENT: {
            Event.CHUNK_ACCEPTED: State.BETWEEN_CHUNKS,
            Event.CHUNK_REFUSED: State.CHUNK_REFUSED,
            Event.CONTENT_ENDED: State.GREETED,
            Event.CLOSE: State.CLOSED,
        },
        # RFC 3030 §2: DATA and BDAT cannot be mixed; RSET, EHLO and HELO abort the transaction.
        State.BETWEEN_CHUNKS: {
            **_row(State.BETWEEN_CHUNKS, rset=State.GREETED),
            Event.BDAT: State.CONTENT,
        },
        # RFC 3030 §2: the state of the session is indeterminate until RSET (or EHLO).
        State.CHUNK_REFUSED: {
            Event.RSET: State.GREETED,
            Event.EHLO: State.GREETED,
            Event.NOOP: State.CHUNK_REFUSED,
            Event.QUIT: State.CLOSED,
            Event.CLOSE: State.CLOSED,
        },
        # RFC 3207 §4: nothing is read or sent but the handshake.
        State.HANDSHAKE: {
            Event.TLS_SUFFICES: State.START,
            Event.TLS_TOO_WEAK: State.TLS_TOO_WEAK,
            Event.CLOSE: State.CLOSED,
        },
        # RFC 3207 §4.1: all commands but QUIT get 554.
        State.TLS_TOO_WEAK: {Event.QUIT: State.CLOSED, Event.CLOSE: State.CLOSED},
        State.CLOSED: {},
    }
)
"""{state: {event: next state}} of an ESMTP session; `dialect.LMTP` derives its own from it."""

REPLACEABLE = (Event.VRFY,)
"""Verbs of the session that an extension may obey in its place."""

LAST_IN_GROUP = (Event.EHLO, Event.DATA, Event.STARTTLS, Event.AUTH)
"""Commands behind which nothing may have come when they are obeyed, as for verbs of extensions.

Each is the last of a pipelined group (RFC 2920 §3.1, RFC 3207 §4), because what follows depends on
its reply: octets behind it were written before the reply could be read.
"""

WITHOUT_TLS = (Event.NOOP, Event.EHLO, Event.LHLO, Event.STARTTLS, Event.QUIT)
"""Commands that are obeyed in clear where TLS is required (RFC 3207 §4)."""

NOT_OFFERED = ("EXPN", "TURN", "ETRN", "SEND", "SOML", "SAML", "LHLO", "BURL", "ATRN")
"""Known verbs that are never obeyed: their reply is 502 and not 500 (RFC 5321 §4.2.4)."""
