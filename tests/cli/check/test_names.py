"""Findings about names, with a scripted name server on loopback."""

import socket
from functools import partial

import dns.rcode

from tests.cli.check.checking import NOW, CheckTestCase
from tests.cli.check.nameserver import NameServer
from twisted_mta.cli.check import names as names_module
from twisted_mta.cli.check.validation import Proof, believed, finding
from twisted_mta.cli.questions import Questions
from twisted_mta.config import Config, Destination, DNSSettings
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
    def trust(self, **dns: object) -> str:
        """Return the finding on the name server, without its address and the time it took."""
        settings = DNSSettings(nameservers=[self.dns.host], **dns)  # type: ignore[arg-type]
        (text,) = self.of(notes=True, dns=settings)
        severity, _, rest = text.partition(": ")
        return f"{severity}{rest.partition(' ms')[2]}"

    def test_a_validating_resolver_on_this_machine_is_believed(self) -> None:
        self.assertEqual(
            self.trust(),
            "note, and validates: iana.org is proven, dnssec-failed.org is refused: with DANE",
        )
        self.assertEqual(
            self.dns.asked[:4],
            [". SOA", "iana.org. SOA", "10.in-addr.arpa. SOA", "dnssec-failed.org. A"],
        )

    def test_the_names_that_prove_it_can_be_chosen(self) -> None:
        self.dns.signed, self.dns.bogus = ["good.example. SOA"], ["bad.example. A"]
        self.assertEqual(
            self.trust(signed_name="good.example", bogus_name="bad.example"),
            "note, and validates: good.example is proven, bad.example is refused: with DANE",
        )

    def test_without_validation_there_is_no_dane(self) -> None:
        self.dns.signed = []
        self.assertEqual(
            self.trust(),
            "note, and does not validate: it does not set AD for iana.org: without DANE",
        )
        self.assertEqual(self.of(), [])

    def test_where_dane_is_demanded_the_lack_of_validation_is_a_warning(self) -> None:
        self.dns.signed = []
        (text,) = self.of(destinations=[Destination(domain="bank.example", tls="dane")])
        self.assertIn('mail to bank.example, with tls = "dane", is deferred', text)
        self.assertIn("use a validating resolver on this machine", text)

    def test_a_server_that_sets_ad_without_validating_is_a_warning(self) -> None:
        """Each proof alone finds it out."""
        self.dns.bogus = []
        self.assertIn("and takes dnssec-failed.org, whose signatures are wrong", self.trust())
        self.dns.signs_all = True
        text = self.trust()
        self.assertIn("warning, and does not validate: it sets AD even for unsigned zones", text)
        self.assertIn("it is believed all the same", text)

    def test_without_an_answer_about_the_bogus_name_it_is_said(self) -> None:
        self.dns.silent = ["dnssec-failed.org. A"]
        self.patch(names_module, "Questions", partial(Questions, timeout=0.2))
        self.assertEqual(
            self.trust(),
            "note, and sets AD for iana.org; it gave no answer about dnssec-failed.org: with DANE",
        )

    def test_a_server_on_another_machine_is_believed_with_trust_ad_alone(self) -> None:
        """RFC 4035 §4.9.3."""
        elsewhere = Host("192.0.2.53", 53)
        proof = Proof(signed=True, forged=False)
        for trust_ad, text in (
            (False, "other hosts on the path could forge its answers: without DANE"),
            (True, "validates: iana.org is proven, dnssec-failed.org is refused: with DANE"),
        ):
            config = self.config(dns=DNSSettings(nameservers=[elsewhere], trust_ad=trust_ad))
            trusted = believed(config, ResolvConf(), elsewhere)
            self.assertEqual(trusted, trust_ad)
            self.assertIn(text, finding(config, elsewhere, proof, seconds=0, trusted=trusted).what)

    def test_the_system_may_say_that_its_servers_are_believed(self) -> None:
        """``options trust-ad`` counts for the name servers beside it, and for no others."""
        elsewhere, system = Host("192.0.2.53", 53), ResolvConf(trust_ad=True)
        self.assertTrue(believed(self.config(dns=DNSSettings()), system, elsewhere))
        self.assertFalse(believed(self.config(), system, elsewhere))

    def test_servers_of_both_kinds_together_are_a_warning(self) -> None:
        """What the first refuses as forged, the second is asked for."""
        other = NameServer(self)
        other.signed = []
        (text,) = self.of(dns=DNSSettings(nameservers=[self.dns.host, other.host]))
        self.assertIn(f"{other.host} does not validate, and others do", text)

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
