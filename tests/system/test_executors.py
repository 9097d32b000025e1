"""Executors: order, results, failures, and what happens when a thread ends or none can start."""

import ctypes
import inspect
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any
from weakref import ref

from twisted.internet import reactor  # noqa: TID251 - threads answer in the real one
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from tests.tidy import TidyTestCase
from twisted_mta.system import executors
from twisted_mta.system.executors import NearExecutor, ThreadExecutor, inline_executor
from twisted_mta.system.real_world import BlockedTime


def divide(dividend: int, divisor: int) -> int:
    return dividend // divisor


class ResultsWithoutMemory(deque[Any]):
    """Results of calls, for the first of which there is no memory."""

    refusals = 1

    def append(self, result: Any) -> None:
        if self.refusals:
            self.refusals -= 1
            raise MemoryError
        super().append(result)


class InlineExecutor(TidyTestCase):
    def test_the_deferred_has_the_result_at_once(self) -> None:
        self.assertEqual(self.successResultOf(inline_executor(divide, 6, divisor=3)), 2)

    def test_an_exception_is_a_failure(self) -> None:
        self.failureResultOf(inline_executor(divide, 6, 0), ZeroDivisionError)


class Near(TidyTestCase):
    """Calls of a given length run in the caller's turn or in the thread."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.far: list[tuple[float, ...]] = []  # calls that went to the thread
        self.near = NearExecutor(self.in_thread, self.clock.seconds, quick=0.001)

    def in_thread(self, function: object, *args: float) -> Deferred[float]:
        self.far.append(args)
        return Deferred()

    def take(self, seconds: float) -> float:
        self.clock.advance(seconds)
        return seconds

    def call(self, seconds: float, times: int = 1) -> int:
        """Make calls; return how many of them went to the thread."""
        before = len(self.far)
        for _ in range(times):
            self.near(self.take, seconds)
        return len(self.far) - before

    def test_quick_calls_run_in_the_callers_turn(self) -> None:
        self.assertEqual(self.successResultOf(self.near(self.take, 0.0005)), 0.0005)
        self.assertEqual(self.call(0.0005, 1000), 0)

    def test_one_slow_call_among_quick_ones_changes_nothing(self) -> None:
        self.call(0.0002, 50)
        self.assertEqual(self.call(0.010), 0)
        self.assertEqual(self.call(0.0002, 50), 0)

    def test_time_at_work_does_not_count_as_waiting(self) -> None:
        seconds = reactor.seconds  # type: ignore[attr-defined]
        start = seconds()
        blocked_time = BlockedTime()
        before = blocked_time()
        end = time.thread_time() + 0.05
        while time.thread_time() < end:
            pass
        self.assertLessEqual(blocked_time() - before, seconds() - start - 0.04)

    def test_after_a_slow_call_calls_go_to_the_thread(self) -> None:
        self.call(0.0002, 50)
        self.assertEqual(self.call(0.030), 0)
        self.assertEqual(self.call(0.030, 64), 64)

    def test_on_a_slow_disk_the_callers_turn_is_tried_less_and_less_often(self) -> None:
        self.call(0.030)
        tried = [10_000 - self.call(0.030, 10_000) for _ in range(5)]
        self.assertEqual(tried[0], 7)  # after 64, 128, … 4096
        self.assertLessEqual(max(tried[1:]), 2)

    def test_calls_return_to_the_callers_turn_when_they_are_quick_again(self) -> None:
        self.call(0.030)
        self.call(0.0002, 64)
        self.assertEqual(self.call(0.0002, 1000), 0)

    def test_even_system_exit_is_a_failure(self) -> None:
        def end() -> None:
            raise SystemExit

        self.failureResultOf(self.near(end), SystemExit)

    def test_an_exception_is_a_failure_and_sends_the_next_calls_to_the_thread(self) -> None:
        self.failureResultOf(self.near(divide, 6, 0), ZeroDivisionError)
        self.assertEqual(self.call(0.0002, 64), 64)
        self.assertEqual(self.call(0.0002), 0)


class Threads(TestCase):
    def executor(self) -> ThreadExecutor:
        executor = ThreadExecutor(reactor, 1, "test")
        executor.start()
        self.addCleanup(executor.stop)
        return executor

    def test_a_call_runs_in_another_thread_and_is_answered_in_the_callers(self) -> Deferred[None]:
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

    def test_a_stopped_executor_starts_again(self) -> Deferred[None]:
        executor = self.executor()
        executor.stop()
        executor.start()
        return executor(divide, 6, 3).addCallback(self.assertEqual, 2)

    def test_the_arguments_of_a_call_are_not_kept(self) -> Deferred[None]:
        class Mail:
            pass

        mail = Mail()
        kept = ref(mail)
        ran = self.executor()(lambda mail: None, mail)
        del mail

        def answered(_: None) -> None:
            self.assertIsNone(kept())

        return ran.addCallback(answered)

    def test_a_call_fails_if_no_thread_can_start_and_the_next_tries_again(self) -> Deferred[None]:
        executor = self.executor()

        class NoThread(threading.Thread):
            def start(self) -> None:
                raise RuntimeError("can't start new thread")

        self.patch(executors, "Thread", NoThread)
        self.failureResultOf(executor(divide, 6, 3), RuntimeError)
        self.patch(executors, "Thread", threading.Thread)
        return executor(divide, 6, 3).addCallback(self.assertEqual, 2)

    def test_calls_wait_for_running_threads_if_no_other_can_start(self) -> Deferred[None]:
        executor = ThreadExecutor(reactor, 2, "test")
        executor.start()
        self.addCleanup(executor.stop)
        go_on = threading.Event()
        first = executor(go_on.wait)

        class NoThread(threading.Thread):
            def start(self) -> None:
                raise RuntimeError("can't start new thread")

        self.patch(executors, "Thread", NoThread)
        second = executor(divide, 6, 3)
        self.assertNoResult(second)
        go_on.set()
        return first.addCallback(lambda _: second).addCallback(self.assertEqual, 2)

    def test_system_exit_is_a_failure_and_ends_no_thread(self) -> Deferred[None]:
        executor = self.executor()

        def end() -> None:
            raise SystemExit

        ended = self.assertFailure(executor(end), SystemExit)
        return ended.addCallback(lambda _: executor(divide, 6, 3)).addCallback(self.assertEqual, 2)

    def kill(self, executor: ThreadExecutor) -> None:
        """Raise SystemExit in the only thread of an executor, when it takes its next call."""
        (thread,) = executor._threads
        # Until it waits for a call, it may still be handing back the result of the one before.
        lines, first = inspect.getsourcelines(ThreadExecutor._work)
        waits = first + next(at for at, line in enumerate(lines) if "_calls.get()" in line)
        while sys._current_frames()[thread.ident or 0].f_lineno != waits:
            thread.join(0.001)
        raised = ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit)
        )
        self.assertEqual(raised, 1)

    def test_a_thread_that_ends_is_replaced_and_its_call_fails(self) -> Deferred[None]:
        executor = self.executor()

        def killed(_: object) -> Deferred[None]:
            self.kill(executor)
            lost, next_one = executor(divide, 6, 3), executor(divide, 8, 2)
            return (
                self.assertFailure(lost, SystemExit)
                .addCallback(lambda _: next_one)
                .addCallback(self.assertEqual, 4)
                .addCallback(lambda _: self.assertEqual(len(executor._threads), 1))
                .addCallback(lambda _: self.flushLoggedErrors(SystemExit))
                .addCallback(lambda errors: self.assertEqual(len(errors), 1))
            )

        return executor(divide, 6, 3).addCallback(killed)

    def test_the_call_of_a_thread_that_ends_fails_while_another_thread_works(
        self,
    ) -> Deferred[None]:
        executor = ThreadExecutor(reactor, 2, "test")
        executor.start()
        self.addCleanup(executor.stop)
        go_on = threading.Event()
        self.addCleanup(go_on.set)
        working = executor(go_on.wait, 20)
        executor._results = ResultsWithoutMemory()
        lost = executor(divide, 6, 3).addTimeout(20, reactor)

        def failed(_: object) -> Deferred[None]:
            go_on.set()
            self.assertEqual(len(self.flushLoggedErrors(MemoryError)), 1)
            return working.addCallback(self.assertTrue)

        return self.assertFailure(lost, MemoryError).addCallback(failed)

    def test_a_lack_of_memory_delays_a_result_and_does_not_lose_it(self) -> None:
        wanted: list[Callable[[], None]] = []
        failing = iter([MemoryError, MemoryError])

        def call_from_thread(function: Any, *args: Any) -> None:
            error = next(failing, None)
            if error is not None:
                raise error
            wanted.append(partial(function, *args))

        pretended: Any = SimpleNamespace(callFromThread=call_from_thread)
        executor = ThreadExecutor(pretended, 1, "test")
        executor.start()
        done = executor(divide, 6, 3)
        executor.stop()
        for each in wanted:
            each()
        self.assertEqual(self.successResultOf(done), 2)
        self.assertEqual(len(self.flushLoggedErrors(MemoryError)), 1)

    def test_waiting_calls_fail_if_the_last_thread_ends_and_none_can_start(self) -> None:
        wanted: list[Callable[[], None]] = []
        pretended: Any = SimpleNamespace(
            callFromThread=lambda function, *args: wanted.append(partial(function, *args))
        )
        executor = ThreadExecutor(pretended, 1, "test")
        executor.start()
        first = executor(divide, 6, 3)
        while not wanted:  # the thread is at its work
            pass
        (thread,) = executor._threads
        self.kill(executor)
        waiting = [executor(divide, 6, 3), executor(divide, 6, 3)]
        thread.join(30)

        class NoThread(threading.Thread):
            def start(self) -> None:
                raise RuntimeError("can't start new thread")

        self.patch(executors, "Thread", NoThread)
        for each in wanted:
            each()
        self.assertEqual(self.successResultOf(first), 2)
        for done in waiting:
            self.failureResultOf(done)
        self.flushLoggedErrors(SystemExit)

    def test_calls_made_by_results_do_not_starve_the_reactor(self) -> None:
        wanted: list[Callable[[], None]] = []
        pretended: Any = SimpleNamespace(callFromThread=wanted.append)
        executor = ThreadExecutor(pretended, 1, "test")
        executor.start()
        handed: list[int] = []

        def again(result: int) -> None:
            handed.append(result)
            executor.start()
            executor(divide, 6, 1).addCallback(handed.append)
            executor.stop()  # it has run

        executor(divide, 6, 3).addCallback(again)
        executor.stop()
        wanted.pop()()
        self.assertEqual(handed, [2])
        wanted.pop()()
        self.assertEqual(handed, [2, 6])
        self.assertEqual(wanted, [])

    def test_stopping_waits_for_the_calls_that_were_made(self) -> None:
        executor = ThreadExecutor(reactor, 1, "test")
        executor.start()
        done: list[int] = []
        for number in range(10):
            executor(done.append, number)
        executor.stop()
        self.assertEqual(done, list(range(10)))
