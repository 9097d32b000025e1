"""A filter that a script plays, in memory: it keeps what it is told, and answers as it is to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from struct import pack, unpack_from
from typing import Any

from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

CONTINUE, ACCEPT = b"c", b"a"

UNANSWERED = 0x80 | 0x1000 | 0x2000 | 0x4000 | 0x8000 | 0x10000 | 0x40000 | 0x80000
ALL = 0x1FF


def change(code: bytes, *texts: bytes, index: int | None = None) -> bytes:
    """Return a modification with its code."""
    number = b"" if index is None else pack(">I", index)
    return code + number + b"".join(each + b"\0" for each in texts)


class ScriptedFilter(Factory):
    """A filter.

    Args:
        answers: by code of a command, the packets that answer it, without their lengths, or a
            function of the command's data that returns them; where there is none, it is ``c``.
        actions: what it may change.
        steps: what it leaves out.
        version: of the protocol.
        macros: what it asks for: behind the three numbers of the negotiation.

    Attributes:
        told: (code, data) of all that it was told.
        connections: how many there were.
        open: how many there are.
    """

    def __init__(
        self,
        answers: Mapping[bytes, Sequence[bytes] | Callable[[bytes], Sequence[bytes]]] | None = None,
        *,
        actions: int = ALL,
        steps: int = 0,
        version: int = 6,
        macros: bytes = b"",
    ) -> None:
        self.answers = dict(answers or {})
        self.actions = actions
        self.steps = steps
        self.version = version
        self.macros = macros
        self.told: list[tuple[bytes, bytes]] = []
        self.connections = 0
        self.open = 0
        self.protocols: list[_Conversation] = []

    def buildProtocol(self, addr: object) -> _Conversation:
        """Begin a connection (called by Twisted)."""
        self.connections += 1
        made = _Conversation(self)
        self.protocols.append(made)
        return made

    def data(self, code: bytes) -> list[bytes]:
        """Return the data of all commands of a code."""
        return [data for each, data in self.told if each == code]

    @property
    def codes(self) -> bytes:
        """The codes of what it was told, without macros."""
        return b"".join(code for code, _ in self.told if code != b"D")

    def macros_of(self, code: bytes) -> dict[str, str]:
        """Return the macros that came with the first command of a code."""
        for each in self.data(b"D"):
            if each[:1] == code:
                words = each[1:].decode().split("\0")[:-1]
                return dict(zip(words[::2], words[1::2], strict=True))
        return {}


class _Conversation(Protocol):
    transport: Any

    def __init__(self, script: ScriptedFilter) -> None:
        self._script = script
        self._buffer = b""

    def connectionMade(self) -> None:
        self._script.open += 1

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._script.open -= 1

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 4:
            (length,) = unpack_from(">I", self._buffer)
            if len(self._buffer) < 4 + length:
                return
            packet, self._buffer = self._buffer[4 : 4 + length], self._buffer[4 + length :]
            self._told(packet[:1], packet[1:])

    def _told(self, code: bytes, data: bytes) -> None:
        script = self._script
        script.told.append((code, data))
        if code == b"O":
            numbers = pack(">III", script.version, script.actions, script.steps)
            self.say(b"O" + numbers + script.macros)
        elif code == b"Q":
            self.transport.loseConnection()
        elif code in script.answers:
            answers = script.answers[code]
            for each in answers(data) if callable(answers) else answers:
                self.say(each)
        elif code not in b"DAK" and not script.steps & _UNANSWERED.get(code, 0):
            self.say(CONTINUE)

    def say(self, packet: bytes) -> None:
        """Send a packet without its length."""
        self.transport.write(pack(">I", len(packet)) + packet)


_UNANSWERED = {
    b"L": 0x80,
    b"C": 0x1000,
    b"H": 0x2000,
    b"M": 0x4000,
    b"R": 0x8000,
    b"T": 0x10000,
    b"N": 0x40000,
    b"B": 0x80000,
}
