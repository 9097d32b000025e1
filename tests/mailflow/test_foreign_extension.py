"""An extension from outside the package, unknown to the session, the queue and the client.

XTICKET is made up: MAIL may name a payer, RCPT a seat, and XTICKETS counts the tickets that are
left.
"""

import re
from collections.abc import Iterable

from tests.tidy import TidyTestCase
from twisted_mta.mail.envelope import Recipient
from twisted_mta.mail.reply import Reply
from twisted_mta.smtp.command import CommandError
from twisted_mta.smtp.extension import Extension
from twisted_mta.smtp.extension.outgoing import OutgoingExtension
from twisted_mta.smtp.extension.views import OutgoingView, SessionView
from twisted_mta.testing import FakeHop, MemoryMTA

from .next_hop import mail_commands

CONTENT = b"Subject: Hi\r\n\r\nHello\r\n"


def read_payer(value: str | None) -> str:
    if value is None or not re.fullmatch("[a-z]{1,8}", value):
        raise CommandError(Reply.of(501, "5.4", "Syntax: XTICKET=payer"))
    return value


def read_seat(value: str | None) -> int:
    if value is None or not value.isdecimal():
        raise CommandError(Reply.of(501, "5.4", "Syntax: XSEAT=number"))
    return int(value)


def obey(session: SessionView, argument: str) -> Reply:
    if argument:
        raise CommandError(Reply.of(501, "5.4", "XTICKETS takes no argument"))
    return Reply.of(250, "0.0", "7 tickets are left")


class OutgoingTicket(OutgoingExtension):
    keyword = "XTICKET"

    def recipient_refusal(
        self, transaction: OutgoingView, recipient: Recipient, announced: str | None
    ) -> Reply | None:
        if announced is None and "XSEAT" in recipient.parameters:
            return Reply.of(550, "7.0", f"{transaction.remote} has no seats")
        return None

    def mail(self, transaction: OutgoingView, announced: str) -> Iterable[str]:
        payer = transaction.message.envelope.parameters.get("XTICKET")
        return () if payer is None else (f"XTICKET={payer}",)

    def rcpt(
        self, transaction: OutgoingView, recipient: Recipient, announced: str
    ) -> Iterable[str]:
        seat = recipient.parameters.get("XSEAT")
        return () if seat is None or int(seat) > int(announced) else (f"XSEAT={seat}",)


TICKET = Extension(
    "XTICKET 50",
    mail={"XTICKET": read_payer},
    rcpt={"XSEAT": read_seat},
    mail_octets=17,
    rcpt_octets=12,
    commands={"XTICKETS": obey},
    outgoing=OutgoingTicket(),
)


class ForeignExtension(TidyTestCase):
    """An MTA with XTICKET, whose next hop is not there until a test calls `next_hop`."""

    def setUp(self) -> None:
        routes = (("*", "smtp://192.0.2.1"),)
        self.mta = self.enterContext(MemoryMTA(extensions=(TICKET,), routes=routes))

    def next_hop(self, announced: str) -> FakeHop:
        hop = self.mta.hop("192.0.2.1").no_tls()
        hop.extensions = ["PIPELINING", announced]
        return hop

    def submit(self, *rcpt: str) -> None:
        client = self.mta.connect()
        client.say("MAIL FROM:<ann@sender.example> XTICKET=bob")
        for each in rcpt:
            self.assertEqual(client.say(f"RCPT TO:{each}")[0][:3], "250")
        client.say("DATA")
        client.send(CONTENT + b".\r\n")

    def test_a_foreign_extension_is_announced_and_its_command_and_parameters_are_read(self) -> None:
        client = self.mta.connect(greet=False)
        self.assertIn("XTICKET 50", [line[4:] for line in client.say("EHLO x")])
        self.assertEqual(client.say("XTICKETS"), ["250 2.0.0 7 tickets are left"])
        self.assertEqual(client.say("XTICKETS please"), ["501 5.5.4 XTICKETS takes no argument"])
        self.assertEqual(client.say("MAIL FROM:<> XTICKET=7"), ["501 5.5.4 Syntax: XTICKET=payer"])
        self.assertEqual(client.say("MAIL FROM:<> XSEAT=7")[0][:9], "555 5.5.4")

    def test_parameters_of_a_foreign_extension_are_sent_to_a_next_hop_with_it(self) -> None:
        hop = self.next_hop("XTICKET 10")
        self.submit("<a@far.example> XSEAT=7", "<b@far.example> XSEAT=11")
        self.assertEqual(
            hop.commands,
            [
                "EHLO mta.example",
                "MAIL FROM:<ann@sender.example> XTICKET=bob",
                "RCPT TO:<a@far.example> XSEAT=7",
                "RCPT TO:<b@far.example>",
                "DATA",
            ],
        )
        self.assertEqual(len(hop.received), 1)

    def test_parameters_of_a_foreign_extension_survive_a_restart(self) -> None:
        self.submit("<a@far.example> XSEAT=7")
        self.mta.restart()
        hop = self.next_hop("XTICKET 10")
        self.mta.advance(hours=2)
        self.assertEqual(mail_commands(hop), ["<ann@sender.example> XTICKET=bob"])
        self.assertIn("RCPT TO:<a@far.example> XSEAT=7", hop.commands)
        self.assertEqual(len(hop.received), 1)

    def test_a_foreign_extension_decides_about_a_next_hop_without_it(self) -> None:
        hop = self.next_hop("SIZE")
        self.submit("<a@far.example> XSEAT=7", "<b@far.example>")
        command, _ = mail_commands(hop)
        self.assertRegex(command, r"^<ann@sender.example> SIZE=\d+$")
        message, bounce = hop.received
        self.assertEqual(message.to, ("b@far.example",))
        self.assertIn("has no seats", bounce.text)
        self.assertEqual(self.mta.mta.activity.failed, 1)
