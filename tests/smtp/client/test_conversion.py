"""Content that a server does not take as it is: said early, so that it can go otherwise."""

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.mail.body import MemoryBody
from twisted_mta.mail.message import Message
from twisted_mta.smtp.client.step import NeedsConversion, Ready

from ..playing import OPENING, PLAIN_OPENING, Player, message

PARAMETERS: tuple[dict[str, str | int | None], ...] = ({"BODY": "8BITMIME"}, {"BODY": "BINARYMIME"})


def converted(mail: Message) -> Message:
    """Return ``mail`` as a converter would: of 7 bits, and its envelope says no more."""
    return evolve(
        mail,
        body=MemoryBody(b"Subject: converted\r\n"),
        envelope=evolve(mail.envelope, parameters={}),
    )


class ConversionTests(SynchronousTestCase):
    def test_asked_for_before_anything_is_said(self) -> None:
        """RFC 6152 §3, RFC 3030 §3: and the same connection takes what came of it."""
        for parameters in PARAMETERS:
            mail = message(parameters=parameters)
            player = Player(mail, convertible=True)
            player.messages.append(converted(mail))
            # What is idle after a conversion was asked for gets the next message: the converted.
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

    def test_what_everyone_gets_where_it_cannot_be_done(self) -> None:
        for parameters in PARAMETERS:
            player = Player(message(parameters=parameters), convertible=True).play(PLAIN_OPENING)
            [_, step] = player.steps
            assert isinstance(step, NeedsConversion)
            self.assertEqual(step.reply.enhanced, "5.6.3")
            self.assertTrue(player.session.idle)

    def test_not_where_the_server_takes_it(self) -> None:
        player = Player(message(parameters=PARAMETERS[0]), convertible=True).play(f"""
            {OPENING}
            C: MAIL FROM:<a@client.example> SIZE=49 BODY=8BITMIME
            C: RCPT TO:<b@example.net>
            C: DATA
        """)
        self.assertEqual(len(player.steps), 1)

    def test_not_where_it_would_not_help(self) -> None:
        """Too large is too large: the converted content would be larger still."""
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

    def test_not_unless_it_can_be_done(self) -> None:
        for parameters in PARAMETERS:
            player = Player(message(parameters=parameters)).play(PLAIN_OPENING)
            self.assertEqual([each.reply.enhanced for each in player.outcomes], ["5.6.3"])

    def test_the_converted_content_has_a_size_of_its_own(self) -> None:
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
