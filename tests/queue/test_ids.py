"""Queue ids: in the order of arrival, all different."""

import random  # noqa: TID251 - seeded, so every run draws the same

from twisted.internet.task import Clock

from tests.tidy import TidyTestCase
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.queue.ids import QueueIds, first_id


class Ids(TidyTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_800_000_000.0)
        self.ids = QueueIds(wall_time=self.clock.seconds, random=random.Random(1))

    def test_an_id_has_the_millisecond_of_its_arrival(self) -> None:
        self.assertEqual(self.ids() >> 20, 1_800_000_000_000)

    def test_ids_of_one_millisecond_still_grow(self) -> None:
        drawn = [self.ids() for _ in range(1000)]
        self.assertEqual(drawn, sorted(frozenset(drawn)))

    def test_ids_go_on_after_the_clock_was_set_back(self) -> None:
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

    def test_two_processes_never_draw_the_same_id(self) -> None:
        drawn: list[int] = []
        for worker in (0, 1, 63):
            # The same seed, and a clock that stands: what random bits there are, are the same.
            ids = QueueIds(wall_time=lambda: 1.0, random=random.Random(1), worker=worker)
            drawn += [ids() for _ in range(2000)]
            self.assertEqual([id & 63 for id in drawn[-2000:]], [worker] * 2000)
            self.assertEqual(drawn[-2000:], sorted(drawn[-2000:]))
        self.assertEqual(len(frozenset(drawn)), 6000)

    def test_a_thousand_processes_of_several_machines_never_draw_the_same_id(self) -> None:
        drawn: list[int] = []
        for worker in (0, 1, 1023):
            ids = QueueIds(
                wall_time=lambda: 1.0, random=random.Random(1), worker=worker, workers=1024
            )
            drawn += [ids() for _ in range(2000)]
            self.assertEqual([id & 1023 for id in drawn[-2000:]], [worker] * 2000)
        self.assertEqual(len(frozenset(drawn)), 6000)
        self.assertGreaterEqual(min(drawn), first_id(1.0))

    def test_a_worker_number_beyond_6_bits_is_refused(self) -> None:
        for worker in (-1, 64):
            with self.assertRaises(ValueError):
                QueueIds(wall_time=self.clock.seconds, random=random.Random(1), worker=worker)

    def test_the_first_id_of_a_time_divides_earlier_ids_from_later_ones(self) -> None:
        before = self.ids()
        self.clock.advance(0.001)
        self.assertLess(before, first_id(self.clock.seconds()))
        self.assertGreaterEqual(self.ids(), first_id(self.clock.seconds()))
        self.assertEqual(first_id(-1.0), 0)
