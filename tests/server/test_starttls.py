"""STARTTLS, clause by clause: those rows that need TCP segments, clocks or the trace field.

The other rows of RFC 3207 are transcripts: ``tests/transcripts/starttls-S*.smtp``.
"""

from typing import Any

from twisted.protocols.tls import TLSMemoryBIOFactory

from tests.server.certificate import server_context
from tests.server.dialogue import DialogueTestCase
from tests.tidy import TidyTestCase
from twisted_mta.smtp.server.step import Close, Violation
from twisted_mta.testing.delivery import RecordingDelivery
from twisted_mta.testing.pure_wire import PureWire
from twisted_mta.testing.server_options import ServerOptions

BEHIND = (
    b"N",
    b"\r\n",
    b"NOOP\r\n",
    b"EHLO evil.example\r\n",
    b"MAIL FROM:<evil@evil.example>\r\n",
    b"MAIL FROM:<evil@evil.example>\r\nRCPT TO:<v@d.example>\r\nDATA\r\nx\r\n.\r\n",
    b"STARTTLS\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",  # the beginning of a ClientHello
    b"\0" * 3,
)


class S7OctetsBehindSTARTTLS(DialogueTestCase):
    """S7, RFC 3207 §4, RFC 2920 §3.1: they are never executed, before or after the handshake."""

    def test_commands_fragments_and_handshakes_behind_starttls_end_the_session(self) -> None:
        for number, behind in enumerate(BEHIND):
            client = self.connect()
            self.say(client, b"EHLO x\r\n")
            client.unread.clear()
            self.say(client, b"STARTTLS\r\n" + behind)
            self.assertEqual(self.hear(client), ["554 5.5.0"])
            self.assertTrue(client.over)
            self.assertEqual(self.factory.violations, number + 1)
        self.assertEqual(self.delivery.calls, [])

    def test_octets_behind_starttls_end_the_session_at_every_split(self) -> None:
        before = b"EHLO x\r\n", b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nSTARTTLS\r\n"
        for behind in BEHIND:
            for cut in range(1, len(before[1])):
                wire = PureWire(ServerOptions(violations=1), delivery := RecordingDelivery())
                wire.receive(before[0])
                wire.receive(before[1][:cut])
                wire.output = b""
                wire.receive(before[1][cut:] + behind)
                self.assertIn(b"554 5.5.0", wire.output)
                self.assertNotIn(b"220", wire.output)
                self.assertTrue(wire.closed)
                self.assertEqual(wire.violations, 1)
                self.assertLessEqual(delivery.calls.count("mail"), 1)

    def test_octets_behind_starttls_end_the_session_when_decisions_are_late(self) -> None:
        client = self.connect()
        self.hold_decisions()
        self.say(client, b"HELO x\r\nMAIL FROM:<a@b>\r\nSTARTTLS\r\n")
        self.say(client, b"RSET\r\n")
        self.hear(client)
        self.decide()
        self.assertEqual(self.hear(client), ["250 2.1.0", "554 5.5.0"])
        self.assertTrue(client.over)
        self.assertEqual(self.delivery.calls, ["mail"])

    def test_a_command_in_clear_after_220_fails_the_handshake(self) -> None:
        client = self.connect()
        self.say(client, b"STARTTLS\r\n")
        self.say(client, b"MAIL FROM:<evil@evil.example>\r\n")
        self.assertTrue(client.over)
        self.assertNotIn(b"250", client.unread)
        self.assertEqual(self.delivery.calls, [])

    def test_the_violation_is_logged_once_and_no_more_octets_are_read(self) -> None:
        wire = PureWire(ServerOptions(), RecordingDelivery())
        session = wire.session
        session.receive(b"STARTTLS\r\nNOOP\r\n")
        self.assertEqual([session.step(), session.step()], [Violation("STARTTLS"), Close()])
        session.output()
        session.receive(b"NOOP\r\n")
        self.assertIsNone(session.step())
        self.assertEqual(session.output(), b"")


class S13HandshakeTimeout(DialogueTestCase):
    """S13, RFC 3207 §4.1: a handshake that does not end is aborted, without a reply in clear."""

    def test_a_handshake_after_starttls_has_a_timeout(self) -> None:
        client, other = self.connect(), self.connect()
        self.say(client, b"STARTTLS\r\n")
        self.hear(client)
        self.network.advance(29)
        self.say(client, b"\x16\x03\x01\x02\x00\x01")  # slow progress does not extend it
        self.assertFalse(client.over)
        self.network.advance(1.5)
        self.assertTrue(client.over)
        self.assertEqual(client.unread, b"")
        self.say(other, b"NOOP\r\n")
        self.assertEqual(self.hear(other), ["220 ", "250 2.0.0"])

    def test_a_handshake_of_implicit_tls_has_a_timeout(self) -> None:
        client = self.connect(
            wrap=lambda factory: TLSMemoryBIOFactory(server_context(), False, factory, self.network)
        )
        self.network.advance(29)
        self.assertFalse(client.over)
        self.network.advance(1.5)
        self.assertTrue(client.over)
        self.assertEqual(client.unread, b"")

    def test_a_completed_handshake_ends_the_timeout(self) -> None:
        client = self.connect()
        self.say(client, b"STARTTLS\r\n")
        self.network.advance(25)
        self.start_tls(client)
        self.network.advance(250)
        self.say(client, b"NOOP\r\n")
        self.assertEqual(self.hear(client), ["220 ", "220 2.0.0", "250 2.0.0"])

    def test_octets_that_are_no_handshake_close_the_connection(self) -> None:
        client = self.connect()
        self.say(client, b"STARTTLS\r\n")
        self.say(client, b"GET / HTTP/1.0\r\n\r\n")
        self.assertTrue(client.over)
        client = self.connect()
        self.say(client, b"NOOP\r\n")
        self.assertEqual(self.hear(client), ["220 ", "250 2.0.0"])


class S9NothingIsKept(DialogueTestCase):
    def test_the_trace_field_has_the_greeting_after_the_handshake(self) -> None:
        # S9, RFC 3207 §4.2
        client = self.connect()
        self.say(client, b"EHLO before.example\r\n")
        self.say(
            client, b"MAIL FROM:<before@b.example>\r\nRCPT TO:<before@d.example>\r\nSTARTTLS\r\n"
        )
        self.start_tls(client)
        self.say(client, b"EHLO after.example\r\n")
        self.say(client, b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n")
        self.say(client, b".\r\n")
        (message,) = self.delivery.messages
        self.assertEqual((message.greeting, message.helo), ("EHLO", "after.example"))
        self.assertEqual([str(each) for each in message.recipients], ["c@d.example"])
        self.assertIsNotNone(message.tls)


class EndOfTLS(DialogueTestCase):
    """RFC 8446 §6.1: the client's end of TLS need not be waited for once it has sent QUIT."""

    def ends(self, commands: bytes) -> bool:
        """Return whether the client counts as finished when the session ends."""
        client = self.connect()
        self.say(client, b"STARTTLS\r\n")
        self.start_tls(client)
        ended: list[bool] = []

        def lose_connection(transport: Any, *, finished: bool) -> None:
            ended.append(finished)
            transport.loseConnection()

        self.patch(self.factory.outbox, "lose_connection", lose_connection)
        self.say(client, commands)
        (finished,) = ended
        return finished

    def test_a_client_that_sends_quit_is_finished(self) -> None:
        self.assertTrue(self.ends(b"QUIT\r\n"))

    def test_a_client_whose_session_we_end_may_go_on_sending(self) -> None:
        self.assertFalse(self.ends(b"XX\r\n" * 20))


class S1Announcement(TidyTestCase):
    def test_ehlo_announces_starttls_without_a_parameter(self) -> None:
        # S1, RFC 3207 §2 (2)
        wire = PureWire(ServerOptions(), RecordingDelivery())
        wire.receive(b"EHLO x\r\n")
        self.assertRegex(wire.output, rb"\r\n250[ -]STARTTLS\r\n")
