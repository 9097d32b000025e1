"""Coroutines that end at once, and those that wait."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.system.coroutines import outcome, started


async def _doubled(number: Deferred[int]) -> int:
    return 2 * await number


class OutcomeTests(SynchronousTestCase):
    def test_a_coroutine_that_need_not_wait_has_its_result_at_once(self) -> None:
        self.assertEqual(outcome(_doubled(succeed(21))), 42)

    def test_a_coroutine_that_fails_at_once_raises_its_exception(self) -> None:
        self.assertRaises(ZeroDivisionError, outcome, _doubled(fail(ZeroDivisionError())))

    def test_a_coroutine_that_waits_goes_on_with_the_result(self) -> None:
        number: Deferred[int] = Deferred()
        result = outcome(_doubled(number))
        assert isinstance(result, Deferred)
        self.assertNoResult(result)
        number.callback(21)
        self.assertEqual(self.successResultOf(result), 42)

    def test_a_coroutine_that_waits_several_times_goes_on_each_time(self) -> None:
        numbers: list[Deferred[int]] = [Deferred(), Deferred()]

        async def total() -> int:
            return sum([await each for each in numbers])

        result = outcome(total())
        assert isinstance(result, Deferred)
        numbers[0].callback(1)
        self.assertNoResult(result)
        numbers[1].callback(2)
        self.assertEqual(self.successResultOf(result), 3)

    def test_a_failure_that_is_waited_for_is_raised_in_the_coroutine(self) -> None:
        number: Deferred[int] = Deferred()
        result = outcome(_doubled(number))
        assert isinstance(result, Deferred)
        number.errback(ZeroDivisionError())
        self.failureResultOf(result, ZeroDivisionError)

    def test_canceling_reaches_what_is_waited_for(self) -> None:
        canceled = []
        number: Deferred[int] = Deferred(canceled.append)
        result = outcome(_doubled(number))
        assert isinstance(result, Deferred)
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertEqual(canceled, [number])


class StartedTests(SynchronousTestCase):
    def test_a_result_at_once_is_in_the_deferred(self) -> None:
        self.assertEqual(self.successResultOf(started(_doubled(succeed(21)))), 42)

    def test_an_exception_at_once_is_in_the_deferred(self) -> None:
        self.failureResultOf(started(_doubled(fail(ZeroDivisionError()))), ZeroDivisionError)

    def test_a_coroutine_that_waits_is_in_the_deferred(self) -> None:
        number: Deferred[int] = Deferred()
        result = started(_doubled(number))
        self.assertNoResult(result)
        number.callback(21)
        self.assertEqual(self.successResultOf(result), 42)
