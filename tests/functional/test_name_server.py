"""Lookups of mail exchangers with a real name server, NSD, on loopback."""

from __future__ import annotations

import random
from collections.abc import Sequence

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from twisted_mta.dns import DNSResolver, LookupFailed, NoSuchDomain
from twisted_mta.interfaces import NoTarget
from twisted_mta.mail.next_hop import Host, NextHop, Target
from twisted_mta.routing.exchangers import TargetLocator

from .machine import LOOPBACK, folder, need
from .nsd import NSD

MANY = "\n".join(f"many MX {number} mx{number % 3}.a-long-name-{number}" for number in range(80))

ZONES = {
    "mail.example": f"""\
@          MX 20 mx2
@          MX 10 mx1
mx1        A 192.0.2.1
mx1        A 192.0.2.11
mx1        AAAA 2001:db8::1
mx2        A 192.0.2.2
equal      MX 10 mx1
equal      MX 10 mx2
implicit   A 192.0.2.5
null       MX 0 .
text       TXT "neither mail nor an address"
us         MX 10 mx1
us         MX 20 our
us         MX 20 mx2
best       MX 10 our
best       MX 20 mx1
our        A 192.0.2.9
alias      CNAME @
chain      CNAME alias
there      CNAME mail.other.example.
host       CNAME mx1
byhost     MX 10 host
away       MX 10 there.mail.example.
dangling   CNAME nowhere
nothing    MX 10 nowhere
partly     MX 10 nowhere
partly     MX 20 mx2
bogus      MX 10 192.0.2.1.
bogus      MX 20 localhost.
lame       NS ns.elsewhere.example.
failing    MX 10 mx.broken.example.
failover   MX 10 mx.broken.example.
failover   MX 20 mx2
tobroken   CNAME broken.example.
*.wild     MX 10 mx2
signed     TXT "v=DKIM1; k=rsa; p={"A" * 200}" "{"B" * 200}"
several    TXT "v=spf1 -all"
several    TXT "\\255\\000;" ""
long       TXT {" ".join(f'"{letter * 255}"' for letter in "abcdefghij")}
{MANY}
""",
    "other.example": "mail MX 10 mx\nmx A 192.0.2.3\nback CNAME there.mail.example.\n",
    "2.0.192.in-addr.arpa": "1 PTR mx1.mail.example.\n1 PTR MX.Other.example.\n2 TXT x\n",
    "broken.example": None,
}


class Exchanging(TestCase):
    def setUp(self) -> None:
        need("nsd", "nsd-checkconf")
        home = self.enterContext(folder("nsd"))
        self.server = self.enterContext(NSD(home, ZONES))
        self.resolver = self.make_resolver(self.server.port)

    def make_resolver(self, *ports: int) -> DNSResolver:
        nameservers = [Host(LOOPBACK, port) for port in ports]
        resolver = DNSResolver(reactor, nameservers=nameservers, timeout=5.0, hosts={})
        self.addCleanup(resolver.stop)
        return resolver

    def locate(self, domain: str) -> Deferred[Sequence[Target]]:
        exchangers = TargetLocator(
            self.resolver,
            random=random.Random(1),
            is_local=lambda name: name == "our.mail.example",
        )
        return exchangers.locate(NextHop("smtp", domain=domain))

    async def assertTargets(self, domain: str, *expected: str) -> None:
        found = [each.address for each in await self.locate(domain)]
        self.assertEqual(found, list(expected), domain)

    async def assertNone(self, domain: str, *expected: str) -> None:
        with self.assertRaises(NoTarget) as raised:
            await self.locate(domain)
        reply = str(raised.exception.reply)
        for each in expected:
            self.assertIn(each, reply)
        for word in (
            "dns.",
            "Do53",
            "IN MX",
            LOOPBACK,
        ):  # words of the library, for programmers only
            self.assertNotIn(word, reply)

    async def test_domains_that_accept_mail_have_targets(self) -> None:
        first, *_ = found = [each.address for each in await self.locate("mail.example")]
        self.assertEqual(first, "2001:db8::1")
        self.assertEqual(sorted(found[1:3]), ["192.0.2.1", "192.0.2.11"])
        self.assertEqual(found[3:], ["192.0.2.2"])
        self.assertEqual(len(await self.locate("equal.mail.example")), 4)
        await self.assertTargets("implicit.mail.example", "192.0.2.5")
        await self.assertTargets("any.wild.mail.example", "192.0.2.2")
        await self.assertTargets("partly.mail.example", "192.0.2.2")

    async def test_an_answer_that_is_too_large_for_a_datagram_is_read_over_tcp(self) -> None:
        found = await self.resolver.mail_exchangers("many.mail.example")
        self.assertEqual(len(found), 80)

    async def test_texts_are_read_octet_by_octet(self) -> None:
        (signed,) = await self.resolver.text("signed.mail.example")
        self.assertEqual(signed, b"v=DKIM1; k=rsa; p=" + b"A" * 200 + b"B" * 200)
        several = await self.resolver.text("several.mail.example")
        self.assertEqual(sorted(several), [b"v=spf1 -all", b"\xff\0;"])
        (long,) = await self.resolver.text("long.mail.example")  # over TCP
        self.assertEqual(long, b"".join(bytes([letter]) * 255 for letter in b"abcdefghij"))
        self.assertEqual(list(await self.resolver.text("mx1.mail.example")), [])

    async def test_addresses_have_names(self) -> None:
        found = await self.resolver.pointers("192.0.2.1")
        self.assertEqual(sorted(found), ["mx.other.example", "mx1.mail.example"])
        self.assertEqual(list(await self.resolver.pointers("192.0.2.2")), [])
        await self.assertFailure(self.resolver.pointers("192.0.2.3"), NoSuchDomain)
        await self.assertFailure(self.resolver.pointers("2001:db8::1"), LookupFailed)
        self.assertEqual(
            list(await self.resolver.family_addresses("mx1.mail.example", 6)), ["2001:db8::1"]
        )

    async def test_aliases_are_followed_within_a_zone_and_beyond(self) -> None:
        # RFC 5321 §5.1; that an exchanger is an alias is against RFC 2181 §10.3, and common
        for domain in ("alias.mail.example", "chain.mail.example"):
            self.assertEqual(len(await self.locate(domain)), 4, domain)
        await self.assertTargets("there.mail.example", "192.0.2.3")
        await self.assertTargets("back.other.example", "192.0.2.3")
        self.assertEqual(len(await self.locate("byhost.mail.example")), 3)
        await self.assertNone("dangling.mail.example", "550 5.1.2", "does not exist")

    async def test_domains_that_accept_no_mail(self) -> None:
        await self.assertNone("null.mail.example", "556 5.1.10")
        await self.assertNone("text.mail.example", "550 5.4.4")
        await self.assertNone("gone.mail.example", "550 5.1.2", "does not exist")
        await self.assertNone("nothing.mail.example", "550 5.4.4")
        await self.assertNone("bogus.mail.example", "550 5.4.4")

    async def test_exchangers_behind_ourselves_are_left_out(self) -> None:
        found = [each.name for each in await self.locate("us.mail.example")]
        self.assertEqual(found, ["mx1.mail.example"] * 3)
        await self.assertNone("best.mail.example", "554 5.4.6")

    async def test_lookups_that_fail_temporarily_defer_mail(self) -> None:
        for domain, reason in (
            ("broken.example", "SERVFAIL"),
            ("tobroken.mail.example", "SERVFAIL"),
            ("unknown.example", "REFUSED"),
            ("lame.mail.example", "the name server only refers to other name servers"),
            ("below.lame.mail.example", "the name server only refers to other name servers"),
        ):
            await self.assertNone(domain, "451 4.4.3", reason)
        await self.assertNone("failing.mail.example", "451 4.4.4")
        await self.assertTargets("failover.mail.example", "192.0.2.2")

    async def test_after_a_timeout_the_next_name_server_is_asked(self) -> None:
        gone = self.server.port
        await self.assertTargets("implicit.mail.example", "192.0.2.5")
        remembering = self.resolver
        second = self.enterContext(NSD(self.enterContext(folder("nsd")), ZONES))
        self.server.terminate()
        self.resolver = self.make_resolver(gone, second.port)
        await self.assertTargets("implicit.mail.example", "192.0.2.5")
        self.resolver = self.make_resolver(gone)
        await self.assertNone(
            "implicit.mail.example", "451 4.4.3", "no name server listens at its address"
        )
        # Cached answers are used for their time to live.
        self.resolver = remembering
        await self.assertTargets("implicit.mail.example", "192.0.2.5")
        await self.assertNone("mail.example", "451 4.4.3")
