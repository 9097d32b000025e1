"""DSN parameters as stored: for aliases, and for recipients that are named twice."""

from attrs import evolve

from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.final_recipient import FinalRecipient
from twisted_mta.mail.message import Message
from twisted_mta.smtp.peer import Peer
from twisted_mta.smtp.server.session import Session
from twisted_mta.testing.server_options import ServerOptions

from .intake import OWN, STRANGER, IntakeTestCase


class StoredNotify(IntakeTestCase):
    def alias(self, mailbox: str, *targets: str) -> None:
        self.queue.aliases[mailbox] = [FinalRecipient(Mailbox.parse(each)) for each in targets]

    def parameters(self, *rcpt: str) -> tuple[Message, list[tuple[str, str]]]:
        """Send to ``rcpt``; return the message, and (recipient, DSN parameters) of each."""
        session = Session(
            evolve(ServerOptions(dsn=True).settings(), max_errors=10_000),
            peer=Peer(STRANGER),
            local_address=OWN,
        )
        session.greet()
        self.send(session, "EHLO client.example")
        self.send(session, "MAIL FROM:<a@sender.example> ENVID=1")
        for each in rcpt:
            self.assertEqual(self.send(session, f"RCPT TO:{each}"), "250 2.1.5", each)
        self.assertEqual(self.content(session, b"x").code, 250)
        message = self.queue.messages[-1]
        return message, [
            (
                str(each.mailbox),
                " ".join(f"{key}={value}" for key, value in sorted(each.parameters.items())),
            )
            for each in message.envelope.recipients
        ]

    def test_notify_of_an_alias_with_one_member_passes_to_the_member(self) -> None:
        """RFC 3461 §5.2.7.2."""
        self.alias("u@mx.example", "b@ext.example")
        message, found = self.parameters("<u@mx.example> NOTIFY=SUCCESS,DELAY")
        asked = "NOTIFY=SUCCESS,DELAY ORCPT=rfc822;u@mx.example"
        self.assertEqual(found, [("b@ext.example", asked)])
        self.assertEqual(message.expanded, ())
        self.assertEqual(message.envelope.parameters, {"ENVID": "1"})
        _, found = self.parameters("<u@mx.example> ORCPT=rfc822;old@mx.example")
        self.assertEqual(found, [("b@ext.example", "ORCPT=rfc822;old@mx.example")])

    def test_notify_of_an_alias_with_several_members_reports_the_expansion(self) -> None:
        """RFC 3461 §5.2.7.3."""
        self.alias("u@mx.example", "b@ext.example", "u@mx.example")
        message, found = self.parameters("<u@mx.example> NOTIFY=SUCCESS,FAILURE")
        asked = "NOTIFY=FAILURE ORCPT=rfc822;u@mx.example"
        self.assertEqual(found, [("b@ext.example", asked), ("u@mx.example", asked)])
        (alias,) = message.expanded
        self.assertEqual(str(alias.mailbox), "u@mx.example")
        _, found = self.parameters("<u@mx.example> NOTIFY=SUCCESS")
        self.assertEqual({each.split()[0] for _, each in found}, {"NOTIFY=NEVER"})
        message, _ = self.parameters("<u@mx.example> NOTIFY=FAILURE")
        self.assertEqual(message.expanded, ())

    def test_a_recipient_of_two_rcpt_has_the_notify_of_both(self) -> None:
        _, found = self.parameters(
            "<v@mx.example> NOTIFY=SUCCESS ORCPT=rfc822;x", "<v@mx.example>", "<w@mx.example>"
        )
        self.assertEqual(
            found,
            [
                ("v@mx.example", "NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;x"),
                ("w@mx.example", ""),
            ],
        )
