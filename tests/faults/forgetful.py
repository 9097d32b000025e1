"""The campaign's negative control: a mail server that acknowledges mail in memory.

A campaign that finds no loss with it proves nothing about the MTA. Started in the place of the MTA:

    python tests/faults/forgetful.py SMTP_PORT MAILDIR SINK_PORT
"""

from __future__ import annotations

import asyncio
import io
import itertools
import signal
import smtplib
import sys
from pathlib import Path

if __package__:
    from ..functional.mta import MTA
    from ..functional.sink import Content, Session
else:  # as a program of its own
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
    from tests.functional.mta import MTA
    from tests.functional.sink import Content, Session

DELAY = 0.5
"""Seconds for which a message is in memory only."""


class Forgetful(MTA):
    """The forgetful server, with the interface of the MTA."""

    def command(self) -> list[str | Path]:
        """Return the command that starts it."""
        route = self.options[self.options.index("--route") + 1]
        return [
            sys.executable,
            Path(__file__),
            str(self.smtp),
            self.state / "maildir",
            route.rpartition(":")[2],
        ]


class _Memory(io.BytesIO):
    def close(self) -> None:
        """Keep the content."""


class Acceptance:
    """The options of a sink's `Session`, with delivery after a while."""

    delay = 0.0

    def __init__(self, maildir: Path, sink: int) -> None:
        self._maildir = maildir
        self._sink = sink
        self._names = itertools.count()
        self._held: dict[Content, _Memory] = {}
        self._lock = asyncio.Lock()

    def content(self) -> tuple[Content, None]:
        """Return a new content that is kept in memory."""
        memory = _Memory()
        content = Content(memory)
        self._held[content] = memory
        return content, None

    def enter(self, content: Content, recipients: list[str], at: float) -> None:
        """Take responsibility for a message without storing it."""
        octets = self._held.pop(content).getvalue()
        loop = asyncio.get_running_loop()
        loop.call_later(DELAY, lambda: loop.create_task(self._deliver(octets, recipients)))

    async def _deliver(self, octets: bytes, recipients: list[str]) -> None:
        remote = [one for one in recipients if not one.endswith("@localhost")]
        for recipient in recipients:
            if recipient not in remote:
                self._store(recipient.partition("@")[0], octets)
        if remote:
            async with self._lock:
                await asyncio.to_thread(self._relay, remote, octets)

    def _store(self, mailbox: str, octets: bytes) -> None:
        folder = self._maildir / "localhost" / mailbox
        for name in ("tmp", "new"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        name = f"{asyncio.get_running_loop().time():.6f}.{next(self._names)}"
        (folder / "tmp" / name).write_bytes(octets.replace(b"\r\n", b"\n"))
        (folder / "tmp" / name).rename(folder / "new" / name)

    def _relay(self, recipients: list[str], octets: bytes) -> None:
        with smtplib.SMTP("127.0.0.1", self._sink) as client:
            client.sendmail("campaign@localhost", recipients, octets)


async def serve(port: int, maildir: Path, sink: int) -> None:
    """Listen until SIGTERM."""
    loop = asyncio.get_running_loop()
    acceptance = Acceptance(maildir, sink)
    server = await loop.create_server(
        lambda: Session(acceptance), "127.0.0.1", port, backlog=1024, reuse_address=True
    )
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    port = server.sockets[0].getsockname()[1]
    print(f"ready: smtp tcp 127.0.0.1:{port}", flush=True)
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
