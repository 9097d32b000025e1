"""Files of the queue that are kept as they are, while a program copies them."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path
from unittest.mock import patch

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from twisted_mta.agent.files_hold import PATIENCE, FilesHold
from twisted_mta.mail.body import Body
from twisted_mta.mail.message import Message
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.queue.commit import GroupCommit
from twisted_mta.queue.operator.operations import FilesHeld, HoldAction, HoldFiles
from twisted_mta.queue.store import sqlite
from twisted_mta.queue.store.contract import Accept
from twisted_mta.system.executors import inline_executor

from ..mail import message, settled
from .test_sqlite import StoreTestCase


class Holding(StoreTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.store.open()
        self.first = self.large(1)
        self.store.apply([Accept(self.first, lease=True), Accept(message(2), lease=True)])

    def large(self, id: int) -> Message:
        writer = self.spool.new_body(QueueId(id))
        writer.write(b"x" * 200_000)
        sealed = writer.seal()
        body: Body = self.successResultOf(sealed) if isinstance(sealed, Deferred) else sealed
        return evolve(message(id), body=body)

    def hold(self, action: HoldAction, copy: str = "one") -> bool:
        (result,) = self.store.apply([HoldFiles(action, copy)])
        assert isinstance(result, FilesHeld)
        return result.held

    def digest(self) -> str:
        return hashlib.sha256(Path(self.path).read_bytes()).hexdigest()

    def bodies(self) -> list[str]:
        return sorted(self.files.names(self.spool.directory))

    def ids(self) -> list[int]:
        """Return the messages in the database file alone, as a copy of it would have them."""
        database = sqlite3.connect(f"file:{self.path}?mode=ro&immutable=1", uri=True)
        self.addCleanup(database.close)
        return [id for (id,) in database.execute("SELECT id FROM message ORDER BY id")]

    def much_mail(self) -> None:
        """Let more through the queue than SQLite keeps in its log by itself."""
        for first in range(100, 1700, 10):
            many = [message(id) for id in range(first, first + 10)]
            self.store.apply([Accept(each, lease=True) for each in many])
            self.store.apply([settled(each) for each in many])

    def test_database_and_bodies_stay_as_they_are_until_the_end(self) -> None:
        self.assertFalse(self.hold("begin"))
        self.assertTrue(self.hold("check"))
        before = self.digest()
        self.store.apply([settled(self.first), settled(message(2)), Accept(message(3))])
        self.much_mail()
        self.assertGreater(Path(f"{self.path}-wal").stat().st_size, 1000 * 4096)
        self.assertEqual((self.digest(), self.ids()), (before, [1, 2]))
        self.assertEqual(self.bodies(), [str(QueueId(1))])
        self.assertTrue(self.hold("end"))
        self.assertEqual(self.bodies(), [])
        self.assertFalse(self.hold("check"))
        self.much_mail()
        self.assertNotEqual(self.digest(), before)

    def test_another_begin_ends_the_first(self) -> None:
        self.hold("begin")
        self.hold("begin", "two")
        self.assertFalse(self.hold("end"))
        self.assertTrue(self.hold("end", "two"))

    def test_a_log_that_grows_too_long_ends_it(self) -> None:
        self.hold("begin")
        with patch.object(sqlite, "_LONGEST_LOG", 1 << 20):
            self.much_mail()
        self.assertFalse(self.hold("check"))

    def test_a_store_that_is_closed_ends_it_and_removes_the_bodies(self) -> None:
        self.hold("begin")
        self.store.apply([settled(self.first)])
        self.store.close()
        self.assertEqual(self.bodies(), [])
        self.store.open()
        self.assertFalse(self.hold("end"))

    def test_a_program_that_says_nothing_for_a_minute_loses_it(self) -> None:
        self.store.close()
        clock = Clock()
        commit = GroupCommit(self.store, executor=inline_executor, clock=clock)
        commit.start()
        hold = FilesHold(commit, clock=clock, is_embedded=True)

        def asked(action: str) -> bool:
            result = Deferred.fromCoroutine(getattr(hold, action)("one"))
            clock.pump([0.01] * 10)
            return self.successResultOf(result)

        self.assertTrue(asked("begin"))
        clock.advance(PATIENCE - 1)
        self.assertTrue(asked("renew"))
        clock.advance(PATIENCE - 1)
        self.assertTrue(asked("renew"))
        clock.advance(PATIENCE + 1)
        clock.pump([0.01] * 10)
        self.assertFalse(asked("renew"))
        self.assertFalse(asked("end"))
        stopped = commit.stop()
        clock.pump([0.01] * 10)
        self.successResultOf(stopped)
        self.assertEqual(clock.getDelayedCalls(), [])
