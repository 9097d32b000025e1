"""Back-off with jitter, never beyond the end of a lifetime."""

import random  # noqa: TID251 - seeded, so every run draws the same

from tests.tidy import TidyTestCase
from twisted_mta.queue.schedule.backoff import Backoff

from ..mail import LIFETIME, NOW

BACKOFF = Backoff(300.0, 3600.0)


class Steady(random.Random):
    """A source of chance that always draws the same number."""

    def __init__(self, drawn: float) -> None:
        super().__init__()
        self._drawn = drawn

    def random(self) -> float:
        return self._drawn


def delay(attempts: int, drawn: float = 0.5, lifetime: float = LIFETIME) -> float:
    return (
        BACKOFF.next_attempt(
            attempts=attempts, now=NOW, expires_at=NOW + lifetime, random=Steady(drawn)
        )
        - NOW
    )


class Delays(TidyTestCase):
    def test_each_delay_is_twice_the_one_before_up_to_the_maximum(self) -> None:
        self.assertEqual([delay(attempts) for attempts in range(2, 5)], [600, 1200, 2400])
        self.assertEqual([delay(attempts, 0.0) for attempts in (1,)], [300])
        self.assertEqual([delay(attempts, 1.0) for attempts in range(5, 8)], [3600, 3600, 3600])

    def test_jitter_keeps_within_a_tenth(self) -> None:
        self.assertAlmostEqual(delay(2, 0.0), 540.0, 3)
        self.assertAlmostEqual(delay(2, 0.999999), 660.0, 3)
        draw = random.Random(1)
        drawn = [delay(2, draw.random()) for _ in range(1000)]
        self.assertGreaterEqual(min(drawn), 540.0)
        self.assertLessEqual(max(drawn), 660.0)
        self.assertGreater(max(drawn) - min(drawn), 100.0)

    def test_jitter_stays_between_minimum_and_maximum(self) -> None:
        draw = random.Random(1)
        for backoff in (BACKOFF, Backoff(60.0, 60.0), Backoff(1.0, 1.05), Backoff(10.0, 90.0)):
            for attempts in range(1, 12):
                drawn = [backoff.delay(attempts, draw) for _ in range(300)]
                self.assertGreaterEqual(min(drawn), backoff.minimum)
                self.assertLessEqual(max(drawn), backoff.maximum)
        first = [BACKOFF.delay(1, draw) for _ in range(300)]
        last = [BACKOFF.delay(9, draw) for _ in range(300)]
        self.assertGreater(max(first) - min(first), 25.0)
        self.assertGreater(max(last) - min(last), 300.0)

    def test_no_attempt_is_put_off_beyond_the_lifetime(self) -> None:
        self.assertEqual(delay(9, lifetime=1000.0), 1000.0)

    def test_no_attempt_is_due_in_the_past(self) -> None:
        self.assertEqual(delay(1, lifetime=-1000.0), 0.0)

    def test_any_number_of_attempts_can_be_counted(self) -> None:
        self.assertEqual(delay(10**9, 1.0), 3600.0)

    def test_a_lifetime_of_five_days_has_dozens_of_attempts(self) -> None:
        now, attempts, draw = NOW, 0, random.Random(1)
        while now < NOW + LIFETIME:
            attempts += 1
            later = BACKOFF.next_attempt(
                attempts=attempts, now=now, expires_at=NOW + LIFETIME, random=draw
            )
            self.assertGreater(later, now)
            now = later
        self.assertEqual(now, NOW + LIFETIME)
        self.assertTrue(100 < attempts < 150, attempts)
