"""LMTP as an operator has it: a listener beside the others, for mail to local mailboxes."""

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.config import Listener
from twisted_mta.testing.world import MemoryClient, MemoryMTA

LMTP = ("127.0.0.1", 24)
CONTENT = b"Subject: Hi\r\n\r\nHello\r\n"


class LMTPTestCase(SynchronousTestCase):
    def running(self, **settings: object) -> MemoryMTA:
        listener = Listener(kind="lmtp", endpoint=f"tcp:{LMTP[1]}:interface={LMTP[0]}")
        mta = MemoryMTA(self.mktemp(), **{"listeners": (listener,), **settings})
        mta.start()
        self.addCleanup(mta.stop)
        return mta

    def client(self, mta: MemoryMTA) -> MemoryClient:
        client = mta.connect(LMTP, greet=False)
        client.say("LHLO client.example")
        return client


class IntoTheQueue(LMTPTestCase):
    def test_mail_is_queued_and_every_recipient_is_told(self) -> None:
        mta = self.running()
        answer = self.client(mta).mail(CONTENT, "bob@localhost", "eve@localhost", "bob@localhost")
        self.assertEqual(len(answer), 3)
        self.assertTrue(answer[0].startswith("250 2.0.0 Queued as "), answer)
        self.assertEqual(answer, answer[:1] * 3)
        self.assertEqual(len(mta.mail("bob")), 1)
        self.assertEqual(len(mta.mail("eve")), 1)

    def test_the_trace_field_says_lmtp(self) -> None:
        mta = self.running()
        self.client(mta).mail(CONTENT, "bob@localhost")
        (message,) = mta.mail("bob")
        self.assertIn(b"with LMTP id", message)
        client = self.client(mta)
        client.start_tls()
        client.say("LHLO client.example")
        client.mail(CONTENT, "eve@localhost")
        (message,) = mta.mail("eve")
        self.assertIn(b"with LMTPS id", message)

    def test_nobody_may_relay_not_even_who_may_by_smtp(self) -> None:
        answer = self.client(self.running()).mail(CONTENT, "bob@elsewhere.example")
        self.assertEqual(answer, ["550 5.7.1 Relaying denied"])

    def test_an_alias_of_ours_may_lead_elsewhere(self) -> None:
        aliases = self.mktemp()
        with open(aliases, "w", encoding="ascii") as file:
            file.write("team: bob@elsewhere.example\n")
        mta = self.running(aliases=aliases, routes=(("*", "discard:"),))
        (answer,) = self.client(mta).mail(CONTENT, "team@localhost")
        self.assertTrue(answer.startswith("250 2.0.0 Queued as "), answer)

    def test_a_drain_lets_a_transaction_end_and_tells_everybody(self) -> None:
        mta = self.running()
        client = self.client(mta)
        client.say("MAIL FROM:<>", "RCPT TO:<bob@localhost>", "RCPT TO:<eve@localhost>", "DATA")
        mta.mta.stopService()
        answer = client.send(CONTENT + b".\r\n")
        self.assertEqual([line[:4] for line in answer], ["250 ", "250 ", "421 "])

    def test_silence_ends_with_421(self) -> None:
        mta = self.running()
        client = self.client(mta)
        mta.advance(301)
        self.assertEqual([line[:10] for line in client.heard()], ["421 4.4.2 "])
