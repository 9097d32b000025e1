"""The targets of a next hop, in the order to try them."""

import random  # noqa: TID251 - seeded, so every run draws the same
from collections.abc import Sequence

from twisted.internet.defer import Deferred

from tests.tidy import TidyTestCase
from twisted_mta.interfaces import NoTarget
from twisted_mta.mail.next_hop import Host, NextHop, Target
from twisted_mta.routing.exchangers import TargetLocator
from twisted_mta.testing.resolver import FakeResolver

ADDRESSES = {
    "mx1.example": ["2001:db8::1", "192.0.2.1"],
    "mx2.example": ["192.0.2.2"],
    "mx3.example": ["192.0.2.3"],
    "our.example": ["192.0.2.9"],
    "empty.example": [],
}


class Located(TidyTestCase):
    def setUp(self) -> None:
        self.resolver = FakeResolver({}, ADDRESSES)
        self.random = random.Random(1)
        self.own: list[tuple[str, int]] = []

    def exchange(self, domain: str, *exchangers: tuple[int, str]) -> None:
        self.resolver = FakeResolver({domain: exchangers}, ADDRESSES)

    def locate(self, next_hop: NextHop) -> Deferred[Sequence[Target]]:
        locator = TargetLocator(
            self.resolver,
            random=self.random,
            port=2525,
            is_local=lambda domain: domain == "our.example",
            is_own_address=lambda address, port: (address, port) in self.own,
        )
        return locator.locate(next_hop)

    def targets(self, next_hop: NextHop) -> list[str]:
        return list(map(str, self.successResultOf(self.locate(next_hop))))

    def of_domain(self, domain: str = "example.net") -> list[str]:
        return self.targets(NextHop("smtp", domain=domain))

    def of_hosts(self, *hosts: Host) -> list[str]:
        return self.targets(NextHop("smtp", hosts=hosts))

    def assertNone(self, reply: str, next_hop: NextHop) -> None:
        found = self.failureResultOf(self.locate(next_hop), NoTarget).value
        self.assertEqual(str(found.reply)[: len(reply)], reply)

    def assertNoneOf(self, reply: str, domain: str = "example.net") -> None:
        self.assertNone(reply, NextHop("smtp", domain=domain))


class OfADomain(Located):
    def test_of_thousands_of_exchangers_the_best_are_considered(self) -> None:
        others = [(2 + number, "no host name") for number in range(4000)]
        self.exchange("example.net", *others, (1, "mx2.example"))
        self.assertEqual(self.of_domain(), ["mx2.example[192.0.2.2]:2525"])
        self.exchange("example.net", *others, (5000, "mx2.example"))
        self.assertNoneOf("550 5.4.4")

    def test_mail_exchangers_are_tried_by_preference_with_all_addresses(self) -> None:
        self.exchange("example.net", (20, "mx2.example"), (5, "mx1.example"), (100, "mx3.example"))
        self.assertEqual(
            self.of_domain(),
            [
                "mx1.example[2001:db8::1]:2525",
                "mx1.example[192.0.2.1]:2525",
                "mx2.example[192.0.2.2]:2525",
                "mx3.example[192.0.2.3]:2525",
            ],
        )

    def test_equal_exchangers_are_tried_in_random_order(self) -> None:
        self.exchange("example.net", (10, "mx2.example"), (10, "mx3.example"), (1, "mx1.example"))
        firsts = [self.of_domain()[2] for _ in range(40)]
        self.assertIn("mx2.example[192.0.2.2]:2525", firsts)
        self.assertIn("mx3.example[192.0.2.3]:2525", firsts)
        for _ in range(10):
            self.assertIn("mx1.example", self.of_domain()[0])

    def test_targets_of_one_preference_are_marked_as_equal(self) -> None:
        self.exchange("example.net", (10, "mx2.example"), (10, "mx3.example"), (1, "mx1.example"))
        targets = self.successResultOf(self.locate(NextHop("smtp", domain="example.net")))
        self.assertEqual(
            {target.name: target.equal for target in targets},
            {"mx1.example": False, "mx2.example": True, "mx3.example": True},
        )

    def test_the_random_order_is_that_of_the_given_generator(self) -> None:
        self.exchange("example.net", *((10, f"mx{number}.example") for number in (1, 2, 3)))
        orders = []
        for _ in range(2):
            self.random = random.Random(7)
            orders.append([self.of_domain() for _ in range(5)])
        self.assertEqual(*orders)

    def test_a_domain_without_mx_records_is_its_own_exchanger(self) -> None:
        self.assertEqual(
            self.of_domain("mx1.example"),
            ["mx1.example[2001:db8::1]:2525", "mx1.example[192.0.2.1]:2525"],
        )
        self.assertNoneOf("550 5.4.4", "empty.example")

    def test_the_address_of_a_domain_with_mx_records_is_not_looked_up(self) -> None:
        self.exchange("mx2.example", (10, "empty.example"))
        self.assertNoneOf("550 5.4.4", "mx2.example")
        self.assertNotIn(("A", "mx2.example"), self.resolver.lookups)

    def test_a_null_mx_fails_at_once(self) -> None:
        # RFC 7505 §3, §4.1
        self.exchange("example.net", (0, ""))
        self.assertNoneOf("556 5.1.10")
        self.exchange("example.net", (0, ""), (10, "mx2.example"))
        self.assertEqual(self.of_domain(), ["mx2.example[192.0.2.2]:2525"])

    def test_a_domain_that_does_not_exist_fails(self) -> None:
        self.assertNoneOf("550 5.1.2 The domain gone.example does not exist", "gone.example")

    def test_a_failing_mx_lookup_defers(self) -> None:
        self.exchange("example.net", (10, "mx1.example"))
        self.resolver.fail("example.net", "timeout\r\n")
        self.assertNoneOf("451 4.4.3")
        self.resolver.mend("example.net")
        self.assertEqual(len(self.of_domain()), 2)

    def test_a_failing_lookup_of_an_implicit_exchanger_defers(self) -> None:
        self.resolver.fail("mx1.example", types=["A"])
        self.assertNoneOf("451 4.4.3", "mx1.example")

    def test_exchangers_without_an_address_are_passed_over(self) -> None:
        self.exchange("example.net", (1, "empty.example"), (2, "gone.example"), (3, "mx2.example"))
        self.assertEqual(self.of_domain(), ["mx2.example[192.0.2.2]:2525"])
        self.exchange("example.net", (1, "empty.example"), (2, "gone.example"))
        self.assertNoneOf("550 5.4.4")

    def test_exchangers_that_cannot_be_looked_up_now_defer(self) -> None:
        self.exchange("example.net", (1, "mx1.example"), (2, "mx2.example"))
        self.resolver.fail("mx1.example")
        self.assertEqual(self.of_domain(), ["mx2.example[192.0.2.2]:2525"])
        self.resolver.fail("mx2.example")
        self.assertNoneOf("451 4.4.4")
        self.exchange("example.net", (1, "gone.example"), (2, "mx2.example"))
        self.resolver.fail("mx2.example")
        self.assertNoneOf("451 4.4.4")

    def test_only_exchangers_better_than_ours_are_tried(self) -> None:
        # RFC 5321 §5.1
        self.exchange(
            "example.net",
            (10, "mx1.example"),
            (20, "mx2.example"),
            (20, "our.example"),
            (30, "mx3.example"),
        )
        self.assertEqual(
            self.of_domain(), ["mx1.example[2001:db8::1]:2525", "mx1.example[192.0.2.1]:2525"]
        )

    def test_a_domain_whose_best_exchanger_is_ours_loops(self) -> None:
        self.exchange("example.net", (10, "our.example"), (10, "mx2.example"), (20, "mx3.example"))
        self.assertNoneOf("554 5.4.6")

    def test_an_exchanger_with_an_address_of_our_listeners_is_ours(self) -> None:
        # RFC 5321 §5.1
        self.exchange("example.net", (1, "mx1.example"), (2, "mx2.example"), (2, "mx3.example"))
        self.own = [("192.0.2.3", 2525)]
        self.assertEqual(
            self.of_domain(), ["mx1.example[2001:db8::1]:2525", "mx1.example[192.0.2.1]:2525"]
        )
        self.own = [("192.0.2.1", 2525)]
        self.assertNoneOf("554 5.4.6")
        # Another port of that address is another server.
        self.own = [("192.0.2.1", 25)]
        self.assertEqual(len(self.of_domain()), 4)

    def test_a_domain_without_mx_records_may_be_ours(self) -> None:
        self.own = [("192.0.2.1", 2525)]
        self.assertNoneOf("554 5.4.6", "mx1.example")
        self.assertNoneOf("554 5.4.6", "[192.0.2.1]")

    def test_better_exchangers_that_cannot_be_looked_up_now_defer(self) -> None:
        self.exchange("example.net", (1, "mx1.example"), (2, "our.example"))
        self.resolver.fail("mx1.example")
        self.assertNoneOf("451 4.4.4")
        # An exchanger with our own preference is not waited for.
        self.exchange("example.net", (1, "mx1.example"), (1, "mx2.example"))
        self.own = [("192.0.2.2", 2525)]
        self.resolver.fail("mx1.example")
        self.assertNoneOf("554 5.4.6")

    def test_better_exchangers_that_do_not_exist_make_a_loop(self) -> None:
        self.exchange("example.net", (1, "gone.example"), (2, "our.example"))
        self.assertNoneOf("554 5.4.6")

    def test_invalid_names_of_exchangers_are_passed_over(self) -> None:
        for bogus in (
            "192.0.2.2",
            "2001:db8::2",
            "[192.0.2.2]",
            "localhost",
            "x.localhost",
            "mx example",
            "mx..example",
            "\\229x.example",
            "x" * 64,
        ):
            self.exchange("example.net", (1, bogus), (2, "mx2.example"))
            self.assertEqual(self.of_domain(), ["mx2.example[192.0.2.2]:2525"], bogus)
            self.exchange("example.net", (1, bogus))
            self.assertNoneOf("550 5.4.4")

    def test_unusable_addresses_are_passed_over(self) -> None:
        unusable = ["0.0.0.0", "::", "224.0.0.1", "ff02::1"]
        self.resolver = FakeResolver({}, {"example.net": [*unusable, "192.0.2.5"]})
        self.assertEqual(self.of_domain(), ["example.net[192.0.2.5]:2525"])
        self.resolver = FakeResolver({}, {"example.net": unusable})
        self.assertNoneOf("550 5.4.4")

    def test_the_two_families_of_a_host_alternate(self) -> None:
        # RFC 8305 §4
        six, four = [f"2001:db8::{n}" for n in range(4)], [f"192.0.2.{n}" for n in range(2)]
        hosts = {"a.example": four + six, "b.example": ["192.0.2.9"]}
        self.resolver = FakeResolver({"example.net": [(1, "a.example"), (2, "b.example")]}, hosts)
        firsts: dict[str, None] = {}
        for _ in range(40):
            *of_a, last = self.successResultOf(self.locate(NextHop("smtp", domain="example.net")))
            self.assertEqual([":" in each.address for each in of_a], [1, 0, 1, 0, 1, 1])
            self.assertEqual(sorted(each.address for each in of_a), sorted(four + six))
            self.assertEqual(last.address, "192.0.2.9")
            firsts[of_a[0].address] = None
        self.assertEqual(sorted(firsts), six)

    def test_one_host_in_two_preferences_is_tried_once(self) -> None:
        self.exchange("example.net", (1, "mx2.example"), (1, "mx2.example"), (2, "mx2.example"))
        self.assertEqual(self.of_domain(), ["mx2.example[192.0.2.2]:2525"])

    def test_an_address_literal_is_its_own_address(self) -> None:
        self.assertEqual(self.of_domain("[192.0.2.7]"), ["192.0.2.7[192.0.2.7]:2525"])
        self.assertEqual(self.of_domain("[IPv6:2001:db8::7]"), ["2001:db8::7[2001:db8::7]:2525"])
        self.assertEqual(self.resolver.lookups, [])

    def test_the_number_of_hosts_is_bounded(self) -> None:
        hosts = {f"h{number}.example": [f"192.0.2.{number}"] * 3 for number in range(200)}
        exchangers = [(number, name) for number, name in enumerate(hosts)]
        self.resolver = FakeResolver({"example.net": exchangers}, hosts)
        self.assertEqual(len(self.of_domain()), 16)
        self.assertEqual(len(self.resolver.lookups), 17)
        many = [f"192.0.2.{number}" for number in range(100)]
        self.resolver = FakeResolver({}, {"example.net": many})
        self.assertEqual(len(self.of_domain()), 32)

    def test_all_exchangers_are_looked_up_at_once(self) -> None:
        self.exchange("example.net", (1, "mx1.example"), (2, "mx2.example"))
        self.resolver.hold("mx1.example")
        found = self.locate(NextHop("smtp", domain="example.net"))
        self.assertNoResult(found)
        self.assertIn(("A", "mx2.example"), self.resolver.lookups)
        self.resolver.release("mx1.example")
        self.assertIn("mx1.example", str(self.successResultOf(found)[0]))


class OfHosts(Located):
    def test_hosts_are_tried_in_the_order_of_the_route_on_their_ports(self) -> None:
        self.assertEqual(
            self.of_hosts(Host("mx2.example", 26), Host("192.0.2.8", 25), Host("::1", 24)),
            ["mx2.example[192.0.2.2]:26", "192.0.2.8[192.0.2.8]:25", "::1[::1]:24"],
        )

    def test_the_mx_records_of_hosts_in_a_route_are_ignored(self) -> None:
        self.exchange("mx2.example", (10, "mx3.example"))
        self.assertEqual(self.of_hosts(Host("mx2.example")), ["mx2.example[192.0.2.2]:25"])
        self.assertNotIn(("MX", "mx2.example"), self.resolver.lookups)

    def test_a_unix_socket_is_its_own_address(self) -> None:
        found = self.locate(NextHop("lmtp", hosts=(Host("/run/a", 0), Host("mx2.example", 24))))
        self.assertEqual(
            self.successResultOf(found),
            [Target("/run/a", "/run/a", 0), Target("mx2.example", "192.0.2.2", 24)],
        )

    def test_a_route_may_name_an_address_of_ours(self) -> None:
        self.own = [("192.0.2.2", 25)]
        self.assertEqual(self.of_hosts(Host("mx2.example")), ["mx2.example[192.0.2.2]:25"])

    def test_a_route_may_name_a_host_of_ours(self) -> None:
        self.assertEqual(self.of_hosts(Host("our.example", 26)), ["our.example[192.0.2.9]:26"])

    def test_localhost_needs_no_dns(self) -> None:
        self.assertEqual(
            self.of_hosts(Host("localhost", 26)), ["localhost[127.0.0.1]:26", "localhost[::1]:26"]
        )
        self.assertEqual(self.of_domain("localhost")[0], "localhost[127.0.0.1]:2525")
        self.assertEqual(self.resolver.lookups, [])

    def test_a_host_that_is_not_found_is_followed_by_the_next(self) -> None:
        self.resolver.fail("mx1.example")
        hosts = Host("gone.example"), Host("mx1.example"), Host("mx2.example")
        self.assertEqual(self.of_hosts(*hosts), ["mx2.example[192.0.2.2]:25"])

    def test_a_route_without_an_existing_host_defers(self) -> None:
        # A mistake in the configuration must not bounce all mail.
        self.assertNone("451 4.3.5", NextHop("smtp", hosts=(Host("gone.example"),)))
        self.assertNone("451 4.3.5", NextHop("smtp", hosts=(Host("empty.example"),)))
        self.resolver.fail("mx1.example")
        hosts = Host("gone.example"), Host("mx1.example")
        self.assertNone("451 4.4.3", NextHop("smtp", hosts=hosts))
