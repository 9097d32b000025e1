"""The queue behind an `IMessageDelivery`: for applications with twisted.mail's server."""

from twisted.mail.interfaces import IMessageSMTP
from twisted.mail.smtp import Address, SMTPBadRcpt, SMTPServerError, User

from tests.tidy import TidyTestCase
from twisted_mta.interfaces import Refused
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.reply import Reply
from twisted_mta.server.queueing_delivery import QueueingDelivery

from .intake import FRIEND, Queue

HELO = (b"client.example", FRIEND.encode())


class Messages(TidyTestCase):
    def setUp(self) -> None:
        self.queue = Queue()
        self.queue.existing = [Mailbox("u", "mx.example")]
        self.delivery = QueueingDelivery(self.queue.intake())

    def user(self, name: str) -> User:
        return User(name, HELO, None, Address("a@sender.example"))

    def begin(self) -> IMessageSMTP:
        message = self.delivery.validateTo(self.user("u@mx.example"))()
        message.lineReceived(b"Subject: x")
        self.assertEqual(self.queue.capacity.in_use, 100)
        return message

    def assert_nothing_is_left(self) -> None:
        self.assertEqual(self.queue.capacity.in_use, 0)
        self.assertEqual((self.queue.begun, self.queue.discarded), (1, 1))

    def test_a_message_of_lines_is_queued(self) -> None:
        message = self.begin()
        self.successResultOf(message.eomReceived())
        (queued,) = self.queue.messages
        self.assertEqual(b"".join(queued.body.chunks()), b"Subject: x\r\n")
        self.assertEqual(str(queued.envelope.reverse_path), "a@sender.example")
        self.assertEqual(self.queue.capacity.in_use, 0)

    def test_a_message_whose_client_has_left_is_forgotten(self) -> None:
        self.begin().connectionLost()
        self.assert_nothing_is_left()
        self.assertEqual(self.queue.messages, [])

    def test_refusals_are_those_of_the_intake(self) -> None:
        with self.assertRaises(SMTPBadRcpt) as unknown:
            self.delivery.validateTo(self.user("v@mx.example"))
        self.assertEqual(unknown.exception.code, 550)
        self.queue.refusal = Refused(Reply.of(451, "3.2", "Not now"))
        error = self.failureResultOf(self.begin().eomReceived(), SMTPServerError).value
        self.assertEqual((error.code, error.resp), (451, "4.3.2 Not now"))
