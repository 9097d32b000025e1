"""A capture server takes mail for every recipient into a Maildir, and relays nothing."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.config import Listener
from twisted_mta.testing.memory_mta import MemoryMTA

MAIL = b"Subject: Hi\r\n\r\nGood morning!\r\n"
STRANGER = "192.0.2.9"
EVERYWHERE = (Listener(endpoint="tcp:25:interface=127.0.0.1"), Listener(endpoint="tcp:26"))


class Capture(SynchronousTestCase):
    def setUp(self) -> None:
        # `existing` would be the default of a listener on all addresses.
        self.mta = self.enterContext(MemoryMTA(capture=True, listeners=EVERYWHERE))

    def send(self, *recipients: str, sender: str = "ann@sender.example") -> list[str]:
        client = self.mta.connect(source=STRANGER)
        try:
            return client.mail(MAIL, *recipients, sender=sender)
        finally:
            client.say("QUIT")

    def test_mail_of_strangers_for_any_domain_is_in_a_maildir(self) -> None:
        replies = self.send("bob@user.test", "eve@[192.0.2.1]", "you@localhost")
        self.assertTrue(replies[-1].startswith("250 "), replies)
        self.mta.advance(1)
        for recipient in ("bob@user.test", "eve@[192.0.2.1]", "you@localhost"):
            (mail,) = self.mta.mail(*recipient.split("@"))
            self.assertIn(b"Good morning!", mail)

    def test_mail_of_the_application_stays_here_too(self) -> None:
        self.mta.submit(MAIL, sender="me@localhost", recipients=["bob@elsewhere.example"])
        self.mta.advance(1)
        self.assertEqual(len(self.mta.mail("bob", "elsewhere.example")), 1)

    def test_nothing_waits_for_another_host(self) -> None:
        self.send("bob@user.test", sender="ann@elsewhere.example")
        self.mta.advance(6 * 86400)
        self.assertEqual(self.mta.status().queue["messages"], 0)

    def test_recipients_can_ask_for_failures(self) -> None:
        for tag, reply in (("550", "550 5.1.1"), ("data-451", "451 4.0.0")):
            replies = self.send(f"bob+{tag}@user.test")
            self.assertEqual(replies[-1], f"{reply} as the recipient asks")
        self.mta.advance(1)
        self.assertEqual(self.mta.mail("bob", "user.test"), [])


class WithoutCapture(SynchronousTestCase):
    def test_recipients_cannot_ask_for_failures(self) -> None:
        mta = self.enterContext(MemoryMTA())
        self.assertTrue(mta.submit_by_smtp(MAIL, "bob+550@localhost").startswith("250 "))
