"""An extension from outside the package, in a server session: its verb and its parameter."""

from __future__ import annotations

from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.reply import Reply
from twisted_mta.smtp.command import CommandError
from twisted_mta.smtp.extension import Extension
from twisted_mta.smtp.extension.views import SessionView
from twisted_mta.smtp.server.machine import State
from twisted_mta.smtp.server.step import Mail

from .session_case import FACTS, SessionTestCase


class ForeignExtension(SessionTestCase):
    """An extension from outside the package: an EHLO line, a parameter of MAIL, a verb."""

    def setUp(self) -> None:
        self.cups = 0

        def read_flavour(value: str | None) -> str:
            if value not in ("EARL-GREY", "ASSAM"):
                raise CommandError(Reply.of(501, "5.4", "Syntax: FLAVOUR=EARL-GREY or ASSAM"))
            return value

        def pour(session: SessionView, argument: str) -> Reply:
            if argument == "COFFEE":
                raise CommandError(Reply.of(504, "5.4", "Tea only"))
            if argument == "PLEASE":
                return Reply.of(421, "3.2", "The kitchen closes")
            if self.cups == 2:
                return Reply.of(452, "3.1", "The pot is empty")
            self.cups += 1
            return Reply.of(250, "0.0", f"{self.cups} cups, {session.state.name}")

        class Tea(Extension):
            def announcement(self, session: SessionView) -> str | None:
                return self.keyword if session.tls is None else None

        self.begin(
            Tea(
                "XTEA POT=2",
                mail={"FLAVOUR": read_flavour},
                mail_octets=18,
                commands={"XPOUR": pour, "NOOP": pour},
            )
        )

    def test_a_foreign_extension_is_announced(self) -> None:
        self.assertIn("250 XTEA POT=2\r\n", self.say(b"EHLO x\r\n"))

    def test_a_parameter_of_a_foreign_extension_is_read(self) -> None:
        self.code("EHLO x")
        self.assertEqual(self.code("MAIL FROM:<> FLAVOUR=MILK"), "501 5.5.4")
        self.assertEqual(self.code("MAIL FROM:<a@b.example> FLAVOUR=ASSAM"), "250 2.1.0")
        self.assertEqual(self.steps, [Mail(Mailbox("a", "b.example"), {"FLAVOUR": "ASSAM"})])
        assert self.session.transaction is not None
        self.assertEqual(self.session.transaction.parameters, {"FLAVOUR": "ASSAM"})

    def test_a_verb_of_a_foreign_extension_is_obeyed_wherever_no_content_is_awaited(self) -> None:
        self.assertEqual(self.say(b"xpour a cup\r\n"), "250 2.0.0 1 cups, START\r\n")
        self.code("EHLO x")
        self.code("MAIL FROM:<>")
        self.code("RCPT TO:<a@b.example>")
        self.assertEqual(self.say(b"XPOUR\r\n"), "250 2.0.0 2 cups, RCPT\r\n")
        self.assertEqual(self.code("DATA"), "354")

    def test_refusals_by_a_foreign_extension_count_as_errors(self) -> None:
        self.assertEqual(self.code("XPOUR COFFEE"), "504 5.5.4")
        self.assertEqual(self.session.errors, 1)
        self.code("XPOUR")
        self.code("XPOUR")
        self.assertEqual(self.code("XPOUR"), "452 4.3.1")
        self.assertEqual(self.session.errors, 1)

    def test_a_421_of_a_foreign_extension_ends_the_session(self) -> None:
        self.assertEqual(self.code("XPOUR PLEASE"), "421 4.3.2")
        self.assertIs(self.session.state, State.CLOSED)

    def test_a_foreign_extension_cannot_replace_a_verb_of_the_session(self) -> None:
        self.assertEqual(self.say(b"NOOP\r\nNOOP\r\n"), "250 2.0.0 OK\r\n" * 2)
        self.assertEqual(self.cups, 0)

    def test_octets_after_its_verb_end_the_session(self) -> None:
        """RFC 2920 §3.1: each is the last of its group."""
        self.assertEqual(self.code("XPOUR\r\nNOOP"), "554 5.5.0")
        self.assertEqual(self.cups, 0)

    def test_a_verb_of_an_extension_that_is_not_announced_is_not_obeyed(self) -> None:
        self.session.tls_established(FACTS)
        self.assertNotIn("XTEA", self.say(b"EHLO x\r\n"))
        self.assertEqual(self.code("XPOUR"), "503 5.5.1")
        self.assertEqual(self.cups, 0)
