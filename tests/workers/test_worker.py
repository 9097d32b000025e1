"""A worker's own side: what it takes from its parent, before anything is open."""

from __future__ import annotations

import os
import signal
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta import Config
from twisted_mta.config import QueueSettings
from twisted_mta.telemetry.log import Log
from twisted_mta.testing.network import MemoryTransport, address
from twisted_mta.workers.pipe import CallFailed, Pipe
from twisted_mta.workers.process import packed
from twisted_mta.workers.worker import Worker


class Ended(Clock):
    """A reactor that is told to stop."""

    stops = 0

    def stop(self) -> None:
        self.stops += 1


class Told(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Ended()
        self.worker = Worker(1, self.reactor, Log("text", worker=1))
        self.parent = Pipe({}, lambda: None)
        here = address("127.0.0.1", 1)
        self.theirs, self.ours = (
            MemoryTransport(self.reactor, client=client, host=here, peer=here)
            for client in (True, False)
        )
        self.theirs.other, self.ours.other = self.ours, self.theirs
        self.theirs.protocol, self.ours.protocol = self.parent, self.worker.pipe
        self.parent.makeConnection(self.theirs)  # type: ignore[no-untyped-call]
        self.worker.pipe.makeConnection(self.ours)  # type: ignore[no-untyped-call]

    def settle(self) -> None:
        for _ in range(10):
            self.reactor.advance(0)

    def call(self, name: str, **arguments: Any) -> Deferred[Any]:
        called = self.parent.call(name, **arguments)
        self.settle()
        return called

    def start(self, **more: Any) -> Deferred[Any]:
        self.state = os.path.abspath(self.mktemp())
        config = Config(state_dir=self.state, workers=2, listeners=())
        return self.call("start", settings=packed(config), shards=[1], endpoints=[], **more)

    def test_told_to_end_before_it_began_it_ends_once(self) -> None:
        for name in ("drain", "drain", "hurry"):
            self.parent.tell(name)
        self.settle()
        self.assertEqual(self.reactor.stops, 1)

    def test_told_to_end_it_does_not_begin(self) -> None:
        self.call("drain")
        error = self.failureResultOf(self.start(), CallFailed).value
        self.assertEqual(str(error), "told to end before it began")

    def test_where_a_queue_was_and_is_none_it_makes_none(self) -> None:
        error = self.failureResultOf(self.start(create=False), CallFailed).value
        self.assertIn(f"{self.state}/shard-1/queue.sqlite was there before", str(error))
        self.assertFalse(os.path.exists(self.state))

    def test_the_pipe_that_it_closes_itself_is_no_alarm(self) -> None:
        self.call("drain")
        self.ours.loseConnection()  # as the reactor does when it ends
        self.settle()
        self.assertEqual(signal.getitimer(signal.ITIMER_REAL), (0.0, 0.0))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_parent_that_is_gone_is_one(self) -> None:
        before = signal.getsignal(signal.SIGALRM)
        try:
            self.theirs.loseConnection()
            self.settle()
            left, again = signal.getitimer(signal.ITIMER_REAL)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        self.assertTrue(0 < left < 1, left)
        self.assertEqual(again, 0)
        self.assertEqual(self.reactor.stops, 1)


class Share(SynchronousTestCase):
    def share(self, memory: int, workers: int) -> int:
        worker = Worker(0, Clock(), Log("text", worker=0))
        config = Config(
            message_memory=memory, workers=workers, queue=QueueSettings(small_body=65_536)
        )
        return worker._share(packed(config)).message_memory

    def test_all_have_the_same_of_the_memory_for_messages(self) -> None:
        self.assertEqual(self.share(256 << 20, 4), 64 << 20)

    def test_it_is_enough_for_one_message_however_many_they_are(self) -> None:
        self.assertEqual(self.share(1 << 20, 64), 65_536)
