"""The pure server session: it stays in step with any octets, however they are split."""

from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.smtp.test_data import pieces
from twisted_mta.mail.reply import Reply
from twisted_mta.mail.tls_facts import TLSFacts
from twisted_mta.smtp.peer import Peer
from twisted_mta.smtp.server.machine import State
from twisted_mta.smtp.server.replies import IDLE_TOO_LONG
from twisted_mta.smtp.server.session import Session
from twisted_mta.smtp.server.step import (
    Abort,
    Close,
    Finish,
    Mail,
    Open,
    Rcpt,
    Rest,
    StartTLS,
    Violation,
    Write,
)
from twisted_mta.testing.delivery import RecordingDelivery
from twisted_mta.testing.pure_wire import PureWire
from twisted_mta.testing.server_options import ServerOptions

FACTS = TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)


def play(octets: Sequence[bytes], **options: Any) -> tuple[PureWire, RecordingDelivery]:
    delivery = RecordingDelivery()
    wire = PureWire(ServerOptions(**options), delivery)
    for piece in octets:
        wire.receive(piece)
    return wire, delivery


def codes(output: bytes) -> list[bytes]:
    """Return code and status of each reply line; texts may depend on how lines were split."""
    return [line[:9] for line in output.split(b"\r\n")]


# Without EHLO, DATA, STARTTLS and AUTH: octets that may follow these depend on how TCP splits them.
LINES = st.lists(
    st.sampled_from(
        [
            b"HELO x\r\n",
            b"MAIL FROM:<a@b>\r\n",
            b"RCPT TO:<c@d>\r\n",
            b"RSET\r\n",
            b"NOOP\r\n",
            b"VRFY\r\n",
            b"BDAT 7\r\nQUIT\r\n\r",
            b"BDAT 3 LAST\r\n",
            b"XYZZY\r\n",
            b"\r\n",
            b"\n",
            b"\r",
            b"\0",
            b"NOOP " + b"x" * 505,
            b"NOOP " + b"x" * 600,
            b"\xff",
            b"QUIT",
        ]
    ),
    max_size=25,
).map(b"".join)
CUTS = st.lists(st.integers(0, 3000), max_size=30)

# With them: no input may raise, and no content may be finished twice.
ANYTHING = st.lists(
    st.one_of(
        st.binary(max_size=20),
        st.sampled_from(
            [
                b"EHLO x\r\n",
                b"MAIL FROM:<a@b>\r\n",
                b"RCPT TO:<c@d>\r\n",
                b"DATA\r\n",
                b"\r\n.\r\n",
                b"STARTTLS\r\n",
                b"AUTH PLAIN\r\n",
                b"RSET\r\n",
                b"BDAT 5\r\n",
                b".",
                b"\r",
                b"\n",
            ]
        ),
    ),
    max_size=40,
)


class AnyOctets(SynchronousTestCase):
    @settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(LINES, CUTS)
    def test_commands_get_the_same_replies_however_they_are_split(
        self, octets: bytes, cuts: list[int]
    ) -> None:
        whole, _ = play([octets], max_errors=1000)
        split, _ = play(pieces(octets, cuts), max_errors=1000)
        self.assertEqual(codes(split.output), codes(whole.output))
        self.assertEqual(split.session.state, whole.session.state)
        self.assertEqual(split.closed, whole.closed)

    @settings(max_examples=400, deadline=None)
    @given(ANYTHING)
    def test_no_input_raises_and_every_content_is_finished_or_given_up(
        self, octets: list[bytes]
    ) -> None:
        wire, delivery = play(octets, max_errors=8, max_message_size=30)
        for line in wire.output.split(b"\r\n")[:-1]:
            self.assertRegex(line, rb"^[2-5]\d\d[ -][\x20-\x7e]{0,506}$")
        wire.session.end(IDLE_TOO_LONG)
        wire.receive(b"")
        self.assertEqual(delivery.open_sinks, 0)

    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=200), CUTS)
    def test_a_message_of_any_octets_leaves_the_session_in_step(
        self, content: bytes, cuts: list[int]
    ) -> None:
        content = content.replace(b"\r\n.", b"\r\n..")
        if content[:1] == b".":
            content = b"." + content
        wire, delivery = play([b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\n", b"DATA\r\n"])
        wire.output = b""
        for piece in pieces(content + b"\r\n.\r\nNOOP\r\n", cuts):
            wire.receive(piece)
        first, second, end = wire.output.split(b"\r\n")
        self.assertIn(first[:9], (b"250 2.0.0", b"550 5.6.0"))
        self.assertEqual((second, end), (b"250 2.0.0 OK", b""))
        self.assertEqual(len(delivery.messages), int(first[:3] == b"250"))


class Memory(SynchronousTestCase):
    def test_ten_megabytes_without_a_line_end_are_not_kept(self) -> None:
        for octet in (b"x", b"\n", b"\r", b"\0"):
            session = Session(ServerOptions().settings(), peer=Peer())
            largest = 0
            for _ in range(160):
                session.receive(octet * 65_536)
                self.assertIsNone(session.step())
                largest = max(largest, len(session._in))
            self.assertLessEqual(largest, 600)
            self.assertEqual(session.output().count(b"\r\n"), 1)  # and one reply

    def test_nothing_is_kept_of_a_refused_chunk(self) -> None:
        session = Session(ServerOptions().settings(), peer=Peer())
        session.receive(b"BDAT 10000000\r\n")
        for _ in range(100):
            session.receive(b"x" * 65_536)
            self.assertIsNone(session.step())
            self.assertEqual(session._in, b"")

    def test_nothing_is_kept_after_the_end(self) -> None:
        session = Session(ServerOptions().settings(), peer=Peer())
        session.receive(b"QUIT\r\nNOOP\r\n")
        self.assertEqual(session.step(), Close())
        session.receive(b"x" * 1000)
        self.assertIsNone(session.step())
        self.assertEqual(session._in, b"")


class Turns(SynchronousTestCase):
    def test_a_burst_of_commands_is_obeyed_in_parts(self) -> None:
        session = Session(ServerOptions().settings(), peer=Peer())
        session.receive(b"NOOP\r\n" * 1000)
        replies = rests = 0
        while (step := session.step()) is not None:
            self.assertEqual(step, Rest())
            written = session.output().count(b"\r\n")
            self.assertLessEqual(written, 100)
            replies, rests = replies + written, rests + 1
        replies += session.output().count(b"\r\n")
        self.assertEqual(replies, 1000)
        self.assertGreater(rests, 9)
        self.assertFalse(session.unfinished)


class Decisions(SynchronousTestCase):
    def setUp(self) -> None:
        self.session = Session(ServerOptions().settings(), peer=Peer(), tls_ready=lambda: True)

    def replies(self) -> list[bytes]:
        return codes(self.session.output())[:-1]

    def test_nothing_is_obeyed_before_a_pending_decision(self) -> None:
        session = self.session
        session.receive(b"HELO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nNOOP\r\nDATA\r\n")
        self.assertEqual(type(session.step()), Mail)
        self.assertIsNone(session.step())
        self.assertEqual(self.replies(), [b"250 mx.ex"])
        session.answer()
        self.assertEqual(type(session.step()), Rcpt)
        self.assertIsNone(session.step())
        session.answer(Reply.of(450, "2.1", "Busy"))
        self.assertIsNone(session.step())
        self.assertEqual(self.replies(), [b"250 2.1.0", b"450 4.2.1", b"250 2.0.0", b"503 5.5.1"])

    def begin_content(self) -> None:
        self.session.receive(b"HELO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n")
        for question in (Mail, Rcpt):
            self.assertEqual(type(self.session.step()), question)
            self.session.answer()
        self.assertEqual(self.session.step(), Open())

    def test_content_before_354_ends_the_session(self) -> None:
        # RFC 2920 §3.1: whatever the decision is, these octets are neither content nor commands.
        for decision in (None, Reply.of(452, "3.1", "No room")):
            self.setUp()
            self.begin_content()
            self.session.receive(b"QUIT\r\n")
            self.assertIsNone(self.session.step())
            self.session.answer(decision)
            self.assertEqual(
                [self.session.step(), self.session.step()], [Violation("DATA"), Close()]
            )
            self.assertEqual(self.replies()[-1], b"554 5.5.0")

    def test_a_decision_after_the_end_changes_nothing(self) -> None:
        self.begin_content()
        self.session.end(IDLE_TOO_LONG)
        self.assertFalse(self.session.deciding)
        self.session.answer()
        self.assertEqual(self.session.step(), Close())
        self.assertIsNone(self.session.step())
        self.assertEqual(self.replies()[-1], b"421 4.4.2")
        self.assertEqual(self.session.state, State.CLOSED)

    def test_a_decision_that_was_not_asked_for_changes_nothing(self) -> None:
        self.session.answer()
        self.assertEqual((self.session.state, self.replies()), (State.START, []))

    def test_content_is_passed_on_as_it_comes_and_given_up_once(self) -> None:
        self.begin_content()
        self.session.answer()
        self.session.receive(b"one\r\n..two")
        self.assertEqual(self.session.step(), Write(b"one\r\n.two"))
        self.session.receive(b"\0")
        self.assertEqual(self.session.step(), Abort())
        self.session.receive(b"more\0\r\n.\r\nNOOP\r\n")
        self.assertIsNone(self.session.step())
        self.assertEqual(self.replies()[-2:], [b"550 5.6.0", b"250 2.0.0"])

    def test_the_end_of_the_content_waits_for_a_decision(self) -> None:
        self.begin_content()
        self.session.answer()
        self.session.receive(b".\r\nMAIL FROM:<>\r\n")
        self.assertEqual(self.session.step(), Finish())
        self.assertIsNone(self.session.step())
        self.session.answer(Reply.of(451, "3.0", "Later"))
        self.assertEqual(self.session.step(), Mail(None, {}))
        self.assertEqual(self.replies()[-1], b"451 4.3.0")

    def test_octets_before_the_handshake_are_never_obeyed_after_it(self) -> None:
        # S7, RFC 3207 §4.2: even if the shell hands them over.
        self.session.receive(b"HELO before.example\r\nSTARTTLS\r\n")
        self.assertEqual(self.session.step(), StartTLS())
        self.session.receive(b"EHLO evil\r\nMAIL FROM:<evil@b>\r\n")
        self.assertIsNone(self.session.step())
        self.session.tls_established(FACTS)
        self.assertEqual((self.session.greeting, self.session.helo), (None, ""))  # S9
        self.assertIsNone(self.session.step())
        self.assertEqual(self.replies(), [b"250 mx.ex", b"220 2.0.0"])
        self.session.receive(b"MAIL FROM:<evil@b>\r\n")
        self.assertIsNone(self.session.step())
        self.assertEqual(self.replies(), [b"503 5.5.1"])
