"""A long queue of deferred mail, written to the store before a start of the MTA."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from twisted_mta.agent.shard import shard_directory
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.body import MemoryBody
from twisted_mta.mail.envelope import Envelope, Recipient, RecipientNumber
from twisted_mta.mail.message import Message
from twisted_mta.mail.outcome import Outcome
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.mail.reply import Reply
from twisted_mta.queue.ids import first_id
from twisted_mta.queue.store.contract import Accept, Deferral, Operation, Settle
from twisted_mta.queue.store.spool import Spool
from twisted_mta.queue.store.sqlite import SQLiteStore
from twisted_mta.system.executors import inline_executor
from twisted_mta.system.files import DiskFiles
from twisted_mta.system.real_world import wall_time

DESTINATIONS = 10_000
LENGTHS = (1000, 10_000, 100_000, 1_000_000)

_BATCH = 1000
_FIRST_DUE = 1800.0  # seconds from now: no message is due during a measurement
_LAST_DUE = 3500.0  # less than the longest wait between two attempts
_REPLY = Reply.of(451, "4.1", "Connection timed out")


def scenario(messages: int) -> str:
    """Return the name of the scenario with ``messages`` queued."""
    return f"{messages:,} queued"


def _batches(messages: int, octets: int) -> Iterator[Sequence[Operation]]:
    now = wall_time()
    body = MemoryBody(b"x" * octets)
    for start in range(0, messages, _BATCH):
        operations: list[Operation] = []
        for number in range(start, min(start + _BATCH, messages)):
            to = Mailbox(f"user{number}", f"{number * 7919 % DESTINATIONS}.example")
            message = Message(
                QueueId(first_id(now - 600) + number),
                Envelope(Mailbox("ann", "sender.example"), (Recipient(RecipientNumber(0), to),)),
                b"Received: by mta.example\r\n",
                body,
                now - 600,
                now + 432000,
            )
            due = now + _FIRST_DUE + (_LAST_DUE - _FIRST_DUE) * number / messages
            outcome = Outcome(RecipientNumber(0), _REPLY)
            operations += (
                Accept(message),
                Settle(message, deferred=(Deferral(outcome, due),), at=now),
            )
        yield operations


def opened(home: Path) -> SQLiteStore:
    """Open the store in a folder like the MTA; the caller closes it."""
    files = DiskFiles()
    spool = Spool(str(home / "body"), files=files, executor=inline_executor)
    store = SQLiteStore(str(home / "queue.sqlite"), spool=spool, files=files)
    store.open()
    return store


def fill(state: Path, messages: int, octets: int = 300) -> float:
    """Write a queue into an empty state directory; return the seconds that it took."""
    start = time.monotonic()
    home = Path(shard_directory(str(state), 0))
    home.mkdir(parents=True, exist_ok=True)
    state.chmod(0o700)
    store = opened(home)
    for batch in _batches(messages, octets):
        store.apply(batch)
    store.close()
    return time.monotonic() - start
