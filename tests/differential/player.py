"""A player of dialogues with any server on a port, which records the replies."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from attrs import define, field, frozen

from twisted_mta.testing.transcript import Transcript

from ..functional.machine import LOOPBACK
from ..functional.mail import trusting

PATIENCE = 20.0
"""Seconds to wait for an expected reply."""

_REPLY = re.compile(rb"(?:\d{3}-[^\r\n]*\r\n)*\d{3}(?: [^\r\n]*)?\r\n")


class Entry(Protocol):
    """A line of a transcript."""

    @property
    def kind(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def octets(self) -> bytes: ...


@frozen
class Exchange:
    """One write of the client, with the replies.

    Attributes:
        said: the octets, escaped and shortened; unique within a dialogue.
        replies: the first digits of all replies; ``.``: the server closed the connection.
    """

    said: str
    replies: str


@define
class Dialogue:
    """A transcript as a list of writes, with the replies that it expects of our server."""

    name: str
    writes: list[tuple[str, bytes | None]] = field(factory=list)
    expected: list[str] = field(factory=list)

    @classmethod
    def load(cls, path: Path) -> Dialogue | None:
        """Return the dialogue of a transcript; None: it needs settings of our server alone."""
        transcript = Transcript.load(path)
        options = transcript.options
        told = [line.split() for line in path.read_text("utf-8").splitlines() if line[:1] == "@"]
        if any(words[1] not in ("whole", "violations", "max_errors") for words in told):
            return None
        if any(words[1] == "max_errors" for words in told) and options.max_errors < 100:
            return None
        return cls._of(path.stem, transcript._entries)

    @classmethod
    def _of(cls, name: str, entries: Sequence[Entry]) -> Dialogue:
        dialogue = cls(name, [("(greeting)", b"")], [""])
        for entry in entries:
            if entry.kind == "C":
                dialogue._add(_shown(entry.octets), entry.octets)
            elif entry.kind == "TLS":
                dialogue._add("(handshake)", None)
            elif entry.kind == "S:":
                dialogue.expected[-1] += entry.text[0]
            elif entry.kind == "CLOSED":
                dialogue.expected[-1] += "."
        return dialogue

    def _add(self, said: str, octets: bytes | None) -> None:
        before = sum(each == said or each.startswith(f"{said} #") for each, _ in self.writes)
        self.writes.append((f"{said} #{before + 1}" if before else said, octets))
        self.expected.append("")


def _shown(octets: bytes) -> str:
    text = octets.decode("latin-1").encode("unicode_escape").decode("ascii")
    text = text.removesuffix("\\r\\n").replace("|", "\\x7c")
    if len(text) > 100:
        text = f"{text[:60]}...{text[-30:]}"
    return text.strip()


class Player:
    """One connection to a server.

    Args:
        port: the port of the server on the loopback interface.
        patience: seconds to wait for an expected reply.
    """

    def __init__(self, port: int, patience: float = PATIENCE) -> None:
        self._socket: socket.socket = socket.create_connection((LOOPBACK, port), PATIENCE)
        self._patience = patience
        self._unread = b""
        self._closed = False  # the end of the connection was reported
        self._ended = False  # the end of the connection was seen
        self.accepted = 0

    def play(self, dialogue: Dialogue, expected: Sequence[str]) -> list[Exchange]:
        """Play ``dialogue``; ``expected`` has, for each write, the replies to wait for."""
        exchanges = []
        content = False
        for (said, octets), awaited in zip(dialogue.writes, expected, strict=True):
            if octets is None:
                replies = self._shake_hands()
            else:
                self._write(octets)
                replies = self._read(awaited)
            for digit in replies:
                if content and digit in "245":
                    self.accepted += digit == "2"
                    content = False
                elif digit == "3":
                    content = True
            if octets and re.match(rb"BDAT \d+ LAST", octets):
                self.accepted += replies[-1:] == "2"
            exchanges.append(Exchange(said, replies))
        rest = self._end()
        if rest:
            exchanges.append(Exchange("(end)", rest))
        return exchanges

    def _shake_hands(self) -> str:
        if self._closed:
            return ""
        try:
            self._socket = trusting().wrap_socket(self._socket)
        except OSError:
            self._closed = self._ended = True
            return "."
        return ""

    def _write(self, octets: bytes) -> None:
        if octets and not self._closed:
            with contextlib.suppress(
                OSError
            ):  # the connection has ended, which `_read` will notice
                self._socket.sendall(octets)

    def _read(self, awaited: str) -> str:
        """Return the first digits of replies, up to the awaited number or the end."""
        if self._closed:
            return ""
        closes = awaited.endswith(".")
        count = len(awaited.rstrip("."))
        replies = self._replies()
        while len(replies) < count or closes:
            if not self._receive(self._patience):
                break
            replies += self._replies()
        else:
            # Further replies that have arrived. The end of the connection is not reported here,
            # where it may be seen or not, but when an awaited reply does not come.
            while self._receive(0.0):
                replies += self._replies()
            return replies
        self._closed = self._ended
        return replies + ("." if self._closed else "")

    def _receive(self, patience: float) -> bool:
        if self._ended:
            return False
        self._socket.settimeout(patience)
        try:
            octets = self._socket.recv(65_536)
        except (TimeoutError, BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            octets = b""
        finally:
            self._socket.settimeout(PATIENCE)
        self._unread += octets
        self._ended = not octets
        return bool(octets)

    def _replies(self) -> str:
        digits = ""
        while reply := _REPLY.match(self._unread):
            digits += reply[0].decode("latin-1").splitlines()[-1][0]
            self._unread = self._unread[reply.end() :]
        return digits

    def _end(self) -> str:
        """Shut down our side, and return the replies that the server still sends."""
        if self._closed:
            return ""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        while self._receive(PATIENCE):
            pass
        return self._replies()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
