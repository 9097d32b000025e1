"""Group commit with outcomes that wait, in any order of operations, failures and moments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.tidy import TidyTestCase
from twisted_mta.queue.commit import GroupCommit
from twisted_mta.queue.operator.operations import Browse
from twisted_mta.queue.operator.selection import Selection
from twisted_mta.queue.store.contract import Accept, Lease, Operation, Settle, Want
from twisted_mta.queue.store.spool import Spool
from twisted_mta.system.executors import inline_executor
from twisted_mta.testing.files import UnsyncedFiles
from twisted_mta.testing.store import MemoryStore

from .mail import NOW, message, settled
from .store.held import HeldExecutor
from .test_commit import BROKEN, LOCKED, NO_ROOM

_PATIENCE = 0.005
_LONGEST = 60.0  # seconds between two tries
_MOMENTS = (0.0, 0.001, 0.004, 0.005, 0.3, 1.0, 10.0)

_FAILURES = (BROKEN, LOCKED, NO_ROOM)

_event = st.one_of(
    st.tuples(st.sampled_from(("accept", "settle", "settle", "lease", "browse")), st.just(0)),
    st.tuples(st.sampled_from(("let go", "let go", "probe")), st.just(0)),
    st.tuples(st.just("time"), st.sampled_from(_MOMENTS)),
)
_events = st.lists(_event, min_size=3, max_size=40)
_events_and_failures = st.lists(
    st.one_of(_event, st.tuples(st.just("fail"), st.sampled_from(_FAILURES))),
    min_size=3,
    max_size=40,
)


class _Queue:
    """Group commit with a thread that is let go step by step, and what was asked of it."""

    def __init__(self, *, held: bool) -> None:
        self.clock = Clock()
        files = UnsyncedFiles()
        files.make_directories("/body")
        spool = Spool("/body", files=files, executor=inline_executor, small_body=100)
        self.store = MemoryStore(spool=spool)
        self.thread = HeldExecutor()
        self.commit = GroupCommit(
            self.store,
            executor=self.thread if held else inline_executor,
            clock=self.clock,
            max_operations=4,
            patience=_PATIENCE,
        )
        self.commit.start()
        self.messages = 0
        self.accepted: list[int] = []
        self.asked: list[tuple[Operation, Deferred[Any], list[object]]] = []

    def perform(self, operation: Operation) -> None:
        heard: list[object] = []
        done = self.commit.perform(operation)
        done.addBoth(heard.append)
        self.asked.append((operation, done, heard))

    def happen(self, what: str, which: Any) -> None:
        if what == "accept":
            self.messages += 1
            self.accepted.append(self.messages)
            self.perform(Accept(message(self.messages)))
        elif what == "settle" and self.accepted:
            self.perform(settled(message(self.accepted.pop(0))))
        elif what == "lease":
            self.perform(Lease(NOW, (Want("next.example", 1),)))
        elif what == "browse":
            self.perform(Browse(Selection()))
        elif what == "probe":
            self.commit.probe()
        elif what == "fail":
            self.store.fail_next(which)
        elif what == "let go" and self.thread.waiting:
            self.thread.let_go()
        elif what == "time":
            self.clock.advance(which)

    def pass_time(self, seconds: float, step: float) -> None:
        """Let time pass, while the thread is quick."""
        for _ in range(round(seconds / step)):
            self.clock.advance(step)
            while self.thread.waiting:
                self.thread.let_go()

    def unanswered(self) -> list[Operation]:
        return [operation for operation, _, heard in self.asked if len(heard) != 1]

    def lost(self) -> list[Operation]:
        """Return the outcomes that were not written."""
        return [
            operation
            for operation, _, heard in self.asked
            if isinstance(operation, Settle) and heard and heard != [None]
        ]


class AnyOrder(TidyTestCase):
    @settings(max_examples=200, deadline=None)
    @given(st.booleans(), _events_and_failures)
    def test_all_is_answered_and_no_outcome_is_lost(
        self, held: bool, events: Sequence[tuple[str, Any]]
    ) -> None:
        queue = _Queue(held=held)
        for what, which in events:
            queue.happen(what, which)
        queue.pass_time(40 * _LONGEST, step=_LONGEST / 8)
        self.assertEqual((queue.unanswered(), queue.lost()), ([], []))
        self.assertEqual(queue.clock.getDelayedCalls(), [])
        self.flushLoggedErrors()

    @settings(max_examples=200, deadline=None)
    @given(st.booleans(), _events_and_failures)
    def test_a_stop_answers_all(self, held: bool, events: Sequence[tuple[str, Any]]) -> None:
        queue = _Queue(held=held)
        for what, which in events:
            queue.happen(what, which)
        stopped = queue.commit.stop()
        queue.pass_time(10.0, step=0.1)
        self.successResultOf(stopped)
        self.assertEqual(queue.unanswered(), [])
        self.assertEqual(queue.clock.getDelayedCalls(), [])
        self.flushLoggedErrors()

    @settings(max_examples=400, deadline=None)
    @given(_events)
    def test_nothing_waits_for_longer_than_a_batch_and_its_patience(
        self, events: Sequence[tuple[str, Any]]
    ) -> None:
        queue = _Queue(held=True)
        for what, which in events:
            queue.happen(what, which)
        queue.pass_time(4 * _PATIENCE, step=0.001)
        self.assertEqual(queue.unanswered(), [])

    @settings(max_examples=200, deadline=None)
    @given(_events)
    def test_only_outcomes_wait(self, events: Sequence[tuple[str, Any]]) -> None:
        queue = _Queue(held=False)
        for what, which in events:
            queue.happen(what, which)
            queue.clock.advance(0)
            self.assertLessEqual({type(each) for each in queue.unanswered()}, {Settle})
