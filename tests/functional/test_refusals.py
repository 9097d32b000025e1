"""Outcomes of mail for next hops that refuse, disconnect or are slow at each command.

Each case is an smtp-sink(1) of Postfix with failure options, as the next hop of its own domain.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import ExitStack

from .machine import LOOPBACK, need
from .mail import MIB, ProgramTestCase, message, message_with_attachment, submit
from .mta import MTA
from .sinks import SMTPSink

_OUTCOME = re.compile(
    r"(delivered|deferred|failed): from=<sender@localhost> to=<(\w+)@([\w-]+)\.example>"
    r'.* reply="([^"]*)"'
)

# Without pipelining if smtp-sink refuses; with it if smtp-sink disconnects or is slow.
_HARD = "500 5.3.0 Error: command failed"
_SOFT = "450 4.3.0 Error: command failed"
_LOST = "connection lost"
Expected = Mapping[str, tuple[tuple[str, ...], str, str]]
"""By domain: options of smtp-sink, the outcome, and the beginning of the reply."""

SMTP: Expected = {
    "all-is-well": ((), "delivered", "250 2.0.0"),
    "without-pipelining": (("-p",), "delivered", "250 2.0.0"),
    "without-esmtp": (("-e",), "delivered", "250"),
    "hard-ehlo": (("-f", "EHLO"), "delivered", "250"),  # HELO is not refused
    "hard-mail": (("-f", "MAIL"), "failed", _HARD),
    "hard-rcpt": (("-f", "RCPT"), "failed", _HARD),
    "hard-data": (("-f", "DATA"), "failed", _HARD),
    "hard-dot": (("-f", "."), "failed", _HARD),
    "soft-connect": (("-r", "CONNECT"), "deferred", _SOFT),
    "soft-ehlo": (("-r", "EHLO"), "deferred", _SOFT),
    "soft-mail": (("-r", "MAIL"), "deferred", _SOFT),
    "soft-rcpt": (("-r", "RCPT"), "deferred", _SOFT),
    "soft-data": (("-r", "DATA"), "deferred", _SOFT),
    "soft-dot": (("-r", "."), "deferred", _SOFT),
    "lost-connect": (("-q", "CONNECT"), "deferred", f"{_LOST} before the greeting"),
    "lost-ehlo": (("-q", "EHLO"), "deferred", f"{_LOST} before the reply to EHLO"),
    "lost-mail": (("-q", "MAIL"), "deferred", f"{_LOST} before the reply to MAIL"),
    "lost-rcpt": (("-q", "RCPT"), "deferred", f"{_LOST} before the reply to RCPT"),
    "lost-data": (("-q", "DATA"), "deferred", f"{_LOST} before the reply to DATA"),
    "lost-dot": (("-q", "."), "deferred", f"{_LOST} after the final dot"),
    "closing-connect": (("-Q", "CONNECT"), "deferred", "421"),
    "closing-mail": (("-Q", "MAIL"), "deferred", "421"),
    "closing-rcpt": (("-Q", "RCPT"), "deferred", "421"),
    "closing-dot": (("-Q", "."), "deferred", "421"),
    "slow": (("-w", "2"), "delivered", "250 2.0.0"),
    "slow-to-read": (("-H", "1"), "delivered", "250 2.0.0"),
}

LMTP: Expected = {
    "all-is-well": (("-L",), "delivered", "250"),
    "hard-lhlo": (("-L", "-f", "LHLO"), "deferred", _HARD),
    "hard-rcpt": (("-L", "-f", "RCPT"), "failed", _HARD),
    "hard-dot": (("-L", "-f", "."), "failed", _HARD),
    "soft-dot": (("-L", "-r", "."), "deferred", _SOFT),
    "lost-dot": (("-L", "-q", "."), "deferred", f"{_LOST} after the final dot"),
    "closing-dot": (("-L", "-Q", "."), "deferred", "421"),
    "smtp": ((), "deferred", "50"),
}


class Refusals(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        need("smtp-sink")
        self.sinks: dict[str, SMTPSink] = {}

    def start(self, scheme: str, cases: Expected) -> None:
        routes = []
        stack = self.enterContext(ExitStack())
        for domain, (options, _, _) in cases.items():
            home = self.home / domain
            home.mkdir()
            sink = self.sinks[domain] = stack.enter_context(SMTPSink(home, *options))
            routes += ["--route", f"{domain}.example={scheme}://{LOOPBACK}:{sink.port}"]
        self.mta = stack.enter_context(MTA(self.home, "--local-domain", "localhost", *routes))

    def outcomes(self, count: int) -> dict[tuple[str, str], tuple[str, str]]:
        """Wait for ``count`` outcomes; return the first, with its reply, by domain and user."""

        def found() -> dict[tuple[str, str], tuple[str, str]]:
            outcomes: dict[tuple[str, str], tuple[str, str]] = {}
            for outcome, user, domain, reply in _OUTCOME.findall(self.mta.output()):
                outcomes.setdefault((domain, user), (outcome, reply))
            return outcomes if len(outcomes) >= count else {}

        return self.mta.wait_for(found, f"{count} outcomes")

    def assertBecomes(
        self, cases: Expected, users: tuple[str, ...], uncertain: tuple[str, ...]
    ) -> None:
        for domain in cases:
            submit(
                self.mta.smtp,
                message(),
                *(f"{user}@{domain}.example" for user in users),
                sender="sender@localhost",
            )
        outcomes = self.outcomes(len(cases) * len(users))
        for domain, (_, expected, text) in cases.items():
            for user in users:
                outcome, reply = outcomes[domain, user]
                self.assertEqual((domain, outcome), (domain, expected), reply)
                self.assertIn(text, reply, domain)
            line = rf"Possible duplicate of \w+: .*:{self.sinks[domain].port}:"
            warned = re.search(line, self.mta.output()) is not None
            self.assertEqual((domain, warned), (domain, domain in uncertain))

    def assertReturned(self, cases: Expected) -> None:
        """Assert a notice for each failed recipient, and for no other."""
        failed = [domain for domain, (_, outcome, _) in cases.items() if outcome == "failed"]
        reports = b"".join(self.mta.wait_for_mail("localhost", "sender", len(failed)))
        for domain in cases:
            returned = f"Final-Recipient: rfc822; bob@{domain}.example".encode() in reports
            self.assertEqual((domain, returned), (domain, domain in failed))

    def test_each_refusal_by_smtp_has_its_outcome(self) -> None:
        self.start("smtp", SMTP)
        self.assertBecomes(SMTP, ("bob",), ("lost-dot",))
        self.assertReturned(SMTP)
        for domain, (_, outcome, _) in SMTP.items():
            if outcome == "delivered":
                self.assertEqual((domain, self.sinks[domain].count()), (domain, 1))

    def test_outcomes_of_refusals_by_lmtp_for_two_recipients(self) -> None:
        self.start("lmtp", LMTP)
        # The 421 is the reply for ann; bob has none.
        self.assertBecomes(LMTP, ("ann", "bob"), ("lost-dot", "closing-dot"))
        self.assertReturned(LMTP)

    def test_a_reply_in_the_middle_of_the_content_is_the_outcome(self) -> None:
        """smtp-sink replies 550 and stops reading; no final dot is sent."""
        cases: Expected = {"breaks-off": (("-A", "0"), "failed", "550")}
        self.start("smtp", cases)
        submit(
            self.mta.smtp,
            message_with_attachment(8 * MIB),
            "bob@breaks-off.example",
            sender="sender@localhost",
        )
        [(outcome, reply)] = self.outcomes(1).values()
        self.assertEqual((outcome, reply[:3]), ("failed", "550"), reply)
        self.assertNotIn("Possible duplicate", self.mta.output())
