"""Notices through whole MTAs: each reaches its sender by any next hop."""

import email
import email.policy
import os
from email.message import EmailMessage
from typing import Any

from tests.tidy import TidyTestCase
from twisted_mta.config import QueueSettings
from twisted_mta.testing.memory_mta import MemoryMTA
from twisted_mta.testing.peer import ScriptedPeer, ScriptStep
from twisted_mta.testing.reactor import MemoryReactor

from .next_hop import NEXT, QUIT, announcing, listen

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


ACCEPTED: tuple[ScriptStep, ...] = (
    *commands("DATA", reply=b"354 go\r\n"),
    ("content",),
    ("send", b"250 2.0.0 ok\r\n"),
)


class Notices(TidyTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactor()

    def started(self, **settings: Any) -> MemoryMTA:
        routes = (
            ("next.example", f"smtp://{NEXT}"),
            ("away.example", f"smtp://{AWAY}"),
        )
        mta = MemoryMTA(self.mktemp(), **{"reactor": self.reactor, "routes": routes, **settings})
        mta.start()
        self.addCleanup(mta.stop)
        return mta

    def peer(self, address: str, *steps: ScriptStep) -> ScriptedPeer:
        return listen(self.reactor, *steps, *QUIT, address=address)

    def refusing(self, recipient: str, mail: str) -> ScriptedPeer:
        return self.peer(
            NEXT,
            *announcing("8BITMIME", "SMTPUTF8"),
            *commands(f"MAIL FROM:<{SENDER}>{mail}"),
            *commands(f"RCPT TO:<{recipient}>", reply=REFUSED),
        )

    def expecting_notice(
        self, *opening: ScriptStep, mail: str = "", reader: str = SENDER
    ) -> ScriptedPeer:
        """Return the next hop of the sender, which expects a notice."""
        return self.peer(
            AWAY, *opening, *commands(f"MAIL FROM:<>{mail}", f"RCPT TO:<{reader}>"), *ACCEPTED
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

    def notice(self, peer: ScriptedPeer) -> EmailMessage:
        """Return the notice that a next hop got, after checks that any other could take it too."""
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
                announcing(),
                announcing("8BITMIME"),
                announcing("8BITMIME", "SMTPUTF8"),
                announcing("SMTPUTF8"),  # without 8BITMIME, which RFC 6531 §3.1 demands
            ):
                mail = " SMTPUTF8 BODY=8BITMIME" if content is UTF8 else " BODY=8BITMIME"
                mta = self.started()
                refused = self.refusing("bob@next.example", mail)
                hop = self.expecting_notice(*opening)
                self.submit(mta, content, "bob@next.example")
                mta.advance(60)
                self.assertEqual(refused.problems, [])
                text = next(self.notice(hop).iter_parts()).get_content()
                self.assertIn(r"550 5.1.1 kein Empf\xe4nger", text)
                mta.stop()

    def test_a_bounce_of_our_own_reaches_the_sender_by_any_hop(self) -> None:
        # The next hop of the notice lacks the extension that the other next hop lacks too.
        for content, recipient in (
            (UTF8, "bob@next.example"),
            (BODY, "jörg@next.example"),
            (SIGNED, "bob@next.example"),
            (LATIN1, "bob@next.example"),
        ):
            mta = self.started()
            self.peer(NEXT, *announcing())
            hop = self.expecting_notice(*announcing())
            self.submit(mta, content, recipient)
            mta.advance(60)
            self.assertIn("5.6.", next(self.notice(hop).iter_parts()).get_content())
            mta.stop()

    def test_a_delay_notice_and_a_success_notice_reach_the_sender_by_any_hop(self) -> None:
        for content in CONTENTS:
            mta = self.started(queue=QueueSettings(delay_warning=3600.0))
            hop = self.expecting_notice(*announcing())
            self.submit(mta, content, "bob@next.example")  # no server listens there
            mta.advance(2 * 3600)
            self.assertIn("delayed", self.notice(hop)["Subject"])
            mta.stop()
            mta = self.started()
            hop = self.expecting_notice(*announcing())
            self.submit(mta, content, "bob@localhost", rcpt=" NOTIFY=SUCCESS")
            mta.advance(60)
            self.assertIn("delivered", self.notice(hop)["Subject"])
            mta.stop()

    def status(self, peer: ScriptedPeer) -> EmailMessage:
        """Return the fields of the only recipient of a notice."""
        status = list(self.notice(peer).iter_parts())[1]
        _, fields = status.iter_parts()
        assert isinstance(fields, EmailMessage)
        return fields

    def test_a_notice_has_the_reply_as_the_server_said_it(self) -> None:
        """RFC 3464 §2.3.6; ``Status`` alone has the class that counted."""
        for said, status in (
            (b"550 4.1.1 nobody\r\n", "5.1.1"),
            (b"550-see below\r\n550 5.1.1 nobody\r\n", "5.1.1"),
            (b"552 5.2.2 full\r\n", "5.2.2"),
            (b"550 nobody\r\n", "5.0.0"),
        ):
            mta = self.started()
            self.peer(
                NEXT,
                *announcing(),
                *commands(f"MAIL FROM:<{SENDER}>"),
                *commands("RCPT TO:<bob@next.example>", reply=said),
            )
            hop = self.expecting_notice(*announcing())
            self.submit(mta, SIGNED[:13] + b"\r\nx\r\n", "bob@next.example")
            mta.advance(60)
            fields = self.status(hop)
            text = said.replace(b"550-see below\r\n550 ", b"550 see below ").decode().rstrip()
            self.assertEqual(fields["Diagnostic-Code"], f"smtp; {text}")
            self.assertEqual(fields["Status"], status)
            mta.stop()

    def test_a_notice_of_an_expired_message_names_the_server_and_its_last_reply(self) -> None:
        for said, greets in (
            (b"450 4.2.1 Later\r\n", True),
            (b"552 5.5.3 Too many\r\n", True),
            (b"554 5.3.2 Not here\r\n", False),
        ):
            self.reactor = MemoryReactor()
            mta = self.started(queue=QueueSettings(lifetime=3600.0, retry_minimum=1800.0))
            refusal = commands("RCPT TO:<bob@next.example>", reply=said)
            script = (*announcing(), *commands(f"MAIL FROM:<{SENDER}>"), *refusal)
            for _ in range(9):
                self.peer(NEXT, *(script if greets else [("send", said)]))
            hop = self.expecting_notice(*announcing())
            self.submit(mta, SIGNED[:13] + b"\r\nx\r\n", "bob@next.example")
            mta.advance(2 * 3600)
            fields = self.status(hop)
            self.assertEqual(fields["Status"], "5.4.7")
            self.assertEqual(fields["Remote-MTA"], f"dns; {NEXT}")
            self.assertEqual(fields["Diagnostic-Code"], f"smtp; {said.decode().rstrip()}")
            mta.stop()

    def test_a_copy_for_postmaster_arrives_by_any_hop(self) -> None:
        # The message has no sender, and the alias of postmaster leads to another host.
        aliases = os.path.abspath(self.mktemp())
        with open(aliases, "w", encoding="utf-8") as file:
            file.write(f"postmaster: {SENDER}\n")
        for content in CONTENTS:
            mta = self.started(queue=QueueSettings(bounce_postmaster=True), aliases=aliases)
            self.peer(NEXT, *announcing())
            hop = self.expecting_notice(*announcing())
            self.submit(mta, content if content is UTF8 else SIGNED, "bob@next.example", sender="")
            mta.advance(60)
            self.assertIn("could not be delivered", self.notice(hop)["Subject"])
            mta.stop()

    def test_an_international_sender_forwarded_to_an_ascii_address_gets_the_bounce(self) -> None:
        aliases = os.path.abspath(self.mktemp())
        with open(aliases, "w", encoding="utf-8") as file:
            file.write(f"jürgen: {SENDER}\n")
        mta = self.started(aliases=aliases)
        self.peer(NEXT, *announcing())
        hop = self.expecting_notice(*announcing())
        self.submit(mta, UTF8, "bob@next.example", sender="jürgen@localhost")
        mta.advance(60)
        self.assertEqual(self.notice(hop)["To"].groups[0].display_name, "jürgen@localhost")

    def test_a_bounce_to_an_international_sender_fails_without_smtputf8(self) -> None:
        # The one notice that a next hop may refuse becomes an unreported failure.
        mta = self.started()
        self.peer(NEXT, *announcing())
        hop = self.peer(AWAY, *announcing("8BITMIME"))
        self.submit(mta, BODY, "jörg@next.example", sender="jürgen@away.example")
        mta.advance(60)
        self.assertEqual(hop.problems, [])
        self.assertEqual(hop.contents, [])
        self.assertEqual(mta.status().queue["failures"], 1)

    def test_a_bounce_to_an_international_sender_goes_by_a_hop_with_smtputf8(self) -> None:
        for opening in (announcing("8BITMIME", "SMTPUTF8"), announcing("SMTPUTF8")):
            mta = self.started()
            self.peer(NEXT, *announcing())
            reader = "jürgen@away.example"
            hop = self.expecting_notice(*opening, mail=" SMTPUTF8", reader=reader)
            self.submit(mta, UTF8, "bob@next.example", sender=reader)
            mta.advance(60)
            self.assertEqual(hop.problems, [])
            self.assertIn(f"\r\nTo: <{reader}>\r\n".encode(), hop.contents[0])
            mta.stop()

    def test_a_bounce_names_an_international_host_name_in_ascii(self) -> None:
        mta = self.started(hostname="bücher.example")
        hop = self.expecting_notice(
            ("send", b"220 mx.example\r\n"),
            ("expect", b"EHLO xn--bcher-kva.example\r\n"),
            ("send", b"250 mx.example\r\n"),
        )
        self.submit(mta, UTF8, "bob@localhost", rcpt=" NOTIFY=SUCCESS")
        mta.advance(60)
        self.notice(hop)
