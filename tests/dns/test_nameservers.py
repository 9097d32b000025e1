"""Name servers without EDNS, slow or dead ones, and wrong negative answers."""

from __future__ import annotations

import random  # noqa: TID251 - seeded
import socket
from collections.abc import Sequence
from functools import partial
from typing import Any

import dns.edns
import dns.message
import dns.rcode
from twisted.internet import reactor  # noqa: TID251 - real sockets
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.trial.unittest import TestCase

from tests.dns.scripted import LOOPBACK, NameServer, listen
from twisted_mta.dns import DNSResolver, LookupFailed, NoSuchDomain
from twisted_mta.dns import resolver as resolver_module
from twisted_mta.dns.query import Timing
from twisted_mta.interfaces import NoTarget
from twisted_mta.mail.next_hop import Host, NextHop
from twisted_mta.routing.exchangers import TargetLocator


class Later:
    """The reactor, with a clock that a test can advance."""

    def __init__(self) -> None:
        self.offset = 0.0

    def seconds(self) -> float:
        return self.offset + reactor.seconds()  # type: ignore[attr-defined,no-any-return]

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


class ScriptedTestCase(TestCase):
    def setUp(self) -> None:
        self.server = NameServer()
        self.port = listen(self, self.server)
        self.clock = Later()
        self.resolver = self.make_resolver(self.port)

    def make_resolver(self, *ports: int, timeout: float = 10.0) -> DNSResolver:
        return DNSResolver(
            self.clock,
            nameservers=[Host(LOOPBACK, port) for port in ports],
            timeout=timeout,
            hosts={},
        )

    def queried_with_edns(self) -> list[bool]:
        with_edns = [query.edns >= 0 for query in self.server.queries]
        self.server.queries.clear()
        return with_edns


class WithoutEDNS(ScriptedTestCase):
    """Name servers without EDNS (RFC 6891 §7)."""

    def setUp(self) -> None:
        super().setUp()
        self.server.records["example. MX"] = (0, "10 mx.example.")

    async def assertFound(self) -> None:
        self.assertEqual(await self.resolver.mail_exchangers("example"), [(10, "mx.example")])

    def say(self, rcode: dns.rcode.Rcode, *, cut: int | None = None) -> None:
        def answer(query: dns.message.Message) -> bytes:
            plain = dns.message.make_query("example.", "MX", id=query.id)
            response = dns.message.make_response(plain)
            if rcode > 15:
                response.use_edns(0)
            response.set_rcode(rcode)
            return response.to_wire()[:cut]

        self.server.answers_edns = answer

    async def test_a_refused_opt_record_is_left_out_at_once_and_from_then_on(self) -> None:
        for rcode in ("FORMERR", "NOTIMP", "BADVERS", "SERVFAIL", "REFUSED"):
            self.resolver = self.make_resolver(self.port)
            self.say(dns.rcode.from_text(rcode))
            await self.assertFound()
            self.assertEqual(self.queried_with_edns(), [True, False], rcode)
            await self.assertFound()
            self.assertEqual(self.queried_with_edns(), [False], rcode)

    async def test_an_error_of_a_header_alone_counts_as_an_answer(self) -> None:
        self.server.answers_edns = lambda query: (
            query.id.to_bytes(2, "big") + b"\x80\x01" + bytes(8)
        )
        await self.assertFound()

    async def test_malformed_answers_to_edns_have_the_same_effect(self) -> None:
        for cut in (3, 11, 13, 20, 28):
            self.resolver = self.make_resolver(self.port)
            self.say(dns.rcode.NOERROR, cut=cut)
            await self.assertFound()
            self.assertEqual(self.queried_with_edns(), [True, False], cut)

    async def test_silence_to_edns_has_the_same_effect(self) -> None:
        self.server.answers_edns = lambda query: None
        self.resolver = self.make_resolver(self.port, timeout=0.4)
        await self.assertFound()
        self.assertEqual(self.queried_with_edns(), [True, False])
        await self.assertFound()
        self.assertEqual(self.queried_with_edns(), [False])

    async def test_edns_is_tried_again_after_a_while(self) -> None:
        self.say(dns.rcode.FORMERR)
        await self.assertFound()
        self.server.answers_edns = None
        self.queried_with_edns()
        self.clock.offset = 3601.0
        await self.assertFound()
        self.assertEqual(self.queried_with_edns(), [True])

    async def test_a_server_that_knows_edns_gets_it_again_after_a_loss(self) -> None:
        await self.assertFound()
        self.queried_with_edns()
        self.resolver._queries.timing = Timing(0.4)  # pauses of 0.2 s
        lost = [True]
        self.server.spoil = lambda wire: [] if lost and lost.pop() else [wire]
        await self.assertFound()
        self.assertEqual(self.queried_with_edns(), [True, True])

    async def test_a_server_that_refuses_without_edns_too_fails_the_lookup(self) -> None:
        self.server.rcode = dns.rcode.REFUSED
        with self.assertRaises(LookupFailed) as raised:
            await self.resolver.mail_exchangers("example")
        self.assertIn("the name server answers REFUSED", str(raised.exception))


class NegativeByType(ScriptedTestCase):
    def locate(self, domain: str) -> Deferred[Sequence[Any]]:
        exchangers = TargetLocator(
            self.resolver,
            random=random.Random(1),
            is_local=lambda name: False,
        )
        return exchangers.locate(NextHop("smtp", domain=domain))

    async def assertTargets(self, domain: str, *expected: str) -> None:
        for _ in ("queried", "cached"):
            found = [each.address for each in await self.locate(domain)]
            self.assertEqual(found, list(expected), domain)

    async def assertNone(self, domain: str, expected: str) -> None:
        for _ in ("queried", "cached"):
            with self.assertRaises(NoTarget) as raised:
                await self.locate(domain)
            self.assertEqual(str(raised.exception.reply)[: len(expected)], expected)

    async def test_nxdomain_to_aaaa_does_not_hide_an_a_record(self) -> None:
        # RFC 4074 §4.2
        self.server.records["example. MX"] = (60, "10 mx.example.")
        self.server.records["mx.example. A"] = (60, "192.0.2.1")
        self.server.nxdomain.append("mx.example. AAAA")
        await self.assertTargets("example", "192.0.2.1")

    async def test_nxdomain_to_a_does_not_hide_an_aaaa_record(self) -> None:
        self.server.records["mx.example. AAAA"] = (60, "2001:db8::1")
        self.server.nxdomain.append("mx.example. A")
        await self.assertTargets("mx.example", "2001:db8::1")

    async def test_nxdomain_to_mx_does_not_hide_an_address(self) -> None:
        self.server.records["example. A"] = (60, "192.0.2.1")
        self.server.nxdomain += ["example. MX", "example. AAAA"]
        await self.assertTargets("example", "192.0.2.1")
        self.assertEqual(
            sorted(self.server.questions()), ["example. A", "example. AAAA", "example. MX"]
        )

    async def test_a_domain_does_not_exist_where_all_answers_agree(self) -> None:
        await self.assertNone("gone.example", "550 5.1.2")
        questions = self.server.questions()
        self.assertEqual(len(questions), 3)
        self.assertEqual(sorted(questions), sorted(dict.fromkeys(questions)))  # each once

    async def test_a_domain_without_agreement_exists_and_has_no_address(self) -> None:
        self.server.records["example. A"] = (60,)
        self.server.nxdomain += ["example. MX", "example. AAAA"]
        await self.assertNone("example", "550 5.4.4")

    async def test_an_unknown_family_defers(self) -> None:
        self.resolver = self.make_resolver(self.port, timeout=0.2)
        self.server.nxdomain += ["example. MX", "example. A", "mx. A"]
        self.server.drops += ["example. AAAA", "mx. AAAA"]
        self.server.records["other. MX"] = (60, "10 mx.")
        await self.assertNone("example", "451 4.4.3")
        await self.assertNone("other", "451 4.4.4")

    async def test_an_unanswered_family_delays_the_other_briefly(self) -> None:
        self.patch(resolver_module, "_OTHER_FAMILY", 0.05)
        self.resolver = self.make_resolver(self.port, timeout=2.0)
        self.server.records["example. A"] = (60, "192.0.2.1")
        self.server.drops.append("example. AAAA")
        began = self.clock.seconds()
        self.assertEqual(await self.resolver.addresses("example"), ["192.0.2.1"])
        self.assertLess(self.clock.seconds() - began, 1.5)
        with self.assertRaises(LookupFailed):  # no timer may be left
            await self.resolver.lookup("example", "AAAA")

    async def test_a_cname_to_a_missing_name_does_not_exist(self) -> None:
        real = self.server.respond

        def respond(query: dns.message.Message) -> dns.message.Message:
            response = real(query)
            name = self.server.question(query).split()[0]
            response.answer.append(dns.rrset.from_text(name, 60, "IN", "CNAME", "nowhere.example."))
            response.set_rcode(dns.rcode.NXDOMAIN)
            return response

        self.patch(self.server, "respond", respond)
        await self.assertNone("alias.example", "550 5.1.2")


class Timeouts(ScriptedTestCase):
    async def test_a_slow_server_may_answer_until_the_timeout(self) -> None:
        self.server.records["example. MX"] = (60, "10 mx.example.")
        slow = self.server.datagramReceived
        calls = []

        def receive(datagram: bytes, addr: object) -> None:
            # A repeated query is not answered twice, as with real resolvers.
            if not calls:
                calls.append(reactor.callLater(0.85, slow, datagram, addr))  # type: ignore[attr-defined]

        self.patch(self.server, "datagramReceived", receive)
        self.resolver = self.make_resolver(self.port, timeout=1.0)
        self.assertEqual(await self.resolver.mail_exchangers("example"), [(10, "mx.example")])

    async def test_the_cache_uses_the_given_clock(self) -> None:
        self.server.records["example. MX"] = (60, "10 mx.example.")
        for offset, times in ((0.0, 1), (59.0, 1), (61.0, 2)):
            self.clock.offset = offset
            await self.resolver.mail_exchangers("example")
            self.assertEqual(len(self.server.queries), times)

    async def test_a_negative_answer_is_cached_for_the_minimum_of_both_ttls(self) -> None:
        # RFC 2308 §5
        for ttl, minimum in ((30, 300), (300, 30)):
            self.server.queries.clear()
            self.server.authority = (
                f"example. {ttl} IN SOA ns.example. a.example. 1 2 3 4 {minimum}"
            )
            for offset, times in ((0.0, 1), (29.0, 1), (31.0, 2)):
                self.clock.offset = offset
                with self.assertRaises(NoSuchDomain):
                    await self.resolver.mail_exchangers(f"gone{ttl}.example")
                self.assertEqual(len(self.server.queries), times)


class Several(ScriptedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.second = NameServer()
        self.second_port = listen(self, self.second, tcp=True)
        for server in (self.server, self.second):
            server.records["example. MX"] = (0, "10 mx.example.")

    timeout = 30  # as long as a test may take

    def pause_long(self) -> None:
        """Let the next name server be queried by the clock after an hour only."""
        self.patch(resolver_module, "Timing", partial(Timing, pause=3600.0))

    async def find(self, *ports: int, timeout: float = 1.0) -> Sequence[tuple[int, str]]:
        self.resolver = self.make_resolver(*ports, timeout=timeout)
        return await self.resolver.mail_exchangers("example")

    async def test_a_silent_server_is_queried_last_for_a_while(self) -> None:
        self.server.silent = True
        await self.find(self.port, self.second_port)
        first = len(self.server.queries)
        for _ in range(3):
            await self.resolver.mail_exchangers("example")
        self.assertEqual(len(self.server.queries), first)
        self.clock.offset = 61.0
        self.server.silent = False
        await self.resolver.mail_exchangers("example")
        self.assertEqual(len(self.server.queries), first + 1)

    async def test_a_failing_server_is_followed_by_the_next_at_once(
        self,
    ) -> None:
        self.pause_long()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
            unused.bind((LOOPBACK, 0))
            dead = unused.getsockname()[1]
        found = await self.find(dead, self.second_port, timeout=36_000.0)
        self.assertEqual(found, [(10, "mx.example")])
        self.server.rcode = dns.rcode.SERVFAIL
        found = await self.find(self.port, self.second_port, timeout=36_000.0)
        self.assertEqual(found, [(10, "mx.example")])

    async def test_a_server_that_refuses_tcp_is_followed_by_the_next_at_once(self) -> None:
        self.pause_long()
        self.server.truncates = True
        found = await self.find(self.port, self.second_port, timeout=36_000.0)
        self.assertEqual(found, [(10, "mx.example")])

    async def test_a_server_beyond_a_missing_interface_is_passed_over(self) -> None:
        nameservers = [Host("fe80::1%nowhere0", 53), Host(LOOPBACK, self.second_port)]
        resolver = DNSResolver(self.clock, nameservers=nameservers, hosts={})
        self.assertEqual(await resolver.mail_exchangers("example"), [(10, "mx.example")])

    async def test_many_unrelated_datagrams_lead_to_tcp(self) -> None:
        self.second.spoil = lambda wire: [bytes([wire[0] ^ 1]) + wire[1:]] * 40 + [wire]
        await self.find(self.second_port, timeout=5.0)
        self.assertEqual(len(self.second.queries), 2)


class SharedQueries(ScriptedTestCase):
    async def test_one_query_serves_concurrent_lookups(self) -> None:
        self.server.records["example. MX"] = (0, "10 mx.example.")
        self.server.records["mx.example. A"] = (0, "192.0.2.1")
        found = await gatherResults([self.resolver.mail_exchangers("example") for _ in range(5)])
        self.assertEqual(found, [[(10, "mx.example")]] * 5)
        found = await gatherResults([self.resolver.addresses("mx.example") for _ in range(5)])
        self.assertEqual(found, [["192.0.2.1"]] * 5)
        self.assertEqual(
            sorted(self.server.questions()), ["example. MX", "mx.example. A", "mx.example. AAAA"]
        )

    async def test_a_canceled_lookup_leaves_the_others(self) -> None:
        self.server.records["example. MX"] = (0, "10 mx.example.")
        first, second, third = (self.resolver.mail_exchangers("example") for _ in range(3))
        first.cancel()
        third.cancel()
        self.assertEqual(await second, [(10, "mx.example")])
        await self.assertFailure(first, CancelledError)
        await self.assertFailure(third, CancelledError)
        self.assertEqual(self.server.questions(), ["example. MX"])

    async def test_the_answer_is_cached_even_if_all_lookups_are_canceled(self) -> None:
        self.server.records["example. MX"] = (60, "10 mx.example.")
        lookup = self.resolver.mail_exchangers("example")
        lookup.cancel()
        await self.assertFailure(lookup, CancelledError)
        self.assertEqual(await self.resolver.mail_exchangers("example"), [(10, "mx.example")])
        self.assertEqual(self.server.questions(), ["example. MX"])

    async def test_a_failure_reaches_all_lookups(self) -> None:
        self.server.rcode = dns.rcode.SERVFAIL
        lookups = [self.resolver.mail_exchangers("example") for _ in range(3)]
        for lookup in lookups:
            await self.assertFailure(lookup, LookupFailed)
        self.assertEqual(self.server.questions(), ["example. MX"])

    async def test_stopping_fails_running_queries_and_leaves_nothing_open(self) -> None:
        self.server.silent = True
        before = len(reactor.getReaders())  # type: ignore[attr-defined]
        lookups = [self.resolver.mail_exchangers(f"d{number}.example") for number in range(100)]
        self.assertGreater(len(reactor.getReaders()), before)  # type: ignore[attr-defined]
        self.resolver.stop()
        for lookup in lookups:
            await self.assertFailure(lookup, LookupFailed)
        self.assertEqual(len(reactor.getReaders()), before)  # type: ignore[attr-defined]
        self.server.silent = False
        self.server.records["example. MX"] = (60, "10 mx.example.")
        self.assertEqual(await self.resolver.mail_exchangers("example"), [(10, "mx.example")])
