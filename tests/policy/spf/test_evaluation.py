"""SPF checks: every mechanism and modifier, and the examples of the standard."""

from __future__ import annotations

from .zones import SPFTestCase

# RFC 7208, appendix A
EXAMPLE = """
example.com         MX   10 mail-a.example.com
example.com         MX   20 mail-b.example.com
example.com         A    192.0.2.10
example.com         A    192.0.2.11
amy.example.com     A    192.0.2.65
bob.example.com     A    192.0.2.66
mail-a.example.com  A    192.0.2.129
mail-b.example.com  A    192.0.2.130
example.org         MX   10 mail-c.example.org
mail-c.example.org  A    192.0.2.140
192.0.2.10          PTR  example.com
192.0.2.11          PTR  example.com
192.0.2.65          PTR  amy.example.com
192.0.2.66          PTR  bob.example.com
192.0.2.129         PTR  mail-a.example.com
192.0.2.130         PTR  mail-b.example.com
192.0.2.140         PTR  mail-c.example.org
10.0.0.4            PTR  bob.example.com
"""

HOSTS = (
    *("192.0.2.10", "192.0.2.11", "192.0.2.65", "192.0.2.66", "192.0.2.128", "192.0.2.129"),
    *("192.0.2.130", "192.0.2.131", "192.0.2.140", "192.0.2.143", "192.0.2.200", "10.0.0.4"),
)


class Examples(SPFTestCase):
    """RFC 7208, appendix A."""

    records = EXAMPLE

    def assertPass(self, record: str, *hosts: str) -> None:
        """Check that a record of example.com passes exactly these of `HOSTS`."""
        self.publish("example.com", record)
        passing = [host for host in HOSTS if self.check(host, "ann@example.com").result == "pass"]
        self.assertEqual(passing, list(hosts), record)

    def test_simple_records(self) -> None:
        self.assertPass("v=spf1 +all", *HOSTS)
        self.assertPass("v=spf1 a -all", "192.0.2.10", "192.0.2.11")
        self.assertPass("v=spf1 a:example.org -all")
        self.assertPass("v=spf1 mx -all", "192.0.2.129", "192.0.2.130")
        self.assertPass("v=spf1 mx:example.org -all", "192.0.2.140")
        self.assertPass(
            "v=spf1 mx mx:example.org -all", "192.0.2.129", "192.0.2.130", "192.0.2.140"
        )
        self.assertPass(
            "v=spf1 mx/30 mx:example.org/30 -all",
            *("192.0.2.128", "192.0.2.129", "192.0.2.130", "192.0.2.131"),
            *("192.0.2.140", "192.0.2.143"),
        )
        self.assertPass(
            "v=spf1 ptr -all",
            *("192.0.2.10", "192.0.2.11", "192.0.2.65", "192.0.2.66", "192.0.2.129", "192.0.2.130"),
        )
        self.assertPass(
            "v=spf1 ip4:192.0.2.128/28 -all",
            *("192.0.2.128", "192.0.2.129", "192.0.2.130", "192.0.2.131"),
            *("192.0.2.140", "192.0.2.143"),
        )

    def test_records_of_several_domains(self) -> None:
        self.publish("example.com", "v=spf1 mx -all")
        self.publish("example.net", "v=spf1 a:bob.example.com -all")
        self.publish("example.org", "v=spf1 include:example.com include:example.net -all")
        self.publish("la.example.org", "v=spf1 redirect=example.org")
        for host, result in (
            ("192.0.2.129", "pass"),
            ("192.0.2.66", "pass"),
            ("192.0.2.140", "fail"),
            ("192.0.2.10", "fail"),
        ):
            for domain in ("example.org", "la.example.org"):
                self.assertEqual(self.check(host, f"ann@{domain}").result, result, host)

    def test_senders_in_the_manner_of_a_dnsbl(self) -> None:
        self.publish(
            "example.com",
            "v=spf1 mx include:mobile-users._spf.%{d} include:remote-users._spf.%{d} -all",
        )
        self.publish("mobile-users._spf.example.com", "v=spf1 exists:%{l1r+}.%{d}")
        self.publish("remote-users._spf.example.com", "v=spf1 exists:%{ir}.%{l1r+}.%{d}")
        self.host("mary.mobile-users._spf.example.com", "127.0.0.2")
        self.host("15.15.1.192.joel.remote-users._spf.example.com", "127.0.0.2")
        for host, local_part, result in (
            ("192.168.1.1", "mary", "pass"),
            ("192.168.1.1", "mary+list", "pass"),
            ("192.168.1.1", "joel", "fail"),
            ("192.1.15.15", "joel", "pass"),
            ("192.1.15.15", "fred", "fail"),
            ("192.0.2.129", "fred", "pass"),
        ):
            found = self.check(host, f"{local_part}@example.com")
            self.assertEqual(found.result, result, (host, local_part, found))

    def test_several_requirements_at_once(self) -> None:
        self.publish("example.com", "v=spf1 -include:ip4._spf.%{d} -include:ptr._spf.%{d} +all")
        self.publish("ip4._spf.example.com", "v=spf1 -ip4:192.0.2.0/24 +all")
        self.publish("ptr._spf.example.com", "v=spf1 -ptr:example.com +all")
        for host, result in (
            ("192.0.2.65", "pass"),
            ("192.0.2.140", "fail"),
            ("10.0.0.4", "fail"),
        ):
            self.assertEqual(self.check(host, "ann@example.com").result, result, host)


class RecordLookup(SPFTestCase):
    records = """
text.example.com    TXT  something else
text.example.com    TXT  v=spf10 -all
two.example.com     TXT  v=spf1 -all
two.example.com     TXT  v=spf1 +all
broken.example.com  FAILS TXT
exists.example.com  A    192.0.2.1
"""

    def assertProblem(self, domain: str, result: str, problem: str) -> None:
        found = self.check("192.0.2.1", f"ann@{domain}")
        self.assertEqual((found.result, found.problem), (result, problem))
        self.assertEqual(str(found), f"{result} ({problem})")

    def test_a_domain_without_a_record_has_none(self) -> None:
        self.assertProblem("text.example.com", "none", "text.example.com has no SPF record")
        self.assertProblem("exists.example.com", "none", "exists.example.com has no SPF record")
        self.assertProblem("nowhere.example", "none", "nowhere.example does not exist")

    def test_what_is_not_a_full_domain_name_is_not_looked_up(self) -> None:
        for domain in (
            *("", "localhost", "example.", "a..example", f"{'x' * 64}.example", "192.0.2.1"),
            *("[192.0.2.1]", "[IPv6:2001:db8::1]", f"{'x.' * 127}example"),
        ):
            self.assertEqual(self.check("192.0.2.1", f"ann@{domain}").result, "none", domain)
        self.assertEqual(self.resolver.lookups, [])

    def test_several_records_are_a_permanent_error(self) -> None:
        self.assertProblem(
            "two.example.com", "permerror", "two.example.com: found 2 SPF records, expected one"
        )

    def test_a_mistake_anywhere_is_a_permanent_error(self) -> None:
        self.publish("example.com", "v=spf1 +all ip4:192.0.2")
        self.assertProblem(
            "example.com",
            "permerror",
            "example.com: found ip4:192.0.2, expected an IPv4 address after the :",
        )

    def test_a_failure_of_the_dns_is_a_temporary_error(self) -> None:
        self.assertProblem("broken.example.com", "temperror", "TXT of broken.example.com: SERVFAIL")

    def test_a_record_that_does_not_match_is_neutral(self) -> None:
        self.publish("example.com", "v=spf1 ip4:192.0.2.2")
        found = self.check("192.0.2.1", "ann@example.com")
        self.assertEqual(str(found), "neutral (no mechanism of example.com matches)")

    def test_the_mechanism_that_matches_is_named(self) -> None:
        self.publish("example.com", "v=spf1 ip4:192.0.2.0/24 ~all")
        found = self.check("192.0.2.1", "ann@example.com")
        self.assertEqual(str(found), "pass (ip4:192.0.2.0/24 of example.com)")
        found = self.check("198.51.100.1", "ann@example.com")
        self.assertEqual(str(found), "softfail (~all of example.com)")


class Mechanisms(SPFTestCase):
    records = """
example.com       A    192.0.2.10
example.com       A    2001:db8::10
six.example.com   A    2001:db8::11
four.example.com  A    192.0.2.11
mx.example.com    MX   10 four.example.com
mx.example.com    MX   5 six.example.com
nullmx.example.com MX  0 .
badmx.example.com MX   10 broken.example.com
lastmx.example.com MX  20 broken.example.com
lastmx.example.com MX  10 four.example.com
broken.example.com FAILS A
broken.example.com FAILS AAAA
broken.example.com FAILS MX
broken.example.com FAILS TXT
"""

    def assertWords(self, record: str, **words: str) -> None:
        hosts = {"four": "192.0.2.11", "six": "2001:db8::11", "mapped": "::ffff:192.0.2.11"}
        for name, word in words.items():
            self.assertEqual(self.word(record, hosts[name]), word, (record, name))

    def test_networks_match_their_own_family(self) -> None:
        self.assertWords("v=spf1 ip4:192.0.2.0/28 -all", four="pass", six="fail", mapped="pass")
        self.assertWords("v=spf1 ip6:2001:db8::/124 -all", four="fail", six="fail")
        self.assertWords("v=spf1 ip6:2001:db8::/123 -all", six="pass", mapped="fail")
        self.assertWords("v=spf1 ip4:0.0.0.0/0 -all", four="pass", six="fail", mapped="pass")
        self.assertWords("v=spf1 ip6:::/0 -all", four="fail", six="pass", mapped="fail")
        self.assertWords("v=spf1 ip6:::ffff:192.0.2.11 ?all", four="neutral", mapped="neutral")

    def test_addresses_of_a_host(self) -> None:
        self.assertWords("v=spf1 a -all", four="fail", six="fail")
        self.assertWords("v=spf1 a/31 -all", four="pass", six="fail", mapped="pass")
        self.assertWords("v=spf1 a//127 -all", four="fail", six="pass")
        self.assertWords("v=spf1 a:four.%{d} -all", four="pass", six="fail")
        self.assertWords("v=spf1 a:six.example.com/0 a:SIX.EXAMPLE.com. -all", six="pass")
        self.assertWords("v=spf1 a:four.example.com//0 -all", four="pass", six="fail")
        self.assertWords("v=spf1 a:nowhere.example/0//0 -all", four="fail", six="fail")

    def test_addresses_of_mail_exchangers(self) -> None:
        self.assertWords("v=spf1 mx:mx.example.com -all", four="pass", six="pass")
        self.assertWords("v=spf1 mx:mx.%{d}/24 ?all", four="pass", six="pass")

    def test_the_address_of_a_domain_does_not_stand_in_for_mail_exchangers(self) -> None:
        self.assertWords("v=spf1 mx:four.example.com mx:nullmx.example.com -all", four="fail")

    def test_mail_exchangers_are_looked_at_by_preference(self) -> None:
        self.assertWords("v=spf1 mx:lastmx.example.com -all", four="pass", six="temperror")
        self.assertWords("v=spf1 mx:badmx.example.com -all", four="temperror")

    def test_existence_is_that_of_an_ipv4_address(self) -> None:
        self.assertWords("v=spf1 exists:four.example.com -all", four="pass", six="pass")
        self.assertWords("v=spf1 exists:six.example.com -all", four="fail", six="fail")

    def test_a_name_that_is_none_matches_nothing(self) -> None:
        for name in ("a..b.example.com", f"{'x' * 64}.example.com", ".example.com"):
            for kind in ("a", "mx", "exists", "ptr"):
                self.assertWords(f"v=spf1 {kind}:{name} -all", four="fail")

    def test_a_failure_of_the_dns_ends_the_check(self) -> None:
        for term in ("a", "mx", "exists", "include"):
            self.assertWords(f"v=spf1 {term}:broken.example.com +all", four="temperror")
        self.assertWords("v=spf1 ip4:192.0.2.11 a:broken.example.com -all", four="pass")

    def test_what_follows_all_is_not_evaluated(self) -> None:
        self.assertWords("v=spf1 ?all a:broken.example.com -all", four="neutral")
        self.assertWords("v=spf1 redirect=broken.example.com ~all", four="softfail")


class Pointers(SPFTestCase):
    records = """
192.0.2.1         PTR  elsewhere.example
192.0.2.1         PTR  liar.example.com
192.0.2.1         PTR  Host.Example.COM
192.0.2.2         PTR  host.notexample.com
192.0.2.3         PTR  broken.example.com
192.0.2.3         PTR  host.example.com
192.0.2.4         FAILS PTR
2001:db8::1       PTR  host.example.com
liar.example.com  A    192.0.2.99
host.example.com  A    192.0.2.1
host.example.com  A    192.0.2.3
host.example.com  A    2001:db8::1
elsewhere.example A    192.0.2.1
host.notexample.com A  192.0.2.2
broken.example.com FAILS A
"""

    def test_a_confirmed_name_in_the_domain_matches(self) -> None:
        for address, word in (
            ("192.0.2.1", "pass"),
            ("2001:db8::1", "pass"),
            ("192.0.2.2", "fail"),
            ("192.0.2.3", "pass"),
            ("192.0.2.4", "fail"),
            ("192.0.2.5", "fail"),
        ):
            self.assertEqual(self.word("v=spf1 ptr -all", address), word, address)
        self.assertEqual(self.word("v=spf1 ptr:host.example.com -all", "192.0.2.1"), "pass")
        self.assertEqual(self.word("v=spf1 ptr:elsewhere.example. -all", "192.0.2.1"), "pass")
        self.assertEqual(self.word("v=spf1 ptr:st.example.com -all", "192.0.2.1"), "fail")

    def test_only_names_in_the_domain_are_looked_up(self) -> None:
        self.word("v=spf1 ptr -all", "192.0.2.1")
        self.assertNotIn(("A", "elsewhere.example"), self.resolver.lookups)

    def explanation(self, address: str, sender: str) -> str:
        _, _, domain = sender.partition("@")
        self.publish(domain, "v=spf1 -all exp=why.example")
        self.publish("why.example", "%{p}")
        return self.check(address, sender).explanation

    def test_the_macro_prefers_the_domain_then_one_below_then_any(self) -> None:
        for address, domain, expected in (
            ("192.0.2.1", "host.example.com", "host.example.com"),
            ("192.0.2.1", "example.com", "host.example.com"),
            ("192.0.2.1", "other.example", "elsewhere.example"),
            ("192.0.2.4", "example.com", "unknown"),
            ("192.0.2.5", "example.com", "unknown"),
        ):
            self.assertEqual(self.explanation(address, f"ann@{domain}"), expected, domain)


class OtherRecords(SPFTestCase):
    records = """
pass.example      TXT  v=spf1 +all
fail.example      TXT  v=spf1 -all exp=why.fail.example
softfail.example  TXT  v=spf1 ~all
neutral.example   TXT  v=spf1 ?all
empty.example     TXT  v=spf1
wrong.example     TXT  v=spf1 moo
broken.example    FAILS TXT
a.example         A    192.0.2.1
why.fail.example  TXT  See %{d}
"""

    def test_an_included_record_matches_if_it_passes(self) -> None:
        for domain, word in (
            ("pass.example", "softfail"),
            ("fail.example", "neutral"),
            ("softfail.example", "neutral"),
            ("neutral.example", "neutral"),
            ("empty.example", "neutral"),
            ("wrong.example", "permerror"),
            ("broken.example", "temperror"),
            ("a.example", "permerror"),
            ("nowhere.example", "permerror"),
            ("%{d1}", "permerror"),
        ):
            self.assertEqual(self.word(f"v=spf1 ~include:{domain} ?all"), word, domain)

    def test_a_redirection_takes_the_result_of_the_other_record(self) -> None:
        for domain, word in (
            ("pass.example", "pass"),
            ("fail.example", "fail"),
            ("softfail.example", "softfail"),
            ("neutral.example", "neutral"),
            ("empty.example", "neutral"),
            ("wrong.example", "permerror"),
            ("broken.example", "temperror"),
            ("a.example", "permerror"),
            ("nowhere.example", "permerror"),
            ("a..example", "permerror"),
        ):
            self.assertEqual(self.word(f"v=spf1 redirect={domain} a:a.example"), word, domain)
            self.assertEqual(
                self.word(f"v=spf1 redirect={domain} a:a.example", "192.0.2.1"), "pass"
            )

    def test_a_problem_names_the_record_that_has_it(self) -> None:
        self.publish("example.com", "v=spf1 include:middle.example -all")
        self.publish("middle.example", "v=spf1 include:nowhere.example")
        found = self.check("192.0.2.10", "ann@example.com")
        self.assertEqual(
            str(found),
            "permerror (middle.example: include:nowhere.example: nowhere.example does not exist)",
        )

    def test_the_domain_of_a_redirection_is_the_one_of_its_macros(self) -> None:
        self.publish("example.com", "v=spf1 redirect=other.example")
        self.publish("other.example", "v=spf1 exists:%{d}.%{o} a -all")
        self.host("other.example.example.com", "127.0.0.2")
        found = self.check("192.0.2.10", "ann@example.com")
        self.assertEqual(str(found), "pass (exists:%{d}.%{o} of other.example)")


class Explanations(SPFTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.publish("example.com", "v=spf1 -all exp=why.%{d}")

    def explained(
        self, *texts: bytes | str, sender: str = "ann@example.com", **options: str
    ) -> str:
        self.publish("why.example.com", *texts)
        found = self.check("192.0.2.10", sender, **options)
        self.assertEqual(found.result, "fail")
        return found.explanation

    def test_macros_are_expanded(self) -> None:
        self.assertEqual(
            self.explained("%{c} (%{h}) is not %{o}; asked %{r} at %{t}, see http://%{d}/?%{S}."),
            "192.0.2.10 (host.example) is not example.com; asked mx.receiver.example at 1790000000,"
            " see http://example.com/?ann%40example.com.",
        )

    def test_what_is_wrong_in_it_leaves_none(self) -> None:
        for texts in (
            (),
            ("one", "two"),
            ("%{x}",),
            ("100%",),
            (b"\xef\xbb\xbfno",),
            ("caf\u00e9",),
            ("line\nline",),
            ("\x1b[1m",),
        ):
            self.assertEqual(self.explained(*texts), "", texts)
        self.resolver.fail("why.example.com")
        self.assertEqual(self.explained("no"), "")

    def test_it_is_printable_and_short_whatever_is_put_into_it(self) -> None:
        found = self.explained("%{l} %{h}", sender="andré@example.com", helo="h\x1b\u202e")
        self.assertEqual(found, r"andr\xe9 h\x1b\u202e")
        found = self.explained("%{s}" * 1000, sender=f"{'é' * 100}@example.com")
        self.assertEqual(len(found), 400)

    def test_only_the_record_that_decides_explains(self) -> None:
        self.publish("why.example.com", "ours")
        self.publish("why.other.example", "theirs")
        self.publish("other.example", "v=spf1 -all exp=why.other.example")
        for record, expected in (
            ("v=spf1 include:other.example -all exp=why.example.com", "ours"),
            ("v=spf1 exp=why.example.com redirect=other.example", "theirs"),
        ):
            self.publish("example.com", record)
            self.assertEqual(self.check("192.0.2.1", "ann@example.com").explanation, expected)
        self.publish("other.example", "v=spf1 -all")
        self.assertEqual(self.check("192.0.2.1", "ann@example.com").explanation, "")

    def test_it_is_looked_up_for_a_fail_alone(self) -> None:
        for record in ("v=spf1 ~all exp=why.%{d}", "v=spf1 +all exp=why.%{d}"):
            self.publish("example.com", record)
            self.publish("why.example.com", "no")
            self.assertEqual(self.check("192.0.2.1", "ann@example.com").explanation, "")
        self.assertNotIn(("TXT", "why.example.com"), self.resolver.lookups)


class Senders(SPFTestCase):
    records = "yes.example.com A 127.0.0.2"

    def test_a_sender_without_a_local_part_is_postmaster(self) -> None:
        self.publish("example.com", "v=spf1 -all exp=why.example.com")
        self.publish("why.example.com", "%{l} %{s}")
        found = self.check("192.0.2.1", "@example.com")
        self.assertEqual(found.explanation, "postmaster postmaster@example.com")

    def test_a_term_with_a_local_part_beyond_ascii_never_matches(self) -> None:
        # RFC 8616 §4
        for record, word in (
            ("v=spf1 exists:%{L}.%{d} -all", "fail"),
            ("v=spf1 exists:%{s1}.%{d} include:%{l}.example -all", "fail"),
            ("v=spf1 redirect=%{l}.example", "neutral"),
            ("v=spf1 exists:yes.%{o} -all", "pass"),
        ):
            self.assertEqual(self.word(record, sender="andré@example.com"), word, record)

    def test_a_greeting_beyond_ascii_matches_nothing(self) -> None:
        self.publish("example.com", "v=spf1 exists:%{h}.example.com -all")
        for helo in ("é", "a\\.b", "", "x" * 300):
            self.assertEqual(self.check("192.0.2.1", "ann@example.com", helo=helo).result, "fail")

    def test_the_zone_of_a_link_local_address_does_not_matter(self) -> None:
        self.assertEqual(self.word("v=spf1 ip6:fe80::1 -all", "fe80::1%eth0"), "pass")
