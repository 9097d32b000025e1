"""Operation: readiness, clean end, restart with a queue, and mail that is returned."""

import email
import signal
import smtplib
import urllib.request
from typing import Any

from .machine import LOOPBACK, free_port, listens, need
from .mail import ProgramTestCase, message, submit
from .mta import MTA
from .sinks import Sink, SMTPSink

IMPATIENT = """
[queue]
retry_minimum = "1 s"
retry_maximum = "1 s"
"""

HOPELESS = """
[queue]
retry_minimum = "1 s"
retry_maximum = "1 s"
lifetime = "2 s"
"""


class Life(ProgramTestCase):
    def test_a_ready_mta_listens_on_the_logged_ports(self) -> None:
        with MTA(self.home) as mta:
            self.assertTrue(listens(mta.smtp))
            self.assertTrue(listens(mta.web))

    def test_the_state_directory_is_private(self) -> None:
        with MTA(self.home) as mta:
            self.assertEqual(mta.state.stat().st_mode & 0o777, 0o700)

    def test_sigterm_ends_it_with_status_0(self) -> None:
        with MTA(self.home) as mta:
            self.assertEqual(mta.terminate(), 0)

    def test_a_second_mta_on_the_same_state_is_refused(self) -> None:
        with MTA(self.home) as mta:
            other = MTA(self.home)
            other.log = self.home / "other.log"
            self.addCleanup(other.kill)
            other.spawn(other.command())
            self.assertNotEqual(other.wait(), 0, other.output())
            submit(mta.smtp, message(), "bob@localhost")
            mta.wait_for_mail("localhost", "bob")

    def test_the_status_page_answers(self) -> None:
        with (
            MTA(self.home) as mta,
            urllib.request.urlopen(f"http://{LOOPBACK}:{mta.web}/", timeout=30) as page,
        ):
            self.assertEqual(page.status, 200)
            self.assertIn(b"mta.example", page.read())


class Restart(ProgramTestCase):
    def held(self, stop: signal.Signals) -> None:
        """Accept a message while the next hop is down; stop; deliver it after both are up."""
        port = free_port()
        mta = MTA(self.home, "--route", f"relay.example=smtp://{LOOPBACK}:{port}", toml=IMPATIENT)
        self.addCleanup(mta.kill)
        mta.start()
        submit(mta.smtp, message("Patience"), "bob@relay.example")
        if stop == signal.SIGKILL:
            mta.kill()
        else:
            self.assertEqual(mta.terminate(), 0)
        sink = self.enterContext(Sink(self.home, port=port))
        self.assertEqual(sink.received(), [])
        mta.start()
        (mail,) = sink.wait_for_messages()
        self.assertTrue(mail.endswith(message("Patience")), mail)

    def test_queued_mail_is_delivered_after_a_restart(self) -> None:
        self.held(signal.SIGTERM)

    def test_queued_mail_is_delivered_after_a_kill(self) -> None:
        self.held(signal.SIGKILL)

    def test_mail_is_delivered_when_the_next_hop_is_up_again(self) -> None:
        port = free_port()
        route = f"relay.example=smtp://{LOOPBACK}:{port}"
        mta = self.enterContext(MTA(self.home, "--route", route, toml=IMPATIENT))
        submit(mta.smtp, message("Patience"), "bob@relay.example")
        sink = self.enterContext(Sink(self.home, port=port))
        sink.wait_for_messages()


class Failure(ProgramTestCase):
    def assertReturned(self, mta: MTA, recipient: str, status: str) -> None:
        (mail,) = mta.wait_for_mail("localhost", "ann")
        self.assertTrue(mail.startswith(b"Return-Path: <>\n"), mail)
        report = email.message_from_bytes(mail)
        self.assertEqual(report.get_content_type(), "multipart/report")
        self.assertEqual(report.get_param("report-type"), "delivery-status")
        parts: Any = report.get_payload()
        self.assertEqual(parts[1].get_content_type(), "message/delivery-status")
        _, fields = parts[1].get_payload()
        self.assertEqual(fields["Final-Recipient"].replace(" ", ""), f"rfc822;{recipient}")
        self.assertEqual(fields["Action"], "failed")
        self.assertRegex(fields["Status"], status)

    def test_mail_that_is_not_delivered_within_its_lifetime_is_returned(self) -> None:
        route = f"down.example=smtp://{LOOPBACK}:{free_port()}"
        mta = self.enterContext(MTA(self.home, "--route", route, toml=HOPELESS))
        submit(mta.smtp, message(), "bob@down.example", sender="ann@localhost")
        self.assertReturned(mta, "bob@down.example", r"^[45]\.4\.\d+$")

    def test_mail_that_the_next_hop_refuses_is_returned_at_once(self) -> None:
        need("smtp-sink")
        sink = self.enterContext(SMTPSink(self.home, "-f", "RCPT"))
        route = f"strict.example=smtp://{LOOPBACK}:{sink.port}"
        mta = self.enterContext(MTA(self.home, "--route", route))
        submit(mta.smtp, message(), "bob@strict.example", sender="ann@localhost")
        self.assertReturned(mta, "bob@strict.example", r"^5\.\d+\.\d+$")

    def test_mail_on_an_error_route_is_refused_or_returned(self) -> None:
        mta = self.enterContext(MTA(self.home, "--route", "old.example=error:5.1.1 It moved away"))
        try:
            submit(mta.smtp, message(), "bob@old.example", sender="ann@localhost")
        except smtplib.SMTPRecipientsRefused as refused:
            ((code, text),) = refused.recipients.values()
            self.assertEqual(code, 550)
            self.assertEqual(text, b"5.1.1 It moved away")
        else:
            self.assertReturned(mta, "bob@old.example", r"^5\.1\.1$")
