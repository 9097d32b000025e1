"""SPF records: which one applies, and what is a mistake in one."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.policy.spf import record as record_module
from twisted_mta.policy.spf.record import MOST_TERMS, Malformed, Mechanism, parse, selected


class Selection(SynchronousTestCase):
    def test_a_record_begins_with_its_version_alone(self) -> None:
        others = (b"v=spf10", b"v=spf1x -all", b"v=spf2.0/pra -all", b" v=spf1 -all", b"\xff", b"")
        self.assertIsNone(selected(others))
        for record in (b"v=spf1", b"v=spf1 -all", b"V=SpF1 -all", b"v=spf1 "):
            self.assertEqual(selected((*others, record)), record)

    def test_several_records_are_a_mistake(self) -> None:
        for second in (b"v=spf1 -all", b"v=spf1 +all"):
            error = self.assertRaises(Malformed, selected, (b"v=spf1 -all", b"x", second))
            self.assertEqual(str(error), "found 2 SPF records, expected one")


class Syntax(SynchronousTestCase):
    def refused(self, *terms: str) -> None:
        for term in terms:
            for record in (f"v=spf1 {term}", f"v=spf1 -all {term}", f"v=spf1 {term} ?all"):
                error = self.assertRaises(Malformed, parse, record.encode("latin-1"))
                self.assertTrue(str(error).isprintable(), term)
                self.assertRegex(str(error), "^found .*, expected ", term)

    def one(self, term: str) -> Mechanism:
        record = parse(f"v=spf1 {term}".encode())
        (mechanism,) = record.mechanisms
        self.assertEqual(mechanism.text, term)
        return mechanism

    def test_terms_are_separated_by_spaces_alone(self) -> None:
        record = parse(b"v=spf1   a  mx   -all  ")
        self.assertEqual([each.kind for each in record.mechanisms], ["a", "mx", "all"])
        self.refused("a\tmx", "a\r", "a\nmx", "a\x00", "a\xa0mx")

    def test_a_record_without_terms_is_one(self) -> None:
        self.assertEqual(parse(b"v=spf1").mechanisms, ())

    def test_names_are_read_in_any_case(self) -> None:
        for term, kind in (
            ("ALL", "all"),
            ("Ip4:192.0.2.1", "ip4"),
            ("iNCLUDE:a.example", "include"),
        ):
            self.assertEqual(self.one(term).kind, kind)

    def test_a_qualifier_is_the_result_of_a_match(self) -> None:
        for qualifier, result in (
            ("", "pass"),
            ("+", "pass"),
            ("-", "fail"),
            ("~", "softfail"),
            ("?", "neutral"),
        ):
            self.assertEqual(self.one(f"{qualifier}all").result, result)
        self.refused("--all", "!all", "- all")

    def test_all_has_no_argument(self) -> None:
        self.refused("all.", "all:a.example", "all/8", "all:")

    def test_networks(self) -> None:
        mechanism = self.one("ip4:192.0.2.0/24")
        self.assertEqual((mechanism.network, mechanism.ipv4_length), (0xC0000200, 24))
        self.assertEqual(self.one("ip4:192.0.2.1").ipv4_length, 32)
        self.assertEqual(self.one("ip4:0.0.0.0/0").ipv4_length, 0)
        mechanism = self.one("ip6:2001:DB8::/32")
        self.assertEqual((mechanism.network, mechanism.ipv6_length), (0x20010DB8 << 96, 32))
        self.assertEqual(self.one("ip6:::192.0.2.1").network, 0xC0000201)
        self.refused(
            *(
                "ip4",
                "ip4:",
                "ip4:192.0.2",
                "ip4:192.0.2.256",
                "ip4:192.0.2.01",
                "ip4:192.0.2.1/33",
            ),
            *(
                "ip4:192.0.2.1/",
                "ip4:192.0.2.1/08",
                "ip4:192.0.2.1//24",
                "ip4:192.0.2.1:25",
                "ip4/8",
            ),
            *(
                "ip4:192.0.2.1/-1",
                "ip4:192.0.2.1/1/2",
                "ip4:2001:db8::1",
                "ip4:a.example",
                "ip4:١.0.0.0".encode().decode("latin-1"),
            ),
            *(
                "ip6",
                "ip6:",
                "ip6:2001:db8:::1",
                "ip6:2001:db8::/129",
                "ip6::2001::db8",
                "ip6:::%eth0",
            ),
            *("ip6:192.0.2.1", "ip6:2001:db8::/032", "ip6:[2001:db8::1]", "ip6:::1//64"),
        )

    def test_prefix_lengths_of_hosts(self) -> None:
        for arguments, target, ipv4, ipv6 in (
            ("", "", 32, 128),
            ("/24", "", 24, 128),
            ("//64", "", 32, 64),
            ("/0//0", "", 0, 0),
            (":b.example", "b.example", 32, 128),
            (":b.example/24", "b.example", 24, 128),
            (":b.example//64", "b.example", 32, 64),
            (":b.example/24//64", "b.example", 24, 64),
            (":c:d/e.example", "c:d/e.example", 32, 128),
            (":c/1.example/32//128", "c/1.example", 32, 128),
            (":%{d}/24", "%{d}", 24, 128),
            (":%{l/}/24", "%{l/}", 24, 128),
        ):
            for kind in ("a", "mx"):
                mechanism = self.one(f"{kind}{arguments}")
                found = (mechanism.target, mechanism.ipv4_length, mechanism.ipv6_length)
                self.assertEqual(found, (target, ipv4, ipv6), arguments)
        self.refused(
            *(
                "a/33",
                "a//129",
                "a/24/64",
                "a/024",
                "a//",
                "a/",
                "a:",
                "a:/24",
                "mx/8//",
                "mx///64",
            ),
            *("a24", "a:b.example/", "a:b.example/24/", "a:b.example/999", "mx:b.example//1000"),
        )

    def test_a_domain_ends_with_a_label_of_letters_or_with_a_macro(self) -> None:
        for target in (
            *(
                "b.example",
                "b.example.",
                "b..example",
                "b.xn--zckzah",
                "b.1a",
                "b.c-1",
                "_spf.b.example",
            ),
            *(
                "%{d}",
                "%{ir}.%{v}._spf.%{d2}",
                "b.%%",
                "%_%-%%",
                "b.%{d}",
                "%{L1r.-+,/_=}",
                "%%a.example",
            ),
        ):
            self.assertEqual(self.one(f"exists:{target}").target, target)
        self.refused(
            *(
                "exists:",
                "exists:example",
                "exists:example.",
                "exists:b.123",
                "exists:b.-c",
                "exists:b.c-",
            ),
            *(
                "exists:192.0.2.1",
                "exists:b.c_d",
                "exists:%{d}c",
                "exists:%%-",
                "exists:%",
                "exists:b.%",
            ),
            *("exists:%{d", "exists:%{}", "exists:%{x}.b.example", "exists:%{d0}", "exists:%{dr2}"),
            *(
                "exists:%{d00r}",
                "exists:%{d*}",
                "exists:%(d).b.example",
                "exists:%a.example",
                "exists:b.c-.",
            ),
            *(
                "exists:b.example..",
                "exists",
                "exists/24",
                "exists:b.example/24",
                "include",
                "include:",
            ),
            *("include:b.example/24", "ptr:", "ptr/0", "ptr:b.example/24"),
        )

    def test_macros_of_explanations_stand_nowhere_else(self) -> None:
        for letter in "crtCRT":
            self.refused(f"exists:%{{{letter}}}.b.example", f"exp=%{{{letter}}}.b.example")

    def test_modifiers_stand_anywhere(self) -> None:
        record = parse(b"v=spf1 exp=why.b.example a REDIRECT=%{d} x-1_y.z=%{c}:/= -all n=")
        self.assertEqual(record.redirect, "%{d}")
        self.assertEqual(record.explanation, "why.b.example")
        self.assertEqual(len(record.mechanisms), 2)
        self.assertEqual(record.terms, 6)

    def test_modifiers_are_checked(self) -> None:
        self.refused(
            *(
                "redirect=",
                "exp=",
                "redirect=-all",
                "exp=-all",
                "redirect:b.example",
                "redirect",
                "exp",
            ),
            *(
                "-redirect=b.example",
                "+x=y",
                "1x=y",
                "=all",
                "x/y=z",
                "x=%",
                "x=%a",
                "x=%{z}",
                "all=%",
            ),
            *("exp=a.example exp=a.example", "redirect=a.example redirect=b.example"),
        )

    def test_an_unknown_mechanism_is_a_mistake(self) -> None:
        self.refused("moo", "ip:192.0.2.1", "ipv4:192.0.2.1", "include.b.example", "-", "a:b@c")

    def test_octets_beyond_ascii_are_a_mistake(self) -> None:
        for record in (b"v=spf1 a:\xef\xbb\xbfb.example", b"v=spf1 x=\x80", b"v=spf1 \x96all"):
            self.assertRaises(Malformed, parse, record)

    def test_a_long_term_is_shown_in_part(self) -> None:
        error = self.assertRaises(Malformed, parse, b"v=spf1 " + b"x" * 60_000)
        self.assertLess(len(str(error)), 200)

    def test_a_record_has_so_many_terms(self) -> None:
        self.assertEqual(parse(b"v=spf1" + b" a" * MOST_TERMS).terms, MOST_TERMS)
        self.assertRaises(Malformed, parse, b"v=spf1" + b" a" * (MOST_TERMS + 1))

    def test_a_long_record_is_read_once_for_all_that_wait_for_it(self) -> None:
        good = b"v=spf1" + b" ip4:192.0.2.1" * 900 + b" -all"
        known, bad = parse(good), good + b" moo"
        first = self.assertRaises(Malformed, parse, bad)
        self.patch(record_module, "_parse", None)
        self.assertIs(parse(good), known)
        self.assertEqual(str(self.assertRaises(Malformed, parse, bad)), str(first))
