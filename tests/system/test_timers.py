"""Timers by the monotonic clock, independent of changes of the wall clock."""

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor  # noqa: TID251 - alarms ring in the real one
from twisted.internet.base import ReactorBase
from twisted.internet.defer import Deferred
from twisted.internet.error import AlreadyCalled, AlreadyCancelled, ConnectionDone, TimeoutError
from twisted.internet.protocol import ClientFactory
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock, LoopingCall
from twisted.internet.threads import deferToThread  # noqa: TID251 - to wait for one
from twisted.python import runtime
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.tidy import TidyTestCase, descriptors, new_descriptors
from twisted_mta.system import timers
from twisted_mta.system.timers import (
    Alarm,
    MonotonicReactor,
    monotonic,
    use_monotonic_time,
    with_monotonic_time,
)


class Application:
    """An application's reactor: uses the wall clock, and runs its next turn when told to."""

    seconds = staticmethod(runtime.seconds)

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []
        self.own_timers = Clock()

    def callFromThread(self, call: Callable[[], object]) -> None:
        self.calls.append(call)

    def callLater(self, delay: float, call: Callable[[], object]) -> Any:
        timer: Any = self.own_timers.callLater(delay, call)
        return timer

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class SetAlarm:
    """An alarm that the test rings."""

    def __init__(self, ring: Callable[[], object]) -> None:
        self.ring = ring
        self.at: float | None = None
        self.times_set = 0
        self.fails: Exception | None = None

    def set(self, at: float | None) -> None:
        self.at = at
        self.times_set += 1
        if self.fails is not None:
            raise self.fails


class Timers(TidyTestCase):
    def setUp(self) -> None:
        self.application = Application()
        self.clock = Clock()
        self.alarms: list[SetAlarm] = []
        self.reactor = MonotonicReactor(
            self.application, seconds=self.clock.seconds, waker=self.alarm_that
        )
        self.made: list[object] = []

    def alarm_that(self, ring: Callable[[], object]) -> SetAlarm:
        self.alarms.append(SetAlarm(ring))
        return self.alarms[-1]

    @property
    def alarm(self) -> SetAlarm:
        return self.alarms[0]

    def pass_time(self, seconds: float) -> None:
        """Advance the clock, and ring the alarm when it is due."""
        self.clock.advance(seconds)
        if self.alarm.at is not None and self.alarm.at <= self.clock.seconds():
            self.alarm.ring()
        self.application.turn()

    def later(self, delay: float, name: object) -> Any:
        return self.reactor.callLater(delay, self.made.append, name)

    def test_calls_are_made_in_the_order_of_their_times(self) -> None:
        for delay in (3, 1, 2):
            self.later(delay, delay)
        self.pass_time(0.5)
        self.assertEqual(self.made, [])
        self.pass_time(0.5)
        self.assertEqual(self.made, [1])
        self.pass_time(2)
        self.assertEqual(self.made, [1, 2, 3])
        self.assertIsNone(self.alarm.at)

    def test_a_call_after_0_seconds_is_made_in_the_next_turn_without_an_alarm(self) -> None:
        self.later(0, "now")
        self.assertEqual(self.made, [])
        self.application.turn()
        self.assertEqual(self.made, ["now"])

    def test_a_call_after_0_seconds_from_such_a_call_is_made_in_the_turn_after(self) -> None:
        def again() -> None:
            self.made.append("again")
            self.reactor.callLater(0, again)

        self.reactor.callLater(0, again)
        for count in range(1, 4):
            self.application.turn()
            self.assertEqual(self.made, ["again"] * count)

    def test_a_lost_turn_is_asked_for_again(self) -> None:
        self.later(0, "now")
        self.application.calls.clear()
        self.pass_time(1)
        self.assertEqual(self.made, ["now"])

    def test_calls_in_each_turn_wake_no_thread(self) -> None:
        self.later(300, "late")
        self.application.turn()
        before = self.alarm.at
        for _ in range(10):
            self.later(0, "now")
            self.application.turn()
            self.assertGreaterEqual(self.alarm.at or 0.0, self.clock.seconds() + 1.0)
        self.assertEqual(self.alarm.at, before)

    def test_a_cancelled_call_is_not_made(self) -> None:
        call = self.later(1, "cancelled")
        self.later(1, "made")
        call.cancel()
        self.assertFalse(call.active())
        self.pass_time(1)
        self.assertEqual(self.made, ["made"])
        self.assertRaises(AlreadyCancelled, call.cancel)

    def test_a_call_may_be_moved_earlier_and_later(self) -> None:
        late, early = self.later(10, "late"), self.later(20, "early")
        self.application.turn()
        self.pass_time(1)
        late.reset(30)
        early.reset(2)
        self.pass_time(2)
        self.assertEqual(self.made, ["early"])
        self.assertRaises(AlreadyCalled, early.reset, 1)
        self.pass_time(20)
        self.assertEqual(self.made, ["early"])
        self.pass_time(8)
        self.assertEqual(self.made, ["early", "late"])

    def test_a_failing_call_is_logged_and_the_others_are_made(self) -> None:
        self.reactor.callLater(1, lambda: 1 // 0)
        self.later(1, "made")
        self.pass_time(1)
        self.assertEqual(self.made, ["made"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_an_exit_or_a_cancellation_does_not_end_the_reactor(self) -> None:
        kinds = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit)
        for kind in kinds:

            def fail(kind: type[BaseException] = kind) -> None:
                raise kind("a bug")

            self.reactor.callLater(0, fail)
            self.reactor.callFromThread(fail)
            self.reactor.callLater(0, self.made.append, kind)
            self.application.turn()
            self.assertEqual(len(self.flushLoggedErrors(kind)), 2)
        self.assertEqual(self.made, [*kinds])

    def test_thousands_of_cancelled_calls_are_not_kept(self) -> None:
        self.later(1000, "last")
        for _ in range(5000):
            self.later(500, "never").cancel()
            self.application.turn()
        self.pass_time(1)
        self.later(1, "now")
        self.pass_time(1)
        self.assertLess(len(self.reactor._calls), 200)
        self.assertEqual(len(self.reactor.getDelayedCalls()), 1)

    def test_calls_from_threads_are_made_even_after_a_lost_turn(self) -> None:
        self.later(300, "timer")
        self.reactor.callFromThread(self.made.append, "result")
        self.application.calls.clear()
        self.alarm.ring()
        self.application.turn()
        self.assertEqual(self.made, ["result"])

    def test_if_no_thread_can_start_a_timer_of_the_reactor_is_used(self) -> None:
        self.alarm.fails = RuntimeError("can't start new thread")
        self.later(5, "late")
        for _ in range(3):  # there is only one such timer
            self.later(0, "now")
            self.application.turn()
            [timer] = self.application.own_timers.getDelayedCalls()
            self.assertEqual(timer.getTime(), 5)
        self.clock.advance(5)
        self.alarm.fails = None
        self.application.own_timers.advance(5)
        self.assertEqual(self.made, ["now"] * 3 + ["late"])

    def test_a_monotonic_reactor_works_with_twisteds_timers(self) -> None:
        looping = LoopingCall(self.made.append, "beat")
        looping.clock = self.reactor
        looping.start(10, now=False)
        waiting: Deferred[None] = Deferred()
        waiting.addTimeout(15, self.reactor)
        self.pass_time(10)
        self.pass_time(5)
        self.assertEqual(self.made, ["beat"])
        self.failureResultOf(waiting)
        looping.stop()


class Whose(TidyTestCase):
    def test_a_reactor_with_the_wall_clock_is_not_changed(self) -> None:
        application = Application()
        ours = with_monotonic_time(application)
        self.assertIsNot(ours, application)
        self.assertIs(application.seconds, runtime.seconds)
        self.assertIs(ours.seconds, monotonic)

    def test_the_clock_of_a_test_is_returned_unchanged(self) -> None:
        clock = Clock()
        self.assertIs(with_monotonic_time(clock), clock)

    def test_our_own_reactor_becomes_monotonic_with_its_pending_timers(self) -> None:
        made: list[str] = []
        own = SelectReactor()
        for reader in tuple(own._internalReaders):
            self.addCleanup(reader.connectionLost, Failure(ConnectionDone()))
        wall, steady = [1.8e9], [3.0]
        self.patch(ReactorBase, "seconds", staticmethod(lambda: wall[0]))
        self.patch(runtime, "seconds", ReactorBase.seconds)
        own.callLater(20, made.append, "second")
        cancelled = own.callLater(1, made.append, "never")
        own.callLater(10, made.append, "first")
        own.runUntilCurrent()
        cancelled.cancel()
        wall[0] += 4
        use_monotonic_time(own)
        self.assertIs(own.seconds, monotonic)
        self.patch(own, "seconds", lambda: monotonic() + steady[0])
        self.assertTrue(2.0 < (own.timeout() or 0.0) <= 3.0)
        steady[0] = 6
        own.runUntilCurrent()
        self.assertEqual(made, ["first"])
        steady[0] = 16
        own.runUntilCurrent()
        self.assertEqual(made, ["first", "second"])
        use_monotonic_time(own)
        self.assertIs(with_monotonic_time(own), own)


class Alarms(TestCase):
    """The thread of an alarm, with the real reactor in the role of an application's."""

    timeout = 30

    def test_timers_fire_in_the_thread_of_the_reactor(self) -> None:
        ours = MonotonicReactor(reactor)
        fired: Deferred[None] = Deferred()
        threads = []

        def first() -> None:
            threads.append(threading.current_thread())
            ours.callLater(0.01, second)

        def second() -> None:
            threads.append(threading.current_thread())
            fired.callback(None)

        ours.callLater(0.02, first)
        ours.callLater(1000, lambda: None)
        fired.addCallback(lambda _: self.assertEqual(threads, [threading.current_thread()] * 2))
        return fired  # type: ignore[return-value]

    def test_the_timeout_of_a_connection_is_monotonic(self) -> None:
        ours = MonotonicReactor(reactor)
        failed: Deferred[Any] = Deferred()
        full = self.enterContext(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):  # from then on the backlog is full
            client = self.enterContext(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())

        class Factory(ClientFactory):
            noisy = False

            def clientConnectionFailed(self, connector: object, reason: Any) -> None:
                failed.errback(reason)

        ours.connectTCP("127.0.0.1", full.getsockname()[1], Factory(), timeout=0.05)
        self.assertTrue(ours.getDelayedCalls())
        return self.assertFailure(failed, TimeoutError)

    def test_an_idle_thread_ends(self) -> None:
        self.patch(timers, "_IDLE", 0.0)
        self.patch(timers, "_LOST", 0.01)
        before = frozenset(threading.enumerate())
        rung: Deferred[None] = Deferred()

        def ring() -> None:
            alarm.set(None)
            reactor.callFromThread(rung.callback, None)

        alarm = Alarm(ring)
        alarm.set(monotonic())
        [thread] = frozenset(threading.enumerate()) - before
        rung.addCallback(lambda _: deferToThread(thread.join, 20))
        rung.addCallback(lambda _: self.assertFalse(thread.is_alive()))
        return rung  # type: ignore[return-value]

    def test_a_thread_that_cannot_start_leaves_no_descriptor_open(self) -> None:
        def refuse(**arguments: object) -> threading.Thread:
            raise RuntimeError("can't start new thread")

        before = descriptors()
        alarm = Alarm(lambda: None)
        self.patch(timers, "Thread", refuse)
        self.assertRaises(RuntimeError, alarm.set, monotonic())
        self.assertEqual(new_descriptors(before), [])


_ON_ASYNCIO = """
from twisted.internet import asyncioreactor
asyncioreactor.install()
from twisted.internet import reactor
from twisted_mta.system.timers import with_monotonic_time

made = []
call_later = reactor.callLater
reactor.callLater = lambda *call: made.append(call) or call_later(*call)
timers = with_monotonic_time(reactor)

def end():
    print(len(made), "timers of the reactor")
    reactor.stop()

timers.callLater(0, timers.callLater, 0.02, timers.callFromThread, end)
reactor.run()
"""


class Asyncio(TidyTestCase):
    def test_the_reactor_of_asyncio_is_called_without_a_timer_of_its_own(self) -> None:
        """Trial would take it for one that a test has left behind."""
        done = subprocess.run(
            [sys.executable, "-c", _ON_ASYNCIO], capture_output=True, text=True, timeout=60
        )
        self.assertEqual((done.stdout, done.stderr), ("0 timers of the reactor\n", ""))
