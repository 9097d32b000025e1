"""Group commit where more than a disk fails: operations are kept, and others go on."""

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
    """An operation that the store cannot read."""

    def choke(self, bad: Sequence[int]) -> None:
        apply = self.store.apply

        def choking(batch: Sequence[Operation]) -> Any:
            for each in batch:
                if isinstance(each, Accept | Settle) and each.message.id in bad:
                    raise TypeError("no idea what that is")
            return apply(batch)

        self.store.apply = choking  # type: ignore[method-assign]

    def test_an_invalid_operation_fails_no_other(self) -> None:
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

    def test_an_invalid_outcome_that_was_kept_after_a_failure_stops_no_other(self) -> None:
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

    def test_an_invalid_outcome_does_not_prevent_the_stop(self) -> None:
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
    """Exceptions of neither an operation nor a disk are failures of the store."""

    def fail_all(self, kind: type[Operation], error: BaseException) -> None:
        """Let all batches with an operation of a type fail."""
        apply = self.store.apply

        def failing(batch: Sequence[Operation]) -> Any:
            if any(isinstance(each, kind) for each in batch):
                raise error
            return apply(batch)

        self.store.apply = failing  # type: ignore[method-assign]

    def flush(self) -> None:
        self.flushLoggedErrors(MemoryError, RuntimeError, SystemExit, OSError, StoreError)

    def test_any_exception_of_the_store_refuses_mail_and_reopens_the_store(self) -> None:
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

    def test_an_exception_of_the_executor_refuses_mail_and_reopens_the_store(self) -> None:
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

    def test_any_exception_of_the_store_fails_waiting_operations_with_store_error(self) -> None:
        self.store.fail_next(NO_MEMORY)
        leased = self.commit.perform(Lease(NOW, (Want("next.example", 5),)))
        self.turn()
        self.assertIn("MemoryError", str(self.failureResultOf(leased, StoreError).value))
        self.flush()

    def test_a_message_that_cannot_be_forgotten_stops_no_other_operation(self) -> None:
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
        self.assertEqual(self.commit._refused.being_forgotten, {})
        self.flush()

    def test_outcomes_are_kept_after_any_exception(self) -> None:
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

    def test_an_outcome_that_cannot_be_written_stops_no_other(self) -> None:
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

    def test_kept_outcomes_alternate_with_new_operations(self) -> None:
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

    def test_a_failing_metric_does_not_change_the_answer(self) -> None:
        self.commit._timed = lambda seconds: 1 / 0
        (first,) = self.accept(1)
        self.turn()
        self.successResultOf(first)
        (second,) = self.accept(2)
        self.turn()
        self.successResultOf(second)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_a_store_that_returns_too_few_results_leaves_no_operation_unanswered(self) -> None:
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

    def test_a_probe_finds_a_missing_store_without_mail(self) -> None:
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

    def test_failed_probes_are_not_tried_again(self) -> None:
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
