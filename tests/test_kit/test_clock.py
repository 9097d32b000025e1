"""The clock of the test kit: as that of Twisted, and quick with ten thousand timers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

from twisted.internet.base import DelayedCall
from twisted.internet.task import Clock

from tests.tidy import TidyTestCase
from twisted_mta.system.real_world import system_random
from twisted_mta.testing.network import MemoryNetwork


class Timers(TidyTestCase):
    def run_of(self, clock: Any, seed: int) -> Iterator[tuple[float, int]]:
        """Yield when each timer fires, while timers are set, cancelled and moved at random."""
        random = system_random()
        random.seed(seed)
        fired: list[tuple[float, int]] = []
        timers: list[Any] = []

        def set_one() -> None:
            number = len(timers)
            timers.append(clock.callLater(random.uniform(0, 100), fire, number))

        def fire(number: int) -> None:
            fired.append((clock.seconds(), number))
            for _ in range(random.choice((0, 1, 1, 2))):
                set_one()
            pending = [timer for timer in timers if timer.active()]
            if pending:
                timer = random.choice(pending)
                match random.choice(["cancel", "sooner", "later", "twice", "keep"]):
                    case "cancel":
                        timer.cancel()
                    case "sooner":
                        timer.reset(random.uniform(0, 1))
                    case "later":
                        timer.delay(random.uniform(0, 50))
                    case "twice":
                        timer.delay(random.uniform(0, 50))
                        timer.reset(random.uniform(0, 20))

        for _ in range(20):
            set_one()
        while len(fired) < 200 and (pending := clock.getDelayedCalls()):
            clock.advance(min(timer.getTime() for timer in pending) - clock.seconds())
        yield from fired
        for timer in timers:
            if timer.active():
                timer.cancel()
        self.assertEqual(list(clock.getDelayedCalls()), [])

    def test_timers_fire_as_on_the_clock_of_twisted(self) -> None:
        for seed in range(50):
            ours = self.run_of(MemoryNetwork(), seed)
            for (at, number), (expected, same) in zip(
                ours, self.run_of(Clock(), seed), strict=True
            ):
                self.assertAlmostEqual(at, expected)
                self.assertEqual(number, same)

    def test_timers_of_one_time_fire_in_the_order_in_which_they_were_set(self) -> None:
        clock = MemoryNetwork()
        fired: list[int] = []
        for number in range(1_000):
            clock.callLater(1, fired.append, number)
        clock.advance(1)
        self.assertEqual(fired, list(range(1_000)))

    def test_a_timer_that_is_put_off_each_time_takes_no_room(self) -> None:
        clock = MemoryNetwork()
        timer = clock.callLater(1_000, lambda: None)
        for number in range(20_000):
            timer.reset(900 - number / 100)
            timer.reset(1_000)
            clock.callLater(1, lambda: None).cancel()
        self.assertLess(len(clock._heap), 1_000)
        self.assertEqual(clock.getDelayedCalls(), [timer])
        timer.cancel()

    def test_ten_thousand_timers_fire_without_being_sorted_again(self) -> None:
        clock = MemoryNetwork()
        moved: list[object] = []
        for number in range(10_000):
            clock.callLater(number, lambda: moved.append(clock.callLater(20_000, lambda: None)))
        with mock.patch.object(DelayedCall, "getTime", side_effect=AssertionError("all are read")):
            clock.advance(999)
        self.assertEqual(len(moved), 1_000)
        for call in clock.getDelayedCalls():
            call.cancel()
