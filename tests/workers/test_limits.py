"""Limits over several workers: exact, however slow the pipes to their parent are."""

import json
from collections import deque
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from tests.tidy import TidyTestCase
from twisted_mta.interfaces import LimitKey, Limits
from twisted_mta.workers.ledger import CreditMessage, Ledger
from twisted_mta.workers.limits import Parent, WorkerLimits

HOP = ("hop", "mx.example")
PEER = ("peer", "25", "192.0.2.7")


class Simulation:
    """A ledger and the limits of some workers, with a slow pipe to each.

    Attributes:
        workers: the limits of each.
        sent: how many messages were sent.
        deaf: workers whose pipes stand still.
    """

    def __init__(self, workers: int = 3, *, shares: int = 0) -> None:
        self.clock = Clock()
        self.shares = shares
        self.sent = 0
        self.deaf: list[int] = []
        self.ledger = Ledger(send=self._tell, clock=self.clock)
        self.workers: list[WorkerLimits] = []
        self._up: list[deque[str]] = [deque() for _ in range(workers)]
        self._down: list[deque[str]] = [deque() for _ in range(workers)]
        for worker in range(workers):
            self.workers.append(self._limits(worker))

    def _limits(self, worker: int) -> WorkerLimits:
        limits = WorkerLimits(
            send=lambda message: self._carry(self._up[worker], message), clock=self.clock
        )
        limits.workers = self.shares
        return limits

    def _tell(self, worker: Any, message: CreditMessage) -> None:
        self._carry(self._down[worker], message)

    def _carry(self, pipe: deque[str], message: CreditMessage) -> None:
        self.sent += 1
        pipe.append(json.dumps(message))

    def deliver(self, worker: int, *, up: bool) -> bool:
        """Let one message through, if there is one."""
        pipe = (self._up if up else self._down)[worker]
        if not pipe or worker in self.deaf:
            return False
        message = json.loads(pipe.popleft())
        if up:
            self.ledger.receive(worker, message)
        else:
            self.workers[worker].receive(message)
        return True

    def settle(self) -> None:
        """Let all through, and what comes of it."""
        moved = True
        while moved:
            moved = False
            for worker in range(len(self.workers)):
                for up in (True, False):
                    moved = self.deliver(worker, up=up) or moved

    def pass_time(self, seconds: float) -> None:
        """Let it pass, while pipes are fast."""
        for _ in range(int(seconds * 10)):
            self.settle()
            self.clock.advance(0.1)
        self.settle()

    def kill(self, worker: int) -> None:
        """Let a worker die and come back."""
        self.workers[worker].close()
        self._up[worker].clear()
        self._down[worker].clear()
        self.ledger.worker_gone(worker)
        self.workers[worker] = self._limits(worker)

    def take(self, worker: int, key: LimitKey = PEER, limit: int = 3) -> bool:
        """Take, and wait for the answer."""
        taken = self.workers[worker].take(key, limit)
        if isinstance(taken, bool):
            return taken
        answers: list[bool] = []
        taken.addCallback(answers.append)
        self.settle()
        return answers[0]

    def wait(self, worker: int, name: str, heard: list[str], limit: int = 3) -> Deferred[Any]:
        """Wait; ``name`` goes into ``heard`` when it has come."""
        answer = self.workers[worker].wait(HOP, limit)
        if isinstance(answer, bool):
            heard.append(name)
            return Deferred()
        return answer.addCallback(lambda _: heard.append(name))

    def close(self) -> None:
        self.ledger.close()
        for worker in self.workers:
            worker.close()


class SimulationTestCase(TidyTestCase):
    def setUp(self) -> None:
        self.simulation = Simulation()
        self.addCleanup(self.simulation.close)


class OverWorkers(SimulationTestCase):
    def test_no_more_than_the_limit_is_taken_by_all_together(self) -> None:
        self.assertEqual(
            [self.simulation.take(worker) for worker in (0, 1, 2, 0, 1)],
            [True, True, True, False, False],
        )
        self.simulation.workers[2].give_back(PEER)
        self.simulation.settle()
        self.assertEqual([self.simulation.take(worker) for worker in (0, 1)], [True, False])

    def test_spare_credits_of_another_worker_refuse_no_request(self) -> None:
        for _ in range(3):
            self.simulation.take(0)
        for _ in range(3):
            self.simulation.workers[0].give_back(PEER)
        self.simulation.settle()
        self.assertEqual(self.simulation.ledger.held(PEER), 3)
        self.assertEqual([self.simulation.take(1) for _ in range(4)], [True, True, True, False])

    def test_credits_of_large_limits_are_asked_for_in_chunks_and_stay_exact(self) -> None:
        self.assertTrue(self.simulation.take(0, limit=645))
        before = self.simulation.sent
        self.assertEqual([self.simulation.take(0, limit=645) for _ in range(7)], [True] * 7)
        self.assertEqual(self.simulation.sent, before)
        taken = sum(self.simulation.take(1, limit=645) for _ in range(660))
        self.assertEqual(taken, 637)

    def test_requests_that_wait_are_served_in_order_in_whichever_worker(self) -> None:
        for _ in range(3):
            self.assertTrue(self.simulation.take(0, HOP))
        heard: list[str] = []
        for name, worker in (("a", 1), ("b", 0), ("c", 2), ("d", 1)):
            self.simulation.wait(worker, name, heard)
            self.simulation.settle()
        # A request waits in the first worker as well; it hands credits over all the same.
        for names in ("a", "ab", "abc"):
            self.simulation.workers[0].give_back(HOP)
            self.simulation.settle()
            self.assertEqual("".join(heard), names)
        self.simulation.workers[2].give_back(HOP)
        self.simulation.settle()
        self.assertEqual("".join(heard), "abcd")

    def test_each_worker_is_sure_of_its_share_while_requests_wait_in_all(self) -> None:
        for worker in self.simulation.workers:
            worker.workers = 3
        for _ in range(6):
            self.simulation.take(0, HOP, 6)
        heard: list[str] = []
        for name, worker in (("a", 0), ("b", 1), ("c", 0), ("d", 2), *(("x", 0),) * 9):
            self.simulation.wait(worker, name, heard, 6)
            self.simulation.settle()
        for names in ("a", "ab", "abc", "abcd"):
            self.simulation.workers[0].give_back(HOP)
            self.simulation.settle()
            self.assertEqual("".join(heard), names)

    def test_a_worker_within_its_share_serves_its_own_requests_without_messages(self) -> None:
        for worker in self.simulation.workers:
            worker.workers = 3
        heard: list[str] = []
        for worker in (0, 1, 2) * 2:
            self.simulation.take(worker, HOP, 6)
        for number in range(30):
            self.simulation.wait(number % 3, "x", heard, 6)
        self.simulation.settle()
        before = self.simulation.sent
        for number in range(30):
            self.simulation.workers[number % 3].give_back(HOP)
        self.assertEqual((len(heard), self.simulation.sent - before), (30, 0))

    def test_any_number_of_requests_may_give_back_when_they_are_served(self) -> None:
        """As deliveries do that waited for a slot, if their next hop was suspended meanwhile."""
        worker = self.simulation.workers[0]
        worker.workers = 3
        self.simulation.take(0, HOP)
        heard: list[str] = []
        for _ in range(1000):
            request = self.simulation.wait(0, "x", heard)
            request.addCallback(lambda _: worker.give_back(HOP))
        worker.give_back(HOP)
        self.simulation.settle()
        self.assertEqual(len(heard), 1000)
        self.simulation.pass_time(5)
        self.assertEqual(self.simulation.ledger.grants(), {})

    def test_with_other_machines_all_credits_go_back(self) -> None:
        self.simulation.workers[0].workers = 3
        self.simulation.workers[0].alone = False
        heard: list[str] = []
        self.simulation.take(0, HOP)
        for name, worker in (("a", 1), ("b", 2), ("c", 1), ("d", 0)):
            self.simulation.wait(worker, name, heard)
            self.simulation.settle()
        self.simulation.workers[0].give_back(HOP)
        self.simulation.settle()
        self.assertEqual(heard, ["a", "b", "c"])

    def test_no_request_overtakes_another_that_waits_in_the_same_worker(self) -> None:
        self.simulation.take(0, HOP, 1)
        heard: list[str] = []
        self.simulation.wait(0, "a", heard, 1)
        self.simulation.workers[0].give_back(HOP)  # it does not know that a request waits
        self.simulation.wait(0, "b", heard, 1)
        self.assertEqual(heard, [])
        self.simulation.settle()
        self.assertEqual(heard, ["a"])

    def test_spare_credits_of_another_worker_serve_a_request_that_waits(self) -> None:
        self.simulation.take(0, HOP, 1)
        self.simulation.workers[0].give_back(HOP)
        heard: list[str] = []
        self.simulation.wait(1, "a", heard, 1)
        self.simulation.settle()
        self.assertEqual(heard, ["a"])

    def test_a_cancelled_request_delays_no_other(self) -> None:
        self.simulation.take(0, HOP, 1)
        heard: list[str] = []
        given_up = self.simulation.wait(1, "a", heard, 1)
        self.simulation.wait(2, "b", heard, 1)
        self.simulation.settle()
        given_up.cancel()
        self.failureResultOf(given_up, CancelledError)
        self.simulation.workers[0].give_back(HOP)
        self.simulation.settle()
        self.assertEqual(heard, ["b"])

    def test_a_cancelled_request_delays_no_other_long_afterwards(self) -> None:
        self.simulation.take(0, HOP, 1)
        self.simulation.take(1)
        self.simulation.workers[1].give_back(PEER)
        given_up = self.simulation.wait(1, "a", [], 1)
        self.simulation.settle()
        given_up.cancel()
        self.failureResultOf(given_up, CancelledError)
        self.simulation.pass_time(5)
        self.simulation.workers[0].give_back(HOP)
        self.simulation.pass_time(5)
        self.assertEqual(self.simulation.ledger.grants(), {})

    def test_a_worker_that_has_died_holds_no_credits(self) -> None:
        for _ in range(3):
            self.simulation.take(0, HOP)
        heard: list[str] = []
        self.simulation.wait(0, "dead", heard)
        self.simulation.wait(1, "a", heard)
        self.simulation.wait(2, "b", heard)
        self.simulation.settle()
        self.simulation.kill(0)
        self.simulation.settle()
        self.assertEqual(heard, ["a", "b"])
        self.assertEqual(self.simulation.ledger.held(HOP), 2)

    def test_a_worker_may_die_while_credits_are_recalled_from_it(self) -> None:
        self.simulation.take(0, limit=1)
        self.simulation.deaf.append(0)
        asked = self.simulation.workers[1].take(PEER, 1)
        assert isinstance(asked, Deferred)
        self.simulation.settle()
        self.assertNoResult(asked)
        self.simulation.kill(0)
        self.simulation.settle()
        self.assertIs(self.successResultOf(asked), True)
        self.assertEqual(self.simulation.ledger.grants(), {PEER: 1})
        self.simulation.kill(1)
        self.simulation.clock.advance(2)
        self.assertEqual(self.simulation.ledger.grants(), {})

    def test_a_worker_may_die_while_it_asks(self) -> None:
        self.simulation.take(0, limit=1)
        self.simulation.workers[0].give_back(PEER)
        self.simulation.deaf.append(0)
        self.simulation.workers[1].take(PEER, 1)
        self.simulation.settle()
        self.simulation.kill(1)
        self.simulation.deaf.clear()
        self.simulation.settle()
        self.assertEqual(self.simulation.ledger.grants(), {})

    def test_a_credit_may_be_returned_while_it_is_recalled(self) -> None:
        self.simulation.take(0, limit=1)
        self.simulation.workers[0].give_back(PEER)
        for _ in range(2):
            self.simulation.clock.advance(2)  # it goes back
        asked = self.simulation.workers[1].take(PEER, 1)
        assert isinstance(asked, Deferred)
        self.simulation.deliver(1, up=True)
        self.simulation.settle()
        self.assertIs(self.successResultOf(asked), True)

    def test_a_credit_granted_while_an_answer_is_awaited_can_be_used_again(self) -> None:
        for worker in (0, 0, 1, 1):
            self.simulation.take(worker, limit=4)
        first, second, third = self.simulation.workers
        first.give_back(PEER)
        asked = third.take(PEER, 4)
        self.simulation.deliver(2, up=True)  # the first worker's spare credits are recalled, …
        self.assertIs(first.take(PEER, 4), True)  # … and are in use meanwhile
        self.simulation.deliver(1, up=False)
        second.give_back(PEER)
        second.give_back(PEER)
        while self.simulation.deliver(1, up=True):
            pass
        more = first.take(PEER, 4)
        self.simulation.deliver(0, up=True)
        self.simulation.settle()
        assert isinstance(asked, Deferred) and isinstance(more, Deferred)
        self.assertEqual([self.successResultOf(each) for each in (asked, more)], [True, True])
        for _ in range(3):
            first.give_back(PEER)
        self.simulation.settle()
        self.assertEqual([self.simulation.take(1, limit=4) for _ in range(4)], [True] * 3 + [False])

    def test_a_worker_that_does_not_answer_is_not_waited_for(self) -> None:
        self.simulation.take(0, limit=1)
        self.simulation.workers[0].give_back(PEER)
        self.simulation.deaf.append(0)
        asked = self.simulation.workers[1].take(PEER, 1)
        assert isinstance(asked, Deferred)
        self.simulation.pass_time(0.9)
        self.assertNoResult(asked)
        self.simulation.pass_time(0.2)
        self.assertIs(self.successResultOf(asked), False)
        self.assertFalse(self.simulation.take(2, limit=1))  # nor for the next request
        self.simulation.deaf.clear()
        self.simulation.settle()
        self.assertTrue(self.simulation.take(2, limit=1))

    def test_while_the_parent_is_silent_each_worker_has_its_share(self) -> None:
        for worker in (0, 1):
            self.simulation.workers[worker].workers = 2
        self.simulation.take(1, limit=6)
        self.simulation.deaf += [0, 1]
        asked = [self.simulation.workers[0].take(PEER, 6) for _ in range(5)]
        heard: list[str] = []
        for name in "abc":
            self.simulation.wait(0, name, heard, limit=4)
        self.simulation.pass_time(2.9)
        self.assertFalse(any(isinstance(each, Deferred) and each.called for each in asked))
        self.simulation.pass_time(0.3)
        answers = [self.successResultOf(each) for each in asked if isinstance(each, Deferred)]
        self.assertEqual(answers, [True] * 3 + [False] * 2)
        self.assertEqual(heard, ["a", "b"])
        self.assertIs(self.simulation.workers[0].take(PEER, 6), False)
        self.simulation.workers[0].give_back(HOP)
        self.assertEqual(heard, ["a", "b", "c"])
        self.simulation.workers[0].give_back(PEER)
        self.assertIs(self.simulation.workers[0].take(PEER, 6), True)
        # It is back: loans count, and the limit is exact again.
        self.simulation.deaf.clear()
        self.simulation.settle()
        self.assertEqual([self.simulation.take(1, limit=6) for _ in range(3)], [True, True, False])
        for _ in range(3):
            self.simulation.workers[0].give_back(PEER)
            self.simulation.workers[1].give_back(PEER)
        self.simulation.workers[0].give_back(HOP)
        self.simulation.workers[0].give_back(HOP)
        self.simulation.pass_time(10)
        self.assertEqual(self.simulation.ledger.grants(), {})
        self.assertEqual(self.simulation.workers[0]._credits, {})

    def test_a_worker_that_did_not_run_does_not_think_that_the_parent_is_silent(self) -> None:
        limits = self.simulation.workers[0]
        limits.workers = 2
        self.simulation.take(1, limit=1)
        asked = limits.take(PEER, 1)
        assert isinstance(asked, Deferred)
        self.simulation.clock.advance(30)  # messages that came meanwhile are read only now
        self.simulation.settle()
        self.simulation.clock.advance(0.2)
        self.assertIs(self.successResultOf(asked), False)
        self.assertIs(limits._parent, Parent.ALIVE)

    def test_a_lower_limit_takes_no_credits_in_use_and_grants_none(self) -> None:
        for worker in (0, 0, 1):
            self.simulation.take(worker)
        self.simulation.workers[0].give_back(PEER)
        self.assertFalse(self.simulation.take(0, limit=2))  # although one is spare
        self.assertFalse(self.simulation.take(2, limit=2))
        self.simulation.workers[1].give_back(PEER)
        self.simulation.settle()
        self.assertEqual([self.simulation.take(2, limit=2) for _ in range(2)], [True, False])
        self.assertTrue(self.simulation.take(2, limit=3))

    def test_credits_that_stay_spare_for_seconds_go_back(self) -> None:
        for worker, key in ((0, HOP), (0, PEER), (1, PEER)):
            self.simulation.take(worker, key)
            self.simulation.workers[worker].give_back(key)
        self.simulation.pass_time(1)
        self.assertEqual(
            (self.simulation.ledger.held(HOP), self.simulation.ledger.held(PEER)), (1, 2)
        )
        before = self.simulation.sent
        self.simulation.pass_time(4)
        self.assertEqual(self.simulation.ledger.grants(), {})
        self.assertEqual(self.simulation.sent, before + 2)  # both keys of a worker in one message
        self.assertEqual(self.simulation.clock.getDelayedCalls(), [])

    def test_messages_that_make_no_sense_are_refused(self) -> None:
        self.simulation.take(0)
        for message in (["give", [[PEER, 2]]], ["answer", HOP, 0], ["take"]):
            with self.assertRaises(ValueError):
                self.simulation.ledger.receive(0, message)
        with self.assertRaises(ValueError):
            self.simulation.workers[0].receive(["grant"])


class Messages(SimulationTestCase):
    """Messages cost time, so few are sent."""

    def test_steady_load_needs_few_messages(self) -> None:
        simulation, everybody = self.simulation, ("connections", "25")
        keys = [("peer", "25", f"192.0.2.{number}") for number in range(10)]
        opened: deque[tuple[int, LimitKey]] = deque()
        connections = 0

        def open_one() -> None:
            nonlocal connections
            # Of 5 connections 2 are one worker's, 2 another's, and 1 the third's.
            worker, key = (0, 0, 1, 1, 2)[connections % 5], keys[connections // 5 % 10]
            connections += 1
            self.assertTrue(simulation.take(worker, everybody, 1000))
            self.assertTrue(simulation.take(worker, key, 50))
            opened.append((worker, key))

        def close_one() -> None:
            worker, key = opened.popleft()
            simulation.workers[worker].give_back(everybody)
            simulation.workers[worker].give_back(key)

        for _ in range(20):
            open_one()
        simulation.pass_time(3)
        before, sent = connections, simulation.sent
        for _ in range(100):
            for _ in range(20):  # all of them anew, every 0.1 s
                close_one()
                open_one()
            simulation.pass_time(0.1)
        self.assertEqual(connections - before, 2000)
        self.assertLess(simulation.sent - sent, 200)

    def test_requests_over_the_limit_cost_two_messages_each(self) -> None:
        for worker in (0, 1, 2):
            self.simulation.take(worker)
        self.assertFalse(self.simulation.take(0))
        before = self.simulation.sent
        for number in range(30):
            self.assertFalse(self.simulation.take(number % 3))
        self.assertEqual(self.simulation.sent, before + 60)  # an ask and a refuse each
        for _ in range(30):
            self.assertFalse(self.simulation.take(0, limit=1))  # the worker refuses by itself
        self.assertEqual(self.simulation.sent, before + 60)

    def test_handing_over_a_credit_costs_two_messages(self) -> None:
        for _ in range(3):
            self.simulation.take(0, HOP)
        heard: list[str] = []
        for number in range(60):
            self.simulation.wait(number % 3, "x", heard)
        self.simulation.settle()
        before = self.simulation.sent
        holders = deque([0, 0, 0])
        for number in range(50):
            self.simulation.workers[holders.popleft()].give_back(HOP)
            self.simulation.settle()
            holders.append(number % 3)
        self.assertEqual((len(heard), self.simulation.sent - before), (50, 100))

    def test_a_request_that_replaces_a_cancelled_one_costs_no_message(self) -> None:
        self.simulation.take(0, HOP, 1)
        heard: list[str] = []
        waiting = self.simulation.wait(1, "a", heard, 1)
        self.simulation.settle()
        before = self.simulation.sent
        for _ in range(9):
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
            waiting = self.simulation.wait(1, "b", heard, 1)
        self.simulation.settle()
        self.assertEqual(self.simulation.sent, before)
        self.simulation.workers[0].give_back(HOP)
        self.simulation.settle()
        self.assertEqual(heard, ["b"])


LIMIT = 3
WORKERS = 3

_worker = st.integers(0, WORKERS - 1)
_event = st.one_of(
    st.tuples(st.just("take"), _worker),
    st.tuples(st.just("wait"), _worker),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
    st.tuples(st.just("give back"), st.integers(0, 9)),
    st.tuples(st.just("up"), _worker),
    st.tuples(st.just("down"), _worker),
    st.tuples(st.just("time"), st.sampled_from((0.4, 1.1, 2.5))),
    st.tuples(st.just("settle"), st.just(0)),
    st.tuples(st.just("die"), _worker),
    st.tuples(st.just("take now"), _worker),
)


class RandomEventOrders(TidyTestCase):
    """Any order of events, and of messages on their way."""

    @settings(max_examples=400, deadline=None)
    @given(st.lists(_event, max_size=60))
    def test_limits_hold_and_nothing_is_lost(self, events: Sequence[tuple[str, Any]]) -> None:
        for shares in (0, WORKERS - 1):
            self.check(Simulation(WORKERS, shares=shares), events)

    def check(self, simulation: Simulation, events: Sequence[tuple[str, Any]]) -> None:
        used: list[tuple[int, LimitKey]] = []
        waiting: list[tuple[int, Deferred[Any]]] = []

        def in_use(key: LimitKey) -> int:
            return sum(1 for _, each in used if each == key)

        def ask(worker: int, key: LimitKey, answer: bool | Deferred[bool]) -> None:
            limits = simulation.workers[worker]

            def answered(taken: bool) -> None:
                if taken and simulation.workers[worker] is limits:  # otherwise it has died
                    used.append((worker, key))
                    self.assertLessEqual(in_use(key), LIMIT)
                    self.assertLessEqual(simulation.ledger.held(key), LIMIT)

            if isinstance(answer, bool):
                answered(answer)
                return
            pending = worker, answer
            waiting.append(pending)

            def over(_: object) -> None:
                if pending in waiting:
                    waiting.remove(pending)

            answer.addCallback(answered).addErrback(lambda why: why.trap(CancelledError))
            answer.addBoth(over)

        def give_back(index: int) -> None:
            worker, key = used.pop(index)
            simulation.workers[worker].give_back(key)

        for what, which in events:
            if what == "take":
                ask(which, PEER, simulation.workers[which].take(PEER, LIMIT))
            elif what == "wait":
                ask(which, HOP, simulation.workers[which].wait(HOP, LIMIT))
            elif what == "cancel" and waiting:
                waiting[which % len(waiting)][1].cancel()
            elif what == "give back" and used:
                give_back(which % len(used))
            elif what in ("up", "down"):
                simulation.deliver(which, up=what == "up")
            elif what == "time":
                simulation.clock.advance(which)
            elif what == "settle":
                simulation.settle()
            elif what == "die":
                simulation.kill(which)
                used[:] = [each for each in used if each[0] != which]
                waiting[:] = [each for each in waiting if each[0] != which]
            elif what == "take now":
                simulation.settle()
                free = in_use(PEER) < LIMIT
                self.assertEqual(simulation.take(which), free)
                if free:
                    used.append((which, PEER))
        simulation.settle()
        while used:
            give_back(0)
            simulation.settle()
        self.assertEqual(waiting, [])
        for key in (PEER, HOP):
            self.assertEqual(
                [simulation.take(number % WORKERS, key, LIMIT) for number in range(LIMIT + 1)],
                [True] * LIMIT + [False],
            )
            for number in range(LIMIT):
                simulation.workers[number % WORKERS].give_back(key)
        simulation.pass_time(5)
        self.assertEqual(simulation.ledger.grants(), {})
        self.assertEqual(simulation.clock.getDelayedCalls(), [])


class TheInterface(TidyTestCase):
    def test_the_interface_is_kept(self) -> None:
        limits: Limits = Simulation().workers[0]
        self.assertIsInstance(limits.take(PEER, 1), Deferred)
