"""The resolver with a scripted name server on loopback."""

import os
from collections.abc import Sequence

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
from twisted.internet import reactor  # noqa: TID251 - real sockets
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import SkipTest, TestCase

from tests.dns.scripted import SOA, NameServer, listen
from tests.tidy import TidyTestCase
from twisted_mta.dns import DNSResolver, LookupFailed, NoSuchDomain, read_hosts
from twisted_mta.mail.next_hop import Host


class Lookups(TestCase):
    interface = "127.0.0.1"

    def setUp(self) -> None:
        self.server = NameServer()
        port = reactor.listenUDP(0, self.server, interface=self.interface)  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        self.port = port.getHost().port
        self.resolver = self.make_resolver()

    def make_resolver(self, timeout: float = 10.0, port: int | None = None) -> DNSResolver:
        return DNSResolver(
            reactor,
            nameservers=[Host(self.interface, port or self.port)],
            timeout=timeout,
            hosts={"box": ["192.0.2.9"], "nodns.example": ["192.0.2.8"]},
        )

    def serve_also_over_tcp(self) -> None:
        """Put a server that has TCP too in place of the first one."""
        self.server = NameServer()
        self.port = listen(self, self.server, interface=self.interface, tcp=True)
        self.resolver = self.make_resolver()

    async def test_mail_exchangers_have_their_preference(self) -> None:
        self.server.records["example. MX"] = (60, "10 MX1.Example.", "20 mx2.example.")
        found = await self.resolver.mail_exchangers("example")
        self.assertEqual(sorted(found), [(10, "mx1.example"), (20, "mx2.example")])

    async def test_a_null_mx_has_an_empty_name(self) -> None:
        self.server.records["example. MX"] = (60, "0 .")
        self.assertEqual(await self.resolver.mail_exchangers("example"), [(0, "")])

    async def test_addresses_are_of_both_families(self) -> None:
        self.server.records["mx.example. A"] = (60, "192.0.2.1", "192.0.2.2")
        self.server.records["mx.example. AAAA"] = (60, "2001:db8::1")
        found = await self.resolver.addresses("mx.example")
        self.assertEqual(sorted(found), ["192.0.2.1", "192.0.2.2", "2001:db8::1"])
        self.assertEqual(found[0], "2001:db8::1")

    async def test_a_domain_without_records_of_the_type_is_no_error(self) -> None:
        self.server.records["example. TXT"] = (60, "here")
        self.assertEqual(list(await self.resolver.mail_exchangers("example")), [])
        self.assertEqual(list(await self.resolver.addresses("example")), [])

    async def test_a_cname_record_is_followed(self) -> None:
        server = self.server
        server.records["alias.example. A"] = (60,)
        real = server.respond

        def respond(query: dns.message.Message) -> dns.message.Message:
            response = real(query)
            if server.question(query) == "alias.example. A":
                response.answer = [
                    dns.rrset.from_text("alias.example.", 60, "IN", "CNAME", "real.example."),
                    dns.rrset.from_text("real.example.", 60, "IN", "A", "192.0.2.3"),
                ]
                response.authority = []
            return response

        self.patch(server, "respond", respond)
        self.assertEqual(list(await self.resolver.addresses("alias.example")), ["192.0.2.3"])

    def answer_aliases(self, aliases: dict[str, str]) -> None:
        """Let the server answer with one CNAME record at a time, without its target."""
        real = self.server.respond

        def respond(query: dns.message.Message) -> dns.message.Message:
            name, _ = self.server.question(query).split()
            if name not in aliases:
                return real(query)
            response = dns.message.make_response(query)
            response.answer.append(dns.rrset.from_text(name, 60, "IN", "CNAME", aliases[name]))
            return response

        self.patch(self.server, "respond", respond)

    async def test_a_cname_chain_that_leaves_the_answer_is_followed(self) -> None:
        # RFC 1034 §3.6.2
        self.answer_aliases({"a.example.": "b.example.", "b.example.": "c.example."})
        self.server.records["c.example. MX"] = (60, "10 mx.example.")
        self.assertEqual(await self.resolver.mail_exchangers("a.example"), [(10, "mx.example")])
        self.assertEqual(list(await self.resolver.addresses("a.example")), [])

    async def test_an_endless_cname_chain_fails(self) -> None:
        self.answer_aliases({f"a{n}.example.": f"a{n + 1}.example." for n in range(100)})
        await self.assertFails("a0.example", "an endless chain of CNAME records")
        self.assertLess(len(self.server.queries), 10)

    async def test_the_ad_bit_holds_for_a_whole_chain_or_not_at_all(self) -> None:
        self.answer_aliases({"a.example.": "b.example."})
        self.server.records["b.example. MX"] = (60, "10 mx.example.")
        self.server.flags = dns.flags.AD  # of the second answer alone
        self.assertFalse((await self.resolver.lookup("a.example", "MX")).authenticated)
        self.assertTrue((await self.resolver.lookup("b.example", "MX")).authenticated)

    async def assertFails(self, domain: str, reason: str) -> None:
        with self.assertRaises(LookupFailed) as raised:
            await self.resolver.mail_exchangers(domain)
        self.assertEqual(str(raised.exception), f"MX of {domain}: {reason}")

    async def test_a_referral_fails(self) -> None:
        # RFC 2308 §2.2
        self.server.records["example. TXT"] = (60, "here")
        self.server.authority = "example. 300 IN NS ns.elsewhere.example."
        await self.assertFails("example", "the name server only refers to other name servers")

    async def test_failures_have_reasons_for_operators(self) -> None:
        for rcode in ("SERVFAIL", "REFUSED", "FORMERR", "NOTIMP"):
            self.server.rcode = dns.rcode.from_text(rcode)
            await self.assertFails("example", f"the name server answers {rcode}")
        self.server.rcode = dns.rcode.NOERROR
        self.server.silent = True
        self.resolver = self.make_resolver(timeout=0.3)
        await self.assertFails("example", "no answer in time")
        unused = reactor.listenUDP(0, DatagramProtocol(), interface=self.interface)  # type: ignore[attr-defined]
        port = unused.getHost().port
        await unused.stopListening()
        self.resolver = self.make_resolver(port=port)
        await self.assertFails("example", "no name server listens at its address")

    async def test_nxdomain_is_no_such_domain(self) -> None:
        for lookup in (self.resolver.mail_exchangers, self.resolver.addresses):
            with self.assertRaises(NoSuchDomain) as raised:
                await lookup("nowhere.example")
            self.assertEqual(raised.exception.domain, "nowhere.example")

    async def test_invalid_domain_names_do_not_exist(self) -> None:
        for name in ("x" * 64, "a..b", ".".join(["x" * 60] * 5)):
            await self.assertFailure(self.resolver.mail_exchangers(name), NoSuchDomain)
        self.assertEqual(self.server.queries, [])

    async def test_servfail_and_refused_fail(self) -> None:
        for rcode in (dns.rcode.SERVFAIL, dns.rcode.REFUSED):
            self.server.rcode = rcode
            await self.assertFailure(self.resolver.mail_exchangers("example"), LookupFailed)
            await self.assertFailure(self.resolver.addresses("example"), LookupFailed)

    async def test_a_failing_family_does_not_hide_the_other(self) -> None:
        real = self.server.respond

        def respond(query: dns.message.Message) -> dns.message.Message:
            failing = self.server.question(query).endswith(" AAAA")
            self.server.rcode = dns.rcode.SERVFAIL if failing else dns.rcode.NOERROR
            return real(query)

        self.patch(self.server, "respond", respond)
        self.server.records["mx.example. A"] = (60, "192.0.2.1")
        self.assertEqual(await self.resolver.addresses("mx.example"), ["192.0.2.1"])
        # Where the other family has no record, the host may still have an address.
        self.server.records["v6.example. TXT"] = (60, "x")
        await self.assertFailure(self.resolver.addresses("v6.example"), LookupFailed)
        await self.assertFailure(self.resolver.addresses("gone.example"), LookupFailed)

    async def test_a_silent_server_is_queried_again_before_the_lookup_fails(self) -> None:
        self.server.silent = True
        lookup = self.make_resolver(timeout=0.3).mail_exchangers("example")
        await self.assertFailure(lookup, LookupFailed)
        self.assertGreater(len(self.server.queries), 1)

    async def test_a_refused_port_fails_at_once(self) -> None:
        unused = reactor.listenUDP(0, DatagramProtocol(), interface=self.interface)  # type: ignore[attr-defined]
        port = unused.getHost().port
        await unused.stopListening()
        resolver = self.make_resolver(timeout=3600.0, port=port)
        await self.assertFailure(resolver.mail_exchangers("example"), LookupFailed)

    async def test_unrelated_answers_are_ignored(self) -> None:
        self.server.records["example. MX"] = (60, "10 mx.example.")
        self.server.spoil = lambda wire: [
            b"",
            b"rubbish",
            bytes([wire[0] ^ 1]) + wire[1:].replace(b"\x02mx", b"\x02xm"),
            wire,
        ]
        found = await self.resolver.mail_exchangers("example")
        self.assertEqual(list(found), [(10, "mx.example")])

    async def test_a_truncated_answer_is_queried_again_over_tcp(self) -> None:
        self.serve_also_over_tcp()
        self.server.truncates = True
        names = [f"{number} mx{number}.example." for number in range(200)]
        self.server.records["example. MX"] = (60, *names)
        self.assertEqual(len(await self.resolver.mail_exchangers("example")), 200)
        self.assertEqual(len(self.server.queries), 2)

    async def test_a_truncated_answer_without_tcp_fails(self) -> None:
        self.server.truncates = True
        self.server.records["example. MX"] = (60, "10 mx.example.")
        lookup = self.make_resolver(timeout=0.3).mail_exchangers("example")
        await self.assertFailure(lookup, LookupFailed)

    async def test_the_ad_bit_is_requested_and_returned(self) -> None:
        self.server.records["example. MX"] = (60, "10 mx.example.")
        self.server.records["signed.example. MX"] = (60, "10 mx.example.")
        self.assertFalse((await self.resolver.lookup("example", "MX")).authenticated)
        self.server.flags = dns.flags.AD
        for _ in ("queried", "cached"):
            self.assertTrue((await self.resolver.lookup("signed.example", "MX")).authenticated)
        for query in self.server.queries:
            self.assertTrue(query.flags & dns.flags.AD)
            self.assertEqual((query.edns, query.payload), (0, 1232))

    async def test_answers_are_cached_for_their_ttl(self) -> None:
        self.server.records["example. MX"] = (60, "10 mx.example.")
        self.server.records["brief.example. MX"] = (0, "10 mx.example.")
        for _ in range(3):
            await self.resolver.mail_exchangers("example")
            await self.resolver.mail_exchangers("brief.example")
        self.assertEqual(self.server.questions().count("example. MX"), 1)
        self.assertEqual(self.server.questions().count("brief.example. MX"), 3)

    async def test_negative_answers_with_a_ttl_are_cached(self) -> None:
        # RFC 2308 §5
        for authority, times in ((SOA, 1), (None, 3)):
            self.server.authority = authority
            self.server.queries.clear()
            for _ in range(3):
                name = f"gone-{times}.example"
                await self.assertFailure(self.resolver.mail_exchangers(name), NoSuchDomain)
            self.assertEqual(len(self.server.queries), times)

    async def test_the_cache_answers_at_once_and_the_same(self) -> None:
        self.server.records["some.example. TXT"] = (60, "some")
        self.server.records["none.example. TXT"] = (60,)
        self.answer_aliases({"alias.example.": "some.example."})
        for name, expected in (
            ("some.example", [b"some"]),
            ("none.example", []),
            ("alias.example", [b"some"]),
            ("gone.example", None),
            ("not..valid", None),
        ):
            with self.subTest(name=name):
                for look_up in (self.resolver.text, self.at_once):
                    try:
                        found = list(await look_up(name))
                    except NoSuchDomain as missing:
                        self.assertIsNone(expected)
                        self.assertIn(f"TXT of {name}: ", str(missing))
                    else:
                        self.assertEqual(found, expected)

    def at_once(self, name: str) -> Deferred[Sequence[bytes]]:
        asked = len(self.server.queries)
        lookup = self.resolver.text(name)
        self.assertTrue(lookup.called)
        self.assertEqual(len(self.server.queries), asked)
        return lookup

    async def test_failures_are_not_cached(self) -> None:
        self.server.rcode = dns.rcode.SERVFAIL
        await self.assertFailure(self.resolver.mail_exchangers("example"), LookupFailed)
        self.server.rcode = dns.rcode.NOERROR
        self.server.records["example. MX"] = (60, "10 mx.example.")
        self.assertEqual(len(await self.resolver.mail_exchangers("example")), 1)

    async def test_the_number_of_concurrent_queries_is_bounded(self) -> None:
        self.server.silent = True
        before = len(os.listdir("/proc/self/fd"))
        resolver = self.make_resolver(timeout=1.0)
        lookups = [resolver.lookup(f"d{number}.example", "MX") for number in range(500)]
        self.assertLess(len(os.listdir("/proc/self/fd")) - before, 100)
        for lookup in lookups:
            lookup.addErrback(lambda failure: failure.trap(LookupFailed, NoSuchDomain))
        self.server.silent = False
        await gatherResults(lookups)

    if not os.path.isdir("/proc/self/fd"):
        test_the_number_of_concurrent_queries_is_bounded.skip = "no /proc"  # type: ignore[attr-defined]

    async def test_the_strings_of_a_text_record_are_joined_octet_by_octet(self) -> None:
        long = " ".join(f'"{digit * 255}"' for digit in "123")
        self.server.records["example. TXT"] = (60, '"v=spf1 " "-all"', '"\\255\\000;" ""', long)
        self.assertEqual(
            sorted(await self.resolver.text("example")),
            sorted((b"v=spf1 -all", b"\xff\0;", b"1" * 255 + b"2" * 255 + b"3" * 255)),
        )

    async def test_a_text_record_that_is_no_text_fails(self) -> None:
        self.server.records["example. TXT"] = (60, "abc")
        self.server.spoil = lambda wire: [wire.replace(b"\4\3abc", b"\4\4abc")]
        with self.assertRaises(LookupFailed) as raised:
            await self.resolver.text("example")
        self.assertEqual(str(raised.exception), "TXT of example: a malformed answer")

    async def test_an_address_has_the_names_of_its_pointers(self) -> None:
        self.server.records["1.2.0.192.in-addr.arpa. PTR"] = (60, "a.example.", "B.example.")
        nibbles = ".".join("1" + "0" * 23 + "8bd01002")
        self.server.records[f"{nibbles}.ip6.arpa. PTR"] = (60, "six.example.")
        for address in ("192.0.2.1", "::ffff:192.0.2.1"):
            found = await self.resolver.pointers(address)
            self.assertEqual(sorted(found), ["a.example", "b.example"])
        self.assertEqual(list(await self.resolver.pointers("2001:db8::1")), ["six.example"])
        for address in ("192.0.2.2", "box", "", "2001:db8::2%eth0"):
            await self.assertFailure(self.resolver.pointers(address), NoSuchDomain)

    async def test_the_addresses_of_one_family_are_queried_alone(self) -> None:
        self.server.records["mx.example. A"] = (60, "192.0.2.1", "192.0.2.2")
        self.server.records["mx.example. AAAA"] = (60, "2001:db8::1")
        self.server.records["v4.example. A"] = (60, "192.0.2.3")
        found = await self.resolver.family_addresses("mx.example", 4)
        self.assertEqual(sorted(found), ["192.0.2.1", "192.0.2.2"])
        self.assertEqual(self.server.questions(), ["mx.example. A"])
        self.assertEqual(await self.resolver.family_addresses("mx.example", 6), ["2001:db8::1"])
        self.assertEqual(list(await self.resolver.family_addresses("v4.example", 6)), [])
        # The hosts file is ours, and says nothing about the names of others.
        await self.assertFailure(self.resolver.family_addresses("box", 4), NoSuchDomain)

    async def test_the_records_of_strangers_are_bounded(self) -> None:
        self.serve_also_over_tcp()
        self.server.truncates = True
        self.server.records["example. TXT"] = (60, *(f"text{number}" for number in range(700)))
        self.server.records["example. A"] = (
            60,
            *(f"192.0.{n // 250}.{n % 250}" for n in range(700)),
        )
        names = (f"n{number}.example." for number in range(700))
        self.server.records["1.2.0.192.in-addr.arpa. PTR"] = (60, *names)
        self.assertEqual(len(await self.resolver.text("example")), 500)
        self.assertEqual(len(await self.resolver.family_addresses("example", 4)), 500)
        self.assertEqual(len(await self.resolver.pointers("192.0.2.1")), 500)

    async def test_the_hosts_file_precedes_the_dns(self) -> None:
        self.assertEqual(list(await self.resolver.addresses("box")), ["192.0.2.9"])
        self.assertEqual(self.server.queries, [])
        # A name that is only in the hosts file exists, and has no MX record.
        self.assertEqual(list(await self.resolver.mail_exchangers("nodns.example")), [])


class LookupsOverIPv6(TestCase):
    async def test_a_name_server_may_have_an_ipv6_address(self) -> None:
        server = NameServer()
        try:
            port = reactor.listenUDP(0, server, interface="::1")  # type: ignore[attr-defined]
        except CannotListenError:
            raise SkipTest("this machine has no IPv6") from None
        self.addCleanup(port.stopListening)
        resolver = DNSResolver(reactor, nameservers=[Host("::1", port.getHost().port)], hosts={})
        server.records["example. MX"] = (60, "10 mx.example.")
        self.assertEqual(list(await resolver.mail_exchangers("example")), [(10, "mx.example")])


class Configuration(TidyTestCase):
    def test_a_name_server_must_be_an_address(self) -> None:
        error = self.assertRaises(
            ValueError, DNSResolver, reactor, nameservers=[Host("ns.example", 53)]
        )
        self.assertIn("ns.example", str(error))

    def test_a_hosts_file_has_addresses_in_its_order(self) -> None:
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as file:
            file.write(
                "# ours\n127.0.0.1 localhost\n\n::1\tlocalhost ip6-localhost # both\n"
                "192.0.2.1 Relay.Example. relay\n192.0.2.1 relay\nrubbish relay\n192.0.2.2\n"
            )
        self.assertEqual(
            {name: list(addresses) for name, addresses in read_hosts(path).items()},
            {
                "localhost": ["127.0.0.1", "::1"],
                "ip6-localhost": ["::1"],
                "relay.example": ["192.0.2.1"],
                "relay": ["192.0.2.1"],
            },
        )
        self.assertEqual(read_hosts(self.mktemp()), {})
