"""Does a queue in PostgreSQL stay as quick and as small as it was, however much mail goes through?

    python -m tests.benchmark.churn --messages 300000 --backlog 10000

A store, without SMTP, holds a constant backlog while messages enter and leave; one in twenty is
deferred once. A line for each part of the run shows the times of the operations (the median, and
that of 99 of 100), the write-ahead log for each message, and the sizes of the tables. The server
has the settings of the tests, and vacuums by those of the tables.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import psycopg
from attrs import Factory, define

from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.body import MemoryBody
from twisted_mta.mail.envelope import Envelope, Recipient, RecipientNumber
from twisted_mta.mail.message import Message
from twisted_mta.mail.outcome import Outcome
from twisted_mta.mail.reply import Reply
from twisted_mta.queue.ids import QueueIds
from twisted_mta.queue.store.contract import Accept, Deferral, Lease, Leased, Settle, Want
from twisted_mta.queue.store.postgresql.store import PostgreSQLStore
from twisted_mta.queue.store.spool import Spool
from twisted_mta.system.executors import inline_executor
from twisted_mta.system.files import DiskFiles

from ..functional.machine import folder
from ..functional.postgresql import PostgreSQL

_DOMAINS = 200
_BATCH = 64  # messages that enter, and leave, in one transaction
_TABLES = ("message", "recipient", "attempt", "worker")
_LATER = Reply.of(451, "4.1", "Come back later")


@define
class Times:
    """Seconds that the operations of a part took."""

    accept: list[float] = Factory(list)
    lease: list[float] = Factory(list)
    settle: list[float] = Factory(list)


class Churn:
    """One store and its mail.

    Args:
        home: a folder for copies of bodies.
        url: of the database.
        size: octets of a message.
    """

    def __init__(self, home: Path, url: str, *, size: int) -> None:
        files = DiskFiles()
        self._store = PostgreSQLStore(
            url,
            machine=lambda: "churn",
            slot=0,
            spool=Spool(str(home / "body"), files=files, executor=inline_executor),
            files=files,
            seconds=time.monotonic,
        )
        self._ids = QueueIds(wall_time=time.time, random=random.Random(0))
        self._body = MemoryBody(b"x" * size)
        self._draw = random.Random(1)
        self._domains = [f"d{number}.example" for number in range(_DOMAINS)]
        self._turn = count()
        self.times = Times()
        self._store.open()

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def accept(self, messages: int) -> None:
        """Let messages enter."""
        accepts = [Accept(self._message(), lease=False) for _ in range(messages)]
        began = time.monotonic()
        self._store.apply(accepts)
        self.times.accept.append(time.monotonic() - began)

    def _message(self) -> Message:
        now = time.time()
        mailbox = Mailbox("user", self._draw.choice(self._domains))
        return Message(
            id=self._ids(),
            envelope=Envelope(
                Mailbox("ann", "sender.example"), (Recipient(RecipientNumber(0), mailbox),)
            ),
            trace=b"Received: by mta.example\r\n",
            body=self._body,
            received_at=now,
            expires_at=now + 432_000,
        )

    def leave(self, messages: int) -> int:
        """Lease and settle messages of some domains; return how many left."""
        now = time.time()
        domains = [self._domains[next(self._turn) % _DOMAINS] for _ in range(8)]
        wants = tuple(Want(domain, messages // 8) for domain in domains)
        began = time.monotonic()
        (leased,) = self._store.apply([Lease(now, wants)])
        leased_at = time.monotonic()
        assert isinstance(leased, Leased)
        settles = [self._settle(each) for each in leased.messages]
        self._store.apply(settles)
        self.times.lease.append(leased_at - began)
        self.times.settle.append(time.monotonic() - leased_at)
        return sum(bool(each.done) for each in settles)

    def _settle(self, message: Message) -> Settle:
        (recipient,) = message.envelope.recipients
        now = time.time()
        if recipient.attempts == 0 and self._draw.random() < 0.05:
            outcome = Outcome(recipient.number, _LATER, "mx.example")
            return Settle(message, deferred=(Deferral(outcome, now + 1.0),), at=now)
        return Settle(message, done=(recipient.number,), at=now)


def _shown(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    last = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    return f"{statistics.median(ordered) * 1000:5.1f} {last * 1000:6.1f}"


def _sizes(url: str) -> str:
    with psycopg.connect(url, autocommit=True) as database:
        sizes = [
            database.execute(
                "SELECT pg_total_relation_size(%s::regclass)", (f"twisted_mta.{table}",)
            ).fetchall()[0][0]
            for table in _TABLES
        ]
    return " ".join(f"{size / 2**20:9.1f}" for size in sizes)


def _written(url: str) -> int:
    """Return the octets of the write-ahead log so far."""
    with psycopg.connect(url, autocommit=True) as database:
        [(octets,)] = database.execute(
            "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint"
        ).fetchall()
    return int(octets)


def run(home: Path, *, messages: int, backlog: int, size: int, parts: int) -> None:
    """Put messages through, and write a line for each part."""
    with PostgreSQL(home) as database:
        churn = Churn(home, database.url, size=size)
        for _ in range(0, backlog, _BATCH):
            churn.accept(_BATCH)
        print(
            "  messages  a second   accept ms       lease ms        settle ms     WAL KiB", end=" "
        )
        print("  MiB", " ".join(f"{table:>9}" for table in _TABLES))
        total = 0
        for part in range(1, parts + 1):
            churn.times = Times()
            began, before, written = time.monotonic(), total, _written(database.url)
            while total < messages * part // parts:
                left = churn.leave(_BATCH)
                if left:
                    churn.accept(left)
                total += left
            rate = (total - before) / (time.monotonic() - began)
            log = (_written(database.url) - written) / 1024 / (total - before)
            times = churn.times
            print(
                f"{total:10,} {rate:9,.0f}   {_shown(times.accept)}   {_shown(times.lease)}"
                f"   {_shown(times.settle)}   {log:5.1f}       {_sizes(database.url)}",
                flush=True,
            )
        churn.close()


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmark.churn",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--messages", type=int, default=300_000)
    parser.add_argument("--backlog", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=4096, help="octets of a message")
    parser.add_argument("--parts", type=int, default=10, help="lines of the report")
    arguments = parser.parse_args()
    with folder("churn") as home:
        run(
            home,
            messages=arguments.messages,
            backlog=arguments.backlog,
            size=arguments.size,
            parts=arguments.parts,
        )


if __name__ == "__main__":
    main()
