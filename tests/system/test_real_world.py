"""The machine's clock and the operating system's randomness, as the rooms are handed them."""

from tests.tidy import TidyTestCase
from twisted_mta.system.real_world import system_random, wall_time


class RealWorld(TidyTestCase):
    def test_two_sources_of_randomness_have_different_seeds(self) -> None:
        self.assertNotEqual(system_random().getrandbits(64), system_random().getrandbits(64))

    def test_wall_time_counts_seconds_since_the_epoch(self) -> None:
        self.assertGreater(wall_time(), 1_700_000_000.0)
        self.assertLess(wall_time(), 100_000_000_000.0)
