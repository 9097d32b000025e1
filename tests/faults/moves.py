"""Moves of a queue to PostgreSQL and back that are killed at random moments, and what arrives."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from attrs import evolve, frozen

from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.body import Body
from twisted_mta.mail.envelope import Envelope, Recipient, RecipientNumber
from twisted_mta.mail.message import Message
from twisted_mta.queue.ids import QueueIds
from twisted_mta.queue.store.contract import Accept
from twisted_mta.queue.store.spool import Spool
from twisted_mta.queue.store.sqlite import SQLiteStore
from twisted_mta.system.executors import inline_executor
from twisted_mta.system.files import DiskFiles

from ..functional.machine import LOOPBACK, Unready, eventually, free_port
from ..functional.mta import MTA, TOOL
from ..functional.postgresql import PostgreSQL
from ..functional.program import Program
from ..functional.sinks import Sink
from .load import content
from .oracle import Offer, Verdict, judge, outstanding, read_copies

_CONFIGURATION = '[queue]\nretry_minimum = "1 s"\nretry_maximum = "2 s"\n'
_BATCH = 100  # messages that are put into the queue at once


def fill(directory: Path, contents: Sequence[tuple[str, bytes, Sequence[str]]]) -> None:
    """Put messages into the queue of a stopped MTA.

    Args:
        directory: its state directory; the queue is made if there is none.
        contents: name, content and recipients of each message.
    """
    files = DiskFiles()
    directory.mkdir(mode=0o700, exist_ok=True)
    spool = Spool(str(directory / "body"), files=files, executor=inline_executor)
    store = SQLiteStore(str(directory / "queue.sqlite"), spool=spool, files=files)
    ids = QueueIds(wall_time=time.time, random=random.Random(0))
    store.open()
    try:
        for start in range(0, len(contents), _BATCH):
            accepts = []
            for _, octets, recipients in contents[start : start + _BATCH]:
                message = Message(
                    id=ids(),
                    envelope=Envelope(
                        Mailbox("campaign", "sender.example"),
                        tuple(
                            Recipient(RecipientNumber(number), Mailbox.parse(recipient))
                            for number, recipient in enumerate(recipients)
                        ),
                    ),
                    trace=b"Received: from load.example by mta.example\r\n",
                    body=_NONE,
                    received_at=time.time(),
                    expires_at=time.time() + 86400,
                )
                accepts.append(Accept(_with_body(message, octets, spool), lease=False))
            store.apply(accepts)
    finally:
        store.close()


class _Nothing:
    size = 0

    def chunks(self) -> Any:
        return iter(())


_NONE: Body = _Nothing()


def _with_body(message: Message, octets: bytes, spool: Spool) -> Message:
    writer = spool.new_body(message.id)
    writer.write(octets)
    sealed: Any = writer.seal()
    bodies: list[Body] = []
    if hasattr(sealed, "addCallback"):
        sealed.addCallback(bodies.append)
    return evolve(message, body=bodies[0] if bodies else sealed)


@frozen
class Speed:
    """How fast a queue moved.

    Attributes:
        way: ``--to`` or ``--from``.
        messages: that moved.
        seconds: that it took.
        memory: octets of the process at most.
    """

    way: str
    messages: int
    seconds: float
    memory: int

    def __str__(self) -> str:
        return (
            f"{self.way}: {self.messages:,} messages in {self.seconds:.1f} s,"
            f" {self.messages / self.seconds:,.0f} a second, {self.memory / 2**20:.0f} MiB"
        )


def measured(home: Path, messages: int, size: int) -> list[Speed]:
    """Move a queue to PostgreSQL and back; return how fast that was.

    Args:
        home: a folder for all files, which other users may enter.
        messages: in the queue.
        size: octets of each.
    """
    octets = b"Subject: x\r\n\r\n" + b"x" * 70 + b"\r\n"
    octets = (octets * (size // len(octets) + 1))[:size]
    fill(home / "state", [(str(each), octets, ["u@relay.example"]) for each in range(messages)])
    speeds = []
    with PostgreSQL(home) as database:
        for way in ("--to", "--from"):
            words = ("queue", "move", way, database.url, "--state-dir", str(home / "state"))
            began = time.monotonic()
            process = subprocess.Popen([str(TOOL), *words])
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise Unready(f"the move {way} ended with {process.returncode}")
            took = time.monotonic() - began
            speeds.append(Speed(way, messages, took, usage.ru_maxrss * 1024))
    return speeds


class MoveCampaign:
    """Kills moves, lets MTAs deliver in between, and judges what arrived.

    Args:
        home: a folder for all files, which other users may enter.
        seed: of the moments and of the messages.
        messages: in the queue.
        say: called with a line about each round.
    """

    def __init__(
        self,
        home: Path,
        *,
        seed: int = 0,
        messages: int = 600,
        say: Callable[[str], object] = lambda line: None,
    ) -> None:
        self._random = random.Random(seed)
        self._say = say
        self._database = PostgreSQL(home)
        self._sink = Sink(home, keep=False)
        self._sink.port = free_port()
        route = ("--route", f"relay.example=smtp://{LOOPBACK}:{self._sink.port}")
        self._file = MTA(self._folder(home, "file"), *route, toml=_CONFIGURATION)
        shared = ("--queue", self._database.url)
        self._machine = MTA(self._folder(home, "machine"), *route, *shared, toml=_CONFIGURATION)
        self._tool = Program(home, "move.log")
        contents = [
            (
                str(number),
                content(str(number), seed),
                [f"user{each}@relay.example" for each in range(self._random.choice((1, 1, 2)))],
            )
            for number in range(messages)
        ]
        self._offers = {
            name: Offer(hashlib.sha256(octets).hexdigest(), tuple(recipients), True, True)
            for name, octets, recipients in contents
        }
        fill(self._file.state, contents)
        self.kills = 0
        self.moves = 0

    @staticmethod
    def _folder(home: Path, name: str) -> Path:
        (home / name).mkdir()
        return home / name

    def run(self, kills: int) -> Verdict:
        """Kill ``kills`` moves, let all mail be delivered, and return the verdict."""
        ways = ("--to", "--from")
        way = 0
        try:
            self._database.start()
            took = self._whole(ways[0])
            way = 1
            while self.kills < kills:
                if self._killed(ways[way], took * self._random.uniform(0.3, 1.1)):
                    self.kills += 1
                    self._say(f"move {ways[way]} killed, {self.kills} times")
                    self._let_some_out()
                else:
                    self.moves += 1
                    way = 1 - way
            self._whole(ways[way])
            self._drain(self._machine if way == 0 else self._file)
        finally:
            for program in (self._tool, self._file, self._machine, self._sink, self._database):
                program.kill()
        return judge(self._offers, self._copies(), faults=())

    def _spawn(self, way: str) -> None:
        self._tool.spawn(
            [
                TOOL,
                *("queue", "move", way, self._database.url),
                *("--state-dir", self._file.state),
            ]
        )

    def _whole(self, way: str) -> float:
        """Move all; return how long that took, in seconds."""
        began = time.monotonic()
        self._spawn(way)
        if self._tool.wait():
            raise Unready(self._tool.output())
        self.moves += 1
        return time.monotonic() - began

    def _killed(self, way: str, after: float) -> bool:
        """Begin a move and kill it; return False where it was done before."""
        self._spawn(way)
        deadline = time.monotonic() + after
        while time.monotonic() < deadline and self._tool.alive():
            time.sleep(0.01)
        if self._tool.alive():
            self._tool.kill()
            return True
        if self._tool.wait():
            raise Unready(self._tool.output())
        return False

    def _let_some_out(self) -> None:
        """Let an MTA on one of the sides run for a moment: with or without its next hop."""
        if self._random.random() < 0.6:
            return
        mta = self._random.choice((self._file, self._machine))
        if mta is self._file and not (mta.state / "queue.sqlite").exists():
            return
        with_sink = self._random.random() < 0.5
        if with_sink:
            self._sink.start("--delay", "0.2")
        mta.start()
        time.sleep(0.5 * self._random.random())
        if status := mta.terminate():
            raise Unready(f"exit status {status}\n{mta.output()}")
        self._sink.kill()
        with psycopg.connect(self._database.url, autocommit=True) as database:
            # It is known to be gone: spare the wait for its leases.
            database.execute(
                "UPDATE twisted_mta.worker SET seen = seen - interval '1 hour'"
                " WHERE seen <> 'infinity'"
            )
        self._say(f"an MTA ran in between; {len(self._copies())} copies have arrived")

    def _drain(self, mta: MTA) -> None:
        self._sink.start()
        mta.start()
        eventually(partial(self._is_drained), "all mail to arrive", 120.0)
        if status := mta.terminate():
            raise Unready(f"exit status {status}\n{mta.output()}")

    def _is_drained(self) -> bool:
        time.sleep(0.2)
        return not outstanding(self._offers, self._copies())

    def _copies(self) -> list[Any]:
        if not self._sink.ledger.exists():
            return []
        text = self._sink.ledger.read_text("utf-8")
        return read_copies(text[: text.rfind("\n") + 1].splitlines())
