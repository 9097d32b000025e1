"""What an SPF check may cost: lookups, void ones, names, time, and the turns of the reactor."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock

from .zones import SPFTestCase


class Terms(SPFTestCase):
    """RFC 7208 §4.6.4: ten terms that need the DNS."""

    records = "\n".join(f"a{number}.example A 192.0.2.{number}" for number in range(1, 21))

    def terms(self, *numbers: int) -> str:
        return " ".join(f"a:a{number}.example" for number in numbers)

    def test_ten_terms_may_need_the_dns_and_the_eleventh_is_an_error(self) -> None:
        ten = self.terms(*range(1, 11))
        self.assertEqual(self.word(f"v=spf1 {ten} -all", "192.0.2.99"), "fail")
        self.assertEqual(
            self.word(f"v=spf1 {ten} {self.terms(11)} -all", "192.0.2.99"), "permerror"
        )
        self.assertEqual(self.word(f"v=spf1 {ten} {self.terms(11)} -all", "192.0.2.10"), "pass")
        self.assertEqual(self.word(f"v=spf1 {ten} redirect=a1.example", "192.0.2.99"), "permerror")

    def test_the_limit_is_named(self) -> None:
        self.publish("example.com", f"v=spf1 {self.terms(*range(1, 12))} -all")
        found = self.check("192.0.2.99", "ann@example.com")
        self.assertEqual(
            str(found), "permerror (example.com: more than 10 terms that need the DNS)"
        )

    def test_terms_of_all_records_count_together(self) -> None:
        self.publish("in.example", f"v=spf1 {self.terms(*range(1, 6))}")
        record = f"v=spf1 include:in.example {self.terms(*range(6, 10))}"
        self.assertEqual(self.word(f"{record} -all", "192.0.2.99"), "fail")
        self.assertEqual(self.word(f"{record} {self.terms(10)} -all", "192.0.2.99"), "permerror")

    def test_other_terms_do_not_count(self) -> None:
        others = "ip4:198.51.100.1 ip6:2001:db8::1 x=y " * 20
        self.assertEqual(self.word(f"v=spf1 {others} exp=a.b.example ~all"), "softfail")

    def test_the_macro_with_the_name_of_the_client_counts_once(self) -> None:
        self.host("unknown.example", "127.0.0.2")
        name = "exists:%{p}.example"
        for record, word in (
            (f"{self.terms(*range(1, 9))} {name}", "pass"),
            (f"{self.terms(*range(1, 10))} {name}", "permerror"),
            (f"{self.terms(*range(1, 8))} a:%{{p}}.example {name}", "pass"),
        ):
            self.assertEqual(self.word(f"v=spf1 {record} -all", "192.0.2.99"), word, record)

    def test_loops_end(self) -> None:
        self.publish("b.example", "v=spf1 include:example.com")
        for record in (
            "v=spf1 include:example.com",
            "v=spf1 redirect=example.com",
            "v=spf1 include:b.example",
            "v=spf1 redirect=b.example",
        ):
            self.resolver.lookups.clear()
            self.assertEqual(self.word(record), "permerror", record)
            self.assertLess(len(self.resolver.lookups), 12)

    def test_records_within_records_are_read_ten_deep(self) -> None:
        names = ["example.com", *(f"r{number}.example" for number in range(1, 12))]
        for name, following in pairwise(names):
            self.publish(name, f"v=spf1 include:{following} -all")
        self.publish("r10.example", "v=spf1 +all")
        self.assertEqual(self.check("192.0.2.1", "ann@example.com").result, "pass")
        self.publish("r10.example", "v=spf1 include:r11.example")
        self.publish("r11.example", "v=spf1 +all")
        self.assertEqual(self.check("192.0.2.1", "ann@example.com").result, "permerror")


class Voids(SPFTestCase):
    """RFC 7208 §4.6.4: two terms that find nothing."""

    records = """
there.example  A    192.0.2.1
there.example  MX   10 nohost1.example
there.example  MX   10 nohost2.example
there.example  MX   10 nohost3.example
four1.example  A    192.0.2.1
four2.example  A    192.0.2.1
four3.example  A    192.0.2.1
192.0.2.9      PTR  nohost1.example.com
192.0.2.9      PTR  nohost2.example.com
192.0.2.9      PTR  nohost3.example.com
"""

    def test_two_terms_may_find_nothing_and_the_third_is_an_error(self) -> None:
        for void in ("a:no.example", "mx:no.example", "exists:no.example", "mx:four1.example"):
            self.assertEqual(self.word(f"v=spf1 {void} {void} -all"), "fail", void)
            self.assertEqual(self.word(f"v=spf1 {void} {void} {void} -all"), "permerror", void)
            self.assertEqual(self.word(f"v=spf1 ptr {void} -all"), "fail", void)
            self.assertEqual(self.word(f"v=spf1 ptr {void} {void} -all"), "permerror", void)

    def test_a_host_without_the_record_is_as_void_as_one_that_does_not_exist(self) -> None:
        self.host("six.example", "2001:db8::1")
        for void in ("a:six.example", "exists:six.example", "mx:six.example"):
            self.assertEqual(self.word(f"v=spf1 {void} {void} -all"), "fail", void)
            self.assertEqual(self.word(f"v=spf1 {void} {void} {void} -all"), "permerror", void)

    def test_hosts_of_one_term_do_not_count_each(self) -> None:
        self.assertEqual(self.word("v=spf1 mx:there.example -all"), "fail")
        self.assertEqual(self.word("v=spf1 ptr a:no.example -all", "192.0.2.9"), "fail")

    def test_hosts_without_ipv6_are_not_void(self) -> None:
        record = "v=spf1 a:four1.example a:four2.example a:four3.example ip6:2001:db8::1 -all"
        self.assertEqual(self.word(record, "2001:db8::1"), "pass")
        record = "v=spf1 a:no1.example a:no2.example a:no3.example ip6:2001:db8::1 -all"
        self.assertEqual(self.word(record, "2001:db8::1"), "permerror")

    def test_explanations_do_not_count(self) -> None:
        record = "v=spf1 a:no1.example a:no2.example -all exp=no3.example"
        self.assertEqual(self.word(record), "fail")


class Names(SPFTestCase):
    """RFC 7208 §4.6.4: ten names of an mx, and of the client."""

    records = "\n".join(
        [f"ten.example MX {number} h{number}.hosts.example" for number in range(1, 11)]
        + [f"eleven.example MX {number} h{number}.hosts.example" for number in range(1, 12)]
        + [f"h{number}.hosts.example A 192.0.2.{number}" for number in range(1, 12)]
        + [f"192.0.2.200 PTR h{number}.hosts.example" for number in range(1, 13)]
    )

    def test_ten_mail_exchangers_are_looked_at_and_eleven_are_an_error(self) -> None:
        self.assertEqual(self.word("v=spf1 mx:ten.example -all", "192.0.2.10"), "pass")
        for address in ("192.0.2.1", "192.0.2.11"):
            self.assertEqual(self.word("v=spf1 mx:eleven.example -all", address), "permerror")

    def test_any_number_of_addresses_is_looked_at(self) -> None:
        self.host("many.example", *(f"192.0.2.{number}" for number in range(256)))
        self.assertEqual(self.word("v=spf1 a:many.example -all", "192.0.2.255"), "pass")

    def test_ten_names_of_the_client_are_looked_at_and_others_ignored(self) -> None:
        self.host("h10.hosts.example", "192.0.2.200")
        self.assertEqual(self.word("v=spf1 ptr:h10.hosts.example -all", "192.0.2.200"), "pass")
        self.host("h11.hosts.example", "192.0.2.200")
        self.assertEqual(self.word("v=spf1 ptr:h11.hosts.example -all", "192.0.2.200"), "fail")

    def test_names_of_the_client_are_looked_up_once(self) -> None:
        self.resolver.lookups.clear()
        self.word(
            "v=spf1 ptr:hosts.example ptr:hosts.example exists:%{p}.x.example -all", "192.0.2.200"
        )
        self.assertEqual(self.resolver.lookups.count(("PTR", "192.0.2.200")), 1)
        for number in range(1, 11):
            self.assertEqual(self.resolver.lookups.count(("A", f"h{number}.hosts.example")), 1)


class Time(SPFTestCase):
    records = """
slow.example   A    192.0.2.1
example.com    TXT  v=spf1 a:slow.example -all
why.example    TXT  no
why2.example   TXT  v=spf1 -all exp=why.example
"""

    def test_a_check_ends_after_20_seconds(self) -> None:
        self.resolver.hold("slow.example")
        checking = self.begin("192.0.2.1", "ann@example.com")
        self.clock.advance(19.9)
        self.assertNoResult(checking)
        self.clock.advance(0.2)
        found = self.successResultOf(checking)
        self.assertEqual(str(found), "temperror (no result within 20 s)")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_time_is_that_of_all_queries_together(self) -> None:
        self.resolver.hold("example.com")
        self.resolver.hold("slow.example")
        checking = self.begin("192.0.2.1", "ann@example.com")
        self.clock.advance(15)
        self.resolver.release("example.com")
        self.clock.advance(4.9)
        self.assertNoResult(checking)
        self.clock.advance(0.2)
        self.assertEqual(self.successResultOf(checking).result, "temperror")

    def test_an_explanation_that_does_not_come_leaves_the_result(self) -> None:
        self.resolver.hold("why.example")
        checking = self.begin("192.0.2.1", "ann@why2.example")
        self.clock.advance(20)
        found = self.successResultOf(checking)
        self.assertEqual((found.result, found.explanation), ("fail", ""))

    def test_a_check_that_is_canceled_leaves_no_timer(self) -> None:
        self.resolver.hold("slow.example")
        checking = self.begin("192.0.2.1", "ann@example.com")
        checking.cancel()
        self.failureResultOf(checking, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class TurnsClock(Clock):
    """Counts the turns that are asked for."""

    turns = 0

    def callLater(self, when: float, what: Any, *args: Any, **kwargs: Any) -> Any:
        self.turns += when == 0
        return super().callLater(when, what, *args, **kwargs)


class Turns(SPFTestCase):
    """Answers in the cache come at once: a check gives the reactor back all the same."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = self.counted = TurnsClock()

    def turns(self, sender: str) -> int:
        self.counted.turns = 0
        self.check("192.0.2.200", sender)
        return self.counted.turns

    def test_an_ordinary_check_takes_one_turn(self) -> None:
        self.publish("example.com", "v=spf1 " + "ip4:192.0.2.1 " * 100 + "-all")
        self.assertEqual(self.turns("ann@example.com"), 0)

    def test_large_records_are_read_in_several_turns(self) -> None:
        for number in range(10):
            terms = "ip4:192.0.2.1 " * 900
            self.publish(f"r{number}.example", f"v=spf1 {terms} redirect=r{number + 1}.example")
        self.publish("r10.example", "v=spf1 -all")
        self.assertEqual(self.turns("ann@r0.example"), 10)

    def test_many_addresses_are_looked_at_in_several_turns(self) -> None:
        for number in range(10):
            self.host(f"h{number}.example", *["192.0.2.1"] * 500)
        self.resolver._mail_exchangers["m.example"] = [
            (number, f"h{number}.example") for number in range(10)
        ]
        self.publish("example.com", "v=spf1 mx:m.example mx:m.example -all")
        self.assertGreater(self.turns("ann@example.com"), 15)

    def test_a_check_that_is_canceled_between_turns_leaves_no_timer(self) -> None:
        self.publish("example.com", "v=spf1 " + "ip4:192.0.2.1 " * 900 + "-all")
        checking = self.begin("192.0.2.200", "ann@example.com")
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        checking.cancel()
        self.failureResultOf(checking, CancelledError)
        self.assertEqual(self.clock.getDelayedCalls(), [])
