"""Which connection serves which message: decides, and does no I/O."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from attrs import frozen

from ..mail.next_hop import NextHop, Target
from .terms import HostTerms, Terms


class Reusable(Protocol):
    """What the pool wants to know of a connection.

    Attributes:
        target: where it leads.
        terms: what it has, at the least.
        messages: how many it carried.
    """

    target: Target
    terms: Terms
    messages: int


C = TypeVar("C", bound=Reusable)


@frozen
class _Idle(Generic[C]):
    connection: C
    keys: tuple[object, object]


class Pool(Generic[C]):
    """The idle connections of a relay.

    Each is found by the next hop that it served last, so that another message for that needs
    neither DNS nor a handshake, and by its target, which other next hops may come to as well. It
    serves nobody on other terms than its own: whoever must not share it does not find it.

    Args:
        connections: how many may be idle at a time.
    """

    def __init__(self, *, connections: int = 100) -> None:
        self._connections = connections
        self._idle: dict[C, _Idle[C]] = {}
        self._found: dict[object, list[C]] = {}

    @property
    def idle(self) -> tuple[C, ...]:
        """All idle connections, the one that was idle longest first."""
        return tuple(self._idle)

    def take(self, next_hop: NextHop, host_terms: HostTerms) -> C | None:
        """Take out the connection that served ``next_hop`` last, if it is idle."""
        return self._take((next_hop, host_terms))

    def take_to(self, target: Target, terms: Terms) -> C | None:
        """Take out an idle connection to ``target``."""
        return self._take((target, terms))

    def serving(self, next_hop: NextHop, host_terms: HostTerms) -> C | None:
        """Return what `take` would take out."""
        found = self._found.get((next_hop, host_terms))
        return found[-1] if found else None

    def has(self, target: Target, terms: Terms) -> bool:
        """Whether `take_to` would find a connection."""
        return bool(self._found.get((target, terms)))

    def keep(self, connection: C, next_hop: NextHop, host_terms: HostTerms) -> C | None:
        """Take in an idle connection that served ``next_hop``, which was asked for ``host_terms``.

        Returns:
            A connection to close instead, None if there is room: ``connection`` itself if it has
            carried enough, or the one that was idle longest. Servers dislike endless connections,
            and a better mail exchanger that has come back is noticed at the next one only.
        """
        if connection.messages >= connection.terms.messages:
            return connection
        idle = _Idle(connection, ((next_hop, host_terms), (connection.target, connection.terms)))
        self._idle[connection] = idle
        for key in idle.keys:
            self._found.setdefault(key, []).append(connection)
        if len(self._idle) <= self._connections:
            return None
        oldest = next(iter(self._idle))
        self.discard(oldest)
        return oldest

    def discard(self, connection: C) -> None:
        """Forget a connection; one that is not here is no error."""
        idle = self._idle.pop(connection, None)
        if idle is None:
            return
        for key in idle.keys:
            found = self._found[key]
            found.remove(connection)
            if not found:
                del self._found[key]

    def _take(self, key: object) -> C | None:
        found = self._found.get(key)
        if not found:
            return None
        connection = found[-1]  # the one used last: the others may then grow old, and close
        self.discard(connection)
        return connection
