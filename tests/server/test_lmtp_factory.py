"""An application's IMessageDelivery by LMTP: one IMessage and one reply for each recipient."""

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.mail import smtp
from zope.interface import implementer

from tests.server.dialogue import DialogueTestCase
from twisted_mta import LMTPFactory


@implementer(smtp.IMessage)
class Mailbox:
    def __init__(self, user: smtp.User) -> None:
        self.name = user.dest.local.decode()
        self.lines: list[bytes] = []
        self.lost = 0
        self.ended: Deferred[None] | None = None

    def lineReceived(self, line: bytes) -> None:
        if self.name == "line" and line == b"body":
            raise smtp.SMTPServerError(552, b"5.2.2 Full at this line")
        self.lines.append(line)

    def eomReceived(self) -> Any:
        if self.name == "full":
            return fail(smtp.SMTPServerError(452, b"4.2.2 Mailbox full"))
        if self.name == "broken":
            raise RuntimeError("no such thing")
        if self.name == "slow":
            self.ended = Deferred()
            return self.ended
        return succeed(None)

    def connectionLost(self) -> None:
        self.lost += 1


@implementer(smtp.IMessageDelivery)
class Application:
    def __init__(self) -> None:
        self.mailboxes: list[Mailbox] = []

    def receivedHeader(self, helo: Any, origin: Any, recipients: Any) -> bytes:
        return b"Received: by an application"

    def validateFrom(self, helo: Any, origin: Any) -> Any:
        return origin

    def validateTo(self, user: smtp.User) -> Any:
        def message() -> Mailbox:
            if user.dest.local == b"unmade":
                raise smtp.SMTPServerError(550, b"5.2.1 Disabled")
            self.mailboxes.append(Mailbox(user))
            return self.mailboxes[-1]

        return message


class LMTPReplies(DialogueTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.app = Application()
        self.factory = LMTPFactory(self.app, clock=self.network)
        self.client = self.connect()
        self.assertEqual(self.hear(self.client)[-1][:3], "220")
        self.say(self.client, b"LHLO client.example\r\n")
        self.hear(self.client)

    def send(self, *recipients: str) -> list[str]:
        names = "".join(f"RCPT TO:<{name}@mx.example>\r\n" for name in recipients)
        self.say(self.client, b"MAIL FROM:<>\r\n" + names.encode() + b"DATA\r\n")
        replies = self.hear(self.client)
        if replies[-1][:3] != "354":
            return replies[-1:]
        self.say(self.client, b"Subject: Hi\r\n\r\nbody\r\n.\r\n")
        return self.hear(self.client)

    def test_each_recipient_has_the_reply_of_its_own_message(self) -> None:
        self.assertEqual(
            self.send("bob", "full", "broken", "bob"),
            ["250 2.0.0", "452 4.2.2", "451 4.3.0", "250 2.0.0"],
        )
        self.flushLoggedErrors(RuntimeError)

    def test_replies_are_sent_in_order_after_the_last_decision(self) -> None:
        self.assertEqual(self.send("slow", "full"), [])
        ended = self.app.mailboxes[0].ended
        assert ended is not None
        ended.callback(None)
        self.network.advance(0)
        self.assertEqual(self.hear(self.client), ["250 2.0.0", "452 4.2.2"])

    def test_a_recipient_that_fails_within_the_content_does_not_stop_the_others(self) -> None:
        self.assertEqual(
            self.send("line", "bob", "unmade"), ["552 5.2.2", "250 2.0.0", "550 5.2.1"]
        )
        line, bob = self.app.mailboxes
        self.assertEqual((line.lost, bob.lost), (1, 0))
        self.assertEqual(bob.lines[-1], b"body")

    def test_data_is_refused_if_no_recipient_takes_the_content(self) -> None:
        self.assertEqual(self.send("unmade", "unmade"), ["550 5.2.1"])

    def test_binary_content_is_not_offered(self) -> None:
        self.say(self.client, b"MAIL FROM:<> BODY=BINARYMIME\r\n")
        self.assertEqual(self.hear(self.client)[-1][:3], "501")
