"""LMTP in a client session (RFC 2033): each recipient has its own reply to the content."""

from tests.tidy import TidyTestCase
from twisted_mta.mail.message import Message
from twisted_mta.smtp.client.session import ClientSession
from twisted_mta.smtp.client.step import Close, TransactionDone

from ..player import CONTENT, Player, message

OPENING = """
    S: 220 store.example LMTP
    C: LHLO client.example
    S: 250-store.example
    S: 250-PIPELINING
    S: 250-CHUNKING
    S: 250 BINARYMIME
"""
THREE = ("b@example.net", "c@example.net", "b@example.net")
GROUP = """
    C: MAIL FROM:<a@client.example>
    C: RCPT TO:<b@example.net>
    C: RCPT TO:<c@example.net>
    C: RCPT TO:<b@example.net>
    C: DATA
"""
TAKEN = """
    S: 250 2.1.0 Ok
    S: 250 2.1.5 Ok
    S: 250 2.1.5 Ok
    S: 250 2.1.5 Ok
    S: 354 Go on
"""


def lmtp(*messages: Message, at_a_time: int = 0) -> Player:
    return Player(*messages, dialect="lmtp", at_a_time=at_a_time)


def sent(*recipients: str) -> Player:
    """Return a session that has sent its content, by default for three recipients."""
    return lmtp(message(*(recipients or THREE))).play(f"{OPENING}{GROUP}{TAKEN}{CONTENT}")


class DialogueTests(TidyTestCase):
    def test_each_recipient_has_its_reply_in_the_order_of_rcpt(self) -> None:
        """RFC 2033 §4.2: repeated recipients have one each; some may be delivered, others not."""
        for at_a_time in (0, 1):
            player = lmtp(message(*THREE), message(), at_a_time=at_a_time).play(f"""
                {OPENING}
                {GROUP}
                {TAKEN}
                {CONTENT}
                S: 250 2.0.0 Saved
                S: 452-4.2.2 Mailbox
                S: 452 4.2.2 full
                S: 550 5.7.1 Not again
                C: RSET
                C: MAIL FROM:<a@client.example>
                C: RCPT TO:<b@example.net>
                C: DATA
            """)
            self.assertEqual(
                player.replies, ["250 2.0.0 Saved", "452 4.2.2 Mailbox full", "550 5.7.1 Not again"]
            )
            self.assertEqual([outcome.number for outcome in player.outcomes], [10, 11, 12])
            self.assertEqual({outcome.remote for outcome in player.outcomes}, {"mx[192.0.2.1]:25"})

    def test_there_is_no_outcome_before_the_last_reply(self) -> None:
        player = sent()
        player.play("S: 250 Saved\n S: 250 Saved")
        self.assertEqual(player.outcomes, [])
        self.assertFalse(player.session.idle)
        player.play("S: 250 Saved")
        self.assertEqual(player.replies, ["250 Saved"] * 3)
        self.assertTrue(player.session.idle)

    def test_there_is_no_rset_after_success(self) -> None:
        player = lmtp(message(), message()).play(f"""
            {OPENING}
            C: MAIL FROM:<a@client.example>
            C: RCPT TO:<b@example.net>
            C: DATA
            S: 250 Ok
            S: 250 Ok
            S: 354 Go on
            {CONTENT}
            S: 250 Saved
            C: MAIL FROM:<a@client.example>
            C: RCPT TO:<b@example.net>
            C: DATA
        """)
        self.assertEqual(player.replies, ["250 Saved"])

    def test_only_accepted_recipients_have_a_reply_to_the_content(self) -> None:
        player = lmtp(message(*THREE)).play(f"""
            {OPENING}
            {GROUP}
            S: 250 2.1.0 Ok
            S: 550 5.1.1 Nobody
            S: 250 2.1.5 Ok
            S: 450 4.2.0 Later
            S: 354 Go on
            {CONTENT}
            S: 250 2.0.0 Saved
        """)
        self.assertEqual(player.replies, ["550 5.1.1 Nobody", "250 2.0.0 Saved", "450 4.2.0 Later"])

    def test_503_to_data_without_an_accepted_recipient_sends_no_content(self) -> None:
        """RFC 2033 §4.2."""
        player = lmtp(message()).play(f"""
            {OPENING}
            C: MAIL FROM:<a@client.example>
            C: RCPT TO:<b@example.net>
            C: DATA
            S: 250 Ok
            S: 550 5.1.1 Nobody
            S: 503 5.5.1 No recipients
        """)
        self.assertEqual(player.replies, ["550 5.1.1 Nobody"])
        self.assertTrue(player.session.idle)

    def test_354_without_an_accepted_recipient_ends_the_connection(self) -> None:
        """A lone dot would get no reply at all."""
        player = lmtp(message()).play(f"""
            {OPENING}
            C: MAIL FROM:<a@client.example>
            C: RCPT TO:<b@example.net>
            C: DATA
            S: 250 Ok
            S: 550 5.1.1 Nobody
            S: 354 Go on
        """)
        self.assertEqual(player.replies, ["550 5.1.1 Nobody"])
        self.assertEqual(player.steps[-1], Close(abort=True))

    def test_a_refusal_of_data_is_for_all_recipients(self) -> None:
        player = lmtp(message(*THREE)).play(f"""
            {OPENING}
            {GROUP}
            S: 250 Ok
            S: 250 Ok
            S: 250 Ok
            S: 550 5.1.1 Nobody
            S: 452 4.3.1 Full
        """)
        self.assertEqual(player.replies, ["452 4.3.1 Full"] * 2 + ["550 5.1.1 Nobody"])

    def test_the_last_chunk_has_a_reply_for_each_recipient(self) -> None:
        """RFC 2033 §4.3."""
        player = lmtp(message(*THREE, parameters={"BODY": "BINARYMIME"})).play(f"""
            {OPENING}
            C: MAIL FROM:<a@client.example> BODY=BINARYMIME
            C: RCPT TO:<b@example.net>
            C: RCPT TO:<c@example.net>
            C: RCPT TO:<b@example.net>
            S: 250 Ok
            S: 250 Ok
            S: 550 5.1.1 Nobody
            S: 250 Ok
            C: BDAT 49 LAST
            C: Received: by client.example
            C: Subject: x
            C:
            C: .dot
            S: 250 Saved
            S: 452 4.2.2 Full
        """)
        self.assertEqual(player.replies, ["250 Saved", "550 5.1.1 Nobody", "452 4.2.2 Full"])

    def test_an_smtp_server_defers_since_the_route_is_wrong(self) -> None:
        """RFC 2033 §4.1: there is no HELO to fall back on."""
        for refusal in ("500 5.5.1 What?", "502 5.5.2 What?", "450 4.3.2 Later"):
            player = lmtp(message()).play(f"""
                S: 220 mx.example ESMTP
                C: LHLO client.example
                S: {refusal}
                C: QUIT
                S: 221 Bye
            """)
            self.assertEqual(player.unusable.temporary, refusal.startswith("5"))
            self.assertEqual(str(player.unusable.reply), refusal)
            self.assertEqual(player.unusable.remote, "mx[192.0.2.1]:25")

    def test_the_situation_names_lhlo(self) -> None:
        player = lmtp(message()).play("S: 220 store.example\n C: LHLO client.example")
        player.take(player.session.connection_lost("reset"))
        self.assertIn("before the reply to LHLO", player.unusable.reply.text)


class EndTests(TidyTestCase):
    """The connection ends among the replies: those that came count, the rest is uncertain."""

    def assert_outcomes(self, player: Player, answered: int, text: str) -> None:
        self.assertEqual(len(player.outcomes), 3)
        for place, outcome in enumerate(player.outcomes):
            if place < answered:
                self.assertEqual(str(outcome.reply), ["250 Saved", "550 5.2.2 No"][place])
                self.assertFalse(outcome.uncertain)
                self.assertEqual(outcome.remote, "mx[192.0.2.1]:25")
            else:
                self.assertEqual(outcome.reply.code // 100, 4)
                self.assertIn(text, outcome.reply.text)
                self.assertTrue(outcome.uncertain)
                self.assertIsNone(outcome.remote)
        self.assertIsInstance(player.steps[-1], Close)

    def answered(self, number: int) -> Player:
        player = sent()
        for reply in (b"250 Saved\r\n", b"550 5.2.2 No\r\n")[:number]:
            player.receive(reply)
        return player

    def test_a_lost_connection_leaves_the_rest_uncertain(self) -> None:
        for number in range(3):
            player = self.answered(number)
            player.take(player.session.connection_lost("reset by peer"))
            self.assert_outcomes(player, number, "after the final dot: reset by peer")

    def test_each_reply_may_take_ten_minutes(self) -> None:
        """RFC 5321 §4.5.3.2.6."""
        for number in range(3):
            player = self.answered(number)
            self.assertEqual(player.session.deadline, 600.0)
            player.take(player.session.timed_out())
            self.assert_outcomes(player, number, "timed out after 600 s")

    def test_each_reply_begins_the_wait_for_the_next(self) -> None:
        player = sent()
        turns = [player.session.turn]
        for _ in range(2):
            player.receive(b"250 Saved\r\n")
            turns.append(player.session.turn)
        self.assertEqual(len(frozenset(turns)), 3)

    def test_a_broken_reply_leaves_the_rest_uncertain(self) -> None:
        for broken in (b"354 Go on\r\n", b"OK\r\n", b"250 " + b"x" * 5000):
            for number in range(3):
                player = self.answered(number)
                player.receive(broken)
                self.assert_outcomes(player, number, "")

    def test_421_is_the_reply_for_one_recipient_and_the_rest_is_uncertain(self) -> None:
        for number in range(3):
            player = self.answered(number)
            player.receive(b"421 4.3.2 Going down\r\n250 Saved\r\n")
            self.assertEqual(str(player.outcomes[number].reply), "421 4.3.2 Going down")
            self.assertFalse(player.outcomes[number].uncertain)
            self.assertEqual(
                [outcome.uncertain for outcome in player.outcomes[number + 1 :]],
                [True] * (2 - number),
            )
            self.assertEqual(player.steps[-1], Close())

    def test_a_surplus_reply_ends_the_connection(self) -> None:
        player = sent()
        player.receive(b"250 Saved\r\n" * 4)
        self.assertEqual(player.replies, ["250 Saved"] * 3)
        self.assertEqual(player.steps[-1], Close(abort=True))

    def test_a_refusal_while_the_content_is_sent_is_for_the_first_recipient(self) -> None:
        """The others are deferred: the end of the content was not sent."""
        for reply, others in (("552 5.2.2 No", "refused while"), ("421 4.3.2 Down", "Down")):
            session = ClientSession(
                helo="client.example", remote="mx[192.0.2.1]:25", tls="none", dialect="lmtp"
            )
            session.receive(b"220 store.example\r\n")
            session.output()
            session.receive(b"250-store.example\r\n250 PIPELINING\r\n")
            session.transact(message(*THREE, content=b"x" * 200_000))
            session.output()
            session.receive(b"250 Ok\r\n" * 4 + b"354 Go on\r\n")
            next(session.body())
            done, close = session.receive(f"{reply}\r\n250 Saved\r\n".encode())
            assert isinstance(done, TransactionDone)
            self.assertEqual(str(done.outcomes[0].reply), reply)
            for outcome in done.outcomes[1:]:
                self.assertEqual(outcome.reply.code // 100, 4)
                self.assertIn(others, outcome.reply.text)
            self.assertFalse(any(outcome.uncertain for outcome in done.outcomes))
            self.assertEqual(close, Close(abort=True))
