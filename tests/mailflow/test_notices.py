"""Notices through whole MTAs: each reaches its sender, whatever next hop leads there."""

import email
import email.policy
import os
from email.message import EmailMessage
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.config import QueueSettings
from twisted_mta.testing.memory_mta import MemoryMTA
from twisted_mta.testing.peer import ScriptedPeer, ScriptStep
from twisted_mta.testing.reactor import MemoryReactor

NEXT, AWAY = "192.0.2.1", "192.0.2.2"
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


def greeted(*keywords: bytes) -> tuple[ScriptStep, ...]:
    """Return how a server begins that announces these extensions."""
    lines = [b"mx.example", *keywords]
    reply = b"".join(b"250-%s\r\n" % line for line in lines[:-1]) + b"250 %s\r\n" % lines[-1]
    return (("send", b"220 mx.example\r\n"), ("expect", b"EHLO mta.example\r\n"), ("send", reply))


def asked(*commands: str, reply: bytes = b"250 ok\r\n") -> tuple[ScriptStep, ...]:
    steps: list[ScriptStep] = []
    for command in commands:
        steps += [("expect", f"{command}\r\n".encode()), ("send", reply)]
    return tuple(steps)


TAKEN: tuple[ScriptStep, ...] = (
    *asked("DATA", reply=b"354 go\r\n"),
    ("content",),
    ("send", b"250 2.0.0 ok\r\n"),
)
BYE: tuple[ScriptStep, ...] = (("expect", b"QUIT\r\n"), ("close",))


class ByAnyHop(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactor()

    def begin(self, **settings: Any) -> MemoryMTA:
        routes = (
            ("next.example", f"smtp://{NEXT}"),
            ("away.example", f"smtp://{AWAY}"),
        )
        mta = MemoryMTA(self.mktemp(), **{"reactor": self.reactor, "routes": routes, **settings})
        mta.start()
        self.addCleanup(mta.stop)
        return mta

    def peer(self, address: str, *steps: ScriptStep) -> ScriptedPeer:
        peer = ScriptedPeer([*steps, *BYE])
        self.reactor.listen(address, 25, peer)
        return peer

    def refuses(self, recipient: str, mail: str) -> ScriptedPeer:
        return self.peer(
            NEXT,
            *greeted(b"8BITMIME", b"SMTPUTF8"),
            *asked(f"MAIL FROM:<{SENDER}>{mail}"),
            *asked(f"RCPT TO:<{recipient}>", reply=REFUSED),
        )

    def hears(self, *opening: ScriptStep, mail: str = "", reader: str = SENDER) -> ScriptedPeer:
        """Return the next hop of the sender, which expects a notice."""
        return self.peer(
            AWAY, *opening, *asked(f"MAIL FROM:<>{mail}", f"RCPT TO:<{reader}>"), *TAKEN
        )

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

    def heard(self, peer: ScriptedPeer) -> EmailMessage:
        """Return the notice, which is of 7 bits and of lines that can be sent."""
        self.assertEqual(peer.problems, [])
        [content] = peer.contents
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
                greeted(),
                greeted(b"8BITMIME"),
                greeted(b"8BITMIME", b"SMTPUTF8"),
                greeted(b"SMTPUTF8"),  # which RFC 6531 §3.1 does not allow
            ):
                mail = " SMTPUTF8 BODY=8BITMIME" if content is UTF8 else " BODY=8BITMIME"
                mta = self.begin()
                refused = self.refuses("bob@next.example", mail)
                hop = self.hears(*opening)
                self.submit(mta, content, "bob@next.example")
                mta.advance(60)
                self.assertEqual(refused.problems, [])
                text = next(self.heard(hop).iter_parts()).get_content()
                self.assertIn(r"550 5.1.1 kein Empf\xe4nger", text)
                mta.stop()

    def test_a_bounce_of_our_own_reaches_the_sender_by_any_hop(self) -> None:
        """What the next hop of the message lacks, that of its notice may lack as well."""
        for content, recipient in (
            (UTF8, "bob@next.example"),
            (BODY, "jörg@next.example"),
            (SIGNED, "bob@next.example"),
            (LATIN1, "bob@next.example"),
        ):
            mta = self.begin()
            self.peer(NEXT, *greeted())
            hop = self.hears(*greeted())
            self.submit(mta, content, recipient)
            mta.advance(60)
            self.assertIn("5.6.", next(self.heard(hop).iter_parts()).get_content())
            mta.stop()

    def test_a_delay_notice_and_a_success_notice_reach_the_sender_by_any_hop(self) -> None:
        for content in CONTENTS:
            mta = self.begin(queue=QueueSettings(delay_warning=3600.0))
            hop = self.hears(*greeted())
            self.submit(mta, content, "bob@next.example")  # nothing listens there
            mta.advance(2 * 3600)
            self.assertIn("delayed", self.heard(hop)["Subject"])
            mta.stop()
            mta = self.begin()
            hop = self.hears(*greeted())
            self.submit(mta, content, "bob@localhost", rcpt=" NOTIFY=SUCCESS")
            mta.advance(60)
            self.assertIn("delivered", self.heard(hop)["Subject"])
            mta.stop()

    def test_a_copy_for_postmaster_arrives_by_any_hop(self) -> None:
        """Of a message without a sender, and where the mail of postmaster goes elsewhere."""
        aliases = os.path.abspath(self.mktemp())
        with open(aliases, "w", encoding="utf-8") as file:
            file.write(f"postmaster: {SENDER}\n")
        for content in CONTENTS:
            mta = self.begin(queue=QueueSettings(bounce_postmaster=True), aliases=aliases)
            self.peer(NEXT, *greeted())
            hop = self.hears(*greeted())
            self.submit(mta, content if content is UTF8 else SIGNED, "bob@next.example", sender="")
            mta.advance(60)
            self.assertIn("could not be delivered", self.heard(hop)["Subject"])
            mta.stop()

    def test_an_international_sender_forwarded_to_an_ascii_address_gets_the_bounce(self) -> None:
        aliases = os.path.abspath(self.mktemp())
        with open(aliases, "w", encoding="utf-8") as file:
            file.write(f"jürgen: {SENDER}\n")
        mta = self.begin(aliases=aliases)
        self.peer(NEXT, *greeted())
        hop = self.hears(*greeted())
        self.submit(mta, UTF8, "bob@next.example", sender="jürgen@localhost")
        mta.advance(60)
        self.assertEqual(self.heard(hop)["To"].groups[0].display_name, "jürgen@localhost")

    def test_a_bounce_to_an_international_sender_fails_without_smtputf8(self) -> None:
        """The one notice that a next hop may be unable to take: it leaves a record."""
        mta = self.begin()
        self.peer(NEXT, *greeted())
        hop = self.peer(AWAY, *greeted(b"8BITMIME"))
        self.submit(mta, BODY, "jörg@next.example", sender="jürgen@away.example")
        mta.advance(60)
        self.assertEqual(hop.problems, [])
        self.assertEqual(hop.contents, [])
        self.assertEqual(mta.status().queue["failures"], 1)

    def test_a_bounce_to_an_international_sender_goes_by_a_hop_with_smtputf8(self) -> None:
        for opening in (greeted(b"8BITMIME", b"SMTPUTF8"), greeted(b"SMTPUTF8")):
            mta = self.begin()
            self.peer(NEXT, *greeted())
            reader = "jürgen@away.example"
            hop = self.hears(*opening, mail=" SMTPUTF8", reader=reader)
            self.submit(mta, UTF8, "bob@next.example", sender=reader)
            mta.advance(60)
            self.assertEqual(hop.problems, [])
            self.assertIn(f"\r\nTo: <{reader}>\r\n".encode(), hop.contents[0])
            mta.stop()

    def test_a_bounce_names_an_international_host_name_in_ascii(self) -> None:
        mta = self.begin(hostname="bücher.example")
        hop = self.hears(
            ("send", b"220 mx.example\r\n"),
            ("expect", b"EHLO xn--bcher-kva.example\r\n"),
            ("send", b"250 mx.example\r\n"),
        )
        self.submit(mta, UTF8, "bob@localhost", rcpt=" NOTIFY=SUCCESS")
        mta.advance(60)
        self.heard(hop)
