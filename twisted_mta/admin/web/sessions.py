"""The sessions of browsers: kept here, found by the random id in a cookie."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256

from attrs import define, field

from ...interfaces import Clock

IDLE = 3600.0
"""Seconds after its last request that a session ends."""

LIFETIME = 12 * 3600.0
"""Seconds after its login that a session ends."""

_MOST = 1000  # sessions; the one that was unused for longest ends for one more
_MOST_OF_ACCOUNT = 20
_SECRET = 32  # octets


@define(eq=False)
class Session:
    """A session.

    Attributes:
        name: of the account.
        verifier: of the password at the login: it ends where that has changed.
        csrf: what its unsafe requests repeat.
        began: when, by the clock.
        used: when its last request came.
    """

    name: str
    verifier: str = field(repr=False)
    csrf: str = field(repr=False)
    began: float
    used: float


class Sessions:
    """All sessions.

    They are found by the digest of the id: how long a search takes tells nothing about an id.

    Args:
        clock: of their ends.
        secret: returns that many random octets.
    """

    def __init__(self, *, clock: Clock, secret: Callable[[int], bytes]) -> None:
        self._clock = clock
        self._secret = secret
        self._sessions: dict[bytes, Session] = {}  # the longest unused first

    def begin(self, name: str, verifier: str) -> str:
        """Begin a session; return its id."""
        self._forget()
        own = [key for key, each in self._sessions.items() if each.name == name]
        if len(own) >= _MOST_OF_ACCOUNT:
            del self._sessions[own[0]]
        elif len(self._sessions) >= _MOST:
            del self._sessions[next(iter(self._sessions))]
        now = self._clock.seconds()
        id = self._text()
        self._sessions[_key(id)] = Session(name, verifier, self._text(), now, now)
        return id

    def find(self, id: str) -> Session | None:
        """Return the session of an id, which is used now; None if it has ended, or never was."""
        self._forget()
        key = _key(id)
        session = self._sessions.pop(key, None)
        if session is None or self._clock.seconds() - session.began >= LIFETIME:
            return None
        session.used = self._clock.seconds()
        self._sessions[key] = session
        return session

    def end(self, id: str) -> None:
        """End a session."""
        self._sessions.pop(_key(id), None)

    def _forget(self) -> None:
        """Forget the sessions that are unused for too long."""
        oldest = self._clock.seconds() - IDLE
        while self._sessions:
            key, session = next(iter(self._sessions.items()))
            if session.used > oldest:
                return
            del self._sessions[key]

    def _text(self) -> str:
        return urlsafe_b64encode(self._secret(_SECRET)).decode("ascii").rstrip("=")


def _key(id: str) -> bytes:
    return sha256(id.encode("utf-8", "replace")).digest()
