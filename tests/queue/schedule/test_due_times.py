"""The due times of domains."""

import random  # noqa: TID251 - seeded, so every run draws the same

from tests.tidy import TidyTestCase
from twisted_mta.queue.schedule.due_times import DueTimes


class Earliest(TidyTestCase):
    def setUp(self) -> None:
        self.times = DueTimes()

    def test_the_earliest_time_of_a_domain_holds(self) -> None:
        for time in (5.0, 3.0, 4.0):
            self.times.add("a.example", time)
        self.assertEqual(self.times.earliest(), 3.0)
        self.assertEqual(self.times.take_due(2.9, 100), [])
        self.assertEqual(self.times.take_due(9.0, 100), [(3.0, "a.example")])
        self.assertIsNone(self.times.earliest())

    def test_due_domains_are_taken_in_order_and_once(self) -> None:
        for time, domain in ((3.0, "c"), (1.0, "a"), (2.0, "b"), (4.0, "d")):
            self.times.add(domain, time)
        self.assertEqual(self.times.take_due(3.0, 100), [(1.0, "a"), (2.0, "b"), (3.0, "c")])
        self.assertEqual(self.times.take_due(3.0, 100), [])
        self.assertEqual(len(self.times), 1)

    def test_due_times_equal_those_of_a_plain_table_in_bounded_memory(self) -> None:
        draw, table = random.Random(1), dict[str, float]()
        for step in range(20_000):
            domain, time = f"{draw.randrange(50)}.example", step + draw.uniform(0, 100)
            self.times.add(domain, time)
            table[domain] = min(time, table.get(domain, time))
            if draw.random() < 0.05:
                due = sorted((time, domain) for domain, time in table.items() if time <= step)
                self.assertEqual(self.times.take_due(step, 100), due)
                for _, domain in due:
                    del table[domain]
            self.assertEqual(self.times.earliest(), min(table.values()))
        self.assertLess(len(self.times._heap), 300)
