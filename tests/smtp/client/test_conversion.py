"""Content that a server does not take as it is: the session asks for conversion before MAIL."""

from attrs import evolve

from tests.tidy import TidyTestCase
from twisted_mta.mail.body import MemoryBody
from twisted_mta.mail.message import Message
from twisted_mta.smtp.client.step import NeedsConversion, Ready

from ..player import OPENING, PLAIN_OPENING, Player, message

PARAMETERS: tuple[dict[str, str | int | None], ...] = ({"BODY": "8BITMIME"}, {"BODY": "BINARYMIME"})


def converted(mail: Message) -> Message:
    """Return ``mail`` after conversion: of 7 bits, with an envelope that says so."""
    return evolve(
        mail,
        body=MemoryBody(b"Subject: converted\r\n"),
        envelope=evolve(mail.envelope, parameters={}),
    )


class ConversionTests(TidyTestCase):
    def test_conversion_is_requested_before_mail_and_the_result_is_sent(self) -> None:
        """RFC 6152 §3, RFC 3030 §3."""
        for parameters in PARAMETERS:
            mail = message(parameters=parameters)
            player = Player(mail, convertible=True)
            player.messages.append(converted(mail))
            # The idle session takes the next message after the request: the converted one.
            player.play(f"""
                {PLAIN_OPENING}
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
            self.assertIsInstance(player.steps[0], Ready)
            self.assertIsInstance(player.steps[1], NeedsConversion)
            self.assertEqual(player.replies, ["250 Queued"])

    def test_the_request_has_the_reply_for_content_that_cannot_be_converted(self) -> None:
        for parameters in PARAMETERS:
            player = Player(message(parameters=parameters), convertible=True).play(PLAIN_OPENING)
            [_, step] = player.steps
            assert isinstance(step, NeedsConversion)
            self.assertEqual(step.reply.enhanced, "5.6.3")
            self.assertTrue(player.session.idle)

    def test_content_that_the_server_takes_is_not_converted(self) -> None:
        player = Player(message(parameters=PARAMETERS[0]), convertible=True).play(f"""
            {OPENING}
            C: MAIL FROM:<a@client.example> SIZE=49 BODY=8BITMIME
            C: RCPT TO:<b@example.net>
            C: DATA
        """)
        self.assertEqual(len(player.steps), 1)

    def test_conversion_is_not_requested_where_it_would_not_help(self) -> None:
        """Content that is too large would be larger still."""
        mails = (
            (message(parameters={"BODY": "8BITMIME", "SMTPUTF8": None}), "5.6.9"),
            (message(parameters=PARAMETERS[0], sender="ü@client.example"), "5.6.7"),
            (message(parameters=PARAMETERS[1], content=b"x" * 2000), "5.3.4"),
        )
        for mail, status in mails:
            player = Player(mail, convertible=True).play("""
                S: 220 mx.example
                C: EHLO client.example
                S: 250-mx.example
                S: 250 SIZE 1000
            """)
            self.assertEqual([each.reply.enhanced for each in player.outcomes], [status])

    def test_without_a_converter_all_recipients_fail(self) -> None:
        for parameters in PARAMETERS:
            player = Player(message(parameters=parameters)).play(PLAIN_OPENING)
            self.assertEqual([each.reply.enhanced for each in player.outcomes], ["5.6.3"])

    def test_the_size_of_the_converted_content_counts(self) -> None:
        """RFC 1870 §6.1: it may be too large where the original was not."""
        mail = message(parameters=PARAMETERS[0])
        larger = evolve(converted(mail), body=MemoryBody(b"x" * 2000))
        player = Player(mail, larger, convertible=True).play("""
            S: 220 mx.example
            C: EHLO client.example
            S: 250-mx.example
            S: 250 SIZE 1000
        """)
        self.assertEqual([each.reply.enhanced for each in player.outcomes], ["5.3.4"])
