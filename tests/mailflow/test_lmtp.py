"""LMTP listeners of whole MTAs: into the queue, and directly into Maildirs."""

import errno

from tests.tidy import TidyTestCase
from twisted_mta.config import Listener
from twisted_mta.queue.operator.suspended import SuspendedDestination
from twisted_mta.testing.client import MemoryClient
from twisted_mta.testing.memory_mta import MemoryMTA

LMTP = ("127.0.0.1", 24)
CONTENT = b"Subject: Hi\r\n\r\nHello\r\n"


class LMTPTestCase(TidyTestCase):
    def running(self, **settings: object) -> MemoryMTA:
        listener = Listener(kind="lmtp", endpoint=f"tcp:{LMTP[1]}:interface={LMTP[0]}")
        return self.enterContext(MemoryMTA(**{"listeners": (listener,), **settings}))

    def client(self, mta: MemoryMTA) -> MemoryClient:
        client = mta.connect(LMTP, greet=False)
        client.say("LHLO client.example")
        return client


class IntoTheQueue(LMTPTestCase):
    def test_mail_is_queued_and_every_recipient_gets_a_reply(self) -> None:
        mta = self.running()
        answer = self.client(mta).mail(CONTENT, "bob@localhost", "eve@localhost", "bob@localhost")
        self.assertEqual(len(answer), 3)
        self.assertTrue(answer[0].startswith("250 2.0.0 Queued as "), answer)
        self.assertEqual(answer, answer[:1] * 3)
        self.assertEqual(len(mta.mail("bob")), 1)
        self.assertEqual(len(mta.mail("eve")), 1)

    def test_the_received_field_names_lmtp_or_lmtps(self) -> None:
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

    def test_lmtp_never_relays(self) -> None:
        answer = self.client(self.running()).mail(CONTENT, "bob@elsewhere.example")
        self.assertEqual(answer, ["550 5.7.1 Relaying denied"])

    def test_lmtp_takes_a_local_alias_that_leads_elsewhere(self) -> None:
        aliases = self.mktemp()
        with open(aliases, "w", encoding="ascii") as file:
            file.write("team: bob@elsewhere.example\n")
        mta = self.running(aliases=aliases, routes=(("*", "discard:"),))
        (answer,) = self.client(mta).mail(CONTENT, "team@localhost")
        self.assertTrue(answer.startswith("250 2.0.0 Queued as "), answer)

    def test_a_drain_lets_a_transaction_end_with_a_reply_for_each_recipient(self) -> None:
        mta = self.running()
        client = self.client(mta)
        client.say("MAIL FROM:<>", "RCPT TO:<bob@localhost>", "RCPT TO:<eve@localhost>", "DATA")
        mta.mta.stopService()
        answer = client.send(CONTENT + b".\r\n")
        self.assertEqual([line[:4] for line in answer], ["250 ", "250 ", "421 "])

    def test_an_idle_lmtp_session_ends_with_421(self) -> None:
        mta = self.running()
        client = self.client(mta)
        mta.advance(301)
        self.assertEqual([line[:10] for line in client.heard()], ["421 4.4.2 "])


class StraightToMaildirs(LMTPTestCase):
    """``lmtp_delivery = "direct"``: delivery before the reply, without the queue."""

    def direct(self, **settings: object) -> MemoryMTA:
        listener = Listener(
            kind="lmtp", endpoint=f"tcp:{LMTP[1]}:interface={LMTP[0]}", lmtp_delivery="direct"
        )
        return self.running(listeners=(listener,), **settings)

    def aliases(self, text: str) -> str:
        path = self.mktemp()
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        return path

    def test_direct_mail_is_in_the_maildirs_before_the_reply(self) -> None:
        mta = self.direct()
        answer = self.client(mta).mail(CONTENT, "bob@localhost", "eve@localhost")
        self.assertEqual(answer, ["250 2.0.0 Delivered to the mailbox"] * 2)
        (message,) = mta.mail("bob")
        self.assertIn(b"with LMTP id", message)
        self.assertTrue(message.startswith(b"Return-Path: <ann@sender.example>\n"), message)
        self.assertEqual(len(mta.mail("eve")), 1)
        self.assertEqual(mta.mta.activity.accepted, 1)
        self.assertEqual(mta.mta.activity.delivered, 2)

    def test_a_recipient_named_twice_gets_one_copy_and_two_replies(self) -> None:
        mta = self.direct()
        answer = self.client(mta).mail(CONTENT, "bob@localhost", "Bob@localhost")
        self.assertEqual(answer, ["250 2.0.0 Delivered to the mailbox"] * 2)
        self.assertEqual(len(mta.mail("bob")), 1)

    def test_each_recipient_of_direct_mail_has_its_own_reply(self) -> None:
        mta = self.direct()
        mta.files.make_directories(f"{mta.mta.config.maildir}/localhost")
        mta.files.create(f"{mta.mta.config.maildir}/localhost/eve").close()
        answer = self.client(mta).mail(CONTENT, "bob@localhost", "eve@localhost")
        self.assertEqual([line[:3] for line in answer], ["250", "451"], answer)
        self.assertEqual(len(mta.mail("bob")), 1)

    def test_direct_mail_for_a_suspended_domain_is_queued(self) -> None:
        mta = self.direct()
        suspended = SuspendedDestination("localhost", mta.wall_time())
        runner = mta.mta.agent.shards[0].runner
        runner.take_suspended([suspended])
        (answer,) = self.client(mta).mail(CONTENT, "bob@localhost")
        self.assertIn("Queued as", answer)
        self.assertEqual(mta.mail("bob"), [])
        runner.take_suspended([])
        mta.advance_until(lambda: mta.mail("bob"))

    def test_a_large_direct_message_leaves_no_body_file(self) -> None:
        mta = self.direct()
        content = CONTENT + b"x" * 70 + b"\r\n" * 100_000
        answer = self.client(mta).mail(content, "bob@localhost")
        self.assertEqual(answer, ["250 2.0.0 Delivered to the mailbox"])
        self.assertEqual([path for path in mta.files.tree() if "/body/" in path], [])

    def test_direct_mail_for_an_alias_that_leads_elsewhere_is_queued(self) -> None:
        mta = self.direct(
            aliases=self.aliases("team: bob, eve@elsewhere.example\n"),
            routes=(("*", "smtp://192.0.2.1"),),
        )
        answer = self.client(mta).mail(CONTENT, "ann@localhost", "team@localhost", "bob@localhost")
        self.assertEqual(answer[0], "250 2.0.0 Delivered to the mailbox")
        self.assertTrue(answer[1].startswith("250 2.0.0 Queued as "), answer)
        self.assertEqual(answer[2], answer[1])
        self.assertEqual((len(mta.mail("ann")), len(mta.mail("bob"))), (1, 1))

    def test_direct_mail_for_an_alias_of_one_mailbox_is_delivered_at_once(self) -> None:
        mta = self.direct(aliases=self.aliases("team: bob\n"))
        answer = self.client(mta).mail(CONTENT, "team@localhost")
        self.assertEqual(answer, ["250 2.0.0 Delivered to the mailbox"])
        self.assertIn(b"X-Original-To: team@localhost", mta.mail("bob")[0])

    def test_a_power_cut_at_any_moment_loses_no_accepted_mail(self) -> None:
        unanswered = 0
        for operations in range(1, 40):
            mta = self.direct()
            client = self.client(mta)
            mta.files.cut_power_in(operations)
            answer = client.mail(CONTENT, "bob@localhost", "eve@localhost")
            mta.files.crash()
            unanswered += not answer
            for name, line in zip(("bob", "eve"), answer, strict=False):
                self.assertEqual((line[:3], len(mta.mail(name))), ("250", 1), answer)
            if len(answer) == 2:
                break
        self.assertEqual(len(answer), 2)
        self.assertGreater(unanswered, 1)

    def test_a_full_disk_defers_each_recipient_by_itself(self) -> None:
        mta = self.direct()
        mta.files.fail_next("write", OSError(errno.ENOSPC, "full"), after=1)
        answer = self.client(mta).mail(CONTENT, "bob@localhost", "eve@localhost")
        self.assertEqual([line[:9] for line in answer], ["250 2.0.0", "452 4.3.1"])
        self.assertEqual((len(mta.mail("bob")), len(mta.mail("eve"))), (1, 0))

    def test_a_queued_recipient_is_deferred_if_the_commit_fails(self) -> None:
        mta = self.direct(aliases=self.aliases("team: bob, eve\n"))
        for shard in mta.mta.agent.shards:
            shard.commit.stop()
        answer = self.client(mta).mail(CONTENT, "ann@localhost", "team@localhost")
        self.assertEqual([line[:3] for line in answer], ["250", "451"], answer)
        self.assertEqual((len(mta.mail("ann")), len(mta.mail("bob"))), (1, 0))

    def test_a_recipient_with_notify_success_is_queued_for_its_notice(self) -> None:
        mta = self.direct()
        client = self.client(mta)
        client.say("MAIL FROM:<ann@localhost>")
        client.say("RCPT TO:<bob@localhost> NOTIFY=SUCCESS")
        client.say("RCPT TO:<eve@localhost> NOTIFY=FAILURE,DELAY")
        client.say("DATA")
        answer = client.send(CONTENT + b".\r\n")
        self.assertTrue(answer[0].startswith("250 2.0.0 Queued as "), answer)
        self.assertEqual(answer[1], "250 2.0.0 Delivered to the mailbox")
        self.assertEqual((len(mta.mail("bob")), len(mta.mail("eve"))), (1, 1))
        (notice,) = mta.mail("ann")
        self.assertIn(b"Action: delivered", notice)

    def test_a_route_beats_direct_delivery(self) -> None:
        mta = self.direct(routes=(("localhost", "discard:"),))
        answer = self.client(mta).mail(CONTENT, "bob@localhost")
        self.assertTrue(answer[0].startswith("250 2.0.0 Queued as "), answer)
        self.assertEqual(mta.mail("bob"), [])
