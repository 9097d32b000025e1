"""Notices through whole MTAs: each reaches its sender by any next hop."""

import email
import email.policy
import os
from email.message import EmailMessage
from functools import partial
from typing import Any

from tests.tidy import TidyTestCase
from twisted_mta.config import QueueSettings
from twisted_mta.testing import FakeHop, MemoryMTA
from twisted_mta.testing.peer import ScriptStep

from .next_hop import NEXT, QUIT, accepting, announcing, listen, mail_commands

AWAY = "192.0.2.2"
SENDER = "ann@away.example"

UTF8 = "Subject: schön\r\nFrom: Jürgen <jürgen@bücher.example>\r\n\r\nfür dich\r\n".encode()
LATIN1 = b"Subject: sch\xf6n\r\n\r\nplain\r\n"
BODY = b"Subject: x\r\n\r\nf\xc3\xbcr dich\r\n"
SIGNED = (
    b"Subject: x\r\nContent-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n\xff\r\n--b--\r\n"
)
PARTLESS = b"Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\nf\xc3\xbcr dich\r\n"
LONG = b"Subject: " + b"sch\xc3\xb6n " * 20_000 + b"\r\n\r\nx\r\n"
CONTENTS = (UTF8, LATIN1, BODY, SIGNED, PARTLESS, LONG)

HELO_ONLY: tuple[ScriptStep, ...] = (
    ("send", b"220 old.example\r\n"),
    ("expect", b"EHLO mta.example\r\n"),
    ("send", b"502 5.5.1 what?\r\n"),
    ("expect", b"HELO mta.example\r\n"),
    ("send", b"250 old.example\r\n"),
)
REFUSED = "550 5.1.1 kein Empfänger\r\n".encode("latin-1")


def commands(*expected: str, reply: bytes = b"250 ok\r\n") -> tuple[ScriptStep, ...]:
    steps: list[ScriptStep] = []
    for command in expected:
        steps += [("expect", f"{command}\r\n".encode()), ("send", reply)]
    return tuple(steps)


class Notices(TidyTestCase):
    def started(self, **settings: Any) -> MemoryMTA:
        routes = (
            ("next.example", f"smtp://{NEXT}"),
            ("away.example", f"smtp://{AWAY}"),
        )
        return self.enterContext(MemoryMTA(routes=routes, **settings))

    def hop(self, mta: MemoryMTA, address: str, *announced: str) -> FakeHop:
        hop = mta.hop(address)
        hop.extensions = list(announced)
        return hop

    def submit(
        self, mta: MemoryMTA, content: bytes, recipient: str, sender: str = SENDER, rcpt: str = ""
    ) -> None:
        utf8 = " SMTPUTF8" if content is UTF8 or not f"{sender}{recipient}".isascii() else ""
        client = mta.connect()
        for command in (
            f"MAIL FROM:<{sender}> BODY=8BITMIME{utf8}",
            f"RCPT TO:<{recipient}>{rcpt}",
        ):
            self.assertRegex(client.say(command)[0], "^250 ")
        client.say("DATA")
        self.assertRegex(client.send(content + b".\r\n")[0], "^250 2.0.0 Queued as")

    def notice(self, hop: FakeHop) -> EmailMessage:
        """Return the notice that the next hop of the sender got, as its only message."""
        self.assertEqual(mail_commands(hop), ["<>"])
        [message] = hop.received
        self.assertEqual(message.to, (SENDER,))
        return self.readable(message.raw)

    def readable(self, content: bytes) -> EmailMessage:
        """Return a notice, after checks that any other next hop could take it too."""
        self.assertTrue(content.isascii())
        self.assertLessEqual(max(map(len, content.split(b"\r\n"))), 998)
        self.assertLess(len(content), 300_000)
        parsed = email.message_from_bytes(content, policy=email.policy.default)
        assert isinstance(parsed, EmailMessage)
        self.assertEqual(parsed.get_content_type(), "multipart/report")
        self.assertEqual(len(list(parsed.iter_parts())), 3)
        return parsed

    def test_a_bounce_reaches_the_sender_by_any_hop(self) -> None:
        for content in CONTENTS:
            for opening in (
                HELO_ONLY,
                announcing(),
                announcing("8BITMIME"),
                announcing("8BITMIME", "SMTPUTF8"),
                announcing("SMTPUTF8"),  # without 8BITMIME, which RFC 6531 §3.1 demands
            ):
                mail = " SMTPUTF8 BODY=8BITMIME" if content is UTF8 else " BODY=8BITMIME"
                mta = self.started()
                refusing = listen(
                    mta.reactor,
                    *announcing("8BITMIME", "SMTPUTF8"),
                    *commands(f"MAIL FROM:<{SENDER}>{mail}"),
                    *commands("RCPT TO:<bob@next.example>", reply=REFUSED),
                    *QUIT,
                )
                peer = listen(
                    mta.reactor, *opening, *accepting("MAIL FROM:<>", SENDER), *QUIT, address=AWAY
                )
                self.submit(mta, content, "bob@next.example")
                mta.advance(60)
                self.assertEqual((refusing.problems, peer.problems), ([], []))
                [notice] = peer.contents
                text = next(self.readable(notice).iter_parts()).get_content()
                self.assertIn(r"550 5.1.1 kein Empf\xe4nger", text)

    def test_a_bounce_of_our_own_reaches_the_sender_by_any_hop(self) -> None:
        # The next hop of the notice lacks the extension that the other next hop lacks too.
        for content, recipient in (
            (UTF8, "bob@next.example"),
            (BODY, "jörg@next.example"),
            (SIGNED, "bob@next.example"),
            (LATIN1, "bob@next.example"),
        ):
            mta = self.started()
            self.hop(mta, NEXT)
            hop = self.hop(mta, AWAY)
            self.submit(mta, content, recipient)
            mta.advance(60)
            self.assertIn("5.6.", next(self.notice(hop).iter_parts()).get_content())

    def test_a_delay_notice_and_a_success_notice_reach_the_sender_by_any_hop(self) -> None:
        for content in CONTENTS:
            mta = self.started(queue=QueueSettings(delay_warning=3600.0))
            hop = self.hop(mta, AWAY)
            self.submit(mta, content, "bob@next.example")  # no server listens there
            mta.advance(hours=2)
            self.assertIn("delayed", self.notice(hop)["Subject"])
            mta = self.started()
            hop = self.hop(mta, AWAY)
            self.submit(mta, content, "bob@localhost", rcpt=" NOTIFY=SUCCESS")
            mta.advance(60)
            self.assertIn("delivered", self.notice(hop)["Subject"])

    def status(self, hop: FakeHop) -> EmailMessage:
        """Return the fields of the only recipient of a notice."""
        status = list(self.notice(hop).iter_parts())[1]
        _, fields = status.iter_parts()
        assert isinstance(fields, EmailMessage)
        return fields

    def test_a_notice_has_the_reply_as_the_server_said_it(self) -> None:
        """RFC 3464 §2.3.6; ``Status`` alone has the class that counted."""
        for said, status in (
            ("550 4.1.1 nobody", "5.1.1"),
            ("550 see below\n5.1.1 nobody", "5.1.1"),
            ("552 5.2.2 full", "5.2.2"),
            ("550 nobody", "5.0.0"),
        ):
            mta = self.started()
            self.hop(mta, NEXT).refuse(reply=said)
            hop = self.hop(mta, AWAY)
            self.submit(mta, SIGNED[:13] + b"\r\nx\r\n", "bob@next.example")
            mta.advance(60)
            fields = self.status(hop)
            self.assertEqual(fields["Diagnostic-Code"], f"smtp; {said}".replace("\n", " "))
            self.assertEqual(fields["Status"], status)

    def test_a_notice_of_an_expired_message_names_the_server_and_its_last_reply(self) -> None:
        settings = QueueSettings(lifetime=3600.0, retry_minimum=1800.0)
        for said, how in (
            ("450 4.2.1 Later", FakeHop.defer),
            ("552 5.5.3 Too many", FakeHop.refuse),
            ("554 5.3.2 Not here", partial(FakeHop.refuse, at="connect")),
        ):
            mta = self.started(queue=settings)
            how(self.hop(mta, NEXT), reply=said)
            hop = self.hop(mta, AWAY)
            self.submit(mta, SIGNED[:13] + b"\r\nx\r\n", "bob@next.example")
            mta.advance(hours=2)
            fields = self.status(hop)
            self.assertEqual(fields["Status"], "5.4.7")
            self.assertEqual(fields["Remote-MTA"], f"dns; {NEXT}")
            self.assertEqual(fields["Diagnostic-Code"], f"smtp; {said}")

    def test_a_copy_for_postmaster_arrives_by_any_hop(self) -> None:
        # The message has no sender, and the alias of postmaster leads to another host.
        aliases = os.path.abspath(self.mktemp())
        with open(aliases, "w", encoding="utf-8") as file:
            file.write(f"postmaster: {SENDER}\n")
        for content in CONTENTS:
            mta = self.started(queue=QueueSettings(bounce_postmaster=True), aliases=aliases)
            self.hop(mta, NEXT)
            hop = self.hop(mta, AWAY)
            self.submit(mta, content if content is UTF8 else SIGNED, "bob@next.example", sender="")
            mta.advance(60)
            self.assertIn("could not be delivered", self.notice(hop)["Subject"])

    def test_an_international_sender_forwarded_to_an_ascii_address_gets_the_bounce(self) -> None:
        aliases = os.path.abspath(self.mktemp())
        with open(aliases, "w", encoding="utf-8") as file:
            file.write(f"jürgen: {SENDER}\n")
        mta = self.started(aliases=aliases)
        self.hop(mta, NEXT)
        hop = self.hop(mta, AWAY)
        self.submit(mta, UTF8, "bob@next.example", sender="jürgen@localhost")
        mta.advance(60)
        self.assertEqual(self.notice(hop)["To"].groups[0].display_name, "jürgen@localhost")

    def test_a_bounce_to_an_international_sender_fails_without_smtputf8(self) -> None:
        # The one notice that a next hop may refuse becomes an unreported failure.
        mta = self.started()
        self.hop(mta, NEXT)
        hop = self.hop(mta, AWAY, "8BITMIME")
        self.submit(mta, BODY, "jörg@next.example", sender="jürgen@away.example")
        mta.advance(60)
        self.assertEqual((hop.connections, hop.transactions), (1, 0))
        self.assertEqual(mta.status().queue["failures"], 1)

    def test_a_bounce_to_an_international_sender_goes_by_a_hop_with_smtputf8(self) -> None:
        for announced in (("8BITMIME", "SMTPUTF8"), ("SMTPUTF8",)):
            mta = self.started()
            self.hop(mta, NEXT)
            hop = self.hop(mta, AWAY, *announced)
            reader = "jürgen@away.example"
            self.submit(mta, UTF8, "bob@next.example", sender=reader)
            mta.advance(60)
            self.assertEqual(mail_commands(hop), ["<> SMTPUTF8"])
            [message] = hop.received
            self.assertEqual(message.to, (reader,))
            self.assertIn(f"\r\nTo: <{reader}>\r\n".encode(), message.raw)

    def test_a_bounce_names_an_international_host_name_in_ascii(self) -> None:
        mta = self.started(hostname="bücher.example")
        hop = self.hop(mta, AWAY)
        self.submit(mta, UTF8, "bob@localhost", rcpt=" NOTIFY=SUCCESS")
        mta.advance(60)
        self.notice(hop)
        self.assertEqual(hop.commands[0], "EHLO xn--bcher-kva.example")
