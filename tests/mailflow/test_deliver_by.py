"""Mail with a delivery deadline (DELIVERBY, RFC 2852) through whole MTAs."""

from __future__ import annotations

import re

from tests.tidy import TidyTestCase
from twisted_mta.testing import FakeHop, MemoryMTA

from .next_hop import NEXT, QUIT, accepting, announcing, listen, mail_commands

PLAIN = b"Subject: x\r\n\r\nfine\r\n"


class DeliverByTestCase(TidyTestCase):
    """An MTA whose next hop is not there until a test calls `next_hop`."""

    def setUp(self) -> None:
        routes = (("next.example", f"smtp://{NEXT}"), ("store.example", f"lmtp://{NEXT}:24"))
        self.mta = self.enterContext(MemoryMTA(routes=routes))

    def next_hop(self, *announced: str) -> FakeHop:
        hop = self.mta.hop(NEXT)
        hop.extensions = list(announced)
        return hop

    def submit(self, by: str, recipient: str = "bob@next.example") -> None:
        client = self.mta.connect()
        self.assertIn(b"DELIVERBY\r\n", client.received)
        for command in (f"MAIL FROM:<ann@localhost> BY={by}", f"RCPT TO:<{recipient}>"):
            self.assertRegex(client.say(command)[0], "^250 ")
        client.say("DATA")
        self.assertRegex(client.send(PLAIN + b".\r\n")[0], "^250 2.0.0 Queued as")
        self.mta.advance(1)

    def assertTaken(self, hop: FakeHop, by: str) -> int:
        """Assert that a hop took one message, with these words; return its time in seconds."""
        self.assertEqual([message.to for message in hop.received], [("bob@next.example",)])
        [command] = mail_commands(hop)
        self.assertRegex(command, rf"^<ann@localhost>{by}$")
        return int((re.findall(r" BY=(-?\d+)", command) or [0])[0])

    def assertReturned(self, status: str) -> None:
        [notice] = self.mta.inbox_of("ann@localhost")
        self.assertIn(f"Status: {status}\n".encode(), notice.raw)
        self.assertEqual(self.mta.status().queue["messages"], 0)


class ModeR(DeliverByTestCase):
    """Mode R: return the message when its time is over."""

    def test_mail_with_by_is_delivered_to_a_local_mailbox_in_time(self) -> None:
        self.submit("60;R", "bob@localhost")
        self.assertEqual([message.to for message in self.mta.inbox], [("bob@localhost",)])

    def test_a_next_hop_with_deliverby_gets_the_time_that_is_left(self) -> None:
        self.submit("3600;RT")
        self.mta.advance(100)
        hop = self.next_hop("DELIVERBY")
        self.mta.advance(300)  # the next hop was down, and is up now
        self.assertIn(self.assertTaken(hop, r" BY=\d+;RT"), range(3600 - 401, 3600 - 100))

    def test_mail_in_mode_r_is_returned_if_the_next_hop_lacks_deliverby(self) -> None:
        hop = self.next_hop("SIZE")
        self.submit("3600;R")
        self.assertEqual((hop.connections, hop.transactions), (1, 0))
        self.assertReturned("5.3.3")

    def test_mail_in_mode_r_is_returned_if_the_next_hop_needs_more_time(self) -> None:
        hop = self.next_hop("DELIVERBY 600")
        self.submit("599;R")
        self.assertEqual((hop.connections, hop.transactions), (1, 0))
        self.assertReturned("5.4.7")

    def test_an_lmtp_server_needs_no_deliverby(self) -> None:
        peer = listen(
            self.mta.reactor,
            *announcing("8BITMIME", hello="LHLO"),
            *accepting("MAIL FROM:<ann@localhost>", "bob@store.example"),
            *QUIT,
            port=24,
        )
        self.submit("600;R", "bob@store.example")
        self.assertEqual(peer.problems, [])
        self.assertEqual(len(peer.contents), 1)

    def test_mail_in_mode_r_is_returned_when_its_time_is_over(self) -> None:
        # The next hop, which is up again by then, gets no transaction.
        self.submit("600;R")
        self.mta.advance(590)
        self.assertEqual(self.mta.inbox, [])
        hop = self.next_hop("DELIVERBY")
        self.mta.advance(hours=1)
        self.assertEqual(hop.transactions, 0)
        self.assertReturned("5.4.7")

    def test_mail_in_mode_r_is_returned_in_time_after_a_restart(self) -> None:
        self.submit("7200;R")
        self.mta.stop()
        self.mta.advance(7300)
        hop = self.next_hop("DELIVERBY")
        self.mta.start()
        self.mta.advance(60)
        self.assertEqual(hop.transactions, 0)
        self.assertReturned("5.4.7")

    def test_mail_in_mode_r_is_returned_in_time_from_a_long_queue(self) -> None:
        for _ in range(60):
            self.mta.submit_by_smtp(PLAIN, "bob@next.example", sender="eve@localhost")
        self.submit("1800;R")
        self.mta.advance(hours=2)
        [notice] = self.mta.inbox
        self.assertEqual(notice.to, ("ann@localhost",))
        self.assertIn(b"Status: 5.4.7\n", notice.raw)
        self.assertEqual(self.mta.status().queue["messages"], 60)


class ModeN(DeliverByTestCase):
    """Mode N: notify the sender when its time is over, and go on."""

    def test_a_next_hop_with_deliverby_gets_the_time_that_is_left_or_has_passed(self) -> None:
        self.submit("60;N")
        hop = self.next_hop("DELIVERBY")
        self.mta.advance(400)
        self.assertIn(self.assertTaken(hop, r" BY=-\d+;N"), range(60 - 401, 0))

    def test_mail_in_mode_n_gets_one_delay_notice_and_is_tried_on(self) -> None:
        self.next_hop("8BITMIME").drop(at="mail")
        self.submit("60;N")
        self.assertEqual(self.mta.inbox, [])
        self.mta.advance(400)
        [notice] = self.mta.inbox_of("ann@localhost")
        self.assertIn(b"Action: delayed\n", notice.raw)
        self.mta.advance(hours=4)
        self.assertEqual(len(self.mta.inbox), 1)
        self.assertEqual(self.mta.status().queue["messages"], 1)

    def test_mail_in_mode_n_goes_to_a_next_hop_without_deliverby(self) -> None:
        hop = self.next_hop("8BITMIME")
        self.submit("60;N")
        self.assertTaken(hop, by="")
