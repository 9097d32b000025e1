"""The end of a connection: every recipient has an outcome, and none is taken for delivered."""

from collections.abc import Iterator

from attrs import frozen

from tests.tidy import TidyTestCase
from twisted_mta.smtp.client.awaited import Deadlines
from twisted_mta.smtp.client.step import Close, SendBody, TransactionDone

from ..player import GROUP, OPENING, PLAIN_OPENING, Player, message

WHOLE = [
    (b"220 mx.example\r\n", "greeting", "before the greeting"),
    (b"250-mx.example\r\n250 PIPELINING\r\n", "ehlo", "EHLO"),
    (b"250 Ok\r\n", "mail", "MAIL"),
    (b"250 Ok\r\n", "rcpt", "RCPT"),
    (b"550 5.1.1 Nobody\r\n", "rcpt", "RCPT"),
    (b"354 Go on\r\n", "data", "DATA"),
    (b"250 Queued\r\n", "dot", "after the final dot"),
]
"""A server's part of a transaction with two recipients, with the deadline of each wait."""


class EndTests(TidyTestCase):
    """The connection ends at every point of a dialogue."""

    def until(self, number: int) -> Player:
        player = Player(message("b@example.net", "c@example.net"))
        player.take([])
        for octets, _, _ in WHOLE[:number]:
            player.receive(octets)
        return player

    def assert_ended(self, player: Player, number: int, reply: str, *, sure: bool) -> None:
        """Check that all recipients are deferred, except those with a final reply."""
        self.assertIsInstance(player.steps[-1], Close)
        self.assertTrue(player.session.closed)
        if number <= 2:  # nothing of the transaction was answered
            self.assertEqual(player.outcomes, [])
            self.assertIn(reply, str(player.unusable.reply))
            self.assertEqual(player.unusable.reply.code // 100, 4)
            return
        first, second = player.outcomes
        self.assertIn(reply, str(first.reply))
        self.assertEqual(first.reply.code // 100, 4)
        self.assertEqual(first.uncertain, number == 6 and not sure)
        if number > 4:
            self.assertEqual(str(second.reply), "550 5.1.1 Nobody")
        else:
            self.assertIn(reply, str(second.reply))
        self.assertFalse(second.uncertain)

    def test_421_at_any_point_defers(self) -> None:
        """RFC 5321 §3.8; with and without other replies after it."""
        for number in range(len(WHOLE)):
            for behind in (b"", b"250 Ok\r\n", b"25"):
                player = self.until(number)
                player.receive(b"421 4.3.2 Going down\r\n" + behind)
                self.assert_ended(player, number, "421 4.3.2 Going down", sure=True)

    def test_a_connection_lost_at_any_point_defers(self) -> None:
        for number, (_, _, where) in enumerate(WHOLE):
            player = self.until(number)
            player.take(player.session.connection_lost("reset by peer"))
            self.assert_ended(player, number, "reset by peer", sure=False)
            self.assertIn(where, str((player.outcomes or [player.unusable])[0].reply))
            self.assertEqual(player.session.connection_lost("again"), [])

    def test_a_deadline_that_passes_at_any_point_defers(self) -> None:
        """RFC 5321 §4.5.3.2."""
        for number, (_, deadline, where) in enumerate(WHOLE):
            player = self.until(number)
            seconds = getattr(Deadlines(), deadline)
            self.assertEqual(player.session.deadline, seconds)
            player.take(player.session.timed_out())
            self.assert_ended(player, number, f"timed out after {seconds:g} s", sure=False)
            self.assertIn(where, str((player.outcomes or [player.unusable])[0].reply))

    def test_the_deadlines_are_those_of_the_standard(self) -> None:
        """RFC 5321 §4.5.3.2.1 to .6."""
        five, two, three, ten = 300.0, 120.0, 180.0, 600.0
        deadlines = Deadlines()
        self.assertEqual(
            (deadlines.greeting, deadlines.mail, deadlines.rcpt, deadlines.data),
            (five, five, five, two),
        )
        self.assertEqual((deadlines.block, deadlines.dot), (three, ten))

    def test_a_broken_reply_at_any_point_defers(self) -> None:
        """Wrong codes, contradictions, replies without an end."""
        for broken in (
            b"\r\n",
            b"OK\r\n",
            b"2500 Ok\r\n",
            b"150 Wait\r\n",
            b"999 Ok\r\n",
            b"25\r\n",
            b"\x00250 Ok\r\n",
            b"550-No\r\n250 Ok\r\n",
            b"250-Ok\r\nmore\r\n",
            b"250-Ok\r\n" * 100,
            b"250 " + b"x" * 5000,
            b"x" * 5000,
        ):
            for number in range(len(WHOLE)):
                player = self.until(number)
                player.receive(broken)
                self.assert_ended(player, number, "451 4.5.0", sure=False)

    def test_a_reply_of_a_class_that_the_command_does_not_have_defers(self) -> None:
        """RFC 5321 §4.3.2: no command has 3yz but DATA, and DATA has no 2yz."""
        for number in range(len(WHOLE)):
            player = self.until(number)
            player.receive(b"250 Ok\r\n" if number == 5 else b"354 Go on\r\n")
            self.assert_ended(player, number, "451 4.5.0", sure=False)

    def test_a_surplus_reply_is_not_taken_for_the_next_command(self) -> None:
        for number, (octets, _, _) in enumerate(WHOLE):
            if number in (2, 3, 4):
                continue  # there it is the reply to what follows in the group
            player = self.until(number)
            player.receive(octets + b"250 Ok\r\n")
            if number == 6:
                self.assertEqual(player.replies, ["250 Queued", "550 5.1.1 Nobody"])
                self.assertEqual(player.steps[-1], Close(abort=True))
            else:
                self.assert_ended(player, min(number, 5), "451 4.5.0", sure=False)

    def test_a_refusal_without_an_end_counts_for_its_recipient(self) -> None:
        for broken in (b"550 5.1.1 " + b"x" * 5000, b"550-5.1.1 no\r\n" * 100):
            player = self.until(3)
            player.receive(broken)
            first, second = player.outcomes
            self.assertEqual(first.reply.enhanced, "5.1.1")
            self.assertEqual(second.reply.enhanced, "4.5.0")

    def test_a_refusal_within_the_content_counts_and_the_dot_is_not_sent(self) -> None:
        for refusal in ("552 5.3.4 Too large", "421 4.3.2 Going down", "250 Ok"):
            session = (
                Player(message())
                .play(f"""
                {OPENING}
                {GROUP}
                S: 250 Ok
                S: 250 Ok
            """)
                .session
            )
            self.assertEqual(session.receive(b"354 Go on\r\n"), [SendBody(49)])
            pieces = session.body()
            next(pieces)
            done, close = session.receive(f"{refusal}\r\n".encode())
            assert isinstance(done, TransactionDone)
            expected = "451 4.5.0" if refusal == "250 Ok" else refusal
            self.assertEqual(str(done.outcomes[0].reply)[: len(expected)], expected)
            self.assertFalse(done.outcomes[0].uncertain)
            self.assertEqual(close, Close(abort=True))

    def test_content_that_cannot_be_read_is_deferred_and_the_dot_is_not_sent(self) -> None:
        player = Player(message(body=TornBody()))
        player.play(f"{PLAIN_OPENING} C: MAIL FROM:<a@client.example>")
        session = player.session
        for reply in (b"250 Ok\r\n", b"250 Ok\r\n", b"354 Go on\r\n"):
            steps = session.receive(reply)
            session.output()
        self.assertEqual(steps, [SendBody(1029)])
        with self.assertRaises(OSError):
            list(session.body())
        player.take(session.body_failed("Input/output error"))
        self.assertEqual(player.outcomes[0].reply.enhanced, "4.3.0")
        self.assertFalse(player.outcomes[0].uncertain)
        self.assertEqual(player.steps[-1], Close(abort=True))

    def test_long_lines_and_control_characters_do_not_spoil_a_reply(self) -> None:
        """The text is cut at 512 octets, and escaped."""
        player = self.until(6)
        player.receive(b"250 2.0.0 \x00\x1b[2J\xff" + b"x" * 1000 + b"\r\n")
        shown = player.replies[0]
        self.assertTrue(shown.startswith(r"250 2.0.0 \x00\x1b[2J\xffxxx"), shown)
        self.assertLess(len(shown), 530)

    def test_octets_on_an_idle_connection_end_it(self) -> None:
        for octets in (b"421 4.4.2 Timeout\r\n", b"250 Ok\r\n", b"4", b"garbage\r\n"):
            player = Player().play(PLAIN_OPENING)
            player.receive(octets)
            self.assertIsInstance(player.steps[-1], Close)
            self.assertFalse(player.session.idle)


@frozen
class TornBody:
    """A body that cannot be read to its end."""

    size: int = 1000

    def chunks(self) -> Iterator[bytes]:
        yield b"x" * 500
        raise OSError("Input/output error")
