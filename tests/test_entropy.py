"""What the rooms are handed in production: time, randomness, and threads of our own."""

import threading

from twisted.internet import reactor  # noqa: TID251 - threads answer in the real one
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from twisted_mta.entropy import ThreadExecutor, inline_executor, system_random, wall_time


def divide(dividend: int, divisor: int) -> int:
    return dividend // divisor


class Randomness(SynchronousTestCase):
    def test_each_source_is_seeded_anew(self) -> None:
        self.assertNotEqual(system_random().getrandbits(64), system_random().getrandbits(64))

    def test_wall_time_counts_seconds_since_the_epoch(self) -> None:
        self.assertGreater(wall_time(), 1_700_000_000.0)
        self.assertLess(wall_time(), 100_000_000_000.0)


class InlineExecutor(SynchronousTestCase):
    def test_it_has_the_result_at_once(self) -> None:
        self.assertEqual(self.successResultOf(inline_executor(divide, 6, divisor=3)), 2)

    def test_an_exception_is_a_failure(self) -> None:
        self.failureResultOf(inline_executor(divide, 6, 0), ZeroDivisionError)


class Threads(TestCase):
    def executor(self) -> ThreadExecutor:
        executor = ThreadExecutor(reactor, 1, "test")
        executor.start()
        self.addCleanup(executor.stop)
        return executor

    def test_a_call_runs_in_another_thread_and_is_answered_in_ours(self) -> Deferred[None]:
        ran = self.executor()(threading.get_ident)

        def answered(thread: int) -> None:
            self.assertNotEqual(thread, threading.get_ident())

        return ran.addCallback(answered)

    def test_an_exception_is_a_failure(self) -> Deferred[ZeroDivisionError]:
        return self.assertFailure(self.executor()(divide, 6, 0), ZeroDivisionError)

    def test_one_thread_keeps_the_order_of_calls(self) -> Deferred[None]:
        order: list[int] = []
        executor = self.executor()
        for number in range(20):
            executor(order.append, number)

        return executor(list, order).addCallback(self.assertEqual, list(range(20)))

    def test_a_call_before_the_start_or_after_the_end_fails(self) -> None:
        executor = ThreadExecutor(reactor, 1, "test")
        self.failureResultOf(executor(divide, 6, 3), RuntimeError)
        executor.start()
        executor.stop()
        self.failureResultOf(executor(divide, 6, 3), RuntimeError)

    def test_it_starts_again_after_it_was_stopped(self) -> Deferred[None]:
        executor = self.executor()
        executor.stop()
        executor.start()
        return executor(divide, 6, 3).addCallback(self.assertEqual, 2)

    def test_stopping_waits_for_the_calls_that_were_made(self) -> None:
        executor = ThreadExecutor(reactor, 1, "test")
        executor.start()
        done: list[int] = []
        for number in range(10):
            executor(done.append, number)
        executor.stop()
        self.assertEqual(done, list(range(10)))
