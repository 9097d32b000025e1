"""Findings about names, with a scripted name server on loopback."""

import socket
from functools import partial

import dns.rcode

from tests.cli.check.checking import NOW, CheckTestCase
from tests.cli.check.nameserver import NameServer
from twisted_mta.cli.check import names as names_module
from twisted_mta.cli.check.names import trust
from twisted_mta.cli.questions import Answer, Questions
from twisted_mta.config import Config, DNSSettings
from twisted_mta.dns import ResolvConf
from twisted_mta.interfaces import WallTime
from twisted_mta.mail.next_hop import Host


class NamesTestCase(CheckTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.dns = NameServer(self)
        self.dns.records["mail.example.net. A"] = ["127.0.0.1"]
        self.dns.records["1.0.0.127.in-addr.arpa. PTR"] = ["mail.example.net."]

    def config(self, *endpoints: str, **values: object) -> Config:
        values.setdefault("dns", DNSSettings(nameservers=[self.dns.host]))
        return super().config(*endpoints, **values)

    def of(self, *, notes: bool = False, hosts: object = None, **values: object) -> list[str]:
        config = self.config(**values)
        return self.found(config, notes=notes, ask_dns=True, hosts=lambda: hosts or {})


def dead_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
    return port


class Servers(NamesTestCase):
    def trust(self) -> str:
        (text,) = self.of(notes=True)
        return text.partition(" ms")[2]

    def test_a_validating_resolver_on_this_machine_can_be_trusted(self) -> None:
        self.assertEqual(
            self.trust(), ", sets AD, and is on this machine: trust_ad may be turned on"
        )

    def test_a_server_that_does_not_validate_cannot_be_trusted(self) -> None:
        self.dns.signed = []
        self.assertEqual(
            self.trust(),
            ", and does not set AD: it does not validate: trust_ad must stay off",
        )
        self.assertEqual(self.of(), [])

    def test_a_server_that_sets_ad_for_unsigned_zones_cannot_be_trusted(self) -> None:
        self.dns.signs_all = True
        self.assertEqual(
            self.trust(),
            ", and sets AD even for unsigned zones, so that AD means nothing: trust_ad must stay"
            " off",
        )

    def test_a_server_on_another_machine_cannot_be_trusted(self) -> None:
        # RFC 4035 §4.9.3
        answer = Answer((), True, authenticated=True, seconds=0.0)
        elsewhere = Host("192.0.2.53", 53)
        finding = trust("here", elsewhere, answer, unsigned=False, trusted=False)
        self.assertIn("which other hosts on the path could forge", finding.what)

    def test_trust_in_an_untrustworthy_server_is_a_warning(self) -> None:
        for host, authenticated, unsigned in (
            (self.dns.host, False, False),
            (self.dns.host, True, True),
            (Host("2001:db8::53", 53), True, False),
        ):
            answer = Answer((), True, authenticated, seconds=0.0)
            finding = trust("here", host, answer, unsigned=unsigned, trusted=True)
            self.assertEqual(finding.severity, "warning")
            self.assertIn("but trust_ad is on", finding.what)

    def test_a_dead_server_is_named_and_the_next_one_asked(self) -> None:
        dead = Host("127.0.0.1", dead_port())
        (text,) = self.of(dns=DNSSettings(nameservers=[dead, self.dns.host]))
        asked = self.dns.asked
        self.assertEqual(sorted(asked), sorted(dict.fromkeys(asked)))  # each question once
        self.assertTrue(text.startswith(f"warning: [dns] nameservers, {dead}: no answer:"), text)

    def test_a_server_without_edns_is_asked_without_it(self) -> None:
        self.patch(names_module, "Questions", partial(Questions, timeout=0.2))
        for says in ("FORMERR", "NOTIMP", "SERVFAIL", ""):
            self.dns.without_edns = says
            texts = self.of(notes=True)
            self.assertIn("no EDNS (RFC 6891)", texts[0], says)
            self.assertEqual(self.of(), [], says)

    def test_if_no_server_answers_nothing_more_is_asked(self) -> None:
        self.dns.rcode = dns.rcode.REFUSED
        first, second = self.of(routes=[("*", "smtp://hub.example")])
        self.assertIn("no answer: REFUSED; repair or remove it", first)
        self.assertIn("[dns] nameservers: none answers: names cannot be looked up", second)
        self.assertEqual(self.dns.asked, [". SOA"])

    def test_with_no_dns_nothing_is_asked(self) -> None:
        self.assertIn("note: DNS: not asked (--no-dns)", self.found(self.config(), notes=True))
        self.assertEqual(self.dns.asked, [])

    def test_all_questions_share_a_deadline(self) -> None:
        def hurrying() -> WallTime:
            hours = iter(range(1000))
            return lambda: NOW + next(hours)  # a second passes at each look

        texts = self.found(
            self.config(
                local_domains=[f"{number}.example" for number in range(30)],
            ),
            ask_dns=True,
            wall_time=hurrying(),
        )
        self.assertIn(
            "not all questions were answered within 10 s, and the others were left out", texts[-1]
        )
        self.assertLess(len(self.dns.asked), 10)


class OurName(NamesTestCase):
    def test_a_name_with_address_and_ptr_record_is_no_finding(self) -> None:
        self.assertEqual(self.of(), [])

    def test_a_short_name_is_a_warning(self) -> None:
        (text,) = self.of(hostname="mail")
        self.assertIn("[mta] hostname: mail is not a full name", text)

    def test_a_name_without_an_address_is_a_warning(self) -> None:
        (text,) = self.of(hostname="mx.example.net", local_domains=["mail.example.net"])
        self.assertIn("[mta] hostname: mx.example.net has no address in the DNS", text)

    def test_a_missing_or_different_ptr_record_is_a_warning(self) -> None:
        self.dns.records["1.0.0.127.in-addr.arpa. PTR"] = ["host-1.isp.example."]
        (text,) = self.of()
        self.assertIn(
            "the PTR record of 127.0.0.1, the address of mail.example.net, is host-1.isp.example:",
            text,
        )
        del self.dns.records["1.0.0.127.in-addr.arpa. PTR"]
        (text,) = self.of()
        self.assertIn("the address of mail.example.net, is missing:", text)


class Routes(NamesTestCase):
    def test_a_host_of_a_route_without_an_address_is_a_warning(self) -> None:
        self.dns.records["hub.example. AAAA"] = ["2001:db8::1"]
        routes = [
            ("a.example", "smtp://hub.example,gone.example"),
            ("b.example", "smtp://[::1]:9"),
            ("c.example", "smtp://hub.example:2525"),
        ]
        self.assertEqual(
            self.of(routes=routes),
            [
                "warning: route a.example=smtp://hub.example,gone.example: gone.example has no"
                " address: mail on this route is deferred until it expires; name a host with an"
                " address"
            ],
        )
        self.assertEqual(self.dns.asked.count("hub.example. A"), 1)
        self.assertEqual(self.of(routes=routes, hosts={"gone.example": ["192.0.2.1"]}), [])

    def test_hosts_of_routes_are_looked_up_with_the_systems_search_list(self) -> None:
        self.dns.records["mailhog.svc.cluster.local. A"] = ["192.0.2.1"]
        config = self.config(routes=[("*", "smtp://mailhog:1025")])
        system = ResolvConf(search=("mail.cluster.local", "svc.cluster.local"), ndots=5)
        self.assertEqual(self.found(config, ask_dns=True, resolution=lambda: system), [])
        (text,) = self.found(config, ask_dns=True)
        self.assertIn("mailhog has no address", text)

    def test_a_family_that_cannot_be_looked_up_does_not_hide_the_other(self) -> None:
        self.dns.records["hub.example. A"] = ["192.0.2.1"]
        self.dns.records["hub.example. AAAA"] = ["2001:db8::1"]
        for missing in (self.dns.nxdomain, self.dns.failing):
            for type in ("A", "AAAA"):
                missing[:] = [f"hub.example. {type}"]
                self.assertEqual(self.of(routes=[("*", "smtp://hub.example")]), [], missing)
            missing.clear()
        self.dns.failing[:] = ["hub.example. A"]
        del self.dns.records["hub.example. AAAA"]
        (text,) = self.of(routes=[("*", "smtp://hub.example")])
        self.assertIn("hub.example cannot be looked up now: SERVFAIL", text)

    def test_a_route_to_ourselves_is_a_loop(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        endpoint = f"tcp:{port}:interface=127.0.0.1"
        for host in ("localhost", "mail.example.net", "127.0.0.1"):
            routes = [("*", f"smtp://{host}:{port}")]
            (text,) = self.found(self.config(endpoint, routes=routes), ask_dns=True)
            self.assertIn(f"{host}:{port} is our own listener", text)
        for place, host in ((endpoint, "127.0.0.2"), (f"tcp:{port}", "192.0.2.1")):
            routes = [("*", f"smtp://{host}:{port}")]
            texts = self.found(self.config(place, routes=routes), ask_dns=True)
            self.assertNotIn("our own listener", "".join(texts))


class LocalDomains(NamesTestCase):
    def of_domain(self) -> list[str]:
        return self.of(local_domains=["example.net"])

    def test_a_domain_whose_exchanger_is_this_machine_is_no_finding(self) -> None:
        self.dns.records["example.net. MX"] = ["10 mail.example.net."]
        self.assertEqual(self.of_domain(), [])
        # By another name; a machine that has no such address is another one.
        self.dns.records["example.net. MX"] = ["10 mx.example.net."]
        self.dns.records["mx.example.net. A"] = ["127.0.0.1"]
        self.assertEqual(self.of_domain(), [])

    def test_a_domain_whose_exchanger_is_another_host_is_a_warning(self) -> None:
        self.dns.records["example.net. MX"] = ["10 mx.isp.example."]
        self.dns.records["mx.isp.example. A"] = ["192.0.2.1"]
        (text,) = self.of_domain()
        self.assertIn(
            "warning: [mta] local_domains: mail from other hosts for example.net goes to"
            " mx.isp.example, and not to this machine",
            text,
        )
        self.dns.records["example.net. MX"] = ["0 ."]
        self.assertIn("for example.net has no exchanger", self.of_domain()[0])

    def test_a_domain_with_an_address_exists_despite_nxdomain_for_mx(self) -> None:
        self.dns.records["example.net. A"] = ["192.0.2.1"]
        self.dns.nxdomain.append("example.net. MX")
        self.assertEqual(self.of_domain(), [])

    def test_a_domain_without_mx_records_is_no_finding(self) -> None:
        self.dns.records["example.net. A"] = ["192.0.2.1"]
        self.assertEqual(self.of_domain(), [])
