"""Long computations leave the reactor its turns; an unchanged file is not parsed again."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from tests.tidy import TidyTestCase
from twisted_mta.system.executors import inline_executor
from twisted_mta.system.file_table import NOTHING, Digests, FileReading, FileTable, digests
from twisted_mta.system.slices import AtOnce, Pace, Sliced, result_of
from twisted_mta.system.work import Work, finished


def counting(clock: Clock, steps: int, done: list[int]) -> Work[str]:
    """Take a third of a millisecond for each step."""
    for number in range(steps):
        clock.rightNow += 0.00033
        done.append(number)
        yield
    return "done"


class Slices(TidyTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.pace = Sliced(self.clock, inline_executor)
        self.done: list[int] = []

    def test_pauses_are_three_times_as_long_as_slices(self) -> None:
        result = self.pace.work(counting(self.clock, 11, self.done))
        self.assertEqual(len(self.done), 4)  # 1.3 ms
        self.clock.advance(0.002)
        self.assertEqual(len(self.done), 4)
        self.clock.advance(0.001)
        self.assertEqual(len(self.done), 8)
        self.assertNoResult(result)
        self.clock.advance(0.003)
        self.assertEqual(self.successResultOf(result), "done")

    def test_without_other_work_the_next_slice_is_in_the_next_turn(self) -> None:
        for busy, pause in ((False, 0.0), (True, 0.003)):
            self.pace.is_busy = lambda value=busy: value  # type: ignore[misc]
            self.pace.work(counting(self.clock, 10, self.done))
            (following,) = self.clock.getDelayedCalls()
            self.assertAlmostEqual(following.getTime() - self.clock.seconds(), pause)
            self.clock.pump([0.003] * 3)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_with_a_clock_that_stands_still_all_is_one_slice(self) -> None:
        def many() -> Work[int]:
            for _ in range(100_000):
                yield
            return 7

        self.assertEqual(self.successResultOf(self.pace.work(many())), 7)
        self.assertEqual(finished(many()), 7)
        self.assertEqual(result_of(AtOnce().work(many())), 7)

    def test_an_exception_in_any_slice_is_a_failure(self) -> None:
        def failing(steps: int) -> Work[None]:
            yield from counting(self.clock, steps, self.done)  # type: ignore[misc]
            raise ValueError("line 3")

        for steps in (0, 100):
            result = self.pace.work(failing(steps))
            self.clock.pump([0.003] * 30)
            self.failureResultOf(result, ValueError)
            self.assertRaises(ValueError, result_of, AtOnce().work(failing(steps)))

    def test_a_stop_leaves_no_timer(self) -> None:
        result = self.pace.work(counting(self.clock, 100, self.done))
        self.pace.stop()
        self.failureResultOf(result, CancelledError)
        self.failureResultOf(self.pace.work(counting(self.clock, 100, self.done)), CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Tables(TidyTestCase):
    def setUp(self) -> None:
        self.files = {"a": b"1,2"}
        self.parsed: list[tuple[bytes, str, Any]] = []
        self.table: FileTable[list[str]] = FileTable(list, self.read_file, self.parse)

    def read_file(self, path: str) -> bytes:
        if path not in self.files:
            raise OSError("no such file")
        return self.files[path]

    def parse(self, content: bytes, path: str, settings: Any) -> Work[list[str]]:
        self.parsed.append((content, path, settings))
        yield
        if b"?" in content:
            raise ValueError("what is ?")
        return content.decode("ascii").split(",")

    def read(
        self, path: str | None = "a", settings: Any = None, checked: Digests = NOTHING
    ) -> Deferred[FileReading[list[str]]]:
        pace: Pace = AtOnce()
        return Deferred.fromCoroutine(self.table.read(path, settings, pace, checked))

    def use(self, reading: Deferred[FileReading[list[str]]]) -> list[str]:
        return self.table.use(self.successResultOf(reading))

    def test_reading_a_file_has_no_effect_before_use(self) -> None:
        reading = self.read()
        self.assertEqual(self.table.value, [])
        self.assertEqual(self.use(reading), [])
        self.assertEqual(self.table.value, ["1", "2"])

    def test_an_unchanged_file_is_not_parsed_again(self) -> None:
        self.use(self.read())
        before = self.table.value
        self.use(self.read())
        self.assertIs(self.table.value, before)
        self.assertEqual(len(self.parsed), 1)
        for change in ({"settings": "other"}, {"path": "b"}):
            self.files["b"] = self.files["a"]
            self.use(self.read(**change))  # type: ignore[arg-type]
        self.files["b"] = b"3"
        self.use(self.read("b"))
        self.assertEqual((self.table.value, len(self.parsed)), (["3"], 4))
        self.use(self.read(None))
        self.assertEqual(self.table.value, [])

    def test_an_invalid_file_leaves_the_old_table_in_force(self) -> None:
        self.use(self.read())
        self.files["a"] = b"1,?"
        self.failureResultOf(self.read(), ValueError)
        del self.files["a"]
        self.failureResultOf(self.read(), OSError)
        self.assertEqual(self.table.value, ["1", "2"])
        self.files["a"] = b"1,2"
        self.use(self.read())
        self.assertEqual(len(self.parsed), 2)

    def test_a_file_that_another_process_has_parsed_is_parsed_at_its_use(self) -> None:
        checked = digests(self.successResultOf(self.read()))
        self.parsed.clear()
        reading = self.read(checked=checked)
        self.assertEqual(self.parsed, [])
        left = self.successResultOf(reading)
        completed = Deferred.fromCoroutine(self.table.complete(left, AtOnce()))
        self.assertEqual(self.successResultOf(completed), ["1", "2"])
        self.table.use(left)
        self.assertEqual(self.table.value, ["1", "2"])
        self.files["a"] = b"?"  # changed since then
        self.failureResultOf(self.read(checked=checked), ValueError)
