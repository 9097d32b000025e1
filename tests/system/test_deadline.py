"""Deadlines of answers, and pauses."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.system.deadline import sleep, within


class Within(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.answer = Deferred[str]()
        self.result = within(self.answer, 2.0, self.clock)

    def test_an_answer_in_time_is_passed_on(self) -> None:
        self.clock.advance(1.9)
        self.answer.callback("yes")
        self.assertEqual(self.successResultOf(self.result), "yes")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_failure_in_time_is_passed_on(self) -> None:
        self.answer.errback(LookupError())
        self.failureResultOf(self.result, LookupError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_answer_that_is_there_needs_no_time(self) -> None:
        self.assertEqual(self.successResultOf(within(succeed(1), 2.0, self.clock)), 1)
        failed: Deferred[int] = fail(LookupError())
        self.failureResultOf(within(failed, 2.0, self.clock), LookupError)

    def test_at_the_deadline_it_is_canceled(self) -> None:
        self.clock.advance(2)
        self.failureResultOf(self.result, TimeoutError)
        self.assertTrue(self.answer.called)

    def test_an_answer_that_ignores_that_holds_nothing_and_is_dropped(self) -> None:
        released: Deferred[None] = Deferred()

        async def stubborn() -> str:
            try:
                await Deferred[None]()
            except CancelledError:
                await released
            return "late"

        result = within(Deferred.fromCoroutine(stubborn()), 2.0, self.clock)
        self.clock.advance(2)
        self.failureResultOf(result, TimeoutError)
        self.failureResultOf(self.result, TimeoutError)
        released.callback(None)

    def test_to_cancel_it_cancels_the_answer(self) -> None:
        self.result.cancel()
        self.failureResultOf(self.result, CancelledError)
        self.assertTrue(self.answer.called)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_to_cancel_a_stubborn_answer_leaves_no_timer(self) -> None:
        stubborn: Deferred[str] = Deferred()
        stubborn.addErrback(lambda _: Deferred())  # goes on to wait
        clock = Clock()
        result = within(stubborn, 2.0, clock)
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertEqual(clock.getDelayedCalls(), [])


class Sleep(SynchronousTestCase):
    def test_it_fires_after_its_time(self) -> None:
        clock = Clock()
        pause = sleep(clock, 2.0)
        clock.advance(1.9)
        self.assertNoResult(pause)
        clock.advance(0.1)
        self.assertIsNone(self.successResultOf(pause))

    def test_to_cancel_it_stops_the_timer(self) -> None:
        clock = Clock()
        pause = sleep(clock, 2.0)
        pause.cancel()
        self.failureResultOf(pause, CancelledError)
        self.assertEqual(clock.getDelayedCalls(), [])
