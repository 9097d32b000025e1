"""Daily reports: when they are sent, to whom, and how often."""

import gzip
import os
import random  # noqa: TID251 - seeded, so every run draws the same
from collections import Counter
from collections.abc import Sequence
from email import message_from_bytes, policy

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from tests.logs import logged_lines
from tests.policy.dmarc.names import Names
from tests.reports.dmarc.rows import RECORD, row
from tests.reports.execution import Executor
from tests.tidy import TidyTestCase
from twisted_mta.interfaces import Refused
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.reply import Reply
from twisted_mta.policy.dmarc.observation import Row
from twisted_mta.reports.counters import CountersFile, Counts
from twisted_mta.reports.daily import DailyReports, Reporter
from twisted_mta.reports.dmarc.reports import AggregateReports
from twisted_mta.reports.dmarc.rows import ROWS
from twisted_mta.system.lasting import Lasting

DAY = 86_400
HOUR = 3_600


class DailyTestCase(TidyTestCase):
    def setUp(self) -> None:
        directory = self.mktemp()
        os.mkdir(directory)
        self.path = os.path.join(directory, "counters.sqlite")
        self.clock, self.executor = Clock(), Executor()
        self.names = Names({"_dmarc.example.com": RECORD.decode()})
        self.sent: list[tuple[Mailbox, bytes, Sequence[Mailbox]]] = []
        self.refusal: Reply | None = None
        self.reporter: Reporter | None = Reporter("Mx", Mailbox.parse("postmaster@mx.example"))
        self.file = CountersFile(self.path, ROWS)
        self.file.make()

    def now(self) -> float:
        return 101 * DAY + self.clock.seconds()  # tests begin at midnight

    def send(self, sender: Mailbox, content: bytes, to: Sequence[Mailbox]) -> Deferred[None]:
        if self.refusal is not None:
            return fail(Refused(self.refusal))
        self.sent.append((sender, content, to))
        return succeed(None)

    def start(self, seed: int = 1) -> DailyReports[Row]:
        reports = DailyReports(
            AggregateReports(
                send=self.send,
                resolver=self.names,
                executor=self.executor,
                wall_time=self.now,
            ),
            CountersFile(self.path, ROWS),
            reporter=lambda: self.reporter,
            executor=self.executor,
            clock=self.clock,
            wall_time=self.now,
            random=random.Random(seed),
        )
        reports.start()
        self.addCleanup(lambda: self.successResultOf(reports.stop()))
        return reports

    def count(self, domain: str = "example.com", record: bytes = RECORD, day: int = 100) -> None:
        self.file.add({(day, domain): Counts(record, Counter([row()]))})

    def pass_hours(self, hours: float) -> None:
        for _ in range(int(hours * 60)):
            self.clock.advance(60)


class Sending(DailyTestCase):
    def test_each_domain_gets_one_report_within_two_hours_of_the_end_of_the_day(self) -> None:
        self.names.texts["_dmarc.example.net"] = ["v=DMARC1; p=none; rua=mailto:a@example.net"]
        self.count()
        self.count(
            "example.net", b"v=DMARC1; p=none; rua=mailto:a@example.net,mailto:b@example.net"
        )
        self.count("example.net", b"v=DMARC1; p=none; rua=mailto:a@example.net", day=101)
        self.start()
        self.pass_hours(0.5)
        self.assertEqual(self.sent, [])
        self.pass_hours(22)
        self.assertEqual(
            [[str(each) for each in to] for _, _, to in self.sent],
            [["reports@example.com"], ["a@example.net", "b@example.net"]],
        )
        self.pass_hours(5)
        self.assertEqual(len(self.sent), 3)

    def test_several_processes_send_one_report(self) -> None:
        self.count()
        for seed in range(4):
            self.start(seed)
        self.pass_hours(20)
        self.assertEqual(len(self.sent), 1)

    def test_a_report_tells_what_was_counted(self) -> None:
        lines = logged_lines(self, "DMARC report ")
        self.count()
        self.count()
        self.start()
        self.pass_hours(3)
        ((sender, content, _),) = self.sent
        self.assertEqual(str(sender), "postmaster@mx.example")
        message = message_from_bytes(content, policy=policy.default)
        _, data = message.iter_parts()
        report = gzip.decompress(data.get_content()).decode()
        self.assertIn("<count>2</count>", report)
        self.assertIn(f"<begin>{100 * DAY}</begin>", report)
        (id,) = [line.split(" ")[2] for line in lines]
        self.assertIn(f"<report_id>{id}</report_id>", report)
        self.assertIn(id, message["Subject"])
        self.assertEqual(
            lines, [f"DMARC report {id} on example.com to reports@example.com: 2 messages"]
        )

    def test_without_agreement_there_is_no_report(self) -> None:
        self.count(record=b"v=DMARC1; p=none; rua=mailto:a@other.example")
        self.start()
        self.pass_hours(8)
        self.assertEqual(self.sent, [])
        self.assertIsNone(self.file.claim(101, 1e12, "x"))

    def test_none_are_sent_while_they_are_turned_off(self) -> None:
        self.count()
        self.reporter, reporter = None, self.reporter
        self.start()
        self.pass_hours(8)
        self.assertEqual(self.sent, [])
        self.reporter = reporter
        self.pass_hours(1)
        self.assertEqual(len(self.sent), 1)

    def test_a_pause_ends_with_the_next_start(self) -> None:
        self.names.hold("_dmarc.example.com")
        self.count()
        reports = self.start()
        self.pass_hours(3)
        reports.pause()
        reports.start()
        self.pass_hours(1)
        reports.pause()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.names.release("_dmarc.example.com")
        self.assertEqual(len(self.sent), 1)  # the one that was under way
        self.count("example.net", b"v=DMARC1; rua=mailto:a@example.net")
        self.pass_hours(3)
        self.assertEqual(len(self.sent), 1)
        reports.start()
        self.pass_hours(1)
        self.assertEqual(len(self.sent), 2)


class Failures(DailyTestCase):
    def test_a_queue_that_refuses_gets_the_same_report_later(self) -> None:
        lines = logged_lines(self, "has to wait")
        self.refusal = Reply.of(452, "3.1", "full")
        self.count()
        self.start()
        self.pass_hours(3)
        self.assertEqual(lines[0], "the DMARC report on example.com has to wait: 452 4.3.1 full")
        self.refusal = None
        self.pass_hours(4)
        self.assertEqual(len(self.sent), 1)

    def test_a_failure_of_the_dns_delays_the_report_for_a_day_at_most(self) -> None:
        self.count(record=b"v=DMARC1; rua=mailto:a@example.com,mailto:b@other.example")
        self.names.fail("example.com._report._dmarc.other.example")
        self.start()
        self.pass_hours(22)
        self.assertEqual(self.sent, [])
        self.pass_hours(5)
        self.assertEqual(
            [[str(each) for each in to] for _, _, to in self.sent], [["a@example.com"]]
        )

    def test_a_failure_of_the_dns_may_end(self) -> None:
        self.count()
        self.names.fail("_dmarc.mail.example.com")
        self.start()
        self.count(record=b"v=DMARC1; rua=mailto:a@mail.example.com")
        self.pass_hours(4)
        self.assertEqual(self.sent, [])
        self.names.mend("_dmarc.mail.example.com")
        self.pass_hours(2)
        self.assertEqual(len(self.sent), 1)

    def test_a_file_that_cannot_be_read_is_tried_again(self) -> None:
        lines = logged_lines(self, "have to wait")
        self.count()
        hidden = f"{self.path}.hidden"
        self.start()
        os.rename(self.path, hidden)
        os.mkdir(self.path)
        self.pass_hours(3)
        self.assertIn("DMARC reports have to wait: ", lines[0])
        os.rmdir(self.path)
        os.rename(hidden, self.path)
        self.pass_hours(1)
        self.assertEqual(len(self.sent), 1)

    def test_a_stop_gives_up_the_report_under_way_and_the_next_start_sends_it(self) -> None:
        self.count()
        self.names.hold("_dmarc.example.com")
        reports = self.start()
        self.pass_hours(3)
        self.successResultOf(reports.stop())
        self.names.release("_dmarc.example.com")
        self.assertEqual(self.sent, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.start()
        self.pass_hours(3)
        self.assertEqual(len(self.sent), 1)


class StoppedDuringACommit(DailyTestCase):
    """The commit cannot be cancelled: its report is sent, and no other is begun."""

    def setUp(self) -> None:
        super().setUp()
        self.commits: list[Lasting[None]] = []

    def send(self, sender: Mailbox, content: bytes, to: Sequence[Mailbox]) -> Deferred[None]:
        self.commits.append(Lasting())
        return self.commits[-1]

    def test_a_daily_report_is_not_sent_again(self) -> None:
        self.count()
        reports = self.start()
        self.pass_hours(3)
        stopping = reports.stop()
        self.commits[0].callback(None)
        self.successResultOf(stopping)
        self.start()
        self.pass_hours(3)
        self.assertEqual(len(self.commits), 1)

    def test_an_operator_gets_the_reports_that_were_sent(self) -> None:
        self.names.texts["_dmarc.example.net"] = [RECORD.decode()]
        self.count()
        self.count("example.net")
        reports = self.start()
        asked = reports.send_now(None)
        self.successResultOf(reports.stop())
        self.commits[0].callback(None)
        ((domain, attempt),) = self.successResultOf(asked)
        self.assertEqual((domain, attempt.done), ("example.com", True))
        self.assertEqual(len(self.commits), 1)
