"""The routing table, and the syntax of a route."""

from tests.tidy import TidyTestCase
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.next_hop import Host, NextHop
from twisted_mta.mail.reply import Reply
from twisted_mta.routing.routes import Routes, Rule, parse_route


def table(urls: dict[str, str], *local_domains: str) -> Routes:
    return Routes([parse_route(pattern, url) for pattern, url in urls.items()], local_domains)


class Order(TidyTestCase):
    def way(self, routes: Routes, domain: str) -> str:
        return str(routes.route(Mailbox("bob", domain)))

    def test_without_rules_a_domain_goes_to_its_mail_exchangers(self) -> None:
        found = table({}).route(Mailbox("bob", "example.net"))
        self.assertEqual(found, NextHop("smtp", domain="example.net"))
        self.assertEqual(found.rule, "mail exchangers of example.net")

    def test_local_domains_go_into_maildirs(self) -> None:
        found = table({}, "localhost", "example.net").route(Mailbox("bob", "example.net"))
        self.assertEqual(found, NextHop("maildir"))
        self.assertEqual(found.rule, "local domain example.net")

    def test_an_exact_route_precedes_local_domains(self) -> None:
        routes = table({"example.net": "smtp://inside"}, "example.net")
        self.assertEqual(self.way(routes, "example.net"), "smtp:inside:25")

    def test_a_route_for_subdomains_does_not_match_the_domain(self) -> None:
        routes = table({".example.net": "smtp://a"})
        self.assertEqual(self.way(routes, "example.net"), "smtp:example.net")
        self.assertEqual(self.way(routes, "mail.example.net"), "smtp:a:25")
        self.assertEqual(self.way(routes, "a.b.example.net"), "smtp:a:25")
        self.assertEqual(self.way(routes, "notexample.net"), "smtp:notexample.net")

    def test_the_longest_suffix_precedes_the_route_for_all(self) -> None:
        routes = table(
            {
                "*": "smtp://all",
                ".net": "smtp://net",
                ".b.example.net": "smtp://b",
                ".example.net": "smtp://e",
            }
        )
        for domain, host in (
            ("a.b.example.net", "b"),
            ("b.example.net", "e"),
            ("example.net", "net"),
            ("net", "all"),
            ("example.org", "all"),
            ("[192.0.2.1]", "all"),
        ):
            self.assertEqual(self.way(routes, domain), f"smtp:{host}:25", domain)

    def test_suffixes_and_the_route_for_all_never_match_local_domains(self) -> None:
        routes = table({"*": "smtp://all", ".example.net": "smtp://e"}, "mail.example.net")
        self.assertEqual(self.way(routes, "mail.example.net"), "maildir")

    def test_a_next_hop_names_its_rule(self) -> None:
        found = table({"Example.NET.": "smtp://a:26,b"}).route(Mailbox("bob", "example.net"))
        self.assertEqual(found.rule, "route example.net=smtp://a:26,b")

    def test_next_hops_of_different_rules_are_equal(self) -> None:
        routes = table({"a.example": "smtp://h", "b.example": "smtp://h:25"})
        first, second = (routes.route(Mailbox("bob", name)) for name in ("a.example", "b.example"))
        self.assertEqual(first, second)
        self.assertEqual(hash(first), hash(second))

    def test_virtual_domains_are_ours_and_have_no_mailboxes(self) -> None:
        rules = [parse_route("*", "smtp://all"), parse_route("routed.example", "smtp://inside")]
        virtual = ("virtual.example", "routed.example")
        routes = Routes(rules, ("localhost",), virtual)
        found = routes.route(Mailbox("bob", "virtual.example"))
        self.assertEqual(
            found, NextHop("error", reply=Reply.of(550, "1.1", "No such mailbox here"))
        )
        self.assertEqual(found.rule, "virtual domain virtual.example")
        self.assertEqual(self.way(routes, "routed.example"), "smtp:inside:25")
        self.assertTrue(routes.is_local("virtual.example"))
        self.assertEqual(routes.local_domains, ("localhost",))

    def test_an_exact_route_to_a_maildir_needs_no_local_domain(self) -> None:
        routes = table({"kept.example": "maildir:", "*": "smtp://all"}, "localhost")
        self.assertEqual(routes.route(Mailbox("bob", "kept.example")), NextHop("maildir"))
        self.assertFalse(routes.is_local("kept.example"))

    def test_two_routes_for_one_pattern_are_refused(self) -> None:
        rules = [parse_route("a.example", "discard:"), parse_route("A.example.", "maildir:")]
        error = self.assertRaises(ValueError, Routes, rules, ())
        self.assertIn("a.example", str(error))

    def test_local_and_foreign_domains_are_distinguished(self) -> None:
        routes = table({"relay.example": "smtp://a"}, "localhost", "example.net")
        for local in ("localhost", "example.net", Mailbox("bob", "example.net")):
            self.assertTrue(routes.is_local(local))
        for foreign in ("relay.example", "sub.example.net", Mailbox("bob", "example.org")):
            self.assertFalse(routes.is_local(foreign))

    def test_postmaster_without_a_domain_is_in_the_first_local_domain(self) -> None:
        # RFC 5321 §4.5.1
        postmaster = Mailbox("postmaster", "")
        routes = table(
            {"example.net": "smtp://inside", "*": "smtp://all"}, "example.net", "localhost"
        )
        self.assertTrue(routes.is_local(postmaster))
        self.assertEqual(routes.with_domain(postmaster), Mailbox("postmaster", "example.net"))
        self.assertEqual(str(routes.route(postmaster)), "smtp:inside:25")
        self.assertEqual(str(table({}, "localhost").route(postmaster)), "maildir")


class Syntax(TidyTestCase):
    def next_hop(self, url: str, default_port: int = 25) -> NextHop:
        return parse_route("example.net", url, default_port=default_port).next_hop

    def test_patterns_are_made_canonical(self) -> None:
        for pattern, expected in (
            ("Example.NET", "example.net"),
            ("example.net.", "example.net"),
            (".Example.net", ".example.net"),
            ("bücher.example", "xn--bcher-kva.example"),
            (".bücher.example", ".xn--bcher-kva.example"),
            ("[IPv6:2001:DB8:0::1]", "[IPv6:2001:db8::1]"),
            (" * ", "*"),
        ):
            self.assertEqual(parse_route(pattern, "discard:").pattern, expected)

    def test_hosts_may_have_a_port_and_may_be_several(self) -> None:
        for url, hosts in (
            ("smtp://mx.example", [Host("mx.example", 24)]),
            ("SMTP://MX.Example:2525", [Host("mx.example", 2525)]),
            ("smtp://a:65535", [Host("a", 65535)]),
            ("smtp://a:1", [Host("a", 1)]),
            ("smtp://192.0.2.1:26", [Host("192.0.2.1", 26)]),
            ("smtp://[2001:DB8::1]", [Host("2001:db8::1", 24)]),
            ("smtp://[::1]:26/", [Host("::1", 26)]),
            ("smtp://a:26,b, [::1]", [Host("a", 26), Host("b", 24), Host("::1", 24)]),
            ("smtp://a:26,smtp://b", [Host("a", 26), Host("b", 24)]),
        ):
            found = self.next_hop(url, default_port=24)
            self.assertEqual((found.transport, list(found.hosts)), ("smtp", hosts), url)

    def test_smtps_has_implicit_tls_and_port_465(self) -> None:
        # RFC 8314 §3, §7.3
        for url, hosts in (
            ("smtps://mx.example", [Host("mx.example", 465)]),
            (
                "SMTPS://a:2465,b, smtps://[::1]",
                [Host("a", 2465), Host("b", 465), Host("::1", 465)],
            ),
        ):
            found = self.next_hop(url, default_port=26)
            self.assertEqual(found, NextHop("smtp", hosts=tuple(hosts), implicit_tls=True), url)
        self.assertNotEqual(self.next_hop("smtps://a:25"), self.next_hop("smtp://a:25"))
        self.assertEqual(str(self.next_hop("smtps://a")), "smtps:a:465")

    def test_lmtp_has_hosts_or_unix_sockets(self) -> None:
        for url, hosts in (
            ("lmtp://127.0.0.1:2024", [Host("127.0.0.1", 2024)]),
            ("lmtp://a,b:25,lmtp://c", [Host("a", 24), Host("b", 25), Host("c", 24)]),
            ("lmtp+unix:/run/dovecot/lmtp", [Host("/run/dovecot/lmtp", 0)]),
            ("LMTP+UNIX:/a, lmtp+unix:/b c", [Host("/a", 0), Host("/b c", 0)]),
        ):
            self.assertEqual(self.next_hop(url), NextHop("lmtp", hosts=tuple(hosts)), url)
        self.assertEqual(str(self.next_hop("lmtp+unix:/run/lmtp")), "lmtp:/run/lmtp")

    def test_maildir_discard_and_error_need_no_host(self) -> None:
        self.assertEqual(self.next_hop("maildir:"), NextHop("maildir"))
        self.assertEqual(self.next_hop("discard:"), NextHop("discard"))
        for url, reply in (
            ("error:5.1.1 No such user", Reply.of(550, "1.1", "No such user")),
            ("error:4.3.2 Try later", Reply.of(450, "3.2", "Try later")),
            ("error:5.7.1", Reply.of(550, "7.1", "Not accepted here")),
            ("error:5.7.1 a\r\nb", Reply.of(550, "7.1", r"a\r\nb")),
        ):
            self.assertEqual(self.next_hop(url), NextHop("error", reply=reply))

    def assertSays(self, expected: str, pattern: str, url: str) -> None:
        error = self.assertRaises(ValueError, parse_route, pattern, url)
        self.assertIn(expected, str(error))
        self.assertTrue(str(error).isprintable())

    def test_a_wrong_pattern_is_refused_with_the_expectation(self) -> None:
        for pattern in ("", ".", "..", "*.example.net", "bob@example.net", "a b", ".[192.0.2.1]"):
            self.assertSays(".example.net for all below it", pattern, "discard:")

    def test_a_wrong_url_is_refused_with_the_expectation(self) -> None:
        for url in ("", "mx.example.net", "mx.example.net:25", "http://a", "smtp:a", "smtp"):
            self.assertSays("smtp://HOST[:PORT]", "*", url)
        for url in (
            "smtp://",
            "smtp://a,",
            "smtp://a:",
            "smtp://a:0",
            "smtp://a:65536",
            "smtp://a:x",
            "smtp://a:٢٥",
            "smtp://::1",
            "smtp://[::1",
            "smtp://[x]",
            "smtp://u@a",
            "smtp://a/b",
            "smtp://a b",
        ):
            self.assertSays("mx.example.net:2525", "*", url)
        for url in ("smtps://", "lmtp://a:0", "lmtp:///run/lmtp", "smtps://a,smtp://b"):
            self.assertSays("mx.example.net:2525", "*", url)
        for url in (
            "lmtp+unix:",
            "lmtp+unix:run",
            "lmtp+unix://run",
            "lmtp+unix:/a\x1b",
            "lmtp+unix:/a,",
        ):
            self.assertSays("lmtp+unix:/run/dovecot/lmtp", "*", url)
        self.assertSays("107 octets at most, not 108", "*", "lmtp+unix:/" + "x" * 107)
        for url in ("maildir:/var/mail", "discard://x"):
            self.assertSays("expected nothing", "*", url)
        for url in ("error:", "error:550 no", "error:2.0.0 fine", "error: text"):
            self.assertSays("error:5.1.1 No such user", "*", url)

    def test_a_rule_is_a_value(self) -> None:
        self.assertEqual(parse_route("*", "discard:"), Rule("*", NextHop("discard")))
