"""Group commit where more than a disk fails: what is kept, and that the others go on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted_mta.interfaces import Refused
from twisted_mta.queue.store.contract import (
    Accept,
    Forget,
    Lease,
    Operation,
    Settle,
    StoreError,
    Want,
)

from .mail import NOW, message, settled
from .test_commit import BROKEN, CommitTestCase


class Nonsense(CommitTestCase):
    """An operation that a store chokes on, by somebody's mistake."""

    def choke(self, bad: Sequence[int]) -> None:
        apply = self.store.apply

        def choking(batch: Sequence[Operation]) -> Any:
            for each in batch:
                if isinstance(each, Accept | Settle) and each.message.id in bad:
                    raise TypeError("no idea what that is")
            return apply(batch)

        self.store.apply = choking  # type: ignore[method-assign]

    def test_it_takes_no_other_with_it(self) -> None:
        self.choke([2])
        first, bad, last = self.accept(1, 2, 3)
        self.clock.pump([0] * 10)
        self.successResultOf(first)
        self.clock.advance(1)
        self.successResultOf(last)
        self.assertRefused(bad)
        self.assertEqual(self.store.opened, 1)
        self.assertLogged(1, TypeError)

    def test_an_outcome_that_cannot_be_written_is_kept_and_does_not_stop_the_queue(self) -> None:
        self.accept(1, 2)
        self.turn()
        apply = self.store.apply
        self.choke([1])
        bad = self.commit.perform(settled(message(1)))
        good = self.commit.perform(settled(message(2)))
        self.clock.pump([0, 0, 0, 1, 0])
        self.successResultOf(good)
        self.assertTrue(self.commit.is_open)
        for id in range(3, 103):
            (taken,) = self.accept(id)
            self.clock.advance(1)
            self.successResultOf(taken)
        self.assertNoResult(bad)
        self.assertEqual(self.store.opened, 1)
        self.assertLess(len(self.flushLoggedErrors(TypeError)), 8)
        self.store.apply = apply  # type: ignore[method-assign]
        self.clock.pump([60, 0])
        self.successResultOf(bad)
        self.assertEqual(self.store.census().messages, 100)

    def test_one_that_was_kept_for_another_reason_too(self) -> None:
        self.accept(1, 2)
        self.turn()
        self.store.fail_next(BROKEN)
        bad = self.commit.perform(settled(message(1)))
        good = self.commit.perform(settled(message(2)))
        self.turn()
        self.choke([1])
        self.clock.pump([1, 0, 0, 1, 2, 4, 8])
        self.successResultOf(good)
        self.assertNoResult(bad)
        self.assertLogged(1)
        self.flushLoggedErrors(TypeError)

    def test_it_does_not_keep_the_queue_from_stopping(self) -> None:
        self.accept(1)
        self.turn()
        self.choke([1])
        bad = self.commit.perform(settled(message(1)))
        self.turn()
        self.turn()
        stopped = self.commit.stop()
        self.clock.pump([0] * 5)
        self.successResultOf(stopped)
        self.failureResultOf(bad, StoreError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.flushLoggedErrors(TypeError)


NO_MEMORY = MemoryError()
NO_THREAD = RuntimeError("can't start new thread")


class Exhausted(CommitTestCase):
    """Exceptions that are neither about an operation nor a disk: they are failures of the store."""

    def fail_all(self, kind: type[Operation], error: BaseException) -> None:
        """Let all batches fail that have an operation of a kind."""
        apply = self.store.apply

        def failing(batch: Sequence[Operation]) -> Any:
            if any(isinstance(each, kind) for each in batch):
                raise error
            return apply(batch)

        self.store.apply = failing  # type: ignore[method-assign]

    def flush(self) -> None:
        self.flushLoggedErrors(MemoryError, RuntimeError, SystemExit, OSError, StoreError)

    def test_mail_is_refused_and_the_store_opened_anew(self) -> None:
        for error in (NO_MEMORY, NO_THREAD, OSError(5, "I/O"), SystemError("x")):
            opened = self.store.opened
            self.store.fail_next(error)
            (refused,) = self.accept(1)
            self.turn()
            self.assertRefused(refused)
            self.assertFalse(self.commit.is_open)
            self.clock.advance(1)
            self.assertTrue(self.commit.is_open)
            self.assertEqual(self.store.opened, opened + 1)
            self.assertEqual(len(self.flushLoggedErrors(type(error))), 1)

    def test_so_it_is_where_an_executor_raises(self) -> None:
        def exhausted(*_: object) -> Any:
            raise NO_MEMORY

        executor, self.commit._executor = self.commit._executor, exhausted
        (refused,) = self.accept(1)
        self.turn()
        self.assertRefused(refused)
        self.assertFalse(self.commit.is_open)
        self.clock.pump([1, 2, 4])
        self.commit._executor = executor
        self.clock.advance(8)
        (taken,) = self.accept(2)
        self.turn()
        self.successResultOf(taken)
        self.flush()

    def test_whatever_else_waits_hears_of_it_as_of_any_failure_of_the_store(self) -> None:
        self.store.fail_next(NO_MEMORY)
        leased = self.commit.perform(Lease(NOW, (Want("next.example", 5),)))
        self.turn()
        self.assertIn("MemoryError", str(self.failureResultOf(leased, StoreError).value))
        self.flush()

    def test_what_cannot_be_forgotten_stops_nothing_else(self) -> None:
        self.store.fail_next(NO_MEMORY, durable=True)
        (refused,) = self.accept(1)
        self.turn()
        self.assertRefused(refused)
        apply = self.store.apply
        self.fail_all(Forget, NO_MEMORY)
        taken = 0
        for id in range(2, 602):
            done = self.commit.perform(Accept(message(id), lease=False))
            done.addErrback(lambda failure: failure.trap(Refused))
            self.clock.pump([0.5, 0.5])
            taken += id in self.store.messages
        self.assertGreater(taken, 550)
        lease = self.commit.perform(Lease(NOW, (Want("next.example", 1000),)))
        self.turn()
        leased = self.successResultOf(lease).messages
        self.assertNotIn(1, [each.id for each in leased])
        self.store.apply = apply  # type: ignore[method-assign]
        self.clock.pump([60, 60, 0])
        self.assertNotIn(1, self.store.messages)
        self.assertEqual(self.commit._refused._being_forgotten, {})
        self.flush()

    def test_outcomes_are_kept_whatever_it_was(self) -> None:
        for error in (NO_MEMORY, NO_THREAD, BROKEN, OSError(5, "I/O"), ValueError("what?")):
            self.accept(1, 2)
            self.turn()
            self.store.fail_next(*[error] * 10)
            settling = [self.commit.perform(settled(message(id))) for id in (1, 2)]
            self.clock.pump([0] + [1] * 200)
            for each in settling:
                self.successResultOf(each)
            self.assertEqual(self.store.census().messages, 0, error)
            self.flushLoggedErrors(type(error))

    def test_one_outcome_that_cannot_be_written_keeps_no_other_from_it(self) -> None:
        self.accept(*range(1, 101))
        self.clock.pump([0, 0])
        apply = self.store.apply

        def failing(batch: Sequence[Operation]) -> Any:
            if any(isinstance(each, Settle) and each.message.id == 50 for each in batch):
                raise NO_MEMORY
            return apply(batch)

        self.store.apply = failing  # type: ignore[method-assign]
        settling = [self.commit.perform(settled(message(id))) for id in range(1, 101)]
        for _ in range(30):
            self.clock.pump([0.5, 0.5])
        written = [each for each in settling if each.called]
        self.assertEqual(len(written), 99)
        self.store.apply = apply  # type: ignore[method-assign]
        self.clock.pump([60] * 3)
        self.successResultOf(settling[49])
        self.flush()

    def test_what_was_kept_has_its_turn_behind_the_others_however_much_is_new(self) -> None:
        self.accept(1)
        self.turn()
        self.store.fail_next(*[NO_MEMORY] * 3)
        settling = self.commit.perform(settled(message(1)))
        self.clock.pump([0, 1, 1, 1])  # open again, and it is due in a second
        self.store.batches.clear()
        self.accept(*range(2, 1002))
        self.clock.advance(1)
        self.successResultOf(settling)
        kinds = [type(batch[0]).__name__ for batch in self.store.batches]
        self.assertEqual(kinds[:3], ["Accept", "Settle", "Accept"])
        self.assertEqual(self.store.census().messages, 1000)
        self.flush()

    def test_what_is_written_ends_in_one_answer_though_what_counts_it_fails(self) -> None:
        self.commit._timed = lambda seconds: 1 / 0
        (first,) = self.accept(1)
        self.turn()
        self.successResultOf(first)
        (second,) = self.accept(2)
        self.turn()
        self.successResultOf(second)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_a_store_that_answers_too_little_leaves_nobody_without_an_answer(self) -> None:
        self.accept(1)
        self.turn()
        apply = self.store.apply
        self.store.apply = lambda batch: apply(batch)[:-2]  # type: ignore[method-assign]
        first, second = self.accept(2, 3)
        settling = self.commit.perform(settled(message(1)))
        self.turn()
        self.successResultOf(first)
        self.assertRefused(second)
        self.store.apply = apply  # type: ignore[method-assign]
        self.clock.pump([1, 0, 0])
        self.successResultOf(settling)
        self.assertEqual(list(self.store.messages), [2])
        self.flushLoggedErrors(ValueError)

    def test_one_that_has_gone_is_found_without_any_mail(self) -> None:
        self.clock.advance(5)
        self.commit.probe()
        self.turn()
        self.assertTrue(self.commit.is_open)
        self.assertEqual((self.commit.batches, len(self.store.batches)), (0, 1))
        self.store.fail_next(StoreError("it is another one"))
        self.commit.probe()
        self.turn()
        self.assertTrue(self.commit.is_open, "asked again within a second")
        self.clock.advance(1)
        self.commit.probe()
        self.turn()
        self.assertFalse(self.commit.is_open)
        self.flush()

    def test_looks_that_failed_are_not_made_up_for(self) -> None:
        for _ in range(20):
            self.clock.advance(60)
            self.store.fail_next(StoreError("it takes nothing"))
            self.commit.probe()
            self.turn()
            self.assertFalse(self.commit.is_open)
        self.store.batches.clear()
        self.clock.pump([60, 0, 60, 0])
        self.assertTrue(self.commit.is_open)
        self.assertEqual(self.store.batches, [])
        self.flushLoggedErrors(StoreError)
