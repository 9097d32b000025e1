"""Notices, with Postfix as next hop, and read by another parser."""

from __future__ import annotations

import email
import smtplib

from .machine import LOOPBACK, need, run
from .mail import ProgramTestCase, message
from .mta import MTA
from .postfix import Postfix
from .sinks import Sink


def submit_asking(
    port: int,
    recipient: str,
    *rcpt: str,
    mail: tuple[str, ...] = (),
    sender: str = "ann",
    content: bytes = message(),
) -> None:
    """Send a message from a mailbox at localhost with DSN parameters."""
    with smtplib.SMTP(LOOPBACK, port, timeout=60.0) as client:
        client.ehlo("client.example")
        for code, text in (
            client.mail(f"{sender}@localhost", mail),
            client.rcpt(recipient, rcpt),
            client.data(content),
        ):
            if code // 100 != 2:
                raise smtplib.SMTPResponseException(code, text)


class NoticesTestCase(ProgramTestCase):
    def notice(self, mta: MTA) -> str:
        (mail,) = mta.wait_for_mail("localhost", "ann")
        return mail.decode("ascii")


class PostfixBehindUs(NoticesTestCase):
    def begin(self, **settings: str) -> MTA:
        """Start Postfix as next hop; its notices to ann@localhost come back to us."""
        need("postfix")
        sink = self.enterContext(Sink(self.home))
        postfix = Postfix(self.home)
        route = f"*=smtp://{LOOPBACK}:{postfix.port}"
        mta = self.enterContext(MTA(self.home, "--route", route))
        postfix._settings.update(
            relayhost=f"[{LOOPBACK}]:{sink.port}",
            transport_maps=f"inline:{{localhost=smtp:[{LOOPBACK}]:{mta.smtp}}}",
            **settings,
        )
        self.enterContext(postfix)
        self.sink = sink
        return mta

    def test_a_next_hop_with_dsn_gets_the_request_and_sends_the_notice(self) -> None:
        mta = self.begin()
        submit_asking(
            mta.smtp,
            "bob@elsewhere.example",
            "NOTIFY=SUCCESS,FAILURE",
            "ORCPT=rfc822;bob+2Bx@old.example",
            mail=("RET=HDRS", "ENVID=order+2B4711"),
        )
        self.sink.wait_for_messages()
        notice = self.notice(mta)
        self.assertIn("\nReporting-MTA: dns; postfix.example\n", notice)
        self.assertIn("\nOriginal-Envelope-Id: order+4711\n", notice)
        self.assertIn("\nOriginal-Recipient: rfc822;bob+x@old.example\n", notice)
        self.assertIn("\nFinal-Recipient: rfc822; bob@elsewhere.example\n", notice)
        self.assertIn("\nAction: relayed\n", notice)

    def test_for_a_next_hop_without_dsn_we_send_the_notice(self) -> None:
        mta = self.begin(smtpd_discard_ehlo_keywords="dsn")
        submit_asking(mta.smtp, "bob@elsewhere.example", "NOTIFY=SUCCESS", mail=("ENVID=4711",))
        self.sink.wait_for_messages()
        notice = self.notice(mta)
        self.assertIn("\nReporting-MTA: dns; mta.example\n", notice)
        self.assertIn("\nOriginal-Envelope-Id: 4711\n", notice)
        self.assertIn("\nAction: relayed\n", notice)


class AsReformimeReadsIt(NoticesTestCase):
    """Courier's parser, which maildrop uses to filter mail."""

    def test_recipient_and_action_are_read(self) -> None:
        need("reformime")
        sink = self.enterContext(Sink(self.home))
        route = f"*=smtp://{LOOPBACK}:{sink.port}"
        mta = self.enterContext(MTA(self.home, "--route", route))
        for sender, recipient, action in (
            ("ann", "bob@localhost", "delivered"),
            ("bea", "bob@elsewhere.example", "relayed"),
        ):
            asked = ("NOTIFY=SUCCESS", "ORCPT=rfc822;old@x.example")
            submit_asking(mta.smtp, recipient, *asked, sender=sender)
            (mail,) = mta.wait_for_mail("localhost", sender)
            read = run("reformime", "-d", text=mail.decode("ascii"))
            self.assertEqual(read.stdout.split(), [action, recipient])
            read = run("reformime", "-D", text=mail.decode("ascii"))
            self.assertEqual(read.stdout.split(), [action, "old@x.example"])

    def test_a_notice_outside_ascii_is_read(self) -> None:
        """It reads both, whatever the encoding of the parts beside them."""
        need("reformime")
        mta = self.enterContext(MTA(self.home))
        header, body = message().split(b"\r\n\r\n", 1)
        for sender, content in (
            ("ann", header + b"\r\nX-Field: sch\xf6n\r\n\r\n" + body),
            ("bea", header + b"\r\n\r\nsch\xf6n " + body),
        ):
            submit_asking(
                mta.smtp,
                "bob@localhost",
                "NOTIFY=SUCCESS",
                mail=("BODY=8BITMIME",),
                sender=sender,
                content=content,
            )
            (mail,) = mta.wait_for_mail("localhost", sender)
            text = mail.decode("ascii")
            self.assertEqual(run("reformime", "-d", text=text).stdout.split()[0], "delivered")
            returned = email.message_from_string(text).get_payload()[-1]
            self.assertEqual(returned.get_content_type(), "text/rfc822-headers")
            as_it_was = content.partition(b"\r\n\r\n")[0].replace(b"\r\n", b"\n")
            self.assertTrue(returned.get_payload(decode=True).rstrip(b"\n").endswith(as_it_was))
