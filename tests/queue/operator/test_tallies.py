"""The recipients in the queue by age and by reason, counted on demand."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from tests.tidy import TidyTestCase
from twisted_mta.queue.ids import first_id
from twisted_mta.queue.operator.operations import Category, Tallied, Tally
from twisted_mta.queue.operator.tallies import MOST_DOMAINS, DomainTally, Tallies, reason
from twisted_mta.queue.store.contract import StoreError

NOW = 1_800_000_000.0


def deferred_for(code: int, status: str | None, ours: bool) -> Category:
    return Category(0, True, True, False, code, status, ours)


class Counting(TidyTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[Tally] = []
        self.slices = [
            Tallied({Category(5, False, True, False): 3}, 3, first_id(NOW - 100)),
            Tallied({deferred_for(450, "2.0", False): 2}, 2, None),
        ]
        self.tallies = Tallies(self.perform, clock=self.clock, wall_time=lambda: NOW)

    def perform(self, tally: Tally) -> Deferred[Any]:
        self.asked.append(tally)
        return succeed(self.slices[(len(self.asked) - 1) % 2])

    def test_nothing_is_counted_before_the_tallies_are_asked_for(self) -> None:
        self.clock.advance(100)
        self.assertEqual(self.asked, [])

    def test_a_count_goes_slice_by_slice_and_is_shown_when_complete(self) -> None:
        self.assertEqual(self.tallies.ages(), {})
        self.assertEqual(len(self.asked), 1)
        self.clock.advance(0.05)
        self.assertEqual(self.asked[1].after, first_id(NOW - 100))
        self.assertEqual(
            self.tallies.ages(), {"5m": 3, "1h": 0, "4h": 0, "1d": 0, "5d": 0, "older": 2}
        )
        self.assertEqual(self.tallies.reasons()["refused"], 2)
        self.assertEqual(len(self.asked), 2)

    def pause_after(self, took: float) -> float:
        """Return the seconds between a slice that took so long and the next."""
        slow: Deferred[Any] = Deferred()
        answers = [succeed(Tallied()), slow]
        tallies = Tallies(lambda tally: answers.pop(), clock=self.clock, wall_time=lambda: NOW)
        tallies.ages()
        self.clock.advance(took)
        slow.callback(self.slices[0])
        (next_slice,) = self.clock.getDelayedCalls()
        pause = next_slice.getTime() - self.clock.seconds()
        self.clock.advance(pause)
        return round(pause, 6)

    def test_a_count_takes_a_twentieth_of_the_time_and_goes_on_where_the_store_is_slow(
        self,
    ) -> None:
        self.assertEqual(self.pause_after(0.01), 0.19)
        self.assertEqual(self.pause_after(0.001), 0.05)
        self.assertEqual(self.pause_after(2.0), 0.25)

    def test_domains_have_their_counts_reasons_and_first_message(self) -> None:
        waiting, refused = Category(5, False, True, False), deferred_for(450, "2.0", False)
        held = Category(0, True, False, True, 451, "4.1", True)
        old, new = first_id(NOW - 900), first_id(NOW - 100)
        self.slices = [
            Tallied(next=new, domains={"a.example": ({waiting: 3}, old)}),
            Tallied(domains={"a.example": ({refused: 2, held: 1}, new), "b.example": ({}, new)}),
        ]
        self.tallies.ages()
        self.clock.advance(0.05)
        self.assertEqual(
            self.tallies.domains()["a.example"],
            DomainTally(6, 3, 1, old, {"refused": 2, "unreachable": 1}),
        )

    def test_those_with_most_mail_are_told(self) -> None:
        waiting = Category(5, False, True, False)
        self.slices[1] = Tallied(
            domains={
                f"{number}.example": ({waiting: number}, first_id(NOW)) for number in range(5000)
            }
        )
        self.tallies.ages()
        self.clock.advance(0.05)
        self.assertEqual(list(self.tallies.domains())[:2], ["4999.example", "4998.example"])
        self.assertEqual(len(self.tallies.domains()), MOST_DOMAINS)

    def test_counts_begin_at_least_half_a_minute_apart(self) -> None:
        self.tallies.ages()
        self.clock.advance(29)
        self.tallies.ages()
        self.assertEqual(len(self.asked), 2)
        self.clock.advance(1)
        self.tallies.ages()
        self.assertEqual(len(self.asked), 3)

    def test_a_count_that_the_store_refused_is_made_later(self) -> None:
        answers = [fail(StoreError("closed")), succeed(Tallied())]
        self.tallies = Tallies(
            lambda tally: answers.pop(0), clock=self.clock, wall_time=lambda: NOW
        )
        self.assertEqual(self.tallies.ages(), {})
        self.clock.advance(30)
        self.tallies.ages()
        self.assertEqual(self.tallies.ages()["older"], 0)

    def test_a_stop_leaves_no_timer(self) -> None:
        self.tallies.ages()
        self.tallies.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(100)
        self.tallies.ages()
        self.assertEqual(len(self.asked), 1)

    def test_the_reason_depends_on_the_last_reply_and_whose_it_is(self) -> None:
        for code, status, ours, expected in (
            (451, "4.1", True, "unreachable"),
            (451, "4.2", True, "unreachable"),
            (451, "4.3", True, "dns"),
            (451, "4.4", True, "dns"),
            (454, "7.5", True, "tls"),
            (451, "5.0", True, "unreachable"),  # what was said is no reply
            (451, "3.0", True, "internal"),
            (421, None, False, "throttled"),
            (452, "3.2", False, "throttled"),
            (450, "7.1", False, "refused"),
            (535, "7.8", False, "tls"),  # the account
            (454, None, False, "tls"),
            (451, None, False, "refused"),
        ):
            self.assertEqual(reason(deferred_for(code, status, ours)), expected, (code, status))
