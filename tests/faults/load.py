"""A load generator with a ledger of the messages that it offered, and of their replies.

It runs as a program of its own, outside the reach of the faults, on the standard library alone:

    python tests/faults/load.py --port PORT --ledger FILE --seed N --rate MESSAGES_PER_SECOND

until it is terminated. It keeps connecting while the MTA is down, never offers a message twice,
and writes to its ledger, each line before the next octet goes out:

    offered <time> <id> <SHA-256> <octets> <recipient> …     before the final dot
    acked <time> <id> <reply>                                after 250
    refused <time> <id> <reply>                              after any other reply

An id that was offered and has no second line was in flight as the connection broke.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import random
import signal
import sys
import time
from pathlib import Path
from typing import IO

SENDER = "campaign@localhost"
"""The reverse-path: a mailbox of the MTA itself."""

RECIPIENTS = (
    *(f"user{number}@localhost" for number in range(8)),
    *(f"user{number}@relay.example" for number in range(8)),
)

_KIB = 1024
_PER_CONNECTION = 20
_PATIENCE = 20.0  # seconds to wait for the last replies


class Broken(Exception):
    """The connection ended, or the server spoke out of turn."""


_SIZES = (1, 2, 4, 8, 16, 32, 63, 64, 65, 100, 300)  # KiB
_SMALL = (*(1, 2, 3, 4) * 24, 8, 16, 65, 100)


def content(name: str, seed: int, *, small: bool = False) -> bytes:
    """Return the message with the id ``name``, the same for the same seed: CR LF, some dots.

    Most are small; some are over 64 KiB, the size from which a queue may keep bodies apart.

    Args:
        name: the id.
        seed: of all messages.
        small: whether only few are larger than 4 KiB.
    """
    draw = random.Random(f"{seed} {name}")
    size = draw.choice(_SMALL if small else _SIZES) * _KIB + draw.randrange(_KIB)
    text = draw.randbytes(size // 2).hex()
    lines = [f"X-Campaign: {name}", f"From: <{SENDER}>", f"Subject: {name}", ""]
    start = 0
    while start < len(text):
        length = draw.choice((0, 40, 72, 76, 120, 990))
        lines.append("." * draw.randrange(3) + text[start : start + length])
        start += length
    return "\r\n".join((*lines, "")).encode("ascii")


class Ledger:
    """The ledger of offers and replies; each line is in the file before the caller goes on."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def enter(self, kind: str, *words: str) -> None:
        """Write one line."""
        self._file.write(f"{kind} {time.time():.6f} {' '.join(words)}\n")
        self._file.flush()


class Connection:
    """One client connection, one command at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def reply(self) -> bytes:
        """Return the last line of the next reply."""
        while True:
            line = await self._reader.readline()
            if not line.endswith(b"\n"):
                raise Broken
            if line[3:4] != b"-":
                return line.rstrip()

    async def ask(self, octets: bytes) -> bytes:
        """Send ``octets`` and return the reply."""
        self._writer.write(octets)
        await self._writer.drain()
        return await self.reply()

    async def must(self, octets: bytes, code: bytes) -> None:
        """Send ``octets`` and go on only if the reply has this code."""
        if not (await self.ask(octets)).startswith(code):
            raise Broken

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()


class Load:
    """All senders, with ids, pace and ledger in common."""

    def __init__(self, arguments: argparse.Namespace, ledger: Ledger) -> None:
        self._host: str = arguments.host
        self._port: int = arguments.port
        self._prefix: str = arguments.prefix
        self._small: bool = arguments.small
        self._recipients = [each for each in RECIPIENTS if each.endswith(arguments.domain)]
        self._seed: int = arguments.seed
        self._pause: float = arguments.senders / arguments.rate
        self._ledger = ledger
        self._numbers = itertools.count(1)
        self._draw = random.Random(arguments.seed)
        self.ending = False

    async def send_on(self) -> None:
        """Send messages one after the other, over one connection after the other."""
        while not self.ending:
            try:
                reader, writer = await asyncio.open_connection(self._host, self._port)
            except OSError:
                self._ledger.enter("disturbed", "unconnected")
                await asyncio.sleep(0.05)
                continue
            connection = Connection(reader, writer)
            try:
                await self._converse(connection)
            except (OSError, Broken):
                self._ledger.enter("disturbed", "broken")
            connection.close()

    async def _converse(self, connection: Connection) -> None:
        await connection.reply()
        await connection.must(b"EHLO load.example\r\n", b"250")
        for _ in range(_PER_CONNECTION):
            if self.ending:
                break
            await self._offer(connection)
            await asyncio.sleep(self._draw.random() * 2 * self._pause)
        await connection.ask(b"QUIT\r\n")

    async def _offer(self, connection: Connection) -> None:
        name = f"{self._prefix}{next(self._numbers)}"
        recipients = self._draw.sample(self._recipients, self._draw.choice((1, 1, 1, 2, 3)))
        text = content(name, self._seed, small=self._small)
        await connection.must(f"MAIL FROM:<{SENDER}>\r\n".encode("ascii"), b"250")
        for recipient in recipients:
            await connection.must(f"RCPT TO:<{recipient}>\r\n".encode("ascii"), b"250")
        await connection.must(b"DATA\r\n", b"354")
        stuffed = text.replace(b"\r\n.", b"\r\n..")
        digest = hashlib.sha256(text).hexdigest()
        self._ledger.enter("offered", name, digest, str(len(text)), *recipients)
        answer = await connection.ask(stuffed + b".\r\n")
        if answer.startswith(b"250"):
            self._ledger.enter("acked", name, answer.decode("ascii", "replace"))
        else:
            self._ledger.enter("refused", name, answer.decode("ascii", "replace"))


async def send(arguments: argparse.Namespace) -> int:
    """Run all senders until SIGTERM; each finishes its message.

    Returns:
        How many of them still wait for a reply long after that.
    """
    with arguments.ledger.open("a", encoding="utf-8") as file:
        load = Load(arguments, Ledger(file))
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        senders = [asyncio.create_task(load.send_on()) for _ in range(arguments.senders)]
        await ended.wait()
        load.ending = True
        done, waiting = await asyncio.wait(senders, timeout=_PATIENCE)
        for sender in waiting:
            sender.print_stack()
        for sender in done:
            sender.result()
        return len(waiting)


def main() -> None:
    """Read the options and send."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--prefix", default="", help="of the ids")
    parser.add_argument("--domain", default="", help="of the recipients; all by default")
    parser.add_argument("--small", action="store_true", help="few messages over 4 KiB")
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--senders", type=int, default=16)
    parser.add_argument("--rate", type=float, default=200.0, help="messages a second, in all")
    sys.exit(asyncio.run(send(parser.parse_args())))


if __name__ == "__main__":
    main()
