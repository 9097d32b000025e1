"""Deliveries written for twisted.mail: their arguments, their results and their errors."""

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import ISSLTransport
from twisted.mail import smtp
from zope.interface import implementer

from tests.server.dialogue import DialogueTestCase
from twisted_mta import ESMTPFactory
from twisted_mta.testing.client import SMTPClientEnd

EHLO = b"EHLO client.example\r\n"


@implementer(smtp.IMessage)
class Message:
    def __init__(self, app: "Application") -> None:
        self.app = app
        self.lines: list[bytes] = []
        self.lost = 0

    def lineReceived(self, line: bytes) -> None:
        if line == self.app.refuse_line:
            raise smtp.SMTPServerError(554, b"5.7.1 Not this line")
        self.lines.append(line)

    def eomReceived(self) -> Any:
        return self.app.at_end()

    def connectionLost(self) -> None:
        self.lost += 1


@implementer(smtp.IMessageDelivery)
class Application:
    """Answers as the test sets."""

    def __init__(self) -> None:
        self.froms: list[Any] = []
        self.users: list[Any] = []
        self.messages: list[Message] = []
        self.sender_says: Any = None
        self.recipient_says: Any = None
        self.refuse_line: bytes | None = None
        self.at_end: Any = lambda: succeed(None)

    def receivedHeader(self, helo: Any, origin: Any, recipients: Any) -> bytes:
        return b"Received: for " + bytes(recipients[0])

    def validateFrom(self, helo: Any, origin: Any) -> Any:
        self.froms.append((helo, origin))
        if isinstance(self.sender_says, Exception):
            raise self.sender_says
        return origin if self.sender_says is None else self.sender_says

    def validateTo(self, user: Any) -> Any:
        self.users.append(user)
        if isinstance(self.recipient_says, Exception):
            raise self.recipient_says
        return self.message if self.recipient_says is None else self.recipient_says

    def message(self) -> Message:
        self.messages.append(Message(self))
        return self.messages[-1]


@implementer(smtp.IMessageDeliveryFactory)
class OneForEachMessage:
    def __init__(self, app: Application) -> None:
        self.app = app
        self.made = 0

    def getMessageDelivery(self) -> Application:
        self.made += 1
        return self.app


class DeliveryTestCase(DialogueTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.app = Application()
        self.serve(self.app)
        self.client = self.connect()
        self.say(self.client, EHLO)
        self.hear(self.client)

    def dialogue(self, octets: bytes, client: SMTPClientEnd | None = None) -> list[str]:
        client = client or self.client
        self.say(client, octets)
        return self.hear(client)


class Arguments(DeliveryTestCase):
    def test_helo_is_the_name_and_the_address_as_bytes(self) -> None:
        self.dialogue(b"MAIL FROM:<ann@client.example>\r\n")
        ((helo, origin),) = self.app.froms
        self.assertEqual(helo, (b"client.example", b"192.0.2.7"))
        self.assertIsInstance(origin, smtp.Address)
        self.assertEqual((origin.local, origin.domain), (b"ann", b"client.example"))
        self.assertEqual(
            (bytes(origin), str(origin)), (b"ann@client.example", "ann@client.example")
        )

    def test_the_null_reverse_path_is_an_empty_address(self) -> None:
        self.assertEqual(self.dialogue(b"MAIL FROM:<>\r\n"), ["250 2.1.0"])
        self.assertEqual(bytes(self.app.froms[0][1]), b"")

    def test_a_user_has_recipient_sender_and_protocol(self) -> None:
        self.dialogue(b"MAIL FROM:<ann@client.example>\r\nRCPT TO:<bob@mx.example>\r\n")
        (user,) = self.app.users
        self.assertIsInstance(user, smtp.User)
        self.assertEqual((user.dest.local, user.dest.domain), (b"bob", b"mx.example"))
        self.assertEqual(bytes(user.orig), b"ann@client.example")
        self.assertEqual(user.helo, (b"client.example", b"192.0.2.7"))
        self.assertEqual(user.protocol.address, "192.0.2.7")
        self.assertFalse(ISSLTransport.providedBy(user.protocol.transport))

    def test_addresses_that_twisteds_parser_cannot_read_are_passed(self) -> None:
        self.dialogue(b"MAIL FROM:<>\r\n")
        for path, local, domain in (
            (b"<u@[IPv6:2001:db8::1]>", b"u", b"[IPv6:2001:db8::1]"),
            (b'<"a@b"@mx.example>', b'"a@b"', b"mx.example"),
            (b"<@other.example:u@mx.example>", b"u", b"mx.example"),
            (b"<postmaster>", b"postmaster", b""),
        ):
            self.assertEqual(self.dialogue(b"RCPT TO:" + path + b"\r\n"), ["250 2.1.5"])
            self.assertEqual(
                (self.app.users[-1].dest.local, self.app.users[-1].dest.domain), (local, domain)
            )

    def test_the_address_that_validate_from_returns_is_the_sender(self) -> None:
        other = smtp.Address("boss@client.example")
        self.app.sender_says = succeed(other)
        self.dialogue(b"MAIL FROM:<ann@client.example>\r\nRCPT TO:<bob@mx.example>\r\n")
        self.assertIs(self.app.users[0].orig, other)

    def test_each_recipient_has_its_own_message_that_begins_with_its_received_header(self) -> None:
        replies = self.dialogue(
            b"MAIL FROM:<>\r\nRCPT TO:<bob@mx.example>\r\nRCPT TO:<eve@mx.example>\r\nDATA\r\n"
        )
        self.assertEqual(replies, ["250 2.1.0", "250 2.1.5", "250 2.1.5", "354 "])
        self.assertEqual(self.dialogue(b"A: b\r\n\r\n..\r"), [])
        self.assertEqual(self.dialogue(b"\nend\r\n.\r\n"), ["250 2.0.0"])
        for message, name in zip(self.app.messages, (b"bob", b"eve"), strict=True):
            self.assertEqual(
                message.lines,
                [b"Received: for " + name + b"@mx.example", b"A: b", b"", b".", b"end"],
            )

    def test_a_first_line_that_is_no_field_comes_behind_an_empty_line(self) -> None:
        for first in (b"Hello", b" by: mx.bank.example", b"\tx: y"):
            self.dialogue(b"MAIL FROM:<>\r\nRCPT TO:<bob@mx.example>\r\nDATA\r\n")
            self.dialogue(first + b"\r\nend\r\n.\r\n")
            self.assertEqual(self.app.messages[-1].lines[1:], [b"", first, b"end"])

    def test_lines_are_the_same_at_every_split_of_the_octets(self) -> None:
        content = b"A: b\r\n\r\n" + b"x" * 50 + b"\r\n\r\nend\r\n.\r\n"
        for _ in range(2):
            self.dialogue(b"MAIL FROM:<>\r\nRCPT TO:<bob@mx.example>\r\nDATA\r\n")
            for at in range(len(content)):
                self.say(self.client, content[at : at + 1])
            self.assertEqual(self.hear(self.client), ["250 2.0.0"])
            lines = [b"A: b", b"", b"x" * 50, b"", b"end"]
            self.assertEqual(self.app.messages[-1].lines[1:], lines)

    def test_binary_content_is_not_offered_and_is_refused(self) -> None:
        """RFC 3030 §3: `IMessage` takes lines, which cannot keep every octet."""
        self.factory = ESMTPFactory(self.app, clock=self.network)
        client = self.connect()
        self.say(client, EHLO)
        self.network.advance(0)
        self.assertIn(b"CHUNKING", client.unread)
        self.assertNotIn(b"BINARYMIME", client.unread)
        self.hear(client)
        self.assertEqual(self.dialogue(b"MAIL FROM:<> BODY=BINARYMIME\r\n", client), ["501 5.5.4"])
        self.serve(self.app, binarymime=True)
        client = self.connect()
        self.dialogue(EHLO, client)
        self.assertEqual(
            self.dialogue(b"MAIL FROM:<> BODY=BINARYMIME\r\nMAIL FROM:<>\r\n", client),
            ["554 5.6.3", "250 2.1.0"],
        )

    def test_a_factory_makes_a_delivery_for_each_message(self) -> None:
        factory = OneForEachMessage(self.app)
        self.serve(factory)
        client = self.connect()
        self.dialogue(EHLO, client)
        self.dialogue(b"MAIL FROM:<>\r\nRSET\r\nMAIL FROM:<>\r\n", client)
        self.assertEqual(factory.made, 2)

    def test_an_object_that_is_no_delivery_is_a_type_error_that_names_it(self) -> None:
        with self.assertRaisesRegex(TypeError, "expected an object that provides IMessageDelivery"):
            self.serve(object())

    def test_without_a_delivery_all_mail_is_refused(self) -> None:
        self.factory.delivery = None
        client = self.connect()
        self.dialogue(EHLO, client)
        self.assertEqual(self.dialogue(b"MAIL FROM:<a@b.example>\r\n", client), ["550 5.7.1"])


class Results(DeliveryTestCase):
    def test_errors_with_str_or_bytes_become_replies(self) -> None:
        for error, replies in (
            (smtp.SMTPServerError(451, b"4.7.1 Come back later"), "451 4.7.1"),
            (smtp.SMTPServerError(550, b"Not you"), "550 5.0.0"),
            (smtp.SMTPBadSender(smtp.Address("a@b.example")), "550 5.1.0"),
            (smtp.SMTPServerError(452, "a str"), "452 4.0.0"),  # type: ignore[arg-type]
        ):
            self.app.sender_says = error
            self.assertEqual(self.dialogue(b"MAIL FROM:<a@b.example>\r\n"), [replies])
            self.app.sender_says = fail(error)
            self.assertEqual(self.dialogue(b"MAIL FROM:<a@b.example>\r\n"), [replies])

    def test_a_refused_recipient_does_not_get_the_message(self) -> None:
        self.dialogue(b"MAIL FROM:<>\r\nRCPT TO:<bob@mx.example>\r\n")
        self.app.recipient_says = smtp.SMTPBadRcpt(smtp.Address("eve@mx.example"))
        self.assertEqual(self.dialogue(b"RCPT TO:<eve@mx.example>\r\n"), ["550 5.1.0"])
        self.dialogue(b"DATA\r\n")
        self.dialogue(b"x\r\n.\r\n")
        self.assertEqual(len(self.app.messages), 1)

    def test_a_decision_may_be_late(self) -> None:
        self.app.recipient_says = later = Deferred()
        self.assertEqual(
            self.dialogue(b"MAIL FROM:<>\r\nRCPT TO:<bob@mx.example>\r\nNOOP\r\n"), ["250 2.1.0"]
        )
        later.callback(self.app.message)
        self.network.advance(0)
        self.assertEqual(self.hear(self.client), ["250 2.1.5", "250 2.0.0"])

    def test_any_other_exception_is_451(self) -> None:
        self.app.sender_says = ZeroDivisionError()
        self.assertEqual(self.dialogue(b"MAIL FROM:<>\r\n"), ["451 4.3.0"])
        self.app.sender_says = smtp.SMTPServerError(250, b"2.0.0 Fine")
        self.assertEqual(self.dialogue(b"MAIL FROM:<>\r\n"), ["451 4.3.0"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError, smtp.SMTPServerError)), 2)

    def content(self, octets: bytes) -> list[str]:
        self.dialogue(b"MAIL FROM:<>\r\nRCPT TO:<bob@mx.example>\r\nRCPT TO:<eve@mx.example>\r\n")
        self.assertEqual(self.dialogue(b"DATA\r\n"), ["354 "])
        return self.dialogue(octets)

    def test_a_message_may_fail_at_its_end(self) -> None:
        for at_end, replies in (
            (lambda: fail(smtp.SMTPServerError(552, b"5.2.2 Mailbox full")), "552 5.2.2"),
            (lambda: fail(ZeroDivisionError()), "451 4.3.0"),
            (lambda: None, "250 2.0.0"),
        ):
            self.app.at_end = at_end
            self.assertEqual(self.content(b"A: b\r\n.\r\n"), [replies])
        self.flushLoggedErrors(ZeroDivisionError)

    def test_one_4yz_among_several_refusals_is_the_reply(self) -> None:
        answers = iter(
            (
                fail(smtp.SMTPServerError(552, b"5.2.2 Mailbox full")),
                fail(smtp.SMTPServerError(451, b"4.2.1 Busy")),
            )
        )
        self.app.at_end = lambda: next(answers)
        self.assertEqual(self.content(b"A: b\r\n.\r\n"), ["451 4.2.1"])

    def test_a_refused_line_ends_all_messages_and_is_answered_at_the_end(self) -> None:
        self.app.refuse_line = b"spam"
        self.assertEqual(self.content(b"A: b\r\nspam\r\nmore\r\n"), [])
        self.assertEqual([message.lost for message in self.app.messages], [1, 1])
        self.assertEqual(self.dialogue(b".\r\nNOOP\r\n"), ["554 5.7.1", "250 2.0.0"])

    def test_messages_are_told_of_a_lost_connection(self) -> None:
        self.content(b"A: b\r\n")
        self.client.transport.abortConnection()
        self.network.advance(0)
        self.assertEqual([message.lost for message in self.app.messages], [1, 1])
