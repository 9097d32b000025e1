"""Queue ids: ordered by arrival, never the same twice."""

import random  # noqa: TID251 - seeded, so every run draws the same

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.envelope import QueueId
from twisted_mta.queue.ids import QueueIds


class Ids(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000.0)
        self.ids = QueueIds(wall_time=self.clock.seconds, random=random.Random(1))

    def test_an_id_tells_the_millisecond_of_its_arrival(self) -> None:
        self.assertEqual(self.ids() >> 20, 1_800_000_000_000)

    def test_ids_of_one_millisecond_still_grow(self) -> None:
        drawn = [self.ids() for _ in range(1000)]
        self.assertEqual(drawn, sorted(frozenset(drawn)))

    def test_a_clock_that_steps_back_brings_no_id_back(self) -> None:
        before = self.ids()
        self.clock.rightNow -= 3600.0
        self.assertGreater(self.ids(), before)

    def test_an_id_is_shown_in_thirteen_characters_that_keep_the_order(self) -> None:
        first = self.ids()
        self.clock.advance(0.001)
        second = self.ids()
        self.assertEqual(len(str(first)), 13)
        self.assertLess(str(first), str(second))
        self.assertEqual(QueueId.parse(str(second)), second)

    def test_two_processes_draw_different_ids_in_one_millisecond(self) -> None:
        other = QueueIds(wall_time=self.clock.seconds, random=random.Random(2))
        self.assertNotEqual(self.ids(), other())
