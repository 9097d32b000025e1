"""Mail leaves from the addresses of a pool, which warm up by a number of messages a day."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any

from tests.logs import logged_lines
from tests.tidy import TidyTestCase
from twisted_mta.config import DeliverySettings, Destination, SourceAddress, SourcePool
from twisted_mta.testing.memory_mta import EPOCH, MemoryMTA

MAIL = b"Subject: x\r\n\r\nfine\r\n"
TODAY = datetime.fromtimestamp(EPOCH, UTC).date()

IPV4, IPV6 = "192.0.2.1", "2001:db8::1"
FIRST, SECOND, THIRD = "198.51.100.11", "198.51.100.12", "198.51.100.13"
ZONE = f"""
    four.test. MX 10 mx4.test.
    six.test. MX 10 mx6.test.
    mx4.test. A {IPV4}
    mx6.test. AAAA {IPV6}
    both.test. MX 10 mx46.test.
    mx46.test. A {IPV4}
    mx46.test. AAAA {IPV6}
"""


def sources(lines: list[str]) -> Counter[str]:
    """Return how many of the lines of the log are about mail that left from each address."""
    left = [each for each in lines if " delivered: " in each]
    return Counter(each.partition(" source=")[2].partition(" ")[0] for each in left)


def pool(*addresses: SourceAddress) -> SourcePool:
    return SourcePool(name="bulk", address=addresses)


def warming(address: str, *messages: int, since: date = TODAY, **more: Any) -> SourceAddress:
    return SourceAddress(address=address, warm_up=messages, warm_up_since=since, **more)


class Pools(TidyTestCase):
    def started(self, *pools: SourcePool, **settings: Any) -> MemoryMTA:
        settings.setdefault("delivery", DeliverySettings(source_pool="bulk"))
        return self.enterContext(MemoryMTA(zone=ZONE, source_pools=pools, **settings))

    def send(self, mta: MemoryMTA, count: int = 1, recipient: str = "bob@four.test") -> None:
        for _ in range(count):
            mta.submit(MAIL, sender="ann@localhost", recipients=[recipient])
        mta.advance(60)

    def used(self, mta: MemoryMTA) -> Counter[str]:
        """Return how many connections came from each address."""
        return Counter(source[0] if source else "any" for source in mta.reactor.sources)

    def test_the_addresses_take_turns(self) -> None:
        addresses = [SourceAddress(address=each) for each in (FIRST, SECOND, THIRD)]
        lines = logged_lines(self, " delivered: ")
        mta = self.started(pool(*addresses))
        hop = mta.hop(IPV4)
        self.send(mta, 30)
        self.assertEqual(len(hop.received), 30)
        self.assertEqual(sources(lines), {FIRST: 10, SECOND: 10, THIRD: 10})
        self.assertEqual(self.used(mta).keys(), {FIRST, SECOND, THIRD})

    def test_each_address_has_its_own_name_in_ehlo(self) -> None:
        first = SourceAddress(address=FIRST, helo="out1.example")
        mta = self.started(pool(first, SourceAddress(address=SECOND)))
        hop = mta.hop(IPV4)
        self.send(mta, 2)
        greeted = {each for each in hop.commands if each.startswith("EHLO")}
        self.assertEqual(greeted, {"EHLO out1.example", "EHLO mta.example"})

    def test_the_address_is_of_the_family_of_the_target(self) -> None:
        mta = self.started(pool(SourceAddress(address=FIRST), SourceAddress(address="2001:db8::9")))
        self.send(mta, recipient="bob@four.test")
        self.send(mta, recipient="bob@six.test")
        self.assertEqual(mta.reactor.sources, [(FIRST, 0), ("2001:db8::9", 0)])

    def test_a_target_of_another_family_is_passed_over(self) -> None:
        mta = self.started(pool(SourceAddress(address=FIRST)))
        four, six = mta.hop(IPV4).defer(2), mta.hop(IPV6)
        self.send(mta, recipient="bob@both.test")
        mta.advance(hours=3)
        self.assertEqual((len(four.received), six.connections), (1, 0))
        self.assertEqual(self.used(mta).keys(), {FIRST})

    def test_without_an_address_of_the_family_mail_waits_and_leaves_from_no_other(self) -> None:
        mta = self.started(pool(SourceAddress(address=FIRST)))
        lines = logged_lines(self, " deferred: ")
        self.send(mta, recipient="bob@six.test")
        self.assertEqual(mta.reactor.sources, [])
        self.assertIn("Source pool bulk has no address left for IPv6", lines[0])
        self.assertEqual(mta.status().suspended, ())

    def test_what_is_used_up_today_waits_for_tomorrow(self) -> None:
        mta = self.started(pool(warming(FIRST, 3, 5)))
        hop = mta.hop(IPV4)
        lines = logged_lines(self, " deferred: ")
        self.send(mta, 10)
        self.assertEqual(len(hop.received), 3)
        tomorrow = TODAY + timedelta(days=1)
        self.assertEqual(len(lines), 7)
        text = f"no address of bulk may send more today; it waits until {tomorrow} 00:00 UTC"
        self.assertIn(text, lines[0])
        mta.advance(self.until_midnight(mta) - 5)
        self.assertEqual(len(hop.received), 3)
        mta.advance(60)
        self.assertEqual(len(hop.received), 8)
        mta.advance(days=1)
        self.assertEqual(len(hop.received), 10)
        self.assertEqual(self.used(mta).keys(), {FIRST})

    def until_midnight(self, mta: MemoryMTA) -> float:
        return 86400 - mta.wall_time() % 86400

    def test_no_message_leaves_before_the_first_day(self) -> None:
        mta = self.started(pool(warming(FIRST, 5, since=TODAY + timedelta(days=2))))
        self.send(mta, 2)
        mta.advance(days=1)
        self.assertEqual(mta.hop(IPV4).connections, 0)
        mta.advance(days=1)
        self.assertEqual(len(mta.hop(IPV4).received), 2)

    def test_the_counts_survive_a_crash(self) -> None:
        mta = self.started(pool(warming(FIRST, 5)))
        hop = mta.hop(IPV4)
        self.send(mta, 3)
        mta.crash()
        mta.start()
        self.send(mta, 10)
        self.assertEqual(len(hop.received), 5)

    def test_an_attempt_without_a_transaction_is_not_counted(self) -> None:
        mta = self.started(pool(warming(FIRST, 2)))
        hop = mta.hop(IPV4).defer(4, reply="421 4.3.2 Not now", at="connect")
        self.send(mta, 2)
        mta.advance(hours=6)
        self.assertEqual(len(hop.received), 2)

    def test_a_destination_has_a_pool_of_its_own(self) -> None:
        other = SourcePool(name="other", address=[SourceAddress(address=SECOND)])
        four = Destination(domain="four.test", source_pool="other")
        mta = self.started(pool(SourceAddress(address=FIRST)), other, destinations=(four,))
        self.send(mta)
        self.assertEqual(self.used(mta).keys(), {SECOND})

    def test_an_address_of_the_destination_takes_the_place_of_the_pool(self) -> None:
        four = Destination(domain="four.test", source_address=THIRD)
        mta = self.started(pool(SourceAddress(address=FIRST)), destinations=(four,))
        self.send(mta)
        self.assertEqual(self.used(mta).keys(), {THIRD})

    def test_a_fortnight_of_warm_up(self) -> None:
        """More mail than may leave; the second address begins three days after the first."""
        first, second = (2, 4, 6, 8, 10, 12, 14, 16, 18, 20), (1, 2, 3, 4, 5, 6, 7)
        mta = self.started(
            pool(
                warming(FIRST, *first),
                warming(SECOND, *second, since=TODAY + timedelta(days=3)),
            )
        )
        hop = mta.hop(IPV4)
        lines = logged_lines(self, " source=")
        sent: list[Counter[str]] = []
        for _ in range(14):
            self.send(mta, 20)
            mta.advance(self.until_midnight(mta) - 1)
            sent.append(sources(lines))
            lines.clear()
            mta.advance(2)
        per_day = [(each[FIRST], each[SECOND]) for each in sent]
        limits = [
            (
                first[day] if day < len(first) else None,
                0 if day < 3 else second[day - 3] if day - 3 < len(second) else None,
            )
            for day in range(14)
        ]
        for day, (left, most) in enumerate(zip(per_day, limits, strict=True)):
            for messages, limit in zip(left, most, strict=True):
                if limit is not None:
                    self.assertEqual(messages, limit, f"day {day + 1}: {per_day}")
        self.assertEqual(sum(map(sum, per_day)), len(hop.received) - sources(lines).total())
        self.assertEqual(min(per_day[-1]), 10, per_day)
        self.assertEqual(self.used(mta).keys(), {FIRST, SECOND})
