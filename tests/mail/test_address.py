"""Paths and mailboxes: one parser, one canonical form."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.mail.address import (
    AddressError,
    Mailbox,
    address_literal,
    domain_name,
    folded,
    literal_address,
    path,
    u_labels,
)


class Paths(SynchronousTestCase):
    def one(self, text: str) -> Mailbox | None:
        mailbox, end = path(text)
        self.assertEqual(end, len(text))
        return mailbox

    def test_a_path_keeps_the_case_of_the_local_part_and_lowers_the_domain(self) -> None:
        self.assertEqual(
            self.one("<Bob.B+x@Mail.EXAMPLE.net>"), Mailbox("Bob.B+x", "mail.example.net")
        )

    def test_the_null_path_is_none(self) -> None:
        self.assertIsNone(self.one("<>"))

    def test_postmaster_in_any_case_needs_no_domain(self) -> None:
        self.assertEqual(self.one("<POSTmaster>"), Mailbox("postmaster", ""))

    def test_source_routes_are_dropped(self) -> None:
        for route in ("@a.example:", "@a.example,@b.example:", "@[192.0.2.1],@[IPv6:::1]:"):
            self.assertEqual(self.one(f"<{route}u@c.example>"), Mailbox("u", "c.example"))

    def test_quotes_that_are_not_needed_are_dropped(self) -> None:
        for spelling in ('"user.name"', '"user\\.name"', '"\\u\\s\\e\\r.name"'):
            self.assertEqual(self.one(f"<{spelling}@x.example>"), Mailbox("user.name", "x.example"))

    def test_quotes_that_are_needed_are_written_again(self) -> None:
        for spelling, local_part in (
            ('"a@b"', "a@b"),
            ('"a b"', "a b"),
            ('""', ""),
            ('"a\\"b\\\\c"', 'a"b\\c'),
            ('"a..b"', "a..b"),
            ('"<x>"', "<x>"),
        ):
            mailbox = self.one(f"<{spelling}@x.example>")
            self.assertEqual(mailbox, Mailbox(local_part, "x.example"))
            self.assertEqual(str(mailbox), f"{spelling}@x.example")

    def test_dots_at_an_end_and_in_a_row_are_kept_and_written_as_they_came(self) -> None:
        for local_part in ("a..b", "a.", ".a", "..", "a...", "a..b.c"):
            plain, quoted = (
                self.one(f"<{local_part}@x.example>"),
                self.one(f'<"{local_part}"@x.example>'),
            )
            assert plain is not None
            self.assertEqual(plain, Mailbox(local_part, "x.example"))
            self.assertEqual((plain, hash(plain)), (quoted, hash(quoted)))
            self.assertEqual(str(plain), f"{local_part}@x.example")
            self.assertEqual(str(quoted), f'"{local_part}"@x.example')
            self.assertEqual(str(Mailbox.parse(str(quoted))), str(quoted))

    def test_a_quoted_bracket_does_not_end_a_path(self) -> None:
        text = 'TO:<"a>b"@x.example> SIZE=1'
        self.assertEqual(path(text, 3), (Mailbox("a>b", "x.example"), 20))

    def test_a_malformed_path_is_an_address_error(self) -> None:
        for text in (
            "",
            "<",
            "< >",
            "user@x.example",
            "<user>",
            "<user@>",
            "<@x.example>",
            "<user@@x.example>",
            "<a@b@x.example>",
            "<@x.example:a@b@y.example>",
            '<"user@x.example>',
            '<us"e"r@x.example>',
            "<us er@x.example>",
            "<us(c)er@x.example>",
            "<us\\er@x.example>",
            "<us<er@x.example>",
            "<user@x..example>",
            "<user@.example>",
            "<user@x.example..>",
            "<user@-x.example>",
            "<user@x-.example>",
            "<user@x example>",
            "<user@x\x00y.example>",
            "<user\x7f@x.example>",
            "<user@" + "a" * 64 + ".example>",
            "<user@" + ".".join(["a" * 60] * 5) + ">",
            "<user@[192.0.2.1]",
            "<user@[192.0.2.256]>",
            "<user@[192.0.2.01]>",
            "<user@[0x7f.1]>",
            "<user@[2001:db8::1]>",
            "<user@[IPv6:192.0.2.1]>",
            "<user@[IPv6:fe80::1%eth0]>",
            "<user@[tag:content]>",
            "<user@[]>",
            "<user@[192.0.2.1].example>",
            '<"postmaster">',
            "<@x.example:postmaster>",
        ):
            error = self.assertRaises(AddressError, path, text)
            self.assertTrue(str(error).isascii())


class Domains(SynchronousTestCase):
    def test_every_spelling_has_one_canonical_form(self) -> None:
        for text, canonical in (
            ("Example.NET", "example.net"),
            ("example.net.", "example.net"),
            ("BÜCHER.example", "xn--bcher-kva.example"),
            ("bu\u0308cher.example", "xn--bcher-kva.example"),
            ("XN--BCHER-KVA.Example", "xn--bcher-kva.example"),
            ("example\u3002net", "example.net"),
            ("ｅｘａｍｐｌｅ.net", "example.net"),
            ("[192.0.2.1]", "[192.0.2.1]"),
            ("[IPV6:2001:DB8:0:0::1]", "[IPv6:2001:db8::1]"),
            ("[ipv6:::1]", "[IPv6:::1]"),
            ("under_score.example", "under_score.example"),
        ):
            self.assertEqual(domain_name(text), canonical)

    def test_a_domain_has_up_to_253_octets_and_a_label_up_to_63(self) -> None:
        """RFC 1035 §2.3.4."""
        labels = ".".join(["a" * 63] * 3)
        for name in (f"{labels}.{'b' * 61}", f"{labels}.{'b' * 61}.", f"{'a' * 63}.example"):
            self.assertEqual(domain_name(name), name.removesuffix("."))
            self.assertEqual(Mailbox.parse(f"u@{name}").domain, name.removesuffix("."))
        for name in (f"{labels}.{'b' * 62}", f"{'a' * 64}.example", f"\u00fc{'a' * 253}"):
            self.assertRaises(AddressError, domain_name, name)
        # The limit is that of A-labels, which are longer.
        self.assertRaises(AddressError, domain_name, ".".join(["\u00fc" + "a" * 50] * 5))

    def test_a_domain_that_idna_forbids_is_an_address_error(self) -> None:
        for text in (
            "\u2603\ufe0f\u200d.example",
            "a\u0301\u0301\ud7ff.example",
            "\u0378.example",
            "-ü.example",
        ):
            self.assertRaises(AddressError, domain_name, text)

    def test_an_ip_address_becomes_a_literal_and_back(self) -> None:
        self.assertEqual(address_literal("192.0.2.1"), "[192.0.2.1]")
        self.assertEqual(address_literal("fe80::1%eth0"), "[IPv6:fe80::1]")
        self.assertEqual(literal_address("[IPv6:::1]"), "::1")
        self.assertIsNone(literal_address("example.net"))

    @given(st.text(max_size=80))
    def test_anything_is_a_domain_or_an_address_error(self, text: str) -> None:
        try:
            name = domain_name(text)
        except AddressError:
            return
        self.assertEqual(domain_name(name), name)
        self.assertTrue(name.isascii())

    def test_a_labels_become_u_labels_only_if_they_come_back(self) -> None:
        for canonical, shown in (
            ("xn--bcher-kva.example", "bücher.example"),
            ("xn--r8jz45g.xn--zckzah", "例え.テスト"),
            ("mail.xn--bcher-kva.example", "mail.bücher.example"),
            ("example.net", "example.net"),
            ("[192.0.2.1]", "[192.0.2.1]"),
            ("xn--a.example", "xn--a.example"),
            ("xn--strae-oqa.example", "straße.example"),
            ("under_score.xn--bcher-kva.example", "under_score.xn--bcher-kva.example"),
        ):
            self.assertEqual(u_labels(canonical), shown)

    @given(
        st.from_regex(
            r"[a-zäöüßéèñçøåαβγδабвгд中文例え]{1,12}(\.[a-zäöüéñбвг中]{2,6})?", fullmatch=True
        )
    )
    def test_u_labels_become_the_same_a_labels_again(self, text: str) -> None:
        try:
            name = domain_name(text)
        except AddressError:
            return  # scripts of both directions, and what else IDNA forbids
        self.assertEqual(domain_name(u_labels(name)), name)
        self.assertEqual(u_labels(domain_name(u_labels(name))), u_labels(name))


_LOCAL = st.text(
    st.characters(exclude_categories=("Cs", "Cc")),
    max_size=30,
)


class Folding(SynchronousTestCase):
    def test_two_encodings_of_one_character_fold_to_one(self) -> None:
        self.assertEqual(folded("Do\u0308rte"), folded("d\u00f6rte"))

    @given(_LOCAL)
    def test_folding_twice_changes_nothing(self, local_part: str) -> None:
        once = folded(local_part)
        self.assertEqual(folded(once), once)
        self.assertEqual(folded(local_part.upper().lower()), folded(local_part.upper()))

    def test_a_local_part_over_1024_characters_is_not_normalized(self) -> None:
        marks = "a" + "\u0301\u0323" * 400
        self.assertEqual(folded(marks), folded(folded(marks)))
        self.assertNotEqual(folded(marks), marks)
        self.assertEqual(folded("A" + marks * 2), "a" + marks * 2)


class RoundTrip(SynchronousTestCase):
    @given(_LOCAL, st.sampled_from(["x.example", "[192.0.2.1]", "[IPv6:2001:db8::1]"]))
    def test_a_written_mailbox_is_read_back_unchanged(self, local_part: str, domain: str) -> None:
        mailbox = Mailbox(local_part, domain)
        self.assertEqual(Mailbox.parse(str(mailbox)), mailbox)
        self.assertEqual(path(f"<{mailbox}>"), (mailbox, len(str(mailbox)) + 2))

    @given(st.text(max_size=60), st.text(alphabet='"\\@<>:,.[] ab', max_size=40))
    def test_every_mailbox_that_is_read_is_canonical(self, anything: str, tricky: str) -> None:
        for text in (anything, f"<{anything}>", f"<{tricky}>", f"<{tricky}@b.example>"):
            try:
                mailbox, end = path(text)
            except AddressError:
                continue
            self.assertLessEqual(end, len(text))
            if mailbox is not None and mailbox.domain:
                self.assertEqual(Mailbox.parse(str(mailbox)), mailbox)
