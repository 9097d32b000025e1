"""The history of the page: slots of time, their file, and what they tell of a span."""

from __future__ import annotations

import os
import sqlite3
from itertools import pairwise
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from tests.tidy import TidyTestCase
from twisted_mta.admin.history import SPANS, History, HistoryFile, Slot
from twisted_mta.admin.status import Status
from twisted_mta.telemetry.metrics import Metrics, table

NOON = 1_790_035_200.0  # a whole hour
HOUR, DAY, WEEK = SPANS["1h"], SPANS["24h"], SPANS["7d"]


def at_once(function: Any, /, *args: Any, **kwargs: Any) -> Deferred[Any]:
    try:
        return succeed(function(*args, **kwargs))
    except Exception:
        return fail(Failure())


class HistoryTestCase(TidyTestCase):
    def setUp(self) -> None:
        self.now = NOON
        self.metrics = Metrics()
        self.path = os.path.join(self.mktemp(), "history", "history.sqlite")
        os.mkdir(os.path.dirname(os.path.dirname(self.path)))
        self.history = self.made()

    def made(self) -> History:
        history = History(HistoryFile(self.path), run=at_once, wall_time=lambda: self.now)
        self.successResultOf(history.load())
        return history

    def tell(self, after: float = 0.0, *, queue: int = 0, accepted: int = 0) -> None:
        self.now += after
        self.metrics.count(table.MESSAGES_ACCEPTED, by=accepted)
        self.history.take(
            Status(
                hostname="mail.example",
                version="1",
                started_at=NOON,
                now=self.now,
                queue={"recipients": queue},
                counters={},
                metrics=self.metrics.snapshot(),
            )
        )

    def accepted(self, span: Any = HOUR, history: History | None = None) -> dict[int, int]:
        slots = (history or self.history).slots(span, self.now)
        return {int(at - NOON): slot.accepted for at, slot in slots if slot is not None}


class Slots(HistoryTestCase):
    def test_what_was_counted_since_the_last_status_is_of_its_minute(self) -> None:
        self.tell(accepted=3)
        self.tell(59, accepted=2)
        self.tell(1, accepted=7)
        self.tell(120)
        self.assertEqual(self.accepted(), {0: 5, 60: 7, 180: 0})

    def test_a_span_has_slots_of_equal_length_up_to_now(self) -> None:
        for span, length, number in ((HOUR, 60, 60), (DAY, 300, 288), (WEEK, 1800, 336)):
            times = [at for at, _ in self.history.slots(span, NOON + 59)]
            self.assertEqual((len(times), times[-1]), (number, NOON))
            self.assertEqual({b - a for a, b in pairwise(times)}, {length})

    def test_longer_slots_add_up_shorter_ones_and_have_the_longest_queue(self) -> None:
        for queue in (1, 9, 4):
            self.tell(60, accepted=2, queue=queue)
        for span in (DAY, WEEK):
            self.assertEqual(self.accepted(span), {0: 6})
            slot = self.history.slots(span, self.now)[-1][1]
            assert slot is not None
            self.assertEqual((slot.queue, slot.minutes), (9, 3))

    def test_counters_that_begin_anew_are_no_negative_numbers(self) -> None:
        self.tell(accepted=9)
        self.metrics = Metrics()
        self.tell(60, accepted=1)
        self.assertEqual(self.accepted(), {0: 9, 60: 0})

    def test_delays_are_estimated_within_their_bucket(self) -> None:
        self.assertIsNone(Slot().delay(0.5))
        for seconds in (0.2, 0.2, 0.2, 20.0):
            self.metrics.observe(table.DELIVERY_DELAY, seconds, "smtp")
        self.tell()
        slot = self.history.slots(HOUR, self.now)[-1][1]
        assert slot is not None
        self.assertAlmostEqual(slot.delay(0.5) or 0, 0.1 + 0.4 * 2 / 3)
        self.assertAlmostEqual(slot.delay(0.95) or 0, 15 + 45 * 0.8)
        self.metrics.observe(table.DELIVERY_DELAY, 1e9, "smtp")
        self.tell(60)
        slot = self.history.slots(HOUR, self.now)[-1][1]
        assert slot is not None
        self.assertEqual(slot.delay(0.5), 86400.0)


class File(HistoryTestCase):
    def test_slots_outlast_a_restart_within_a_minute(self) -> None:
        self.tell(accepted=3)
        self.tell(70, accepted=2)
        self.tell(5, accepted=1)
        self.successResultOf(self.history.flush())
        self.history, self.metrics = self.made(), Metrics()
        self.tell(5, accepted=10)
        self.assertEqual(self.accepted(), {0: 3, 60: 13})
        self.assertEqual(self.accepted(WEEK), {0: 16})
        self.successResultOf(self.history.flush())
        self.assertEqual(self.accepted(history=self.made()), {0: 3, 60: 13})

    def test_the_file_and_the_memory_are_bounded(self) -> None:
        row = Slot(accepted=1).write()
        minutes = [int(NOON) - 60 * each for each in range(3000)]
        longer = [int(NOON) - 600 * each for each in range(3000)]
        rows = {(60, at): row for at in minutes} | {(600, at): row for at in longer}
        HistoryFile(self.path).write(rows, NOON)
        self.assertEqual(len(HistoryFile(self.path).read()), 1441 + 1009)
        self.history = self.made()
        self.assertEqual(sum(self.accepted(DAY).values()), 287 * 5 + 1)
        self.assertEqual(sum(self.accepted(WEEK).values()), 335 * 3 + 1)
        self.tell(8 * 86_400, accepted=1)
        self.successResultOf(self.history.flush())
        self.assertEqual(len(HistoryFile(self.path).read()), 2)
        self.assertEqual(sum(self.accepted(WEEK).values()), 1)
        mode = os.stat(self.path).st_mode
        self.assertEqual(mode & 0o077, 0)

    def test_slots_of_a_clock_that_was_ahead_are_forgotten(self) -> None:
        self.tell(30 * 86_400.0)
        self.now = NOON
        self.tell(accepted=1)
        self.successResultOf(self.history.flush())
        self.assertEqual(sorted(at for _, at in HistoryFile(self.path).read()), [NOON, NOON])

    def test_rows_that_cannot_be_read_are_left_out(self) -> None:
        self.tell(accepted=3)
        self.successResultOf(self.history.flush())
        database = sqlite3.connect(self.path)
        with database:
            for place, text in enumerate(("{}", "[]", '{"x": 1, "delays": []}', "\x00")):
                database.execute("INSERT INTO slot VALUES (60, ?, ?)", (place, text))
        database.close()
        self.assertEqual(len(HistoryFile(self.path).read()), 2)

    def test_a_disk_that_refuses_is_logged_once_and_written_later(self) -> None:
        said: list[str] = []
        self.patch(History, "_log", _Log(said))
        os.rename(os.path.dirname(self.path), f"{os.path.dirname(self.path)}.away")
        for _ in range(3):
            self.tell(60, accepted=1)
        self.assertEqual(len(said), 1)
        self.assertEqual(self.accepted(), {60: 1, 120: 1, 180: 1})
        os.rename(f"{os.path.dirname(self.path)}.away", os.path.dirname(self.path))
        self.tell(60, accepted=1)
        self.assertEqual(self.accepted(history=self.made()), {60: 1, 120: 1, 180: 1, 240: 1})
        self.assertEqual(len(said), 1)


class _Log:
    def __init__(self, said: list[str]) -> None:
        self._said = said

    def warn(self, format: str, **values: Any) -> None:
        self._said.append(format.format(**values))
