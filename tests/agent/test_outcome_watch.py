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

    def tell(
        self, kind: type[Accepted | Delivered], *numbers: RecipientNumber, id: QueueId = ID
    ) -> None:
        step = kind(
            id=str(id), sender="", recipients=("?",) * len(numbers), next_hop=None, reply=None, at=0
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

    def test_the_queue_is_asked_only_for_accepted_mail(self) -> None:
        self.clock.pump([1.0] * 10)
        outcome = self.outcome()
        self.clock.pump([1.0] * 10)
        self.assertEqual(self.asked, [])  # its commit may be under way
        self.tell(Accepted, BOB, EVE)
        self.clock.pump([1.0] * 3)
        self.assertEqual(self.asked[0], [str(ID)])
        for number in (BOB, EVE):
            self.tell(Delivered, number)
        self.successResultOf(outcome)
        self.asked.clear()
        self.clock.pump([1.0] * 10)
        self.assertEqual(self.asked, [])

    def test_a_queue_that_cannot_be_read_loses_nothing(self) -> None:
        self.tell(Accepted, BOB, EVE)
        outcome = self.outcome()
        self.queue = None
        self.clock.pump([1.0] * 30)
        self.assertNoResult(outcome)

    def test_a_message_is_missing_in_two_looks_of_which_none_failed_in_between(self) -> None:
        self.tell(Accepted, BOB, EVE)
        outcome = self.outcome()
        for queue in ({}, None, {}, {str(ID): [BOB, EVE]}, {}):
            self.queue = queue
            self.clock.advance(2.0)
            self.assertNoResult(outcome)
        self.clock.advance(2.0)
        self.failureResultOf(outcome, LookupError)

    def test_mail_that_is_not_waited_for_is_forgotten_too(self) -> None:
        self.tell(Accepted, BOB, EVE)
        self.clock.pump([2.0] * 10)
        self.assertTrue(self.audience.tracks(str(ID)))
        self.queue = {}
        self.clock.pump([2.0] * 3)
        self.assertFalse(self.audience.tracks(str(ID)))
        self.assertEqual(self.lost, [str(ID)])

    def test_very_many_messages_take_turns(self) -> None:
        ids = [QueueId(number) for number in range(2, 3002)]
        names = list(map(str, ids))
        self.queue = {name: [BOB] for name in names}
        for id in ids:
            self.audience.track(id, {"bob@far.example": [BOB]})
            self.tell(Accepted, BOB, id=id)
        waiting = [self.audience.outcome(name) for name in names[:2500]]
        seen: dict[str, None] = {}
        for _ in range(3):
            self.asked.clear()
            self.clock.advance(2.0)
            looked_at = [id for some in self.asked for id in some]
            self.assertLessEqual(len(looked_at), 1200)
            self.assertLessEqual(max(map(len, self.asked)), 100)
            seen.update(dict.fromkeys(looked_at))
        self.assertTrue(all(name in seen for name in names[:2500]))
        self.clock.pump([2.0] * 15)
        seen.update((id, None) for some in self.asked for id in some)
        self.assertTrue(all(name in seen for name in names))
        self.queue = {}
        self.clock.pump([2.0] * 10)
        for each in waiting:
            self.failureResultOf(each, LookupError)


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
