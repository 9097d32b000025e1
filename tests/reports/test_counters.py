"""Counters of reports on disk, and the batches that go there."""

import os
import sqlite3
from collections import Counter
from collections.abc import Sequence

from twisted.internet.task import Clock

from tests.logs import logged_lines
from tests.reports.dmarc.rows import RECORD, row
from tests.reports.execution import Executor
from tests.tidy import TidyTestCase
from twisted_mta.policy.dmarc.handling import Reason
from twisted_mta.policy.dmarc.identifiers import Signature
from twisted_mta.policy.dmarc.observation import Row
from twisted_mta.reports import observations
from twisted_mta.reports.counters import Batch, Claimed, CountersFile, Counts
from twisted_mta.reports.dmarc.rows import ROWS
from twisted_mta.reports.observations import INTERVAL, Observations

DAY = 86_400


def batch(
    *rows: Row, day: int = 100, domain: str = "example.com", record: bytes = RECORD
) -> Batch[Row]:
    return {(day, domain): Counts(record, Counter(rows))}


class CountersTestCase(TidyTestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.mktemp(), "reports", "counters.sqlite")
        os.makedirs(os.path.dirname(os.path.dirname(self.path)))
        self.file = self.open()

    def open(self, **limits: int) -> CountersFile[Row]:
        file = CountersFile(self.path, ROWS, **limits)
        file.make()
        return file

    def claim(self, now: float = 1_000.0, today: int = 101, id: str = "a1") -> Claimed[Row] | None:
        return self.file.claim(today, now, id)

    def rows(self, claimed: Claimed[Row] | None) -> Sequence[tuple[str, int]]:
        assert claimed is not None
        return [(each.source, count) for each, count in claimed.rows]


class Counting(CountersTestCase):
    def test_a_row_survives_the_way_to_the_disk(self) -> None:
        whole = row(
            "2001:db8::1",
            disposition="quarantine",
            dkim=True,
            reasons=(Reason("mailing_list", "x"),),
            signatures=(Signature("example.com", "s'\x00\ud800", "pass"),),
            spf_domain="example.com",
            spf_result="fail",
        )
        self.assertEqual(ROWS.row(ROWS.text(whole)), whole)
        self.file.add(batch(whole))
        claimed = self.claim()
        assert claimed is not None
        self.assertEqual(claimed.rows, [(whole, 1)])

    def test_counts_of_several_processes_and_batches_add_up(self) -> None:
        other = self.open()
        self.file.add(batch(row("192.0.2.1"), row("192.0.2.2")))
        other.add(batch(row("192.0.2.1"), row("192.0.2.1"), record=b"v=DMARC1; p=none"))
        claimed = self.claim()
        assert claimed is not None
        self.assertEqual(self.rows(claimed), [("192.0.2.1", 3), ("192.0.2.2", 1)])
        self.assertEqual(claimed.record, b"v=DMARC1; p=none")  # the last one

    def test_rows_and_reports_are_limited(self) -> None:
        self.file = self.open(most_rows=2, most_reports=2)
        for number in (1, 2, 3, 3, 1):
            self.file.add(batch(row(f"192.0.2.{number}")))
        claimed = self.claim()
        assert claimed is not None
        self.assertEqual(self.rows(claimed), [("192.0.2.1", 2), ("192.0.2.2", 1)])
        self.assertEqual(claimed.omitted, 2)
        for domain in ("a.example", "b.example"):
            self.file.add(batch(row(), domain=domain))
        claimed = self.claim()
        assert claimed is not None
        self.assertEqual(claimed.domain, "a.example")
        self.assertIsNone(self.claim())

    def test_the_file_is_for_its_owner_alone(self) -> None:
        self.assertEqual(os.stat(self.path).st_mode & 0o777, 0o600)
        self.assertEqual(os.stat(os.path.dirname(self.path)).st_mode & 0o777, 0o700)

    def test_a_file_that_has_gone_is_not_made_again(self) -> None:
        os.unlink(self.path)
        self.file.make()
        self.assertRaises(sqlite3.Error, self.file.add, batch(row()))
        self.assertFalse(os.path.exists(self.path))


class Claiming(CountersTestCase):
    def test_a_report_is_claimed_once_by_one_process(self) -> None:
        self.file.add(batch(row()))
        other = self.open()
        claimed = self.claim()
        assert claimed is not None
        self.assertEqual((claimed.day, claimed.domain, claimed.id), (100, "example.com", "a1"))
        self.assertIsNone(other.claim(101, 1_000.0, "b2"))
        self.file.sent(claimed)
        self.assertIsNone(other.claim(101, 9_000.0, "b2"))

    def test_one_that_was_not_sent_is_claimed_again_with_the_same_id(self) -> None:
        self.file.add(batch(row()))
        self.claim()
        self.assertIsNone(self.claim(now=4_000.0, id="b2"))
        claimed = self.claim(now=5_000.0, id="b2")
        assert claimed is not None
        self.assertEqual(claimed.id, "a1")

    def test_a_wall_clock_that_is_set_back_does_not_hide_it(self) -> None:
        self.file.add(batch(row()))
        self.claim(now=1e9)
        self.assertIsNotNone(self.claim(now=1e9 - 1_000))

    def test_a_day_that_is_not_over_is_not_reported(self) -> None:
        self.file.add(batch(row()))
        self.assertIsNone(self.claim(today=100))

    def test_counts_that_come_late_make_no_second_report(self) -> None:
        self.file.add(batch(row()))
        claimed = self.claim()
        assert claimed is not None
        self.file.sent(claimed)
        self.file.add(batch(row("192.0.2.9")))
        self.assertIsNone(self.claim(now=9_000.0))

    def test_old_days_are_forgotten(self) -> None:
        self.file.add(batch(row()))
        self.assertIsNotNone(self.claim(today=103))
        self.assertIsNone(self.claim(today=104, now=9_000.0))
        with sqlite3.connect(self.path) as database:
            left = database.execute("SELECT (SELECT count(*) FROM count), count(*) FROM report")
            self.assertEqual(left.fetchone(), (0, 0))
        database.close()


class Gathering(CountersTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.clock, self.executor, self.now = Clock(), Executor(), 100.5 * DAY
        self.observations = self.observe()

    def observe(self) -> Observations[Row]:
        return Observations(
            "DMARC", self.file, executor=self.executor, clock=self.clock, wall_time=lambda: self.now
        )

    def add(
        self, source: str = "192.0.2.1", text: bytes = RECORD, domain: str = "example.com"
    ) -> None:
        self.observations.add(domain, row(source), text)

    def counted(self) -> list[tuple[int, Sequence[tuple[str, int]]]]:
        found = []
        while (claimed := self.claim(today=200 if self.now < 0 else 102)) is not None:
            found.append((claimed.day, self.rows(claimed)))
        return found

    def test_observations_are_written_after_a_minute(self) -> None:
        self.add()
        self.add()
        self.clock.advance(INTERVAL - 1)
        self.assertIsNone(self.claim())
        self.clock.advance(1)
        self.assertEqual(self.counted(), [(100, [("192.0.2.1", 2)])])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_message_counts_for_the_day_on_which_it_came(self) -> None:
        self.add()
        self.now += DAY
        self.add("192.0.2.2")
        self.clock.advance(INTERVAL)
        self.assertEqual(self.counted(), [(100, [("192.0.2.1", 1)]), (101, [("192.0.2.2", 1)])])

    def test_the_last_record_counts(self) -> None:
        self.add()
        self.add(text=b"v=DMARC1; p=none")
        self.clock.advance(INTERVAL)
        claimed = self.claim()
        assert claimed is not None
        self.assertEqual(
            (claimed.record, self.rows(claimed)), (b"v=DMARC1; p=none", [("192.0.2.1", 2)])
        )

    def test_a_stop_writes_what_waits(self) -> None:
        self.add()
        self.successResultOf(self.observations.stop())
        self.assertEqual(self.counted(), [(100, [("192.0.2.1", 1)])])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_stop_waits_for_the_write_under_way(self) -> None:
        self.executor.holding = True
        self.add()
        self.clock.advance(INTERVAL)
        self.add("192.0.2.2")
        stopped = self.observations.stop()
        self.assertNoResult(stopped)
        self.executor.release()
        self.successResultOf(stopped)
        self.assertEqual(self.counted(), [(100, [("192.0.2.1", 1), ("192.0.2.2", 1)])])

    def test_counts_wait_while_the_disk_refuses(self) -> None:
        lines = logged_lines(self, "cannot be written")
        hidden = f"{self.path}.hidden"
        os.rename(self.path, hidden)
        self.add()
        for _ in range(3):
            self.clock.advance(INTERVAL)
        self.add()
        os.rename(hidden, self.path)
        self.clock.advance(INTERVAL)
        self.assertEqual(self.counted(), [(100, [("192.0.2.1", 2)])])
        self.assertEqual(len(lines), 1)

    def test_a_disk_that_refuses_at_the_stop_keeps_nothing_waiting(self) -> None:
        os.unlink(self.path)
        self.add()
        self.successResultOf(self.observations.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_rows_in_memory_are_limited(self) -> None:
        self.patch(observations, "MOST_WAITING", 2)
        for number in (1, 2, 3, 1):
            self.add(f"192.0.2.{number}")
        self.add(domain="other.example")
        self.clock.advance(INTERVAL)
        self.assertEqual(self.counted(), [(100, [("192.0.2.1", 2), ("192.0.2.2", 1)])])

    def test_rows_that_wait_for_the_disk_are_limited(self) -> None:
        self.patch(observations, "MOST_WAITING", 2)
        hidden = f"{self.path}.hidden"
        os.rename(self.path, hidden)
        for number in (1, 2, 3):
            self.add(f"192.0.2.{number}")
            self.clock.advance(INTERVAL)
        os.rename(hidden, self.path)
        self.clock.advance(INTERVAL)
        self.assertEqual(self.counted(), [(100, [("192.0.2.1", 1), ("192.0.2.2", 1)])])

    def test_many_rows_are_written_at_once(self) -> None:
        for number in range(2_001):
            self.add(f"2001:db8::{number:x}")
        self.clock.advance(0)
        claimed = self.claim()
        assert claimed is not None
        self.assertEqual(len(claimed.rows), 2_001)
