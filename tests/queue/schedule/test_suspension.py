"""Suspensions of next hops over days, on a clock."""

from __future__ import annotations

import random  # noqa: TID251 - seeded, so every run draws the same
from collections import Counter
from collections.abc import Sequence
from typing import Any

from attrs import evolve
from twisted.internet.defer import succeed

from twisted_mta.mail.message import Message
from twisted_mta.mail.next_hop import Host, NextHop
from twisted_mta.mail.outcome import Outcome
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.queue.ids import first_id
from twisted_mta.queue.runner import RunnerSettings
from twisted_mta.queue.schedule.next_hops import NextHopLimits
from twisted_mta.testing.store import MemoryStore

from ..mail import DEFERRED, DELIVERED, FAILED, LIFETIME, NOW, message
from ..running import CONNECTION_REFUSED, RunnerTestCase

DAY = 86400.0


class Suspension(RunnerTestCase):
    def hop(self, domain: str = "dead.example") -> Any:
        (hop,) = [
            queue.state
            for next_hop, queue in self.runner._fair_share.queues.items()
            if next_hop.domain == domain
        ]
        return hop

    def fill(self, count: int, domain: str = "dead.example", first: int = 1) -> None:
        """Accept ``count`` messages for a domain."""
        for id in range(first, first + count):
            self.runner.accept(message(id, f"u{id}@{domain}", received_at=self.wall_time()))
        self.settle()

    def until_probed(self) -> float:
        """Let time pass until an attempt begins; return the seconds."""
        began = self.clock.seconds()
        while not self.attempts:
            self.assertLess(self.clock.seconds(), began + 4000)
            self.settle(5)
        return self.clock.seconds() - began

    def test_of_a_thousand_messages_one_goes_with_each_probe(self) -> None:
        self.fill(1000)
        self.assertEqual(len(self.attempts), 5)
        self.unreachable()
        self.assertEqual(self.attempts, [])
        for expected in (300, 600, 1200, 2400, 3600, 3600, 3600):
            waited = self.until_probed()
            self.assertTrue(0.9 * expected <= waited <= 1.1 * expected + 5, (expected, waited))
            self.settle(50)
            self.assertEqual(len(self.attempts), 1)
            self.unreachable()
        tried = sum(1 for each in self.store._recipients.values() if each.recipient.attempts)
        self.assertLessEqual(tried, 5 + 7)

    def test_mail_for_a_suspended_next_hop_is_not_in_memory(self) -> None:
        self.fill(1000)
        self.unreachable()
        self.assertIdle()
        batches = len(self.store.batches)
        self.settle(250)
        self.assertEqual(len(self.store.batches), batches)

    def test_new_mail_for_a_suspended_next_hop_waits_in_the_store(self) -> None:
        self.fill(1)
        self.unreachable()
        self.fill(100, first=2)
        self.assertEqual((self.attempts, self.store.census().leased), ([], 0))

    def test_a_successful_probe_releases_all_waiting_mail(self) -> None:
        self.fill(1000)
        self.unreachable()
        self.until_probed()
        began = self.clock.seconds()
        while self.attempts:
            self.answer(DELIVERED)
        self.assertEqual(self.clock.seconds(), began)
        # The five messages that were tried first wait for their next attempt.
        self.assertTrue(0 < self.store.census().messages <= 5)
        self.assertEqual(self.runner.suspended(), [])
        self.settle(400)
        self.answer(DELIVERED)
        self.assertDone()

    def test_mail_in_memory_at_the_suspension_is_delivered_later(self) -> None:
        self.route = lambda mailbox: NextHop("smtp", domain="dead.example")
        self.fill(5, "a.example")
        self.fill(3, "b.example", first=6)
        self.unreachable()
        self.assertEqual(list(self.store.next_attempts(QueueId(6)).values()), [NOW])
        self.until_probed()
        self.assertEqual(int(self.attempts[0].message.id), 6)
        while self.store.messages:
            self.answer(DELIVERED)
            self.settle(60)
        self.assertDone()

    def test_a_reply_about_the_message_reopens_the_next_hop(self) -> None:
        for reply in (DEFERRED, FAILED):
            self.setUp()
            self.fill(30)
            self.unreachable()
            self.until_probed()
            self.answer(reply)
            self.assertGreaterEqual(len(self.attempts), 5)

    def test_a_deferred_message_suspends_no_next_hop(self) -> None:
        self.fill(1)
        self.answer(DEFERRED)
        self.fill(1, first=2)
        self.assertEqual(len(self.attempts), 1)

    def test_next_hops_on_two_ports_are_suspended_separately(self) -> None:
        hops = {
            "a.example": NextHop("smtp", (Host("relay.example", 25),)),
            "b.example": NextHop("smtp", (Host("relay.example", 587),)),
        }
        self.route = lambda mailbox: hops[mailbox.domain]
        self.fill(1, "a.example")
        self.unreachable()
        self.fill(1, "b.example", first=2)
        (attempt,) = self.attempts
        self.assertEqual(str(attempt.next_hop), "smtp:relay.example:587")

    def test_a_suspended_next_hop_is_shown_with_its_last_reply(self) -> None:
        self.fill(3)
        self.unreachable()
        (shown,) = self.runner.suspended()
        self.assertEqual((shown.next_hop, shown.times), ("smtp:dead.example", 1))
        self.assertEqual(shown.cause.reply, CONNECTION_REFUSED)
        self.assertTrue(270 <= shown.seconds <= 330)

    def test_mail_that_expires_during_a_suspension_is_returned(self) -> None:
        sent = 300
        for number in range(sent):
            self.runner.accept(
                message(
                    first_id(NOW) + number,
                    f"u{number}@dead.example",
                    sender=None if number % 2 else "ann@sender.example",
                    received_at=NOW,
                )
            )
        self.settle()
        self.unreachable("dead.example")
        probes = 0
        while self.clock.seconds() < LIFETIME - 1:
            self.settle(min(600, LIFETIME - 1 - self.clock.seconds()))
            probes += len(self.attempts)
            self.unreachable("dead.example")
        # Every message is tried up to the end of its lifetime.
        self.assertEqual(self.store.census().messages, sent)
        self.assertTrue(110 < probes < 150, probes)
        for _ in range(30):
            self.settle(300)
            self.unreachable("dead.example")
            self.answer(DELIVERED)  # notices
        self.assertDone()
        self.assertEqual(len(self.store.failures), sent // 2)
        notices = [each for each in self.all_attempts if each.message.id >= first_id(NOW) + sent]
        told = [each for each in self.all_attempts if each.next_hop.domain == "sender.example"]
        self.assertEqual(len(told), sent // 2, len(notices))
        self.assertIn("Connection refused", next(iter(self.store.failures.values())))

    def test_a_restart_begins_with_all_next_hops_open(self) -> None:
        self.fill(10)
        self.unreachable()
        self.begin()
        self.assertEqual(len(self.attempts), 5)

    def test_a_suspension_without_waiting_mail_ends(self) -> None:
        self.fill(1)
        self.unreachable()
        self.settle(4000)
        self.answer(DELIVERED)
        self.settle(4000)
        self.assertDone()
        self.assertEqual([e for e in self.clock.getDelayedCalls() if e.getTime() < 1e9], [])


class Days(RunnerTestCase):
    """Days of next hops that come and go, drawn from a seed."""

    def test_five_days_of_hosts_that_come_and_go_lose_no_mail(self) -> None:
        for seed in range(3):
            self.setUp()
            self.live(random.Random(seed))

    def live(self, draw: random.Random) -> None:
        down: dict[str, bool] = {}
        probes: Counter[str] = Counter()
        delivered: Counter[int] = Counter()

        def deliver(next_hop: NextHop, message: Message) -> Any:
            name = next_hop.domain
            if down.get(name):
                probes[name] += 1
                return succeed(
                    [
                        Outcome(each.number, CONNECTION_REFUSED, unreachable=True)
                        for each in message.envelope.recipients
                    ]
                )
            outcomes: Sequence[Outcome] = [
                Outcome(each.number, draw.choice([DELIVERED, DELIVERED, DEFERRED]), "mx")
                for each in message.envelope.recipients
            ]
            delivered.update(int(message.id) for each in outcomes if each.delivered)
            return succeed(outcomes)

        self.deliver = deliver
        sent = 0
        for hour in range(4 * 24):
            for name in range(6):
                if draw.random() < 0.1:
                    down[f"{name}.example"] = not down.get(f"{name}.example")
            for _ in range(draw.randrange(10)):
                sent += 1
                to = f"u@{draw.randrange(6)}.example"
                self.runner.accept(message(sent, to, received_at=self.wall_time()))
            before = probes.total()
            for _ in range(12):
                self.settle(300)
            # Each next hop is tried every five minutes at most, mostly each hour: five messages at
            # first, then one at a time.
            self.assertLess(probes.total() - before, 6 * (5 + 12), hour)
        down.clear()
        for _ in range(48):
            self.settle(1800)
        self.assertDone()
        self.assertEqual(delivered, dict.fromkeys(range(1, sent + 1), 1))


class Overrides(RunnerTestCase):
    def limits_of(self, next_hop: NextHop) -> NextHopLimits:
        if next_hop.domain == "hasty.example":
            return NextHopLimits(retry_minimum=10, retry_maximum=20, lifetime=3600)
        return NextHopLimits()

    def settings(self) -> RunnerSettings:
        return evolve(super().settings(), longest=20.0)

    def test_a_short_backoff_of_one_next_hop_makes_no_other_mail_due(self) -> None:
        self.accept(message(1))
        self.answer(DEFERRED)
        self.store = MemoryStore(disk=self.store)
        for call in self.clock.getDelayedCalls():
            call.cancel()
        self.begin()
        self.settle(200)
        self.assertEqual(self.attempts, [])
        self.settle(200)
        self.assertEqual(len(self.attempts), 1)

    def test_a_next_hop_may_have_a_backoff_and_a_lifetime_of_its_own(self) -> None:
        self.accept(message(1, "a@hasty.example", "b@next.example"))
        tries = 0
        while True:
            hasty = [each for each in self.attempts if each.next_hop.domain == "hasty.example"]
            tries += len(hasty)
            self.answer(DEFERRED)
            if self.notices():
                break
            self.settle(5)
        self.assertTrue(150 < tries < 400, tries)
        self.assertAlmostEqual(self.clock.seconds(), 3600, delta=30)

    def test_the_suspension_of_a_next_hop_uses_its_own_backoff(self) -> None:
        self.accept(message(1, "a@hasty.example"))
        self.unreachable()
        self.settle(12)
        self.assertEqual(len(self.attempts), 1)


class WallClock(RunnerTestCase):
    def test_a_clock_set_back_by_a_day_delays_no_retry_beyond_the_maximum(self) -> None:
        self.accept(*(message(id, f"a@{id}.example") for id in range(1, 6)))
        self.answer(DEFERRED)
        self.step -= DAY
        for _ in range(66):
            self.settle(60)
        self.assertEqual(len(self.attempts), 5)
        self.answer(DELIVERED)
        self.assertDone()

    def test_a_clock_set_back_by_an_hour_delays_a_retry_by_a_minute_at_most(self) -> None:
        self.accept(message(1, "a@busy.example"))
        self.answer(DEFERRED)
        self.step -= 3600
        self.settle(60)
        self.assertEqual(self.attempts, [])
        self.settle(400)
        self.assertEqual(len(self.attempts), 1)

    def test_a_clock_set_back_twice_delays_no_more_than_once(self) -> None:
        self.accept(message(1, "a@busy.example"))
        self.answer(DEFERRED)
        self.step -= 3600
        self.settle(90)
        self.step -= 1800
        self.settle(60)
        self.assertEqual(self.attempts, [])
        self.settle(310)
        self.assertEqual(len(self.attempts), 1)

    def test_a_clock_set_back_between_two_starts_delays_no_retry_beyond_the_maximum(self) -> None:
        self.accept(message(1))
        self.answer(DEFERRED)
        self.step -= DAY
        self.begin()
        self.settle(60)
        self.assertEqual(len(self.attempts), 1)

    def test_a_clock_set_ahead_by_a_day_makes_mail_due_within_a_minute(self) -> None:
        self.accept(message(1))
        self.answer(DEFERRED)
        self.settle(1)
        self.step += 600
        self.settle(61)
        self.assertEqual(len(self.attempts), 1)

    def test_a_suspension_does_not_depend_on_the_wall_clock(self) -> None:
        self.accept(message(1, "a@dead.example"), message(2, "a@dead.example"))
        self.unreachable()
        self.step += DAY
        self.settle(120)
        self.assertEqual(self.attempts, [])
        self.step -= 2 * DAY
        self.settle(250)
        self.assertEqual(len(self.attempts), 1)
