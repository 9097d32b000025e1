"""Domains whose exchangers belong to one provider share its limits and its suspension."""

from __future__ import annotations

from itertools import cycle
from typing import Any

from tests.logs import logged_lines
from tests.tidy import TidyTestCase
from twisted_mta.config import Destination
from twisted_mta.testing.memory_mta import MemoryMTA

MAIL = b"Subject: x\r\n\r\nfine\r\n"
PROVIDER = Destination(exchanger=".provider.test", connections=3)

MX = "192.0.2.10"
OTHER = "192.0.2.20"


def tenants(count: int) -> str:
    """Return a zone in which so many domains have exchangers below one name."""
    lines = [f"{OTHER.replace('.', '-')}.other.test. A {OTHER}"]
    for number in range(count):
        name = f"d{number}.test."
        lines += [
            f"{name} MX 10 d{number}.in.provider.test.",
            f"d{number}.in.provider.test. A {MX}",
        ]
    return "\n".join(lines)


class Groups(TidyTestCase):
    def started(self, zone: str, *destinations: Destination, **settings: Any) -> MemoryMTA:
        return self.enterContext(MemoryMTA(zone=zone, destinations=destinations, **settings))

    def send(self, mta: MemoryMTA, *domains: str) -> None:
        for domain in domains:
            mta.submit(MAIL, sender="ann@localhost", recipients=[f"bob@{domain}"])

    def test_all_domains_of_a_provider_stay_within_its_connections(self) -> None:
        mta = self.started(tenants(60), PROVIDER)
        hop = mta.hop(MX).hang(at="dot")
        self.send(mta, *(f"d{number}.test" for number in range(60)))
        mta.advance(60)
        self.assertEqual(hop.transactions, 3)
        self.assertEqual(hop.connections, 3)

    def test_all_domains_of_a_provider_stay_within_its_rate(self) -> None:
        provider = Destination(exchanger=".provider.test", rate="10/min")
        mta = self.started(tenants(40), provider)
        hop = mta.hop(MX)
        self.send(mta, *(f"d{number}.test" for number in range(40)))
        for minute in range(1, 5):
            mta.advance(55 if minute == 1 else 60)
            self.assertEqual(len(hop.received), 10 * minute)

    def test_without_the_table_each_domain_has_limits_of_its_own(self) -> None:
        mta = self.started(tenants(20))
        hop = mta.hop(MX).hang(at="dot")
        self.send(mta, *(f"d{number}.test" for number in range(20)))
        mta.advance(60)
        self.assertEqual(hop.transactions, 20)

    def test_the_limits_hold_from_the_first_attempt_after_a_restart(self) -> None:
        mta = self.started(tenants(30), PROVIDER)
        hop = mta.hop(MX).defer()
        self.send(mta, *(f"d{number}.test" for number in range(30)))
        mta.restart()
        before = hop.transactions
        hop.hang(at="dot")
        mta.advance_until(lambda: hop.transactions > before)
        mta.advance(minutes=8)  # we wait for ten at the dot
        self.assertEqual(hop.transactions, before + 3)

    def test_a_provider_that_cannot_be_reached_is_suspended_as_one(self) -> None:
        mta = self.started(tenants(30), PROVIDER)
        hop = mta.hop(MX).defer(at="connect", reply="421 4.3.2 Not now")
        warnings = logged_lines(self, "is suspended for")
        self.send(mta, *(f"d{number}.test" for number in range(30)))
        mta.advance(60)
        self.assertLessEqual(hop.connections, 3)  # those that had begun, and not one per domain
        (suspended,) = mta.status().suspended
        self.assertEqual(suspended.next_hop, "smtp:exchanger=.provider.test")
        self.assertEqual(len(warnings), 1)
        self.assertFalse(suspended.routed)
        mta.advance(30)  # counted now and then
        mta.status()
        mta.advance(1)
        self.assertEqual(mta.status().suspended[0].waiting, 30)
        hop.accept()
        mta.advance(hours=2)
        self.assertEqual(len(hop.received), 30)
        self.assertEqual(mta.status().suspended, ())

    def test_a_domain_whose_own_hosts_fail_suspends_no_provider(self) -> None:
        """The owner of a domain names its exchangers, and may name some of the provider."""
        evil = "\n".join(
            f"evil{number}.test. MX 10 gone.provider.test.\n"
            f"evil{number}.test. MX 20 mx.evil{number}.test.\n"
            f"mx.evil{number}.test. A 192.0.2.66"
            for number in range(5)
        )
        mta = self.started(f"{tenants(2)}\n{evil}", PROVIDER)
        hop = mta.hop(MX)
        self.send(mta, *(f"evil{number}.test" for number in range(5)))
        mta.advance(60)
        suspended = {each.next_hop for each in mta.status().suspended}
        self.assertEqual(suspended, {f"smtp:evil{number}.test" for number in range(5)})
        self.send(mta, "d0.test")
        self.assertEqual(len(hop.received), 1)

    def test_a_domain_whose_dns_fails_suspends_no_provider(self) -> None:
        mta = self.started(tenants(3), PROVIDER)
        hop = mta.hop(MX)
        self.send(mta, "d0.test", "d1.test", "d2.test")
        for domain in ("d0.test", "d1.test"):
            mta.resolver.fail(domain)
        mta.advance(minutes=10)  # no connection stays open
        self.send(mta, "d0.test", "d1.test", "d2.test")
        self.assertEqual(mta.status().suspended, ())
        self.assertEqual(len(hop.received), 4)

    def test_a_single_domain_at_a_host_that_is_gone_suspends_no_provider(self) -> None:
        zone = f"{tenants(2)}\nold.test. MX 10 old.provider.test.\nold.provider.test. A 192.0.2.66"
        mta = self.started(zone, PROVIDER)
        hop = mta.hop(MX)
        self.send(mta, "old.test", "old.test", "old.test")
        mta.advance(60)
        self.assertEqual(mta.status().suspended, ())
        self.send(mta, "d0.test")
        self.assertEqual(len(hop.received), 1)

    def test_a_table_with_the_domain_wins(self) -> None:
        mta = self.started(tenants(20), PROVIDER, Destination(domain="d7.test", connections=2))
        hop = mta.hop(MX).hang(at="dot")
        self.send(mta, *(f"d{number}.test" for number in range(20)), *["d7.test"] * 5)
        mta.advance(60)
        self.assertEqual(hop.transactions, 5)

    def test_the_star_does_not_win(self) -> None:
        mta = self.started(tenants(20), PROVIDER, Destination(domain="*", connections=1))
        hop = mta.hop(MX).hang(at="dot")
        self.send(mta, *(f"d{number}.test" for number in range(20)))
        mta.advance(60)
        self.assertEqual(hop.transactions, 3)

    def test_the_longest_suffix_wins(self) -> None:
        wider = Destination(exchanger=".test", connections=1)
        mta = self.started(tenants(20), wider, PROVIDER)
        hop = mta.hop(MX).hang(at="dot")
        self.send(mta, *(f"d{number}.test" for number in range(20)))
        mta.advance(60)
        self.assertEqual(hop.transactions, 3)

    def test_the_most_preferred_exchanger_decides(self) -> None:
        zone = f"""
            in.test. MX 10 mx.provider.test.
            in.test. MX 20 mx.elsewhere.test.
            out.test. MX 20 mx.provider.test.
            out.test. MX 10 mx.elsewhere.test.
            named.test. MX 10 gone.provider.test.
            named.test. MX 20 mx.elsewhere.test.
            mx.provider.test. A {MX}
            mx.elsewhere.test. A {OTHER}
        """
        one = Destination(exchanger=".provider.test", connections=1)
        mta = self.started(zone, one)
        hop, other = mta.hop(MX).hang(at="dot"), mta.hop(OTHER).hang(at="dot")
        self.send(mta, *["in.test"] * 4, *["out.test"] * 4, *["named.test"] * 4)
        mta.advance(60)
        self.assertEqual((hop.transactions, other.transactions), (1, 8))

    def test_a_domain_that_moves_to_another_provider_leaves_the_group(self) -> None:
        zone = f"""
            moving.test. MX 10 mx.provider.test.
            staying.test. MX 10 mx.provider.test.
            mx.provider.test. A {MX}
            mx.elsewhere.test. A {OTHER}
        """
        mta = self.started(zone, Destination(exchanger=".provider.test", connections=1))
        hop, other = mta.hop(MX).defer(at="connect", reply="421 4.3.2 Later"), mta.hop(OTHER)
        self.send(mta, "moving.test", "staying.test")
        mta.advance(10)
        self.assertEqual(len(mta.status().suspended), 1)
        mta.zone("moving.test. MX 10 mx.elsewhere.test.")
        mta.advance(hours=3)
        self.assertEqual((len(hop.received), len(other.received)), (0, 1))

    def test_name_servers_that_disagree_do_not_keep_mail_from_leaving(self) -> None:
        zone = f"""
            torn.test. MX 10 mx.provider.test.
            mx.provider.test. A {MX}
            mx.elsewhere.test. A {OTHER}
        """
        mta = self.started(zone, PROVIDER)
        hop, other = mta.hop(MX), mta.hop(OTHER)
        names = cycle(("mx.provider.test", "mx.elsewhere.test"))
        look_up = mta.resolver.exchangers

        def other_exchangers(domain: str) -> Any:
            mta.zone(f"torn.test. MX 10 {next(names)}.")
            return look_up(domain)

        mta.resolver.exchangers = other_exchangers  # type: ignore[method-assign]
        for _ in range(20):
            self.send(mta, "torn.test")
            mta.advance(7)
        self.assertEqual(len(hop.received) + len(other.received), 20)
