"""What the operator makes of replies: deferred, suspended, from another address, or failed."""

from __future__ import annotations

from typing import Any

from tests.logs import logged_lines
from tests.tidy import TidyTestCase
from twisted_mta.config import DeliverySettings, Destination, ReplyAction, SourceAddress, SourcePool
from twisted_mta.testing.memory_mta import MemoryMTA

MAIL = b"Subject: x\r\n\r\nfine\r\n"
ONE, OTHER = "192.0.2.1", "192.0.2.2"
FIRST, SECOND = "198.51.100.11", "198.51.100.12"
ZONE = f"""
    one.test. MX 10 mx.one.test.
    other.test. MX 10 mx.other.test.
    tenant.test. MX 10 tenant.one.test.
    mx.one.test. A {ONE}
    tenant.one.test. A {ONE}
    mx.other.test. A {OTHER}
"""
BLOCKED = "550 5.7.1 Blocked, see example.test"


class Actions(TidyTestCase):
    def started(self, *actions: ReplyAction, **settings: Any) -> MemoryMTA:
        return self.enterContext(MemoryMTA(zone=ZONE, reply_actions=actions, **settings))

    def send(self, mta: MemoryMTA, *domains: str) -> None:
        for domain in domains or ("one.test",):
            mta.submit(MAIL, sender="ann@localhost", recipients=[f"bob@{domain}"])
        mta.advance(5)

    def test_a_refusal_is_deferred_for_the_duration(self) -> None:
        mta = self.started(ReplyAction(pattern="blocked", action="defer", duration="20 min"))
        hop = mta.hop(ONE).refuse(1, BLOCKED)
        lines = logged_lines(self, "[[reply_action]]")
        self.send(mta)
        self.assertEqual([each.recipients for each in mta.inbox], [])
        self.assertEqual(len(lines), 1)
        self.assertIn(f"applies: {BLOCKED}", lines[0])
        mta.advance(minutes=19)
        self.assertEqual(hop.transactions, 1)
        mta.advance(minutes=2)
        self.assertEqual(len(hop.received), 1)

    def test_without_an_action_it_fails(self) -> None:
        mta = self.started(ReplyAction(pattern="something else", action="defer"))
        mta.hop(ONE).refuse(1, BLOCKED)
        self.send(mta)
        self.assertEqual(len(mta.inbox_of("ann@localhost")), 1)

    def test_mail_of_a_long_suspension_fails_at_the_end_of_its_lifetime(self) -> None:
        mta = self.started(ReplyAction(code="5", action="suspend", duration="30 d"))
        hop = mta.hop(ONE).refuse(reply=BLOCKED)
        self.send(mta)
        mta.advance(days=2)
        self.send(mta)
        mta.advance(days=3, hours=1)
        failed = [each for each in mta.inbox_of("ann@localhost") if b"Action: failed" in each.raw]
        self.assertEqual(len(failed), 1)
        mta.advance(days=2)
        self.assertEqual((mta.status().queue["messages"], hop.transactions), (0, 1))

    def test_a_deferred_refusal_fails_at_the_end_of_the_lifetime(self) -> None:
        mta = self.started(ReplyAction(code="5", action="defer"))
        hop = mta.hop(ONE).refuse(reply=BLOCKED)
        self.send(mta)
        mta.advance(days=6)
        self.assertGreater(hop.transactions, 50)
        notice = mta.inbox_of("ann@localhost")[-1]
        self.assertIn("said: " + BLOCKED, " ".join(notice.text.split()))

    def test_a_deferral_fails_at_once(self) -> None:
        mta = self.started(ReplyAction(code=452, pattern="over quota", action="fail"))
        hop = mta.hop(ONE).defer(reply="452 4.2.2 Mailbox is OVER quota")
        self.send(mta)
        (notice,) = mta.inbox_of("ann@localhost")
        self.assertIn("said: 452 4.2.2 Mailbox is OVER quota", " ".join(notice.text.split()))
        self.assertIn(b"Status: 5.2.2", notice.raw)
        mta.advance(days=1)
        self.assertEqual(hop.transactions, 1)

    def test_the_first_that_fits_applies(self) -> None:
        mta = self.started(
            ReplyAction(pattern="^550 5.7.1 ", domain="other.test", action="defer"),
            ReplyAction(pattern="^550 5.7.1 ", exchanger=".other.test", action="defer"),
            ReplyAction(pattern="^550 5.7.1 ", domain="one.test", action="defer"),
            ReplyAction(pattern="blocked", action="suspend", duration="1 h"),
        )
        mta.hop(ONE).refuse(reply=BLOCKED)
        lines = logged_lines(self, "[[reply_action]]")
        self.send(mta, "one.test", "tenant.test")
        self.assertIn('domain = "one.test", action = "defer" applies', lines[0])
        self.assertIn('action = "suspend", duration = "1 h" applies', lines[1])

    def test_a_next_hop_is_suspended_for_the_duration(self) -> None:
        rate = ReplyAction(code="421", pattern="rate", action="suspend", duration="45 min")
        mta = self.started(rate)
        hop = mta.hop(ONE).defer(1, "421 4.7.28 Rate limited", at="mail")
        self.send(mta)
        (suspended,) = mta.status().suspended
        self.assertEqual(suspended.next_hop, "smtp:one.test")
        self.assertEqual(round(suspended.seconds / 60), 45)
        self.send(mta, "one.test", "one.test")
        mta.advance(minutes=44)
        self.assertEqual(hop.transactions, 1)
        mta.advance(minutes=30)
        self.assertEqual(len(hop.received), 3)
        self.assertEqual(mta.status().suspended, ())

    def test_a_whole_provider_is_suspended(self) -> None:
        mta = self.started(
            ReplyAction(pattern="blocked", action="suspend", duration="1 h"),
            destinations=(Destination(exchanger=".one.test"),),
        )
        hop, other = mta.hop(ONE).refuse(1, BLOCKED), mta.hop(OTHER)
        self.send(mta)
        self.send(mta, "tenant.test", "other.test")
        (suspended,) = mta.status().suspended
        self.assertEqual(suspended.next_hop, "smtp:exchanger=.one.test")
        self.assertEqual((hop.transactions, len(other.received)), (1, 1))
        mta.advance(hours=3)
        self.assertEqual(len(hop.received), 2)

    def pools(self, *addresses: str) -> dict[str, Any]:
        several = [SourceAddress(address=each) for each in addresses]
        return {
            "source_pools": (SourcePool(name="bulk", address=several),),
            "delivery": DeliverySettings(source_pool="bulk"),
        }

    def test_another_address_of_the_pool_is_tried_at_once(self) -> None:
        mta = self.started(
            ReplyAction(pattern="blocked", action="other_source"), **self.pools(FIRST, SECOND)
        )
        hop = mta.hop(ONE).refuse(1, BLOCKED)
        self.send(mta)
        self.assertEqual(len(hop.received), 1)
        self.assertEqual(mta.reactor.sources, [(FIRST, 0), (SECOND, 0)])

    def test_a_refused_address_is_not_used_there_for_the_duration(self) -> None:
        mta = self.started(
            ReplyAction(pattern="blocked", action="other_source", duration="2 h"),
            **self.pools(FIRST, SECOND),
        )
        hop = mta.hop(ONE).refuse(1, BLOCKED)
        self.send(mta, *["one.test"] * 6)
        self.assertEqual(len(hop.received), 6)
        self.assertEqual(set(mta.reactor.sources[1:]), {(SECOND, 0)})
        self.send(mta, "other.test", "other.test")
        self.assertIn((FIRST, 0), mta.reactor.sources[2:])

    def test_where_all_addresses_are_refused_mail_waits(self) -> None:
        mta = self.started(
            ReplyAction(pattern="blocked", action="other_source"), **self.pools(FIRST, SECOND)
        )
        hop = mta.hop(ONE).refuse(2, BLOCKED)
        self.send(mta)
        self.assertEqual((hop.transactions, len(hop.received)), (2, 0))
        self.assertEqual(mta.inbox_of("ann@localhost"), [])
        mta.advance(hours=1)
        self.assertEqual(len(hop.received), 1)

    def test_a_refused_content_is_tried_from_another_address_for_all_recipients(self) -> None:
        mta = self.started(
            ReplyAction(pattern="blocked", action="other_source"), **self.pools(FIRST, SECOND)
        )
        hop = mta.hop(ONE).refuse(1, BLOCKED, at="dot")
        mta.submit(MAIL, sender="ann@localhost", recipients=["bob@one.test", "eve@one.test"])
        mta.advance(5)
        self.assertEqual(len(hop.received), 1)
        self.assertEqual(sum(each.startswith("RCPT") for each in hop.commands), 4)

    def test_actions_are_counted(self) -> None:
        mta = self.started(ReplyAction(code="5", action="defer"))
        mta.hop(ONE).refuse(3, BLOCKED)
        self.send(mta, *["one.test"] * 3)
        self.assertEqual(mta.mta.agent.traffic.reply_actions, {"defer": 3})
