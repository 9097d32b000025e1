"""Mail that is to be delivered by some time (RFC 2852), through whole MTAs."""

from __future__ import annotations

import os
import re
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.testing.memory_mta import MemoryMTA
from twisted_mta.testing.peer import ScriptedPeer, ScriptStep
from twisted_mta.testing.reactor import MemoryReactor

NEXT = "192.0.2.1"
PLAIN = b"Subject: x\r\n\r\nfine\r\n"


class InMemory(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactor()
        self.directory = os.path.abspath(self.mktemp())

    def here(self, **settings: Any) -> MemoryMTA:
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

    def next_hop(
        self, announced: str, *steps: ScriptStep, port: int = 25, hello: str = "EHLO"
    ) -> ScriptedPeer:
        peer = ScriptedPeer(
            [
                ("send", b"220 mx.example\r\n"),
                ("expect", f"{hello} mta.example\r\n".encode()),
                ("send", f"250-mx.example\r\n250 {announced}\r\n".encode()),
                *steps,
                ("expect", b"QUIT\r\n"),
                ("close",),
            ]
        )
        self.reactor.listen(NEXT, port, peer)
        return peer

    def taken(self, mail: str, recipient: str = "bob@next.example") -> tuple[ScriptStep, ...]:
        return (
            ("expect", re.compile(rf"MAIL FROM:<ann@localhost>{mail}\r\n".encode())),
            ("send", b"250 ok\r\n"),
            ("expect", f"RCPT TO:<{recipient}>\r\n".encode()),
            ("send", b"250 ok\r\n"),
            ("expect", b"DATA\r\n"),
            ("send", b"354 go\r\n"),
            ("content",),
            ("send", b"250 ok\r\n"),
        )

    def left(self, peer: ScriptedPeer) -> int:
        found = re.search(rb" BY=(-?\d+);", peer.received)
        assert found is not None
        return int(found[1])

    def assertReturned(self, mta: MemoryMTA, status: str) -> None:
        [notice] = mta.mail("ann")
        self.assertIn(f"Status: {status}\n".encode(), notice)
        self.assertEqual(mta.status().queue["messages"], 0)


class Returned(InMemory):
    """Mode R."""

    def test_mail_with_by_is_delivered_to_a_local_mailbox_in_time(self) -> None:
        mta = self.here()
        self.submit(mta, "60;R", "bob@localhost")
        self.assertEqual(len(mta.mail("bob")), 1)
        self.assertEqual(mta.mail("ann"), [])

    def test_a_next_hop_with_deliverby_gets_the_time_that_is_left(self) -> None:
        mta = self.here()
        self.submit(mta, "3600;RT")
        mta.advance(100)
        peer = self.next_hop("DELIVERBY", *self.taken(r" BY=\d+;RT"))
        mta.advance(300)  # nobody was there, and now somebody is
        self.assertEqual(peer.problems, [])
        self.assertEqual(len(peer.contents), 1)
        self.assertIn(self.left(peer), range(3600 - 401, 3600 - 100))

    def test_mail_in_mode_r_is_returned_if_the_next_hop_lacks_deliverby(self) -> None:
        peer = self.next_hop("SIZE")
        mta = self.here()
        self.submit(mta, "3600;R")
        self.assertNotIn(b"MAIL", peer.received)
        self.assertReturned(mta, "5.3.3")

    def test_mail_in_mode_r_is_returned_if_the_next_hop_needs_more_time(self) -> None:
        peer = self.next_hop("DELIVERBY 600")
        mta = self.here()
        self.submit(mta, "599;R")
        self.assertNotIn(b"MAIL", peer.received)
        self.assertReturned(mta, "5.4.7")

    def test_an_lmtp_server_needs_no_deliverby(self) -> None:
        peer = self.next_hop(
            "8BITMIME", *self.taken("", "bob@store.example"), port=24, hello="LHLO"
        )
        mta = self.here()
        self.submit(mta, "600;R", "bob@store.example")
        self.assertEqual(peer.problems, [])
        self.assertEqual(len(peer.contents), 1)

    def test_mail_in_mode_r_is_returned_when_its_time_is_over(self) -> None:
        """And the next hop, which is there again by then, is not asked."""
        mta = self.here()
        self.submit(mta, "600;R")
        mta.advance(590)
        self.assertEqual(mta.mail("ann"), [])
        peer = self.next_hop("DELIVERBY")
        mta.advance(3600)
        self.assertNotIn(b"MAIL", peer.received)
        self.assertReturned(mta, "5.4.7")

    def test_mail_in_mode_r_is_returned_in_time_after_a_restart(self) -> None:
        mta = self.here()
        self.submit(mta, "7200;R")
        mta.stop()
        self.reactor.advance(7300)
        peer = self.next_hop("DELIVERBY")
        mta = self.here()
        mta.advance(60)
        self.assertNotIn(b"MAIL", peer.received)
        self.assertReturned(mta, "5.4.7")

    def test_mail_in_mode_r_is_returned_in_time_from_a_long_queue(self) -> None:
        mta = self.here()
        for _ in range(60):
            mta.submit(PLAIN, "bob@next.example", sender="eve@localhost")
        self.submit(mta, "1800;R")
        mta.advance(2 * 3600)
        [notice] = mta.mail("ann")
        self.assertIn(b"Status: 5.4.7\n", notice)
        self.assertEqual(mta.mail("eve"), [])
        self.assertEqual(mta.status().queue["messages"], 60)


class Notified(InMemory):
    """Mode N."""

    def test_a_next_hop_with_deliverby_gets_the_time_that_is_left_or_has_passed(self) -> None:
        mta = self.here()
        self.submit(mta, "60;N")
        peer = self.next_hop("DELIVERBY", *self.taken(r" BY=-\d+;N"))
        mta.advance(400)
        self.assertEqual(peer.problems, [])
        self.assertEqual(len(peer.contents), 1)
        self.assertIn(self.left(peer), range(60 - 401, 0))

    def test_mail_in_mode_n_gets_one_delay_notice_and_is_tried_on(self) -> None:
        """Whether or not the operator has notices of delay sent; and it is tried on."""
        mta = self.here()
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
        peer = self.next_hop("8BITMIME", *self.taken(""))
        self.submit(self.here(), "60;N")
        self.assertEqual(peer.problems, [])
        self.assertEqual(len(peer.contents), 1)
