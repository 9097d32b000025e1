"""DMARC on mail of strangers: the field, the reply, the folder, and the report."""

from __future__ import annotations

import gzip
from email import message_from_bytes, policy
from typing import Any

from tests.mailflow.test_authentication import STRANGER, field
from tests.tidy import TidyTestCase
from twisted_mta.config import PolicySettings
from twisted_mta.mail.address import Mailbox
from twisted_mta.testing.memory_mta import MemoryMTA
from twisted_mta.testing.resolver import FakeResolver


class DMARCTests(TidyTestCase):
    def setUp(self) -> None:
        self.resolver = FakeResolver(
            texts={
                "sender.example": [f"v=spf1 ip4:{STRANGER} -all"],
                "other.example": [f"v=spf1 ip4:{STRANGER} -all"],
            }
        )

    def mta(self, **settings: Any) -> MemoryMTA:
        mta = MemoryMTA(
            self.mktemp(),
            resolver=self.resolver,
            local_domains=("here.example",),
            policy=PolicySettings(**settings),
        )
        self.addCleanup(mta.stop)
        mta.start()
        return mta

    def publish(self, text: str) -> None:
        self.resolver.texts["_dmarc.sender.example"] = [text]

    def say(self, mta: MemoryMTA, *, sender: str, author: str = "ann@sender.example") -> str:
        client = mta.connect(source=STRANGER)
        content = f"From: {author}\r\nSubject: Hi\r\n\r\nHello.\r\n".encode()
        return client.mail(content, "bob@here.example", sender=sender)[-1]

    def test_the_result_stands_in_the_field(self) -> None:
        self.publish("v=DMARC1; p=reject")
        mta = self.mta()
        self.say(mta, sender="ann@sender.example")
        self.assertIn(
            "dmarc=pass (p=reject at sender.example) header.from=sender.example",
            field(mta.mail("bob", "here.example")[0]),
        )
        self.assertEqual(self.say(mta, sender="ann@other.example")[:3], "250")
        self.assertIn(
            "dmarc=fail (p=reject at sender.example) header.from=sender.example"
            " policy.dmarc=reject",
            field(mta.mail("bob", "here.example")[1]),
        )

    def test_enforcement_refuses_and_quarantines(self) -> None:
        mta = self.mta(dmarc="enforce")
        self.publish("v=DMARC1; p=reject")
        reply = self.say(mta, sender="ann@other.example")
        self.assertTrue(reply.startswith("550 5.7.26 "), reply)
        self.assertEqual(self.say(mta, sender="ann@sender.example")[:3], "250")
        self.publish("v=DMARC1; p=quarantine")
        self.assertEqual(self.say(mta, sender="ann@other.example")[:3], "250")
        self.assertEqual(len(mta.mail("bob", "here.example")), 1)
        junk = f"{mta.mta.config.maildir}/here.example/bob/.Junk/new"
        self.assertEqual(len(mta.files.names(junk)), 1)

    def test_a_failure_of_the_dns_refuses_nothing(self) -> None:
        mta = self.mta(dmarc="enforce")
        self.resolver.fail("_dmarc.sender.example")
        self.assertEqual(self.say(mta, sender="ann@other.example")[:3], "250")
        self.assertIn(
            'dmarc=temperror reason="no answer for _dmarc.sender.example"',
            field(mta.mail("bob", "here.example")[0]),
        )

    def test_records_that_take_too_long_refuse_nothing(self) -> None:
        mta = self.mta(dmarc="enforce")
        self.resolver.hold("_dmarc.sender.example")
        client = mta.connect(source=STRANGER)
        client.say("MAIL FROM:<ann@other.example>", "RCPT TO:<bob@here.example>", "DATA")
        client.say("From: ann@sender.example", "", ".")
        mta.advance(40)
        self.assertIn(
            'dmarc=temperror reason="no answer in time"', field(mta.mail("bob", "here.example")[0])
        )
        self.resolver.release("_dmarc.sender.example")

    def test_a_domain_gets_a_report_on_the_mail_in_its_name(self) -> None:
        self.publish("v=DMARC1; p=reject; rua=mailto:reports@here.example")
        self.resolver.texts["sender.example._report._dmarc.here.example"] = ["v=DMARC1"]
        mta = self.mta(
            dmarc="enforce", dmarc_reports=True, report_from=Mailbox.parse("noc@here.example")
        )
        self.say(mta, sender="ann@other.example")
        self.say(mta, sender="ann@sender.example")
        self.say(mta, sender="ann@sender.example")
        for _ in range(28):
            mta.advance(3_600)
        (content,) = mta.mail("reports", "here.example")
        _, data = message_from_bytes(content, policy=policy.default).iter_parts()
        report = gzip.decompress(data.get_content()).decode()
        for part in (
            "<disposition>reject</disposition>\n<dkim>fail</dkim>\n<spf>fail</spf>",
            "<count>2</count>\n<policy_evaluated>\n<disposition>pass</disposition>",
            f"<source_ip>{STRANGER}</source_ip>",
            "<domain>other.example</domain>\n<scope>mfrom</scope>\n<result>pass</result>",
        ):
            self.assertIn(part, report)
