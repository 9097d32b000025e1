"""A store under test, with short ways to apply operations to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.mail.body import Body
from twisted_mta.mail.message import Message
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.queue.store.contract import Accept, Lease, Leased, Operation, Store, Survey, Want
from twisted_mta.queue.store.spool import Spool
from twisted_mta.system.executors import inline_executor
from twisted_mta.testing.files import UnsyncedFiles

from ..mail import NOW, numbers

if TYPE_CHECKING:
    Mixin = SynchronousTestCase
else:
    Mixin = object


def complete_old_queue(database: sqlite3.Connection) -> None:
    """Give message 1, the only one of a queue of an older schema, its recipient, and close it."""
    database.execute(
        "INSERT INTO recipient (message, number, local_part, domain, parameters, attempts,"
        " next_attempt) VALUES (1, 0, 'bob', 'next.example', '{}', 0, ?)",
        (NOW,),
    )
    database.execute("UPDATE census SET messages = 1, recipients = 1")
    database.close()


class StoreHarness(Mixin):
    """A store with its disk; for a `SynchronousTestCase` that says how the store is made."""

    spool: Spool
    files: UnsyncedFiles
    store: Store

    reuses_files = False

    def new_store(self) -> Store:
        """Return a store that has what the stores before it have written."""
        raise NotImplementedError

    def begin(self) -> None:
        """Make the disk, and open an empty store on it."""
        self.files = UnsyncedFiles()
        self.files.make_directories("/state/body")
        self.spool = Spool(
            "/state/body",
            files=self.files,
            executor=inline_executor,
            small_body=100,
            reuse=self.reuses_files,
        )
        self.store = self.new_store()
        self.store.open()

    def restart(self) -> None:
        """Close the store, and open another one, as another process does."""
        self.store.close()
        self.store = self.new_store()
        self.store.open()

    def do(self, *operations: Operation) -> list[Any]:
        """Apply one batch; return its results."""
        return self.store.apply(operations)

    def accept(self, *messages: Message, lease: bool = False) -> None:
        self.do(*(Accept(each, lease) for each in messages))

    def survey(
        self, now: float = NOW, latest: float = NOW + 1e9, set_back: float = 0.0
    ) -> dict[str, float | None]:
        """Return the domains that have mail, each with its earliest due time."""
        (surveyed,) = self.do(Survey(now, latest, set_back))
        return dict(surveyed.rest)

    def lease(self, now: float = NOW, limit: int = 100, *domains: str) -> Leased:
        """Lease due mail of ``domains``, or of all domains."""
        wants = tuple(Want(domain, limit) for domain in domains or sorted(self.survey()))
        (leased,) = self.do(Lease(now, wants))
        assert isinstance(leased, Leased)
        return leased

    def due(self, now: float = NOW) -> Sequence[tuple[int, list[int]]]:
        """Lease all due mail; return the ids with the numbers of their recipients."""
        return [(int(each.id), numbers(each)) for each in self.lease(now).messages]

    def stored_bodies(self) -> list[str]:
        """Return the names of all files with the body of a message, in rising order."""
        spare = [] if self.spool.body_files is None else self.spool.body_files._spare
        return sorted({*self.files.names("/state/body")} - {str(each.id) for each in spare})

    def large_body(self, id: int, content: bytes) -> Body:
        """Return a large body on its way into the queue."""
        writer = self.spool.new_body(QueueId(id))
        writer.write(content)
        sealed = writer.seal()
        return self.successResultOf(sealed) if isinstance(sealed, Deferred) else sealed
