"""Fair shares of places in memory and transactions, and limits over all processes."""

from __future__ import annotations

import gc
from collections import Counter
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from tests.tidy import TidyTestCase
from twisted_mta.config.amounts import Rate
from twisted_mta.interfaces import LimitKey
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.envelope import RecipientNumber
from twisted_mta.mail.message import Message
from twisted_mta.mail.next_hop import Host, NextHop
from twisted_mta.mail.outcome import Outcome
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.queue.schedule import fair_share
from twisted_mta.queue.schedule.delivery import WHOLE, Delivery, split
from twisted_mta.queue.schedule.fair_share import FairShare
from twisted_mta.queue.schedule.next_hops import NextHopLimits
from twisted_mta.queue.schedule.slots import Slot
from twisted_mta.queue.store.contract import Lease
from twisted_mta.system.limits import LocalLimits

from ..mail import DEFERRED, DELIVERED, FAILED, message
from ..running import RunnerTestCase, route
from ..store.priority_conformance import special


class Places(TidyTestCase):
    """The place of a delivery, from its claim until it leaves."""

    def setUp(self) -> None:
        self.fair_share = FairShare(
            concurrency=50, per_hop=20, limits_of=lambda next_hop: NextHopLimits()
        )
        self.delivery = Delivery(NextHop("smtp", domain="next.example"), message())

    def places(self) -> tuple[int, int, int]:
        """Return all places, those of the next hop, and those of it that are claimed."""
        queue = self.fair_share.queue(self.delivery.next_hop)
        return self.fair_share.places, queue.places, queue.claimed

    def test_a_delivery_arrives_in_the_place_that_it_claimed(self) -> None:
        self.assertTrue(self.fair_share.claim([self.delivery], 0.0))
        self.assertEqual(self.places(), (1, 1, 1))
        self.assertTrue(self.fair_share.arrive(self.delivery, 0.0))
        self.assertEqual(self.places(), (1, 1, 0))

    def test_a_delivery_without_a_claim_takes_a_place_as_it_arrives(self) -> None:
        self.assertTrue(self.fair_share.arrive(self.delivery, 0.0))
        self.assertEqual(self.places(), (1, 1, 0))

    def test_a_place_is_given_back_once(self) -> None:
        self.fair_share.claim([self.delivery], 0.0)
        for _ in range(2):
            self.fair_share.leave(self.delivery)
            self.assertEqual(self.places(), (0, 0, 0))
        self.fair_share.arrive(self.delivery, 0.0)
        for _ in range(2):
            self.fair_share.leave(self.delivery)
            self.assertEqual(self.fair_share.places, 0)

    def test_messages_to_many_next_hops_have_places_of_contents_and_leave_half_to_others(
        self,
    ) -> None:
        """Their deliveries share one content, so they are not read back for each next hop."""
        self.patch(fair_share, "_WINDOW", 4)
        share = FairShare(concurrency=1, per_hop=20, limits_of=lambda next_hop: NextHopLimits())
        mailboxes = [f"a@{number}.example" for number in range(WHOLE)]
        several = [split(message(1, *mailboxes), route, lambda next_hop: None) for _ in range(4)]
        self.assertEqual([share.claim(each, 0.0) for each in several], [True, True, False, False])
        others = [
            Delivery(NextHop("smtp", domain=f"{number}.other.example"), message())
            for number in range(3)
        ]
        self.assertEqual([share.claim([each], 0.0) for each in others], [True, True, False])
        for each in (*several[0], *several[1]):
            share.arrive(each, 0.0)
        for each in (*several[0][1:], *several[1][:-1]):  # one of each waits for its next hop
            share.leave(each)
        self.assertEqual([share.claim(each, 0.0) for each in several[2:]], [False, False])
        for each in (several[0][0], several[1][-1]):
            share.leave(each)
        self.assertEqual([share.claim(each, 0.0) for each in several[2:]], [False, False])
        share.leave(others[0])
        self.assertTrue(share.claim(several[2], 0.0))

    def test_a_content_takes_a_whole_place_until_its_last_delivery_leaves(self) -> None:
        share, kinds = self.fair_share, self.fair_share._weight_of_kind
        known = share.queue(NextHop("smtp", domain="0.example")).state
        for number in (1, 2, 3, 5, WHOLE, WHOLE + 1, 20):
            mailboxes = [f"a@{each}.example" for each in range(number)]
            for order in (1, -1, 2, 3):
                deliveries = split(message(1, *mailboxes), route, lambda next_hop: None)
                if order == 3:  # as mail from the store
                    for each in deliveries:
                        share.arrive(each, 0.0)
                else:
                    self.assertTrue(share.claim(deliveries, 0.0))
                left = deliveries[::order] + (deliveries[1::2] if order == 2 else [])
                left += [each for each in deliveries if each not in left]
                for at, each in enumerate(left):
                    self.assertGreaterEqual(sum(kinds), WHOLE, (number, order, at))
                    self.assertLessEqual(sum(kinds), max(WHOLE, number))
                    share.leave(evolve(each) if at % 2 else each)  # its recipients were divided
                    known.proven = at % 2 == 0
                self.assertEqual((sum(kinds), share.places), (0, 0))

    def test_a_transaction_that_ends_matters_to_mail_that_waits_and_to_suspensions(self) -> None:
        """The runner looks at what may begin only then."""
        share, next_hop = self.fair_share, self.delivery.next_hop
        share.claim([self.delivery], 0.0)
        self.assertFalse(share.has_rest)
        share.arrive(self.delivery, 0.0)
        self.assertTrue(share.has_rest)
        (queue,) = share.startable(0.0, 8)
        share.begin(queue, 0.0)
        self.assertFalse(share.has_rest)
        share.add_due("other.example", 0.0, next_hop)
        self.assertTrue(share.has_rest)
        share.release(share.readings(0.0)[0])
        self.assertFalse(share.has_rest)
        queue.state.suspend(60.0, Outcome(RecipientNumber(0), DEFERRED), now=0.0)
        share.suspended(queue)
        self.assertTrue(share.has_rest)
        self.assertIsNone(share.next_probe(60.0))
        self.assertFalse(share.has_rest)


class NextHopsWithoutMail(TidyTestCase):
    def test_settings_may_change_while_as_many_are_remembered_as_may_be(self) -> None:
        """Mail that is due is routed again then, so for a moment its next hops have none either."""
        self.patch(fair_share, "_IDLE", 2)
        share = FairShare(concurrency=50, per_hop=20, limits_of=lambda next_hop: NextHopLimits())
        next_hops = [NextHop("smtp", domain=f"{number}.example") for number in range(4)]
        for each in next_hops[:2]:
            share.add_due(each.domain, 0.0, each)
        for each in next_hops[2:]:
            share.leave(self.arrived(share, each))
        _, domains = share.update(concurrency=50, per_hop=20)
        self.assertEqual(list(domains), ["0.example", "1.example"])
        self.assertEqual(list(share.queues), next_hops[:2])

    def arrived(self, share: FairShare, next_hop: NextHop) -> Delivery:
        delivery = Delivery(next_hop, message())
        share.arrive(delivery, 0.0)
        share.begin(share.startable(0.0, 1)[0], 0.0)
        return delivery


class FairTestCase(RunnerTestCase):
    def hops(self) -> Counter[str]:
        return Counter(str(each.next_hop).removeprefix("smtp:") for each in self.attempts)

    def store_without_starting(self, *messages: Message) -> None:
        """Put messages into the store while the runner does not run."""
        self.begin(start=False)
        for each in messages:
            self.runner.accept(each)
        self.settle()

    def leased(self) -> list[int]:
        """Return the number of messages that each lease so far asked for."""
        return [
            sum(want.limit for want in operation.wants)
            for batch in self.store.batches
            for operation in batch
            if isinstance(operation, Lease)
        ]


class OneAgainstMany(FairTestCase):
    def test_a_domain_with_thousands_delays_no_other(self) -> None:
        self.store_without_starting(
            *(message(id, "a@big.example") for id in range(1, 3001)),
            message(5000, "a@small.example"),
        )
        self.begin()
        self.assertEqual(self.hops(), {"big.example": 5, "small.example": 1})
        self.assertLessEqual(self.store.census().leased, 26)

    def test_a_domain_that_hangs_delays_no_other(self) -> None:
        self.accept(*(message(id, "a@hangs.example") for id in range(1, 1001)))
        for id in range(2000, 2100):
            self.accept(message(id, f"a@{id}.example"))
            (attempt,) = [e for e in self.attempts if e.next_hop.domain != "hangs.example"]
            self.attempts.remove(attempt)
            attempt.answer(DELIVERED)
            self.settle()

    def test_hundreds_of_domains_that_hang_leave_transactions_to_proven_next_hops(self) -> None:
        self.accept(message(1, "a@known.example"))
        self.answer(DELIVERED)
        for id in range(2, 1002):
            self.runner.accept(message(id, f"a@hangs{id}.example"))
        self.settle()
        self.assertEqual(len(self.attempts), 38)  # of 50
        self.accept(message(5000, "a@known.example"), message(5001, "a@here.example"))
        self.assertEqual(self.hops()["known.example"], 1)
        self.assertEqual(self.hops()["maildir"], 1)

    def test_new_mail_does_not_wait_for_mail_of_other_domains_in_the_store(self) -> None:
        self.store_without_starting(
            *(message(id, f"a@{id % 1000}.example") for id in range(1, 3001))
        )
        self.begin()
        for id in range(5000, 5004):
            self.accept(message(id, f"a@new{id}.example"))
            for _ in range(8):  # all mail in memory once, 50 at a time
                self.answer(DELIVERED)
            self.assertIn(id, [each.message.id for each in self.all_attempts])
        self.assertGreater(self.store.census().messages, 300)

    def test_most_places_of_unproven_next_hops_have_transactions(self) -> None:
        self.concurrency = 300
        self.store_without_starting(
            *(message(id, f"a@{id % 100}.example") for id in range(1, 3001))
        )
        self.begin()
        self.assertGreater(len(self.attempts), 180)

    def test_hundreds_of_hanging_domains_in_the_store_delay_no_proven_next_hop(self) -> None:
        self.accept(message(1, "a@known.example"))
        self.answer(DELIVERED)
        runner = self.runner
        runner._lifecycle.is_running = False
        for id in range(2, 1002):
            runner.accept(message(id, f"a@hangs{id}.example"))
        runner.accept(message(5000, "a@known.example"))
        runner.accept(message(5001, "a@here.example"))
        self.settle()
        runner._lifecycle.is_running = True
        runner._wake()
        self.settle()
        self.assertEqual((self.hops()["known.example"], self.hops()["maildir"]), (1, 1))

    def test_mail_for_one_smarthost_does_not_delay_local_delivery(self) -> None:
        smarthost = NextHop("smtp", (Host("relay.example", 587),))
        self.route = lambda each: route(each) if each.domain == "here.example" else smarthost
        self.store_without_starting(
            *(message(id, f"a@{id % 500}.example") for id in range(1, 2001)),
            *(message(id, "a@here.example") for id in range(3000, 3005)),
        )
        self.begin()
        self.assertEqual(self.hops(), {"relay.example:587": 5, "maildir": 5})
        while self.attempts:
            self.answer(DELIVERED)
        self.assertDone()

    def test_domains_that_share_a_smarthost_take_turns_the_oldest_first(self) -> None:
        smarthost = NextHop("smtp", (Host("relay.example", 587),))
        self.route = lambda mailbox: smarthost
        self.store_without_starting(
            *(message(id, "a@big.example") for id in range(1, 1001)),
            *(message(id, f"a@{id}.example") for id in range(2000, 2005)),
        )
        self.begin()
        self.assertEqual(self.store.census().leased, 10)
        before = 0
        while len([e for e in self.all_attempts if e.message.id >= 2000]) < 5:
            self.answer(DELIVERED)
            before += 1
        self.assertLess(before, 5)

    def test_a_message_for_a_smarthost_stays_one_transaction_whatever_its_domains(self) -> None:
        self.route = lambda mailbox: NextHop("smtp", (Host("relay.example", 587),))
        sent = message(1, *(f"a@{number}.example" for number in range(30)))
        self.store_without_starting(sent)
        self.begin()
        self.assertEqual([len(numbers) for _, numbers in self.under_way()], [30])
        self.answer(DEFERRED)
        self.settle(400)
        self.assertEqual([len(numbers) for _, numbers in self.under_way()], [30])


class Leases(FairTestCase):
    def test_mail_is_read_many_messages_at_a_time(self) -> None:
        self.store_without_starting(*(message(id) for id in range(1, 1001)))
        self.begin()
        while self.attempts:
            self.attempts.pop(0).answer(DELIVERED)
            self.settle()
        self.assertDone()
        self.assertLess(len(self.leased()), 80)
        self.assertLessEqual(max(self.leased()), 100)

    def test_mail_of_many_next_hops_is_read_many_messages_at_a_time(self) -> None:
        """Not one message for each that has left."""
        self.concurrency = 300
        self.store_without_starting(*(message(id, f"a@{id}.example") for id in range(1, 2001)))
        self.begin()
        while self.attempts:
            self.attempts.pop(0).answer(DELIVERED)
            self.settle()
        self.assertDone()
        self.assertLess(len(self.leased()), 100)

    def test_new_messages_to_many_next_hops_are_not_read_back(self) -> None:
        self.concurrency = 300
        self.begin()
        for id in range(1, 6):
            self.accept(message(id, *(f"a@{number}.example" for number in range(100))))
        while self.attempts:
            self.answer(DELIVERED)
        self.assertDone()
        self.assertEqual(self.leased(), [])

    def test_new_mail_does_not_overtake_waiting_mail_of_its_next_hop(self) -> None:
        self.accept(*(message(id) for id in range(1, 101)))
        for id in range(101, 301):
            self.attempts.pop(0).answer(DELIVERED)
            self.accept(message(id))
        while self.attempts:
            self.answer(DELIVERED)
        self.assertEqual([int(each.message.id) for each in self.all_attempts], [*range(1, 301)])


class Splitting(FairTestCase):
    def limits_of(self, next_hop: NextHop) -> NextHopLimits:
        return NextHopLimits(recipients_per_message=4)

    def test_recipients_beyond_the_limit_of_a_next_hop_go_in_other_transactions(self) -> None:
        self.accept(message(1, *(f"u{number}@next.example" for number in range(10))))
        self.assertEqual(
            [numbers for _, numbers in self.under_way()], [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        )
        self.answer(DELIVERED)
        self.assertDone()

    def test_a_mailbox_with_two_recipients_gets_one_copy_and_both_are_settled(self) -> None:
        self.accept(message(1, "a@next.example", "b@next.example", "a@next.example"))
        self.assertEqual(self.under_way(), [("next.example", [0, 1])])
        self.answer(DEFERRED, DELIVERED)
        self.assertEqual(list(self.store.next_attempts(self.all_attempts[0].message.id)), [0, 2])
        self.settle(400)
        self.assertEqual(self.under_way(), [("next.example", [0])])
        self.answer(DELIVERED)
        self.assertDone()

    def test_forwarded_mail_has_its_own_reverse_path_and_notices_go_to_the_sender(
        self,
    ) -> None:
        sent = message(1, "a@next.example", "b@next.example", "c@next.example")
        forwarded = evolve(
            sent.envelope.recipients[1],
            original=Mailbox("list", "mta.example"),
            reverse_path=Mailbox("SRS0=x", "mta.example"),
        )
        recipients = (sent.envelope.recipients[0], forwarded, sent.envelope.recipients[2])
        self.accept(sent.for_recipients(recipients))
        self.assertEqual(self.under_way(), [("next.example", [0, 2]), ("next.example", [1])])
        self.assertEqual(
            [str(each.message.envelope.reverse_path) for each in self.attempts],
            ["ann@sender.example", "SRS0=x@mta.example"],
        )
        self.attempts.pop(1).answer(FAILED)
        self.settle()
        (notice,) = self.notices()
        self.assertEqual(str(notice.envelope.recipients[0].mailbox), "ann@sender.example")


class HeldLimits:
    """Limits that grant counts when the test lets them."""

    def __init__(self) -> None:
        self.asked: list[tuple[LimitKey, int, Deferred[bool]]] = []
        self.held: Counter[LimitKey] = Counter()

    def take(self, key: LimitKey, limit: int) -> bool:
        raise AssertionError("a runner waits for its counts")

    def wait(self, key: LimitKey, limit: int) -> Deferred[bool]:
        waiting: Deferred[bool] = Deferred()
        self.asked.append((key, limit, waiting))
        return waiting

    def give_back(self, key: LimitKey) -> None:
        self.held[key] -= 1

    def grant(self, *kinds: str) -> None:
        """Grant all counts of these kinds that are asked for."""
        asked, self.asked = self.asked, []
        for key, limit, waiting in asked:
            if key[0] in kinds:
                self.held[key] += 1
                waiting.callback(True)
            else:
                self.asked.append((key, limit, waiting))

    def kinds(self) -> Counter[str]:
        return Counter(key[0] for key, _, _ in self.asked)


class LimitedTestCase(FairTestCase):
    concurrency = 30
    limits: Any = None

    def setUp(self) -> None:
        self.limits = LocalLimits()
        super().setUp()

    def used(self, *key: str) -> int:
        count = self.limits._counts.get(key)
        return 0 if count is None else count.used

    def slots(self) -> int:
        """Return how many slots are in memory."""
        gc.collect()
        return sum(
            isinstance(each, Slot) and each._limits is self.limits for each in gc.get_objects()
        )


class OverAllProcesses(LimitedTestCase):
    per_hop = 4

    def test_two_processes_share_the_connections_of_a_next_hop(self) -> None:
        for _ in range(3):
            self.limits.take(("hop", "smtp:one.example"), 4)
        self.accept(*(message(id, "a@one.example") for id in range(1, 11)))
        self.accept(message(20, "a@two.example"))
        self.assertEqual(self.hops(), {"one.example": 1, "two.example": 1})
        self.limits.give_back(("hop", "smtp:one.example"))
        self.settle()
        self.assertEqual(self.hops(), {"one.example": 2, "two.example": 1})

    def test_a_next_hop_at_its_limit_does_not_take_the_turn_of_another(self) -> None:
        for _ in range(4):
            self.limits.take(("hop", "smtp:one.example"), 4)
        self.concurrency = 1
        self.runner.update(self.settings())
        accepted = [
            self.runner.accept(message(id, f"a@{hop}.example"))
            for id, hop in ((1, "one"), (2, "two"))
        ]
        self.settle()
        for each in accepted:
            self.successResultOf(each)
        self.assertEqual(self.hops(), {"two.example": 1})

    def test_two_processes_share_the_concurrency(self) -> None:
        for _ in range(29):
            self.limits.take(("deliveries",), 30)
        self.accept(*(message(id, f"a@{id}.example") for id in range(1, 6)))
        self.accept(message(20, "a@here.example"))
        self.assertEqual(self.hops(), {"1.example": 1, "maildir": 1})
        self.answer(DELIVERED)
        self.assertEqual(len(self.attempts), 1)

    def test_all_counts_of_slots_are_given_back(self) -> None:
        self.accept(*(message(id, f"a@{id % 3}.example") for id in range(1, 101)))
        while self.attempts:
            self.assertEqual(self.used("deliveries"), len(self.attempts))
            self.answer(DELIVERED)
        self.assertDone()
        self.assertEqual(self.limits._counts, {})
        self.assertEqual(self.slots(), 0)

    def test_a_slot_that_is_acquired_when_no_delivery_waits_is_given_back(self) -> None:
        self.limits = limits = HeldLimits()
        self.begin()
        self.accept(*(message(id, "a@one.example") for id in range(1, 5)))
        limits.grant("hop")
        limits.asked, others = limits.asked[:1], limits.asked[1:]
        limits.grant("deliveries")
        self.unreachable()  # suspended: the other three no longer wait
        limits.asked = others
        limits.grant("deliveries")
        self.settle()
        self.assertEqual(self.attempts, [])
        self.assertEqual(+limits.held, {})
        self.assertIdle()

    def test_a_next_hop_that_waits_for_a_slot_delays_no_other(self) -> None:
        self.limits = limits = HeldLimits()
        self.begin()
        self.accept(message(1, "a@one.example"), message(2, "a@two.example"))
        self.assertEqual(limits.kinds(), {"hop": 2})
        one, two = limits.asked
        limits.asked = [two]
        limits.grant("hop")
        limits.grant("deliveries")
        self.assertEqual(self.hops(), {"two.example": 1})
        self.answer(DELIVERED)
        limits.asked = [one]
        limits.grant("hop")
        limits.grant("deliveries")
        self.assertEqual(self.hops(), {"one.example": 1})

    def test_a_stop_does_not_wait_for_slots(self) -> None:
        self.limits = limits = HeldLimits()
        self.begin()
        self.accept(message(1, "a@one.example"))
        limits.grant("hop")
        self.successResultOf(self.runner.stop())
        self.assertEqual(+limits.held, {})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_limits_that_cannot_be_asked_are_asked_again(self) -> None:
        self.limits = limits = HeldLimits()
        self.begin()
        self.accept(message(1, "a@one.example"))
        limits.grant("hop")
        ((_, _, waiting),) = limits.asked
        limits.asked.clear()
        waiting.errback(ZeroDivisionError())
        self.settle(4)
        self.assertEqual((limits.asked, +limits.held), ([], {}))
        self.settle(1)
        limits.grant("hop")
        limits.grant("deliveries")
        self.assertEqual(len(self.attempts), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.answer(DELIVERED)


class Rates(LimitedTestCase):
    def limits_of(self, next_hop: NextHop) -> NextHopLimits:
        if next_hop.domain == "slow.example":
            return NextHopLimits(rate=Rate(10, 60.0))
        return NextHopLimits()

    def test_a_rate_holds_in_every_period(self) -> None:
        times: list[float] = []
        self.accept(*(message(id, "a@slow.example") for id in range(1, 101)))
        while len(times) < 100:
            times += [self.clock.seconds()] * len(self.attempts)
            self.answer(DELIVERED)
            if not self.attempts:
                self.settle(1)
        self.assertDone()
        for index in range(90):
            self.assertGreaterEqual(times[index + 10] - times[index], 60.0)
        self.assertLess(times[-1], 560)

    def test_mail_that_waits_for_a_rate_is_told_when_its_turn_comes(self) -> None:
        ids = [QueueId(id) for id in range(1, 31)]
        began_at = self.wall_time()
        self.accept(*(message(id, "a@slow.example") for id in ids))
        while self.attempts:
            self.answer(DELIVERED)
        self.settle(20)
        waiting = self.runner.waiting(ids)
        expected = list(waiting.values())
        self.assertGreater(len(expected), 10)
        for index, time in enumerate(expected):
            self.assertAlmostEqual(time or 0, began_at + 60 * (1 + index // 10), delta=1)
        self.assertEqual(self.runner.waiting([QueueId(99)]), {})

    def test_mail_under_way_does_not_wait(self) -> None:
        self.accept(*(message(id, "a@quick.example") for id in range(1, 21)))
        self.assertEqual(len(self.attempts), 5)
        waiting = self.runner.waiting([QueueId(id) for id in range(1, 21)])
        self.assertEqual(set(waiting.values()), {None})
        under_way = {attempt.message.id for attempt in self.attempts}
        self.assertEqual(under_way.intersection(id for id, _ in waiting), set())

    def test_a_next_hop_at_its_rate_delays_no_other(self) -> None:
        self.accept(*(message(id, "a@slow.example") for id in range(1, 101)))
        for _ in range(10):
            self.answer(DELIVERED)
        self.accept(message(200, "a@quick.example"))
        self.assertEqual(self.hops(), {"quick.example": 1})

    def test_a_stop_leaves_no_timer_of_a_rate(self) -> None:
        self.accept(*(message(id, "a@slow.example") for id in range(1, 21)))
        stopped = self.runner.stop()
        self.answer(DELIVERED)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.limits._counts, {})


class Reloading(FairTestCase):
    def test_a_reload_routes_waiting_mail_again(self) -> None:
        self.accept(*(message(id, "a@old.example") for id in range(1, 101)))
        self.assertEqual(self.hops(), {"old.example": 5})
        self.route = lambda mailbox: NextHop("smtp", (Host("relay.example", 25),))
        self.runner.update(self.settings())
        self.settle()
        self.assertEqual(self.hops(), {"old.example": 5, "relay.example:25": 5})
        while self.attempts:
            self.answer(DELIVERED)
        self.assertDone()
        self.assertEqual(len(self.all_attempts), 100)

    def test_limits_of_a_reload_hold_at_once(self) -> None:
        self.accept(*(message(id) for id in range(1, 101)))
        self.runner.update(evolve(self.settings(), per_hop=2))
        self.settle()
        while self.attempts:
            self.attempts.pop(0).answer(DELIVERED)
            self.settle()
            if len(self.all_attempts) > 6:
                self.assertLessEqual(len(self.attempts), 2)
        self.assertDone()

    def test_a_suspension_outlives_a_reload(self) -> None:
        self.accept(*(message(id) for id in range(1, 11)))
        self.unreachable()
        self.runner.update(self.settings())
        self.settle()
        self.assertEqual(self.attempts, [])
        self.settle(340)
        self.assertEqual(len(self.attempts), 1)
        self.answer(DELIVERED)
        self.settle(700)
        while self.attempts:
            self.answer(DELIVERED)
        self.assertDone()

    def test_a_reload_of_an_empty_queue_changes_nothing(self) -> None:
        self.runner.update(self.settings())
        self.settle()
        self.accept(message(1))
        self.answer(DELIVERED)
        self.assertDone()


class Priorities(FairTestCase):
    """Urgent mail goes first among the mail of one next hop (RFC 6710)."""

    def order(self) -> list[int]:
        """Answer all attempts until there are none; return the ids in their order."""
        ids = []
        while self.attempts:
            ids += [int(each.message.id) for each in self.attempts]
            self.answer(DELIVERED)
        return ids

    def test_mail_of_a_higher_priority_goes_before_mail_in_memory(self) -> None:
        self.accept(*(message(id, "a@next.example") for id in range(1, 8)))
        self.accept(special(100, "a@next.example", priority=4))
        self.accept(special(101, "a@next.example", priority=9))
        self.accept(special(102, "a@next.example", priority=-1))
        self.assertEqual(self.order(), [1, 2, 3, 4, 5, 101, 100, 6, 7, 102])

    def test_mail_of_a_higher_priority_goes_before_mail_in_the_store(self) -> None:
        self.store_without_starting(
            *(message(id, "a@next.example") for id in range(1, 201)),
            special(500, "a@next.example", priority=1),
        )
        self.begin()
        self.assertEqual(self.order()[0], 500)
