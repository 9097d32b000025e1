"""A worker's own side of the calls of its parent."""

from __future__ import annotations

import os
import signal
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from tests.tidy import TidyTestCase
from twisted_mta import Config
from twisted_mta.config import QueueSettings
from twisted_mta.telemetry.log import Log
from twisted_mta.testing.network import MemoryTransport, address
from twisted_mta.workers.pipe import CallFailed, Pipe
from twisted_mta.workers.spawning import packed
from twisted_mta.workers.worker import Worker, WorkerState


class StoppableClock(Clock):
    """A clock that counts how often it is stopped, as a reactor."""

    stops = 0

    def stop(self) -> None:
        self.stops += 1


class Lifecycle(TidyTestCase):
    def setUp(self) -> None:
        self.reactor = StoppableClock()
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

    def test_a_worker_that_is_drained_before_its_start_ends_once(self) -> None:
        for name in ("drain", "drain", "hurry"):
            self.parent.send(name)
        self.settle()
        self.assertEqual(self.reactor.stops, 1)

    def test_a_drained_worker_does_not_start(self) -> None:
        self.call("drain")
        error = self.failureResultOf(self.start(), CallFailed).value
        self.assertEqual(str(error), "drained before it was started")

    def test_a_queue_that_has_gone_is_not_made_anew(self) -> None:
        error = self.failureResultOf(self.start(create=False), CallFailed).value
        self.assertIn(f"{self.state}/shard-1/queue.sqlite was there before", str(error))
        self.assertFalse(os.path.exists(self.state))

    def test_a_pipe_that_the_worker_closes_itself_sets_no_alarm(self) -> None:
        self.call("drain")
        self.ours.loseConnection()  # as the reactor does at its end
        self.settle()
        self.assertEqual(signal.getitimer(signal.ITIMER_REAL), (0.0, 0.0))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_the_loss_of_the_parent_sets_an_alarm(self) -> None:
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


class UnusableChange:
    """Settings that were prepared, and that fail when they are put in force."""

    def use(self) -> Deferred[Any]:
        return fail(RuntimeError("out of descriptors"))


class UsingSettings(TidyTestCase):
    def use(self, state: WorkerState) -> Deferred[list[str]]:
        worker = Worker(0, Clock(), Log("text", worker=0))
        worker._state, worker._change = state, UnusableChange()  # type: ignore[assignment]
        return worker.use()

    def test_a_worker_says_that_it_could_not_put_settings_in_force(self) -> None:
        error = self.failureResultOf(self.use(WorkerState.STARTED), RuntimeError).value
        self.assertEqual(str(error), "out of descriptors")

    def test_a_worker_that_is_ending_puts_no_settings_in_force(self) -> None:
        self.assertEqual(self.successResultOf(self.use(WorkerState.DRAINING)), [])


class MemoryShare(TidyTestCase):
    def share(self, memory: int, workers: int) -> int:
        worker = Worker(0, Clock(), Log("text", worker=0))
        config = Config(
            message_memory=memory, workers=workers, queue=QueueSettings(small_body=65_536)
        )
        return worker._share(packed(config)).message_memory

    def test_workers_share_the_memory_for_messages_equally(self) -> None:
        self.assertEqual(self.share(256 << 20, 4), 64 << 20)

    def test_a_share_of_the_memory_is_enough_for_one_message(self) -> None:
        self.assertEqual(self.share(1 << 20, 64), 65_536)
