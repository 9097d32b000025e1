"""Interventions of an operator while mail is being delivered."""

from __future__ import annotations

from typing import Any

from tests.logs import logged_lines
from twisted_mta.mail.next_hop import NextHop
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.queue.operator.interventions import Interventions
from twisted_mta.queue.operator.operations import (
    FIRST,
    Action,
    Intervene,
    ListedMessage,
    Page,
    Retry,
)
from twisted_mta.queue.operator.selection import QueuedRecipient, Selection
from twisted_mta.queue.schedule.delivery import Delivery

from ..mail import DEFERRED, DELIVERED, FAILED, LIFETIME, message
from ..running import RunnerTestCase


class InterventionTestCase(RunnerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.lines = logged_lines(self, "by the operator")

    def intervene(self, action: Action, dry_run: bool = False, **filters: Any) -> Page:
        selection = Selection.parse(filters, now=self.wall_time())
        done = self.runner.intervene(
            Intervene(action, selection, self.wall_time(), dry_run=dry_run), by="uid 7"
        )
        self.settle()
        return self.successResultOf(done)

    def mail(self, id: int, *recipients: str) -> None:
        self.accept(message(id, *recipients, received_at=self.wall_time()))


class Many(InterventionTestCase):
    def test_an_intervention_on_many_recipients_has_few_log_lines(self) -> None:
        for id in range(1, 151):
            self.mail(id, "a@hangs.example")
        self.lines.clear()
        page = self.intervene("hold", domain="hangs.example")
        self.assertEqual(len(page.ids), 150)
        self.assertEqual(self.store.census().held, 150)
        together = [
            line for line in self.lines if "recipients held by the operator: by=uid 7" in line
        ]
        single = [line for line in self.lines if "from=<ann@" in line]
        self.assertEqual(len(together) + len(single), len(self.lines))
        self.assertLessEqual(len(together), 2)
        text = "\n".join(self.lines)
        for id in range(1, 151):
            self.assertIn(str(QueueId(id)), text)
        self.lines.clear()
        self.assertEqual(len(self.intervene("remove", state="held").ids), 150)
        together = [line for line in self.lines if "recipients removed by the operator" in line]
        self.assertEqual(len(together), 2)
        self.assertLess(len(self.lines), 20)  # each leased recipient has a line of its own


class Elsewhere(InterventionTestCase):
    def test_a_lease_of_another_machine_leaves_no_mark_here(self) -> None:
        """Its end is not seen here, and the next lease would be taken for the one of before."""
        one = message(1)
        (recipient,) = one.envelope.recipients
        interventions = Interventions()
        for elsewhere in (True, False):
            queued = QueuedRecipient(recipient, None, leased=True, elsewhere=elsewhere)
            page = Page((ListedMessage(one.id, None, (queued,), 0),), 1, None)
            hold = Intervene("hold", Selection(), 0.0)
            self.assertEqual(interventions.changed(hold, page, "uid 7"), not elsewhere)
            self.assertIn("when the attempt under way has ended", self.lines[-1])
            delivery = Delivery(NextHop("maildir"), one)
            marked = (None, delivery) if not elsewhere else (delivery, None)
            self.assertEqual(interventions.divide(delivery), marked)


class Retrying(InterventionTestCase):
    def test_a_retried_recipient_is_tried_at_once(self) -> None:
        self.mail(1)
        self.answer(DEFERRED)
        self.assertEqual(self.under_way(), [])
        self.intervene("retry")
        self.assertEqual(self.under_way(), [("next.example", [0])])
        self.answer(DELIVERED)
        self.assertDone()
        self.assertEqual(
            self.lines,
            [
                "0000000000001 is to be tried now by the operator: from=<ann@sender.example>"
                " to=<bob@next.example> by=uid 7"
            ],
        )

    def test_a_retry_probes_a_suspended_next_hop_at_once(self) -> None:
        self.mail(1)
        self.unreachable()
        self.assertEqual(len(self.runner.suspended()), 1)
        self.intervene("retry")
        self.assertEqual(self.under_way(), [("next.example", [0])])
        self.answer(DELIVERED)
        self.assertEqual(self.runner.suspended(), [])
        self.assertDone()

    def test_a_retry_probes_a_suspended_next_hop_of_mail_that_was_not_tried(self) -> None:
        self.mail(1)
        self.unreachable()
        self.mail(2)
        self.intervene("retry", ids=[str(QueueId(2))])
        self.assertEqual(len(self.attempts), 1)
        self.answer(DELIVERED)
        self.answer(DELIVERED)
        self.settle(400)
        self.answer(DELIVERED)
        self.assertDone()

    def test_retries_of_other_processes_probe_each_suspended_next_hop_once(self) -> None:
        self.mail(1)
        self.unreachable()
        self.mail(2, "bob@other.example")
        self.unreachable()
        self.settle(1)
        domains = ("next.example", "other.example")
        self.store.apply([Intervene("retry", Selection(), self.wall_time())])  # by another one
        self.runner.take_retried([Retry(1, True, domains[:1]), Retry(2, False, domains[1:])])
        self.settle()
        self.assertEqual(self.under_way(), [("next.example", [0]), ("other.example", [0])])
        self.unreachable("next.example")
        self.answer(DELIVERED)
        self.store.apply([Intervene("retry", Selection(), self.wall_time())])
        self.runner.take_retried([Retry(3, False, domains)])  # a later slice of the same
        self.settle()
        self.assertEqual(self.under_way(), [])
        (suspended,) = self.runner.suspended()
        self.assertEqual(suspended.next_hop, "smtp:next.example")
        self.runner.take_retried([Retry(4, True, domains)])
        self.settle()
        self.answer(DELIVERED)
        self.assertDone()

    def test_an_early_probe_that_fails_suspends_the_next_hop_again(self) -> None:
        self.mail(1)
        self.unreachable()
        self.intervene("retry")
        self.unreachable()
        (suspended,) = self.runner.suspended()
        self.assertEqual(suspended.times, 2)
        self.assertGreater(suspended.seconds, 300)

    def bulk(self, action: Action, limit: int = 100) -> int:
        """Intervene slice by slice, while no attempt reaches its next hop.

        Returns:
            The number of attempts.
        """
        before = len(self.all_attempts)
        after: int | None = FIRST
        while after is not None:
            intervention = Intervene(action, Selection(), self.wall_time(), after, limit)
            done = self.runner.intervene(intervention, by="uid 7")
            self.settle()
            after = self.successResultOf(done).next
            self.unreachable()
            self.settle(0.01)
        return len(self.all_attempts) - before

    def test_one_retry_of_much_mail_is_one_probe(self) -> None:
        self.mail(1)
        self.unreachable()
        for id in range(2, 2001):
            self.runner.accept(message(id, received_at=self.wall_time()))
        self.settle()
        self.assertEqual(self.bulk("retry"), 1)
        (suspended,) = self.runner.suspended()
        self.assertEqual(suspended.times, 2)
        self.assertLess(suspended.seconds, 660)
        self.assertEqual(self.bulk("retry"), 1)
        (suspended,) = self.runner.suspended()
        self.assertEqual(suspended.times, 2)

    def test_a_retry_that_begins_with_an_open_next_hop_does_not_probe_it_again(self) -> None:
        for id in range(1, 501):
            self.runner.accept(message(id, received_at=self.wall_time()))
        self.settle()
        self.answer(DEFERRED)
        while self.attempts:
            self.answer(DEFERRED)
        self.assertLessEqual(self.bulk("retry"), 20)
        (suspended,) = self.runner.suspended()
        self.assertEqual(suspended.times, 1)

    def test_one_release_of_much_mail_is_one_probe(self) -> None:
        self.mail(1)
        self.unreachable()
        for id in range(2, 501):
            self.runner.accept(message(id, received_at=self.wall_time()))
        self.settle()
        self.bulk("hold")
        self.assertEqual(self.bulk("release"), 1)
        (suspended,) = self.runner.suspended()
        self.assertEqual(suspended.times, 2)

    def test_retries_of_single_messages_lengthen_the_suspension_once(self) -> None:
        for id in range(1, 31):
            self.mail(id)
        while self.attempts:
            self.unreachable()
        for id in range(1, 31):
            self.intervene("retry", ids=[str(QueueId(id))])
            self.unreachable()
            self.settle(1)
        (suspended,) = self.runner.suspended()
        self.assertEqual(suspended.times, 2)
        self.settle(suspended.seconds)
        self.assertEqual(len(self.attempts), 1)
        while self.attempts:
            self.answer(DELIVERED)
        self.settle(4000)
        while self.attempts:
            self.answer(DELIVERED)
        self.assertDone()

    def test_a_reload_probes_no_suspended_next_hop(self) -> None:
        self.mail(1)
        self.unreachable()
        before = len(self.all_attempts)
        for _ in range(10):
            self.runner.update(self.settings())
            self.settle(1)
        self.assertEqual(len(self.all_attempts), before)
        (suspended,) = self.runner.suspended()
        self.assertEqual(suspended.times, 1)

    def test_a_delivery_under_way_is_not_retried(self) -> None:
        self.mail(1)
        self.assertEqual(self.intervene("retry").messages, ())
        self.assertEqual(len(self.attempts), 1)
        self.answer(DELIVERED)
        self.assertDone()


class Holding(InterventionTestCase):
    def test_a_held_recipient_is_neither_tried_nor_returned(self) -> None:
        self.mail(1)
        self.answer(DEFERRED)
        self.intervene("hold")
        self.settle(2 * LIFETIME)
        self.assertEqual((self.under_way(), self.notices()), ([], []))
        self.intervene("release")
        self.assertEqual(self.under_way(), [("next.example", [0])])
        self.answer(DELIVERED)
        self.assertDone()

    def test_a_recipient_held_during_its_delivery_is_held_after_a_deferral(self) -> None:
        self.mail(1)
        self.intervene("hold")
        self.assertIn("held by the operator, when the attempt under way has ended", self.lines[0])
        self.answer(DEFERRED)
        self.settle(LIFETIME)
        self.assertEqual(self.under_way(), [])
        self.assertIdle()
        self.assertEqual(self.store.census().held, 1)

    def test_a_recipient_held_during_its_delivery_can_be_delivered(self) -> None:
        self.mail(1)
        self.intervene("hold")
        self.answer(DELIVERED)
        self.assertDone()

    def test_a_held_recipient_that_waits_in_memory_does_not_begin(self) -> None:
        for id in range(1, 8):  # 5 at once
            self.mail(id)
        self.assertEqual(len(self.attempts), 5)
        self.intervene("hold")
        self.answer(DELIVERED)
        self.assertEqual(self.under_way(), [])
        self.assertIdle()
        self.assertEqual(sorted(self.store.messages), [6, 7])

    def test_only_held_recipients_are_taken_out_of_a_waiting_delivery(self) -> None:
        for id in range(1, 6):
            self.mail(id)
        self.mail(6, "a@next.example", "b@next.example")
        self.intervene("hold", to="b@next.example")
        self.answer(DELIVERED)
        self.assertEqual(self.under_way(), [("next.example", [0])])
        self.answer(DELIVERED)
        self.assertIdle()
        self.assertEqual(self.store.census().held, 1)

    def test_a_recipient_held_in_the_commit_of_its_message_does_not_begin(self) -> None:
        accepted = self.runner.accept(message(1))
        held = self.runner.intervene(Intervene("hold", Selection(), self.wall_time()), by="uid 7")
        self.settle()
        self.successResultOf(accepted)
        self.successResultOf(held)
        self.assertEqual(self.under_way(), [])
        self.assertIdle()
        self.assertEqual(self.store.census().held, 1)

    def test_a_recipient_released_before_its_delivery_ends_is_deferred_as_usual(self) -> None:
        self.mail(1)
        self.intervene("hold")
        self.intervene("release")
        self.answer(DEFERRED)
        self.settle(400)
        self.assertEqual(len(self.attempts), 1)
        self.answer(DELIVERED)
        self.assertDone()


class Removing(InterventionTestCase):
    def test_a_removed_recipient_leaves_without_a_notice(self) -> None:
        self.mail(1, "a@next.example", "b@next.example")
        self.answer(DEFERRED)
        self.intervene("remove")
        self.assertDone()
        self.assertEqual(
            self.lines[1],
            "0000000000001 removed by the operator: from=<ann@sender.example>"
            " to=<b@next.example> by=uid 7",
        )

    def test_a_recipient_removed_during_its_delivery_fails_without_a_notice(self) -> None:
        self.mail(1, "a@next.example", "b@next.example")
        self.intervene("remove", to="b@*")
        self.answer(DELIVERED, FAILED)
        self.assertDone()
        self.assertIn("removed by the operator: ", self.lines[-1])

    def test_a_recipient_removed_during_its_delivery_leaves_after_a_deferral(self) -> None:
        self.mail(1)
        self.intervene("remove")
        self.answer(DEFERRED)
        self.assertDone()
        self.assertEqual(len(self.lines), 2)

    def test_a_recipient_removed_during_its_delivery_can_be_delivered(self) -> None:
        self.mail(1)
        self.intervene("remove")
        self.answer(DELIVERED)
        self.assertDone()
        self.assertEqual(len(self.lines), 1)
        (_, outcomes, _), *_ = self.observed
        self.assertTrue(outcomes[0].delivered)

    def test_a_removed_recipient_that_waits_in_memory_leaves_at_once(self) -> None:
        for id in range(1, 8):
            self.mail(id)
        self.intervene("remove")
        self.assertEqual(sorted(self.store.messages), [1, 2, 3, 4, 5])
        self.answer(DELIVERED)
        self.assertDone()

    def test_a_dry_run_changes_nothing(self) -> None:
        self.mail(1)
        self.answer(DEFERRED)
        self.assertEqual(len(self.intervene("remove", dry_run=True).messages), 1)
        self.assertEqual((list(self.store.messages), self.lines), ([1], []))
