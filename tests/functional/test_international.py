"""SMTPUTF8: addresses and header fields outside ASCII, with servers that support it or not."""

import smtplib

from .dovecot import Dovecot
from .machine import LOOPBACK, need, run
from .mail import ProgramTestCase, as_stored, message, trusting
from .mta import MTA
from .postfix import Postfix

CONTENT = message("x").replace(b"Subject: x", "Subject: schöne Grüße".encode())
ASCII = message()


def submit(port: int, content: bytes, *recipients: str, sender: str) -> None:
    """Send a message with SMTPUTF8 by smtplib."""
    with smtplib.SMTP(LOOPBACK, port, timeout=120.0) as client:
        client.ehlo("client.example")
        if client.has_extn("starttls"):
            client.starttls(context=trusting())
            client.ehlo("client.example")
        refused = client.sendmail(
            sender, recipients, content, mail_options=["SMTPUTF8", "BODY=8BITMIME"]
        )
    if refused:
        raise smtplib.SMTPRecipientsRefused(refused)


class Clients(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.mta = self.enterContext(MTA(self.home, "--local-domain", "bücher.example"))

    def test_smtplib_reaches_a_mailbox_outside_ascii(self) -> None:
        submit(self.mta.smtp, CONTENT, "josé@bücher.example", sender="jürgen@bücher.example")
        (mail,) = self.mta.wait_for_mail("xn--bcher-kva.example", "josé")
        self.assertTrue(mail.endswith(as_stored(CONTENT)))
        header = " ".join(mail.partition(b"\n\n")[0].decode().split())
        self.assertIn("Return-Path: <jürgen@xn--bcher-kva.example>", header)
        self.assertIn(" with UTF8SMTPS id ", header)
        self.assertIn(" for <josé@bücher.example>; ", header)

    def test_curl_reaches_a_mailbox_outside_ascii(self) -> None:
        need("curl")
        (self.home / "message").write_bytes(CONTENT)
        sent = run(
            *("env", "LC_ALL=C.UTF-8", "curl", "--silent", "--show-error", "--noproxy", "*"),
            *("--mail-from", "ann@sender.example", "--mail-rcpt", "josé@bücher.example"),
            *("--upload-file", self.home / "message"),
            f"smtp://{LOOPBACK}:{self.mta.smtp}/client.example",
        )
        self.assertEqual(sent.returncode, 0, sent.stdout)
        (mail,) = self.mta.wait_for_mail("xn--bcher-kva.example", "josé")
        self.assertIn(b" with UTF8SMTP id ", mail)


class PostfixBetween(ProgramTestCase):
    """Mail from our MTA to Postfix, and from there to another of ours."""

    def test_a_message_is_relayed_unchanged(self) -> None:
        need("postfix")
        for name in ("first", "last"):
            (self.home / name).mkdir()
        last = self.enterContext(MTA(self.home / "last", "--local-domain", "far.example"))
        postfix = self.enterContext(
            Postfix(
                self.home,
                {"relayhost": f"[{LOOPBACK}]:{last.smtp}", "smtp_tls_security_level": "may"},
            )
        )
        route = f"far.example=smtp://{LOOPBACK}:{postfix.port}"
        first = self.enterContext(MTA(self.home / "first", "--route", route))
        submit(first.smtp, CONTENT, "用户@far.example", sender="jürgen@bücher.example")
        (mail,) = last.wait_for_mail("far.example", "用户")
        self.assertTrue(mail.endswith(as_stored(CONTENT)), mail)
        self.assertEqual(mail.count(b" with UTF8SMTP"), 3, mail)


class DovecotBehind(ProgramTestCase):
    """Dovecot 2.3 offers no SMTPUTF8 by LMTP."""

    def setUp(self) -> None:
        super().setUp()
        need("dovecot", "/usr/lib/dovecot/lmtp")
        self.dovecot = self.enterContext(Dovecot(self.home))
        route = f"store.example=lmtp://{LOOPBACK}:{self.dovecot.port}"
        self.mta = self.enterContext(MTA(self.home, "--route", route))

    def test_mail_for_ascii_addresses_is_delivered_and_the_rest_bounced(self) -> None:
        submit(
            self.mta.smtp, ASCII, "ann@store.example", "josé@store.example", sender="bob@localhost"
        )
        (mail,) = self.dovecot.wait_for_mail("ann")
        self.assertIn(b" with UTF8SMTPS id ", mail)
        (report,) = self.mta.wait_for_mail("localhost", "bob")
        self.assertIn(b"Status: 5.6.7\n", report)

    def test_a_message_with_a_header_outside_ascii_is_bounced(self) -> None:
        submit(self.mta.smtp, CONTENT, "ann@store.example", sender="bob@localhost")
        (report,) = self.mta.wait_for_mail("localhost", "bob")
        self.assertIn(b"Status: 5.6.9\n", report)
        self.assertEqual(self.dovecot.mail("ann"), [])
