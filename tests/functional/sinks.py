"""Next hops that take any mail, as processes: our `sink`, and Postfix's smtp-sink."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from .machine import (
    LOOPBACK,
    free_port,
    listens,
    path_of,
)
from .program import Program


class Sink(Program):
    """The server of `tests.functional.sink`: takes any message and keeps a ledger.

    Args:
        home: folder of its ledger and messages.
        port: to listen on; 0: the system chooses.
        keep: whether messages are kept, not only their hashes.
    """

    def __init__(self, home: Path, *, port: int = 0, keep: bool = True) -> None:
        super().__init__(home, "sink.log")
        self.port = port
        self.keep = keep
        self.ledger = home / "sink.ledger"
        self.messages = home / "sink.messages"

    def start(self, *options: str) -> None:
        """Start it; return when it listens."""
        arguments: list[str | Path] = [
            sys.executable,
            Path(__file__).with_name("sink.py"),
            *("--port", str(self.port)),
            *("--ledger", self.ledger),
            *options,
        ]
        if self.keep:
            arguments += ["--messages", self.messages]
        self.spawn(arguments)
        self.port = int(self.wait_for(self._port, "the sink listens"))

    def _port(self) -> str:
        match = re.search(r"^listening (\d+)$", self.output(), re.MULTILINE)
        return match[1] if match else ""

    def received(self) -> list[bytes]:
        """Return all messages so far, in order of arrival."""
        return [path.read_bytes() for path in sorted(self.messages.glob("*.eml"))]

    def wait_for_messages(self, count: int = 1) -> list[bytes]:
        """Wait for ``count`` messages, and return all of them."""
        self.wait_for(lambda: len(self.received()) >= count, f"{count} messages at the sink")
        return self.received()


class SMTPSink(Program):
    """Postfix's smtp-sink, which counts and discards messages.

    Args:
        home: the working directory.
        options: further options of smtp-sink(1).
        host: the address that it listens on.
    """

    foreign = True

    def __init__(self, home: Path, *options: str, host: str = LOOPBACK) -> None:
        super().__init__(home, "smtp-sink.log")
        self.options = options
        self.host = host
        self.port = free_port()

    def start(self) -> None:
        """Start it; return when it listens."""
        user = ("-u", "nobody") if os.geteuid() == 0 else ()
        self.spawn(
            (
                path_of("smtp-sink"),
                "-c",
                *user,
                *self.options,
                f"inet:{self.host}:{self.port}",
                "1024",
            )
        )
        self.wait_for(lambda: listens(self.port), "smtp-sink listens")

    def count(self) -> int:
        """Return the number of messages so far."""
        with self.log.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - 256))
            counters = re.findall(rb"mesg=(\d+)", log.read())
        return int(counters[-1]) if counters else 0
