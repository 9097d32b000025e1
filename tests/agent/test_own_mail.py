"""Mail of our own: its envelope, and mailboxes that do not exist."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred, succeed

from tests.logs import logged_lines
from tests.tidy import TidyTestCase
from twisted_mta.agent.own_mail import OwnMail
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.body import Body, MemoryBody
from twisted_mta.mail.envelope import Recipient, RecipientNumber
from twisted_mta.mail.message import Message
from twisted_mta.mail.queue_id import QueueId

SENDER = Mailbox.parse("noc@here.example")
CONTENT = b"From: noc@here.example\r\n\r\nHello.\r\n"


class Writer:
    def __init__(self) -> None:
        self.content = b""

    def write(self, content: bytes) -> None:
        self.content += content

    def seal(self) -> Body | Deferred[Body]:
        return succeed(MemoryBody(self.content))

    def discard(self) -> None:
        raise AssertionError("not discarded")


class OwnMailTests(TidyTestCase):
    def setUp(self) -> None:
        self.accepted: list[Message] = []

    def accept(self, message: Message) -> Deferred[None]:
        self.accepted.append(message)
        return succeed(None)

    def recipients(self, mailbox: Mailbox) -> Sequence[Recipient]:
        names = {"team": ("ann", "bob"), "gone": ()}.get(mailbox.local_part, (mailbox.local_part,))
        return [
            Recipient(RecipientNumber(number), Mailbox(name, mailbox.domain))
            for number, name in enumerate(names)
        ]

    def send(self, *to: str, content: bytes = CONTENT) -> None:
        own_mail = OwnMail(
            accept=self.accept,
            new_body=lambda id: Writer(),
            ids=lambda: QueueId(7),
            recipients_of=self.recipients,
            wall_time=lambda: 1_000.0,
            lifetime=lambda: 50.0,
        )
        self.successResultOf(own_mail.send(SENDER, content, [Mailbox.parse(each) for each in to]))

    def test_it_is_signed_and_no_notice_is_wanted(self) -> None:
        self.send("eve@there.example")
        (message,) = self.accepted
        self.assertEqual(message.envelope.reverse_path, SENDER)
        self.assertEqual(b"".join(message.body.chunks()), CONTENT)
        self.assertTrue(message.assessment.signs)
        self.assertEqual((message.received_at, message.expires_at), (1_000.0, 1_050.0))
        (recipient,) = message.envelope.recipients
        self.assertFalse(recipient.is_to_notify("FAILURE"))
        self.assertEqual(message.envelope.parameters, {})

    def test_aliases_are_expanded_and_all_recipients_are_numbered(self) -> None:
        self.send("team@here.example", "eve@there.example")
        (message,) = self.accepted
        self.assertEqual(
            [(each.number, str(each.mailbox)) for each in message.envelope.recipients],
            [(0, "ann@here.example"), (1, "bob@here.example"), (2, "eve@there.example")],
        )

    def test_mailboxes_of_ours_that_do_not_exist_are_left_out(self) -> None:
        lines = logged_lines(self, "no report to")
        self.send("gone@here.example", "eve@there.example")
        self.send("gone@here.example")
        self.assertEqual([len(each.envelope.recipients) for each in self.accepted], [1])
        self.assertEqual(lines[0], "no report to <gone@here.example>: there is no such mailbox")

    def test_a_header_that_is_not_ascii_needs_smtputf8(self) -> None:
        self.send("eve@there.example", content="From: é@here.example\r\n\r\n".encode())
        self.assertEqual(self.accepted[0].envelope.parameters, {"SMTPUTF8": None})
