"""The macros of SPF: the examples of the standard, and what becomes of unusual values."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.policy.spf.macros import domain, expanded_name, expanded_text, is_explanation

# RFC 7208 §7.4
VALUES = {
    "s": "strong-bad@email.example.com",
    "l": "strong-bad",
    "o": "email.example.com",
    "d": "email.example.com",
    "i": "192.0.2.3",
    "p": "mx.example.org",
    "v": "in-addr",
    "h": "mx.example.org",
    "c": "192.0.2.3",
    "r": "mx.receiver.example",
    "t": "1790000000",
}
IPV6 = {**VALUES, "i": ".".join("20010db800000000000000000000cb01"), "v": "ip6"}


class MacroTestCase(SynchronousTestCase):
    def assertText(self, text: str, expected: str, **values: str) -> None:
        self.assertTrue(is_explanation(text), text)
        self.assertEqual(expanded_text(text, {**VALUES, **values}, 1000), expected, text)

    def assertName(self, spec: str, expected: str | None, **values: str) -> None:
        self.assertEqual(expanded_name(spec, {**VALUES, **values}), expected, spec)


class Examples(MacroTestCase):
    """RFC 7208 §7.4."""

    def test_single_macros(self) -> None:
        for macro, expected in (
            ("%{s}", "strong-bad@email.example.com"),
            ("%{o}", "email.example.com"),
            ("%{d}", "email.example.com"),
            ("%{d4}", "email.example.com"),
            ("%{d3}", "email.example.com"),
            ("%{d2}", "example.com"),
            ("%{d1}", "com"),
            ("%{dr}", "com.example.email"),
            ("%{d2r}", "example.email"),
            ("%{l}", "strong-bad"),
            ("%{l-}", "strong.bad"),
            ("%{lr}", "strong-bad"),
            ("%{lr-}", "bad.strong"),
            ("%{l1r-}", "strong"),
        ):
            self.assertText(macro, expected)

    def test_names(self) -> None:
        for spec, expected in (
            ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
            ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
            (
                "%{lr-}.lp.%{ir}.%{v}._spf.%{d2}",
                "bad.strong.lp.3.2.0.192.in-addr._spf.example.com",
            ),
            (
                "%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}",
                "3.2.0.192.in-addr.strong.lp._spf.example.com",
            ),
            ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
        ):
            self.assertName(spec, expected)

    def test_a_name_with_an_ipv6_address(self) -> None:
        self.assertEqual(
            expanded_name("%{ir}.%{v}._spf.%{d2}", IPV6),
            "1.0.b.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6._spf.example.com",
        )


class Expansion(MacroTestCase):
    def test_escapes_and_literal_characters(self) -> None:
        self.assertText("100%% of%_it%-all: %{c} {d}", "100% of it%20all: 192.0.2.3 {d}")
        self.assertName("a%%b%_c%-d.example", "a%b c%20d.example")

    def test_a_capital_letter_escapes_the_value_for_a_url(self) -> None:
        self.assertText("%{L}", "a%3D%26%2B%3F%2F%25-._~%C3%A9%20", l="a=&+?/%-._~é ")
        self.assertText("%{l}", "a=&", l="a=&")

    def test_parts_are_split_at_any_of_the_delimiters_and_joined_by_dots(self) -> None:
        for macro, expected in (
            ("%{l+-}", "a.b.c=d"),
            ("%{lr+-=}", "d.c.b.a"),
            ("%{l2r+-}", "b.a"),
            ("%{L2+-}", "b.c%3Dd"),
            ("%{lR=}", "d.a-b+c"),
            ("%{l1,}", "a-b+c=d"),
        ):
            self.assertText(macro, expected, l="a-b+c=d")

    def test_a_dot_splits_nothing_where_other_delimiters_are_given(self) -> None:
        self.assertText("%{lr-}", "c.a.b", l="a.b-c")

    def test_a_number_larger_than_the_parts_takes_them_all(self) -> None:
        for digits in ("127", "128", "0004", "9" * 5000):
            self.assertText(f"%{{d{digits}}}", "email.example.com")
        self.assertText("%{d002}", "example.com")

    def test_a_name_is_in_lower_case_and_without_its_final_dot(self) -> None:
        self.assertName("%{L}.Example.", "a.example", l="A")

    def test_a_name_too_long_loses_labels_on_the_left(self) -> None:
        label = "x" * 49
        long = ".".join([label] * 6)
        self.assertName("%{d}.example", f"{'.'.join([label] * 4)}.example", d=long)
        self.assertName("%{d}.example.", f"{'.'.join([label] * 4)}.example", d=long)
        exact = ".".join(["x" * 63] * 3) + "." + "y" * 61
        self.assertEqual(len(exact), 253)
        self.assertEqual(domain(exact), exact)
        self.assertEqual(domain(f"{exact}."), exact)
        self.assertEqual(domain(f"a.{exact}"), exact)
        self.assertEqual(domain(f"ab{exact}."), exact.partition(".")[2])

    def test_what_is_no_domain_name_is_none(self) -> None:
        for value in ("", ".", "a..b", ".a", "x" * 64, "é", "a\\.b", "a\nb", "a\x00b"):
            self.assertName("%{l}", None, l=value)
            self.assertName("%{l}.example", None, l=value)
        self.assertName("%{l}", None, l="x" * 300)

    def test_a_text_is_cut(self) -> None:
        self.assertEqual(expanded_text("a%{l}b" * 9, {**VALUES, "l": "c" * 100}, 7), "accccccc"[:7])

    def test_what_grows_is_not_built(self) -> None:
        values = {**VALUES, "s": "x" * 1000}
        self.assertEqual(expanded_name("%{s}" * 16_000, values), None)
        long = "example.com." + "email.example.com." * 13 + "example"
        self.assertName("%{d}." * 1_000 + "example", long)
        self.assertName("%{d}." * 13_000 + "example", None)
        self.assertEqual(len(expanded_text("%{s}" * 16_000, values, 400) or ""), 400)

    def test_macros_without_end_that_expand_to_nothing_make_no_name(self) -> None:
        values = {**VALUES, "l": "." * 400}
        spec = "".join(f"%{{l{'0' * (number % 50)}1.}}" for number in range(3000))
        self.assertEqual(expanded_name(f"{spec}a.example", values), None)
        self.assertEqual(expanded_text(spec, values, 400), None)
