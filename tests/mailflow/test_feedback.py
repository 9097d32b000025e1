"""Complaint feedback: mail of our users asks for reports, and reports are counted by account."""

from __future__ import annotations

import os
import re
from typing import Any

from tests.logs import logged_lines
from tests.policy.dkim.key_files import write_key
from tests.tidy import TidyTestCase
from twisted_mta.admin.questions import FEEDBACK
from twisted_mta.agent.feedback import FILE
from twisted_mta.config import DKIMKey, FeedbackSettings
from twisted_mta.telemetry.metrics import table
from twisted_mta.testing.memory_mta import MemoryMTA

STRANGER = "203.0.113.9"
MAIL = (
    b"From: shop@us.test\r\nList-Unsubscribe: <https://us.test/u>\r\n"
    b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
    b"Feedback-ID: campaign:shop:us\r\nSubject: Hi\r\n\r\nHello.\r\n"
)
ZONE = f"""
provider.test. TXT "v=spf1 ip4:{STRANGER} -all"
"""


class Feedback(TidyTestCase):
    def mta(self, **settings: Any) -> MemoryMTA:
        self.directory = os.path.abspath(self.mktemp())
        os.makedirs(self.directory)
        key = write_key(os.path.join(self.directory, "key"), number=1)
        given: dict[str, Any] = {
            "feedback": FeedbackSettings(address="fbl@us.test"),
            "dkim_keys": (DKIMKey(domain="us.test", selector="s1", key=key),),
            **settings,
        }
        mta = self.enterContext(MemoryMTA(self.directory, domain="us.test", zone=ZONE, **given))
        self.hop = mta.hop("192.0.2.1")
        return mta

    def sent(self, mta: MemoryMTA, content: bytes = MAIL, account: str | None = "shop") -> bytes:
        """Return a message as a receiver elsewhere has it."""
        mta.submit(content, sender="shop@us.test", recipients=["bob@far.test"], account=account)
        mta.advance(minutes=1)
        return self.hop.received[-1].raw

    def report(self, original: bytes, kind: str = "abuse", number: int = 1) -> bytes:
        header = original.partition(b"\r\n\r\n")[0].partition(b"\n\n")[0]
        return (
            b"From: abuse@provider.test\r\nMessage-ID: <%d@provider.test>\r\nMIME-Version: 1.0\r\n"
            b"Content-Type: multipart/report; report-type=feedback-report; boundary=b\r\n\r\n"
            b"--b\r\nContent-Type: message/feedback-report\r\n\r\n"
            b"Feedback-Type: %b\r\nUser-Agent: x\r\nVersion: 1\r\n"
            b"--b\r\nContent-Type: text/rfc822-headers\r\n\r\n%b\r\n--b--\r\n"
        ) % (number, kind.encode(), header.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))

    def send_report(
        self, mta: MemoryMTA, content: bytes, sender: str = "abuse@provider.test"
    ) -> str:
        client = mta.connect(source=STRANGER)
        reply: str = client.mail(content, "FBL@us.test", sender=sender)[-1]
        client.say("QUIT")
        return reply

    def results(self, mta: MemoryMTA) -> dict[str, int]:
        metrics = mta.status().metrics
        names = ("counted", "unverified", "unknown", "repeated", "unreadable")
        counts = {name: int(metrics.total(table.FEEDBACK, result=name)) for name in names}
        return {name: count for name, count in counts.items() if count}

    def shown(self, mta: MemoryMTA, account: str | None = None) -> Any:
        agent: Any = mta.mta.agent
        return self.successResultOf(FEEDBACK.ask(agent, 0, {"account": account}))


class Asking(Feedback):
    def test_signed_mail_asks_for_reports_and_other_fields_are_left_alone(self) -> None:
        raw = self.sent(self.mta())
        self.assertIn(b"CFBL-Address: fbl@us.test; report=arf", raw)
        self.assertRegex(raw, rb"CFBL-Feedback-ID: [A-Za-z0-9_-]{30,}\r?\n")
        self.assertNotIn(b"shop\r\nCFBL", raw)
        signature = re.sub(rb"\s", b"", raw[raw.index(b"DKIM-Signature") : raw.index(b"Received")])
        for name in (b"Cfbl-Address", b"Cfbl-Feedback-Id", b"List-Unsubscribe", b"Feedback-Id"):
            self.assertIn(name, signature)
        for line in MAIL.partition(b"\r\n\r\n")[0].split(b"\r\n"):
            self.assertEqual(raw.count(line), 1, line)

    def test_fields_of_the_user_stay(self) -> None:
        raw = self.sent(self.mta(), b"CFBL-Address: own@us.test; report=arf\r\n" + MAIL)
        self.assertEqual(raw.count(b"CFBL-"), 1)

    def test_nothing_asks_without_the_settings_or_a_key_of_that_domain(self) -> None:
        self.assertNotIn(b"CFBL-", self.sent(self.mta(feedback=None)))
        self.assertFalse(os.path.exists(os.path.join(self.directory, FILE)))
        self.assertNotIn(b"CFBL-", self.sent(self.mta(dkim_keys=())))
        other = MAIL.replace(b"shop@us.test", b"shop@other.test")
        self.assertNotIn(b"CFBL-", self.sent(self.mta(), other))


class Reports(Feedback):
    def test_a_report_counts_for_its_account_and_is_delivered(self) -> None:
        mta = self.mta()
        log = logged_lines(self, "is a report of")
        original = self.sent(mta)
        self.assertEqual(self.send_report(mta, self.report(original))[:3], "250")
        self.assertEqual(self.results(mta), {"counted": 1})
        self.assertEqual(len(mta.mail("fbl", "us.test")), 1)
        answer = self.shown(mta)
        (account,), (report,) = answer["accounts"], answer["reports"]
        self.assertEqual((account["account"], account["reports"]), ("shop", 1))
        self.assertEqual((report["type"], report["account"]), ("abuse", "shop"))
        self.assertIn(f"about {report['message']} of the account shop", log[0])
        accepted = [each for each in mta.events if each.id == report["message"]]
        self.assertEqual(accepted[0].recipients, ("bob@far.test",))
        self.assertEqual(self.shown(mta, "nobody"), {"accounts": [], "reports": []})

    def test_a_second_copy_does_not_count_and_another_report_does(self) -> None:
        mta = self.mta()
        original = self.sent(mta)
        for number in (1, 1, 2):
            self.send_report(mta, self.report(original, number=number))
        self.assertEqual(self.results(mta), {"counted": 2, "repeated": 1})
        # Without a Message-ID, a copy is not to be told from another report.
        nameless = self.report(original).replace(b"Message-ID:", b"X-Not-An-ID:")
        for _ in range(3):
            self.send_report(mta, nameless)
        self.assertEqual(self.results(mta), {"counted": 3, "repeated": 3})

    def test_a_report_that_nothing_proves_does_not_count(self) -> None:
        mta = self.mta()
        original = self.sent(mta)
        self.send_report(mta, self.report(original), sender="x@nowhere.test")
        client = mta.connect()  # one of our own, of which nothing is examined
        client.mail(self.report(original), "fbl@us.test", sender="ann@us.test")
        self.assertEqual(self.results(mta), {"unverified": 2})
        self.assertEqual(len(mta.mail("fbl", "us.test")), 2)
        self.assertEqual(self.shown(mta)["accounts"], [])

    def test_a_forged_id_and_other_mail_are_delivered_and_do_not_count(self) -> None:
        mta = self.mta()
        original = self.sent(mta)
        forged = re.sub(rb"(CFBL-Feedback-ID: .)..", rb"\1AA", original)
        self.send_report(mta, self.report(forged))
        self.send_report(mta, MAIL)
        self.assertEqual(self.results(mta), {"unknown": 1, "unreadable": 1})
        self.assertEqual(len(mta.mail("fbl", "us.test")), 2)

    def test_ids_and_reports_survive_a_restart_and_a_full_disk_loses_no_mail(self) -> None:
        mta = self.mta()
        original = self.sent(mta)
        mta.crash()
        mta.start()
        self.send_report(mta, self.report(original))
        self.assertEqual(self.shown(mta)["accounts"][0]["account"], "shop")
        with open(os.path.join(self.directory, FILE), "wb") as file:
            file.write(b"no database" * 1000)
        log = logged_lines(self, "not counted: ")
        self.assertEqual(self.send_report(mta, self.report(original, number=2))[:3], "250")
        self.assertEqual(len(log), 1)
        self.assertEqual(len(mta.mail("fbl", "us.test")), 2)
