"""DMARC on mail of strangers: the field, the reply, the folder, and the report."""

from __future__ import annotations

import gzip
from typing import Any, ClassVar

from twisted_mta.config import PolicySettings
from twisted_mta.mail.address import Mailbox
from twisted_mta.testing import MemoryMTA

from .strangers import STRANGER, StrangersTestCase, field


class DMARCTests(StrangersTestCase):
    settings: ClassVar[dict[str, Any]] = {"local_domains": ("here.example",)}
    zone = f"""
        sender.example. TXT "v=spf1 ip4:{STRANGER} -all"
        other.example.  TXT "v=spf1 ip4:{STRANGER} -all"
    """

    def mta(self, **settings: Any) -> MemoryMTA:
        return self.started(policy=PolicySettings(**settings))

    def publish(self, mta: MemoryMTA, text: str) -> None:
        mta.zone(f'_dmarc.sender.example. TXT "{text}"')

    def fields(self, mta: MemoryMTA) -> list[str]:
        return [field(mail.raw) for mail in mta.inbox_of("bob@here.example")]

    def say(self, mta: MemoryMTA, *, sender: str, author: str = "ann@sender.example") -> str:
        client = mta.connect(source=STRANGER)
        content = f"From: {author}\r\nSubject: Hi\r\n\r\nHello.\r\n".encode()
        return client.mail(content, "bob@here.example", sender=sender)[-1]

    def test_the_result_stands_in_the_field(self) -> None:
        mta = self.mta()
        self.publish(mta, "v=DMARC1; p=reject")
        self.say(mta, sender="ann@sender.example")
        self.assertIn(
            "dmarc=pass (p=reject at sender.example) header.from=sender.example",
            self.fields(mta)[0],
        )
        self.assertEqual(self.say(mta, sender="ann@other.example")[:3], "250")
        self.assertIn(
            "dmarc=fail (p=reject at sender.example) header.from=sender.example"
            " policy.dmarc=reject",
            self.fields(mta)[1],
        )

    def test_enforcement_refuses_and_quarantines(self) -> None:
        mta = self.mta(dmarc="enforce")
        self.publish(mta, "v=DMARC1; p=reject")
        reply = self.say(mta, sender="ann@other.example")
        self.assertTrue(reply.startswith("550 5.7.26 "), reply)
        self.assertEqual(self.say(mta, sender="ann@sender.example")[:3], "250")
        self.publish(mta, "v=DMARC1; p=quarantine")
        self.assertEqual(self.say(mta, sender="ann@other.example")[:3], "250")
        self.assertEqual(len(mta.inbox_of("bob@here.example")), 1)
        junk = f"{mta.mta.config.maildir}/here.example/bob/.Junk/new"
        self.assertEqual(len(mta.files.names(junk)), 1)

    def test_a_failure_of_the_dns_refuses_nothing(self) -> None:
        mta = self.mta(dmarc="enforce")
        self.resolver.fail("_dmarc.sender.example")
        self.assertEqual(self.say(mta, sender="ann@other.example")[:3], "250")
        self.assertIn(
            'dmarc=temperror reason="no answer for _dmarc.sender.example"',
            self.fields(mta)[0],
        )

    def test_records_that_take_too_long_refuse_nothing(self) -> None:
        mta = self.mta(dmarc="enforce")
        self.resolver.hold("_dmarc.sender.example")
        client = mta.connect(source=STRANGER)
        client.say("MAIL FROM:<ann@other.example>", "RCPT TO:<bob@here.example>", "DATA")
        client.say("From: ann@sender.example", "", ".")
        mta.advance(40)
        self.assertIn('dmarc=temperror reason="no answer in time"', self.fields(mta)[0])
        self.resolver.release("_dmarc.sender.example")

    def test_a_domain_gets_a_report_on_the_mail_in_its_name(self) -> None:
        mta = self.mta(
            dmarc="enforce", dmarc_reports=True, report_from=Mailbox.parse("noc@here.example")
        )
        self.publish(mta, "v=DMARC1; p=reject; rua=mailto:reports@here.example")
        mta.zone("sender.example._report._dmarc.here.example. TXT v=DMARC1")
        self.say(mta, sender="ann@other.example")
        self.say(mta, sender="ann@sender.example")
        self.say(mta, sender="ann@sender.example")
        mta.advance(hours=28)
        (mail,) = mta.inbox_of("reports@here.example")
        (data,) = mail.attachments
        report = gzip.decompress(b"".join(data.chunks())).decode()
        for part in (
            "<disposition>reject</disposition>\n<dkim>fail</dkim>\n<spf>fail</spf>",
            "<count>2</count>\n<policy_evaluated>\n<disposition>pass</disposition>",
            f"<source_ip>{STRANGER}</source_ip>",
            "<domain>other.example</domain>\n<scope>mfrom</scope>\n<result>pass</result>",
        ):
            self.assertIn(part, report)
