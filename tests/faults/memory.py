"""The memory that many large messages take at once, each far larger than the limit in memory."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from ..functional.machine import LOOPBACK, Unready, eventually
from ..functional.mail import message
from ..functional.mta import MTA
from ..functional.sinks import Sink

MIB = 1024 * 1024
SENDERS = 20
LARGE = 40 * MIB
MOST = 64 * MIB
"""Octets by which the memory of the MTA may grow."""

_PIECE = (b"0123456789abcdef" * 4 + b"\r\n") * 1000


@frozen
class Measured:
    """Resident memory, in octets.

    Attributes:
        before: after a few small messages.
        peak: the maximum while all large messages were received, stored and delivered.
        senders: number of messages at once.
        size: octets of each message.
    """

    before: int
    peak: int
    senders: int
    size: int

    @property
    def growth(self) -> int:
        """Octets by which the memory has grown."""
        return self.peak - self.before

    @property
    def within(self) -> bool:
        """Whether that is allowed."""
        return self.growth < MOST

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"{self.senders} messages of {self.size / MIB:.0f} MiB at once: resident memory grew "
            f"by {self.growth / MIB:.1f} MiB, from {self.before / MIB:.1f} to "
            f"{self.peak / MIB:.1f} MiB (allowed: {MOST / MIB:.0f} MiB)"
        )


def resident(pid: int, field: str) -> int:
    """Return ``VmRSS`` (now) or ``VmHWM`` (the maximum so far) of a process, in octets."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    match = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
    assert match is not None
    return int(match[1]) * 1024


def _pieces(size: int) -> Iterator[bytes]:
    yield message("Large", "")
    while size > 0:
        yield _PIECE
        size -= len(_PIECE)
    yield b".\r\n"


def _send(port: int, size: int, recipients: tuple[str, ...], answers: list[bytes]) -> None:
    with socket.create_connection((LOOPBACK, port), 300.0) as connection:
        replies = connection.makefile("rb")

        def expect(code: bytes) -> bytes:
            while (line := replies.readline())[3:4] == b"-":
                pass
            if not line.startswith(code):
                raise Unready(f"expected {code!r}, got {line!r}")
            return line

        expect(b"220")
        for command, code in (
            ("EHLO large.example", b"250"),
            (f"MAIL FROM:<> SIZE={size + 1000}", b"250"),
            *((f"RCPT TO:<{recipient}>", b"250") for recipient in recipients),
            ("DATA", b"354"),
        ):
            connection.sendall(f"{command}\r\n".encode("ascii"))
            expect(code)
        for piece in _pieces(size):
            connection.sendall(piece)
        answers.append(expect(b"250"))


def grown_by(home: Path, senders: int = SENDERS, size: int = LARGE) -> Measured:
    """Send ``senders`` messages of ``size`` octets at once, each to a Maildir and to a next hop.

    Raises:
        Unready: not all of them were taken and delivered.
    """
    with (
        Sink(home, keep=False) as sink,
        MTA(home, "--route", f"relay.example=smtp://{LOOPBACK}:{sink.port}") as mta,
    ):
        recipients = ("large@localhost", "large@relay.example")
        _send(mta.smtp, 1024, recipients, [])
        stored = mta.maildir("localhost", "large") / "new"

        def arrived(count: int) -> None:
            def enough() -> bool:
                local = len(list(stored.glob("*"))) if stored.is_dir() else 0
                return local >= count and sink.ledger.read_text("utf-8").count("\n") >= count

            eventually(enough, f"{count} messages in the Maildir and at the next hop", 300.0)

        arrived(1)
        before = resident(mta.pid, "VmRSS")
        answers: list[bytes] = []
        threads = [
            threading.Thread(target=_send, args=(mta.smtp, size, recipients, answers))
            for _ in range(senders)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if len(answers) != senders:
            raise Unready(f"only {len(answers)} of {senders} messages were taken:\n{mta.output()}")
        arrived(senders + 1)
        return Measured(before, resident(mta.pid, "VmHWM"), senders, size)
