"""How many connections each worker has, as all of them see it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.system.shared_counts import SharedCounts


class LoadsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.parent = SharedCounts.of(3)
        self.workers = [SharedCounts(self.parent.descriptor, number) for number in range(3)]
        self.addCleanup(self.parent.close)

    def serving(self, *counts: int) -> None:
        for worker, count in zip(self.workers, counts, strict=False):
            worker.serve()
            for _ in range(count):
                worker.enter()

    def test_who_has_much_more_than_another_is_ahead(self) -> None:
        self.serving(3, 0, 1)
        self.assertEqual([worker.ahead for worker in self.workers], [True, False, False])

    def test_a_little_more_is_nothing(self) -> None:
        self.serving(2, 0, 1)
        self.assertFalse(self.workers[0].ahead)

    def test_with_many_half_as_many_again_is_a_little(self) -> None:
        self.serving(15, 10, 10)
        self.assertFalse(self.workers[0].ahead)
        self.workers[0].enter()
        self.assertTrue(self.workers[0].ahead)

    def test_what_has_ended_counts_no_more(self) -> None:
        self.serving(3, 0, 0)
        self.workers[0].leave()
        self.assertFalse(self.workers[0].ahead)

    def test_nothing_is_left_to_one_that_takes_nothing(self) -> None:
        self.serving(9)
        self.assertFalse(self.workers[0].ahead)

    def test_nothing_is_left_to_one_that_drains(self) -> None:
        self.serving(9, 1, 9)
        self.assertTrue(self.workers[0].ahead)
        self.workers[1].retire()
        self.assertFalse(self.workers[0].ahead)
        self.workers[1].leave()
        self.assertFalse(self.workers[0].ahead)

    def test_nothing_is_left_to_the_dead(self) -> None:
        self.serving(9, 1, 9)
        self.parent.gone(1)
        self.assertFalse(self.workers[0].ahead)
        successor = SharedCounts(self.parent.descriptor, 1)
        successor.serve()
        self.assertTrue(self.workers[0].ahead)

    def test_what_was_taken_before_it_was_told_to_serve_counts(self) -> None:
        self.serving(9, 9)
        self.workers[2].enter()
        self.assertFalse(self.workers[0].ahead)
        self.workers[2].serve()
        self.assertTrue(self.workers[0].ahead)

    def test_it_may_be_closed_twice(self) -> None:
        self.parent.close()
        self.parent.close()
