"""The waits of a client session: for which reply or act, and for how long."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from operator import attrgetter

from attrs import frozen


class Awaited(Enum):
    """A wait of a client session; the value is the field of `Deadlines` that bounds it.

    ``HANDSHAKE`` and ``BODY`` are acts of the shell; all others are replies of the server.
    """

    GREETING = "greeting"
    EHLO = "ehlo"  # or LHLO
    HELO = "helo"
    STARTTLS = "starttls"
    HANDSHAKE = "handshake"
    AUTH = "auth"
    CANCEL = "cancel"  # the reply to "*", which cancels an AUTH exchange (RFC 4954 §4)
    RSET = "rset"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "block"
    DOT = "dot"  # or the reply to the last chunk
    NOTHING = "nothing"  # the reply to a final dot with no content before it (RFC 2920 §3.1)
    QUIT = "quit"

    __hash__ = object.__hash__  # members are looked up for each reply; that of `Enum` is slower


_SITUATIONS = {
    None: "while idle",
    Awaited.GREETING: "before the greeting",
    Awaited.HANDSHAKE: "during the TLS handshake",
    Awaited.BODY: "while sending the message",
    Awaited.NOTHING: "after the final dot",
}


def situation(awaited: Awaited | None, *, binary: bool = False, lmtp: bool = False) -> str:
    """Return for people at which point a session stands.

    Args:
        awaited: what the session waits for; None while it is idle.
        binary: whether the content goes by BDAT.
        lmtp: whether the session speaks LMTP.
    """
    if awaited is Awaited.DOT:
        return "after the last chunk" if binary else "after the final dot"
    if awaited is Awaited.EHLO and lmtp:
        return "before the reply to LHLO"
    if awaited in _SITUATIONS:
        return _SITUATIONS[awaited]
    assert awaited is not None
    return f"before the reply to {awaited.name}"


@frozen
class Deadlines:
    """How long each wait may last, in seconds (RFC 5321 §4.5.3.2)."""

    connect: float = 30.0
    greeting: float = 300.0  # §4.5.3.2.1
    ehlo: float = 300.0
    helo: float = 300.0
    starttls: float = 60.0  # the reply needs no look-up, and opportunistic mail goes in clear then
    handshake: float = 30.0
    auth: float = 300.0
    cancel: float = 5.0  # nothing depends on the reply any more
    rset: float = 300.0
    mail: float = 300.0  # §4.5.3.2.2
    rcpt: float = 300.0  # §4.5.3.2.3
    data: float = 120.0  # §4.5.3.2.4
    block: float = 180.0  # §4.5.3.2.5
    dot: float = 600.0  # §4.5.3.2.6: too short a wait here makes duplicates
    nothing: float = 300.0
    quit: float = 5.0  # nothing depends on the reply any more
    idle: float = 5.0
    newline: float = 1.0  # after a line that ends in LF alone: the server may send no CR LF ever


DEADLINE_OF: Mapping[Awaited | None, Callable[[Deadlines], float]] = {
    None: attrgetter("idle"),
    **{each: attrgetter(each.value) for each in Awaited},
}
"""The deadline of each wait; None: that of an idle session."""
