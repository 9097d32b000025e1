"""Binary mail (RFC 3030 §3) through whole MTAs: kept unchanged, converted, or returned."""

import email
from typing import Any

from tests.tidy import TidyTestCase
from twisted_mta.testing import FakeHop, MemoryMTA

from .next_hop import mail_commands

LARGE = bytes(range(256)) * 1000
CONTENTS = (
    b"Subject: x\r\n\r\n" + bytes(range(256)) + b"\r\n.\r\n\n.\n\r.\r\0\r",
    b"Subject: x\r\n\r\n" + LARGE,
    b"Subject: x\n\nonly LF\n",
)


class Kept(TidyTestCase):
    def started(self, **settings: Any) -> MemoryMTA:
        return self.enterContext(MemoryMTA(**settings))

    def relaying(self) -> tuple[MemoryMTA, FakeHop]:
        """Return an MTA, and its next hop, which has no BINARYMIME."""
        mta = self.started()
        hop = mta.hop()
        hop.extensions = ["8BITMIME"]
        return mta, hop

    def submit(self, mta: MemoryMTA, content: bytes, recipient: str) -> None:
        client = mta.connect()
        self.assertIn(b"250-BINARYMIME\r\n", client.received)
        client.say(
            "MAIL FROM:<ann@localhost> BODY=BINARYMIME",
            f"RCPT TO:<{recipient}>",
        )
        half = len(content) // 2
        client.send(b"BDAT %d\r\n%s" % (half, content[:half]))
        [reply] = client.send(b"BDAT %d LAST\r\n%s" % (len(content) - half, content[half:]))
        self.assertRegex(reply, "^250 2.0.0 Queued as")

    def test_binary_content_is_relayed_unchanged_to_the_maildir_of_another_host(self) -> None:
        # The contents wait in rows and in body files, over a restart, and are sent over TLS.
        mta = self.started(routes=(("next.example", "smtp://198.51.100.2"),))
        for content in CONTENTS:
            self.submit(mta, content, "bob@next.example")
        mta.advance(60)  # no server listens there yet
        mta.restart()
        next_mta = self.enterContext(MemoryMTA(domain="next.example", beside=mta))
        self.assertEqual(next_mta.address, "198.51.100.2")
        mta.advance(days=1)
        stored = next_mta.mail("bob", "next.example")
        self.assertEqual(len(stored), len(CONTENTS))
        for file in stored:
            [content] = [content for content in CONTENTS if file.endswith(content)]
            head = file.removesuffix(content)
            self.assertTrue(head.startswith(b"Return-Path: <ann@localhost>\r\nDelivered-To: "))
            self.assertEqual(head.count(b"\n"), head.count(b"\r\n"))
            self.assertTrue(head.endswith(b"\r\n"))
            self.assertIn(b"ESMTPS", head)
            self.assertEqual(head.count(b"Received: "), 2)

    def test_binary_content_is_delivered_unchanged_to_a_local_maildir(self) -> None:
        mta = self.started()
        for content in CONTENTS:
            self.submit(mta, content, "bob@localhost")
            mta.advance(1)
            self.assertTrue(mta.mail("bob")[-1].endswith(b"\r\n" + content))

    def test_binary_content_is_converted_for_a_next_hop_without_binarymime(self) -> None:
        mta, hop = self.relaying()
        fields = b"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: image/x-raw\r\n"
        self.submit(
            mta, fields + b"Content-Transfer-Encoding: binary\r\n\r\n" + LARGE, "bob@next.example"
        )
        mta.advance(60)
        self.assertEqual(mail_commands(hop), ["<ann@localhost>"])
        [message] = hop.received
        self.assertEqual(message.to, ("bob@next.example",))
        self.assertTrue(message.raw.isascii())
        self.assertLessEqual(max(map(len, message.raw.split(b"\r\n"))), 998)
        sent = email.message_from_bytes(message.raw)
        self.assertEqual((sent["Subject"], sent.get_content_type()), ("x", "image/x-raw"))
        self.assertEqual(sent.get_payload(decode=True), LARGE)
        self.assertEqual(mta.status().queue["messages"], 0)
        self.assertEqual(mta.mail("ann"), [])

    def test_signed_binary_content_is_returned_if_the_next_hop_lacks_binarymime(self) -> None:
        mta, hop = self.relaying()
        signed = (
            b"Subject: x\r\nMIME-Version: 1.0\r\n"
            b"Content-Type: multipart/signed; protocol=a/b; micalg=c; boundary=X\r\n\r\n"
            b"--X\r\nContent-Transfer-Encoding: binary\r\n\r\nsecret\r\n%b\r\n"
            b"--X\r\nContent-Type: a/b\r\n\r\nsignature\r\n--X--\r\n"
        )
        self.submit(mta, signed % LARGE, "bob@next.example")
        mta.advance(60)
        self.assertEqual((hop.connections, hop.transactions), (1, 0))
        [notice] = mta.mail("ann")
        self.assertIn(b"Status: 5.6.3\n", notice)
        self.assertNotIn(b"secret", notice)
        self.assertNotIn(b"\r", notice)
        returned = email.message_from_bytes(notice).get_payload()[-1]
        self.assertEqual(returned.get_content_type(), "text/rfc822-headers")  # type: ignore[union-attr]
        self.assertIn("Subject: x\n", str(returned))
