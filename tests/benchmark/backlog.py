"""``python -m tests.benchmark.backlog``: the cost of a queue by its length.

Each row is a separate queue over 10,000 domains, a tenth of it for one blocked domain. A start
waits for opening and survey; one lease takes 200 messages of 200 domains, another skips the blocked
domain; messages are accepted and settled in batches of 64.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.body import MemoryBody
from twisted_mta.mail.envelope import Envelope, Recipient, RecipientNumber
from twisted_mta.mail.message import Message
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.queue.ids import first_id
from twisted_mta.queue.store.contract import Accept, Lease, Operation, Settle, Survey, Want
from twisted_mta.queue.store.spool import Spool
from twisted_mta.queue.store.sqlite import SQLiteStore
from twisted_mta.system.executors import inline_executor
from twisted_mta.system.files import DiskFiles

from ..functional.machine import folder

_NOW = 1_800_000_000.0
_BLOCKED = "blocked.example"


def _message(number: int, domain: str, octets: int) -> Message:
    return Message(
        QueueId(first_id(_NOW) + number),
        Envelope(
            Mailbox("ann", "sender.example"),
            (Recipient(RecipientNumber(0), Mailbox(f"user{number}", domain)),),
        ),
        b"Received: by mta.example\r\n",
        MemoryBody(b"x" * octets),
        _NOW + number / 1000,
        _NOW + 432000,
    )


def _timed(what: Callable[[], object]) -> float:
    """Return the milliseconds of a call."""
    began = time.perf_counter()
    what()
    return (time.perf_counter() - began) * 1000


def _best(store: SQLiteStore, times: int, batch: Callable[[int], Sequence[Operation]]) -> float:
    batches = [batch(number) for number in range(times)]
    return min(_timed(partial(store.apply, each)) for each in batches)


def _resident() -> float:
    """Return the resident memory of this process, in MiB."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / (1 << 20)


def measure(home: str, messages: int, octets: int) -> dict[str, float]:
    """Fill a queue, open it like a start, and measure operations on it."""
    files = DiskFiles()
    spool = Spool(os.path.join(home, "body"), files=files, executor=inline_executor)
    path = os.path.join(home, "queue.sqlite")
    store = SQLiteStore(path, spool=spool, files=files)
    store.open()
    draw = random.Random(1)
    for start in range(0, messages, 2000):
        store.apply(
            [
                Accept(
                    _message(
                        number,
                        f"{draw.randrange(10_000)}.example" if number % 10 else _BLOCKED,
                        octets,
                    ),
                    lease=False,
                )
                for number in range(start, min(start + 2000, messages))
            ]
        )
    store.close()
    store = SQLiteStore(path, spool=spool, files=files)
    figures = {"open": _timed(store.open)}
    now = _NOW + 1e6
    figures["survey"] = _timed(lambda: store.apply([Survey(now, now + 4000)]))

    def wants(number: int) -> Sequence[Operation]:
        return [Lease(now, tuple(Want(f"{number * 200 + n}.example", 1) for n in range(200)))]

    def sweep(number: int) -> Sequence[Operation]:
        return [Lease(now, (Want(_BLOCKED, 100, first_id(_NOW - 1)),))]

    def accept(number: int) -> Sequence[Operation]:
        first = 10_000_000 + number * 64
        return [
            Accept(_message(first + each, f"{draw.randrange(10_000)}.example", 4096))
            for each in range(64)
        ]

    def settle(number: int) -> Sequence[Operation]:
        return [
            Settle(each.message, done=(RecipientNumber(0),), at=now)
            for each in accept(number)
            if isinstance(each, Accept)
        ]

    figures["lease 200"] = _best(store, 5, wants)
    figures["sweep"] = _best(store, 5, sweep)
    figures["accept 64"] = _best(store, 20, accept)
    figures["settle 64"] = _best(store, 20, settle)
    figures["RSS"] = _resident()
    store.close()
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all lengths and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark.backlog", description=__doc__)
    parser.add_argument("--messages", type=int, nargs="*", default=[1000, 10_000, 100_000])
    parser.add_argument("--octets", type=int, default=300, help="of each body in the queue (300)")
    options = parser.parse_args(arguments)
    for number, messages in enumerate(options.messages):
        with folder("backlog") as home:
            figures = measure(os.fspath(home), messages, options.octets)
        if not number:
            print("messages".rjust(10), *(name.rjust(10) for name in figures))
            print(
                " " * 10, *("MiB" if name == "RSS" else "ms" for name in figures), sep="         "
            )
        print(f"{messages:10}", *(f"{figure:10.2f}" for figure in figures.values()), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
