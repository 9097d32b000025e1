"""The network of a `World`: connections take time, break at any octet, or fall silent."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Literal

from attrs import define, frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Protocol

from ..interfaces import Random
from .machine import Machine
from .network import MemoryTransport
from .reactor import MemoryReactor
from .resolver import FakeResolver

Span = tuple[float, float]
"""The least and the most of a number that is drawn each time."""

CutAt = Literal["octets", "dot", "reply"]
"""Where a connection is cut: after so many octets; before the end of a content; before the reply to
it, which the server has sent."""

_END = b"\r\n.\r\n"
_LONGEST_WHOLE = 20_000  # octets; most connections that are cut after a number have fewer


def drawn(random: Random, span: Span) -> float:
    """Return a number of a span."""
    least, most = span
    return least + (most - least) * random.random()


@frozen
class Cut:
    """A connection that is to break.

    Attributes:
        at: where.
        octets: of both directions together, for ``"octets"``.
    """

    at: CutAt
    octets: int = 0


@define(eq=False)
class _Fate:
    """What happens to one connection.

    Attributes:
        number: of the connection, from 1.
        cut: where it breaks; None: nowhere.
        octets: that have arrived, in both directions.
        tail: the last octets from the client, which may be the beginning of the end of a content.
        content_ended: whether the end of a content has arrived and nothing from the server since.
    """

    number: int
    cut: Cut | None = None
    octets: int = 0
    tail: bytes = b""
    content_ended: bool = False


class WorldEnd(MemoryTransport):
    """One end of a connection of a `WorldNetwork`.

    Attributes:
        network: the network.
        fate: what happens to the connection.
    """

    network: WorldNetwork
    fate: _Fate

    @property
    def is_client(self) -> bool:
        """Whether this end has connected to the other."""
        return self._client

    @property
    def machine(self) -> Any:
        """The machine of this end, or the network where it has none."""
        return self._clock

    @property
    def name(self) -> str:
        """The address of this end, and the number of the connection."""
        return f"{getattr(self._host, 'host', '')}#{self.fate.number}"

    def write_raw(self, data: bytes) -> None:
        """Send octets, after the watchers of the network have seen them."""
        if self.connected and not self.disconnecting:
            for watcher in self.network.watchers:
                watcher.sent(self, data)
        super().write_raw(data)

    def cut(self) -> None:
        """Break the connection: what is on its way is lost."""
        if self.connected or self.other.connected:
            self.network.note(self.name, "cut")
            self._waiting.clear()
            self.other._waiting.clear()
            self._over(ConnectionLost(), ConnectionLost())

    def vanish(self) -> None:
        """Be gone, as its machine has crashed; the other end hears of it, or not.

        What this end has sent before still arrives, or is lost with it, as the network draws.
        """
        network, other = self.network, self.other
        last_words = bytes(self._waiting)
        self.connected = False
        self._waiting.clear()
        if network.random.random() >= 0.5:
            last_words = b""
        if network.random.random() < network.silent_crashes:
            network.note(self.name, "silent from now on")
            return
        other._clock.callLater(self.latency, self._last_words, last_words)

    def _last_words(self, octets: bytes) -> None:
        if octets and self.other.connected:
            self._hand_over(octets)
        self.other._waiting.clear()
        self.other._peer_vanished()

    def _deliver(self) -> None:
        if self.network.is_apart(self):
            self._scheduled = False  # `WorldNetwork.rejoin` goes on
        else:
            super()._deliver()

    def _hand_over(self, octets: bytes) -> None:
        if not self.other.connected:
            return  # it has crashed
        if self.network.breaks_before(self, octets):
            self.cut()
            return
        self.network.note(self.name, f"> {len(octets)} {octets[:60]!r}")
        for watcher in self.network.watchers:
            watcher.arrives(self, octets)
        super()._hand_over(octets)

    def _over(self, here: Exception, there: Exception) -> None:
        ended = self.connected or self.other.connected
        super()._over(here, there)
        if ended:
            for watcher in self.network.watchers:
                watcher.ended(self)


class Watcher:
    """Sees all octets of a network; its methods do nothing here."""

    def sent(self, end: WorldEnd, octets: bytes) -> None:
        """One end sends octets."""

    def arrives(self, end: WorldEnd, octets: bytes) -> None:
        """The other end is about to read octets that ``end`` has sent."""

    def ended(self, end: WorldEnd) -> None:
        """A connection is over for both ends, or for the one that was left."""


class WorldNetwork(MemoryReactor):
    """A network in memory whose connections take time and break.

    Args:
        random: draws what is not said exactly.
        note: takes (who, what) of each thing that happens.

    Attributes:
        latency: seconds that octets are on their way; drawn for each connection.
        loss: the part of connections that break, from 0 to 1, at a random octet.
        silent_crashes: the part of connections whose other end hears nothing of a crash.
        watchers: see all octets.
        transport_class: the ends of its connections.
    """

    transport_class = WorldEnd

    def __init__(self, random: Random, note: Callable[[str, str], object]) -> None:
        super().__init__()
        self.random = random
        self.note = note
        self.latency: Span = (0.0, 0.0)
        self.loss = 0.0
        self.silent_crashes = 0.0
        self.watchers: list[Watcher] = []
        self._cuts: dict[str, deque[Cut]] = {}
        self._apart: dict[str, None] = {}

    # For the test.

    def cut_next(self, address: str, cut: Cut) -> None:
        """Break the next connection to an address."""
        self._cuts.setdefault(address, deque()).append(cut)

    def cut_all(self, address: str) -> None:
        """Break all connections of a host now."""
        for ends in list(self.connections):
            if any(getattr(end._host, "host", "") == address for end in ends):
                ends[0].cut()  # type: ignore[attr-defined]

    def part(self, address: str) -> None:
        """Let nothing arrive at a host or come from it, until `rejoin`."""
        self._apart[address] = None

    def rejoin(self, address: str) -> None:
        """Let everything arrive that was held up."""
        self._apart.pop(address, None)
        for ends in list(self.connections):
            for end in ends:
                if end.connected and (end._waiting or end.disconnecting):
                    end._schedule()

    def mend(self) -> None:
        """End all faults, also those that are still to come."""
        self.loss = self.silent_crashes = 0.0
        self._cuts.clear()
        for address in list(self._apart):
            self.rejoin(address)
        for ends in self.connections:
            if ends[0].connected and ends[1].connected:
                ends[0].fate.cut = None  # type: ignore[attr-defined]

    # Called by its ends.

    def is_apart(self, end: WorldEnd) -> bool:
        """Whether nothing arrives between an end and the other."""
        return bool(self._apart) and any(
            getattr(each, "host", "") in self._apart for each in (end._host, end._peer)
        )

    def breaks_before(self, end: WorldEnd, octets: bytes) -> bool:
        """Whether a connection breaks before octets arrive; takes note of those that do."""
        fate = end.fate
        if fate.cut is None:
            return False
        at = fate.cut.at
        ends_content = False
        if end.is_client:
            tail = fate.tail + octets
            fate.tail = tail[-4:]
            ends_content = _END in tail
        if at == "dot":
            return ends_content
        if at == "reply":
            if not end.is_client and fate.content_ended:
                return True
            fate.content_ended = fate.content_ended or ends_content
            return False
        fate.octets += len(octets)
        return fate.octets > fate.cut.octets

    def _joined(self, client: Any, server: Any) -> None:
        fate = _Fate(len(self.connections))
        latency = drawn(self.random, self.latency)
        host = getattr(server._host, "host", "")
        waiting = self._cuts.get(host)
        if waiting:
            fate.cut = waiting.popleft()
        elif self.loss and self.random.random() < self.loss:
            octets = int(_LONGEST_WHOLE ** self.random.random())
            fate.cut = Cut("octets", octets)
        for end in (client, server):
            end.network, end.fate, end.latency = self, fate, latency
        self.note(client.name, f"connects to {host}")

    def _servers(self, host: str, port: int, source: str) -> list[tuple[Protocol, Any]] | None:
        if host in self._apart or source in self._apart:
            return None  # no answer
        return super()._servers(host, port, source)

    def _connecting_time(self, host: str) -> float:
        return drawn(self.random, self.latency)


class WorldResolver:
    """The DNS as one machine sees it: answers take time, and a dead machine gets none.

    Args:
        machine: the machine.
        resolver: has the answers.
        random: draws the time of each.
        latency: the least and most seconds of an answer.
        note: takes (who, what) of each lookup.
    """

    def __init__(
        self,
        machine: Machine,
        resolver: FakeResolver,
        random: Random,
        latency: Callable[[], Span],
        note: Callable[[str], object],
    ) -> None:
        self._machine = machine
        self._resolver = resolver
        self._random = random
        self._latency = latency
        self._note = note

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._resolver, name)

        def look_up(*args: Any, **kwargs: Any) -> Deferred[Any]:
            self._note(f"looks up {name} {args[0]}")
            answer: Deferred[Any] = Deferred()
            found: Deferred[Any] = method(*args, **kwargs)
            seconds = drawn(self._random, self._latency())

            def arrived(result: Any) -> None:
                if not answer.called:
                    answer.callback(result)

            if seconds:
                found.addBoth(lambda result: self._machine.callLater(seconds, arrived, result))
            else:
                found.addBoth(lambda result: arrived(result) if self._machine.is_up else None)
            return answer

        return look_up
