"""Whose policy holds for a host, and what it says of one (RFC 8461 §3.4, §4.1)."""

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.mail.next_hop import Host, NextHop, Target, Transport
from twisted_mta.tls.mta_sts.found import Found, policy_domain
from twisted_mta.tls.mta_sts.policy import Policy


class Domains(SynchronousTestCase):
    def domain(
        self, domain: str = "", host: str = "", *, transport: Transport = "smtp"
    ) -> str | None:
        hosts = (Host(host),) if host else ()
        target = Target(host or "mx.example", "192.0.2.1", 25)
        return policy_domain(NextHop(transport, hosts=hosts, domain=domain), target)

    def test_it_is_that_of_the_mail_where_exchangers_are_looked_up(self) -> None:
        self.assertEqual(self.domain("There.Example"), "there.example")

    def test_it_is_the_host_that_a_route_names(self) -> None:
        self.assertEqual(self.domain(host="relay.example"), "relay.example")

    def test_addresses_sockets_and_short_names_have_none(self) -> None:
        for host in ("192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "/run/mta.sock", "localhost"):
            self.assertIsNone(self.domain(host=host), host)
        self.assertIsNone(self.domain("[192.0.2.1]"))

    def test_lmtp_has_none(self) -> None:
        self.assertIsNone(self.domain(host="store.example", transport="lmtp"))


class Hosts(SynchronousTestCase):
    def test_a_long_policy_is_shortened_in_a_reason(self) -> None:
        patterns = tuple(f"mx{number}.there.example" for number in range(50))
        found = Found(domain="there.example", policy=Policy("enforce", 1, patterns), id="1")
        self.assertIsNone(found.fault("MX7.There.Example"))
        fault = found.fault("\x1bmx.example")
        assert fault is not None
        self.assertTrue(fault.isprintable())
        self.assertTrue(
            fault.endswith(": mx0.there.example, mx1.there.example, mx2.there.example and 47 more"),
            fault,
        )
