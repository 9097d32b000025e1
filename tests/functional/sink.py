"""A next hop that accepts any message and records it in a ledger, unaffected by injected faults.

It is a program that uses only the standard library:

    python tests/functional/sink.py --port 0 --ledger FILE [--messages DIR] [--delay SECONDS]

The ledger has a line for each message, written before the reply 250. Its time is that of the final
dot, in seconds since the epoch.

    <time> <id> <SHA-256> <octets> <recipient> …

The id is the value of the field ``X-Campaign``, and the hash covers the content from that field on,
without the fields that relays prepend. Without the field, the id is ``-`` and the hash covers all.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import re
import time
from pathlib import Path
from random import random
from typing import IO, Protocol

MARK = b"X-Campaign: "
_MARK_WITHIN = 65536
_PATH = re.compile(rb"<([^>]*)>")


class Content:
    """The content of one message as it arrives: its id, hash, and copy if messages are kept."""

    def __init__(self, copy: IO[bytes] | None = None) -> None:
        self.id = "-"
        self.size = 0
        self._hash = hashlib.sha256()
        self._head: bytes | None = b""
        self._copy = copy

    def feed(self, octets: bytes) -> None:
        """Add octets, without dot-stuffing."""
        if self._copy is not None:
            self._copy.write(octets)
        if self._head is None:
            self._add(octets)
            return
        self._head += octets
        start = self._head.find(MARK)
        if start >= 0 and self._head.find(b"\n", start) >= 0:
            self.id = self._head[start + len(MARK) :].split(b"\n", 1)[0].strip().decode("ascii")
            self._add(self._head[start:])
            self._head = None
        elif len(self._head) > _MARK_WITHIN:
            self._add(self._head)
            self._head = None

    def _add(self, octets: bytes) -> None:
        self._hash.update(octets)
        self.size += len(octets)

    def digest(self) -> str:
        """Return the hash of all octets."""
        if self._head is not None:
            self._add(self._head)
            self._head = None
        if self._copy is not None:
            self._copy.close()
            self._copy = None
        return self._hash.hexdigest()


class Taking(Protocol):
    """What a session uses of the sink.

    Attributes:
        delay: mean seconds before the reply to a message.
    """

    delay: float

    def content(self) -> tuple[Content, Path | None]:
        """Return a new content and the path of its copy; None: no copy."""
        ...

    def enter(self, content: Content, recipients: list[str], at: float) -> None:
        """Record a message whose final dot came at the wall time ``at``."""
        ...


class Options:
    """The options of the sink, and its ledger."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.delay: float = arguments.delay
        self.messages: Path | None = arguments.messages
        self.taken = 0
        if self.messages is not None:
            self.messages.mkdir(exist_ok=True)
        self._ledger: IO[str] = arguments.ledger.open("a", encoding="utf-8")

    def content(self) -> tuple[Content, Path | None]:
        """Return a new content and the path of its copy; None: no copy."""
        self.taken += 1
        if self.messages is None:
            return Content(), None
        path = self.messages / f"{time.time():.6f}.{self.taken}.part"
        return Content(path.open("wb")), path

    def enter(self, content: Content, recipients: list[str], at: float) -> None:
        """Record a message; return when other processes can read it."""
        words = (f"{at:.6f}", content.id, content.digest(), str(content.size), *recipients)
        self._ledger.write(" ".join(words) + "\n")
        self._ledger.flush()

    def close(self) -> None:
        """Close the ledger."""
        self._ledger.close()


class Session(asyncio.Protocol):
    """One connection: strict about the end of DATA, lenient about the envelope."""

    transport: asyncio.Transport

    def __init__(self, options: Taking) -> None:
        self._options = options
        self._held = bytearray()
        self._content: Content | None = None
        self._copy: Path | None = None
        self._recipients: list[str] = []
        self._first = True
        self._closed = False
        self._waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._say("220 sink.example ESMTP")

    def connection_lost(self, _: Exception | None) -> None:
        self._closed = True

    def _say(self, *lines: str) -> None:
        self.transport.write("".join(f"{line}\r\n" for line in lines).encode("ascii"))

    def data_received(self, octets: bytes) -> None:
        self._held += octets
        self._go_on()

    def _go_on(self) -> None:
        while not self._waiting and not self._closed:
            if self._content is not None:
                if not self._read_content():
                    return
                continue
            end = self._held.find(b"\r\n")
            if end < 0:
                return
            line = bytes(self._held[:end])
            del self._held[: end + 2]
            self._command(line)

    def _command(self, line: bytes) -> None:
        verb = line[:4].upper()
        if verb == b"EHLO":
            self._say("250-sink.example", "250-PIPELINING", "250-8BITMIME", "250 SIZE")
        elif verb == b"MAIL":
            self._recipients = []
            self._say("250 sender")
        elif verb == b"RCPT":
            path = _PATH.search(line)
            self._recipients.append(path[1].decode("utf-8", "replace") if path else "?")
            self._say("250 recipient")
        elif verb == b"DATA":
            self._content, self._copy = self._options.content()
            self._held[:0] = b"\r\n"  # the line end before the first line
            self._first = True
            self._say("354 go on")
        elif verb == b"QUIT":
            self._say("221 bye")
            self.transport.close()
            self._closed = True
        else:
            self._say("250 fine")

    def _read_content(self) -> bool:
        """Consume the received content; return whether it is complete."""
        assert self._content is not None
        held = self._held
        end = held.find(b"\r\n.\r\n")
        if end >= 0:
            self._take(end + 2)
            del held[:3]
            self._complete()
            return True
        cut = len(held) - 4
        if cut > 0:
            # Never split CR LF DOT DOT, which begins with its only CR.
            start = held.rfind(b"\r", max(0, cut - 3), cut)
            self._take(start if start >= 0 else cut)
        return False

    def _take(self, count: int) -> None:
        assert self._content is not None
        octets = bytes(self._held[:count]).replace(b"\r\n.", b"\r\n")  # RFC 5321 §4.5.2
        del self._held[:count]
        if self._first and octets:
            octets = octets[2:]
            self._first = False
        self._content.feed(octets)

    def _complete(self) -> None:
        content, copy, recipients = self._content, self._copy, self._recipients
        assert content is not None
        self._content = None
        at = time.time()

        def answer() -> None:
            self._waiting = False
            self._options.enter(content, recipients, at)
            if copy is not None:
                copy.rename(copy.with_suffix(".eml"))
            if not self._closed:
                self._say("250 taken")
                self._go_on()

        if self._options.delay:
            self._waiting = True
            delay = random() * 2 * self._options.delay
            asyncio.get_running_loop().call_later(delay, answer)
        else:
            answer()


async def serve(arguments: argparse.Namespace) -> None:
    """Listen until the process ends."""
    options = Options(arguments)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Session(options), arguments.host, arguments.port, backlog=1024
    )
    print("listening", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--messages", type=Path)
    parser.add_argument("--delay", type=float, default=0.0, help="mean seconds before the 250")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
