"""An observer of all SMTP dialogues on a network: it reads the octets, and asks neither side."""

from __future__ import annotations

import re
from collections import deque
from typing import Protocol

from attrs import Factory, define

from twisted_mta.testing.world_network import Watcher, WorldEnd

_PATH = re.compile(r"[^:]*:\s*<([^>]*)>")


class Listener(Protocol):
    """Hears of the steps of transactions; ``client`` and ``server`` are IP addresses."""

    def attempted(self, client: str, server: str, recipient: str) -> None:
        """RCPT has arrived at a server."""
        ...

    def sent(self, client: str, server: str, recipients: list[str], content: bytes) -> None:
        """The end of a content has arrived at a server, for the recipients that it has taken."""
        ...

    def replied(self, server: str, recipients: list[str], content: bytes, code: int) -> None:
        """A server has written its reply to the content."""
        ...

    def refused(self, client: str, recipients: list[str]) -> None:
        """A 5yz to RCPT or DATA has arrived at a client."""
        ...

    def answered(self, client: str, recipients: list[str], content: bytes, code: int) -> None:
        """The reply to a content has arrived at a client."""
        ...


@define(eq=False)
class _Reply:
    """A reply that is on its way.

    Attributes:
        end: the number of octets from the server that have to arrive for it to be complete.
        verb: of the command.
        recipients: that it is about.
        content: that it is about.
        code: its code.
    """

    end: int
    verb: str
    recipients: list[str]
    content: bytes
    code: int


@define(eq=False)
class _Dialogue:
    """One connection."""

    client: str
    server: str
    from_client: bytes = b""
    from_server: bytes = b""
    written: int = 0
    arrived: int = 0
    commands: deque[tuple[str, str]] = Factory(lambda: deque([("CONNECT", "")]))
    replies: deque[_Reply] = Factory(deque)
    recipients: list[str] = Factory(list)
    has_sender: bool = False
    in_content: bool = False
    content: bytes = b""


class Dialogues(Watcher):
    """Reads all connections to port 25 in clear.

    Args:
        listener: hears of each step.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._dialogues: dict[int, _Dialogue] = {}

    def _of(self, end: WorldEnd) -> _Dialogue:
        found = self._dialogues.get(end.fate.number)
        if found is None:
            client, server = (end, end.other) if end.is_client else (end.other, end)
            found = self._dialogues[end.fate.number] = _Dialogue(
                client.getHost().host, server.getHost().host
            )
        return found

    def arrives(self, end: WorldEnd, octets: bytes) -> None:
        """Read commands and contents as the server does, and replies as the client does."""
        dialogue = self._of(end)
        if not end.is_client:
            dialogue.arrived += len(octets)
            self._replies_arrive(dialogue)
            return
        dialogue.from_client += octets
        while True:
            if dialogue.in_content:
                stuffed, found, rest = (b"\r\n" + dialogue.from_client).partition(b"\r\n.\r\n")
                if not found:
                    return
                dialogue.from_client = rest
                dialogue.in_content = False
                dialogue.content = stuffed[2:].replace(b"\r\n.", b"\r\n") + b"\r\n"
                if dialogue.content.startswith(b"."):
                    dialogue.content = dialogue.content[1:]
                dialogue.commands.append((".", ""))
                self._listener.sent(
                    dialogue.client, dialogue.server, dialogue.recipients, dialogue.content
                )
                continue
            line, found, rest = dialogue.from_client.partition(b"\r\n")
            if not found:
                return
            dialogue.from_client = rest
            text = line.decode()
            verb = text[:4].upper()
            path = _PATH.match(text)
            recipient = path[1] if path is not None and verb == "RCPT" else ""
            if recipient:
                self._listener.attempted(dialogue.client, dialogue.server, recipient)
            if verb == "MAIL":
                dialogue.recipients = []
            dialogue.commands.append((verb, recipient))

    def sent(self, end: WorldEnd, octets: bytes) -> None:
        """Read replies as the server writes them."""
        if end.is_client:
            return
        dialogue = self._of(end)
        start = dialogue.written - len(dialogue.from_server)
        dialogue.written += len(octets)
        dialogue.from_server += octets
        while True:
            line, found, rest = dialogue.from_server.partition(b"\r\n")
            if not found:
                return
            start += len(line) + 2
            dialogue.from_server = rest
            if line[3:4] != b"-" and dialogue.commands:
                self._replies(dialogue, start, int(line[:3]))

    def _replies(self, dialogue: _Dialogue, end: int, code: int) -> None:
        verb, recipient = dialogue.commands.popleft()
        about = [recipient] if verb == "RCPT" else dialogue.recipients
        if verb == "MAIL":
            dialogue.has_sender = code // 100 == 2
        if verb == "RCPT" and not dialogue.has_sender:
            return  # it says nothing about the recipient
        if verb == "RCPT" and code // 100 == 2:
            dialogue.recipients = [*dialogue.recipients, recipient]
        if verb == "DATA" and code == 354:
            dialogue.in_content = True
        if verb == ".":
            self._listener.replied(dialogue.server, about, dialogue.content, code)
        if verb in ("RCPT", "DATA", "."):
            dialogue.replies.append(_Reply(end, verb, about, dialogue.content, code))

    def _replies_arrive(self, dialogue: _Dialogue) -> None:
        while dialogue.replies and dialogue.replies[0].end <= dialogue.arrived:
            reply = dialogue.replies.popleft()
            if reply.verb == ".":
                self._listener.answered(
                    dialogue.client, reply.recipients, reply.content, reply.code
                )
            elif reply.code // 100 == 5:
                self._listener.refused(dialogue.client, reply.recipients)
