"""Hostile and broken servers: no message is lost, sent twice or sent in clear against the terms.

Each dialogue is played with the server's octets in one piece and cut at every point there is.
"""

from collections.abc import Iterator

from tests.delivery.hops import HopTestCase
from tests.delivery.test_relay import FIRST, HOP, SECOND, TAKEN, message
from tests.tls.test_client import HELLO
from twisted_mta.config import Destination
from twisted_mta.mail.next_hop import Host, NextHop
from twisted_mta.mail.outcome import Outcome
from twisted_mta.testing.peer import ScriptedPeer, ScriptStep

GREETING = b"220 mx.example\r\n"
OFFER = b"250-mx.example\r\n250-PIPELINING\r\n250 STARTTLS\r\n"
PLAIN = b"250-mx.example\r\n250 PIPELINING\r\n"
EHLO: ScriptStep = ("expect", b"EHLO client.example\r\n")
STARTTLS: ScriptStep = ("expect", b"STARTTLS\r\n")
QUIT: ScriptStep = ("expect", b"QUIT\r\n")
GROUP: ScriptStep = (
    "expect",
    b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n",
)
GO_ON = b"250 Ok\r\n250 Ok\r\n354 Go on\r\n"


class HostileTestCase(HopTestCase):
    def dialogues(self, *octets: bytes) -> Iterator[list[tuple[bytes, ...]]]:
        """Yield the octets as one piece, and cut in two at each point."""
        yield [(each,) for each in octets]
        for place, each in enumerate(octets):
            for cut in range(1, len(each)):
                pieces: list[tuple[bytes, ...]] = [(one,) for one in octets]
                pieces[place] = (each[:cut], each[cut:])
                yield pieces

    def play(
        self,
        expected: list[ScriptStep | None],
        pieces: list[tuple[bytes, ...]],
        *end: ScriptStep,
        hop: NextHop = HOP,
    ) -> tuple[ScriptedPeer, Outcome | None]:
        """Let a server send ``pieces``, each after the expected command.

        What is cut comes as two segments, and we have read the first before the second is sent.
        """
        peer = ScriptedPeer([])
        self.network.listen(FIRST.address, FIRST.port, peer)
        delivering = self.relay.deliver(hop, message())
        self.network.settle()
        for command, segments in zip(expected, pieces, strict=True):
            if command is not None:
                peer.script.append(command)
                peer._play()
            for segment in segments:
                if not peer.lost:
                    peer.transport.write(segment)
                self.network.settle()
        peer.script += end
        peer._play()
        self.network.settle()
        if not delivering.called:
            return peer, None
        [outcome] = self.successResultOf(delivering)
        return peer, outcome

    def fresh(self) -> None:
        """Drop all connections and their dialogue."""
        self.relay.abort()
        self.network.settle()
        self.network._listening.clear()
        self.relay.connections.unreachable.clear()


class StartTLSTests(HostileTestCase):
    def test_a_hidden_starttls_offer_is_handled_by_level(self) -> None:
        """At ``may`` the mail goes in clear, at other levels QUIT follows."""
        for level in ("encrypt", "verify"):
            self.use(tls=level)
            for pieces in self.dialogues(GREETING, PLAIN):
                peer, outcome = self.play([None, EHLO], pieces, QUIT)
                assert outcome is not None
                self.assertEqual(outcome.reply.enhanced, "4.7.4")
                self.assertTrue(peer.finished, (pieces, peer.problems))
                self.fresh()

    def test_c4_starttls_may_be_refused_with_any_code(self) -> None:
        """By the level, the mail goes in clear on the connection, or QUIT follows."""
        for level in ("may", "encrypt"):
            for reply in (b"454 4.7.0 No", b"554 No", b"502 No", b"501 No", b"250 Ok", b"221 Bye"):
                self.use(tls=level)
                for pieces in self.dialogues(GREETING, OFFER, reply + b"\r\n"):
                    after = GROUP if level == "may" else QUIT
                    peer, outcome = self.play([None, EHLO, STARTTLS], pieces, after)
                    if level == "encrypt":
                        assert outcome is not None
                        self.assertTrue(outcome.deferred, reply)
                        self.assertIn(reply.decode(), str(outcome.reply))
                    else:
                        self.assertIsNone(outcome)
                    self.assertTrue(peer.finished, (pieces, peer.problems))
                    self.fresh()

    def test_c4_421_to_starttls_ends_the_session_at_every_level(self) -> None:
        """At ``may`` the mail is sent once more in clear; here the second connection fails."""
        for level in ("may", "encrypt", "verify"):
            self.use(tls=level)
            for pieces in self.dialogues(GREETING, OFFER, b"421 4.3.2 Busy\r\n"):
                peer, outcome = self.play([None, EHLO, STARTTLS], pieces)
                assert outcome is not None
                self.assertEqual(str(outcome.reply), "421 4.3.2 Busy")
                self.assertTrue(peer.lost)
                self.assertTrue(peer.received.endswith(b"STARTTLS\r\n"))
                self.fresh()
            retries = self.relay.connections.traffic.clear_retries
            self.assertEqual(retries > 0, level == "may")

    def test_c2_replies_injected_behind_220_are_dropped(self) -> None:
        """C2, §6: replies in the same segment, whole or in part, are never used."""
        for injected in (
            b"250-mx.example\r\n250 AUTH PLAIN\r\n",
            b"250 Ok\r\n250 Ok\r\n250 Ok\r\n354 Go on\r\n",
            b"2",
            b"\r",
            b"\n",
            b"\0",
        ):
            for level in ("may", "encrypt"):
                self.use(tls=level)
                answer = b"220 Go\r\n"
                # The segments are divided before the end of the 220, or not at all.
                for cut in range(len(answer)):
                    segments = tuple(filter(None, (answer[:cut], answer[cut:] + injected)))
                    peer, outcome = self.play(
                        [None, EHLO, STARTTLS], [(GREETING,), (OFFER,), segments]
                    )
                    assert outcome is not None
                    self.assertEqual(outcome.reply.enhanced, "4.7.0", (injected, segments))
                    self.assertTrue(peer.lost)
                    self.assertTrue(peer.received.endswith(b"STARTTLS\r\n"))
                    self.fresh()
                    retries = self.relay.connections.traffic.clear_retries
                    self.assertEqual(retries > 0, level == "may")

    def test_plain_text_after_220_fails_the_handshake(self) -> None:
        """It is read as TLS: the handshake fails, without any other effect."""
        for injected in (b"250 mx.example\r\n", b"2", b"\x16\x03\x01"):
            self.use(tls="encrypt")
            peer, outcome = self.play(
                [None, EHLO, STARTTLS, HELLO],
                [(GREETING,), (OFFER,), (b"220 Go\r\n",), (injected,)],
            )
            if outcome is None:  # the handshake may still complete
                self.network.advance(30)
            self.assertTrue(peer.lost)
            self.assertNotIn(b"EHLO", bytes(peer.received).partition(b"STARTTLS")[2])
            self.fresh()

    def test_a_220_with_any_text_or_several_lines_is_a_220(self) -> None:
        """RFC 5321 §4.2: only the code counts."""
        self.use(tls="encrypt")
        for reply in (b"220-Go\r\n220 on\r\n", b"220\r\n", b"220 \0\x1b[31m\xff\r\n"):
            for pieces in self.dialogues(reply):
                _, outcome = self.play(
                    [None, EHLO, STARTTLS], [(GREETING,), (OFFER,), *pieces], HELLO, ("abort",)
                )
                assert outcome is not None
                self.assertIn("during the TLS handshake", outcome.reply.text)
                self.fresh()

    def test_a_greeting_or_an_ehlo_reply_with_a_wrong_code_ends_the_session(self) -> None:
        """The server is out of step from the start."""
        self.use()
        for first, second in ((b"250 mx.example\r\n", OFFER), (b"354 Go on\r\n", OFFER)):
            peer, outcome = self.play([None], [(first + second,)])
            assert outcome is not None
            self.assertEqual(outcome.reply.code // 100, 4)
            self.assertEqual(peer.received, b"")
            self.fresh()
        for reply in (b"354-mx.example\r\n354 STARTTLS\r\n", b"334 go\r\n"):
            peer, outcome = self.play([None, EHLO], [(GREETING,), (reply,)])
            assert outcome is not None
            self.assertEqual(outcome.reply.code // 100, 4)
            self.assertEqual(peer.received, b"EHLO client.example\r\n")
            self.fresh()

    def test_auth_offered_only_in_clear_is_not_used(self) -> None:
        """C8: no AUTH command is sent, however the offer is cut."""
        password = self.file("password", b"secret")
        self.use(Destination(domain="mx.example", username="us", password_file=password))
        hop = NextHop("smtp", hosts=(Host("mx.example"),))
        offer = b"250-mx.example\r\n250-AUTH=LOGIN PLAIN\r\n250 AUTH PLAIN\r\n"
        self.targets = [FIRST.__class__("mx.example", FIRST.address, 25)]
        for pieces in self.dialogues(GREETING, offer):
            peer, outcome = self.play([None, EHLO], pieces, QUIT, hop=hop)
            assert outcome is not None
            self.assertEqual(outcome.reply.enhanced, "4.7.4")
            self.assertTrue(peer.finished, peer.problems)
            self.fresh()


class ReplyTests(HostileTestCase):
    """Malformed, endless and unexpected replies."""

    def setUp(self) -> None:
        super().setUp()
        self.use(tls="none")

    BEFORE: tuple[tuple[ScriptStep | None, bytes], ...] = (
        (None, GREETING),
        (EHLO, PLAIN),
        (GROUP, GO_ON),
        (("content",), b"250 2.0.0 Queued\r\n"),
    )

    def reply_with(self, where: int, *reply_octets: bytes) -> tuple[ScriptedPeer, Outcome | None]:
        """Send other octets in place of one of the four replies."""
        *before, (command, _) = self.BEFORE[: where + 1]
        return self.play(
            [*(one for one, _ in before), command],
            [*((octets,) for _, octets in before), reply_octets],
        )

    def test_a_long_reply_line_is_cut_and_its_code_holds(self) -> None:
        """RFC 5321 §4.5.3.1.5: the text is cut, the code holds."""
        for where, (_, reply) in enumerate(self.BEFORE):
            line, _, rest = reply.partition(b"\r\n")
            longer = (line[:3] + b" " + b"x" * 2000 + b"\r\n") if where != 1 else reply
            peer, outcome = self.reply_with(where, longer + (rest if where == 2 else b""))
            if where == 3:
                assert outcome is not None
                self.assertTrue(outcome.delivered)
                self.assertLess(len(outcome.reply.text), 600)
            else:
                self.assertFalse(peer.lost, where)
            self.fresh()

    def test_different_codes_in_one_reply_are_judged_by_their_classes(self) -> None:
        """RFC 5321 §4.2.1: of codes of one class the last counts; several classes defer."""
        for reply_octets, code, uncertain in (
            (b"250-ok\r\n251 queued\r\n", 251, False),
            (b"554-no\r\n550 5.1.1 nobody\r\n", 550, False),
            (b"250-ok\r\n550 no\r\n", 451, True),
            (b"550-no\r\n250 ok\r\n", 451, True),
        ):
            for cut in range(len(reply_octets)):
                _, outcome = self.reply_with(
                    3, *filter(None, (reply_octets[:cut], reply_octets[cut:]))
                )
                assert outcome is not None
                self.assertEqual((outcome.reply.code, outcome.uncertain), (code, uncertain))
                if code == 451:
                    self.assertIn("250 ok", outcome.reply.text)
                    self.assertIn("550 no", outcome.reply.text)
                self.fresh()

    def test_a_reply_without_end_is_given_up(self) -> None:
        """A line, or a reply of many lines, needs bounded memory; a refusal remains a refusal."""
        for where in range(4):
            for endless in (b"2" * 100_000, b"250 " + b"x" * 100_000, b"250-more\r\n" * 1000):
                peer, outcome = self.reply_with(where, endless)
                assert outcome is not None
                self.assertEqual(outcome.reply.code // 100, 4)
                self.assertEqual(outcome.uncertain, where == 3)
                self.assertTrue(peer.lost)
                self.fresh()
        for endless in (b"550 " + b"x" * 100_000, b"550-more\r\n" * 1000):
            _, outcome = self.reply_with(3, endless)
            assert outcome is not None
            self.assertEqual(outcome.reply.code, 550)
            self.fresh()

    def test_malformed_replies_defer(self) -> None:
        for where in range(4):
            for octets in (
                b"\r\n",
                b"hello\r\n",
                b"99 Ok\r\n",
                b"2500 Ok\r\n",
                b"150 Ok\r\n",
                b"650 Ok\r\n",
                b"250_Ok\r\n",
                b"\xd9\xa2\xd9\xa5\xd9\xa0 Ok\r\n",  # digits of another script
                b"250-Ok\r\n550 No\r\n",
                b"250-Ok\r\nOk\r\n",
                b"\0250 Ok\r\n",
            ):
                for cut in (0, 1, len(octets) - 1):
                    reply_octets = tuple(filter(None, (octets[:cut], octets[cut:])))
                    peer, outcome = self.reply_with(where, *reply_octets)
                    assert outcome is not None, (where, octets)
                    self.assertEqual(outcome.reply.code // 100, 4)
                    self.assertEqual(outcome.uncertain, where == 3)
                    self.assertTrue(peer.lost)
                    self.fresh()

    def test_control_characters_in_replies_are_escaped(self) -> None:
        """The code counts, and the text is escaped everywhere."""
        evil = "5.7.1 \0\x1b[2J\r\v\x7f\u202e"
        _, outcome = self.reply_with(3, f"550 {evil}\r\n".encode())
        assert outcome is not None
        self.assertTrue(outcome.failed)
        self.assertEqual(str(outcome.reply), r"550 5.7.1 \x00\x1b[2J\r\x0b\x7f\u202e")
        self.assertTrue(str(outcome.reply).isprintable())

    def test_421_at_any_command_ends_the_session(self) -> None:
        for where in range(4):
            for pieces in self.dialogues(b"421 4.3.2 Busy\r\n"):
                peer, outcome = self.reply_with(where, *pieces[0])
                assert outcome is not None
                self.assertEqual(str(outcome.reply), "421 4.3.2 Busy")
                self.assertFalse(outcome.uncertain)
                self.assertTrue(peer.lost)
                self.fresh()

    def test_a_greeting_that_never_arrives_times_out(self) -> None:
        self.targets = [FIRST, SECOND]
        second = self.server(("send", GREETING), EHLO, ("send", PLAIN), *TAKEN, target=SECOND)
        first = self.server()
        delivering = self.deliver()
        self.network.advance(299)
        self.assertNoResult(delivering)
        self.network.advance(1)
        self.assertEqual(self.outcome(delivering).remote, str(SECOND))
        self.assertTrue(first.lost and second.finished)

    def test_a_connection_may_be_closed_at_every_point(self) -> None:
        """Before the final dot the next target is tried; after it the outcome is uncertain."""
        for where in range(4):
            for end in (("close",), ("abort",)):
                *before, (command, _) = self.BEFORE[: where + 1]
                _, outcome = self.play(
                    [*(one for one, _ in before), command],
                    [*((octets,) for _, octets in before), ()],
                    end,  # type: ignore[arg-type]
                )
                assert outcome is not None
                self.assertEqual(outcome.reply.code // 100, 4)
                self.assertEqual(outcome.uncertain, where == 3)
                self.fresh()
        duplicates = [line for line in self.log if "duplicate" in line]
        self.assertEqual(len(duplicates), 2)

    def test_a_reply_too_many_ends_the_session(self) -> None:
        """A reply behind the last of a group: the server is out of step."""
        for where in range(3):
            octets = self.BEFORE[where][1] + b"250 Ok\r\n"
            peer, outcome = self.reply_with(where, octets)
            assert outcome is not None
            self.assertEqual(outcome.reply.code // 100, 4)
            self.assertEqual(peer.contents, [])
            self.assertTrue(peer.lost)
            self.fresh()
