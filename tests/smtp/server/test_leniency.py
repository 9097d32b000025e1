"""Leniency for clients that may relay: bare CR and LF, and no message inside another one."""

from __future__ import annotations

import itertools

from twisted.trial.unittest import SynchronousTestCase

from tests.smtp.test_data import is_bare, pieces
from twisted_mta.smtp.peer import Peer
from twisted_mta.smtp.server.session import Session
from twisted_mta.smtp.server.settings import SessionSettings
from twisted_mta.testing.delivery import RecordingDelivery
from twisted_mta.testing.pure_wire import PureWire
from twisted_mta.testing.server_options import ServerOptions

LINE_ENDS = (b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\0\n", b"\0\r\n", b"\r\n\0")
FALSE_ENDS = [
    before + b"." + after
    for before, after in itertools.product(LINE_ENDS, LINE_ENDS)
    if (before[-2:], after[:2]) != (b"\r\n", b"\r\n")
]
"""A dot between all line ends but CR LF on both sides."""

SMUGGLED = (
    b"MAIL FROM:<evil@example.org>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\n"
    b"Subject: smuggled\r\n\r\nx"
)
ENVELOPE = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\n"
CODES = [b"250", b"250", b"354"]


def dialogue(**options: object) -> tuple[PureWire, RecordingDelivery]:
    delivery = RecordingDelivery()
    wire = PureWire(ServerOptions(chunking=True, max_errors=1000, **options), delivery)  # type: ignore[arg-type]
    wire.receive(b"EHLO client.example\r\n")
    wire.output = b""
    return wire, delivery


def codes(wire: PureWire) -> list[bytes]:
    output, wire.output = wire.output, b""
    return [line[:3] for line in output.splitlines()]


class FalseEnds(SynchronousTestCase):
    """All line ends around a dot that is not the final one."""

    def test_no_false_end_ends_the_content_of_a_trusted_client_at_any_split(self) -> None:
        for false_end in FALSE_ENDS:
            octets = b"Subject: x\r\n\r\none" + false_end + SMUGGLED + b"\r\n.\r\n"
            for cuts in ([], list(range(len(octets)))):
                wire, delivery = dialogue(trusted=True)
                wire.receive(ENVELOPE + b"DATA\r\n")
                self.assertEqual(codes(wire), CODES)
                for piece in pieces(octets, cuts):
                    wire.receive(piece)
                self.assertEqual(codes(wire), [b"250"], false_end)
                [message] = delivery.messages
                self.assertFalse(is_bare(message.content), false_end)
                self.assertIn(b"\r\nSubject: smuggled\r\n", message.content)
                wire.receive(b"NOOP\r\n")
                self.assertEqual(codes(wire), [b"250"], false_end)

    def test_no_false_end_ends_the_content_of_a_stranger_and_the_message_is_refused(self) -> None:
        for false_end in FALSE_ENDS:
            wire, delivery = dialogue()
            wire.receive(ENVELOPE + b"DATA\r\n")
            self.assertEqual(codes(wire), CODES)
            wire.receive(b"Subject: x\r\n\r\none" + false_end + SMUGGLED + b"\r\n.\r\nNOOP\r\n")
            self.assertEqual(codes(wire), [b"550", b"250"], false_end)
            self.assertEqual(delivery.messages, [])

    def test_a_client_that_ends_commands_by_lf_ends_its_content_by_cr_lf_too(self) -> None:
        for false_end in FALSE_ENDS:
            wire, delivery = dialogue(trusted=True)
            wire.receive(ENVELOPE.replace(b"\r", b"") + b"DATA\n")
            self.assertEqual(codes(wire), CODES)
            wire.receive(b"one" + false_end + SMUGGLED.replace(b"\r", b"") + b"\r\n.\r\nNOOP\n")
            self.assertEqual(codes(wire), [b"250", b"250"], false_end)
            self.assertEqual(len(delivery.messages), 1)

    def test_a_chunk_has_the_counted_octets_whatever_line_ends_are_in_it(self) -> None:
        for end in (b"\n", b"\r\n"):
            for false_end in FALSE_ENDS:
                chunk = b"one" + false_end + SMUGGLED + b"\r"
                wire, delivery = dialogue(trusted=True)
                octets = ENVELOPE + b"BDAT %d LAST%s" % (len(chunk), end) + chunk + b"NOOP" + end
                for piece in pieces(octets, list(range(0, len(octets), 7))):
                    wire.receive(piece)
                self.assertEqual(codes(wire), [b"250"] * 4, false_end)
                [message] = delivery.messages
                self.assertFalse(is_bare(message.content), false_end)
                self.assertTrue(message.content.endswith(b"x\r\n"))

    def test_no_held_line_end_is_written_behind_content_that_is_given_up(self) -> None:
        wire, delivery = dialogue(trusted=True, max_message_size=10)
        wire.receive(ENVELOPE + b"BDAT 5\r\na\nb\r\r")
        self.assertEqual(codes(wire), [b"250"] * 3)
        wire.receive(b"BDAT 20 LAST\r\n" + b"x" * 20)
        self.assertEqual(codes(wire), [b"552"])
        self.assertEqual((delivery.messages, delivery.open_sinks), ([], 0))

    def test_with_reject_the_content_of_a_trusted_client_is_refused_too(self) -> None:
        wire, delivery = dialogue(trusted=True, bare_newlines="reject")
        wire.receive(ENVELOPE + b"DATA\r\n")
        wire.receive(b"a\nb\r\n.\r\nNOOP\nRSET\r\n")
        self.assertEqual(codes(wire), [*CODES, b"550", b"500"])
        self.assertEqual(delivery.messages, [])


class LineEnds(SynchronousTestCase):
    """Commands that end in LF alone, of a trusted client."""

    def test_responses_to_auth_may_end_in_lf(self) -> None:
        wire, _ = dialogue(trusted=True, auth="any")
        for line in (b"AUTH LOGIN\n", b"YWxpY2U=\n", b"c2VjcmV0\n"):
            wire.receive(line)
        self.assertEqual(codes(wire), [b"334", b"334", b"235"])

    def test_starttls_may_end_in_lf_and_nothing_may_follow_it(self) -> None:
        wire, _ = dialogue(trusted=True)
        wire.receive(b"STARTTLS\n")
        self.assertEqual(codes(wire), [b"220"])
        wire, _ = dialogue(trusted=True)
        wire.receive(b"STARTTLS\nMAIL FROM:<evil@example.org>\n")
        self.assertEqual(codes(wire), [b"554"])
        self.assertTrue(wire.closed)

    def test_a_line_that_is_too_long_ends_at_its_lf(self) -> None:
        wire, _ = dialogue(trusted=True)
        wire.receive(b"NOOP " + b"x" * 5000)
        wire.receive(b"x\nNOOP\n")
        self.assertEqual(codes(wire), [b"500", b"250"])
        wire.receive(b"NOOP " + b"x" * 506 + b"\nNOOP " + b"x" * 507 + b"\n")
        self.assertEqual(codes(wire), [b"250", b"500"])

    def test_commands_get_the_same_replies_at_any_split(self) -> None:
        octets = b"NOOP\nRSET\r\n" + ENVELOPE.replace(b"\r\n", b"\n") + b"RSET\r\nNOOP\n\n\r\n"
        for cuts in (range(len(octets)), *[(cut,) for cut in range(len(octets))]):
            wire, _ = dialogue(trusted=True)
            for piece in pieces(octets, list(cuts)):
                wire.receive(piece)
            self.assertEqual(codes(wire), [b"250"] * 6 + [b"500"] * 2, cuts)


class Trust(SynchronousTestCase):
    def test_trust_is_asked_for_when_it_is_needed_and_not_before(self) -> None:
        """After AUTH or XCLIENT, another client is at the other end."""
        trusted = False
        asked = []

        def trusts(session: object) -> bool:
            asked.append(session)
            return trusted

        session = Session(SessionSettings(hostname="mx.example", trusts=trusts), peer=Peer("::1"))

        def code(line: bytes) -> bytes:
            session.receive(line)
            while session.step() is not None:
                if session.deciding:
                    session.answer()
            return session.output()[:3]

        self.assertEqual(code(b"HELO client.example\r\n"), b"250")
        self.assertEqual(code(b"MAIL FROM:<a@example.org>\r\n"), b"250")
        self.assertEqual(asked, [])
        self.assertEqual(code(b"RCPT TO:b@example.net\r\n"), b"501")
        trusted = True
        self.assertEqual(code(b"RCPT TO:b@example.net\r\n"), b"250")
        self.assertEqual(code(b"NOOP\n"), b"250")
        trusted = False
        self.assertEqual(code(b"NOOP\n"), b"500")
