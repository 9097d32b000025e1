"""Limits of accounts over workers, the suppression list, and fields that ask for complaints."""

from __future__ import annotations

import smtplib

from .machine import LOOPBACK
from .mail import ProgramTestCase, message
from .mta import MTA

_SENDING = """
[mta]
workers = 2
auth = "memory:ann:secret"
local_domains = ["us.test"]
routes = {{"far.test" = "smtp://{host}:{port}"}}
{more}

[[listener]]
kind = "submission"
endpoint = "tcp:0:interface=127.0.0.1"
auth = "any"
own_addresses = "off"
"""


class SendingTestCase(ProgramTestCase):
    """An MTA of two workers, and one that receives its mail."""

    def setUp(self) -> None:
        super().setUp()
        other = self.home / "far"
        other.mkdir()
        toml = '[mta]\nlocal_domains = ["far.test"]\nrecipients = "existing"\n'
        self.far = self.enterContext(MTA(other, toml=toml))
        for name in ("bob", "eve"):
            (self.far.maildir("far.test", name) / "new").mkdir(parents=True)

    def mta(self, more: str = "", tables: str = "") -> MTA:
        toml = _SENDING.format(host=LOOPBACK, port=self.far.smtp, more=more) + tables
        return self.enterContext(MTA(self.home, toml=toml))

    def session(self, mta: MTA) -> smtplib.SMTP:
        session = self.enterContext(smtplib.SMTP(LOOPBACK, mta.submission, timeout=30))
        session.login("ann", "secret")
        return session

    def rcpt(self, mta: MTA, recipient: str) -> str:
        with smtplib.SMTP(LOOPBACK, mta.submission, timeout=30) as session:
            session.login("ann", "secret")
            session.mail("ann@us.test")
            code, text = session.rcpt(recipient)
            return f"{code} {text.decode()}"


class Limits(SendingTestCase):
    def test_a_limit_holds_for_two_workers_together(self) -> None:
        mta = self.mta(tables="[account_limits]\nmessages_per_hour = 5\n")
        sessions = [self.session(mta) for _ in range(8)]  # both workers have some
        refusals: list[str] = []
        for session in sessions:
            try:
                session.sendmail("ann@us.test", ["bob@far.test"], message())
            except smtplib.SMTPDataError as refused:
                error = refused.smtp_error
                text = error.decode() if isinstance(error, bytes) else error
                refusals.append(f"{refused.smtp_code} {text}")
        self.assertEqual(len(refusals), 3)
        for refusal in refusals:
            self.assertRegex(
                refusal,
                r"\A450 4\.7\.1 Limit of 5 messages an hour reached, try again in 60 minutes\Z",
            )
        self.far.wait_for_mail("far.test", "bob", 5)
        self.assertIn("3 over an account's limit", mta.tool("status").stdout)
        self.assertIn("has reached its limit of 5 messages an hour", mta.output())


class Suppression(SendingTestCase):
    def test_an_address_that_bounces_is_refused_until_it_is_taken_off(self) -> None:
        mta = self.mta(tables="[suppression]\nbounces = 1\n")
        self.session(mta).sendmail("ann@us.test", ["gone@far.test", "bob@far.test"], message())
        mta.wait_for(lambda: "comes on the suppression list" in mta.output(), "the bounce")
        self.assertIn(" class=unknown-user ", mta.output())
        self.far.wait_for_mail("far.test", "bob")
        for _ in range(4):  # both workers
            self.assertEqual(self.rcpt(mta, "gone@far.test")[:9], "550 5.1.1")
        self.assertIn("gone@far.test\t", mta.tool("suppression", "list").stdout)
        self.assertIn("Suppressed: since", mta.tool("explain", "gone@far.test").stdout)
        self.assertEqual(mta.tool("suppression", "remove", "gone@far.test").returncode, 0)
        self.assertEqual(mta.tool("suppression", "remove", "gone@far.test").returncode, 1)
        self.assertEqual(self.rcpt(mta, "gone@far.test")[:3], "250")
        added = mta.tool("suppression", "add", "Eve@far.test", "--reason", "asked for it")
        self.assertEqual(added.stdout, "Suppressed: eve@far.test\n")
        self.assertEqual(
            self.rcpt(mta, "eve@far.test"),
            "550 5.1.1 The address is on the suppression list: asked for it",
        )


class Feedback(SendingTestCase):
    def test_signed_mail_asks_for_reports_and_the_tool_shows_them(self) -> None:
        key = self.home / "us.pem"
        made = MTA(self.home).tool(
            *("dkim", "new", "--domain", "us.test", "--selector", "s1", "--file", str(key)),
        )
        self.assertEqual(made.returncode, 0, made.stderr)
        mta = self.mta(
            tables=(
                f'[feedback]\naddress = "fbl@us.test"\n'
                f'[[dkim]]\ndomain = "us.test"\nselector = "s1"\nkey = "{key}"\n'
            )
        )
        # An account without addresses is no author, and its mail is not signed.
        with smtplib.SMTP(LOOPBACK, mta.smtp, timeout=30) as session:
            content = message().replace(b"ann@sender.example", b"ann@us.test")
            session.sendmail("ann@us.test", ["bob@far.test"], content)
        (mail,) = self.far.wait_for_mail("far.test", "bob")
        self.assertIn(b"\nCFBL-Address: fbl@us.test; report=arf\n", mail)
        self.assertIn(b"Cfbl-Feedback-Id", mail)
        shown = mta.tool("feedback")
        self.assertEqual(shown.returncode, 0, shown.stderr)
        self.assertEqual(shown.stdout.split("\n")[0], "Account\tReports\tFirst\tLast")
        self.assertIn("no reports are asked for", self.far.tool("feedback").stderr)
