"""Lookups of mail exchangers through a resolver and a forwarder."""

from __future__ import annotations

import random
from collections.abc import Sequence

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from twisted_mta.dns import DNSResolver
from twisted_mta.interfaces import NoTarget
from twisted_mta.mail.next_hop import Host, NextHop, Target
from twisted_mta.routing.exchangers import TargetLocator

from .forwarders import Dnsmasq, Forwarder, Unbound
from .machine import LOOPBACK, folder, need
from .nsd import NSD

MANY = "\n".join(f"many MX {number} mx{number}.a-name-that-is-long-enough" for number in range(90))

ZONES = {
    "mail.example": f"""\
@          MX 10 mx1
mx1        A 192.0.2.1
mx1        AAAA 2001:db8::1
there      CNAME mail.other.example.
{MANY}
""",
    "other.example": "mail MX 10 mx\nmx A 192.0.2.3\n",
    "internal": "@ TXT nothing\n",
}


class ForwardedTestCase(TestCase):
    program = ""

    def setUp(self) -> None:
        need("nsd", "nsd-checkconf", self.program)
        self.nsd = self.enterContext(NSD(self.enterContext(folder("nsd")), ZONES))

    def ask(self, forwarder: Forwarder, *, timeout: float = 5.0) -> None:
        self.enterContext(forwarder)
        nameservers = [Host(LOOPBACK, forwarder.port)]
        self.resolver = DNSResolver(reactor, nameservers=nameservers, timeout=timeout, hosts={})
        self.addCleanup(self.resolver.stop)

    def locate(self, domain: str) -> Deferred[Sequence[Target]]:
        exchangers = TargetLocator(
            self.resolver, random=random.Random(1), is_local=lambda name: False
        )
        return exchangers.locate(NextHop("smtp", domain=domain))

    async def assertTargets(self, domain: str, *expected: str) -> None:
        for _ in ("asked", "remembered"):
            found = [each.address for each in await self.locate(domain)]
            self.assertEqual(found, list(expected), domain)

    async def assertNone(self, domain: str, expected: str) -> None:
        with self.assertRaises(NoTarget) as raised:
            await self.locate(domain)
        self.assertIn(expected, str(raised.exception.reply))


class ByUnbound(ForwardedTestCase):
    program = "unbound"

    def setUp(self) -> None:
        super().setUp()
        zones = dict.fromkeys(ZONES, self.nsd.port)
        home = self.enterContext(folder("unbound"))
        self.ask(Unbound(home, zones, server='    local-zone: "gone.example" always_nxdomain'))

    async def test_domains_are_found_or_do_not_exist(self) -> None:
        await self.assertTargets("mail.example", "2001:db8::1", "192.0.2.1")
        await self.assertTargets("there.mail.example", "192.0.2.3")
        await self.assertNone("gone.example", "550 5.1.2")
        self.assertEqual(len(await self.resolver.mail_exchangers("many.mail.example")), 90)

    async def test_a_dead_name_server_behind_it_is_a_temporary_failure(self) -> None:
        self.nsd.terminate()
        await self.assertNone("mail.example", "451 4.4.3")


class ByDnsmasq(ForwardedTestCase):
    program = "dnsmasq"

    def dnsmasq(self, *options: str) -> None:
        self.forwarder = Dnsmasq(self.enterContext(folder("dnsmasq")), self.nsd.port, *options)
        self.ask(self.forwarder)

    async def test_domains_are_found_or_do_not_exist(self) -> None:
        self.dnsmasq()
        await self.assertTargets("mail.example", "2001:db8::1", "192.0.2.1")
        await self.assertNone("gone.mail.example", "550 5.1.2")
        self.assertEqual(len(await self.resolver.mail_exchangers("many.mail.example")), 90)

    async def test_a_host_that_only_the_forwarder_knows_is_found(self) -> None:
        # The question for MX goes upstream, where it is NXDOMAIN.
        self.dnsmasq("--host-record=relay.internal,192.0.2.7")
        await self.assertTargets("relay.internal", "192.0.2.7")

    async def test_a_filtered_address_family_does_not_hide_the_other(self) -> None:
        self.dnsmasq("--filter-AAAA")
        await self.assertTargets("mail.example", "192.0.2.1")

    async def test_a_blocked_domain_and_truncated_answers(self) -> None:
        self.dnsmasq("--address=/blocked.example/", "--edns-packet-max=512")
        await self.assertNone("blocked.example", "550 5.1.2")
        self.assertEqual(len(await self.resolver.mail_exchangers("many.mail.example")), 90)

    async def test_simultaneous_lookups_share_one_question(self) -> None:
        self.dnsmasq("--log-queries")
        await gatherResults([self.locate("mail.example") for _ in range(20)])
        said = self.forwarder.output()
        for type in ("MX", "A", "AAAA"):
            self.assertEqual(said.count(f"query[{type}]"), 1, said)
