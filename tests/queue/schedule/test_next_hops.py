"""The state of a next hop: whether it can be reached, and how much it takes at once."""

import random  # noqa: TID251 - seeded, so every run draws the same
from itertools import pairwise

from tests.tidy import TidyTestCase
from twisted_mta.mail.envelope import RecipientNumber
from twisted_mta.mail.next_hop import NextHop
from twisted_mta.mail.outcome import Outcome
from twisted_mta.mail.reply import Reply
from twisted_mta.queue.schedule.backoff import Backoff
from twisted_mta.queue.schedule.next_hops import (
    INITIAL,
    NextHopLimits,
    NextHopState,
    Verdict,
    verdict,
)

from ..mail import DEFERRED, DELIVERED, FAILED
from ..running import CONNECTION_REFUSED

ALONE = Outcome(RecipientNumber(0), CONNECTION_REFUSED, unreachable=True)
BACKOFF = Backoff(300.0, 3600.0)


def outcome(reply: Reply, remote: str | None = "mx.example[192.0.2.1]:25") -> Outcome:
    return Outcome(RecipientNumber(0), reply, remote)


class HopTestCase(TidyTestCase):
    def setUp(self) -> None:
        self.now = 0.0
        self.random = random.Random(1)
        self.hop = self.new_hop()

    def new_hop(self, connections: int = 20) -> NextHopState:
        return NextHopState(NextHop("smtp", domain="next.example"), NextHopLimits(), connections)

    def end(self, attempt: int, verdict: Verdict) -> str | None:
        return self.hop.end(
            attempt, verdict, ALONE, now=self.now, backoff=BACKOFF, random=self.random
        )

    def once(self, verdict: Verdict) -> str | None:
        return self.end(self.hop.begin(), verdict)

    def suspended_for(self) -> float:
        assert self.hop.suspension is not None
        return self.hop.suspension.until - self.now


class Verdicts(TidyTestCase):
    def test_a_reply_about_the_message_shows_that_the_next_hop_is_reached(self) -> None:
        for reply in (DELIVERED, DEFERRED, FAILED):
            self.assertEqual(verdict([outcome(reply)]), "reached")

    def test_a_delivered_outcome_without_a_remote_is_reached(self) -> None:
        self.assertEqual(verdict([outcome(DELIVERED, None)]), "reached")

    def test_a_reply_of_our_own_is_silent(self) -> None:
        self.assertEqual(verdict([outcome(DEFERRED, None)]), "silent")
        self.assertEqual(verdict([outcome(FAILED, None)]), "silent")
        self.assertEqual(verdict([]), "silent")

    def test_an_unreachable_outcome_is_unreachable(self) -> None:
        self.assertEqual(verdict([ALONE, ALONE]), "unreachable")

    def test_a_final_outcome_suspends_no_next_hop(self) -> None:
        gone = Outcome(RecipientNumber(0), FAILED, unreachable=True)
        self.assertEqual(verdict([gone]), "silent")

    def test_a_reply_of_421_is_overloaded(self) -> None:
        closing = Reply.of(421, "3.2", "Too much, closing")
        self.assertEqual(verdict([outcome(DELIVERED), outcome(closing)]), "overloaded")


class Reachability(HopTestCase):
    def test_an_unreachable_next_hop_is_suspended_and_then_probed_once(self) -> None:
        self.assertEqual(self.once("unreachable"), "suspended")
        self.assertTrue(270 <= self.suspended_for() <= 330)
        self.assertEqual(self.hop.allowance(self.now), 0)
        self.now += self.suspended_for()
        self.assertEqual(self.hop.allowance(self.now), 1)
        probe = self.hop.begin()
        self.assertEqual(self.hop.allowance(self.now + 1e6), 0)
        self.assertEqual(self.end(probe, "reached"), "reopened")
        self.assertEqual(self.hop.allowance(self.now), INITIAL)

    def test_each_failed_probe_doubles_the_suspension_up_to_the_maximum(self) -> None:
        self.once("unreachable")
        for expected in (600, 1200, 2400, 3600, 3600, 3600):
            self.now += self.suspended_for()
            self.assertEqual(self.once("unreachable"), "suspended")
            self.assertTrue(0.9 * expected <= self.suspended_for() <= 1.1 * expected)

    def test_a_suspension_is_never_longer_than_the_maximum(self) -> None:
        for _ in range(300):
            self.once("unreachable")
            self.assertTrue(300 <= self.suspended_for() <= 3600)
            self.now += self.suspended_for()

    def test_of_early_probes_that_fail_one_counts(self) -> None:
        self.once("unreachable")
        self.assertTrue(self.hop.allow_early_probe(self.now))
        self.assertFalse(self.hop.allow_early_probe(self.now))
        self.assertEqual(self.hop.allowance(self.now), 1)
        self.assertEqual(self.once("unreachable"), "suspended")
        suspension = self.hop.suspension
        assert suspension is not None
        self.assertEqual(suspension.times, 2)
        for _ in range(100):
            self.now += 1
            self.assertTrue(self.hop.allow_early_probe(self.now))
            self.assertEqual(self.once("unreachable"), "still suspended")
            self.assertEqual(self.hop.allowance(self.now), 0)
        self.assertEqual(self.hop.suspension, suspension)
        self.now = suspension.until
        self.assertEqual(self.once("unreachable"), "suspended")
        self.assertEqual(self.hop.suspension.times, 3)
        self.assertTrue(self.hop.allow_early_probe(self.now))
        self.assertEqual(self.once("unreachable"), "suspended")
        self.assertEqual(self.hop.suspension.times, 4)

    def test_an_early_probe_that_succeeds_reopens_the_next_hop(self) -> None:
        self.once("unreachable")
        self.hop.allow_early_probe(self.now)
        self.assertEqual(self.once("reached"), "reopened")
        self.once("unreachable")
        self.assertEqual(self.hop.allowance(self.now), 0)

    def test_a_probe_that_fails_after_the_suspension_counts(self) -> None:
        self.once("unreachable")
        self.hop.allow_early_probe(self.now)
        probe = self.hop.begin()
        self.now += self.suspended_for() + 1
        self.assertEqual(self.end(probe, "unreachable"), "suspended")
        self.assertGreater(self.suspended_for(), 500)
        self.assertEqual(self.hop.allowance(self.now), 0)

    def test_a_silent_early_probe_is_followed_by_another(self) -> None:
        self.once("unreachable")
        self.hop.allow_early_probe(self.now)
        self.once("silent")
        self.assertEqual(self.hop.allowance(self.now), 1)

    def test_an_early_probe_of_an_open_or_due_next_hop_changes_nothing(self) -> None:
        self.assertFalse(self.hop.allow_early_probe(self.now))
        self.once("unreachable")
        self.now += self.suspended_for()
        self.assertFalse(self.hop.allow_early_probe(self.now))

    def test_a_suspension_after_a_success_begins_with_the_minimum(self) -> None:
        for _ in range(5):
            self.once("unreachable")
            self.now += self.suspended_for()
        self.once("reached")
        self.once("unreachable")
        self.assertLessEqual(self.suspended_for(), 330)

    def test_attempts_that_fail_together_suspend_once(self) -> None:
        attempts = [self.hop.begin() for _ in range(5)]
        changes = [self.end(attempt, "unreachable") for attempt in attempts]
        self.assertEqual(changes, ["suspended", None, None, None, None])
        assert self.hop.suspension is not None
        self.assertEqual(self.hop.suspension.times, 1)

    def test_an_attempt_that_began_before_the_suspension_may_reopen_the_next_hop(self) -> None:
        slow, quick = self.hop.begin(), self.hop.begin()
        self.end(quick, "unreachable")
        self.assertEqual(self.end(slow, "reached"), "reopened")

    def test_while_a_probe_is_under_way_a_late_failure_of_another_changes_nothing(self) -> None:
        slow, quick = self.hop.begin(), self.hop.begin()
        self.end(quick, "unreachable")
        self.now += self.suspended_for()
        probe = self.hop.begin()
        self.assertIsNone(self.end(slow, "unreachable"))
        self.assertEqual(self.end(probe, "unreachable"), "suspended")

    def test_an_unreachable_attempt_among_successes_only_shrinks_the_width(self) -> None:
        for _ in range(100):
            self.once("reached")
        before = self.hop.limit
        turned_away, taken = self.hop.begin(), self.hop.begin()
        self.end(taken, "reached")
        self.assertIsNone(self.end(turned_away, "unreachable"))
        self.assertEqual(self.hop.limit, before // 2)
        self.assertEqual(self.once("unreachable"), "suspended")

    def test_a_probe_answered_421_reopens_the_next_hop(self) -> None:
        self.once("unreachable")
        self.now += self.suspended_for()
        self.assertEqual(self.once("overloaded"), "reopened")

    def test_a_silent_probe_is_followed_by_another(self) -> None:
        self.once("unreachable")
        self.now += self.suspended_for()
        self.assertIsNone(self.once("silent"))
        self.assertEqual(self.hop.allowance(self.now), 1)

    def test_local_delivery_is_never_suspended(self) -> None:
        self.hop = NextHopState(NextHop("maildir"), NextHopLimits(), 20)
        self.assertIsNone(self.once("unreachable"))
        self.assertEqual(self.hop.allowance(self.now), 20)


class Concurrency(HopTestCase):
    def test_the_width_rises_by_one_with_each_round_of_successes(self) -> None:
        limits = []
        for _ in range(16):
            limits.append(self.hop.limit)
            for attempt in [self.hop.begin() for _ in range(self.hop.limit)]:
                self.end(attempt, "reached")
        self.assertEqual(limits[0], INITIAL)
        for before, after in pairwise(limits):
            self.assertTrue(before <= after <= before + 1, limits)
        self.assertGreater(limits[-1], 15)

    def test_the_width_never_exceeds_the_connections(self) -> None:
        self.hop = self.new_hop(connections=7)
        for _ in range(1000):
            self.once("reached")
        self.assertEqual(self.hop.limit, 7)
        self.hop = self.new_hop(connections=2)
        self.assertEqual(self.hop.limit, 2)

    def test_the_width_halves_once_for_attempts_turned_away_together(self) -> None:
        for _ in range(1000):
            self.once("reached")
        attempts = [self.hop.begin() for _ in range(20)]
        for attempt in attempts:
            self.end(attempt, "overloaded")
        self.assertEqual(self.hop.limit, 10)
        self.once("overloaded")
        self.assertEqual(self.hop.limit, 5)

    def test_the_width_never_falls_below_one(self) -> None:
        for _ in range(10):
            self.once("overloaded")
        self.assertEqual(self.hop.limit, 1)

    def test_the_width_approaches_the_capacity_of_the_next_hop(self) -> None:
        # A next hop that turns away transactions beyond 12 at once, in any order of its replies.
        for seed in range(5):
            self.hop = self.new_hop()
            draw, under_way, limits = random.Random(seed), [], []
            for round_ in range(4000):
                while self.hop.allowance(self.now) > 0:
                    under_way.append((self.hop.begin(), self.hop.active <= 12))
                attempt, taken = under_way.pop(draw.randrange(len(under_way)))
                self.end(attempt, "reached" if taken else "overloaded")
                if round_ > 1000:
                    limits.append(self.hop.limit)
            self.assertLessEqual(max(limits), 14)
            self.assertGreater(sum(limits) / len(limits), 7)


class Limits(TidyTestCase):
    def test_the_backoff_of_a_next_hop_is_the_default_but_for_its_settings(self) -> None:
        self.assertEqual(NextHopLimits().backoff(BACKOFF), BACKOFF)
        self.assertEqual(NextHopLimits(retry_minimum=60).backoff(BACKOFF), Backoff(60, 3600))
        self.assertEqual(NextHopLimits(retry_minimum=7200).backoff(BACKOFF), Backoff(7200, 7200))
        self.assertEqual(NextHopLimits(retry_maximum=600).backoff(BACKOFF), Backoff(300, 600))
