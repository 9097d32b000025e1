"""Nobody waits for the mail of others: places in memory, transactions, limits over processes."""

from __future__ import annotations

from collections import Counter
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.config.amounts import Rate
from twisted_mta.interfaces import LimitKey
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.message import Message
from twisted_mta.mail.next_hop import Host, NextHop
from twisted_mta.queue.schedule.delivery import Delivery
from twisted_mta.queue.schedule.fair_share import FairShare
from twisted_mta.queue.schedule.next_hops import NextHopLimits
from twisted_mta.queue.store.contract import Lease
from twisted_mta.system.limits import LocalLimits

from ..mail import DEFERRED, DELIVERED, FAILED, message
from ..running import RunnerTestCase, route
from ..store.priority_conformance import special


class Places(SynchronousTestCase):
    """The place of a delivery, from its claim until it leaves."""

    def setUp(self) -> None:
        self.fair_share = FairShare(
            concurrency=50, per_hop=20, limits_of=lambda next_hop: NextHopLimits()
        )
        self.delivery = Delivery(NextHop("smtp", domain="next.example"), message())

    def places(self) -> tuple[int, int, int]:
        """Return the places in all, and those of the next hop: taken or claimed, and claimed."""
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


class FairTestCase(RunnerTestCase):
    def hops(self) -> Counter[str]:
        return Counter(str(each.next_hop).removeprefix("smtp:") for each in self.attempts)

    def store_without_starting(self, *messages: Message) -> None:
        """Let messages be in the store as after a long night."""
        self.begin(start=False)
        for each in messages:
            self.runner.accept(each)
        self.settle()

    def leased(self) -> list[int]:
        """Return how many messages were asked for by each lease so far."""
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

    def test_nor_does_one_that_hangs(self) -> None:
        self.accept(*(message(id, "a@hangs.example") for id in range(1, 1001)))
        for id in range(2000, 2100):
            self.accept(message(id, f"a@{id}.example"))
            (attempt,) = [e for e in self.attempts if e.next_hop.domain != "hangs.example"]
            self.attempts.remove(attempt)
            attempt.answer(DELIVERED)
            self.settle()

    def test_hundreds_that_hang_leave_room_for_those_that_are_known_to_answer(self) -> None:
        self.accept(message(1, "a@known.example"))
        self.answer(DELIVERED)
        for id in range(2, 1002):
            self.runner.accept(message(id, f"a@hangs{id}.example"))
        self.settle()
        self.assertEqual(len(self.attempts), 38)  # of 50
        self.accept(message(5000, "a@known.example"), message(5001, "a@here.example"))
        self.assertEqual(self.hops()["known.example"], 1)
        self.assertEqual(self.hops()["maildir"], 1)

    def test_what_just_came_does_not_wait_for_what_others_have_in_the_store(self) -> None:
        self.store_without_starting(
            *(message(id, f"a@{id % 1000}.example") for id in range(1, 3001))
        )
        self.begin()
        for id in range(5000, 5004):
            self.accept(message(id, f"a@new{id}.example"))
            for _ in range(8):  # once round what is in memory, 50 at a time
                self.answer(DELIVERED)
            self.assertIn(id, [each.message.id for each in self.all_attempts])
        self.assertGreater(self.store.census().messages, 300)

    def test_many_that_are_not_known_are_all_at_work_and_not_a_few_of_them_waiting(self) -> None:
        self.concurrency = 300
        self.store_without_starting(
            *(message(id, f"a@{id % 100}.example") for id in range(1, 3001))
        )
        self.begin()
        self.assertGreater(len(self.attempts), 180)

    def test_hundreds_that_hang_in_the_store_do_not_either(self) -> None:
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

    def test_what_all_goes_to_one_smarthost_leaves_room_for_what_is_delivered_here(self) -> None:
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
    def test_places_are_filled_many_at_a_time(self) -> None:
        self.store_without_starting(*(message(id) for id in range(1, 1001)))
        self.begin()
        while self.attempts:
            self.attempts.pop(0).answer(DELIVERED)
            self.settle()
        self.assertDone()
        self.assertLess(len(self.leased()), 80)
        self.assertLessEqual(max(self.leased()), 100)

    def test_what_just_came_does_not_overtake_what_waits(self) -> None:
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

    def test_recipients_beyond_what_a_next_hop_takes_go_in_other_transactions(self) -> None:
        self.accept(message(1, *(f"u{number}@next.example" for number in range(10))))
        self.assertEqual(
            [numbers for _, numbers in self.under_way()], [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        )
        self.answer(DELIVERED)
        self.assertDone()

    def test_a_mailbox_that_stands_there_twice_gets_one_copy_and_both_are_settled(self) -> None:
        self.accept(message(1, "a@next.example", "b@next.example", "a@next.example"))
        self.assertEqual(self.under_way(), [("next.example", [0, 1])])
        self.answer(DEFERRED, DELIVERED)
        self.assertEqual(list(self.store.next_attempts(self.all_attempts[0].message.id)), [0, 2])
        self.settle(400)
        self.assertEqual(self.under_way(), [("next.example", [0])])
        self.answer(DELIVERED)
        self.assertDone()

    def test_what_is_forwarded_goes_with_its_own_reverse_path_and_notices_to_the_sender(
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


class Later:
    """Limits that answer when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[LimitKey, int, Deferred[bool]]] = []
        self.held: Counter[LimitKey] = Counter()

    def take(self, key: LimitKey, limit: int) -> bool:
        raise AssertionError("nothing is to be refused for good")

    def wait(self, key: LimitKey, limit: int) -> Deferred[bool]:
        waiting: Deferred[bool] = Deferred()
        self.asked.append((key, limit, waiting))
        return waiting

    def give_back(self, key: LimitKey) -> None:
        self.held[key] -= 1

    def grant(self, *kinds: str) -> None:
        """Grant all that is asked for of these kinds."""
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


class OverAllProcesses(LimitedTestCase):
    per_hop = 4

    def test_two_processes_share_what_one_next_hop_bears(self) -> None:
        for _ in range(3):
            self.limits.take(("hop", "smtp:one.example"), 4)
        self.accept(*(message(id, "a@one.example") for id in range(1, 11)))
        self.accept(message(20, "a@two.example"))
        self.assertEqual(self.hops(), {"one.example": 1, "two.example": 1})
        self.limits.give_back(("hop", "smtp:one.example"))
        self.settle()
        self.assertEqual(self.hops(), {"one.example": 2, "two.example": 1})

    def test_and_all_deliveries_together(self) -> None:
        for _ in range(29):
            self.limits.take(("deliveries",), 30)
        self.accept(*(message(id, f"a@{id}.example") for id in range(1, 6)))
        self.accept(message(20, "a@here.example"))
        self.assertEqual(self.hops(), {"1.example": 1, "maildir": 1})
        self.answer(DELIVERED)
        self.assertEqual(len(self.attempts), 1)

    def test_all_is_given_back(self) -> None:
        self.accept(*(message(id, f"a@{id % 3}.example") for id in range(1, 101)))
        while self.attempts:
            self.assertEqual(self.used("deliveries"), len(self.attempts))
            self.answer(DELIVERED)
        self.assertDone()
        self.assertEqual(self.limits._counts, {})

    def test_a_place_that_comes_when_nothing_waits_any_more_is_given_back(self) -> None:
        self.limits = later = Later()
        self.begin()
        self.accept(*(message(id, "a@one.example") for id in range(1, 5)))
        later.grant("hop")
        later.asked, held_up = later.asked[:1], later.asked[1:]
        later.grant("deliveries")
        self.find_nobody()  # suspended: the other three do not wait any more
        later.asked = held_up
        later.grant("deliveries")
        self.settle()
        self.assertEqual(self.attempts, [])
        self.assertEqual(+later.held, {})
        self.assertIdle()

    def test_while_one_waits_for_its_place_others_go_on(self) -> None:
        self.limits = later = Later()
        self.begin()
        self.accept(message(1, "a@one.example"), message(2, "a@two.example"))
        self.assertEqual(later.kinds(), {"hop": 2})
        one, two = later.asked
        later.asked = [two]
        later.grant("hop")
        later.grant("deliveries")
        self.assertEqual(self.hops(), {"two.example": 1})
        self.answer(DELIVERED)
        later.asked = [one]
        later.grant("hop")
        later.grant("deliveries")
        self.assertEqual(self.hops(), {"one.example": 1})

    def test_when_it_stops_it_waits_for_no_place(self) -> None:
        self.limits = later = Later()
        self.begin()
        self.accept(message(1, "a@one.example"))
        later.grant("hop")
        self.successResultOf(self.runner.stop())
        self.assertEqual(+later.held, {})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_limits_that_cannot_be_asked_are_asked_again(self) -> None:
        self.limits = later = Later()
        self.begin()
        self.accept(message(1, "a@one.example"))
        later.grant("hop")
        ((_, _, waiting),) = later.asked
        later.asked.clear()
        waiting.errback(ZeroDivisionError())
        self.settle(4)
        self.assertEqual((later.asked, +later.held), ([], {}))
        self.settle(1)
        later.grant("hop")
        later.grant("deliveries")
        self.assertEqual(len(self.attempts), 1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class Rates(LimitedTestCase):
    def limits_of(self, next_hop: NextHop) -> NextHopLimits:
        if next_hop.domain == "slow.example":
            return NextHopLimits(rate=Rate(10, 60.0))
        return NextHopLimits()

    def test_no_more_in_any_period_than_were_allowed(self) -> None:
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

    def test_others_do_not_wait_for_it(self) -> None:
        self.accept(*(message(id, "a@slow.example") for id in range(1, 101)))
        for _ in range(10):
            self.answer(DELIVERED)
        self.accept(message(200, "a@quick.example"))
        self.assertEqual(self.hops(), {"quick.example": 1})

    def test_no_timer_is_left_when_it_stops(self) -> None:
        self.accept(*(message(id, "a@slow.example") for id in range(1, 21)))
        stopped = self.runner.stop()
        self.answer(DELIVERED)
        self.successResultOf(stopped)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.limits._counts, {})


class Reloading(FairTestCase):
    def test_what_waits_goes_where_routes_lead_from_now_on(self) -> None:
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

    def test_limits_hold_from_then_on(self) -> None:
        self.accept(*(message(id) for id in range(1, 101)))
        self.runner.update(evolve(self.settings(), per_hop=2))
        self.settle()
        while self.attempts:
            self.attempts.pop(0).answer(DELIVERED)
            self.settle()
            if len(self.all_attempts) > 6:
                self.assertLessEqual(len(self.attempts), 2)
        self.assertDone()

    def test_a_suspension_outlives_it(self) -> None:
        self.accept(*(message(id) for id in range(1, 11)))
        self.find_nobody()
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

    def test_while_nothing_is_there_it_changes_nothing(self) -> None:
        self.runner.update(self.settings())
        self.settle()
        self.accept(message(1))
        self.answer(DELIVERED)
        self.assertDone()


class Priorities(FairTestCase):
    """RFC 6710: what is urgent goes first among the mail of one next hop."""

    def order(self) -> list[int]:
        """Answer all that is under way, again and again; return the ids in their order."""
        ids = []
        while self.attempts:
            ids += [int(each.message.id) for each in self.attempts]
            self.answer(DELIVERED)
        return ids

    def test_what_is_urgent_goes_before_what_waits_in_memory(self) -> None:
        self.accept(*(message(id, "a@next.example") for id in range(1, 8)))
        self.accept(special(100, "a@next.example", priority=4))
        self.accept(special(101, "a@next.example", priority=9))
        self.accept(special(102, "a@next.example", priority=-1))
        self.assertEqual(self.order(), [1, 2, 3, 4, 5, 101, 100, 6, 7, 102])

    def test_and_before_what_waits_in_the_store(self) -> None:
        self.store_without_starting(
            *(message(id, "a@next.example") for id in range(1, 201)),
            special(500, "a@next.example", priority=1),
        )
        self.begin()
        self.assertEqual(self.order()[0], 500)
