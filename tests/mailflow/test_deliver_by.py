"""Mail with a delivery deadline (DELIVERBY, RFC 2852) through whole MTAs."""

from __future__ import annotations

import os
import re
from typing import Any

from tests.tidy import TidyTestCase
from twisted_mta.testing.memory_mta import MemoryMTA
from twisted_mta.testing.peer import ScriptedPeer, ScriptStep
from twisted_mta.testing.reactor import MemoryReactor

from .next_hop import NEXT, QUIT, accepting, announcing, listen

PLAIN = b"Subject: x\r\n\r\nfine\r\n"


class DeliverByTestCase(TidyTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactor()
        self.directory = os.path.abspath(self.mktemp())

    def started(self, **settings: Any) -> MemoryMTA:
        mta = MemoryMTA(
            self.directory,
            reactor=self.reactor,
            routes=(("next.example", f"smtp://{NEXT}"), ("store.example", f"lmtp://{NEXT}:24")),
            **settings,
        )
        mta.start()
        self.addCleanup(lambda: mta.stop() if mta.mta.running else None)
        return mta

    def submit(self, mta: MemoryMTA, by: str, recipient: str = "bob@next.example") -> None:
        client = mta.connect()
        self.assertIn(b"DELIVERBY\r\n", client.received)
        for command in (f"MAIL FROM:<ann@localhost> BY={by}", f"RCPT TO:<{recipient}>"):
            self.assertRegex(client.say(command)[0], "^250 ")
        client.say("DATA")
        self.assertRegex(client.send(PLAIN + b".\r\n")[0], "^250 2.0.0 Queued as")
        mta.advance(1)

    def next_hop(self, announced: str, *steps: ScriptStep) -> ScriptedPeer:
        return listen(self.reactor, *announcing(announced), *steps, *QUIT)

    def accepts(self, by: str) -> tuple[ScriptStep, ...]:
        mail = re.compile(rf"MAIL FROM:<ann@localhost>{by}\r\n".encode())
        return accepting(mail, "bob@next.example")

    def time_left(self, peer: ScriptedPeer) -> int:
        by = re.search(rb" BY=(-?\d+);", peer.received)
        assert by is not None
        return int(by[1])

    def assertReturned(self, mta: MemoryMTA, status: str) -> None:
        [notice] = mta.mail("ann")
        self.assertIn(f"Status: {status}\n".encode(), notice)
        self.assertEqual(mta.status().queue["messages"], 0)


class ModeR(DeliverByTestCase):
    """Mode R: return the message when its time is over."""

    def test_mail_with_by_is_delivered_to_a_local_mailbox_in_time(self) -> None:
        mta = self.started()
        self.submit(mta, "60;R", "bob@localhost")
        self.assertEqual(len(mta.mail("bob")), 1)
        self.assertEqual(mta.mail("ann"), [])

    def test_a_next_hop_with_deliverby_gets_the_time_that_is_left(self) -> None:
        mta = self.started()
        self.submit(mta, "3600;RT")
        mta.advance(100)
        peer = self.next_hop("DELIVERBY", *self.accepts(r" BY=\d+;RT"))
        mta.advance(300)  # the next hop was down, and is up now
        self.assertEqual(peer.problems, [])
        self.assertEqual(len(peer.contents), 1)
        self.assertIn(self.time_left(peer), range(3600 - 401, 3600 - 100))

    def test_mail_in_mode_r_is_returned_if_the_next_hop_lacks_deliverby(self) -> None:
        peer = self.next_hop("SIZE")
        mta = self.started()
        self.submit(mta, "3600;R")
        self.assertNotIn(b"MAIL", peer.received)
        self.assertReturned(mta, "5.3.3")

    def test_mail_in_mode_r_is_returned_if_the_next_hop_needs_more_time(self) -> None:
        peer = self.next_hop("DELIVERBY 600")
        mta = self.started()
        self.submit(mta, "599;R")
        self.assertNotIn(b"MAIL", peer.received)
        self.assertReturned(mta, "5.4.7")

    def test_an_lmtp_server_needs_no_deliverby(self) -> None:
        peer = listen(
            self.reactor,
            *announcing("8BITMIME", hello="LHLO"),
            *accepting("MAIL FROM:<ann@localhost>", "bob@store.example"),
            *QUIT,
            port=24,
        )
        mta = self.started()
        self.submit(mta, "600;R", "bob@store.example")
        self.assertEqual(peer.problems, [])
        self.assertEqual(len(peer.contents), 1)

    def test_mail_in_mode_r_is_returned_when_its_time_is_over(self) -> None:
        # The next hop, which is up again by then, gets no transaction.
        mta = self.started()
        self.submit(mta, "600;R")
        mta.advance(590)
        self.assertEqual(mta.mail("ann"), [])
        peer = self.next_hop("DELIVERBY")
        mta.advance(3600)
        self.assertNotIn(b"MAIL", peer.received)
        self.assertReturned(mta, "5.4.7")

    def test_mail_in_mode_r_is_returned_in_time_after_a_restart(self) -> None:
        mta = self.started()
        self.submit(mta, "7200;R")
        mta.stop()
        self.reactor.advance(7300)
        peer = self.next_hop("DELIVERBY")
        mta = self.started()
        mta.advance(60)
        self.assertNotIn(b"MAIL", peer.received)
        self.assertReturned(mta, "5.4.7")

    def test_mail_in_mode_r_is_returned_in_time_from_a_long_queue(self) -> None:
        mta = self.started()
        for _ in range(60):
            mta.submit_by_smtp(PLAIN, "bob@next.example", sender="eve@localhost")
        self.submit(mta, "1800;R")
        mta.advance(2 * 3600)
        [notice] = mta.mail("ann")
        self.assertIn(b"Status: 5.4.7\n", notice)
        self.assertEqual(mta.mail("eve"), [])
        self.assertEqual(mta.status().queue["messages"], 60)


class ModeN(DeliverByTestCase):
    """Mode N: notify the sender when its time is over, and go on."""

    def test_a_next_hop_with_deliverby_gets_the_time_that_is_left_or_has_passed(self) -> None:
        mta = self.started()
        self.submit(mta, "60;N")
        peer = self.next_hop("DELIVERBY", *self.accepts(r" BY=-\d+;N"))
        mta.advance(400)
        self.assertEqual(peer.problems, [])
        self.assertEqual(len(peer.contents), 1)
        self.assertIn(self.time_left(peer), range(60 - 401, 0))

    def test_mail_in_mode_n_gets_one_delay_notice_and_is_tried_on(self) -> None:
        mta = self.started()
        self.next_hop("8BITMIME", ("expect", b"MAIL FROM:<ann@localhost>"), ("close",))
        self.submit(mta, "60;N")
        self.assertEqual(mta.mail("ann"), [])
        mta.advance(400)
        [notice] = mta.mail("ann")
        self.assertIn(b"Action: delayed\n", notice)
        mta.advance(4 * 3600)
        self.assertEqual(len(mta.mail("ann")), 1)
        self.assertEqual(mta.status().queue["messages"], 1)

    def test_mail_in_mode_n_goes_to_a_next_hop_without_deliverby(self) -> None:
        peer = self.next_hop("8BITMIME", *self.accepts(""))
        self.submit(self.started(), "60;N")
        self.assertEqual(peer.problems, [])
        self.assertEqual(len(peer.contents), 1)
