"""A call that is repeated."""

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.system.repetition import Repetition


class Repeated(SynchronousTestCase):
    def test_the_next_call_waits_for_the_end_of_the_one_before(self) -> None:
        clock, calls = Clock(), list[Deferred[None]]()

        def call() -> Deferred[None]:
            calls.append(Deferred())
            return calls[-1]

        repetition = Repetition(call, clock)
        repetition.start(5)
        clock.pump([4.9, 0.2, 10])
        self.assertEqual(len(calls), 1)
        calls[0].callback(None)
        clock.advance(5)
        self.assertEqual((len(calls), repetition.running), (2, True))
        repetition.stop()
        calls[1].callback(None)
        clock.advance(10)
        self.assertEqual((len(calls), clock.getDelayedCalls()), (2, []))

    def test_a_call_that_fails_is_logged_and_repeated(self) -> None:
        clock, calls = Clock(), list[int]()

        def call() -> None:
            calls.append(1)
            raise ValueError

        repetition = Repetition(call, clock)
        repetition.start(5)
        clock.pump([5, 5])
        self.assertEqual((len(calls), len(self.flushLoggedErrors(ValueError))), (2, 2))
        repetition.stop()
        self.assertEqual(clock.getDelayedCalls(), [])
