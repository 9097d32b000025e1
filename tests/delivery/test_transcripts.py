"""Transcripts: a deferred delivery keeps its dialogue, a finished one does not."""

from __future__ import annotations

from tests.delivery.test_relay import FIRST, GROUP, OPENING, SECOND, TAKEN, RelayTestCase


class Transcripts(RelayTestCase):
    def lines(self) -> list[str]:
        return self.outcome(self.deliver()).transcript.splitlines()

    def test_a_deferred_delivery_keeps_the_dialogue_up_to_its_reply(self) -> None:
        answers = b"250 Ok\r\n451 4.7.1 Greylisted\x1b\r\n503 No recipients\r\n"
        self.server(*OPENING, *GROUP, ("send", answers))
        self.assertEqual(
            self.lines(),
            [
                "* mx1.example[192.0.2.1]:25",
                "S: 220 mx.example",
                "C: EHLO client.example",
                "S: 250-mx.example",
                "S: 250 PIPELINING",
                "C: MAIL FROM:<a@client.example>",
                "C: RCPT TO:<b@example.net>",
                "C: DATA",
                "S: 250 Ok",
                "S: 451 4.7.1 Greylisted\\x1b",
                "S: 503 No recipients",
            ],
        )

    def test_a_successful_delivery_has_no_transcript(self) -> None:
        self.server(*OPENING, *TAKEN)
        self.assertEqual(self.lines(), [])

    def test_a_failed_delivery_has_no_transcript(self) -> None:
        answers = b"250 Ok\r\n550 5.1.1 Nobody\r\n503 No recipients\r\n"
        self.server(*OPENING, *GROUP, ("send", answers))
        self.assertEqual(self.lines(), [])

    def test_a_transcript_has_only_the_size_of_the_content(self) -> None:
        self.server(*OPENING, *TAKEN[:-1], ("send", b"452 4.2.2 Full\r\n"))
        lines = self.lines()
        self.assertEqual(lines[-2:], ["C: (34 octets)", "S: 452 4.2.2 Full"])
        self.assertNotIn("Hello", "".join(lines))

    def test_a_reused_connection_shows_its_opening_and_this_transaction(self) -> None:
        answers = b"451 4.3.0 Not now\r\n503 No\r\n503 No\r\n"
        self.server(*OPENING, *TAKEN, *GROUP, ("send", answers))
        self.assertEqual(self.lines(), [])
        lines = self.lines()
        self.assertIn("S: 220 mx.example", lines)
        self.assertIn("* (1 transaction before this one)", lines)
        self.assertNotIn("S: 250 2.0.0 Queued", lines)
        self.assertIn("S: 451 4.3.0 Not now", lines)

    def test_a_transcript_has_each_host_that_was_tried(self) -> None:
        self.targets = [FIRST, SECOND]
        self.server(("send", b"421 4.3.2 Busy\r\n"))
        self.assertEqual(
            self.lines(),
            [
                "* mx1.example[192.0.2.1]:25",
                "S: 421 4.3.2 Busy",
                "* mx2.example[2001:db8::2]:25: Connection was refused by other side.",
            ],
        )
