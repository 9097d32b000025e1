"""Deliveries that share the content of their message: their places are given back in every end."""

from __future__ import annotations

import random  # noqa: TID251 - seeded, so every run draws the same
from typing import Any

from attrs import evolve

from twisted_mta.interfaces import Refused
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.next_hop import NextHop
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.queue.operator.operations import Intervene
from twisted_mta.queue.operator.selection import Selection
from twisted_mta.queue.operator.suspended import SuspendedDestination
from twisted_mta.queue.schedule.fair_share import WHOLE
from twisted_mta.queue.store.contract import StoreError, StoreFull

from .mail import DEFERRED, DELIVERED, FAILED, LIFETIME, message
from .running import RunnerTestCase


class SharedContents(RunnerTestCase):
    concurrency = 12
    per_hop = 3

    def test_places_are_given_back_once_whatever_happens(self) -> None:
        for seed in range(6):
            self.play(random.Random(seed))

    def play(self, draw: random.Random) -> None:
        self.store = type(self.store)()
        turned: set[str] = set()  # domains that are delivered here since a reload
        self.route = lambda mailbox: self.routed(mailbox, turned)
        self.begin()
        for id in range(1, 60):
            domains = draw.sample(range(14), draw.choice([1, 2, 3, 5, 9, 12]))
            sent = message(id, *(f"u{draw.randrange(3)}@{each}.example" for each in domains))
            sent = evolve(sent, received_at=self.wall_time())
            if draw.random() < 0.1:
                failure = draw.choice([StoreError("I/O"), StoreFull("full")])
                self.store.fail_next(failure, durable=False)
            self.runner.accept(sent).addErrback(lambda failure: failure.trap(Refused))
            self.disturb(draw, id, turned)
            self.answer_some(draw)
            self.settle(draw.choice([0, 0, 1, 400]))
            self.assertKept()
        self.runner.take_suspended([])
        self.settle(400)  # the store is open again
        self.runner.intervene(Intervene("release", Selection(), self.wall_time()), by="ann")
        for _ in range(500):
            if not self.store.messages:
                break
            self.answer_some(draw)
            self.settle(draw.choice([0, 60, 4000]))
            self.assertKept()
        self.assertDone()
        self.flushLoggedErrors(StoreError, TypeError, ZeroDivisionError)

    def routed(self, mailbox: Mailbox, turned: set[str]) -> NextHop:
        if mailbox.domain in turned:
            return NextHop("maildir")
        return NextHop("smtp", domain=mailbox.domain)

    def disturb(self, draw: random.Random, id: int, turned: set[str]) -> None:
        """Let an operator do something, or not."""
        event, domain = draw.random(), f"{draw.randrange(14)}.example"
        if event < 0.2:
            action: Any = draw.choice(["hold", "remove", "retry", "release"])
            some = Selection(ids=(QueueId(draw.randrange(1, id + 1)),))
            selection = draw.choice([some, Selection(domain=domain), Selection(to="u1@*")])
            intervened = self.runner.intervene(
                Intervene(action, selection, self.wall_time()), by="ann"
            )
            intervened.addErrback(lambda failure: failure.trap(StoreError))
        elif event < 0.3:
            turned ^= {domain}
            self.concurrency = draw.choice([4, 12, 200])
            self.runner.update(self.settings())
        elif event < 0.4:
            names = [f"{draw.randrange(14)}.example" for _ in range(draw.randrange(3))]
            now = self.wall_time()
            until = draw.choice([None, now + 500])
            self.runner.take_suspended([SuspendedDestination(each, now, until) for each in names])
        elif event < 0.43:
            self.settle(LIFETIME)

    def answer_some(self, draw: random.Random) -> None:
        for attempt in list(self.attempts):
            event = draw.random()
            if event < 0.4:
                continue
            self.attempts.remove(attempt)
            if event < 0.5:
                attempt.unreachable()
            elif event < 0.53:
                attempt.done.errback(ZeroDivisionError())
            elif event < 0.55:
                attempt.done.callback(draw.choice([None, ()]))  # type: ignore[arg-type]
            else:
                attempt.answer(draw.choice([DELIVERED, DELIVERED, DEFERRED, FAILED]))

    def assertKept(self) -> None:
        """The sums are those of the queues, and no place weighs less than nothing."""
        share = self.runner._fair_share
        sums = [0, 0, 0]
        for queue in share.queues.values():
            sums[queue.kind] += queue.weight
            self.assertTrue(queue.places <= queue.weight <= queue.places * WHOLE)
        self.assertEqual(share._weight_of_kind, sums)
