"""Content that a server does not take as it is: the session knows before MAIL."""

from attrs import evolve

from tests.tidy import TidyTestCase
from twisted_mta.mail.body import MemoryBody
from twisted_mta.mail.message import Message

from ..player import OPENING, PLAIN_OPENING, Player, message

PARAMETERS: tuple[dict[str, str | int | None], ...] = ({"BODY": "8BITMIME"}, {"BODY": "BINARYMIME"})


LIMITED_OPENING = """
    S: 220 mx.example
    C: EHLO client.example
    S: 250-mx.example
    S: 250 SIZE 1000
"""


def converted(mail: Message) -> Message:
    """Return ``mail`` after conversion: of 7 bits, with an envelope that says so."""
    return evolve(
        mail,
        body=MemoryBody(b"Subject: converted\r\n"),
        envelope=evolve(mail.envelope, parameters={}),
    )


class ConversionTests(TidyTestCase):
    def test_conversion_is_needed_where_the_server_lacks_the_extension(self) -> None:
        """RFC 6152 §3, RFC 3030 §3."""
        for parameters in PARAMETERS:
            mail = message(parameters=parameters)
            player = Player().play(PLAIN_OPENING)
            self.assertTrue(player.session.needs_conversion(mail))
            self.assertFalse(player.session.needs_conversion(converted(mail)))
            player.take(player.session.transact(converted(mail)))
            player.play("""
                C: MAIL FROM:<a@client.example>
                S: 250 Ok
                C: RCPT TO:<b@example.net>
                S: 250 Ok
                C: DATA
                S: 354 Go on
                C: Received: by client.example
                C: Subject: converted
                C: .
                S: 250 Queued
            """)
            self.assertEqual(player.replies, ["250 Queued"])

    def test_content_that_the_server_takes_is_not_converted(self) -> None:
        mail = message(parameters=PARAMETERS[0])
        player = Player().play(OPENING)
        self.assertFalse(player.session.needs_conversion(mail))
        player.take(player.session.transact(mail))
        player.play("""
            C: MAIL FROM:<a@client.example> SIZE=49 BODY=8BITMIME
            C: RCPT TO:<b@example.net>
            C: DATA
        """)

    def test_conversion_is_not_needed_where_it_would_not_help(self) -> None:
        """Content that is too large would be larger still."""
        mails = (
            (message(parameters={"BODY": "8BITMIME", "SMTPUTF8": None}), "5.6.9"),
            (message(parameters=PARAMETERS[0], sender="ü@client.example"), "5.6.7"),
            (message(parameters=PARAMETERS[1], content=b"x" * 2000), "5.3.4"),
        )
        for mail, status in mails:
            player = Player().play(LIMITED_OPENING)
            self.assertFalse(player.session.needs_conversion(mail))
            player.take(player.session.transact(mail))
            self.assertEqual([each.reply.enhanced for each in player.outcomes], [status])

    def test_what_needs_no_conversion_is_refused_for_all_other_reasons(self) -> None:
        mails = (
            (message(content=b"x" * 2000), "5.3.4"),
            (message(sender="ü@client.example"), "5.6.7"),
        )
        for mail, status in mails:
            player = Player().play(LIMITED_OPENING)
            self.assertFalse(player.session.needs_conversion(mail))
            player.take(player.session.transact(mail))
            self.assertEqual([each.reply.enhanced for each in player.outcomes], [status])

    def test_unconverted_all_recipients_fail(self) -> None:
        for parameters in PARAMETERS:
            player = Player(message(parameters=parameters)).play(PLAIN_OPENING)
            self.assertEqual([each.reply.enhanced for each in player.outcomes], ["5.6.3"])

    def test_the_size_of_the_converted_content_counts(self) -> None:
        """RFC 1870 §6.1: it may be too large where the original was not."""
        mail = message(parameters=PARAMETERS[0])
        larger = evolve(converted(mail), body=MemoryBody(b"x" * 2000))
        player = Player(larger).play(LIMITED_OPENING)
        self.assertEqual([each.reply.enhanced for each in player.outcomes], ["5.3.4"])
