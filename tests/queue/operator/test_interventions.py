"""What an operator does to a queue that is at work."""

from __future__ import annotations

from typing import Any

from tests.logs import logged_lines
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.queue.operator.operations import FIRST, Action, Intervene, Page
from twisted_mta.queue.operator.selection import Selection

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
    def test_what_is_done_to_many_is_said_in_few_lines(self) -> None:
        for id in range(1, 151):
            self.mail(id, "a@hangs.example")
        self.lines.clear()
        page = self.intervene("hold", domain="hangs.example")
        self.assertEqual(len(page.ids), 150)
        self.assertEqual(self.store.census().held, 150)
        told = [line for line in self.lines if "recipients held by the operator: by=uid 7" in line]
        single = [line for line in self.lines if "from=<ann@" in line]
        self.assertEqual(len(told) + len(single), len(self.lines))
        self.assertLessEqual(len(told), 2)
        text = "\n".join(self.lines)
        for id in range(1, 151):
            self.assertIn(str(QueueId(id)), text)
        self.lines.clear()
        self.assertEqual(len(self.intervene("remove", state="held").ids), 150)
        told = [line for line in self.lines if "recipients removed by the operator" in line]
        self.assertEqual(len(told), 2)
        self.assertLess(len(self.lines), 20)  # what is at work has a line of its own


class Retrying(InterventionTestCase):
    def test_what_was_deferred_goes_at_once(self) -> None:
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

    def test_a_next_hop_that_is_left_alone_is_probed_at_once(self) -> None:
        self.mail(1)
        self.find_nobody()
        self.assertEqual(len(self.runner.suspended()), 1)
        self.intervene("retry")
        self.assertEqual(self.under_way(), [("next.example", [0])])
        self.answer(DELIVERED)
        self.assertEqual(self.runner.suspended(), [])
        self.assertDone()

    def test_what_waits_behind_a_next_hop_that_is_left_alone_is_probed_as_well(self) -> None:
        self.mail(1)
        self.find_nobody()
        self.mail(2)
        self.intervene("retry", ids=[str(QueueId(2))])
        self.assertEqual(len(self.attempts), 1)
        self.answer(DELIVERED)
        self.answer(DELIVERED)
        self.settle(400)
        self.answer(DELIVERED)
        self.assertDone()

    def test_a_probe_that_finds_nobody_leaves_it_alone_again(self) -> None:
        self.mail(1)
        self.find_nobody()
        self.intervene("retry")
        self.find_nobody()
        (suspended,) = self.runner.suspended()
        self.assertEqual(suspended.times, 2)
        self.assertGreater(suspended.seconds, 300)

    def bulk(self, action: Action, limit: int = 100) -> int:
        """Do something to all, slice by slice, with what is under way reaching nobody.

        Returns:
            How many attempts there were.
        """
        before = len(self.all_attempts)
        after: int | None = FIRST
        while after is not None:
            intervention = Intervene(action, Selection(), self.wall_time(), after, limit)
            done = self.runner.intervene(intervention, by="uid 7")
            self.settle()
            after = self.successResultOf(done).next
            self.find_nobody()
            self.settle(0.01)
        return len(self.all_attempts) - before

    def test_one_action_is_one_probe_however_much_waits_there(self) -> None:
        self.mail(1)
        self.find_nobody()
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

    def test_nor_does_an_action_that_finds_it_open_probe_it_again(self) -> None:
        for id in range(1, 501):
            self.runner.accept(message(id, received_at=self.wall_time()))
        self.settle()
        self.answer(DEFERRED)
        while self.attempts:
            self.answer(DEFERRED)
        self.assertLessEqual(self.bulk("retry"), 20)
        (suspended,) = self.runner.suspended()
        self.assertEqual(suspended.times, 1)

    def test_a_release_of_all_that_is_held_is_one_probe_too(self) -> None:
        self.mail(1)
        self.find_nobody()
        for id in range(2, 501):
            self.runner.accept(message(id, received_at=self.wall_time()))
        self.settle()
        self.bulk("hold")
        self.assertEqual(self.bulk("release"), 1)
        (suspended,) = self.runner.suspended()
        self.assertEqual(suspended.times, 2)

    def test_a_loop_over_single_messages_costs_the_next_hop_no_more(self) -> None:
        for id in range(1, 31):
            self.mail(id)
        while self.attempts:
            self.find_nobody()
        for id in range(1, 31):
            self.intervene("retry", ids=[str(QueueId(id))])
            self.find_nobody()
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

    def test_other_settings_in_the_middle_probe_nobody(self) -> None:
        self.mail(1)
        self.find_nobody()
        before = len(self.all_attempts)
        for _ in range(10):
            self.runner.update(self.settings())
            self.settle(1)
        self.assertEqual(len(self.all_attempts), before)
        (suspended,) = self.runner.suspended()
        self.assertEqual(suspended.times, 1)

    def test_what_is_under_way_is_left_to_it(self) -> None:
        self.mail(1)
        self.assertEqual(self.intervene("retry").messages, ())
        self.assertEqual(len(self.attempts), 1)
        self.answer(DELIVERED)
        self.assertDone()


class Holding(InterventionTestCase):
    def test_what_is_held_is_not_tried_and_not_returned(self) -> None:
        self.mail(1)
        self.answer(DEFERRED)
        self.intervene("hold")
        self.settle(2 * LIFETIME)
        self.assertEqual((self.under_way(), self.notices()), ([], []))
        self.intervene("release")
        self.assertEqual(self.under_way(), [("next.example", [0])])
        self.answer(DELIVERED)
        self.assertDone()

    def test_what_is_under_way_is_held_if_it_is_deferred(self) -> None:
        self.mail(1)
        self.intervene("hold")
        self.assertIn("held by the operator, when the attempt under way has ended", self.lines[0])
        self.answer(DEFERRED)
        self.settle(LIFETIME)
        self.assertEqual(self.under_way(), [])
        self.assertIdle()
        self.assertEqual(self.store.census().held, 1)

    def test_what_is_under_way_is_gone_if_it_is_delivered(self) -> None:
        self.mail(1)
        self.intervene("hold")
        self.answer(DELIVERED)
        self.assertDone()

    def test_what_waits_in_memory_is_not_begun(self) -> None:
        for id in range(1, 8):  # 5 at once
            self.mail(id)
        self.assertEqual(len(self.attempts), 5)
        self.intervene("hold")
        self.answer(DELIVERED)
        self.assertEqual(self.under_way(), [])
        self.assertIdle()
        self.assertEqual(sorted(self.store.messages), [6, 7])

    def test_only_the_recipients_that_are_meant_are_taken_out_of_what_waits(self) -> None:
        for id in range(1, 6):
            self.mail(id)
        self.mail(6, "a@next.example", "b@next.example")
        self.intervene("hold", to="b@next.example")
        self.answer(DELIVERED)
        self.assertEqual(self.under_way(), [("next.example", [0])])
        self.answer(DELIVERED)
        self.assertIdle()
        self.assertEqual(self.store.census().held, 1)

    def test_what_is_held_as_it_comes_is_not_begun(self) -> None:
        accepted = self.runner.accept(message(1))
        held = self.runner.intervene(Intervene("hold", Selection(), self.wall_time()), by="uid 7")
        self.settle()
        self.successResultOf(accepted)
        self.successResultOf(held)
        self.assertEqual(self.under_way(), [])
        self.assertIdle()
        self.assertEqual(self.store.census().held, 1)

    def test_what_is_released_before_its_delivery_ends_is_as_if_nothing_was(self) -> None:
        self.mail(1)
        self.intervene("hold")
        self.intervene("release")
        self.answer(DEFERRED)
        self.settle(400)
        self.assertEqual(len(self.attempts), 1)
        self.answer(DELIVERED)
        self.assertDone()


class Removing(InterventionTestCase):
    def test_what_is_removed_is_gone_without_a_notice(self) -> None:
        self.mail(1, "a@next.example", "b@next.example")
        self.answer(DEFERRED)
        self.intervene("remove")
        self.assertDone()
        self.assertEqual(
            self.lines[1],
            "0000000000001 removed by the operator: from=<ann@sender.example>"
            " to=<b@next.example> by=uid 7",
        )

    def test_what_is_under_way_and_fails_is_removed_without_a_notice(self) -> None:
        self.mail(1, "a@next.example", "b@next.example")
        self.intervene("remove", to="b@*")
        self.answer(DELIVERED, FAILED)
        self.assertDone()
        self.assertIn("removed by the operator: ", self.lines[-1])

    def test_what_is_under_way_and_deferred_is_removed(self) -> None:
        self.mail(1)
        self.intervene("remove")
        self.answer(DEFERRED)
        self.assertDone()
        self.assertEqual(len(self.lines), 2)

    def test_what_is_under_way_and_delivered_was_delivered(self) -> None:
        self.mail(1)
        self.intervene("remove")
        self.answer(DELIVERED)
        self.assertDone()
        self.assertEqual(len(self.lines), 1)
        (_, outcomes, _), *_ = self.observed
        self.assertTrue(outcomes[0].delivered)

    def test_what_waits_in_memory_is_gone_at_once(self) -> None:
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
