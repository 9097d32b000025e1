"""TLS sessions with next hops, kept for a while: the next connection resumes one (RFC 8446 §2.2).

A resumed session has no certificates: the server is believed to be the one of the handshake that
began the session. So a session is kept only after a handshake that was good enough, and found again
only by the same key, which names all that the verdict depended on: the target, the level, the name,
the TLSA records, the policy and the files with the authorities. An hour later the server has to
prove itself again, whatever its tickets say.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from attrs import evolve, frozen
from OpenSSL import SSL

from ..mail.tls_facts import TLSFacts
from .handshake import group, resumed


@frozen(eq=False)
class KeptSession:
    """A session that a connection may resume.

    Attributes:
        session: OpenSSL's session, with the latest ticket of the server.
        context: of the connection; pyOpenSSL resumes sessions within one context alone.
        facts: of the handshake in which the server proved itself.
        proved: when that was, in monotonic seconds.
    """

    session: SSL.Session
    context: SSL.Context
    facts: TLSFacts
    proved: float

    def resumed(self, connection: SSL.Connection) -> TLSFacts | None:
        """Return the facts of a completed handshake; None: it has not resumed the session."""
        if not resumed(connection):
            return None
        return evolve(
            self.facts,
            version=connection.get_protocol_version_name(),
            cipher=connection.get_cipher_name() or "",
            bits=connection.get_cipher_bits() or 0,
            key_exchange=group(connection),
            resumed=True,
        )


class ClientSessions:
    """The sessions of one process.

    Args:
        seconds: monotonic time.
        most: sessions at the most; beyond, the one that was kept longest ago is dropped.
        lifetime: seconds from the proof of a server to the next one.
    """

    def __init__(
        self, seconds: Callable[[], float], *, most: int = 1000, lifetime: float = 3600.0
    ) -> None:
        self._seconds = seconds
        self._most = most
        self._lifetime = lifetime
        self._kept: dict[Hashable, KeptSession] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, key: Hashable, context: SSL.Context) -> KeptSession | None:
        """Return the session to resume with ``context``; None: there is none."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept.context is context and self._seconds() - kept.proved < self._lifetime:
            return kept
        del self._kept[key]
        return None

    def keep(
        self,
        key: Hashable,
        connection: SSL.Connection,
        facts: TLSFacts,
        before: KeptSession | None = None,
    ) -> None:
        """Keep the session of a connection whose server is good enough.

        Args:
            key: all that the verdict on the server depended on.
            connection: open, with the first octets of the server read: tickets come before them.
            facts: of its handshake.
            before: the session that it has resumed; None: the server has proved itself.
        """
        session = connection.get_session()
        if session is None:
            return
        proved = self._seconds() if before is None else before.proved
        self._kept.pop(key, None)
        self._kept[key] = KeptSession(
            session,
            connection.get_context(),
            facts if before is None else before.facts,
            proved,
        )
        if len(self._kept) > self._most:
            del self._kept[next(iter(self._kept))]

    def forget(self, key: Hashable) -> None:
        """Drop a session, if there is one: it was of no use."""
        self._kept.pop(key, None)
