"""A message: what becomes of it for some of its recipients."""

from __future__ import annotations

from attrs import evolve, fields

from tests.tidy import TidyTestCase
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.assessment import Assessment
from twisted_mta.mail.body import MemoryBody
from twisted_mta.mail.envelope import Envelope, Recipient, RecipientNumber
from twisted_mta.mail.message import Message, RefusedRecipient
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.mail.reply import Reply


class ForRecipients(TidyTestCase):
    def test_all_but_the_recipients_stays_as_it_is(self) -> None:
        bob, carl, dora = (
            Recipient(RecipientNumber(number), Mailbox(name, "example.net"))
            for number, name in enumerate(("bob", "carl", "dora"))
        )
        message = Message(
            id=QueueId(1),
            envelope=Envelope(Mailbox("ann", "example.net"), (bob, carl), {"BODY": "8BITMIME"}),
            trace=b"Received: by mx.example.net\r\n",
            body=MemoryBody(b"Hello\r\n"),
            received_at=1.0,
            expires_at=2.0,
            expanded=(bob,),
            refused=(RefusedRecipient(dora, Reply.of(550, "1.1", "No such user")),),
            assessment=Assessment(signs=True),
        )
        part = message.for_recipients([carl])
        self.assertEqual(part.envelope, evolve(message.envelope, recipients=(carl,)))
        for field in fields(Message):
            if field.name != "envelope":
                kept = getattr(message, field.name)
                self.assertNotEqual(kept, field.default)  # so that the next line shows something
                self.assertIs(getattr(part, field.name), kept)
