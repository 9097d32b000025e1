"""The timeout for a silent peer."""

from twisted.internet.task import Clock

from tests.tidy import TidyTestCase
from twisted_mta.delivery.peer_timeout import PeerTimeout


class PeerTimeoutTests(TidyTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.expired: list[float] = []
        self.timeout = PeerTimeout(self.clock, lambda: self.expired.append(self.clock.seconds()))

    def run_for(self, seconds: int) -> None:
        """Advance the clock by tenths of a second."""
        self.clock.pump([0.1] * (seconds * 10))

    def test_a_timeout_expires_once_after_its_seconds(self) -> None:
        self.timeout.start(12)
        self.run_for(40)
        [expired] = self.expired
        self.assertTrue(11.9 < expired < 12.2, expired)
        self.assertFalse(self.timeout.running)

    def test_a_restart_postpones_it_without_moving_the_timer(self) -> None:
        self.timeout.start(12)
        [timer] = self.clock.getDelayedCalls()
        due = timer.getTime()
        self.run_for(3)
        self.timeout.restart(12)
        self.assertEqual(timer.getTime(), due)
        self.run_for(11)
        self.assertEqual(self.expired, [])
        self.run_for(2)
        self.assertEqual(len(self.expired), 1)

    def test_a_restart_with_a_shorter_time_brings_it_forward(self) -> None:
        self.timeout.start(300)
        self.timeout.restart(1)
        self.run_for(2)
        self.assertEqual(len(self.expired), 1)

    def test_a_stopped_one_never_expires(self) -> None:
        self.timeout.start(1)
        self.timeout.stop()
        self.run_for(10)
        self.assertEqual((self.expired, self.clock.getDelayedCalls()), ([], []))
