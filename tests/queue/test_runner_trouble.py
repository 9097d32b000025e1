"""The runner under failures, load and stops: no recipient is lost or settled twice."""

from __future__ import annotations

import random  # noqa: TID251 - seeded, so every run draws the same
from collections import Counter
from typing import Any

from attrs import evolve
from twisted.internet.defer import fail

from twisted_mta.config.amounts import Rate
from twisted_mta.interfaces import LimitKey, Refused
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.envelope import Recipient, RecipientNumber
from twisted_mta.mail.message import Message
from twisted_mta.mail.next_hop import NextHop
from twisted_mta.mail.outcome import Outcome
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.queue.operator.operations import Intervene
from twisted_mta.queue.operator.selection import Selection
from twisted_mta.queue.runner import BROKEN
from twisted_mta.queue.schedule.backoff import Backoff
from twisted_mta.queue.schedule.next_hops import NextHopLimits
from twisted_mta.queue.store.contract import StoreError, StoreFull
from twisted_mta.system.executors import inline_executor
from twisted_mta.system.limits import LocalLimits
from twisted_mta.testing.store import MemoryStore

from .mail import DEFERRED, DELIVERED, FAILED, message, numbers
from .running import Attempt, RunnerTestCase
from .store.held import HeldExecutor

SHARE = 10  # places of one next hop that nothing is known of
PLACES = 300  # of all of them


class Defects(RunnerTestCase):
    """After a defect of the program a recipient is neither lost nor tried in a hot loop."""

    def assertDeferred(self) -> None:
        self.assertIdle()
        (time,) = self.store.next_attempts(QueueId(1)).values()
        self.assertGreaterEqual(time - self.wall_time(), 270)
        before = len(self.all_attempts)
        for _ in range(100):
            self.clock.advance(1)
        self.assertEqual(len(self.all_attempts), before)

    def test_a_delivery_that_raises_is_deferred(self) -> None:
        def broken(next_hop: NextHop, message: Message) -> Any:
            self.all_attempts.append(Attempt(next_hop, message))
            raise ZeroDivisionError

        self.deliver = broken
        self.accept(message(1))
        self.assertEqual(len(self.all_attempts), 1)
        self.assertDeferred()
        for _ in range(10):
            self.settle(4000)
        self.assertLess(len(self.all_attempts), 15)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), len(self.all_attempts))

    def test_a_delivery_that_exits_is_deferred(self) -> None:
        """As an application may, which calls ``sys.exit``."""

        def exits(next_hop: NextHop, message: Message) -> Any:
            self.all_attempts.append(Attempt(next_hop, message))
            raise SystemExit(1)

        self.deliver = exits
        self.accept(message(1))
        self.assertDeferred()
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)

    def test_a_delivery_that_fails_is_deferred(self) -> None:
        self.deliver = lambda next_hop, message: fail(ZeroDivisionError())
        self.accept(message(1))
        self.assertDeferred()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        recipient = self.store._recipients[QueueId(1), RecipientNumber(0)].recipient
        self.assertEqual(recipient.last_reply, BROKEN)

    def test_a_delivery_that_fails_later_is_deferred(self) -> None:
        self.accept(message(1))
        self.attempts.pop().done.errback(ZeroDivisionError())
        self.settle()
        self.assertDeferred()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_recipient_without_an_outcome_is_deferred(self) -> None:
        self.accept(message(1, "a@one.example", "b@one.example"))
        self.attempts.pop().done.callback([Outcome(RecipientNumber(0), DELIVERED)])
        self.settle()
        self.assertEqual(list(self.store.next_attempts(QueueId(1))), [1])
        self.assertDeferred()

    def test_outcomes_of_a_wrong_type_defer_their_recipients(self) -> None:
        outcome = Outcome(RecipientNumber(0), DELIVERED)
        wrong: list[Any] = [
            None,
            250,
            "250 2.0.0 Ok",
            outcome,
            iter([outcome]),
            [None],
            [DELIVERED],
            [Outcome(RecipientNumber(0), "250 2.0.0 Ok")],  # type: ignore[arg-type]
            [Outcome([0], DELIVERED)],  # type: ignore[arg-type]
            Unprintable(),
        ]
        for id, found in enumerate(wrong, 1):
            self.accept(message(id))
            self.attempts.pop().done.callback(found)
            self.settle()
            self.assertIdle()
            recipient = self.store._recipients[QueueId(id), RecipientNumber(0)].recipient
            self.assertEqual((recipient.attempts, recipient.last_reply), (1, BROKEN), found)
            (failure,) = self.flushLoggedErrors(TypeError)
            if not isinstance(found, list) or "[0]" not in repr(found):
                self.assertIn("expected a list or tuple of Outcome", failure.getErrorMessage())

    def test_an_outcome_for_an_unknown_recipient_is_ignored(self) -> None:
        self.accept(message(1))
        outcomes = [Outcome(RecipientNumber(7), FAILED), Outcome(RecipientNumber(0), DELIVERED)]
        self.attempts.pop().done.callback(outcomes)
        self.settle()
        self.assertDone()

    def test_a_route_that_raises_defers_the_accepted_message(self) -> None:
        self.accept(message(1, "a@broken.example"))
        self.assertDeferred()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_a_route_that_raises_after_a_restart_delays_no_other_mail(self) -> None:
        self.begin(start=False)
        self.accept(message(1, "a@broken.example"), message(2, "b@next.example"))
        self.begin()
        self.assertEqual(self.under_way(), [("next.example", [0])])
        self.answer(DELIVERED)
        self.assertDeferred()
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_an_observer_that_raises_changes_nothing(self) -> None:
        deliveries = self.runner._deliveries
        deliveries._observers = evolve(deliveries._observers, settled=lambda *told: 1 / 0)
        self.accept(message(1), message(2, "a@discarded.example"))
        self.answer(DELIVERED)
        self.assertDone()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_an_observer_of_interventions_that_raises_changes_nothing(self) -> None:
        deliveries = self.runner._deliveries
        deliveries._observers = evolve(deliveries._observers, intervened=lambda changed: 1 / 0)
        self.accept(message(1), message(2))
        removal = Intervene("remove", Selection(), self.wall_time())
        removed = self.runner.intervene(removal, by="ann")
        self.settle()
        self.successResultOf(removed)
        self.answer(DEFERRED)
        self.answer(DEFERRED)
        self.assertDone()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 4)

    def test_limits_that_raise_keep_no_count(self) -> None:
        limits = BrokenLimits()
        self.limits = limits
        self.begin()
        self.accept(message(1))
        self.assertEqual((self.attempts, limits.counts()), ([], {}))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        limits.works = True
        self.settle(5)
        self.answer(DELIVERED)
        self.assertDone()
        self.assertEqual(limits.counts(), {})


class Unprintable:
    """What a delivery may return by mistake."""

    def __repr__(self) -> str:
        raise ValueError


class BrokenLimits(LocalLimits):
    """Limits whose second count cannot be asked at first."""

    works = False

    def wait(self, key: LimitKey, limit: int) -> Any:
        if key == ("deliveries",) and not self.works:
            raise ZeroDivisionError
        return super().wait(key, limit)


class Exhausted(RunnerTestCase):
    """Memory runs out once, anywhere: no recipient stays leased, and none is settled twice."""

    def fail_once(self, where: object, name: str) -> None:
        working = getattr(where, name)

        def failing(*args: Any, **kwargs: Any) -> Any:
            setattr(where, name, working)
            raise MemoryError

        setattr(where, name, failing)

    def flush(self, count: int = 1) -> None:
        self.assertEqual(len(self.flushLoggedErrors(MemoryError)), count)

    def assertOneBeginsLater(self, name: str) -> None:
        """Of two leased messages, that for which a step fails once begins later."""
        self.begin(start=False)
        self.accept(message(1), message(2))
        self.begin(start=False)
        self.fail_once(self.runner._deliveries, name)
        self.runner.start()
        self.settle()
        self.assertEqual(len(self.attempts), 1)
        self.answer(DELIVERED)
        self.settle(5)
        self.answer(DELIVERED)
        self.assertDone()
        self.flush()

    def test_an_outcome_that_cannot_be_settled_is_settled_later(self) -> None:
        self.accept(message(1))
        self.fail_once(self.runner._settlement, "settle")
        self.answer(DELIVERED)
        self.assertEqual(self.store.census().messages, 1)
        self.settle(5)
        self.assertDone()
        self.assertEqual(len(self.all_attempts), 1)
        self.flush()

    def test_an_outcome_whose_notice_cannot_be_written_is_settled_later(self) -> None:
        self.accept(message(1))
        self.fail_once(self.runner._notices, "_write")
        self.answer(FAILED)
        self.assertEqual(self.notices(), [])
        self.settle(5)
        self.assertEqual(len(self.notices()), 1)
        self.answer(DELIVERED)
        self.assertDone()
        self.flush()

    def test_an_outcome_is_settled_where_the_next_hop_state_cannot_be_changed(self) -> None:
        self.accept(message(1))
        self.fail_once(self.runner._attempts, "_learn")
        self.answer(DELIVERED)
        self.assertEqual(self.store.messages, {})
        self.flush()

    def test_a_stop_settles_a_kept_outcome_for_the_last_time(self) -> None:
        self.accept(message(1))
        self.fail_once(self.runner._settlement, "settle")
        self.answer(DELIVERED)
        stopped = self.runner.stop()
        self.settle()
        self.successResultOf(stopped)
        self.assertEqual(self.store.messages, {})
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.flush()

    def test_an_accepted_message_that_cannot_begin_begins_later(self) -> None:
        self.fail_once(self.runner._deliveries, "_enqueue")
        self.accept(message(1))  # its client gets 250
        self.assertEqual(self.attempts, [])
        self.settle(5)
        self.answer(DELIVERED)
        self.assertDone()
        self.flush()

    def test_a_leased_message_that_cannot_begin_begins_later(self) -> None:
        for name in ("_enqueue", "_split"):
            self.assertOneBeginsLater(name)

    def test_due_mail_begins_later_wherever_the_dispatch_fails(self) -> None:
        for where, name in (
            (self.runner._fair_share, "startable"),
            (self.runner._fair_share, "companions"),
            (self.runner._backlog, "_begin_reading"),
            (self.runner._slots, "acquire"),
        ):
            self.accept(message(1))
            self.answer(DEFERRED)
            self.fail_once(where, name)
            self.settle(400)
            self.assertEqual(self.attempts, [], name)
            self.settle(5)
            self.settle(5)
            self.assertEqual(len(self.attempts), 1, name)
            self.answer(DELIVERED)
            self.assertDone()
            self.flushLoggedErrors(MemoryError)

    def test_a_lease_that_is_not_taken_in_loses_no_mail(self) -> None:
        self.begin(start=False)
        self.accept(*(message(id) for id in range(1, 101)))
        self.store = MemoryStore(disk=self.store)
        self.begin(start=False)
        self.fail_once(self.runner._backlog, "_plan_rest")  # of the survey
        self.runner.start()
        self.settle()
        self.settle(5)
        self.assertEqual(len(self.attempts), 5)
        self.fail_once(self.runner._backlog, "_plan_rest")  # of a lease
        for _ in range(100):
            self.answer(DELIVERED)
            self.settle(1)
        self.assertDone()
        self.flush(2)

    def test_a_delivery_that_cannot_be_attempted_is_deferred(self) -> None:
        self.fail_once(self.runner._attempts, "_attempt")
        self.accept(message(1))
        self.assertIdle()
        self.settle(400)
        self.answer(DELIVERED)
        self.assertDone()
        self.flush()

    def test_a_committed_message_is_acknowledged_whatever_fails_after_it(self) -> None:
        self.fail_once(self.runner._deliveries, "arrive")
        self.accept(message(1))
        self.assertEqual(self.store.census().messages, 1)
        self.flush()

    def test_a_message_refused_for_its_notices_keeps_no_place(self) -> None:
        alias = Recipient(RecipientNumber(0), Mailbox("list", "mta.example"), {"NOTIFY": "SUCCESS"})
        self.fail_once(self.runner._notices, "_write")
        with self.assertRaises(MemoryError):
            self.runner.accept(evolve(message(1), expanded=(alias,)))
        self.assertEqual(self.runner._fair_share.places, 0)
        self.assertEqual(self.store.census().messages, 0)

    def test_a_delay_that_cannot_be_reported_is_reported_later(self) -> None:
        self.runner.update(evolve(self.settings(), delay_warning=4 * 3600.0))
        self.accept(message(1, sender="ann@sender.example"))
        self.answer(DEFERRED)
        self.fail_once(self.runner._notices, "_write")
        reported = 0
        for _ in range(80):
            self.settle(300)
            while self.attempts:
                reported += any(each.message.id >= 1_000_000 for each in self.attempts)
                for each in self.attempts:
                    each.answer(DELIVERED if each.message.id >= 1_000_000 else DEFERRED)
                self.attempts.clear()
                self.settle()
        self.assertEqual(reported, 1)
        self.flush()

    def test_a_delay_whose_report_is_not_written_leaves_its_message_free(self) -> None:
        self.accept(message(1))
        self.attempts.pop().unreachable()
        self.settle()
        self.fail_once(self.runner._deliveries.delays, "_record")
        self.runner.update(evolve(self.settings(), delay_warning=60.0))
        self.settle()
        self.flush()
        self.settle(400)
        self.answer(DELIVERED)
        self.assertDone()

    def test_delays_are_looked_for_again_whatever_fails(self) -> None:
        self.accept(message(1))
        self.attempts.pop().unreachable()
        self.settle()
        watch = self.runner._deliveries.delays
        self.patch(watch, "_report", lambda message, now: 1 / 0)
        self.runner.update(evolve(self.settings(), delay_warning=60.0))
        self.settle(61)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIsNotNone(watch._alarm)

    def test_expired_mail_that_cannot_be_looked_at_is_put_back(self) -> None:
        self.assertOneBeginsLater("_expires_at")

    def test_mail_for_a_suspended_next_hop_is_put_back_whatever_fails(self) -> None:
        self.accept(*(message(id) for id in range(1, 8)))
        self.fail_once(self.runner._deliveries, "_expires_at")
        for each in self.attempts:
            each.unreachable()
        self.attempts.clear()
        self.settle()
        self.settle(5)
        self.assertIdle()
        self.flush()


class Backlog(RunnerTestCase):
    concurrency = 10

    def fill(self, count: int) -> None:
        self.begin(start=False)
        for id in range(1, count + 1):
            self.runner.accept(message(id, f"a@{id % 7}.example"))
        self.settle()
        self.assertEqual(self.store.census().messages, count)
        self.begin()

    def test_of_thousands_of_messages_a_window_is_in_memory(self) -> None:
        self.fill(2000)
        most = 0
        while self.attempts:
            most = max(most, self.runner._fair_share.places)
            self.assertEqual(self.store.census().leased, self.runner._fair_share.places)
            self.answer(DELIVERED)
        self.assertEqual(len(self.all_attempts), 2000)
        self.assertTrue(50 < most <= 300, most)
        self.assertDone()

    def test_mail_without_a_place_in_memory_waits_in_the_store(self) -> None:
        self.accept(*(message(id) for id in range(1, 201)))
        self.assertEqual(self.store.census().leased, SHARE)
        while self.attempts:
            self.answer(DELIVERED)
        self.assertEqual([int(each.message.id) for each in self.all_attempts], [*range(1, 201)])
        self.assertDone()

    def test_a_burst_to_one_next_hop_gets_no_more_places_than_its_share(self) -> None:
        for id in range(1, 1000):
            self.runner.accept(message(id))
        self.clock.pump([0] * 50)
        self.assertEqual(self.store.census().leased, SHARE)

    def test_a_burst_to_many_next_hops_gets_no_more_places_than_there_are(self) -> None:
        for id in range(1, 1000):
            self.runner.accept(message(id, f"a@{id}.example"))
        self.clock.pump([0] * 50)
        self.assertEqual(self.store.census().leased, PLACES)
        while self.attempts:
            self.answer(DELIVERED)
        self.assertEqual(len(self.all_attempts), 999)
        self.assertDone()

    def test_mail_that_becomes_due_without_a_place_is_delivered_later(self) -> None:
        self.accept(message(1, "a@later.example"))
        self.answer(DEFERRED)
        self.accept(*(message(id, f"a@{id}.example") for id in range(2, PLACES + 2)))
        (queue,) = [
            e for n, e in self.runner._fair_share.queues.items() if n.domain == "later.example"
        ]
        queue.state.proven = False
        self.runner._fair_share._sort_in(queue)
        self.settle(400)  # its alarm rings while there is no place
        self.assertEqual(self.store.census().leased, PLACES)
        while self.attempts:
            self.assertLess(len(self.all_attempts), 2 * PLACES)
            self.answer(DELIVERED)
        hops = Counter(each.next_hop.domain for each in self.all_attempts)
        self.assertEqual(hops["later.example"], 2)
        self.assertDone()

    def test_the_places_of_refused_messages_are_given_back(self) -> None:
        self.store.fail_next(StoreError("disk I/O error"))
        refused = [self.runner.accept(message(id)) for id in range(1, 11)]
        self.settle()
        for each in refused:
            self.failureResultOf(each, Refused)
        self.assertEqual(self.runner._fair_share.places, 0)
        self.flushLoggedErrors(StoreError)

    def test_mail_that_is_due_is_read_when_messages_in_its_places_are_refused(self) -> None:
        self.accept(message(1))
        self.answer(DEFERRED)
        self.commit._executor = held = HeldExecutor()
        refused = [self.runner.accept(message(id)) for id in range(2, 40)]
        self.settle(1000)
        self.assertEqual(self.attempts, [])
        self.store.fail_next(StoreFull("disk full"))
        self.commit._executor = inline_executor
        held.let_go()
        self.settle()
        for each in refused:
            self.failureResultOf(each, Refused)
        self.settle(5)
        self.answer(DELIVERED)
        self.assertDone()

    def test_a_delivery_keeps_its_place_until_it_is_settled(self) -> None:
        self.accept(*(message(id) for id in range(1, SHARE + 11)))
        self.commit._executor = held = HeldExecutor()
        while self.attempts:
            self.answer(DELIVERED)
        self.assertEqual(len(self.all_attempts), SHARE)
        (queue,) = self.runner._fair_share.queues.values()
        self.assertEqual(queue.places - queue.claimed, SHARE)
        self.commit._executor = inline_executor
        held.let_go()
        self.settle()
        while self.attempts:
            self.answer(DELIVERED)
        self.assertEqual(len(self.all_attempts), SHARE + 10)
        self.assertDone()


class DiskTrouble(RunnerTestCase):
    def test_an_outcome_is_kept_until_it_is_written_and_the_recipient_not_tried_again(self) -> None:
        self.accept(message(1), message(2))
        self.store.fail_next(StoreError("disk I/O error"))
        self.answer(DELIVERED)
        self.assertEqual(self.store.census().messages, 2)
        self.settle(1)
        self.assertDone()
        self.assertEqual(len(self.all_attempts), 2)
        self.assertEqual(len(self.flushLoggedErrors(StoreError)), 1)

    def test_an_outcome_written_by_a_failed_commit_is_not_tried_again(self) -> None:
        self.accept(message(1))
        self.store.fail_next(StoreError("disk I/O error"), durable=True)
        self.answer(FAILED)
        self.settle(1)
        self.answer(DELIVERED)
        self.settle(10_000)
        self.assertDone()
        self.assertEqual(len(self.all_attempts), 2, "the message, and one notice")
        self.assertEqual(len(self.flushLoggedErrors(StoreError)), 1)

    def test_a_lease_that_failed_is_tried_again(self) -> None:
        self.begin(start=False)
        self.accept(message(1))
        self.store.fail_next(StoreFull("full"))
        self.begin()
        self.assertEqual(self.attempts, [])
        self.settle(5)
        self.settle(1)
        self.assertEqual(len(self.attempts), 1)

    def test_on_a_full_disk_deliveries_go_on(self) -> None:
        self.accept(message(1), message(2))
        self.store.fail_next(StoreFull("full"))
        refused = self.accepting(message(3))
        self.failureResultOf(refused, Refused)
        self.answer(DELIVERED)
        self.settle(1)
        self.assertDone()


class Restarting(RunnerTestCase):
    def restart(self) -> None:
        """Go on with another runner on the same disk, as after a crash."""
        self.store = MemoryStore(disk=self.store)
        for call in self.clock.getDelayedCalls():
            call.cancel()
        self.begin()

    def test_a_delivery_under_way_is_tried_again_after_a_restart(self) -> None:
        self.accept(message(1, "a@one.example", "b@two.example"))
        self.attempts[0].answer(DELIVERED)
        self.settle()
        self.restart()
        self.assertEqual(self.under_way(), [("two.example", [1])])

    def test_a_deferred_recipient_waits_for_its_time_after_a_restart(self) -> None:
        self.accept(message(1))
        self.answer(DEFERRED)
        self.restart()
        self.assertEqual(self.attempts, [])
        self.settle(400)
        self.assertEqual(len(self.attempts), 1)

    def test_a_notice_under_way_is_tried_again_after_a_restart(self) -> None:
        self.accept(message(1))
        self.answer(FAILED)
        self.restart()
        self.assertEqual(self.under_way(), [("sender.example", [0])])


class Stopping(RunnerTestCase):
    concurrency = 2

    def test_a_runner_without_deliveries_stops_at_once(self) -> None:
        self.successResultOf(self.runner.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_runner_that_was_never_started_stops(self) -> None:
        self.begin(start=False)
        self.successResultOf(self.runner.stop())

    def test_a_stop_waits_for_deliveries_under_way_and_begins_no_more(self) -> None:
        self.accept(*(message(id) for id in range(1, 6)))
        stopped = self.runner.stop()
        self.attempts.pop().answer(DELIVERED)
        self.settle()
        self.assertNoResult(stopped)
        self.attempts.pop().answer(DEFERRED)
        self.assertNoResult(stopped)
        self.settle()
        self.successResultOf(stopped)
        self.assertEqual(len(self.all_attempts), 2)
        self.assertEqual(self.store.census().messages, 4)
        self.settle(10_000)
        self.assertEqual(len(self.all_attempts), 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_mail_that_waited_in_memory_is_delivered_after_a_restart(self) -> None:
        self.accept(*(message(id) for id in range(1, 6)))
        stopped = self.runner.stop()
        self.answer(DELIVERED)
        self.successResultOf(stopped)
        self.store = MemoryStore(disk=self.store)
        self.begin()
        while self.attempts:
            self.answer(DELIVERED)
        self.assertEqual(
            sorted(int(each.message.id) for each in self.all_attempts), [1, 2, 3, 4, 5]
        )
        self.assertDone()

    def test_a_notice_written_during_the_stop_is_not_tried(self) -> None:
        self.accept(message(1))
        stopped = self.runner.stop()
        self.answer(FAILED)
        self.successResultOf(stopped)
        self.assertEqual(self.attempts, [])
        self.assertEqual(len(self.notices()), 1)

    def test_a_stop_waits_for_a_message_that_is_being_accepted(self) -> None:
        self.commit._executor = held = HeldExecutor()
        accepted = self.runner.accept(message(1))
        self.settle()
        stopped = self.runner.stop()
        self.assertNoResult(stopped)
        held.let_go()
        self.successResultOf(accepted)
        self.successResultOf(stopped)
        self.settle()
        self.assertEqual(self.attempts, [])
        self.assertEqual(self.store.census().messages, 1)

    def test_a_stop_waits_for_a_message_that_is_being_refused(self) -> None:
        self.store.fail_next(StoreFull("full"))
        self.commit._executor = held = HeldExecutor()
        refused = self.runner.accept(message(1))
        self.settle()
        stopped = self.runner.stop()
        held.let_go()
        self.failureResultOf(refused, Refused)
        self.successResultOf(stopped)

    def test_mail_leased_during_the_stop_is_left_to_the_next_start(self) -> None:
        self.begin(start=False)
        self.accept(message(1))
        self.begin(start=False)
        self.commit._executor = held = HeldExecutor()
        self.runner.start()
        self.settle()
        stopped = self.runner.stop()
        held.let_go()
        self.settle()
        self.successResultOf(stopped)
        self.assertEqual(self.attempts, [])
        self.store = MemoryStore(disk=self.store)
        self.begin()
        self.assertEqual(len(self.attempts), 1)

    def test_a_runner_stops_where_the_store_was_closed_before(self) -> None:
        self.accept(message(1))
        self.store.fail_next(StoreError("disk I/O error"))
        self.store.fail_to_open(*[StoreError("disk I/O error")] * 100)
        stopped = self.runner.stop()
        self.answer(DELIVERED)
        self.settle(100)
        self.assertNoResult(stopped)
        self.commit.stop()
        self.settle()
        self.successResultOf(stopped)
        self.assertEqual(self.runner._fair_share.places, 0)
        self.flushLoggedErrors(StoreError)


class AlwaysAwake(RunnerTestCase):
    """A runner is woken by all that lets mail begin: to wake it once more changes nothing."""

    concurrency = 2
    per_hop = 1
    backoff = Backoff(60.0, 600.0)

    def test_no_mail_that_may_begin_waits_for_another_event(self) -> None:
        for seed in range(15):
            self.play(random.Random(seed))

    def limits_of(self, next_hop: NextHop) -> NextHopLimits:
        return NextHopLimits(rate=Rate(1, 60) if next_hop.domain == "1.example" else None)

    def play(self, draw: random.Random) -> None:
        self.limits = limits = LocalLimits()
        self.store = MemoryStore()
        self.begin()
        elsewhere: list[LimitKey] = []  # counts that another process has
        for id in range(1, 80):
            event = draw.random()
            if event < 0.4:
                domains = draw.sample(range(4), draw.randrange(1, 3))
                sent = message(1, *(f"bob@{each}.example" for each in domains))
                for number in range(draw.choice([1, 8])):
                    ours = QueueId(10 * id + number)
                    self.runner.accept(evolve(sent, id=ours, received_at=self.wall_time()))
            elif event < 0.45:
                self.concurrency, self.per_hop = draw.choice([1, 2, 4]), draw.choice([1, 3])
                self.runner.update(self.settings())
            elif event < 0.55 and elsewhere:
                limits.give_back(elsewhere.pop())
            elif event < 0.65:
                key = ("hop", f"smtp:{draw.randrange(4)}.example")
                if limits.take(key, self.per_hop):
                    elsewhere.append(key)
            elif event < 0.7:
                self.runner.intervene(Intervene("retry", Selection(), self.wall_time()), by="ann")
            elif self.attempts:
                attempt = self.attempts.pop(draw.randrange(len(self.attempts)))
                if draw.random() < 0.2:
                    attempt.unreachable()
                else:
                    attempt.answer(draw.choice([DELIVERED, DELIVERED, DEFERRED, FAILED]))
            for _ in range(4):
                self.settle(draw.choice([0, 0.01, 0.01, 30]))
            self.settle(0.01)
            begun = len(self.all_attempts)
            self.runner._wake()
            self.settle()
            self.assertEqual(len(self.all_attempts), begun)


class ManyThings(RunnerTestCase):
    def test_every_acknowledged_recipient_ends_in_exactly_one_way(self) -> None:
        for seed in range(20):
            self.play(random.Random(seed))

    def play(self, draw: random.Random) -> None:
        """Draw accidents; in the end every acknowledged recipient has one outcome."""
        self.store = MemoryStore()
        self.all_attempts.clear()
        self.begin()
        final: Counter[tuple[int, int]] = Counter()
        acknowledged: list[tuple[int, int]] = []
        for id in range(1, 60):
            event = draw.random()
            if event < 0.1:
                self.store.fail_next(
                    draw.choice([StoreError("I/O"), StoreFull("full")]),
                    durable=False,
                )
            sent = message(
                id,
                *(f"u{n}@{draw.randrange(4)}.example" for n in range(draw.randrange(1, 4))),
                sender=draw.choice([None, "ann@sender.example"]),
            )
            done = self.runner.accept(sent)
            done.addCallback(
                lambda _, sent=sent: acknowledged.extend(
                    (int(sent.id), number) for number in numbers(sent)
                )
            )
            done.addErrback(lambda failure: failure.trap(Refused))
            self.answer_some(draw, final)
            self.settle(draw.choice([0, 0, 1, 400]))
        while self.store.messages:
            self.answer_some(draw, final)
            self.settle(draw.choice([0, 60, 4000]))
        self.assertIdle()
        accounted = [each for each in final if each[0] < 1_000_000]
        self.assertEqual(sorted(accounted), sorted(acknowledged))
        self.assertEqual(set(final.values()), {1})
        self.flushLoggedErrors(StoreError)

    def answer_some(self, draw: random.Random, final: Counter[tuple[int, int]]) -> None:
        for attempt in list(self.attempts):
            if draw.random() < 0.4:
                continue
            self.attempts.remove(attempt)
            replies = [
                draw.choice([DELIVERED, DELIVERED, DEFERRED, FAILED])
                for _ in attempt.message.envelope.recipients
            ]
            now = self.wall_time()
            for number, reply in zip(numbers(attempt.message), replies, strict=True):
                if reply is not DEFERRED or now >= attempt.message.expires_at:
                    final[int(attempt.message.id), number] += 1
            recipients = attempt.message.envelope.recipients
            attempt.done.callback(
                [
                    Outcome(recipient.number, reply)
                    for recipient, reply in zip(recipients, replies, strict=True)
                ]
            )
