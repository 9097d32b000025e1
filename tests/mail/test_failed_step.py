"""The step at which a next hop failed, in the words of the log and of ``explain``."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.mail.failed_step import failed_step
from twisted_mta.mail.outcome import Outcome
from twisted_mta.mail.reply import Reply
from twisted_mta.mail.tls_facts import TLSFacts

REMOTE = "mx.example[192.0.2.1]:25"
TLS = TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)


class FailedSteps(SynchronousTestCase):
    def test_each_failure_has_words_of_its_own(self) -> None:
        for reply, tls, words in (
            (Reply.of(451, "4.1", "refused"), None, "no connection could be made"),
            (Reply.of(451, "4.1", "a", "b"), None, "none of its hosts could be used"),
            (Reply.of(451, "4.3", "x"), None, "the DNS lookup failed"),
            (Reply.of(454, "7.4", "x"), None, "TLS is required, and STARTTLS cannot be used"),
            (Reply.of(454, "7.5", "x"), TLS, "its certificate was not accepted"),
            (Reply.of(454, "7.5", "x"), None, "TLS failed"),
            (Reply.of(454, "7.8", "x"), TLS, "our credentials could not be used"),
            (Reply.of(451, "4.2", "x"), None, "the connection ended before a session was open"),
            (Reply.of(451, "9.9", "x"), None, "no session could be opened"),
        ):
            outcome = Outcome(0, reply, tls=tls, unreachable=True)
            self.assertEqual(failed_step(outcome), words)

    def test_a_refusal_names_the_command_that_was_refused(self) -> None:
        begun = f"* a[192.0.2.9]:25\nC: EHLO us\nC: QUIT\n* {REMOTE}\n"
        for dialogue, step in (
            ("S: 554 5.7.1 blocked\nC: QUIT\n", "its greeting"),
            ("S: 220 hi\nC: EHLO us\nS: 450 wait\nC: QUIT\n", "EHLO"),
            ("S: 220 hi\nC: EHLO us\nS: 500 x\nC: HELO us\nS: 550 no\nC: QUIT\n", "HELO"),
            ("S: 421 busy\n* b[192.0.2.8]:25\nC: EHLO us\n", "its greeting"),
            ("C: EHLO us\n* b[::1]:25: Connection refused\n* /run/lmtp\nC: AUTH x\n", "EHLO"),
            ("C: EHLO us\nS: 250 x\nC: AUTH PLAIN (taken out)\nS: 454 wait\nC: QUIT\n", "AUTH"),
        ):
            reply = Reply.of(454, "7.0", "no")
            outcome = Outcome(0, reply, REMOTE, transcript=begun + dialogue, unreachable=True)
            self.assertEqual(failed_step(outcome), f"it refused the session at {step}")

    def test_refusals_of_the_account_of_tls_and_of_lmtp_have_words_of_their_own(self) -> None:
        for code, command, words in (
            (535, "AUTH PLAIN (taken out)", "it refused our account and password"),
            (535, "AUTH XOAUTH2 (taken out)", "it refused our account and token"),
            (535, "AUTH OAUTHBEARER", "it refused our account and token"),
            (502, "STARTTLS", "TLS is required, and it refused STARTTLS"),
            (502, "LHLO us", "it does not speak LMTP"),
            (554, "LHLO us", "it refused the session at LHLO"),
        ):
            dialogue = f"* {REMOTE}\nS: 220 hi\nC: {command}\nS: {code} no\nC: QUIT\n"
            outcome = Outcome(
                0, Reply.of(code, None, "no"), REMOTE, transcript=dialogue, temporary=True
            )
            self.assertEqual(failed_step(outcome), words)
