"""Group commit: batches, states, failed commits, a full disk, and the stop."""

from __future__ import annotations

from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.logs import logged_lines
from tests.tidy import TidyTestCase
from twisted_mta.interfaces import Refused
from twisted_mta.mail.body import Body, MemoryBody
from twisted_mta.mail.message import Message
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.queue.commit import FULL, NOT_NOW, TRANSITIONS, GroupCommit, State
from twisted_mta.queue.operator.operations import Browse, Intervene
from twisted_mta.queue.operator.selection import Selection
from twisted_mta.queue.store.contract import (
    Accept,
    Forget,
    Lease,
    NewerSchema,
    Operation,
    Result,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreUnavailable,
    Want,
)
from twisted_mta.queue.store.spool import Spool
from twisted_mta.system.executors import inline_executor
from twisted_mta.testing.files import UnsyncedFiles
from twisted_mta.testing.store import MemoryStore

from .mail import NOW, deferred, message, settled
from .store.held import HeldExecutor

BROKEN = StoreError("disk I/O error")
LOCKED = StoreBusy("canceling statement due to lock timeout")
NO_ROOM = StoreFull("database or disk is full")


class CommitTestCase(TidyTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.files = UnsyncedFiles()
        self.files.make_directories("/body")
        self.spool = Spool("/body", files=self.files, executor=inline_executor, small_body=100)
        self.store = MemoryStore(spool=self.spool)
        self.executor = HeldExecutor()
        self.commit = GroupCommit(self.store, executor=inline_executor, clock=self.clock)
        self.commit.start()

    def hold(self) -> None:
        """Hold the calls of the store from now on."""
        self.commit._executor = self.executor

    def turn(self) -> None:
        self.clock.advance(0)

    def accept(self, *ids: int) -> list[Deferred[Any]]:
        return [self.commit.perform(Accept(message(id))) for id in ids]

    def large(self, id: int) -> Body:
        writer = self.spool.new_body(QueueId(id))
        writer.write(b"x" * 200)
        sealed = writer.seal()
        return self.successResultOf(sealed) if isinstance(sealed, Deferred) else sealed

    def sizes(self) -> list[int]:
        return [len(batch) for batch in self.store.batches]

    def assertRefused(self, done: Deferred[Any], reply: object = NOT_NOW) -> None:
        refused = self.failureResultOf(done, Refused).value
        self.assertEqual(refused.reply, reply)

    def assertLogged(self, failures: int, kind: type[Exception] = StoreError) -> None:
        self.assertEqual(len(self.flushLoggedErrors(kind)), failures)


class Batches(CommitTestCase):
    def test_each_commit_is_timed(self) -> None:
        took: list[float] = []
        self.commit._timed = took.append
        self.hold()
        self.accept(1, 2)
        self.turn()
        self.clock.advance(0.25)
        self.assertEqual(took, [])
        self.executor.let_go()
        self.assertEqual(took, [0.25])

    def test_a_stopped_store_is_not_open(self) -> None:
        self.assertTrue(self.commit.is_open)
        self.commit.stop()
        self.turn()
        self.assertFalse(self.commit.is_open)

    def test_a_client_that_goes_does_not_cancel_the_commit_of_its_message(self) -> None:
        (done,) = self.accept(1)
        done.cancel()
        self.assertNoResult(done)
        self.turn()
        self.successResultOf(done)
        self.assertEqual(self.sizes(), [1])

    def test_operations_of_one_reactor_turn_share_a_transaction(self) -> None:
        done = self.accept(1, 2, 3)
        self.assertNoResult(done[0])
        self.turn()
        self.assertEqual(self.sizes(), [3])
        for each in done:
            self.successResultOf(each)
        self.assertEqual((self.commit.batches, self.commit.committed), (1, 3))

    def be_patient(self, *ids: int) -> None:
        """Let outcomes wait for a second, in a store with messages of these ids."""
        self.accept(*ids)
        self.turn()
        self.store.batches.clear()
        self.commit._patience = 1.0

    def test_an_outcome_shares_the_commit_of_a_message_that_comes_soon(self) -> None:
        self.be_patient(1)
        settled_one = self.commit.perform(settled(message(1)))
        self.clock.advance(0.5)
        self.assertEqual(self.sizes(), [])
        (accepted,) = self.accept(2)
        self.turn()
        self.assertEqual(self.sizes(), [2])
        self.successResultOf(accepted)
        self.successResultOf(settled_one)

    def test_outcomes_wait_no_longer_for_a_message_that_does_not_come(self) -> None:
        self.be_patient(1, 2)
        self.commit.perform(settled(message(1)))
        self.clock.advance(0.5)
        self.commit.perform(settled(message(2)))
        self.clock.advance(0.5)
        self.turn()
        self.assertEqual(self.sizes(), [2])

    def test_as_many_outcomes_as_a_batch_takes_do_not_wait(self) -> None:
        self.be_patient(1, 2)
        self.commit._max_operations = 2
        self.commit.perform(settled(message(1)))
        self.commit.perform(settled(message(2)))
        self.turn()
        self.assertEqual(self.sizes(), [2])

    def test_outcomes_that_come_during_a_transaction_wait_as_well(self) -> None:
        self.be_patient(1)
        self.hold()
        self.accept(2)
        self.turn()
        self.commit.perform(settled(message(1)))
        self.executor.let_go()
        self.turn()
        self.assertEqual(self.sizes(), [1])
        self.accept(3)
        self.turn()
        self.executor.let_go()
        self.assertEqual(self.sizes(), [1, 2])

    def test_a_stop_does_not_wait_for_messages(self) -> None:
        self.be_patient(1)
        self.commit.perform(settled(message(1)))
        stopped = self.commit.stop()
        self.turn()
        self.assertEqual(self.sizes(), [1])
        self.turn()
        self.successResultOf(stopped)

    def test_operations_that_come_during_a_transaction_share_the_next(self) -> None:
        self.hold()
        first = self.accept(1)
        self.turn()
        rest = self.accept(2, 3)
        self.turn()
        self.assertNoResult(first[0])
        self.executor.let_go()
        self.successResultOf(first[0])
        self.turn()
        self.assertNoResult(rest[0])
        self.executor.let_go()
        for each in rest:
            self.successResultOf(each)
        self.assertEqual(self.sizes(), [1, 2])

    def test_a_commit_does_not_wait_for_a_larger_batch(self) -> None:
        self.accept(1)
        self.turn()
        self.accept(2)
        self.turn()
        self.assertEqual(self.sizes(), [1, 1])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_commit_waits_while_peers_are_being_answered(self) -> None:
        said = 0

        def serve() -> None:
            nonlocal said
            said += 1
            if said < 4:
                self.clock.callLater(0, serve)
            else:
                self.accept(2)

        self.commit._activity = lambda: said
        self.accept(1)
        serve()
        self.turn()
        self.assertEqual(self.sizes(), [2])

    def test_a_commit_waits_5_ms_at_most(self) -> None:
        said = iter(range(1000))
        self.commit._activity = lambda: next(said)
        turns = []

        def give_way() -> None:
            turns.append(self.store.batches[:])
            self.clock.rightNow += 0.001

        self.commit._give_way = give_way
        (done,) = self.accept(1)
        self.turn()
        self.successResultOf(done)
        self.assertEqual(turns, [[]] * 5)

    def test_a_full_batch_does_not_wait(self) -> None:
        said = iter(range(1000))
        self.commit._activity = lambda: next(said)
        self.accept(*range(1, 65))
        self.turn()
        self.assertEqual(self.sizes(), [64])

    def test_a_transaction_takes_64_operations(self) -> None:
        done = self.accept(*range(1, 131))
        self.turn()
        self.turn()
        self.turn()
        self.assertEqual(self.sizes(), [64, 64, 2])
        for each in done:
            self.successResultOf(each)

    def test_a_transaction_takes_4_mib_of_bodies(self) -> None:
        body = MemoryBody(b"x" * (1 << 20))
        for id in range(1, 7):
            self.commit.perform(Accept(message(id, body=body)))
        self.clock.pump([0, 0, 0])
        self.assertEqual(self.sizes(), [4, 2])

    def test_a_message_larger_than_4_mib_has_a_transaction_to_itself(self) -> None:
        self.accept(1)
        self.commit.perform(Accept(message(2, body=MemoryBody(b"x" * (5 << 20)))))
        self.accept(3)
        self.clock.pump([0, 0, 0])
        self.assertEqual(self.sizes(), [1, 1, 1])

    def test_bodies_in_files_do_not_count_as_octets_of_a_batch(self) -> None:
        for id in range(1, 7):
            body = self.spool.stored(QueueId(id), 40 << 20)
            self.commit.perform(Accept(message(id, body=body)))
        self.turn()
        self.assertEqual(self.sizes(), [6])

    def test_operations_keep_their_order(self) -> None:
        operations: list[Operation] = [
            Accept(message(1)),
            settled(message(1)),
            Lease(NOW, (Want("next.example", 5),)),
            Forget((QueueId(9),)),
        ]
        for each in operations:
            self.commit.perform(each)
        self.turn()
        self.assertEqual(self.store.batches, [tuple(operations)])

    def test_each_operation_gets_its_own_result(self) -> None:
        self.commit.perform(Accept(message(1), lease=False))
        leased = self.commit.perform(Lease(NOW, (Want("next.example", 5),)))
        self.turn()
        self.assertEqual(self.successResultOf(leased).messages, (message(1),))

    def test_a_callback_that_fails_harms_no_other(self) -> None:
        first, second = self.accept(1, 2)
        first.addCallback(lambda _: 1 / 0)
        self.turn()
        self.successResultOf(second)
        self.failureResultOf(first, ZeroDivisionError)

    def test_a_callback_may_perform_another_operation(self) -> None:
        again: list[Deferred[Any]] = []
        (first,) = self.accept(1)
        first.addCallback(lambda _: again.extend(self.accept(2)))
        self.turn()
        self.turn()
        self.successResultOf(again[0])

    def test_the_census_is_that_of_the_store(self) -> None:
        self.accept(1)
        self.turn()
        self.assertEqual(self.commit.census().messages, 1)


class States(CommitTestCase):
    def state(self) -> State:
        return self.commit._state

    def test_a_store_that_fails_is_closed_and_opened_again(self) -> None:
        self.assertIs(self.state(), State.IDLE)
        self.hold()
        self.store.fail_next(BROKEN)
        self.accept(1)[0].addErrback(lambda failure: None)
        self.turn()
        self.assertIs(self.state(), State.COMMITTING)
        for state in (State.CLOSING, State.CLOSED):
            self.executor.let_go()
            self.assertIs(self.state(), state)
        self.clock.advance(1)
        self.assertIs(self.state(), State.REOPENING)
        self.executor.let_go()
        self.assertIs(self.state(), State.IDLE)
        self.assertLogged(1)

    def test_a_store_that_stops_commits_first(self) -> None:
        self.hold()
        (done,) = self.accept(1)
        stopped = self.commit.stop()
        self.turn()
        self.assertIs(self.state(), State.COMMITTING)
        self.executor.let_go()
        self.successResultOf(done)
        self.turn()
        self.assertIs(self.state(), State.STOPPING)
        self.executor.let_go()
        self.assertIs(self.state(), State.STOPPED)
        self.successResultOf(stopped)

    def test_every_state_can_be_entered_and_left(self) -> None:
        entered = [after for events in TRANSITIONS.values() for after in events.values()]
        for state in State:
            self.assertIn(state, entered)
            self.assertTrue(TRANSITIONS[state])


class FailedCommits(CommitTestCase):
    def test_messages_of_a_failed_commit_are_refused(self) -> None:
        self.store.fail_next(BROKEN)
        done = self.accept(1, 2)
        self.turn()
        for each in done:
            self.assertRefused(each)
        self.assertLogged(1)
        self.assertEqual((NOT_NOW.code, NOT_NOW.enhanced), (451, "4.3.0"))

    def test_messages_that_waited_behind_a_failed_commit_are_refused(self) -> None:
        self.hold()
        self.store.fail_next(BROKEN)
        self.accept(1)[0].addErrback(lambda failure: None)
        self.turn()
        (waiting,) = self.accept(2)
        self.executor.let_go()
        self.assertRefused(waiting)
        self.assertLogged(1)

    def test_a_failed_accept_is_not_tried_again(self) -> None:
        self.store.fail_next(BROKEN)
        self.accept(1)[0].addErrback(lambda failure: None)
        self.turn()
        self.clock.advance(100)
        accepted = [each for batch in self.store.batches for each in batch]
        self.assertEqual(sum(isinstance(each, Accept) for each in accepted), 1)
        self.assertLogged(1)

    def test_mail_is_refused_at_once_until_the_store_is_open_again(self) -> None:
        self.store.fail_next(BROKEN)
        self.accept(1)[0].addErrback(lambda failure: None)
        self.turn()
        (refused,) = self.accept(2)
        self.assertRefused(refused)
        self.failureResultOf(
            self.commit.perform(Lease(NOW, (Want("next.example", 1),))), StoreError
        )
        self.clock.advance(1)
        (taken,) = self.accept(3)
        self.turn()
        self.successResultOf(taken)
        self.assertLogged(1)

    def test_a_settle_is_kept_until_it_can_be_written(self) -> None:
        self.accept(1, 2)
        self.turn()
        self.store.fail_next(BROKEN)
        before = self.commit.perform(settled(message(1)))
        self.turn()
        after = self.commit.perform(settled(message(2)))
        self.turn()
        self.assertNoResult(before)
        self.assertNoResult(after)
        self.clock.advance(1)
        self.turn()
        self.successResultOf(before)
        self.successResultOf(after)
        self.assertEqual(self.store.census().messages, 0)
        self.assertLogged(1)

    def test_a_message_that_was_written_and_refused_is_forgotten(self) -> None:
        self.store.fail_next(BROKEN, durable=True)
        done = self.accept(1, 2)
        self.turn()
        self.assertEqual(self.store.census().messages, 2)
        for each in done:
            self.assertRefused(each)
        lease = self.commit.perform(Lease(NOW, (Want("next.example", 5),)))
        self.failureResultOf(lease, StoreError)
        self.clock.advance(1)
        lease = self.commit.perform(Lease(NOW, (Want("next.example", 5),)))
        self.turn()
        self.assertEqual(self.successResultOf(lease).messages, ())
        self.assertEqual(self.store.census().messages, 0)
        self.assertLogged(1)

    def test_a_refused_message_is_forgotten_however_often_that_fails(self) -> None:
        self.store.fail_next(BROKEN, durable=True)
        self.assertEqual(len(self.accept(1)), 1)
        self.turn()
        self.store.fail_next(BROKEN, BROKEN)
        self.clock.pump([1, 0, 1, 0, 2, 0])
        self.clock.advance(4)
        self.turn()
        self.assertEqual(self.store.census().messages, 0)
        self.assertLogged(3)
        self.flushLoggedErrors(Refused)

    def test_body_files_of_refused_messages_are_removed(self) -> None:
        self.hold()
        self.store.fail_next(BROKEN)
        refused = [self.commit.perform(Accept(message(1, body=self.large(1))))]
        self.turn()
        refused.append(self.commit.perform(Accept(message(2, body=self.large(2)))))
        self.executor.let_go()
        refused.append(self.commit.perform(Accept(message(3, body=self.large(3)))))
        for each in refused:
            self.assertRefused(each)
        self.assertEqual(len(self.files.names("/body")), 3)
        self.executor.let_go()  # closed
        self.clock.advance(1)
        self.executor.let_go()  # opened
        self.turn()
        self.executor.let_go()
        self.assertEqual(self.files.names("/body"), [])
        self.assertLogged(1)

    def test_the_store_is_opened_again_with_back_off(self) -> None:
        self.store.fail_next(BROKEN)
        self.store.fail_to_open(*[StoreError("still broken")] * 8)
        (refused,) = self.accept(1)
        self.turn()
        self.assertRefused(refused)
        opened, times = self.store.opened, []
        while len(times) < 9:
            self.clock.advance(1)
            if self.store.opened > opened:
                opened = self.store.opened
                times.append(self.clock.seconds())
        delays = [after - before for before, after in zip([0.0, *times], times, strict=False)]
        self.assertEqual(delays, [1, 2, 4, 8, 16, 32, 60, 60, 60])
        (taken,) = self.accept(2)
        self.turn()
        self.successResultOf(taken)
        self.assertLogged(9)

    def test_back_off_begins_anew_after_the_store_was_open(self) -> None:
        for _ in range(3):
            self.store.fail_next(BROKEN)
            self.accept(1)[0].addErrback(lambda failure: None)
            self.turn()
            opened = self.store.opened
            self.clock.advance(1)
            self.assertEqual(self.store.opened, opened + 1)
        self.assertLogged(3)

    def test_a_store_with_a_newer_schema_is_opened_again_later(self) -> None:
        self.store.fail_next(BROKEN)
        self.store.fail_to_open(NewerSchema("2"))
        self.accept(1)[0].addErrback(lambda failure: None)
        self.turn()
        self.clock.advance(1)
        self.clock.advance(2)
        self.assertEqual(self.store.opened, 3)
        self.assertLogged(1)
        self.assertLogged(1, NewerSchema)

    def test_the_first_opening_raises_the_error_of_the_store(self) -> None:
        self.store.fail_to_open(BROKEN)
        commit = GroupCommit(self.store, executor=inline_executor, clock=self.clock)
        self.assertRaises(StoreError, commit.start)
        refused = commit.perform(Accept(message(1)))
        self.assertRefused(refused)


class NotAvailableAtTheStart(CommitTestCase):
    def test_a_store_that_is_not_available_is_opened_as_soon_as_it_is(self) -> None:
        store = MemoryStore(spool=self.spool)
        commit = GroupCommit(store, executor=inline_executor, clock=self.clock)
        with mock.patch.object(store, "open", side_effect=StoreUnavailable("no answer")):
            self.assertIsNone(commit.start())
            self.assertFalse(commit.is_open)
            self.assertRefused(commit.perform(Accept(message(1))))
            self.clock.advance(1.0)
            self.assertFalse(commit.is_open)
        self.clock.advance(2.0)
        self.assertTrue(commit.is_open)
        self.assertLogged(1)
        commit.stop()
        self.turn()
        self.assertIs(commit._state, State.STOPPED)


class Transfers(CommitTestCase):
    """Large bodies are copied before and after the transactions."""

    def setUp(self) -> None:
        super().setUp()
        self.bringing: list[Deferred[None]] = []
        self.fetching: list[Deferred[Any]] = []
        self.commit._transfers = self
        self.addCleanup(setattr, self.commit, "_transfers", None)

    def bring(self, message: Message, /) -> Deferred[None]:
        self.bringing.append(Deferred())
        return self.bringing[-1]

    def fetch(self, result: Result, /) -> Deferred[Any] | None:
        if result is None:
            return None
        self.fetching.append(Deferred())
        return self.fetching[-1]

    def test_other_messages_do_not_wait_for_a_large_body(self) -> None:
        large = self.commit.perform(Accept(message(1, body=self.large(1))))
        (small,) = self.accept(2)
        self.turn()
        self.successResultOf(small)
        self.assertNoResult(large)
        self.bringing[0].callback(None)
        self.turn()
        self.successResultOf(large)

    def test_a_message_whose_body_is_not_stored_is_refused_and_forgotten(self) -> None:
        for error, reply in ((BROKEN, NOT_NOW), (OSError("no file"), NOT_NOW), (NO_ROOM, FULL)):
            large = self.commit.perform(Accept(message(1, body=self.large(1))))
            self.bringing[-1].errback(error)
            self.assertRefused(large, reply)
            self.turn()
            self.assertEqual(self.store.batches[-1], (Forget((QueueId(1),)),))
        self.assertTrue(self.commit.is_open)

    def test_a_result_waits_for_its_bodies(self) -> None:
        leased = self.commit.perform(Lease(NOW, (Want("x.example", 1),)))
        self.turn()
        self.assertNoResult(leased)
        self.fetching[0].errback(BROKEN)
        self.failureResultOf(leased, StoreError)


class Locked(CommitTestCase):
    def test_messages_do_not_wait_for_rows_that_others_have_locked(self) -> None:
        self.accept(1)
        self.turn()
        self.store.fail_next(LOCKED)
        settle = self.commit.perform(settled(message(1)))
        lease = self.commit.perform(Lease(NOW, (Want("x.example", 1),)))
        accepted = self.accept(2, 3)
        self.turn()
        self.failureResultOf(lease, StoreError)
        self.accept(4)
        self.turn()
        for each in accepted:
            self.successResultOf(each)
        self.successResultOf(settle)
        # The messages without the settle, then that, and mail that came later.
        self.assertEqual(self.sizes(), [1, 4, 2, 1, 1])
        self.assertTrue(self.commit.is_open)

    def test_messages_are_refused_where_the_tables_are_locked(self) -> None:
        self.store.fail_next(LOCKED)
        accepted = self.accept(1, 2)
        self.turn()
        for each in accepted:
            self.assertRefused(each)
        self.turn()
        self.assertEqual(self.store.batches[-1], (Forget((QueueId(1), QueueId(2))),))
        self.assertTrue(self.commit.is_open)


class FullDisk(CommitTestCase):
    def test_a_full_disk_refuses_mail_with_452(self) -> None:
        self.store.fail_next(NO_ROOM)
        (refused,) = self.accept(1)
        self.turn()
        self.assertRefused(refused, FULL)
        self.assertEqual((FULL.code, FULL.enhanced), (452, "4.3.1"))

    def test_on_a_full_disk_outcomes_are_written_without_new_mail(self) -> None:
        self.accept(1)
        self.turn()
        self.store.batches.clear()
        self.store.fail_next(NO_ROOM)
        (refused,) = self.accept(2)
        settle = self.commit.perform(settled(message(1)))
        lease = self.commit.perform(Lease(NOW, (Want("next.example", 1),)))
        self.turn()
        self.assertRefused(refused, FULL)
        self.successResultOf(settle)
        self.successResultOf(lease)
        kinds = [[type(each).__name__ for each in batch] for batch in self.store.batches]
        self.assertEqual(kinds, [["Accept", "Settle", "Lease"], ["Forget", "Settle", "Lease"]])

    def test_on_a_full_disk_an_operator_hears_of_it_at_once(self) -> None:
        held = Intervene("hold", Selection(ids=(QueueId(1),)), NOW)
        self.store.fail_next(NO_ROOM, NO_ROOM, NO_ROOM)  # with mail, with what it left, and alone
        self.accept(1)
        with_mail = self.commit.perform(held)
        self.turn()
        failure = self.failureResultOf(with_mail, StoreError)
        self.assertEqual(
            failure.getErrorMessage(), "there is no room for it: database or disk is full"
        )
        self.clock.advance(1)
        later = self.commit.perform(held)
        self.turn()
        self.successResultOf(later)

    def test_on_a_full_disk_an_operator_does_not_fail_with_outcomes_that_do_not_fit(self) -> None:
        """The list of the queue needs no room, and it shows what may be removed."""
        self.accept(1)
        self.turn()
        self.store.batches.clear()
        self.store.fail_next(NO_ROOM)
        outcome = self.commit.perform(settled(message(1)))
        asked = self.commit.perform(Browse(Selection()))
        self.turn()
        self.successResultOf(asked)
        kinds = [[type(each).__name__ for each in batch] for batch in self.store.batches]
        self.assertEqual(kinds[:2], [["Settle", "Browse"], ["Browse"]])
        self.turn()
        self.successResultOf(outcome)

    def test_on_a_full_disk_new_mail_is_refused_for_a_second(self) -> None:
        self.store.fail_next(NO_ROOM)
        (refused,) = self.accept(1)
        self.turn()
        self.assertRefused(refused, FULL)
        (at_once,) = self.accept(2)
        self.assertRefused(at_once, FULL)
        self.clock.advance(1)
        (taken,) = self.accept(3)
        self.turn()
        self.successResultOf(taken)

    def test_after_a_full_disk_mail_is_accepted_again_without_reopening(self) -> None:
        self.store.fail_next(NO_ROOM, NO_ROOM)
        (refused,) = self.accept(1)
        self.turn()
        self.assertRefused(refused, FULL)
        self.clock.pump([1, 1])
        (taken,) = self.accept(2)
        self.turn()
        self.successResultOf(taken)
        self.assertEqual(self.store.opened, 1)

    def test_new_mail_is_refused_at_once_while_outcomes_cannot_be_written(self) -> None:
        self.accept(1)
        self.turn()
        self.store.fail_next(*[NO_ROOM] * 100)
        self.commit.perform(settled(message(1)))
        for _ in range(5):
            self.clock.advance(1)
            (refused,) = self.accept(2)
            self.turn()
            self.assertRefused(refused, FULL)

    def test_a_disk_that_stays_full_is_logged_once(self) -> None:
        lines = logged_lines(self, "there is no room for the queue")
        self.accept(1)
        self.turn()
        for expected in (1, 2):
            self.store.fail_next(*[NO_ROOM] * 50)
            self.commit.perform(settled(message(1)))
            for _ in range(60):
                self.clock.advance(1)
            self.assertEqual(len(lines), expected)
            (taken,) = self.accept(1 + expected)
            self.turn()
            self.successResultOf(taken)

    def test_messages_around_a_full_transaction_are_refused_and_their_files_removed(self) -> None:
        self.hold()
        self.store.fail_next(NO_ROOM)
        first = self.accept(1)
        self.turn()
        second = self.commit.perform(Accept(message(2, body=self.large(2))))
        self.executor.let_go()
        third = self.commit.perform(Accept(message(3, body=self.large(3))))
        self.assertRefused(first[0], FULL)
        self.assertRefused(second, FULL)
        self.assertRefused(third, FULL)
        self.turn()
        self.executor.let_go()
        self.assertEqual(self.files.names("/body"), [])

    def test_a_full_store_is_not_tried_in_a_hot_loop(self) -> None:
        self.accept(1)
        self.turn()
        self.store.batches.clear()
        self.store.fail_next(*[NO_ROOM] * 100)
        settle = self.commit.perform(settled(message(1)))
        for _ in range(1000):
            self.clock.advance(0.01)
        self.assertTrue(9 <= len(self.store.batches) <= 12, len(self.store.batches))
        self.clock.pump([1] * 100)
        self.successResultOf(settle)

    def test_the_file_of_a_refused_message_frees_its_room(self) -> None:
        self.store.fail_next(NO_ROOM, NO_ROOM)
        refused = self.commit.perform(Accept(message(1, body=self.large(1))))
        self.turn()
        self.assertRefused(refused, FULL)
        self.clock.pump([1, 1, 1])
        self.assertEqual(self.files.names("/body"), [])


class Stopping(CommitTestCase):
    def test_a_stop_commits_waiting_operations_and_closes_the_store(self) -> None:
        (done,) = self.accept(1)
        stopped = self.commit.stop()
        self.turn()
        self.turn()
        self.successResultOf(done)
        self.successResultOf(stopped)
        with self.assertRaises(StoreError):
            self.store.apply([])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_stop_waits_for_the_transaction_under_way(self) -> None:
        self.hold()
        (first,) = self.accept(1)
        self.turn()
        (second,) = self.accept(2)
        stopped = self.commit.stop()
        self.turn()
        self.assertNoResult(stopped)
        self.executor.let_go()
        self.turn()
        self.executor.let_go()
        self.successResultOf(first)
        self.successResultOf(second)
        self.turn()
        self.assertNoResult(stopped)
        self.executor.let_go()
        self.successResultOf(stopped)

    def test_a_stopped_queue_refuses_operations(self) -> None:
        self.commit.stop()
        self.turn()
        (refused,) = self.accept(1)
        self.assertRefused(refused)
        self.failureResultOf(self.commit.perform(settled(message(1))), StoreError)

    def test_a_queue_may_be_stopped_twice(self) -> None:
        first, second = self.commit.stop(), self.commit.stop()
        self.turn()
        self.successResultOf(first)
        self.successResultOf(second)
        self.successResultOf(self.commit.stop())

    def test_a_queue_may_be_stopped_before_it_was_started(self) -> None:
        commit = GroupCommit(self.store, executor=inline_executor, clock=self.clock)
        stopped = commit.stop()
        self.turn()
        self.successResultOf(stopped)

    def broken(self) -> Deferred[Any]:
        """Let a commit with an outcome fail; return the Deferred of the outcome."""
        self.accept(1)
        self.turn()
        self.store.fail_next(BROKEN)
        settle = self.commit.perform(settled(message(1)))
        self.turn()
        return settle

    def test_a_store_that_is_closed_is_opened_once_more_for_outcomes(self) -> None:
        settle = self.broken()
        stopped = self.commit.stop()
        self.turn()
        self.turn()
        self.successResultOf(settle)
        self.successResultOf(stopped)
        self.assertEqual(self.store.messages, {})
        opened = self.store.opened
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(1000)
        self.assertEqual(self.store.opened, opened)
        self.assertLogged(1)

    def test_a_store_that_is_closed_is_opened_once_more_to_forget_messages(self) -> None:
        self.store.fail_next(BROKEN, durable=True)
        (refused,) = self.accept(1)
        self.turn()
        self.assertRefused(refused)
        self.assertEqual(len(self.store.messages), 1)
        stopped = self.commit.stop()
        self.turn()
        self.turn()
        self.successResultOf(stopped)
        self.assertEqual(self.store.messages, {})  # its client sends it again
        self.assertLogged(1)

    def test_a_store_that_cannot_be_opened_does_not_prevent_the_stop(self) -> None:
        settle = self.broken()
        self.store.fail_to_open(BROKEN)
        stopped = self.commit.stop()
        self.turn()
        self.successResultOf(stopped)
        self.failureResultOf(settle, StoreError)
        self.assertEqual(self.store.opened, 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertLogged(2)

    def test_a_store_that_is_closed_stays_closed_where_nothing_waits(self) -> None:
        self.store.fail_next(BROKEN)
        leased = self.commit.perform(Lease(NOW, (Want("x.example", 1),)))
        self.turn()
        self.failureResultOf(leased, StoreError)
        stopped = self.commit.stop()
        self.turn()
        self.successResultOf(stopped)
        self.assertEqual(self.store.opened, 1)
        self.assertLogged(1)

    def test_a_commit_that_fails_while_stopping_is_tried_once_more(self) -> None:
        for failures in (1, 2):
            self.setUp()
            self.accept(1)
            self.turn()
            self.hold()
            self.store.fail_next(*[BROKEN] * failures)
            settle = self.commit.perform(settled(message(1)))
            self.turn()
            stopped = self.commit.stop()
            self.executor.let_go()
            while self.executor.waiting:
                self.executor.let_go()
                self.turn()
            self.successResultOf(stopped)
            if failures == 1:
                self.successResultOf(settle)
            else:
                self.failureResultOf(settle, StoreError)
            self.assertEqual(self.clock.getDelayedCalls(), [])
            self.assertLogged(failures)

    def test_a_store_that_is_being_closed_is_opened_once_more_at_a_stop(self) -> None:
        self.hold()
        self.store.fail_next(BROKEN)
        self.accept(1)[0].addErrback(lambda failure: None)
        self.turn()
        self.executor.let_go()  # the commit fails, and it begins to close
        stopped = self.commit.stop()
        self.turn()
        while self.executor.waiting:
            self.executor.let_go()
            self.turn()
        self.successResultOf(stopped)
        self.clock.advance(1000)
        self.assertEqual(len(self.executor.waiting), 0)
        self.assertEqual(self.store.opened, 2)
        self.assertLogged(1)

    def test_a_store_that_is_being_opened_writes_outcomes_before_the_stop(self) -> None:
        settle = self.broken()
        self.hold()
        self.clock.advance(1)  # it begins to open
        stopped = self.commit.stop()
        self.turn()
        while self.executor.waiting:
            self.executor.let_go()
            self.turn()
        self.successResultOf(settle)
        self.successResultOf(stopped)
        with self.assertRaises(StoreError):
            self.store.apply([])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertLogged(1)

    def test_a_disk_that_stays_full_does_not_prevent_the_stop(self) -> None:
        self.accept(1)
        self.turn()
        self.store.fail_next(*[NO_ROOM] * 100)
        settle = self.commit.perform(deferred(message(1), NOW + 60))
        self.turn()
        stopped = self.commit.stop()
        self.clock.pump([1, 1, 1])
        self.successResultOf(stopped)
        self.failureResultOf(settle, StoreError)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_on_a_disk_that_was_full_outcomes_are_written_before_the_stop(self) -> None:
        self.accept(1)
        self.turn()
        self.hold()
        self.store.fail_next(NO_ROOM)
        (refused,) = self.accept(2)
        settle = self.commit.perform(settled(message(1)))
        self.turn()
        stopped = self.commit.stop()
        for _ in range(5):
            if self.executor.waiting:
                self.executor.let_go()
            self.clock.advance(1)
        self.assertRefused(refused, FULL)
        self.successResultOf(settle)
        self.successResultOf(stopped)
