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
from twisted_mta.testing.memory_mta import MemoryMTA
from twisted_mta.testing.peer import ScriptedPeer, ScriptStep

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


def hop(announced: bytes, mail: bytes, *rcpt: bytes) -> ScriptedPeer:
    script: list[ScriptStep] = [
        ("send", b"220 hop.example ESMTP\r\n"),
        ("expect", b"EHLO mta.example\r\n"),
        ("send", b"250-hop.example\r\n250-PIPELINING\r\n250 " + announced + b"\r\n"),
        ("expect", b"MAIL FROM:<ann@sender.example>" + mail + b"\r\n"),
        *(("expect", b"RCPT TO:" + each + b"\r\n") for each in rcpt),  # type: ignore[list-item]
        ("expect", b"DATA\r\n"),
        ("send", b"250 2.1.0 Ok\r\n" + b"250 2.1.5 Ok\r\n" * len(rcpt) + b"354 Go on\r\n"),
        ("content",),
        ("send", b"250 2.0.0 Taken\r\n"),
    ]
    return ScriptedPeer(script)


class ForeignExtension(TidyTestCase):
    def running(self) -> MemoryMTA:
        started = MemoryMTA(extensions=(TICKET,), routes=(("*", "smtp://192.0.2.1:25"),))
        started.start()
        return started

    def submit(self, mta: MemoryMTA, mail: str, *rcpt: str) -> list[str]:
        client = mta.connect()
        for command in (f"MAIL FROM:<ann@sender.example>{mail}", *(f"RCPT TO:{it}" for it in rcpt)):
            (line,) = client.say(command)
            self.assertEqual(line[:3], "250", line)
        client.say("DATA")
        return client.send(CONTENT + b".\r\n")

    def test_a_foreign_extension_is_announced_and_its_command_and_parameters_are_read(self) -> None:
        mta = self.running()
        self.addCleanup(mta.stop)
        client = mta.connect(greet=False)
        self.assertIn("XTICKET 50", [line[4:] for line in client.say("EHLO x")])
        self.assertEqual(client.say("XTICKETS"), ["250 2.0.0 7 tickets are left"])
        self.assertEqual(client.say("XTICKETS please"), ["501 5.5.4 XTICKETS takes no argument"])
        self.assertEqual(client.say("MAIL FROM:<> XTICKET=7"), ["501 5.5.4 Syntax: XTICKET=payer"])
        self.assertEqual(client.say("MAIL FROM:<> XSEAT=7")[0][:9], "555 5.5.4")

    def test_parameters_of_a_foreign_extension_are_sent_to_a_next_hop_with_it(self) -> None:
        mta = self.running()
        self.addCleanup(mta.stop)
        there = hop(b"XTICKET 10", b" XTICKET=bob", b"<a@far.example> XSEAT=7", b"<b@far.example>")
        mta.reactor.listen("192.0.2.1", 25, there)
        self.submit(mta, " XTICKET=bob", "<a@far.example> XSEAT=7", "<b@far.example> XSEAT=11")
        self.assertEqual((there.problems, there.finished), ([], True))

    def test_parameters_of_a_foreign_extension_survive_a_restart(self) -> None:
        mta = self.running()
        self.addCleanup(mta.stop)
        self.submit(mta, " XTICKET=bob", "<a@far.example> XSEAT=7")
        mta.restart()
        there = hop(b"XTICKET 10", b" XTICKET=bob", b"<a@far.example> XSEAT=7")
        mta.reactor.listen("192.0.2.1", 25, there)
        mta.advance(hours=2)
        self.assertEqual((there.problems, there.script), ([], []))

    def test_a_foreign_extension_decides_about_a_next_hop_without_it(self) -> None:
        mta = self.running()
        self.addCleanup(mta.stop)
        there = hop(b"SIZE", b" SIZE=%d", b"<b@far.example>")
        there.script[3] = ("expect", re.compile(rb"MAIL FROM:<ann@sender.example> SIZE=\d+\r\n"))
        mta.reactor.listen("192.0.2.1", 25, there)
        self.submit(mta, " XTICKET=bob", "<a@far.example> XSEAT=7", "<b@far.example>")
        self.assertEqual((there.problems, there.script), ([], []))
        self.assertEqual(len(there.contents), 1)
        self.assertEqual(mta.mta.activity.failed, 1)
