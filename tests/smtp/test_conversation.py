"""Conversations for people: the lines that explain an outcome, and no secrets."""

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.mail.tls_facts import TLSFacts
from twisted_mta.smtp.conversation import (
    MAX_OCTETS,
    Conversation,
    Line,
    LineSplitter,
    Overhearing,
    tls_words,
    transcript,
)


def shown(conversation: Conversation) -> list[str]:
    return [str(line) for line in conversation.lines()]


class Kept(SynchronousTestCase):
    def setUp(self) -> None:
        self.conversation = Conversation()

    def test_lines_of_both_sides_are_in_order(self) -> None:
        self.conversation.received(b"220 mx.example\r\n")
        self.conversation.sent(b"EHLO client.example\r\n")
        self.conversation.received(b"250-mx.example\r\n250 PIPE")
        self.conversation.received(b"LINING\r\n")
        self.conversation.begin()
        self.conversation.sent(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n")
        self.assertEqual(
            shown(self.conversation),
            [
                "S: 220 mx.example",
                "C: EHLO client.example",
                "S: 250-mx.example",
                "S: 250 PIPELINING",
                "C: MAIL FROM:<a@b>",
                "C: RCPT TO:<c@d>",
            ],
        )

    def test_a_new_transaction_replaces_the_one_before(self) -> None:
        self.conversation.received(b"220 mx\r\n")
        for number in range(3):
            self.conversation.begin()
            self.conversation.sent(b"MAIL FROM:<%d@b>\r\n" % number)
        self.assertEqual(
            shown(self.conversation),
            ["S: 220 mx", "* (2 transactions before this one)", "C: MAIL FROM:<2@b>"],
        )

    def test_a_secret_in_place_of_the_mechanism_is_taken_out(self) -> None:
        lines: list[str] = []
        served = Overhearing(lambda line: lines.append(str(line)))
        for line in (
            b"AUTH PLAIN=AHVzZXIAcGVuY2ls",
            b"AUTH AHVzZXIAcGVuY2ls",
            b"AUTH=PLAIN AHVzZXIAcGVuY2ls",
        ):
            self.conversation.sent(line + b"\r\n", secret=True)
            served.received(line, secret=False)
        for kept in (shown(self.conversation), lines):
            self.assertEqual(len(kept), 3)
            for text in kept:
                self.assertNotIn("AHVz", text)

    def test_of_content_only_the_size_is_kept(self) -> None:
        self.conversation.content(1234)
        self.conversation.content(5, binary=True)
        self.assertEqual(shown(self.conversation), ["C: (1234 octets)", "C: BDAT (5 octets)"])

    def test_of_auth_only_the_mechanism_and_codes_are_kept(self) -> None:
        self.conversation.sent(b"AUTH PLAIN AHVzZXIAcGVuY2ls\r\n", secret=True)
        self.conversation.received(b"535 5.7.8 not AHVzZXIAcGVuY2ls\r\n")
        self.conversation.sent(b"AUTH LOGIN\r\n", secret=True)
        self.conversation.received(b"334 VXNlcm5hbWU6\r\n")
        self.conversation.sent(b"dXNlcg==\r\n", secret=True)
        self.conversation.received(b"no code, and a pencil\r\n")
        self.conversation.sent(b"*\r\n", secret=True)
        self.conversation.received(b"501 cancelled\r\n")
        self.conversation.sent(b"QUIT\r\n")
        self.conversation.received(b"221 Bye\r\n")
        self.assertEqual(
            shown(self.conversation),
            [
                "C: AUTH PLAIN (taken out)",
                "S: 535 (taken out)",
                "C: AUTH LOGIN",
                "S: 334 (taken out)",
                "C: (taken out)",
                "S: (taken out)",
                "C: *",
                "S: 501 (taken out)",
                "C: QUIT",
                "S: 221 Bye",
            ],
        )

    def test_all_text_of_peers_is_printable(self) -> None:
        self.conversation.received(b"220 \x1b[2J\x00\xff \xc3\xbc\rx\n")
        self.assertEqual(shown(self.conversation), ["S: 220 \\x1b[2J\\x00\\xff \\xfc\\rx"])

    def test_octets_without_an_end_are_not_kept(self) -> None:
        for _ in range(20_000):
            self.conversation.received(b"2")
        self.conversation.received(b"x" * 100_000)
        self.conversation.received(b"\r\n550 the end\r\n")
        self.assertLess(len(self.conversation._pieces), 500)
        self.assertLess(sum(len(what) for _, what in self.conversation._pieces), 10_000)
        self.assertEqual(shown(self.conversation)[-1], "S: 550 the end")
        self.assertLessEqual(max(map(len, shown(self.conversation))), 600)

    def test_a_new_transaction_replaces_one_of_any_length(self) -> None:
        for count in (50, 150, 250, 399, 450, 5000):
            conversation = Conversation()
            for _ in range(count):
                conversation.received(b"220-hello\r\n")
            conversation.begin()
            for _ in range(count):
                conversation.received(b"250 first\r\n")
            conversation.begin()
            conversation.received(b"250 second\r\n")
            last = shown(conversation)[-2:]
            self.assertEqual(last, ["* (1 transaction before this one)", "S: 250 second"])

    def test_the_listener_gets_each_complete_line_at_once(self) -> None:
        lines: list[str] = []
        self.conversation.listener = lambda line: lines.append(str(line))
        self.conversation.received(b"250-on")
        self.assertEqual(lines, [])
        self.conversation.received(b"e\r\n250 two\r\n")
        self.conversation.sent(b"AUTH PLAIN AHVzZXIAcGVuY2ls\r\n", secret=True)
        self.assertEqual(lines, ["S: 250-one", "S: 250 two", "C: AUTH PLAIN (taken out)"])


class Transcript(SynchronousTestCase):
    def test_a_transcript_has_at_most_4_kib_and_both_ends(self) -> None:
        lines = [Line("server", f"{number} " + "x" * 60) for number in range(1000)]
        text = transcript(lines)
        self.assertLessEqual(len(text), MAX_OCTETS)
        self.assertGreater(len(text), MAX_OCTETS * 3 // 4)
        written = text.splitlines()
        self.assertTrue(written[0].startswith("S: 0 x"))
        self.assertTrue(written[-1].startswith("S: 999 x"))
        (gap,) = [line for line in written if "left out" in line]
        self.assertEqual(gap, f"* ({1000 - (len(written) - 1)} lines left out)")

    def test_a_short_transcript_is_whole(self) -> None:
        self.assertEqual(transcript([Line("client", "QUIT")]), "C: QUIT\n")
        self.assertEqual(transcript([]), "")


class Splitting(SynchronousTestCase):
    def test_an_unfinished_line_comes_before_the_next_speaker(self) -> None:
        splitter = LineSplitter()
        lines = [*splitter.lines("server", b"250"), *splitter.lines("client", b"QUIT\r\n")]
        self.assertEqual(lines, [Line("server", "250"), Line("client", "QUIT")])

    def test_a_line_has_at_most_512_characters(self) -> None:
        (line,) = LineSplitter().lines("server", b"x" * 3000 + b"\n")
        self.assertEqual(line.text, "x" * 509 + "...")


class Handshake(SynchronousTestCase):
    def test_a_handshake_is_one_line(self) -> None:
        facts = TLSFacts(version="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384", bits=256)
        self.assertEqual(tls_words(facts), "TLSv1.3 TLS_AES_256_GCM_SHA384, 256 bits")
        facts = TLSFacts(
            "TLSv1.3",
            "AES",
            256,
            peer_fingerprint="aa",
            peer_subject="CN=\x1b\n" * 100,
            peer_problem="no name",
        )
        words = tls_words(facts)
        self.assertIn("certificate not verified (no name), subject CN=\\x1b\\n", words)
        self.assertLess(len(words), 700)
