r"""A server that follows a script, over TCP or on a `network.MemoryNetwork`.

A script is a list of steps, and reads like a dialogue::

    peer = ScriptedPeer(
        [
            ("send", b"220 mx.example ESMTP\r\n"),
            ("expect", b"EHLO client.example\r\n"),
            ("send", b"250 mx.example\r\n"),
            ("expect", re.compile(rb"MAIL FROM:<[^>]*>[^\r]*\r\n")),
            ("close",),
        ]
    )
"""

from __future__ import annotations

import re
from typing import Any, Literal, TypeAlias

from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from .tls import PeerTLS

ScriptStep: TypeAlias = (
    tuple[Literal["send"], bytes]
    | tuple[Literal["expect"], bytes | re.Pattern[bytes]]
    | tuple[Literal["content"]]
    | tuple[Literal["starttls"]]
    | tuple[Literal["close"]]
    | tuple[Literal["abort"]]
)
"""A step of the server.

``send`` writes octets in one piece. ``expect`` waits for given octets, or for a match of a pattern;
other octets are a problem and end the connection. ``content`` waits for the end of a content, CR LF
``.`` CR LF, and keeps the content as received. ``starttls`` begins the handshake. ``close`` and
``abort`` end the connection, with and without sending buffered octets.
"""


class ScriptedPeer(Protocol):
    """The server's end of one connection.

    Attributes:
        received: all octets from the client, in clear and under TLS.
        contents: the content of each ``content`` step, dot-stuffed and with its final dot.
        problems: the deviations from the script; empty in a good test.
        lost: Whether the connection has ended.
    """

    transport: Any

    def __init__(self, script: list[ScriptStep], *, tls: PeerTLS | None = None) -> None:
        self.script = list(script)
        self.received = bytearray()
        self.contents: list[bytes] = []
        self.problems: list[str] = []
        self.lost = False
        self._buffer = bytearray()
        self._searched = 0
        self._tls = tls
        self._playing = False

    @property
    def finished(self) -> bool:
        """Whether the script was played to its end, and the client sent no more."""
        return not (self.script or self.problems or self._buffer)

    def connectionMade(self) -> None:
        """Begin (called by Twisted)."""
        self._play()

    def dataReceived(self, data: bytes) -> None:
        """Continue the script (called by Twisted)."""
        self.received += data
        self._buffer += data
        self._play()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Take note of the end (called by Twisted)."""
        self.lost = True

    def _play(self) -> None:
        if self._playing:
            return
        self._playing = True
        while self.script and not self.problems and self._step(self.script[0]):
            del self.script[0]
        self._playing = False

    def _step(self, step: ScriptStep) -> bool:
        if step[0] == "send":
            self.transport.write(step[1])
            return True
        if step[0] == "expect":
            return self._expect(step[1])
        if step[0] == "content":
            return self._content()
        if step[0] == "starttls":
            self.transport.startTLS(self._tls or PeerTLS())
        elif step[0] == "close":
            self.transport.loseConnection()
        else:
            self.transport.abortConnection()
        return True

    def _expect(self, expected: bytes | re.Pattern[bytes]) -> bool:
        if isinstance(expected, bytes):
            length = min(len(expected), len(self._buffer))
            if self._buffer[:length] != expected[:length]:
                self.problems.append(f"expected {expected!r}, got {bytes(self._buffer)!r}")
                self.transport.abortConnection()
                return False
            if len(self._buffer) < len(expected):
                return False
        else:
            match = expected.match(self._buffer)
            if match is None:
                return False
            length = match.end()
        del self._buffer[:length]
        return True

    def _content(self) -> bool:
        if self._buffer.startswith(b".\r\n"):
            end = 3
        else:
            end = self._buffer.find(b"\r\n.\r\n", self._searched) + 5
        if end < 5 and end != 3:
            self._searched = max(0, len(self._buffer) - 4)
            return False
        self._searched = 0
        self.contents.append(bytes(self._buffer[:end]))
        del self._buffer[:end]
        return True
