"""Which connection serves which message: decides, and does no I/O."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from attrs import frozen

from ..envelope import NextHop, Target
from ..smtp.client_step import TLSLevel


class Reusable(Protocol):
    """What the pool wants to know of a connection.

    Attributes:
        target: where it leads.
        level: what TLS it has, at the least.
        messages: how many it carried.
    """

    target: Target
    level: TLSLevel
    messages: int


C = TypeVar("C", bound=Reusable)


@frozen
class _Idle(Generic[C]):
    connection: C
    keys: tuple[object, object]


class Pool(Generic[C]):
    """The idle connections of a relay.

    Each is found by the next hop that it served last, so that another message for that needs
    neither DNS nor a handshake, and by its target, which other next hops may come to as well.

    Args:
        messages: how many a connection may carry; servers dislike endless ones, and a better mail
            exchanger that has come back is noticed at the next connection only.
        connections: how many may be idle at a time.
    """

    def __init__(self, *, messages: int = 100, connections: int = 100) -> None:
        self._messages = messages
        self._connections = connections
        self._idle: dict[C, _Idle[C]] = {}
        self._found: dict[object, list[C]] = {}

    @property
    def idle(self) -> tuple[C, ...]:
        """All idle connections, the one that was idle longest first."""
        return tuple(self._idle)

    def take(self, next_hop: NextHop, level: TLSLevel) -> C | None:
        """Take out the connection that served ``next_hop`` last, if it is idle."""
        return self._take((next_hop, level))

    def take_to(self, target: Target, level: TLSLevel) -> C | None:
        """Take out an idle connection to ``target``."""
        return self._take((target, level))

    def keep(self, connection: C, next_hop: NextHop, level: TLSLevel) -> C | None:
        """Take in an idle connection that served ``next_hop`` at ``level``.

        Returns:
            A connection to close instead, None if there is room: ``connection`` itself if it has
            carried enough, or the one that was idle longest.
        """
        if connection.messages >= self._messages:
            return connection
        idle = _Idle(connection, ((next_hop, level), (connection.target, connection.level)))
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
