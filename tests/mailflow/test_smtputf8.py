"""International mail (SMTPUTF8, RFC 6531) through whole MTAs."""

import email
import email.policy
import os
from typing import Any

from tests.tidy import TidyTestCase
from twisted_mta.config import Listener
from twisted_mta.testing.client import MemoryClient
from twisted_mta.testing.memory_mta import MemoryMTA
from twisted_mta.testing.peer import ScriptedPeer, ScriptStep
from twisted_mta.testing.reactor import MemoryReactor

from .next_hop import NEXT, QUIT, accepting, announcing, listen

PLAIN = b"Subject: x\r\n\r\nfine\r\n"
UTF8 = "Subject: schön\r\nFrom: Jürgen <jürgen@bücher.example>\r\n\r\nfür dich\r\n".encode()
EIGHT_BIT = "Subject: x\r\n\r\nfür dich\r\n".encode()
WITHOUT_SMTPUTF8 = ("8BITMIME",)
WITH_SMTPUTF8 = ("8BITMIME", "SMTPUTF8")


class InternationalTestCase(TidyTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactor()

    def started(self, **settings: Any) -> MemoryMTA:
        mta = MemoryMTA(
            self.mktemp(),
            **{
                "reactor": self.reactor,
                "routes": (
                    ("next.example", f"smtp://{NEXT}"),
                    ("bücher.example", f"smtp://{NEXT}"),
                ),
                **settings,
            },
        )
        mta.start()
        self.addCleanup(mta.stop)
        return mta

    def next_mta(self) -> MemoryMTA:
        mta = MemoryMTA(
            self.mktemp(),
            reactor=self.reactor,
            hostname="next.example",
            local_domains=("next.example",),
            recipients="any",
            listeners=(Listener(endpoint=f"tcp:25:interface={NEXT}"),),
        )
        mta.start()
        self.addCleanup(mta.stop)
        return mta

    def next_hop(self, announced: tuple[str, ...], *steps: ScriptStep) -> ScriptedPeer:
        return listen(self.reactor, *announcing(*announced), *steps, *QUIT)

    def submit(
        self, mta: MemoryMTA, content: bytes, *recipients: str, sender: str = "ann@localhost"
    ) -> MemoryClient:
        client = mta.connect()
        commands = [f"MAIL FROM:<{sender}> SMTPUTF8 BODY=8BITMIME"]
        for command in (*commands, *(f"RCPT TO:<{each}>" for each in recipients)):
            self.assertRegex(client.say(command)[0], "^250 ")
        client.say("DATA")
        self.assertRegex(client.send(content + b".\r\n")[0], "^250 2.0.0 Queued as")
        mta.advance(60)
        return client

    def accepts(self, mail: str, recipient: str) -> tuple[ScriptStep, ...]:
        return accepting(f"MAIL FROM:<{mail}", recipient, reply="250 2.0.0 schön, für später")


class DeliveredLocally(InternationalTestCase):
    def test_an_international_mailbox_is_delivered_in_any_spelling(self) -> None:
        mta = self.started(local_domains=("bücher.example",), routes=())
        for spelling in ("jos\u00e9", "JOSE\u0301", "Jose\u0301+tag"):
            self.submit(mta, UTF8, f"{spelling}@Bücher.example", sender="ü@bücher.example")
        mails = mta.mail("jos\u00e9", "xn--bcher-kva.example")
        self.assertEqual(len(mails), 3)
        head = mails[0].decode()
        self.assertIn("Return-Path: <ü@xn--bcher-kva.example>\n", head)
        self.assertIn("Delivered-To: jos\u00e9@xn--bcher-kva.example\n", head)
        self.assertRegex(head, r"\n\tby mta\.example with UTF8SMTP id ")
        self.assertIn("\n\tfor <jos\u00e9@bücher.example>;", head)
        self.assertTrue(mails[0].endswith(UTF8.replace(b"\r\n", b"\n")))

    def test_hostile_international_mailboxes_are_refused(self) -> None:
        client = self.started().connect()
        client.say("MAIL FROM:<> SMTPUTF8")
        for local_part in ('"ü/x"', '".ü"', "ü\u202ex", '"/etc/ü"', '"ü/../x"'):
            [reply] = client.say(f"RCPT TO:<{local_part}@localhost>")
            self.assertRegex(reply, "^550 5.1.3 ")

    def test_one_mailbox_in_two_spellings_gets_one_copy(self) -> None:
        mta = self.started()
        self.submit(mta, UTF8, "jos\u00e9@localhost", "Jose\u0301@localhost")
        self.assertEqual(len(mta.mail("jos\u00e9")), 1)

    def test_an_international_alias_is_expanded(self) -> None:
        path = os.path.abspath(self.mktemp())
        with open(path, "w", encoding="utf-8") as file:
            file.write("jürgen: bob@localhost\n")
        mta = self.started(aliases=path)
        self.submit(mta, PLAIN, "JU\u0308RGEN@localhost")
        self.assertEqual(len(mta.mail("bob")), 1)


class Relayed(InternationalTestCase):
    def test_international_mail_is_relayed_unchanged(self) -> None:
        next_mta = self.next_mta()
        self.submit(self.started(), UTF8, "用户@next.example", sender="jürgen@bücher.example")
        [mail] = next_mta.mail("用户", "next.example")
        self.assertTrue(mail.endswith(UTF8.replace(b"\r\n", b"\n")))
        self.assertEqual(mail.count(b" with UTF8SMTP"), 2)
        self.assertIn("Return-Path: <jürgen@xn--bcher-kva.example>".encode(), mail)

    def test_smtputf8_is_used_if_address_or_header_needs_it(self) -> None:
        for content, recipient, sender in (
            (UTF8, "bob@next.example", "ann@localhost"),
            (PLAIN, "ü@next.example", "ann@localhost"),
            (PLAIN, "bob@next.example", "ü@localhost"),
            (UTF8, "bob@next.example", ""),  # a notice in another language
            (PLAIN, "ü@next.example", ""),
        ):
            body = "" if content.isascii() else " BODY=8BITMIME"
            peer = self.next_hop(
                WITH_SMTPUTF8, *self.accepts(f"{sender}> SMTPUTF8{body}", recipient)
            )
            mta = self.started()
            self.submit(mta, content, recipient, sender=sender)
            self.assertEqual(peer.problems, [])
            self.assertEqual(len(peer.contents), 1)
            mta.stop()

    def test_mail_that_needs_no_smtputf8_goes_without_it(self) -> None:
        # A domain as A-labels and a body of 8 bits need no SMTPUTF8; the `for` clause is left out.
        for content, body in ((PLAIN, ""), (EIGHT_BIT, " BODY=8BITMIME")):
            peer = self.next_hop(
                WITHOUT_SMTPUTF8,
                *self.accepts(f"ann@localhost>{body}", "bob@xn--bcher-kva.example"),
            )
            mta = self.started()
            self.submit(mta, content, "bob@bücher.example")
            self.assertEqual(peer.problems, [])
            [sent] = peer.contents
            self.assertTrue(sent.partition(b"\r\n\r\n")[0].isascii())
            self.assertIn(b" with UTF8SMTP id ", sent)
            self.assertNotIn(b"\tfor <", sent)
            mta.stop()

    def test_mail_of_the_null_sender_with_smtputf8_goes_without_it_if_it_is_ascii(self) -> None:
        peer = self.next_hop(WITHOUT_SMTPUTF8, *self.accepts(">", "bob@next.example"))
        self.submit(self.started(), PLAIN, "bob@next.example", sender="")
        self.assertEqual(peer.problems, [])
        self.assertEqual(len(peer.contents), 1)

    def test_an_international_alias_of_an_ascii_address_needs_no_smtputf8(self) -> None:
        path = os.path.abspath(self.mktemp())
        with open(path, "w", encoding="utf-8") as file:
            file.write("jürgen: bob@next.example\n")
        peer = self.next_hop(WITHOUT_SMTPUTF8, *self.accepts("ann@localhost>", "bob@next.example"))
        self.submit(self.started(aliases=path), PLAIN, "jürgen@localhost")
        self.assertEqual(peer.problems, [])
        self.assertEqual(len(peer.contents), 1)

    def returned(self, mta: MemoryMTA, status: str) -> str:
        [notice] = mta.mail("ann")
        self.assertIn(f"Status: {status}\n".encode(), notice)
        return notice.decode()

    def test_an_international_recipient_bounces_if_the_next_hop_lacks_smtputf8(self) -> None:
        peer = self.next_hop(WITHOUT_SMTPUTF8, *self.accepts("ann@localhost>", "bob@next.example"))
        mta = self.started()
        self.submit(mta, PLAIN, "ü@next.example", "bob@next.example")
        self.assertEqual(peer.problems, [])
        self.assertIn(r"Final-Recipient: utf-8; \x{FC}@next.example", self.returned(mta, "5.6.7"))

    def test_an_international_header_bounces_if_the_next_hop_lacks_smtputf8(self) -> None:
        peer = self.next_hop(WITHOUT_SMTPUTF8)
        mta = self.started()
        self.submit(mta, UTF8, "bob@next.example")
        self.assertNotIn(b"MAIL", peer.received)
        notice = self.returned(mta, "5.6.9")
        parsed = email.message_from_string(notice, policy=email.policy.default)
        types = [part.get_content_type() for part in parsed.walk()]
        self.assertIn("message/global", types)

    def test_8_bit_fields_without_smtputf8_are_relayed_unchanged(self) -> None:
        # To refuse them would lose mail that other servers accept.
        peer = self.next_hop(WITHOUT_SMTPUTF8, *self.accepts("ann@localhost>", "bob@next.example"))
        mta = self.started()
        mta.submit_by_smtp(UTF8, "bob@next.example", sender="ann@localhost")
        mta.advance(60)
        self.assertEqual(peer.problems, [])
        self.assertTrue(peer.contents[0].endswith(UTF8 + b".\r\n"))

    def test_smtputf8_survives_a_restart(self) -> None:
        directory = os.path.abspath(self.mktemp())
        settings: dict[str, Any] = {
            "reactor": self.reactor,
            "routes": (("next.example", f"smtp://{NEXT}"),),
        }
        mta = MemoryMTA(directory, **settings)
        mta.start()
        self.submit(mta, UTF8, "用户@next.example", sender="ü@localhost")
        mta.stop()
        next_mta = self.next_mta()
        mta = MemoryMTA(directory, **settings)
        mta.start()
        self.addCleanup(mta.stop)
        mta.advance(3600)
        [mail] = next_mta.mail("用户", "next.example")
        self.assertIn("Return-Path: <ü@localhost>".encode(), mail)
