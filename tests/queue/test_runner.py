"""The runner: transactions in turn, retries, and notices."""

from __future__ import annotations

import random  # noqa: TID251 - seeded, so every run draws the same
from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import succeed

from twisted_mta.mail.envelope import RecipientNumber
from twisted_mta.mail.message import Message
from twisted_mta.mail.next_hop import NextHop
from twisted_mta.mail.outcome import Outcome
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.queue.schedule.backoff import Backoff
from twisted_mta.queue.store.spool import FileBody
from twisted_mta.testing.files import UnsyncedFiles

from .mail import DEFERRED, DELIVERED, FAILED, LIFETIME, NOW, message
from .running import RunnerTestCase


class Transactions(RunnerTestCase):
    def test_an_accepted_message_is_tried_at_once(self) -> None:
        self.accept(message(1))
        self.assertEqual(self.under_way(), [("next.example", [0])])
        self.assertEqual(self.attempts[0].message, message(1))
        self.answer(DELIVERED)
        self.assertDone()

    def test_the_client_is_answered_before_a_delivery_begins(self) -> None:
        seen: list[int] = []
        accepted = self.runner.accept(message(1))
        accepted.addCallback(lambda _: seen.append(len(self.attempts)))
        self.settle()
        self.assertEqual(seen, [0])
        self.assertEqual(len(self.attempts), 1)

    def test_recipients_of_one_next_hop_share_a_transaction(self) -> None:
        self.accept(
            message(
                1,
                "a@one.shared.example",
                "b@other.example",
                "c@two.shared.example",
                "d@one.shared.example",
            )
        )
        self.assertEqual(self.under_way(), [("shared.example", [0, 2, 3]), ("other.example", [1])])

    def test_each_transaction_settles_its_own_recipients(self) -> None:
        self.accept(message(1, "a@one.example", "b@two.example"))
        one, two = self.attempts
        one.answer(DELIVERED)
        self.settle()
        self.assertEqual(self.store.census().recipients, 1)
        two.answer(DEFERRED)
        self.settle()
        self.assertEqual(list(self.store.next_attempts(QueueId(1))), [1])
        self.assertIdle()

    def test_a_delivery_may_return_its_outcomes_at_once(self) -> None:
        self.deliver = lambda next_hop, message: succeed([Outcome(RecipientNumber(0), DELIVERED)])
        self.accept(*map(message, range(1, 101)))
        self.assertDone()

    def test_a_discard_route_discards(self) -> None:
        self.accept(message(1, "a@discarded.example"))
        self.assertEqual(self.attempts, [])
        self.assertDone()
        self.assertEqual(self.notices(), [])

    def test_an_error_route_returns_the_message_to_its_sender(self) -> None:
        self.accept(message(1, "a@gone.example"))
        (notice,) = self.attempts
        self.assertEqual(str(notice.message.envelope.recipients[0].mailbox), "ann@sender.example")
        self.assertIn(b"Moved away", b"".join(notice.message.body.chunks()))

    def test_the_observer_gets_the_settled_outcomes(self) -> None:
        self.accept(message(1, "a@one.example"))
        self.answer(DEFERRED)
        ((observed, outcomes, hop),) = self.observed
        self.assertEqual(observed.id, 1)
        self.assertEqual([each.reply for each in outcomes], [DEFERRED])
        self.assertEqual(hop, "smtp:one.example")


class Slices(RunnerTestCase):
    def begun_in_turns(self, seconds_each: float) -> list[int]:
        """Return how many of forty transactions begin in each turn of the reactor."""
        turns: list[int] = []
        later = self.clock.callLater

        def counting(delay: float, call: Callable[..., object], *arguments: object) -> Any:
            def turn() -> None:
                before = len(self.attempts)
                call(*arguments)
                turns.append(len(self.attempts) - before)

            return later(delay, turn)

        def deliver(next_hop: NextHop, message: Message) -> object:
            self.clock.rightNow += seconds_each
            return self.wait_for_answer(next_hop, message)

        self.deliver = deliver
        self.patch(self.clock, "callLater", counting)
        for id in range(1, 21):
            self.runner.accept(message(id, f"a@one{id}.example", f"b@two{id}.example"))
        self.settle()
        return [each for each in turns if each]

    def test_transactions_that_take_long_to_begin_leave_reactor_turns_to_others(self) -> None:
        # One of the others is acceptance.
        turns = self.begun_in_turns(0.0004)
        self.assertEqual(sum(turns), 38)  # three quarters of the places
        self.assertLessEqual(max(turns), 3)
        self.answer(DELIVERED)
        self.answer(DELIVERED)
        self.assertDone()

    def test_sixteen_transactions_that_take_no_time_begin_in_each_turn(self) -> None:
        self.assertEqual(self.begun_in_turns(0.0), [16, 16, 6])


class SharedTransactions(RunnerTestCase):
    concurrency = 7  # and 6 for unproven next hops
    per_hop = 3

    def hops(self) -> Counter[str]:
        return Counter(each.next_hop.domain for each in self.attempts)

    def test_a_next_hop_gets_no_more_than_per_hop_transactions(self) -> None:
        self.accept(*(message(id, "a@one.example") for id in range(1, 11)))
        self.assertEqual(self.hops(), {"one.example": 3})
        self.attempts.pop(0).answer(DELIVERED)
        self.settle()
        self.assertEqual(self.hops(), {"one.example": 3})

    def test_hosts_that_hang_do_not_delay_local_delivery(self) -> None:
        self.accept(*(message(id, f"a@{id}.example") for id in range(1, 11)))
        self.assertEqual(len(self.attempts), 6)
        self.accept(message(11, "a@here.example"))
        (local,) = [each for each in self.attempts if each.next_hop.transport == "maildir"]
        local.answer(DELIVERED)
        self.settle()
        self.assertEqual(len([e for e in self.attempts if e.next_hop.transport == "smtp"]), 6)

    def test_all_next_hops_together_get_no_more_than_concurrency_transactions(self) -> None:
        self.accept(*(message(id, f"a@{id}.example") for id in range(1, 11)))
        self.assertEqual(len(self.attempts), 6)
        self.assertEqual(self.runner.active, 6)

    def test_a_backlog_for_one_next_hop_does_not_delay_another(self) -> None:
        self.accept(*(message(id, "a@slow.example") for id in range(1, 101)))
        self.accept(message(200, "b@other.example"))
        self.assertEqual(self.hops(), {"slow.example": 3, "other.example": 1})

    def test_next_hops_take_turns(self) -> None:
        self.accept(*(message(id, f"a@{'xyz'[id % 3]}.example") for id in range(1, 91)))
        served: Counter[str] = Counter()
        for _ in range(30):
            attempt = self.attempts.pop(0)
            served[attempt.next_hop.domain] += 1
            attempt.answer(DELIVERED)
            self.settle()
        self.assertLessEqual(max(served.values()) - min(served.values()), 2, served)

    def test_messages_for_one_next_hop_keep_their_order(self) -> None:
        self.accept(*(message(id, "a@one.example") for id in range(1, 21)))
        while self.attempts:
            self.attempts.pop(0).answer(DELIVERED)
            self.settle()
        self.assertEqual([int(each.message.id) for each in self.all_attempts], list(range(1, 21)))
        self.assertDone()

    def test_limits_hold_whatever_the_answers(self) -> None:
        draw = random.Random(7)
        self.accept(
            *(
                message(id, *(f"a@{draw.randrange(5)}.example" for _ in range(3)))
                for id in range(1, 200)
            )
        )
        while self.attempts:
            self.assertLessEqual(len(self.attempts), 7)
            self.assertLessEqual(max(self.hops().values()), 3)
            self.attempts.pop(draw.randrange(len(self.attempts))).answer(
                draw.choice([DELIVERED, DELIVERED, DEFERRED, FAILED])
            )
            self.settle()
        self.assertIdle()


class Retries(RunnerTestCase):
    def due_in(self, id: int = 1) -> float:
        (time,) = self.store.next_attempts(QueueId(id)).values()
        return time - self.wall_time()

    def test_a_deferred_recipient_is_tried_again_when_it_is_due(self) -> None:
        self.accept(message(1))
        self.answer(DEFERRED)
        delay = self.due_in()
        self.assertTrue(270 <= delay <= 330, delay)
        self.settle(delay - 1)
        self.assertEqual(self.attempts, [])
        self.settle(1)
        (again,) = self.attempts
        (recipient,) = again.message.envelope.recipients
        self.assertEqual((recipient.attempts, recipient.last_reply), (1, DEFERRED))

    def test_the_delay_doubles_up_to_the_maximum(self) -> None:
        self.accept(message(1))
        for expected in (300, 600, 1200, 2400, 3600, 3600):
            self.answer(DEFERRED)
            delay = self.due_in()
            self.assertTrue(0.9 * expected <= delay <= 1.1 * expected, (expected, delay))
            self.settle(delay)

    def test_only_the_deferred_recipient_is_tried_again(self) -> None:
        self.accept(message(1, "a@one.example", "b@one.example", "c@one.example"))
        self.answer(DELIVERED, DEFERRED, FAILED)
        self.answer(DELIVERED)  # the notice
        self.settle(400)
        self.assertEqual(self.under_way(), [("one.example", [1])])

    def test_the_earliest_due_time_sets_the_alarm(self) -> None:
        self.accept(message(1, "a@one.example"))
        self.answer(DEFERRED)
        self.settle(self.due_in())
        self.answer(DEFERRED)  # 600 s
        self.accept(message(2, "b@two.example"))
        self.answer(DEFERRED)  # 300 s
        self.settle(self.due_in(2))
        self.assertEqual(self.under_way(), [("two.example", [0])])
        self.answer(DELIVERED)
        self.settle(self.due_in(1))
        self.assertEqual(self.under_way(), [("one.example", [0])])

    def test_five_days_of_retries_end_in_a_notice(self) -> None:
        self.accept(message(1))
        tries = 0
        while self.under_way() == [("next.example", [0])]:
            tries += 1
            self.answer(DEFERRED)
            if not self.attempts:
                self.settle(self.due_in())
        self.assertTrue(100 < tries < 150, tries)
        self.assertAlmostEqual(self.clock.seconds(), LIFETIME, 0)
        (notice,) = self.attempts
        text = b"".join(notice.message.body.chunks())
        self.assertIn(b"Status: 5.4.7", text)
        self.assertIn(b"Come back later", text)
        self.assertIsNone(notice.message.envelope.reverse_path)
        self.answer(DELIVERED)
        self.assertDone()

    def test_expiry_without_a_sender_leaves_a_record(self) -> None:
        self.accept(message(1, sender=None))
        while self.attempts:
            self.answer(DEFERRED)
            if self.store.messages:
                self.settle(self.due_in())
        self.assertDone()
        (record,) = self.store.failures.values()
        self.assertTrue(record.startswith("554 5.4.7 "), record)

    def test_the_last_attempt_is_at_the_end_of_the_lifetime_and_may_succeed(self) -> None:
        self.accept(message(1))
        while self.wall_time() < NOW + LIFETIME:
            self.answer(DEFERRED)
            self.settle(self.due_in())
        self.answer(DELIVERED)
        self.assertDone()

    def test_a_wall_clock_set_back_delays_no_retry(self) -> None:
        self.accept(message(1))
        self.answer(DEFERRED)
        self.step -= 7200
        for _ in range(4):
            self.settle(3600)
        self.assertEqual(len(self.attempts), 1)
        self.answer(DELIVERED)
        self.assertDone()

    def test_a_wall_clock_set_back_during_acceptance_does_not_delay_the_first_attempt(self) -> None:
        coming = message(1)
        self.step -= 7200
        self.settle(120)  # long enough for the runner to notice the step
        self.accept(coming)
        self.assertEqual(len(self.attempts), 1)

    def test_a_wall_clock_that_stands_still_causes_no_hot_loop(self) -> None:
        self.accept(message(1))
        self.answer(DEFERRED)
        turns = 0
        for _ in range(2000):
            self.step -= 1
            before = len(self.store.batches)
            self.clock.advance(1)
            turns += len(self.store.batches) - before
        self.assertEqual(len(self.attempts), 1)  # by the monotonic clock
        self.assertLess(turns, 80)


class LongDelays(RunnerTestCase):
    backoff = Backoff(86400.0, 86400.0)

    def test_a_wall_clock_set_ahead_makes_mail_due_within_the_hour(self) -> None:
        self.accept(message(1))
        self.answer(DEFERRED)
        self.settle(1800)
        self.step += 2 * 86400
        self.settle(3600)
        self.assertEqual(len(self.attempts), 1)


class Notices(RunnerTestCase):
    def test_a_failure_notice_names_only_failed_recipients(self) -> None:
        self.accept(message(1, "a@one.example", "b@one.example", "c@one.example"))
        self.answer(DELIVERED, FAILED, DEFERRED)
        (notice,) = self.attempts
        self.assertIsNone(notice.message.envelope.reverse_path)
        self.assertEqual(str(notice.message.envelope.recipients[0].mailbox), "ann@sender.example")
        text = b"".join(notice.message.body.chunks())
        self.assertEqual(text.count(b"Final-Recipient:"), 1)
        self.assertIn(b"Final-Recipient: rfc822; b@one.example", text)
        self.assertIn(b"mx.example", text)

    def test_recipients_that_fail_together_share_a_notice(self) -> None:
        self.accept(message(1, "a@one.example", "b@one.example"))
        self.answer(FAILED)
        (notice,) = self.attempts
        self.assertEqual(b"".join(notice.message.body.chunks()).count(b"Final-Recipient:"), 2)

    def test_a_failure_notice_is_inserted_in_the_commit_that_removes_the_recipient(self) -> None:
        self.accept(message(1))
        self.answer(FAILED)
        batches = [batch for batch in self.store.batches if batch]
        (settle,) = batches[-1]
        self.assertEqual([each.id for each in settle.notices], [1_000_000])
        self.assertEqual(list(self.store.messages), [1_000_000])

    def test_a_notice_that_fails_causes_no_other_and_leaves_a_record(self) -> None:
        self.accept(message(1))
        self.answer(FAILED)
        self.answer(FAILED)
        self.assertDone()
        self.assertEqual(list(self.store.failures), [(1_000_000, 0)])

    def test_a_notice_has_a_lifetime_of_its_own(self) -> None:
        self.accept(message(1))
        self.settle(1000)
        self.answer(FAILED)
        (notice,) = self.attempts
        self.assertEqual(notice.message.received_at, self.wall_time())
        self.assertEqual(notice.message.expires_at, self.wall_time() + LIFETIME)

    def test_a_notice_is_written_without_a_body_that_cannot_be_read(self) -> None:
        files = UnsyncedFiles()
        files.make_directories("/body")
        self.accept(message(1, body=FileBody(files, "/body/gone", 200_000)))
        self.answer(FAILED)
        (notice,) = self.attempts
        self.assertIn(b"No such user", b"".join(notice.message.body.chunks()))

    def test_a_failure_whose_notice_cannot_be_written_leaves_a_record(self) -> None:
        class Unreadable:
            size = 10

            def chunks(self) -> Any:
                raise ZeroDivisionError

        self.accept(message(1, "a@one.example", "b@one.example", body=Unreadable()))
        self.answer(FAILED, DELIVERED)
        self.assertDone()
        self.assertEqual(list(self.store.failures), [(1, 0)])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
