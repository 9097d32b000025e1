"""The mail that waits for suspended next hops, counted while that is asked for."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from tests.tidy import TidyTestCase
from twisted_mta.queue.operator.operations import CountWaiting, WaitingCounts
from twisted_mta.queue.operator.waiting_mail import WaitingMail
from twisted_mta.queue.store.contract import StoreError

HOPS = {"lmtp:s:24": ["one.example", "two.example"], "smtp:three.example": ["three.example"]}


class Waiting(TidyTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.hops: dict[str, list[str]] = dict(HOPS)
        self.asked: list[CountWaiting] = []
        self.answer: Deferred[Any] | None = None
        self.mail = WaitingMail(self.perform, lambda: self.hops, clock=self.clock)

    def perform(self, count: CountWaiting) -> Deferred[Any]:
        self.asked.append(count)
        if self.answer is not None:
            return self.answer
        return succeed(WaitingCounts({domain: len(domain) for domain in count.domains}))

    def test_the_counts_of_all_domains_of_a_next_hop_are_added(self) -> None:
        self.assertEqual(self.mail.counts(), {"lmtp:s:24": 22, "smtp:three.example": 13})
        self.assertEqual(self.asked[0].domains, ("one.example", "two.example", "three.example"))

    def test_counts_begin_at_least_ten_seconds_apart(self) -> None:
        for _ in range(20):
            self.mail.counts()
            self.clock.advance(1)
        self.assertEqual(len(self.asked), 2)

    def test_nothing_is_counted_while_no_next_hop_is_suspended(self) -> None:
        self.mail.counts()
        self.clock.advance(10)
        self.hops = {}
        self.assertEqual(self.mail.counts(), {})
        self.assertEqual(len(self.asked), 1)
        self.hops = dict(HOPS)
        self.assertEqual(len(self.mail.counts()), 2)

    def test_the_domains_of_one_count_are_bounded(self) -> None:
        self.hops = {"lmtp:s:24": [f"{number}.example" for number in range(1000)]}
        self.mail.counts()
        self.assertEqual(len(self.asked[0].domains), 200)

    def test_no_count_begins_while_one_is_under_way_and_a_closed_store_is_asked_again(self) -> None:
        self.answer = Deferred()
        self.mail.counts()
        self.clock.advance(100)
        self.assertEqual(self.mail.counts(), {})
        self.assertEqual(len(self.asked), 1)
        self.answer.errback(StoreError("closed"))
        self.answer = fail(StoreError("closed"))
        self.mail.counts()
        self.answer = None
        self.clock.advance(10)
        self.assertEqual(len(self.mail.counts()), 2)
