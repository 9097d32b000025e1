"""The throttle: failures by account and by address, in a sliding window, one attempt at a time."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.auth.sliding_window import SlidingWindow, hashed_name
from twisted_mta.auth.throttle import Throttle, ThrottleSettings
from twisted_mta.interfaces import LimitKey
from twisted_mta.system.limits import LocalLimits

T = TypeVar("T")


class CountingLimits(LocalLimits):
    """Limits that answer later, as those of a parent process, and show what is counted."""

    def take(self, key: LimitKey, limit: int) -> Any:
        return succeed(super().take(key, limit))

    def used(self) -> int:
        return sum(count.used for count in self._counts.values())


class ThrottleTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.limits = CountingLimits()

    def throttle(self, *, timed: bool = False, **settings: Any) -> Throttle:
        throttle = Throttle(
            ThrottleSettings(**settings), limits=self.limits, clock=self.clock, timed=timed
        )
        self.addCleanup(throttle.close)
        return throttle

    def done(self, coroutine: Coroutine[Any, Any, T]) -> T:
        result: T = self.successResultOf(Deferred.fromCoroutine(coroutine))
        return result

    def fail_often(self, throttle: Throttle, times: int, account: str, address: str | None) -> None:
        for _ in range(times):
            self.done(throttle.failed(account, address))

    def allows(self, throttle: Throttle, account: str, address: str | None) -> bool:
        return self.done(throttle.allows(account, address))


class ByAddress(ThrottleTestCase):
    def test_each_ipv4_address_has_its_own_count(self) -> None:
        throttle = self.throttle(per_account=0, per_address=3)
        self.fail_often(throttle, 3, "", "192.0.2.1")
        self.assertFalse(self.allows(throttle, "ann", "192.0.2.1"))
        for other in ("192.0.2.2", "192.0.3.1", "10.0.2.1", "2001:db8::1", None):
            self.assertTrue(self.allows(throttle, "ann", other), other)

    def test_an_ipv4_address_is_the_same_when_it_is_mapped_into_ipv6(self) -> None:
        throttle = self.throttle(per_account=0, per_address=1)
        self.fail_often(throttle, 1, "", "::ffff:192.0.2.1")
        self.assertFalse(self.allows(throttle, "", "192.0.2.1"))
        self.assertTrue(self.allows(throttle, "", "::ffff:192.0.2.2"))

    def test_the_ipv6_addresses_of_one_customer_share_a_count(self) -> None:
        throttle = self.throttle(per_account=0, per_address=2)
        self.fail_often(throttle, 1, "", "2001:db8:0:1::1")
        self.fail_often(throttle, 1, "", "2001:db8:0:1:ffff:ffff:ffff:ffff")
        self.assertFalse(self.allows(throttle, "", "2001:db8:0:1::2"))
        self.assertTrue(self.allows(throttle, "", "2001:db8:0:2::1"))
        self.assertTrue(self.allows(throttle, "", "2001:db8::1"))
        self.assertTrue(self.allows(throttle, "", "2001:db9:0:1::1"))

    def test_the_zone_of_a_link_local_address_does_not_matter(self) -> None:
        throttle = self.throttle(per_account=0, per_address=1)
        self.fail_often(throttle, 1, "", "fe80::1%eth0")
        self.assertFalse(self.allows(throttle, "", "fe80::2%eth1"))

    def test_clients_of_unix_sockets_share_a_count(self) -> None:
        throttle = self.throttle(per_account=0, per_address=1)
        self.fail_often(throttle, 1, "", None)
        self.assertFalse(self.allows(throttle, "", None))


class ByAccount(ThrottleTestCase):
    def test_an_account_is_counted_in_any_case_from_all_addresses(self) -> None:
        throttle = self.throttle(per_account=2, per_address=0)
        self.fail_often(throttle, 1, "Ann", "192.0.2.1")
        self.assertTrue(self.allows(throttle, "ann", "192.0.2.1"))
        self.fail_often(throttle, 1, "ANN", "192.0.2.2")
        self.assertFalse(self.allows(throttle, "ann", "2001:db8::1"))
        self.assertTrue(self.allows(throttle, "bob", "192.0.2.1"))

    def test_attempts_without_a_name_count_for_their_address_alone(self) -> None:
        throttle = self.throttle(per_account=1, per_address=5)
        self.fail_often(throttle, 2, "", "192.0.2.1")
        self.assertTrue(self.allows(throttle, "", "192.0.2.2"))

    def test_zero_is_no_limit(self) -> None:
        throttle = self.throttle(per_account=0, per_address=0)
        self.fail_often(throttle, 1000, "ann", "192.0.2.1")
        self.assertTrue(self.allows(throttle, "ann", "192.0.2.1"))
        self.assertEqual(self.limits.used(), 0)

    def test_attempts_on_an_account_are_judged_one_after_the_other(self) -> None:
        throttle = self.throttle()
        end = self.done(throttle.turn("ann"))
        second = Deferred.fromCoroutine(throttle.turn("ANN"))
        self.assertNoResult(second)
        other: Callable[[], None] = self.done(throttle.turn("bob"))
        other()
        end()
        self.successResultOf(second)()
        self.assertEqual(self.limits.used(), 0)

    def test_names_have_one_length_in_the_keys_of_limits(self) -> None:
        self.assertEqual(len(hashed_name("a")), len(hashed_name("b" * 255)))
        self.assertEqual(hashed_name("Ann"), hashed_name("aNN"))
        self.assertNotEqual(hashed_name("ann"), hashed_name("bob"))


class OverTime(ThrottleTestCase):
    def test_a_failure_counts_for_the_period_and_no_longer(self) -> None:
        throttle = self.throttle(per_account=1, period=600.0)
        self.fail_often(throttle, 1, "ann", "192.0.2.1")
        self.clock.advance(599.9)
        self.assertFalse(self.allows(throttle, "ann", "192.0.2.1"))
        self.clock.advance(0.1)
        self.assertTrue(self.allows(throttle, "ann", "192.0.2.1"))

    def test_other_settings_are_in_force_at_once(self) -> None:
        throttle = self.throttle(per_account=5, per_address=5, period=600.0, delay=1.0)
        self.fail_often(throttle, 3, "ann", "192.0.2.1")
        throttle.update(ThrottleSettings(per_account=3, per_address=9, period=60.0, delay=2.0))
        self.assertFalse(self.allows(throttle, "ann", "192.0.2.9"))
        self.assertTrue(self.allows(throttle, "bob", "192.0.2.1"))
        self.assertEqual(throttle.settings.delay_after(2), 4.0)
        throttle.update(ThrottleSettings(per_account=9, per_address=3))
        self.assertTrue(self.allows(throttle, "ann", "192.0.2.9"))
        self.assertFalse(self.allows(throttle, "bob", "192.0.2.1"))

    def test_a_changed_period_applies_to_the_failures_that_follow(self) -> None:
        throttle = self.throttle(per_account=1, per_address=0, period=600.0)
        throttle.update(ThrottleSettings(per_account=1, per_address=0, period=60.0))
        self.fail_often(throttle, 1, "ann", None)
        self.clock.advance(60)
        self.assertTrue(self.allows(throttle, "ann", None))

    def test_the_delay_grows_with_each_failure_up_to_five_seconds(self) -> None:
        settings = ThrottleSettings()
        delays = [settings.delay_after(failures) for failures in range(1, 8)]
        self.assertEqual(delays, [1.0, 2.0, 3.0, 4.0, 5.0, 5.0, 5.0])
        self.assertEqual(ThrottleSettings(delay=0.0).delay_after(9), 0.0)

    def test_failures_are_given_back_by_a_timer_until_the_throttle_is_closed(self) -> None:
        throttle = self.throttle(timed=True, period=600.0)
        self.fail_often(throttle, 1, "ann", "192.0.2.1")
        self.clock.advance(300)
        self.fail_often(throttle, 1, "ann", "192.0.2.1")
        self.assertEqual(self.limits.used(), 4)
        self.clock.advance(300)
        self.assertEqual(self.limits.used(), 2)
        self.clock.advance(300)
        self.assertEqual(self.limits.used(), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.fail_often(throttle, 1, "ann", "192.0.2.1")
        throttle.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.fail_often(throttle, 1, "ann", "192.0.2.1")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_without_a_timer_failures_are_given_back_by_the_next_attempt(self) -> None:
        throttle = self.throttle(period=600.0)
        self.fail_often(throttle, 2, "ann", "192.0.2.1")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(600)
        self.assertEqual(self.limits.used(), 4)
        self.allows(throttle, "bob", None)
        self.assertEqual(self.limits.used(), 0)


class Defaults(ThrottleTestCase):
    def test_an_account_may_fail_20_times_and_an_address_50_times_in_ten_minutes(self) -> None:
        for account, address, limit in (("ann", None, 20), ("", "192.0.2.1", 50)):
            throttle = self.throttle()
            self.fail_often(throttle, limit - 1, account, address)
            self.assertTrue(self.allows(throttle, account, address))
            self.fail_often(throttle, 1, account, address)
            self.clock.advance(599)
            self.assertFalse(self.allows(throttle, account, address))
            self.clock.advance(1)
            self.assertTrue(self.allows(throttle, account, address))


class Windows(ThrottleTestCase):
    def window(self, most: int) -> SlidingWindow:
        return SlidingWindow(limits=self.limits, clock=self.clock, period=60.0, most=most)

    def test_an_event_beyond_the_limit_is_not_counted(self) -> None:
        window = self.window(100)
        taken = [self.done(window.add(("x",), 2)) for _ in range(4)]
        self.assertEqual(taken, [True, True, False, False])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.limits.used(), 2)
        self.assertFalse(self.done(window.allows(("x",), 2)))
        self.assertTrue(self.done(window.allows(("x",), 3)))
        self.assertEqual(self.limits.used(), 2)

    def test_the_oldest_event_is_forgotten_where_there_are_too_many(self) -> None:
        window = self.window(3)
        for key in "abcd":
            self.done(window.add((key,), 1))
        self.assertEqual(self.limits.used(), 3)
        self.assertEqual(
            [self.done(window.allows((key,), 1)) for key in "abcd"], [True, False, False, False]
        )

    def test_an_event_is_counted_again_when_those_before_it_are_over(self) -> None:
        window = self.window(100)
        self.assertTrue(self.done(window.add(("x",), 1)))
        self.clock.advance(59)
        self.assertFalse(self.done(window.add(("x",), 1)))
        self.clock.advance(1)
        self.assertTrue(self.done(window.add(("x",), 1)))
        self.assertEqual(self.limits.used(), 1)
