"""Counts of what is in use within one process."""

from twisted.internet.defer import CancelledError, Deferred

from tests.tidy import TidyTestCase
from twisted_mta.interfaces import Limits
from twisted_mta.system.limits import LocalLimits

HOP = ("hop", "mx.example")
PEER = ("peer", "25", "192.0.2.7")


class LocalLimitsTest(TidyTestCase):
    def setUp(self) -> None:
        self.limits = LocalLimits()

    def test_no_more_than_the_limit_is_taken(self) -> None:
        self.assertEqual([self.limits.take(PEER, 2) for _ in range(3)], [True, True, False])
        self.assertTrue(self.limits.take(("peer", "25", "192.0.2.8"), 2))
        self.limits.give_back(PEER)
        self.assertEqual([self.limits.take(PEER, 2) for _ in range(2)], [True, False])

    def test_waiting_requests_are_served_in_turn(self) -> None:
        self.assertIs(self.limits.wait(HOP, 1), True)
        heard: list[str] = []
        for name in "abc":
            waiting = self.limits.wait(HOP, 1)
            assert isinstance(waiting, Deferred)
            waiting.addCallback(lambda _, name: heard.append(name), name)
        self.assertFalse(self.limits.take(HOP, 1))
        for _ in range(4):
            self.limits.give_back(HOP)
        self.assertEqual(heard, ["a", "b", "c"])
        self.assertTrue(self.limits.take(HOP, 1))

    def test_a_canceled_request_does_not_count(self) -> None:
        self.limits.take(HOP, 1)
        first, second = self.limits.wait(HOP, 1), self.limits.wait(HOP, 1)
        assert isinstance(first, Deferred) and isinstance(second, Deferred)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.limits.give_back(HOP)
        self.assertIs(self.successResultOf(second), True)
        self.limits.give_back(HOP)
        self.assertTrue(self.limits.take(HOP, 1))

    def test_the_limit_that_was_given_last_holds(self) -> None:
        self.assertTrue(self.limits.take(HOP, 1))
        waiting = self.limits.wait(HOP, 1)
        assert isinstance(waiting, Deferred)
        self.assertTrue(self.limits.take(HOP, 3))
        self.assertIs(self.successResultOf(waiting), True)
        for _ in range(2):
            self.assertFalse(self.limits.take(HOP, 2))
            self.limits.give_back(HOP)
        self.assertTrue(self.limits.take(HOP, 2))

    def test_any_number_of_requests_may_give_back_when_they_are_served(self) -> None:
        """As deliveries do that waited for a slot, if their next hop was suspended meanwhile."""
        self.limits.take(HOP, 1)
        for _ in range(1000):
            waiting = self.limits.wait(HOP, 1)
            assert isinstance(waiting, Deferred)
            waiting.addCallback(lambda _: self.limits.give_back(HOP))
        self.limits.give_back(HOP)
        self.assertEqual(self.limits.counts(), {})
        self.assertTrue(self.limits.take(HOP, 1))

    def test_a_waiting_request_may_give_back_when_it_is_served(self) -> None:
        self.limits.take(HOP, 1)
        waiting = self.limits.wait(HOP, 1)
        assert isinstance(waiting, Deferred)

        def give_both_back(_: bool) -> None:
            self.limits.give_back(HOP)
            self.limits.give_back(HOP)

        waiting.addCallback(give_both_back)
        self.assertTrue(self.limits.take(HOP, 2))
        self.assertEqual([self.limits.take(HOP, 2) for _ in range(2)], [True, False])

    def test_a_key_that_is_not_in_use_is_forgotten(self) -> None:
        self.limits.take(HOP, 1)
        self.limits.give_back(HOP)
        with self.assertRaises(KeyError):
            self.limits.give_back(HOP)
        self.assertFalse(self.limits.take(HOP, 0))
        with self.assertRaises(KeyError):
            self.limits.give_back(HOP)

    def test_the_interface_is_kept(self) -> None:
        limits: Limits = self.limits
        self.assertIs(limits.take(HOP, 1), True)
