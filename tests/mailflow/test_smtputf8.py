"""International mail (SMTPUTF8, RFC 6531) through whole MTAs."""

import email
import email.policy
import os
from typing import Any

from tests.tidy import TidyTestCase
from twisted_mta.inbox_message import InboxMessage
from twisted_mta.testing import FakeHop, MemoryMTA

from .next_hop import mail_commands

PLAIN = b"Subject: x\r\n\r\nfine\r\n"
UTF8 = "Subject: schön\r\nFrom: Jürgen <jürgen@bücher.example>\r\n\r\nfür dich\r\n".encode()
EIGHT_BIT = "Subject: x\r\n\r\nfür dich\r\n".encode()


class InternationalTestCase(TidyTestCase):
    def started(self, **settings: Any) -> MemoryMTA:
        return self.enterContext(MemoryMTA(**settings))

    def aliases(self, text: str) -> str:
        """Return the path of a file of aliases."""
        path = os.path.abspath(self.mktemp())
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def submit(
        self, mta: MemoryMTA, content: bytes, *recipients: str, sender: str = "ann@localhost"
    ) -> None:
        client = mta.connect()
        commands = [f"MAIL FROM:<{sender}> SMTPUTF8 BODY=8BITMIME"]
        for command in (*commands, *(f"RCPT TO:<{each}>" for each in recipients)):
            self.assertRegex(client.say(command)[0], "^250 ")
        client.say("DATA")
        self.assertRegex(client.send(content + b".\r\n")[0], "^250 2.0.0 Queued as")
        mta.advance(60)


class DeliveredLocally(InternationalTestCase):
    def test_an_international_mailbox_is_delivered_in_any_spelling(self) -> None:
        mta = self.started(local_domains=("bücher.example",))
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
        mta = self.started(aliases=self.aliases("jürgen: bob@localhost\n"))
        self.submit(mta, PLAIN, "JU\u0308RGEN@localhost")
        self.assertEqual([mail.to for mail in mta.inbox], [("bob@localhost",)])


class Relayed(InternationalTestCase):
    def relaying(self, *announced: str, **settings: Any) -> tuple[MemoryMTA, FakeHop]:
        """Return an MTA, and the next hop of all its mail, which accepts it."""
        mta = self.started(**settings)
        hop = mta.hop()
        hop.extensions = list(announced)
        return mta, hop

    def next_mta(self, mta: MemoryMTA) -> MemoryMTA:
        """Return another MTA beside ``mta``, for ``next.example``."""
        return self.enterContext(MemoryMTA(domain="next.example", beside=mta))

    def assertRelayed(self, hop: FakeHop, mail: str, *recipients: str) -> InboxMessage:
        """Assert that a hop got one transaction, and return its message."""
        self.assertEqual(mail_commands(hop), [mail])
        [message] = hop.received
        self.assertEqual(message.to, recipients)
        return message

    def test_international_mail_is_relayed_unchanged(self) -> None:
        mta = self.started()
        next_mta = self.next_mta(mta)
        self.submit(mta, UTF8, "用户@next.example", sender="jürgen@bücher.example")
        [mail] = next_mta.inbox_of("用户@next.example")
        self.assertTrue(mail.raw.endswith(UTF8.replace(b"\r\n", b"\n")))
        self.assertEqual(mail.raw.count(b" with UTF8SMTP"), 2)
        self.assertEqual(mail.sender, "jürgen@xn--bcher-kva.example")

    def test_smtputf8_is_used_if_address_or_header_needs_it(self) -> None:
        for content, recipient, sender in (
            (UTF8, "bob@next.example", "ann@localhost"),
            (PLAIN, "ü@next.example", "ann@localhost"),
            (PLAIN, "bob@next.example", "ü@localhost"),
            (UTF8, "bob@next.example", ""),  # a notice in another language
            (PLAIN, "ü@next.example", ""),
        ):
            mta, hop = self.relaying("8BITMIME", "SMTPUTF8")
            self.submit(mta, content, recipient, sender=sender)
            body = "" if content.isascii() else " BODY=8BITMIME"
            self.assertRelayed(hop, f"<{sender}> SMTPUTF8{body}", recipient)

    def test_mail_that_needs_no_smtputf8_goes_without_it(self) -> None:
        # A domain as A-labels and a body of 8 bits need no SMTPUTF8; the `for` clause is left out.
        for content, body in ((PLAIN, ""), (EIGHT_BIT, " BODY=8BITMIME")):
            mta, hop = self.relaying("8BITMIME")
            self.submit(mta, content, "bob@bücher.example")
            sent = self.assertRelayed(hop, f"<ann@localhost>{body}", "bob@xn--bcher-kva.example")
            self.assertTrue(sent.raw.partition(b"\r\n\r\n")[0].isascii())
            self.assertIn(b" with UTF8SMTP id ", sent.raw)
            self.assertNotIn(b"\tfor <", sent.raw)

    def test_mail_of_the_null_sender_with_smtputf8_goes_without_it_if_it_is_ascii(self) -> None:
        mta, hop = self.relaying("8BITMIME")
        self.submit(mta, PLAIN, "bob@next.example", sender="")
        self.assertRelayed(hop, "<>", "bob@next.example")

    def test_an_international_alias_of_an_ascii_address_needs_no_smtputf8(self) -> None:
        mta, hop = self.relaying("8BITMIME", aliases=self.aliases("jürgen: bob@next.example\n"))
        self.submit(mta, PLAIN, "jürgen@localhost")
        self.assertRelayed(hop, "<ann@localhost>", "bob@next.example")

    def returned(self, mta: MemoryMTA, status: str) -> str:
        [notice] = mta.inbox_of("ann@localhost")
        self.assertIn(f"Status: {status}\n".encode(), notice.raw)
        return notice.raw.decode()

    def test_an_international_recipient_bounces_if_the_next_hop_lacks_smtputf8(self) -> None:
        mta, hop = self.relaying("8BITMIME")
        self.submit(mta, PLAIN, "ü@next.example", "bob@next.example")
        self.assertRelayed(hop, "<ann@localhost>", "bob@next.example")
        self.assertIn(r"Final-Recipient: utf-8; \x{FC}@next.example", self.returned(mta, "5.6.7"))

    def test_an_international_header_bounces_if_the_next_hop_lacks_smtputf8(self) -> None:
        mta, hop = self.relaying("8BITMIME")
        self.submit(mta, UTF8, "bob@next.example")
        self.assertEqual((hop.connections, hop.transactions), (1, 0))
        notice = self.returned(mta, "5.6.9")
        parsed = email.message_from_string(notice, policy=email.policy.default)
        types = [part.get_content_type() for part in parsed.walk()]
        self.assertIn("message/global", types)

    def test_8_bit_fields_without_smtputf8_are_relayed_unchanged(self) -> None:
        # To refuse them would lose mail that other servers accept.
        mta, hop = self.relaying("8BITMIME")
        mta.submit_by_smtp(UTF8, "bob@next.example", sender="ann@localhost")
        mta.advance(60)
        message = self.assertRelayed(hop, "<ann@localhost>", "bob@next.example")
        self.assertTrue(message.raw.endswith(UTF8))

    def test_smtputf8_survives_a_restart(self) -> None:
        mta = self.started(routes=(("next.example", "smtp://198.51.100.2"),))
        self.submit(mta, UTF8, "用户@next.example", sender="ü@localhost")
        mta.restart()
        next_mta = self.next_mta(mta)
        self.assertEqual(next_mta.address, "198.51.100.2")
        mta.advance(hours=1)
        [mail] = next_mta.inbox_of("用户@next.example")
        self.assertEqual(mail.sender, "ü@localhost")
