"""The time until the final ``250``, with messages at a given rate, independent of the replies.

    python -m tests.benchmark.latency PORT --rate 500 --seconds 5

The times at which messages are due are drawn beforehand (a Poisson process), and no message waits
for the reply to another while connections are free: a server that stalls for a second still gets
the messages of that second. Two times of each message are measured: from its final dot to the
``250``, and from its due time to the ``250``, which is the whole delay of a sender.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence

from ..functional.machine import LOOPBACK
from .client import ENVELOPE, content
from .results import percentile

_COMMANDS = b"".join(command for command, _ in ENVELOPE)


class Sender(asyncio.Protocol):
    """One connection, which sends the next due message when it is free.

    Args:
        load: the source of messages.
    """

    transport: asyncio.Transport

    def __init__(self, load: Load) -> None:
        self._load = load
        self._held = b""
        self._due: float | None = None
        self._dot = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        self._load.fail("a connection was closed")

    def data_received(self, octets: bytes) -> None:
        self._held += octets
        while (end := self._held.find(b"\n")) >= 0:
            line, self._held = self._held[: end + 1], self._held[end + 1 :]
            if line[3:4] != b"-":
                self._reply(line)

    def _reply(self, line: bytes) -> None:
        if line.startswith(b"220"):
            self.transport.write(b"EHLO client.example\r\n")
        elif line.startswith(b"354"):
            self._dot = time.perf_counter()
            self.transport.write(self._load.message)
        elif not line.startswith(b"250"):
            self._load.fail(line.decode("ascii", "replace"))
        elif self._dot:
            assert self._due is not None
            now = time.perf_counter()
            self._load.done(now - self._dot, now - self._due)
            self._due, self._dot = None, 0.0
            self._load.free(self)
        elif self._due is None:
            self._load.free(self)  # the reply to EHLO

    def send(self, due: float) -> None:
        """Begin a message: MAIL, RCPT and DATA in one write (RFC 2920)."""
        self._due = due
        self.transport.write(_COMMANDS)


class Load:
    """The due messages, the free senders, and the measured times.

    Args:
        octets: of each message.
    """

    def __init__(self, octets: int) -> None:
        self.message = content(octets)
        self.final: list[float] = []
        self.whole: list[float] = []
        self.idle: deque[Sender] = deque()
        self.waiting: deque[float] = deque()
        self.failure = ""
        self.missing = 0

    def free(self, sender: Sender) -> None:
        """Give a free sender the message that has waited longest."""
        if self.waiting:
            sender.send(self.waiting.popleft())
        else:
            self.idle.append(sender)

    def due(self, at: float) -> None:
        """Send a message now, or as soon as a sender is free."""
        if self.idle:
            self.idle.popleft().send(at)
        else:
            self.waiting.append(at)

    def done(self, final: float, whole: float) -> None:
        """Record the two times (seconds) of an accepted message."""
        self.final.append(final)
        self.whole.append(whole)
        self.missing -= 1

    def fail(self, why: str) -> None:
        """Record a failure; the first counts."""
        if self.missing:
            self.failure = self.failure or why


async def drive(port: int, rate: float, seconds: float, connections: int, octets: int) -> Load:
    """Send for ``seconds``, and wait for the last reply.

    Raises:
        RuntimeError: a message was not accepted.
    """
    loop = asyncio.get_running_loop()
    load = Load(octets)
    draw = random.Random(1)
    offsets = []
    at = 0.0
    while (at := at + draw.expovariate(rate)) < seconds:
        offsets.append(at)
    load.missing = len(offsets)
    transports = [
        (await loop.create_connection(lambda: Sender(load), LOOPBACK, port))[0]
        for _ in range(connections)
    ]
    while len(load.idle) < connections and not load.failure:
        await asyncio.sleep(0.01)
    start = time.perf_counter() + 0.1
    for offset in offsets:
        late = start + offset - time.perf_counter()
        if late > 0.0005:
            await asyncio.sleep(late)
        elif not len(load.final) % 16:
            await asyncio.sleep(0)  # read replies even when behind schedule
        if load.failure:
            break
        # A sleep may end a little early.
        load.due(min(start + offset, time.perf_counter()))
    while load.missing and not load.failure:
        await asyncio.sleep(0.01)
    for transport in transports:
        transport.close()
    await asyncio.sleep(0)  # lets them close
    if load.failure:
        raise RuntimeError(load.failure)
    return load


def started(port: int, rate: float, seconds: float) -> subprocess.Popen[str]:
    """Start this generator with messages of 4 KiB, as a process; it writes its result as JSON."""
    words = ("--rate", str(rate), "--seconds", f"{seconds:.0f}", "--octets", "4096")
    return subprocess.Popen(
        [sys.executable, "-m", "tests.benchmark.latency", str(port), *words],
        stdout=subprocess.PIPE,
        encoding="ascii",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Send messages, and print the results as a line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark.latency", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--rate", type=float, required=True, help="messages a second")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=40, help="at the most (40)")
    parser.add_argument("--octets", type=int, default=4096)
    options = parser.parse_args(arguments)
    used = time.process_time()
    load = asyncio.run(
        drive(options.port, options.rate, options.seconds, options.connections, options.octets)
    )
    result = {
        "CPU of the generator, %": (time.process_time() - used) / options.seconds * 100,
        "p50 ms": percentile(load.final, 0.5) * 1000,
        "p99 ms": percentile(load.final, 0.99) * 1000,
        "p50 ms from when due": percentile(load.whole, 0.5) * 1000,
        "p99 ms from when due": percentile(load.whole, 0.99) * 1000,
        "max ms from when due": max(load.whole) * 1000,
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
