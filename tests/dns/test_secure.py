"""What DNSSEC says of answers: the AD bit, and the name servers that are believed."""

from __future__ import annotations

import os

import dns.flags
import dns.message
from twisted.internet import reactor  # noqa: TID251 - real sockets
from twisted.trial.unittest import TestCase

from tests.dns.scripted import NameServer
from twisted_mta.dns import DNSResolver, LookupFailed
from twisted_mta.dns import nameserver as nameserver_module
from twisted_mta.dns import resolv_conf as resolv_conf_module
from twisted_mta.dns.system import SystemFiles
from twisted_mta.mail.next_hop import Host
from twisted_mta.mail.tlsa import TLSA

LOOPBACK = "127.0.0.1"


class Validating(NameServer):
    """Sets AD for names below ``signed.example``, unless they are aliases that lead elsewhere."""

    def respond(self, query: dns.message.Message) -> dns.message.Message:
        response = super().respond(query)
        owners = [str(rrset.name) for rrset in response.answer] or [str(query.question[0].name)]
        targets = [str(rrset[0].target) for rrset in response.answer if rrset.rdtype == 5]
        if query.question[0].rdtype != 5:
            owners += targets
        if all(each.endswith("signed.example.") for each in owners):
            response.flags |= dns.flags.AD
        return response


class SecureTestCase(TestCase):
    def setUp(self) -> None:
        self.server = Validating()
        self.server.records = {
            "signed.example. MX": (60, "10 mx.signed.example."),
            "plain.example. MX": (60, "10 mx.signed.example."),
            "mx.signed.example. A": (60, "192.0.2.1"),
            "mx.plain.example. A": (60, "192.0.2.2"),
            "_25._tcp.mx.signed.example. TLSA": (60, "3 1 1 " + "ab" * 32),
            "away.signed.example. A": (60, "192.0.2.2"),
        }
        self.port = self.listen(self.server)

    def listen(self, server: NameServer) -> int:
        port = reactor.listenUDP(0, server, interface=LOOPBACK)  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    def resolver(self, *ports: int, trust_ad: bool = False) -> DNSResolver:
        hosts = [Host(LOOPBACK, port) for port in ports or (self.port,)]
        resolver = DNSResolver(
            reactor, nameservers=hosts, timeout=5.0, trust_ad=trust_ad, hosts={"box": ["192.0.2.9"]}
        )
        self.addCleanup(resolver.stop)
        return resolver

    def nothing_is_loopback(self) -> None:
        self.patch(nameserver_module.NameServer, "is_loopback", False)


class Secure(SecureTestCase):
    async def test_answers_say_whether_they_are_secure(self) -> None:
        resolver = self.resolver()
        for domain, secure in (("signed.example", True), ("plain.example", False)):
            found = await resolver.exchangers(domain)
            self.assertEqual(found.records, ((10, "mx.signed.example"),))
            self.assertEqual((found.secure, found.name), (secure, domain))
        self.assertTrue((await resolver.host("mx.signed.example")).secure)
        self.assertFalse((await resolver.host("mx.plain.example")).secure)

    async def test_the_absence_of_records_can_be_secure(self) -> None:
        found = await self.resolver().exchangers("mx.signed.example")
        self.assertEqual((found.records, found.secure), ((), True))

    async def test_the_hosts_file_proves_nothing(self) -> None:
        found = await self.resolver().host("box")
        self.assertEqual((found.records, found.secure), (("192.0.2.9",), False))

    async def test_both_families_have_to_be_secure(self) -> None:
        self.server.records["two.signed.example. A"] = (60, "192.0.2.1")
        self.server.records["two.signed.example. AAAA"] = (60, "2001:db8::1")
        resolver = self.resolver()
        self.assertTrue((await resolver.host("two.signed.example")).secure)
        respond = self.server.respond

        def half(query: dns.message.Message) -> dns.message.Message:
            response = respond(query)
            if query.question[0].rdtype == 28:
                response.flags &= ~dns.flags.AD
            return response

        self.server.respond = half  # type: ignore[method-assign]
        self.assertFalse((await self.resolver().host("two.signed.example")).secure)
        self.assertTrue((await self.resolver().host("mx.signed.example")).secure)  # has no AAAA

    async def test_tlsa_records_are_looked_up(self) -> None:
        found = await self.resolver().tlsa("_25._tcp.mx.signed.example")
        self.assertEqual(found.records, (TLSA(3, 1, 1, b"\xab" * 32),))
        self.assertTrue(found.secure)


class Aliases(SecureTestCase):
    def alias(self, owner: str, target: str) -> None:
        """Answer all questions about ``owner`` with an alias, and the records of its target."""
        respond = self.server.respond

        def aliased(query: dns.message.Message) -> dns.message.Message:
            (question,) = query.question
            if str(question.name) != owner:
                return respond(query)
            response = dns.message.make_response(query)
            answer = [dns.rrset.from_text(owner, 60, "IN", "CNAME", target)]
            known = self.server.records.get(f"{target} A")
            if question.rdtype == 1 and known is not None:
                answer.append(dns.rrset.from_text(target, 60, "IN", "A", known[1]))
            response.answer += answer
            names = [owner] if question.rdtype == 5 else [owner, target]
            if all(each.endswith("signed.example.") for each in names):
                response.flags |= dns.flags.AD
            return response

        self.server.respond = aliased  # type: ignore[method-assign]

    async def test_the_end_of_an_alias_is_known(self) -> None:
        self.alias("alias.signed.example.", "mx.signed.example.")
        found = await self.resolver().host("Alias.signed.example")
        self.assertEqual(
            (found.asked, found.name, found.secure, found.asked_secure),
            ("alias.signed.example", "mx.signed.example", True, True),
        )
        self.assertNotIn("alias.signed.example. CNAME", self.server.questions())

    async def test_an_alias_into_an_unsigned_zone_may_be_secure_itself(self) -> None:
        """RFC 7672 §2.2.2: it is asked for, since the address alone does not tell."""
        self.alias("alias.signed.example.", "mx.plain.example.")
        found = await self.resolver().host("alias.signed.example")
        self.assertEqual(
            (found.name, found.secure, found.asked_secure), ("mx.plain.example", False, True)
        )
        self.assertIn("alias.signed.example. CNAME", self.server.questions())

    async def test_an_alias_in_an_unsigned_zone_is_not(self) -> None:
        self.alias("alias.plain.example.", "mx.plain.example.")
        found = await self.resolver().host("alias.plain.example")
        self.assertFalse(found.secure or found.asked_secure)

    async def test_nothing_more_is_asked_of_a_server_that_is_not_believed(self) -> None:
        self.nothing_is_loopback()
        self.alias("alias.signed.example.", "mx.plain.example.")
        found = await self.resolver().host("alias.signed.example")
        self.assertFalse(found.asked_secure)
        self.assertNotIn("alias.signed.example. CNAME", self.server.questions())


class Trust(SecureTestCase):
    async def test_ad_is_believed_from_loopback_alone(self) -> None:
        self.assertTrue((await self.resolver().exchangers("signed.example")).secure)
        self.nothing_is_loopback()
        self.assertFalse((await self.resolver().exchangers("signed.example")).secure)

    async def test_trust_ad_believes_all_of_the_settings(self) -> None:
        self.nothing_is_loopback()
        self.assertTrue((await self.resolver(trust_ad=True).exchangers("signed.example")).secure)

    async def test_the_system_may_say_that_its_servers_are_believed(self) -> None:
        """``options trust-ad`` of resolv.conf(5); a change drops the cached answers."""
        self.nothing_is_loopback()
        self.patch(resolv_conf_module, "_PORT", self.port)
        path = os.path.abspath(self.mktemp())
        system = SystemFiles(reactor, resolv_conf_path=path, hosts_path=os.devnull)  # type: ignore[arg-type]
        resolver = DNSResolver(reactor, system=system, timeout=5.0)
        self.addCleanup(resolver.stop)
        for options, secure in (("", False), ("options edns0 trust-ad\n", True), ("", False)):
            with open(path, "w", encoding="ascii") as file:
                file.write(f"nameserver {LOOPBACK}\n{options}")
            resolver.reload()
            found = await resolver.exchangers("signed.example")
            self.assertEqual(found.secure, secure, options)

    async def test_tlsa_records_are_asked_of_believed_servers_alone(self) -> None:
        """Another one could say that there are none, where the first refuses forged ones."""
        liar = NameServer()
        other = self.listen(liar)
        resolver = self.resolver(self.port, other)
        await resolver.exchangers("signed.example")
        for each in resolver._queries.nameservers:
            each.trusted = each.host.port == self.port
        self.server.rcode = dns.rcode.SERVFAIL
        self.server.records.clear()
        with self.assertRaises(LookupFailed):
            await resolver.tlsa("_25._tcp.mx.signed.example")
        self.assertEqual(liar.queries, [])

    async def test_without_a_believed_server_nothing_is_asked_for_tlsa_records(self) -> None:
        self.nothing_is_loopback()
        with self.assertRaises(LookupFailed):
            await self.resolver().tlsa("_25._tcp.mx.signed.example")
        self.assertEqual(self.server.queries, [])
