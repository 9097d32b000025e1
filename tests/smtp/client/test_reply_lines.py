"""Replies whose lines differ in code, class or enhanced status code (RFC 5321 §4.2.1)."""

from tests.tidy import TidyTestCase
from twisted_mta.smtp.client.step import Close, Ready, StartTLS
from twisted_mta.smtp.sasl.client import Credentials

from ..player import FACTS, PLAIN_OPENING, Player, message
from .test_lmtp import sent

TWO = ("b@example.net", "c@example.net")
STARTTLS_OFFER = b"250-mx.example\r\n250 STARTTLS\r\n"


def pipelined(*replies: str, recipients: tuple[str, ...] = TWO) -> Player:
    """Return a session that has read ``replies`` to MAIL, RCPT, DATA, and the final dot."""
    player = Player(message(*recipients))
    player.receive(b"220 mx.example\r\n")
    player.receive(b"250-mx.example\r\n250 PIPELINING\r\n")
    for reply in replies:
        player.receive("".join(f"{line}\r\n" for line in reply.split("|")).encode())
    return player


class OfOneClass(TidyTestCase):
    """Where the codes are of one class, the last one counts, and the text keeps each of them."""

    def test_the_last_code_after_the_final_dot_counts(self) -> None:
        for reply, counted in (
            ("250-ok|251 queued", "251 250 ok 251 queued"),
            ("251-ok|250 queued", "250 251 ok 250 queued"),
            ("250-one|299-two|250 three", "250 250 one 299 two 250 three"),
            ("451-busy|452 full", "452 451 busy 452 full"),
            ("554-no|550 5.1.1 nobody", "550 554 no 550 5.1.1 nobody"),
            ("250\tok", "250 ok"),
        ):
            player = pipelined("250 Ok", "250 Ok", "250 Ok", "354 Go", reply)
            self.assertEqual(player.replies, [counted, counted], reply)
            self.assertFalse(any(outcome.uncertain for outcome in player.outcomes))
            self.assertTrue(player.session.idle)

    def test_the_last_code_counts_wherever_the_reply_is_split(self) -> None:
        octets = b"250-ok\r\n251 queued\r\n"
        for cut in range(1, len(octets)):
            player = pipelined("250 Ok", "250 Ok", "250 Ok", "354 Go")
            player.receive(octets[:cut])
            self.assertEqual(player.outcomes, [])
            player.receive(octets[cut:])
            self.assertEqual(player.replies, ["251 250 ok 251 queued"] * 2, cut)

    def test_the_last_code_counts_for_every_command(self) -> None:
        player = Player(message("b@example.net"), tls="may")
        player.receive(b"221-mx.example\r\n220 welcome\r\n")
        player.receive(b"220-mx.example\r\n251-PIPELINING\r\n250 STARTTLS\r\n")
        player.receive(b"250-go\r\n220 on\r\n")
        self.assertIsInstance(player.steps[-1], StartTLS)
        player.take(player.session.handshake_completed(FACTS))
        player.receive(b"251-mx.example\r\n250 PIPELINING\r\n")
        self.assertIsInstance(player.steps[-1], Ready)
        player.receive(b"251-a\r\n250 b\r\n250-a\r\n251 b\r\n355-go\r\n354 on\r\n")
        player.receive(b"250-a\r\n251 b\r\n")
        self.assertEqual(player.replies, ["251 250 a 251 b"])

    def test_extensions_are_read_from_lines_with_different_codes(self) -> None:
        player = Player(message("b@example.net"))
        player.receive(b"220 mx.example\r\n")
        player.receive(b"220-mx.example\r\n251-SIZE 100\r\n250 PIPELINING\r\n")
        self.assertEqual(player.session.capabilities, {"SIZE": "100", "PIPELINING": ""})

    def test_earlier_codes_do_not_count(self) -> None:
        """220 before 250 is no greeting; 334 before 354 is a reply to DATA."""
        player = Player()
        player.receive(b"220-mx.example\r\n250 Ok\r\n")
        self.assertEqual(player.unusable.reply.enhanced, "4.5.0")
        player = pipelined("250 Ok", "250 Ok", "250 Ok", "334-go|354 on", "250 Ok")
        self.assertEqual(player.replies, ["250 Ok", "250 Ok"])

    def test_421_in_the_last_line_ends_the_session(self) -> None:
        player = pipelined("250 Ok", "250 Ok", "450-wait|421 Going down")
        self.assertEqual(player.replies, ["421 450 wait 421 Going down"] * 2)
        self.assertTrue(player.session.closed)

    def test_the_last_code_in_reply_to_auth_counts(self) -> None:
        for reply, known in ((b"250-a\r\n235 b\r\n", True), (b"235-a\r\n250 b\r\n", False)):
            player = Player(tls="encrypt", credentials=Credentials("user", "pencil"))
            player.receive(b"220 mx.example\r\n")
            player.receive(STARTTLS_OFFER)
            player.receive(b"220 Go\r\n")
            player.take(player.session.handshake_completed(FACTS))
            player.receive(b"250-mx.example\r\n250 AUTH PLAIN\r\n")
            player.receive(reply)
            self.assertEqual(player.session.idle, known)

    def test_in_lmtp_each_reply_counts_for_its_recipient(self) -> None:
        player = sent()
        player.receive(b"250-a\r\n251 saved\r\n451-a\r\n452 full\r\n250 saved\r\n")
        self.assertEqual(player.replies, ["251 250 a 251 saved", "452 451 a 452 full", "250 saved"])


class OfSeveralClasses(TidyTestCase):
    """Where the classes differ, the command is deferred, and the text of the server kept."""

    def test_after_the_final_dot_all_are_deferred_and_uncertain_if_a_line_accepts(self) -> None:
        for reply, uncertain in (
            ("250-ok|550 5.7.1 spam", True),
            ("550-5.7.1 spam|250 ok", True),
            ("250-ok|451 later", True),
            ("451-later|550 no", False),
            ("550-no|421 Going down", False),
            ("354-go|250 ok", True),
        ):
            player = pipelined("250 Ok", "250 Ok", "250 Ok", "354 Go", reply)
            for outcome in player.outcomes:
                self.assertEqual(outcome.reply.enhanced, "4.5.0")
                self.assertIn(
                    f"(after the final dot): {' '.join(reply.replace('-', ' ').split('|'))}",
                    str(outcome.reply),
                )
                self.assertIsNone(outcome.remote)
                self.assertEqual(outcome.uncertain, uncertain, reply)
            self.assertIsInstance(player.steps[-1], Close)

    def test_before_a_transaction_another_host_may_be_tried(self) -> None:
        for reply in (b"220-mx.example\r\n554 no\r\n", b"554-no\r\n220 mx.example\r\n"):
            player = Player(message())
            player.receive(reply)
            self.assertIn("554 no", str(player.unusable.reply))
            self.assertEqual(player.unusable.reply.code, 451)
            self.assertEqual(player.sent, "")
        for reply in (b"250-mx.example\r\n550 no\r\n", b"550-no\r\n250 mx.example\r\n"):
            player = Player(message())
            player.receive(b"220 mx.example\r\n")
            player.receive(reply)
            self.assertIn("550 no", str(player.unusable.reply))
            self.assertEqual(player.unusable.reply.code, 451)

    def test_in_reply_to_starttls_a_refusal_in_the_last_line_counts(self) -> None:
        for level, reply, goes_on in (
            ("may", b"220-go\r\n454 no\r\n", True),
            ("encrypt", b"220-go\r\n454 no\r\n", False),
            ("may", b"454-no\r\n220 go\r\n", False),
            ("encrypt", b"454-no\r\n220 go\r\n", False),
        ):
            player = Player(tls=level)  # type: ignore[arg-type]
            player.receive(b"220 mx.example\r\n")
            player.receive(STARTTLS_OFFER)
            player.receive(reply)
            self.assertEqual(player.session.idle, goes_on, reply)
            self.assertNotIn(StartTLS(), player.steps)
            if not goes_on:
                self.assertIn("454 no", str(player.unusable.reply))
                retried = level == "may"
                self.assertEqual(player.unusable.clear_retry, retried)

    def test_in_reply_to_auth_no_secret_is_shown(self) -> None:
        for reply in (b"235-ok\r\n535 pencil\r\n", b"535-no\r\n235 pencil\r\n"):
            player = Player(tls="encrypt", credentials=Credentials("user", "pencil"))
            player.receive(b"220 mx.example\r\n")
            player.receive(STARTTLS_OFFER)
            player.receive(b"220 Go\r\n")
            player.take(player.session.handshake_completed(FACTS))
            player.receive(b"250-mx.example\r\n250 AUTH PLAIN\r\n")
            player.receive(reply)
            self.assertEqual(player.unusable.reply.code, 451)
            self.assertNotIn("pencil", str(player.unusable.reply))

    def test_in_reply_to_mail_or_data_the_session_ends(self) -> None:
        for replies in (
            ("250-ok|550 no",),
            ("550-no|250 ok",),
            ("250 Ok", "250 Ok", "250 Ok", "354-go|550 no"),
            ("250 Ok", "250 Ok", "250 Ok", "550-no|354 go"),
        ):
            player = pipelined(*replies)
            results = player.outcomes or [player.unusable]
            for each in results:
                self.assertIn("550 no", str(each.reply))
                self.assertEqual(each.reply.code, 451)
            self.assertTrue(player.session.closed)

    def test_in_reply_to_rcpt_the_other_recipients_go_on(self) -> None:
        player = pipelined("250 Ok", "250-ok|550 no", "250 Ok", "354 Go", "250 Queued")
        first, second = player.outcomes
        self.assertIn("(before the reply to RCPT): 250 ok 550 no", str(first.reply))
        self.assertEqual((first.reply.code, first.uncertain), (451, False))
        self.assertIsNone(first.remote)  # the reply is our own
        self.assertEqual(str(second.reply), "250 Queued")

    def test_no_content_is_sent_where_a_deferred_recipient_may_be_accepted(self) -> None:
        """Each attempt would leave one more copy there."""
        player = pipelined("250 Ok", "550-no|250 ok", "250 Ok", "354 Go")
        self.assertEqual([outcome.reply.code for outcome in player.outcomes], [451, 451])
        self.assertNotIn("Subject", player.sent)

    def test_in_lmtp_the_other_recipients_keep_their_replies(self) -> None:
        for reply in (b"250-saved\r\n550 no\r\n", b"550-no\r\n250 saved\r\n"):
            player = sent()
            player.receive(b"250 saved\r\n" + reply + b"250 saved\r\n")
            self.assertEqual([each.reply.code for each in player.outcomes], [250, 451, 250])
            self.assertEqual([each.uncertain for each in player.outcomes], [False, True, False])
            self.assertIn("550 no", str(player.outcomes[1].reply))

    def test_in_reply_to_quit_nothing_depends_on_it(self) -> None:
        player = Player().play(PLAIN_OPENING)
        player.session.quit()
        player.take([])
        player.receive(b"221-bye\r\n550 no\r\n")
        self.assertEqual(player.steps[-1], Close())

    def test_control_characters_are_escaped(self) -> None:
        player = pipelined("250 Ok", "250 Ok", "250 Ok", "354 Go", "250-a\x1b[2J|550 \x00b")
        self.assertIn(r"250 a\x1b[2J 550 \x00b", player.replies[0])

    def test_without_an_end_the_delivery_is_uncertain(self) -> None:
        player = pipelined("250 Ok", "250 Ok", "250 Ok", "354 Go")
        player.receive(b"250-ok\r\n550-no\r\n" * 50)
        self.assertEqual([each.reply.enhanced for each in player.outcomes], ["4.5.0"] * 2)
        self.assertTrue(player.outcomes[0].uncertain)

    def test_a_refusal_without_an_end_has_no_text_of_what_follows_its_last_line(self) -> None:
        player = pipelined()
        player.receive(b"550-no\r\n" * 100 + b"550 never\r\n250 Ok\r\n")
        self.assertEqual(player.replies, [f"550 {'no ' * 100}never"] * 2)


class Statuses(TidyTestCase):
    """The enhanced status codes of lines (RFC 2034 §4) may differ too."""

    def test_the_last_status_of_the_class_of_the_code_counts(self) -> None:
        """The text keeps all of them where they were said."""
        for reply, expected, detail in (
            ("550-5.1.1 no|550-5.1.1 such|550 5.1.1 user", "550 5.1.1 no such user", "1.1"),
            ("550-5.7.1 policy|550 5.1.1 nobody", "550 5.7.1 policy 5.1.1 nobody", "1.1"),
            ("550-5.1.1 nobody|550 see a.example", "550 5.1.1 nobody see a.example", "1.1"),
            ("550-see below|550 5.1.1 nobody", "550 see below 5.1.1 nobody", "1.1"),
            ("550-5.1.1 nobody|550 4.2.0 later", "550 5.1.1 nobody 4.2.0 later", "1.1"),
            ("554-5.7.1 policy|550 5.1.1 nobody", "550 554 5.7.1 policy 550 5.1.1 nobody", "1.1"),
            ("550-5.1.1 nobody|554 no", "554 550 5.1.1 nobody 554 no", "1.1"),
            ("550 4.2.1 disabled", "550 4.2.1 disabled", "2.1"),
            ("450 5.2.1 disabled", "450 5.2.1 disabled", "2.1"),
            ("550 see 192.0.2.1 for 5.1.10", "550 see 192.0.2.1 for 5.1.10", "1.10"),
            ("550 no", "550 no", None),
        ):
            player = pipelined("250 Ok", "250 Ok", "250 Ok", "354 Go", reply)
            self.assertEqual(player.replies, [expected, expected])
            self.assertEqual(player.outcomes[0].reply.detail, detail)
