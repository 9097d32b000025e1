"""The report of a process, made from an agent at work in memory."""

import errno
import os
from functools import partial

from tests.logs import logged_lines
from tests.tidy import TidyTestCase
from twisted_mta.admin.report import Connections, ProcessReport
from twisted_mta.admin.reporter import process_report
from twisted_mta.admin.status import Status
from twisted_mta.agent import health
from twisted_mta.interfaces import Space
from twisted_mta.system import accepting
from twisted_mta.telemetry.metrics import table
from twisted_mta.testing.files import UnsyncedFiles
from twisted_mta.testing.memory_mta import MemoryMTA

MAIL = b"Subject: Hello\r\n\r\nGood morning!\r\n"
LARGE = MAIL + b"0123456789abcdef\r\n" * 10_000
NAME = "smtp tcp 127.0.0.1:2525"


class Reading(TidyTestCase):
    def setUp(self) -> None:
        self.files = UnsyncedFiles()
        self.mta = MemoryMTA(
            os.path.abspath(self.mktemp()),
            files=self.files,
            routes=(("next.example", "smtp://192.0.2.1"),),
        )
        self.mta.start()
        self.addCleanup(lambda: self.mta.stop() if self.mta.mta.running else None)
        self.agent = self.mta.mta.agent

    def report(self) -> ProcessReport:
        return process_report(self.agent, pid=1, state="ready", names=[NAME], number=3)

    def test_a_report_counts_messages_connections_and_outcomes(self) -> None:
        self.mta.submit_by_smtp(MAIL, "bob@localhost")
        self.mta.submit_by_smtp(MAIL, "bob@next.example")
        report = self.report()
        self.assertEqual((report.number, report.state, report.queue_open), (3, "ready", True))
        self.assertEqual((report.queue["messages"], report.queue["deferred"]), (1, 1))
        self.assertEqual([each.state for each in report.recent], ["deferred", "delivered"])
        self.assertEqual(report.connections[NAME].taken, 2)
        total = report.metrics.total
        self.assertEqual(total(table.MESSAGES_ACCEPTED), 2)
        self.assertEqual(total(table.CONNECTIONS_TAKEN, kind="smtp"), 2)
        self.assertEqual(total(table.OUTCOMES, outcome="delivered", transport="maildir"), 1)
        self.assertGreaterEqual(total(table.COMMIT_OPERATIONS), total(table.COMMIT_BATCHES))
        self.assertGreater(total(table.COMMIT_BATCHES), 0)
        self.assertEqual(ProcessReport.from_json(report.to_json()), report)

    def test_open_connections_are_reported(self) -> None:
        self.mta.connect()
        self.assertEqual(self.report().connections, {NAME: Connections(1, 1, 1000)})

    def test_a_full_disk_is_a_trouble_until_it_has_room_again(self) -> None:
        self.assertEqual(self.report().troubles, ())
        self.files.capacity = 1000
        self.mta.advance(seconds=2)
        (full,) = self.report().troubles
        self.assertEqual((full.kind, full.stops), ("disk", True))
        self.assertIn(" octets of the disk are free, and minimum_free_disk is ", full.text)
        self.assertEqual(self.mta.status().unready, full.text)
        self.files.capacity = None
        self.mta.advance(seconds=2)
        self.assertEqual(self.report().troubles, ())

    def test_a_shortage_of_descriptors_for_connections_is_a_trouble(self) -> None:
        probe = os.dup(0)
        os.close(probe)
        self.patch(accepting, "limit", lambda: probe * 8 // 7 - 2)
        (scarce,) = self.report().troubles
        self.assertEqual((scarce.kind, scarce.stops), ("descriptors", True))
        self.assertTrue(scarce.text.endswith("connections wait"), scarce.text)
        self.patch(accepting, "limit", lambda: probe * 2)
        self.assertEqual(self.report().troubles, ())

    def test_a_trouble_is_logged_and_told_to_watchers_with_its_duration(self) -> None:
        lines = logged_lines(self, "disk: ")
        seen: list[Status] = []
        self.mta.mta.watch(seen.append)
        self.files.capacity = 1000
        self.mta.advance(seconds=2)
        began = self.mta.status().now
        self.mta.advance(seconds=60)
        (full,) = self.mta.status().troubles
        self.assertEqual((full.since, round(full.seconds)), (began, 60))
        self.assertTrue(seen[-1].brief.startswith("not ready: "), seen[-1].brief)
        self.files.capacity = None
        self.mta.advance(seconds=2)
        self.assertEqual(self.mta.status().troubles, ())
        self.assertEqual(seen[-1].brief, "ready")
        begun, over = lines
        self.assertIn("minimum_free_disk is ", begun)
        self.assertIn(full.remedy, begun)
        self.assertTrue(over.startswith("disk: over after 62 s: "), over)

    def test_descriptors_that_are_nearly_all_in_use_are_a_warning(self) -> None:
        self.patch(health, "descriptors_for_connections", lambda: (114, 100))
        for used, severity in ((89, None), (90, "warning"), (99, "warning"), (100, "critical")):
            self.patch(health, "lowest_free_descriptor", partial(int, used))
            self.assertEqual(self.kinds().get("descriptors"), severity, used)

    def test_an_exhausted_quota_is_a_trouble(self) -> None:
        self.files.fail_next("create", OSError(errno.EDQUOT, "Disk quota exceeded"))
        self.assertEqual(self.mta.submit_by_smtp(LARGE, "bob@localhost")[:9], "452 4.3.1")
        (full,) = self.report().troubles
        self.assertEqual(full.text, "the queue cannot be written: Disk quota exceeded")
        self.mta.advance(seconds=6)
        self.report()  # which tries to write again
        self.mta.advance(seconds=1)
        self.assertEqual(self.report().troubles, ())

    def kinds(self) -> dict[str, str]:
        """Return the severities of all troubles, by kind."""
        return {each.kind: each.severity for each in self.report().troubles}

    def test_a_disk_that_is_nearly_full_is_a_warning(self) -> None:
        self.agent.capacity.minimum_free = 1 << 39
        self.mta.advance(seconds=2)
        self.assertEqual(self.kinds(), {})
        self.agent.capacity.minimum_free = (1 << 39) + 1
        self.mta.advance(seconds=2)
        (low,) = self.report().troubles
        self.assertEqual((low.kind, low.severity, low.stops), ("disk", "warning", False))
        self.assertIn("and mail is refused below 549,755,813,889", low.text)

    def test_few_inodes_and_a_full_file_system_of_maildirs_are_troubles(self) -> None:
        maildir = self.mta.mta.config.maildir
        full = Space(1000, 0, 7)
        self.patch(
            self.files,
            "space",
            lambda path: full if path == maildir else Space(1 << 40, 999, 0),
        )
        self.mta.advance(seconds=2)
        self.report()
        found = [(each.subject, each.severity) for each in self.report().troubles]
        self.assertEqual(
            found,
            [("inodes", "warning"), ("inodes of Maildirs", "critical"), ("Maildirs", "critical")],
        )
        self.assertFalse(any(each.stops for each in self.report().troubles))
        numbers = self.report().metrics
        self.assertEqual(numbers.total(table.DISK_FREE, of="maildir"), 1000)
        self.assertEqual(numbers.total(table.INODES_FREE, of="state"), 999)

    def test_maildirs_that_cannot_be_looked_at_are_no_trouble(self) -> None:
        self.files.fail_next("free", OSError(errno.EIO, "Input/output error"))
        self.mta.advance(seconds=2)
        self.report()
        self.assertEqual(self.kinds(), {})

    def test_old_mail_is_a_trouble_unless_it_is_on_hold(self) -> None:
        self.mta.submit_by_smtp(MAIL, "bob@next.example")
        self.mta.advance(seconds=86_000)
        self.report()
        self.mta.advance(seconds=60)
        self.assertNotIn("queue_age", self.kinds())
        self.mta.advance(seconds=600)
        self.report()
        self.mta.advance(seconds=60)
        (old,) = [each for each in self.report().troubles if each.kind == "queue_age"]
        self.assertRegex(old.text, r"^the oldest message, \w{13}, waits since 20")
        self.assertNotRegex(old.brief, r"\w{13}")

    def test_tables_that_are_nearly_full_are_troubles(self) -> None:
        self.assertEqual(self.kinds(), {})
        self.patch(self.agent.memory, "_most", 10)
        for number in range(9):
            self.agent.memory.remember(f"mx{number}.example", 25)
        (table_,) = self.report().troubles
        self.assertEqual(table_.text, "9 of 10 entries of hosts with TLS are in use")

    def test_memory_and_descriptors_are_measured(self) -> None:
        total = self.report().metrics.total
        self.assertGreater(total(table.MEMORY), 1 << 20)
        self.assertGreater(total(table.DESCRIPTORS), 2)
        self.assertGreater(total(table.DESCRIPTORS_MOST), total(table.DESCRIPTORS))

    def test_early_data_of_clients_is_counted(self) -> None:
        client = self.mta.connect()
        client.say("EHLO client.example\r\nNOOP")
        self.assertEqual(self.report().metrics.total(table.EARLY_DATA, kind="smtp"), 1)

    def test_the_queue_is_reported_closed_after_the_stop(self) -> None:
        self.mta.stop()
        self.assertFalse(self.report().queue_open)
