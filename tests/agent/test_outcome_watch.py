"""Outcomes of mail that another machine of a shared queue has ended."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.queue.mail import message, settled
from tests.tidy import TidyTestCase
from twisted_mta.agent.audience import LocalAudience, Outcomes
from twisted_mta.agent.outcome_watch import OutcomeWatch, Queued, queued_recipients
from twisted_mta.mail.envelope import RecipientNumber
from twisted_mta.mail.events import Accepted, Delivered
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.queue.commit import GroupCommit
from twisted_mta.queue.store.contract import Accept
from twisted_mta.system.executors import inline_executor
from twisted_mta.testing.store import MemoryStore

ID = QueueId(1)
BOB, EVE = RecipientNumber(0), RecipientNumber(1)


class Watch(TidyTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.audience = LocalAudience()
        self.queue: Queued | None = {str(ID): [BOB, EVE]}
        self.asked: list[Sequence[str]] = []
        self.lost: list[str] = []
        watch = OutcomeWatch(self.audience, self.queued, lost=self.lost.append, clock=self.clock)
        watch.start()
        self.addCleanup(watch.stop)
        self.audience.track(ID, {"bob@far.example": [BOB], "eve@far.example": [EVE]})

    async def queued(self, ids: Sequence[str]) -> Queued | None:
        self.asked.append(ids)
        return self.queue

    def tell(self, kind: type[Accepted | Delivered], *numbers: RecipientNumber) -> None:
        step = kind(
            id=str(ID), sender="", recipients=("?",) * len(numbers), next_hop=None, reply=None, at=0
        )
        self.audience.tell(step, numbers)

    def outcome(self) -> Deferred[Outcomes]:
        return self.audience.outcome(str(ID))

    def test_mail_that_another_machine_has_ended_is_lost_within_seconds(self) -> None:
        self.tell(Accepted, BOB, EVE)
        outcome = self.outcome()
        self.clock.pump([1.0] * 30)
        self.assertNoResult(outcome)
        self.queue = {str(ID): [EVE]}
        self.clock.pump([1.0] * 5)
        error = self.failureResultOf(outcome, LookupError).value
        self.assertIn("another machine", str(error))
        self.assertEqual(self.lost, [str(ID)])

    def test_mail_that_this_machine_has_ended_is_not_lost(self) -> None:
        self.tell(Accepted, BOB, EVE)
        outcome = self.outcome()
        self.queue = {str(ID): [EVE]}
        self.clock.pump([2.0])  # the step is still on its way here
        self.tell(Delivered, BOB)
        self.clock.pump([1.0] * 30)
        self.assertNoResult(outcome)
        self.queue = {}
        self.tell(Delivered, EVE)
        self.assertEqual(len(self.successResultOf(outcome)), 2)

    def test_the_queue_is_asked_only_for_accepted_mail_that_is_waited_for(self) -> None:
        self.clock.pump([1.0] * 10)
        outcome = self.outcome()
        self.clock.pump([1.0] * 10)
        self.assertEqual(self.asked, [])  # its commit may be under way
        self.tell(Accepted, BOB, EVE)
        self.clock.pump([1.0] * 3)
        self.assertEqual(self.asked[0], [str(ID)])
        outcome.cancel()
        self.failureResultOf(outcome)
        self.asked.clear()
        self.clock.pump([1.0] * 10)
        self.assertEqual(self.asked, [])

    def test_a_queue_that_cannot_be_read_loses_nothing(self) -> None:
        self.tell(Accepted, BOB, EVE)
        outcome = self.outcome()
        self.queue = None
        self.clock.pump([1.0] * 30)
        self.assertNoResult(outcome)


class Queue(TidyTestCase):
    def test_the_recipients_of_messages_are_found(self) -> None:
        clock = Clock()
        commit = GroupCommit(MemoryStore(), executor=inline_executor, clock=clock)
        commit.start()
        first = message(1, "bob@far.example", "eve@far.example")
        for operation in (Accept(first), Accept(message(3)), settled(first, 0)):
            commit.perform(operation)
            clock.pump([0.01] * 5)
        ids = [str(QueueId(id)) for id in (3, 2, 1)]
        found = Deferred.fromCoroutine(queued_recipients(commit, ids))
        clock.pump([0.01] * 5)
        self.assertEqual(self.successResultOf(found), {ids[2]: [EVE], ids[0]: [BOB]})
