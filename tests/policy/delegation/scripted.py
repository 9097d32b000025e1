"""A policy service that a script plays, in memory: it keeps what it is asked, and answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

Attributes = dict[str, str]


class ScriptedService(Factory):
    """A service.

    Args:
        answer: an action, or a function of the attributes of a request that returns one; octets are
            sent as they are, ``b""``: none.

    Attributes:
        asked: the attributes of all requests.
        connections: how many there were.
        protocols: those that are open.
    """

    def __init__(self, answer: str | bytes | Callable[[Attributes], str | bytes] = "DUNNO") -> None:
        self.answer = answer
        self.asked: list[Attributes] = []
        self.connections = 0
        self.protocols: list[_Requests] = []

    def buildProtocol(self, addr: object) -> _Requests:
        """Begin a connection (called by Twisted)."""
        self.connections += 1
        return _Requests(self)

    @property
    def open(self) -> int:
        """How many connections are open."""
        return len(self.protocols)


class _Requests(Protocol):
    transport: Any

    def __init__(self, script: ScriptedService) -> None:
        self._script = script
        self._buffer = b""

    def connectionMade(self) -> None:
        self._script.protocols.append(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._script.protocols.remove(self)

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        while b"\n\n" in self._buffer:
            request, self._buffer = self._buffer.split(b"\n\n", 1)
            lines = request.decode().split("\n")
            attributes = dict(line.split("=", 1) for line in lines)
            self._script.asked.append(attributes)
            answer = self._script.answer
            said = answer(attributes) if callable(answer) else answer
            self.say(f"action={said}\n\n".encode() if isinstance(said, str) else said)

    def say(self, octets: bytes) -> None:
        """Send octets."""
        self.transport.write(octets)
