"""The pool of idle connections: find one for a message, and decide which to close. No I/O."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from ..mail.next_hop import NextHop, Target
from ..mail.tls_policy import TLSPolicy
from .terms import HostTerms, Terms


class Reusable(Protocol):
    """A connection, as the pool sees it.

    Attributes:
        target: its address and port.
        terms: on which it was opened.
        policy: the TLS that it has.
        messages: the number of transactions so far.
    """

    target: Target
    terms: Terms
    policy: TLSPolicy
    messages: int


C = TypeVar("C", bound=Reusable)
K = TypeVar("K")


class Pool(Generic[C]):
    """Idle connections.

    A connection is found by the next hop that it served last, so that another message for it needs
    neither DNS nor a handshake; and by its target, which other next hops may share. The terms are
    part of both keys: a connection never serves mail on other terms than its own. The policy of its
    TLS is part of the second: what the next hop publishes may have changed since.

    A connection to one of several exchangers of equal preference is found by its target alone: each
    message is to go to one of them at random (RFC 5321 §5.1), and not to the first as long as that
    is busy enough to keep its connection.

    Attributes:
        most: connections that are idle at a time at the most.
    """

    def __init__(self, *, most: int = 100) -> None:
        self.most = most
        self._idle: dict[C, tuple[NextHop, HostTerms] | None] = {}  # what they served last
        self._by_service: dict[tuple[NextHop, HostTerms], list[C]] = {}
        # By name, address and port: to hash a target, terms and policy takes several times as long.
        # The name counts, as a provider has thousands of names for a few addresses.
        self._by_place: dict[tuple[str, str, int], list[C]] = {}

    @property
    def idle(self) -> tuple[C, ...]:
        """All idle connections, the longest idle first."""
        return tuple(self._idle)

    def take(self, next_hop: NextHop, host_terms: HostTerms) -> C | None:
        """Take out the connection that served ``next_hop`` last, if it is idle."""
        connection = self.serving(next_hop, host_terms)
        if connection is not None:
            self.discard(connection)
        return connection

    def take_to(self, target: Target, terms: Terms, policy: TLSPolicy) -> C | None:
        """Take out an idle connection to ``target``."""
        connection = self._find(target, terms, policy)
        if connection is not None:
            self.discard(connection)
        return connection

    def serving(self, next_hop: NextHop, host_terms: HostTerms) -> C | None:
        """Return the connection that `take` would take out."""
        connections = self._by_service.get((next_hop, host_terms))
        # The last used, so that surplus connections time out.
        return connections[-1] if connections else None

    def has(self, target: Target, terms: Terms, policy: TLSPolicy) -> bool:
        """Whether `take_to` would find a connection."""
        return self._find(target, terms, policy) is not None

    def keep(self, connection: C, next_hop: NextHop, host_terms: HostTerms) -> C | None:
        """Add an idle connection that served ``next_hop`` on ``host_terms``.

        Returns:
            A connection to close, None where there is none: ``connection`` itself after its last
            transaction, or else the longest idle one of a full pool. Servers dislike endless
            connections, and a better exchanger that is up again gets mail by a new one only.
        """
        if connection.messages >= connection.terms.messages:
            return connection
        self._by_place.setdefault(_place(connection.target), []).append(connection)
        if connection.target.equal:
            self._idle[connection] = None
        else:
            self._idle[connection] = service = next_hop, host_terms
            self._by_service.setdefault(service, []).append(connection)
        if len(self._idle) <= self.most:
            return None
        oldest = next(iter(self._idle))
        self.discard(oldest)
        return oldest

    def discard(self, connection: C) -> None:
        """Remove a connection; one that is not in the pool is no error."""
        if connection in self._idle:
            service = self._idle.pop(connection)
            _remove(self._by_place, _place(connection.target), connection)
            if service is not None:
                _remove(self._by_service, service, connection)

    def _find(self, target: Target, terms: Terms, policy: TLSPolicy) -> C | None:
        for each in reversed(self._by_place.get(_place(target), ())):
            if each.terms == terms and each.policy == policy:
                return each
        return None


def _place(target: Target) -> tuple[str, str, int]:
    """Return what tells a target from others."""
    return target.name, target.address, target.port


def _remove(connections: dict[K, list[C]], key: K, connection: C) -> None:
    those = connections[key]
    those.remove(connection)
    if not those:
        del connections[key]
