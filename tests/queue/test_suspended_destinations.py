"""Destinations that the operator suspends, on a clock."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred

from twisted_mta.mail.next_hop import NextHop
from twisted_mta.queue.operator.operations import FIRST, Intervene, Suspend
from twisted_mta.queue.operator.suspended import SuspendedDestination, read_destination
from twisted_mta.queue.operator.suspended import SuspendedDestinations as Destinations
from twisted_mta.queue.schedule.next_hops import NextHopLimits
from twisted_mta.queue.store.contract import Operation
from twisted_mta.system.work import finished

from .mail import DEFERRED, DELIVERED, LIFETIME, NOW, message
from .running import RunnerTestCase

NEXT = SuspendedDestination("next.example", NOW, None, "they asked us to wait", "ann")


class SuspendedDestinations(RunnerTestCase):
    def suspend(self, *destinations: SuspendedDestination) -> None:
        self.runner.take_suspended(destinations)
        self.settle()

    def test_new_mail_is_accepted_and_waits(self) -> None:
        self.suspend(NEXT)
        self.accept(message(1), message(2), message(3, "bob@other.example"))
        self.assertEqual(self.under_way(), [("other.example", [0])])
        self.answer(DELIVERED)
        self.assertEqual(sorted(self.store.messages), [1, 2])
        self.assertIdle()
        batches = len(self.store.batches)
        self.settle(1800)
        self.assertEqual((len(self.store.batches), self.attempts), (batches, []))
        self.assertTrue(self.runner.is_idle)

    def test_an_attempt_under_way_ends_by_itself_and_the_mail_behind_it_waits(self) -> None:
        self.per_hop = 1
        self.begin()
        self.accept(message(1), message(2))
        self.assertEqual(len(self.attempts), 1)
        self.suspend(NEXT)
        self.answer(DELIVERED)
        self.assertEqual((list(self.store.messages), self.attempts), ([2], []))
        self.assertIdle()

    def test_a_message_to_two_domains_is_tried_at_the_other_one(self) -> None:
        self.suspend(NEXT)
        self.accept(message(1, "bob@next.example", "eve@other.example"))
        self.assertEqual(self.under_way(), [("other.example", [1])])
        self.answer(DELIVERED)
        self.assertIdle()

    def test_domains_of_one_next_hop_are_suspended_one_by_one(self) -> None:
        self.suspend(SuspendedDestination("a.shared.example", NOW))
        self.accept(message(1, "bob@a.shared.example", "eve@b.shared.example"))
        self.assertEqual(self.under_way(), [("shared.example", [1])])
        self.answer(DELIVERED)
        self.suspend()
        self.assertEqual(self.under_way(), [("shared.example", [0])])
        self.answer(DELIVERED)
        self.assertDone()

    def test_a_next_hop_is_suspended_for_all_its_domains(self) -> None:
        self.suspend(SuspendedDestination("smtp:shared.example", NOW))
        self.accept(message(1, "bob@a.shared.example"), message(2, "eve@b.shared.example"))
        self.accept(message(3, "eve@other.example"))
        self.assertEqual(self.under_way(), [("other.example", [0])])
        self.answer(DELIVERED)
        found = self.runner.domains_of_suspended()
        both = ["a.shared.example", "b.shared.example"]
        self.assertEqual(
            {name: sorted(each) for name, each in found.items()}, {"smtp:shared.example": both}
        )
        self.suspend()
        self.answer(DELIVERED)
        self.assertDone()

    def test_all_domains_below_one_are_suspended_and_resumed_and_not_that_itself(self) -> None:
        below = SuspendedDestination(".b.example", NOW, None, "a secret")
        self.suspend(below)
        self.accept(message(1, "bob@a.b.example", "cat@x.a.b.example"), message(2, "eve@b.example"))
        self.accept(message(3, "eve@a.bb.example"))
        self.assertEqual(self.under_way(), [("b.example", [0]), ("a.bb.example", [0])])
        for _ in range(2):
            self.answer(DELIVERED)
        self.assertIdle()
        found = self.runner.domains_of_suspended()[".b.example"]
        self.assertEqual(sorted(found), ["a.b.example", "x.a.b.example"])
        asked = finished(self.runner.domains_of_destinations([".b.example"]))
        self.assertEqual(sorted(asked), ["a.b.example", "x.a.b.example"])
        self.assertEqual(
            below.reply.lines,
            ("Delivery to domains below b.example is suspended by the operator of this MTA",),
        )
        self.suspend()
        self.answer(DELIVERED)
        self.answer(DELIVERED)
        self.assertDone()

    def test_the_most_specific_destination_is_named_among_those_in_force(self) -> None:
        names = ("a.b.example", ".b.example", ".example", "smtp:hop.example")
        destinations = [SuspendedDestination(name, NOW, NOW + 10) for name in names]
        hop = NextHop("smtp", domain="hop.example")
        suspended = Destinations(lambda: NOW)
        for number, name in enumerate(names):
            suspended.replace(destinations[number:])
            found = suspended.find("a.b.example", hop)
            assert found is not None
            self.assertEqual(found.name, name)
        suspended.replace([evolve(destinations[0], until=NOW), destinations[1]])
        self.assertEqual(suspended.find("a.b.example", hop), destinations[1])

    def test_mail_of_a_resumed_destination_is_due_within_the_limits_of_its_next_hop(self) -> None:
        self.suspend(NEXT)
        self.accept(*(message(id) for id in range(1, 101)))
        self.suspend()
        self.assertEqual(len(self.attempts), 5)
        while self.attempts:
            self.assertLessEqual(len(self.attempts), self.per_hop)
            self.answer(DELIVERED)
        self.assertDone()

    def test_mail_that_was_deferred_before_waits_for_its_time_or_for_the_operator(self) -> None:
        self.accept(message(1))
        self.answer(DEFERRED)
        self.suspend(NEXT)
        self.settle(30)
        self.suspend()
        self.assertEqual(self.attempts, [])
        retried = Deferred.fromCoroutine(self.runner.retry_domains(["next.example"], by="ann"))
        self.settle()
        self.successResultOf(retried)
        self.assertEqual(len(self.attempts), 1)
        self.answer(DELIVERED)
        self.assertDone()

    def test_it_ends_by_itself_when_its_time_is_over(self) -> None:
        self.suspend(SuspendedDestination("next.example", NOW, NOW + 7200))
        self.accept(message(1))
        self.settle(7199)
        self.assertEqual(self.attempts, [])
        self.settle(1)
        self.assertEqual(len(self.attempts), 1)
        self.assertEqual(list(self.runner.suspended_destinations), [])
        self.answer(DELIVERED)
        self.assertDone()

    def test_it_ends_within_a_minute_where_the_wall_clock_is_set_ahead(self) -> None:
        self.suspend(SuspendedDestination("next.example", NOW, NOW + 7200))
        self.accept(message(1))
        self.step = 7200.0
        self.settle(60)
        self.assertEqual(len(self.attempts), 1)
        self.answer(DELIVERED)

    def test_it_is_in_force_after_a_restart(self) -> None:
        self.store.apply([Suspend(NEXT)])
        self.begin(start=False)
        self.runner.take_suspended(self.store.read_suspended().destinations)
        self.runner.start()
        self.accept(message(1))
        self.assertEqual(self.attempts, [])
        self.assertEqual(list(self.runner.suspended_destinations), [NEXT])

    def test_mail_is_returned_at_the_end_of_its_lifetime(self) -> None:
        self.suspend(NEXT)
        self.accept(message(1), message(2, received_at=NOW + 3600))
        self.settle(LIFETIME - 3600)
        self.assertEqual(sorted(self.store.messages), [1, 2])
        for _ in range(5):
            self.settle(3600)
        self.answer(DELIVERED)
        self.assertEqual(self.store.messages, {})
        first, _ = [each for each in self.all_attempts if each.message.id >= 1_000_000]
        text = b"".join(first.message.body.chunks()).decode()
        self.assertIn("Delivery to next.example is suspended by the operator", text)
        self.assertNotIn(NEXT.reason, text)
        self.assertIdle()

    def test_of_much_mail_all_is_returned(self) -> None:
        self.suspend(NEXT)
        self.accept(*(message(id, sender=None) for id in range(1, 401)))
        self.settle(LIFETIME + 3600)
        for _ in range(20):
            self.settle(1)
        self.assertEqual(self.store.messages, {})
        self.assertEqual(len(self.store.failures), 400)

    def test_a_lifetime_of_the_next_hop_counts(self) -> None:
        self.limits_of = lambda next_hop: NextHopLimits(lifetime=7200.0)  # type: ignore[method-assign]
        self.suspend(NEXT)
        self.accept(message(1, sender=None))
        self.settle(3601)
        self.assertEqual(list(self.store.messages), [1])
        self.settle(3600)
        self.settle(3600)
        self.assertEqual(self.store.messages, {})

    def test_new_routes_are_looked_at(self) -> None:
        self.suspend(SuspendedDestination("smtp:elsewhere.example", NOW))
        self.accept(message(1))
        self.answer(DEFERRED)
        self.route = lambda mailbox: NextHop("smtp", domain="elsewhere.example")  # type: ignore[method-assign, assignment]
        self.runner.update(self.settings())
        self.settle(1000)
        self.assertEqual(self.attempts, [])
        self.suspend()
        self.settle(1000)
        self.assertEqual(self.under_way(), [("elsewhere.example", [0])])
        self.answer(DELIVERED)

    def test_a_retry_of_several_domains_is_one_intervention_for_other_processes(self) -> None:
        self.accept(message(1, "bob@a.example", "bob@b.example"))
        self.answer(DEFERRED)
        self.answer(DEFERRED)
        performed: list[Intervene] = []
        perform = self.commit.perform

        def spy(operation: Operation) -> Deferred[Any]:
            if isinstance(operation, Intervene):
                performed.append(operation)
            return perform(operation)

        self.patch(self.commit, "perform", spy)
        retried = Deferred.fromCoroutine(
            self.runner.retry_domains(["a.example", "b.example"], by="ann")
        )
        self.settle()
        self.successResultOf(retried)
        self.assertEqual([each.after == FIRST for each in performed], [True, False])
        self.assertEqual(len(self.attempts), 2)

    def test_a_retry_does_not_try_it(self) -> None:
        self.suspend(NEXT)
        self.accept(message(1))
        retried = Deferred.fromCoroutine(self.runner.retry_domains(["next.example"], by="ann"))
        self.settle()
        self.successResultOf(retried)
        self.assertEqual(self.attempts, [])
        self.assertIdle()


class ReadDestination(RunnerTestCase):
    def test_domains_and_next_hops_are_read(self) -> None:
        for text, name in (
            ("Example.NET", "example.net"),
            (" example.net. ", "example.net"),
            (".Example.NET.", ".example.net"),
            (".example", ".example"),
            ("[192.0.2.1]", "[192.0.2.1]"),
            ("SMTP:relay.example.net:25", "smtp:relay.example.net:25"),
            ("smtp:relay:25 (mail for .example.net)", "smtp:relay:25"),
            ("smtp:exchanger=.provider.example", "smtp:exchanger=.provider.example"),
            ("smtp:exchanger=.Provider.Example", "smtp:exchanger=.provider.example"),
            ("smtp:Relay.Example.NET:25", "smtp:relay.example.net:25"),
            ("lmtp:/Run/lmtp.sock", "lmtp:/Run/lmtp.sock"),
            ("deliver:Shop", "deliver:Shop"),
        ):
            self.assertEqual(read_destination(text), name)

    def test_what_is_neither_is_refused_with_what_was_expected(self) -> None:
        for text in (
            "",
            " ",
            "bob@example.net",
            "smtp:",
            "a b",
            "x" * 400,
            "\x1b[31m",
            ".",
            "..a",
            ".[192.0.2.1]",
        ):
            with self.assertRaisesRegex(ValueError, "expected a recipient domain") as caught:
                read_destination(text)
            self.assertTrue(str(caught.exception).isprintable())
        with self.assertRaisesRegex(ValueError, r"found destination '\\x1b\[31m', expected"):
            read_destination("\x1b[31m")
