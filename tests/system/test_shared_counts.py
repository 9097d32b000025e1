"""How many connections each worker has, as all of them see it."""

from __future__ import annotations

import os

from tests.tidy import TidyTestCase
from twisted_mta.system.shared_counts import SharedCounts


class LoadsTestCase(TidyTestCase):
    def setUp(self) -> None:
        self.parent = SharedCounts.of(3)
        self.workers = [SharedCounts(os.dup(self.parent.descriptor), number) for number in range(3)]
        for each in (self.parent, *self.workers):
            self.addCleanup(each.close)

    def serving(self, *counts: int) -> None:
        for worker, count in zip(self.workers, counts, strict=False):
            worker.serve()
            for _ in range(count):
                worker.enter()

    def test_a_worker_with_many_more_connections_than_another_is_ahead(self) -> None:
        self.serving(3, 0, 1)
        self.assertEqual([worker.ahead for worker in self.workers], [True, False, False])

    def test_a_worker_with_two_connections_more_is_not_ahead(self) -> None:
        self.serving(2, 0, 1)
        self.assertFalse(self.workers[0].ahead)

    def test_a_worker_with_half_as_many_connections_again_is_not_ahead(self) -> None:
        self.serving(15, 10, 10)
        self.assertFalse(self.workers[0].ahead)
        self.workers[0].enter()
        self.assertTrue(self.workers[0].ahead)

    def test_a_worker_is_behind_until_another_has_fewer(self) -> None:
        self.serving(2, 3, 2)
        self.assertEqual([worker.behind for worker in self.workers], [True, False, True])
        self.workers[0].enter()
        self.assertFalse(self.workers[0].behind)
        self.parent.gone(2)
        self.assertEqual([worker.behind for worker in self.workers[:2]], [True, True])

    def test_connections_that_have_ended_do_not_count(self) -> None:
        self.serving(3, 0, 0)
        self.workers[0].leave()
        self.assertFalse(self.workers[0].ahead)

    def test_connections_are_not_left_to_a_worker_that_serves_none(self) -> None:
        self.serving(9)
        self.assertFalse(self.workers[0].ahead)

    def test_connections_are_not_left_to_a_worker_that_drains(self) -> None:
        self.serving(9, 1, 9)
        self.assertTrue(self.workers[0].ahead)
        self.workers[1].retire()
        self.assertFalse(self.workers[0].ahead)
        self.workers[1].leave()
        self.assertFalse(self.workers[0].ahead)

    def test_connections_are_not_left_to_a_dead_worker(self) -> None:
        self.serving(9, 1, 9)
        self.parent.gone(1)
        self.assertFalse(self.workers[0].ahead)
        successor = SharedCounts(os.dup(self.parent.descriptor), 1)
        self.addCleanup(successor.close)
        successor.serve()
        self.assertTrue(self.workers[0].ahead)

    def test_connections_that_a_worker_took_before_it_serves_count(self) -> None:
        self.serving(9, 9)
        self.workers[2].enter()
        self.assertFalse(self.workers[0].ahead)
        self.workers[2].serve()
        self.assertTrue(self.workers[0].ahead)

    def test_shared_counts_may_be_closed_twice(self) -> None:
        self.parent.close()
        self.parent.close()
