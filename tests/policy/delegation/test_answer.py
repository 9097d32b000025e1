"""Answers of policy services, and what their actions mean."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.policy.delegation.answer import (
    LONGEST,
    AnswerReader,
    ServiceError,
    Verb,
    read_action,
)


def read(*pieces: bytes) -> str | None:
    reader, action = AnswerReader(), None
    for piece in pieces:
        action = reader.feed(piece)
    return action


class Answers(SynchronousTestCase):
    def fault(self, *pieces: bytes) -> str:
        return str(self.assertRaises(ServiceError, read, *pieces))

    def test_an_answer_is_complete_with_its_empty_line_wherever_it_is_cut(self) -> None:
        answer = b"x=y\naction=450 4.2.0 Later = soon\n\n"
        for cut in range(len(answer)):
            self.assertEqual(read(answer[:cut], answer[cut:]), "450 4.2.0 Later = soon", cut)
            self.assertIsNone(read(answer[:cut]))

    def test_one_action_is_expected(self) -> None:
        self.assertIn("without an action", self.fault(b"\n"))
        self.assertIn("without an action", self.fault(b"Action=OK\n\n"))
        self.assertIn("two actions", self.fault(b"action=OK\naction=OK\n\n"))
        self.assertIn("octets behind its answer", self.fault(b"action=OK\n\nx"))
        self.assertIn("octets behind its answer", self.fault(b"action=OK\n\n", b"action=OK\n\n"))
        self.assertIn("expected name=value", self.fault(b"DUNNO\n\n"))

    def test_control_characters_are_no_part_of_an_answer(self) -> None:
        for octet in b"\0\r\x1b\x7f":
            self.assertIn("expected name=value", self.fault(b"action=OK%c\n\n" % octet))
        self.assertEqual(read(b"action=WARN a\tb\n\n"), "WARN a\tb")

    def test_an_answer_is_bounded(self) -> None:
        self.assertIn("no end", self.fault(b"action=" + b"x" * LONGEST))
        self.assertIn("no end", self.fault(*[b"x"] * (LONGEST + 1)))
        self.assertIn("more than", self.fault(b"a=" + b"x" * LONGEST + b"\naction=OK\n\n"))


class Actions(SynchronousTestCase):
    def test_refusals_have_codes_of_postfix_or_their_own(self) -> None:
        for action, reply in (
            ("REJECT", "554 5.7.1 Access denied"),
            ("reject 5.7.23 SPF fail", "554 5.7.23 SPF fail"),
            ("DEFER", "450 4.7.1 Access denied"),
            ("550 No", "550 5.7.1 No"),
            ("450 5.2.0 Greylisted", "450 4.2.0 Greylisted"),
            ("421 4.3.2", "421 4.3.2 Access denied"),
            ("554", "554 5.7.1 Access denied"),
        ):
            read = read_action(action)
            self.assertEqual((read.verb, str(read.reply)), (Verb.REFUSE, reply), action)
        for action, verb in (
            ("DEFER_IF_PERMIT 4.2.0 Later", Verb.DEFER_IF_PERMIT),
            ("defer_if_reject 4.2.0 Later", Verb.DEFER_IF_REJECT),
        ):
            read = read_action(action)
            self.assertEqual((read.verb, str(read.reply)), (verb, "450 4.2.0 Later"))

    def test_others(self) -> None:
        for action, verb in (
            ("DUNNO", Verb.DUNNO),
            ("dunno for now", Verb.DUNNO),
            (" ok ", Verb.OK),
            ("permit", Verb.OK),
            ("1234567", Verb.OK),
            ("250", Verb.OK),
            ("HOLD odd", Verb.HOLD),
            ("DISCARD", Verb.DISCARD),
            ("PREPEND X-Spam: yes", Verb.PREPEND),
            ("REDIRECT bob@a.example", Verb.REDIRECT),
            ("BCC bob@a.example", Verb.BCC),
            ("WARN x", Verb.WARN),
            ("INFO x", Verb.INFO),
        ):
            self.assertIs(read_action(action).verb, verb, action)
        self.assertEqual(read_action("HOLD caf\u00e9").text, r"caf\xe9")

    def test_what_cannot_be_done_is_said(self) -> None:
        for action, text in (
            ("", "expected one of access(5)"),
            ("reject_unauth_destination", "'reject_unauth_destination', expected one of"),
            ("600 what", "'600'"),
            ("FILTER smtp:127.0.0.1:10025", "routes depend on the recipient alone"),
            ("PREPEND no field", "expected one header field"),
            ("PREPEND", "expected one header field"),
            ("PREPEND X: " + "y" * 1000, "at most 998 octets"),
            ("REDIRECT nowhere", "REDIRECT nowhere:"),
            ("BCC", "BCC"),
        ):
            error = self.assertRaises(ServiceError, read_action, action)
            self.assertIn(text, str(error))
