"""DANE on the way of a message (RFC 7672), with real TLS in memory and a scripted DNS."""

from __future__ import annotations

import random  # noqa: TID251 - seeded, so every run draws the same
from collections.abc import Sequence

from twisted.internet.defer import Deferred

from tests.delivery.hops import HopTestCase, to
from tests.delivery.test_relay import FIRST, PARTING, SECOND, TAKEN
from tests.server.authority import Authority, Issued, self_signed
from tests.tls.test_client import SECURED, TLS_OPENING
from tests.tls.test_dane import record
from tests.tls.test_verification import TOO_WEAK, shown
from twisted_mta.config import Config, DeliverySettings, Destination
from twisted_mta.delivery.host_policies import HostPolicies
from twisted_mta.delivery.relay import Relay
from twisted_mta.interfaces import TLSPolicies
from twisted_mta.mail.next_hop import Host, NextHop, Target
from twisted_mta.mail.outcome import Outcome
from twisted_mta.mail.tlsa import TLSA
from twisted_mta.routing.exchangers import TargetLocator
from twisted_mta.testing.peer import ScriptedPeer, ScriptStep
from twisted_mta.testing.resolver import FakeResolver
from twisted_mta.testing.tls import PeerTLS

HOP = NextHop("smtp", domain="example.net")
NAME = "_25._tcp.mx1.example"

IN_CLEAR: list[ScriptStep] = [
    ("send", b"220 mx.example\r\n"),
    ("expect", b"EHLO client.example\r\n"),
    ("send", b"250-mx.example\r\n250 PIPELINING\r\n"),
]
"""A server that does not offer STARTTLS."""


class DANETestCase(HopTestCase):
    """``example.net`` has the exchangers mx1.example and mx2.example; all is signed."""

    def setUp(self) -> None:
        super().setUp()
        self.certificate = self_signed("whatever")
        self.dns = FakeResolver(
            {"example.net": [(10, "mx1.example")]},
            {"mx1.example": [FIRST.address], "mx2.example": [SECOND.address]},
            signed=["example", "net"],
        )
        self.policies: TLSPolicies = HostPolicies(
            resolver=self.dns, memory=self.memory, wall_time=lambda: self.now
        )
        self.demand("auto")

    def demand(self, level: str, **values: object) -> None:
        """Use a level for all destinations."""
        config = Config(
            delivery=DeliverySettings(tls=level, **values)  # type: ignore[arg-type]
        )
        self.begin(config)

    def begin(self, config: Config) -> None:
        """Use a relay with these settings."""
        locator = TargetLocator(self.dns, random=random.Random(1), is_local=lambda name: False)
        self.relay = Relay(
            reactor=self.network,
            locate=locator.locate,
            helo="client.example",
            destination_for=config.destination_for,
            memory=self.memory,
            policies=self.policies,
        )
        self.relays.append(self.relay)

    def send_one(self, hop: NextHop = HOP) -> Outcome:
        return super().send_one(hop)

    def publish(self, *records: TLSA, name: str = NAME) -> None:
        self.dns.tlsa_records[name] = list(records)

    def secured(
        self, issued: Issued, *more: ScriptStep, target: Target = FIRST
    ) -> tuple[ScriptedPeer, PeerTLS]:
        """Listen with a server that takes a message under TLS."""
        tls = shown(issued)
        script = [*TLS_OPENING, *SECURED, *TAKEN, *more]
        return self.server_with(tls, *script, target=target), tls

    def assert_deferred(self, outcome: Outcome, status: str, text: str) -> None:
        self.assertEqual(outcome.reply.code // 100, 4)
        self.assertEqual(outcome.reply.enhanced, status)
        self.assertIn(text, outcome.reply.text)

    def lookups(self, type: str) -> list[str]:
        return [name for each, name in self.dns.lookups if each == type]


class Verified(DANETestCase):
    def test_a_server_that_fits_its_record_is_verified(self) -> None:
        """RFC 7672 §8.1: SNI has the TLSA base domain."""
        self.publish(fits := record(3, 1, 1, self.certificate))
        peer, tls = self.secured(self.certificate)
        outcome = self.send_one()
        self.assertTrue(outcome.delivered, outcome)
        self.assertTrue(peer.finished, peer.problems)
        assert outcome.tls is not None
        self.assertTrue(outcome.tls.peer_verified)
        self.assertEqual(outcome.tls.verified_by, f"DANE, TLSA {fits}")
        self.assertEqual(tls.server_names, ["mx1.example"])
        self.assertIn("certificate verified by DANE, TLSA 3 1 1", outcome.tls.outgoing_description)

    def test_a_server_that_fits_no_record_gets_quit_and_no_mail(self) -> None:
        self.publish(record(3, 1, 1, self_signed("another")))
        peer = self.server_with(shown(self.certificate), *TOO_WEAK)
        outcome = self.send_one()
        self.assert_deferred(outcome, "4.7.5", "its certificates fit none of its TLSA records")
        self.assertTrue(peer.finished, peer.problems)

    def test_names_count_with_usage_2(self) -> None:
        """RFC 7672 §3.2.2: the name of the host, or the domain of the mail."""
        authority = Authority()
        self.publish(record(2, 1, 0, authority.issued))
        for name in ("mx1.example", "example.net"):
            issued = authority.issue("x", names=[name], for_clients=False)
            self.secured(issued, *PARTING)
            self.assertTrue(self.send_one().delivered)
            self.relay.connections.renew()
            self.network.settle()
        self.server_with(
            shown(authority.issue("x", names=["mx2.example"], for_clients=False)), *TOO_WEAK
        )
        text = "not for mx1.example or example.net, but for mx2.example"
        self.assert_deferred(self.send_one(), "4.7.5", text)

    def test_the_next_exchanger_is_tried(self) -> None:
        self.dns._mail_exchangers["example.net"] = [(10, "mx1.example"), (20, "mx2.example")]
        self.publish(record(3, 1, 1, self_signed("another")))
        self.publish(record(3, 1, 1, self.certificate), name="_25._tcp.mx2.example")
        self.server_with(shown(self.certificate), *TOO_WEAK)
        self.secured(self.certificate, target=SECOND)
        outcome = self.send_one()
        self.assertEqual(outcome.remote, "mx2.example[2001:db8::2]:25")

    def test_a_host_of_a_route_has_dane_too(self) -> None:
        """RFC 7672 §2.2.2: at its own port."""
        self.publish(record(3, 1, 1, self.certificate), name="_587._tcp.mx1.example")
        hop = NextHop("smtp", hosts=(Host("mx1.example", 587),))
        self.secured(self.certificate, target=Target("mx1.example", FIRST.address, 587))
        outcome = self.send_one(hop)
        assert outcome.tls is not None
        self.assertTrue(outcome.tls.peer_verified, outcome)


class NeverWeaker(DANETestCase):
    """What an attacker can do leads to deferral."""

    def test_records_that_cannot_be_looked_up(self) -> None:
        """RFC 7672 §2.1.2: the host is not even connected to."""
        self.dns.fail(NAME, "the name server answers SERVFAIL")
        outcome = self.send_one()
        self.assert_deferred(outcome, "4.7.5", "its TLSA records cannot be looked up")
        self.assertIn("SERVFAIL", outcome.reply.text)
        self.assertEqual(self.network.sources, [])

    def test_then_another_exchanger_is_used(self) -> None:
        self.dns._mail_exchangers["example.net"] = [(10, "mx1.example"), (20, "mx2.example")]
        self.dns.fail(NAME)
        self.server(*IN_CLEAR, *TAKEN, target=SECOND)
        self.assertTrue(self.send_one().delivered)
        [line] = [line for line in self.log if "is not safe enough" in line]
        self.assertTrue(line.startswith("mx1.example[192.0.2.1]:25 is not safe enough for"), line)
        self.assertIn("its TLSA records cannot be looked up", line)
        connections = self.relay.connections
        (trouble,) = connections.unsafe_hosts.troubles()
        self.assertEqual((trouble.kind, trouble.subject), ("tls", "mx1.example:25"))
        self.assertTrue(trouble.text.startswith("mx1.example:25 is passed over: 4"), trouble.text)
        self.assertEqual(list(connections.refused_credentials.troubles()), [])

    def test_a_host_that_is_safe_again_is_no_trouble(self) -> None:
        self.publish(record(3, 1, 1, self.certificate))
        self.server(*IN_CLEAR, *PARTING)
        self.send_one()
        self.assertEqual(len(list(self.relay.connections.unsafe_hosts.troubles())), 1)
        self.secured(self.certificate, *PARTING)
        self.assertTrue(self.send_one().delivered)
        self.assertEqual(list(self.relay.connections.unsafe_hosts.troubles()), [])

    def test_starttls_that_is_taken_away(self) -> None:
        self.publish(record(3, 1, 1, self.certificate))
        peer = self.server(*IN_CLEAR, *PARTING)
        self.assert_deferred(self.send_one(), "4.7.4", "STARTTLS is not offered")
        self.assertNotIn(b"MAIL", peer.received)

    def test_records_of_which_none_is_usable_demand_tls(self) -> None:
        """RFC 7672 §2.2: any certificate is good enough then."""
        self.publish(record(1, 1, 1, self_signed("x")), TLSA(3, 1, 9, b"?"))
        self.secured(self.certificate, *PARTING)
        outcome = self.send_one()
        self.assertTrue(outcome.delivered)
        assert outcome.tls is not None
        self.assertFalse(outcome.tls.peer_verified)
        self.relay.connections.renew()
        self.network.settle()
        self.server(*IN_CLEAR, *PARTING)
        self.assert_deferred(self.send_one(), "4.7.4", "STARTTLS is not offered")

    def test_an_idle_connection_from_before_is_not_used_under_another_policy(self) -> None:
        """Two domains have one exchanger; its records appear between two messages."""
        self.dns._mail_exchangers["example.org"] = [(10, "mx1.example")]
        self.dns.signed = ("example", "net", "org")
        self.server(*IN_CLEAR, *TAKEN, *PARTING)
        self.assertTrue(self.send_one().delivered)
        self.publish(record(3, 1, 1, self.certificate))
        self.secured(self.certificate)
        other = NextHop("smtp", domain="example.org")
        [outcome] = self.send(hop=other)
        self.assertTrue(outcome.delivered, outcome)
        assert outcome.tls is not None
        self.assertTrue(outcome.tls.peer_verified)

    def test_a_connection_that_died_is_replaced_under_the_policy_of_now(self) -> None:
        peer = self.server(*IN_CLEAR, *TAKEN)
        self.assertTrue(self.send_one().delivered)
        peer.script = [("close",)]
        peer.problems.clear()
        self.publish(record(3, 1, 1, self_signed("another")))
        delivering = self.relay.deliver(HOP, to("b@example.net"))
        weak = self.server_with(shown(self.certificate), *TOO_WEAK)
        self.network.settle()
        [outcome] = self.successResultOf(delivering)
        self.assert_deferred(outcome, "4.7.5", "fit none of its TLSA records")
        self.assertTrue(weak.finished, weak.problems)

    def test_a_connection_that_died_is_not_replaced_where_the_look_up_fails(self) -> None:
        peer = self.server(*IN_CLEAR, *TAKEN)
        self.assertTrue(self.send_one().delivered)
        peer.script = [("close",)]
        peer.problems.clear()
        self.dns.fail(NAME)
        outcome = self.send_one()
        self.assert_deferred(outcome, "4.7.5", "its TLSA records cannot be looked up")
        self.assertEqual(len(self.network.sources), 1)

    def test_a_stop_ends_a_look_up(self) -> None:
        self.dns.hold(NAME)
        delivering: Deferred[Sequence[Outcome]] = self.relay.deliver(HOP, to("b@example.net"))
        self.network.settle()
        self.assertNoResult(delivering)
        self.relay.abort_unsent()
        [outcome] = self.successResultOf(delivering)
        self.assert_deferred(outcome, "4.3.2", "we are closing")
        self.dns.release(NAME)
        self.network.settle()
        self.assertEqual(self.network.sources, [])

    def test_an_error_of_ours_defers(self) -> None:
        class Broken(HostPolicies):
            def policy(self, *arguments: object) -> object:  # type: ignore[override]
                raise ZeroDivisionError

        self.policies = Broken()
        self.demand("auto")
        self.assert_deferred(self.send_one(), "4.3.0", "internal error")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class WithoutDANE(DANETestCase):
    def test_nothing_is_looked_up_below_addresses_that_are_not_secure(self) -> None:
        """RFC 7672 §2.1.3."""
        self.dns.signed = ()
        self.publish(record(3, 1, 1, self.certificate))
        self.server(*IN_CLEAR, *TAKEN)
        self.assertTrue(self.send_one().delivered)
        self.assertEqual(self.lookups("TLSA"), [])

    def test_records_that_are_not_secure_do_not_count(self) -> None:
        self.dns.signed = ("mx1.example", "net")
        self.dns._aliases[NAME] = "elsewhere.test"
        self.publish(record(3, 1, 1, self_signed("x")), name="elsewhere.test")
        self.server(*IN_CLEAR, *TAKEN)
        self.assertTrue(self.send_one().delivered)

    def test_behind_mx_records_that_are_not_secure_the_host_is_verified_and_not_the_way(
        self,
    ) -> None:
        """RFC 7672 §2.2.1."""
        self.dns.signed = ("example",)
        self.publish(record(3, 1, 1, self.certificate))
        self.secured(self.certificate)
        outcome = self.send_one()
        self.assertTrue(outcome.delivered)
        assert outcome.tls is not None
        self.assertFalse(outcome.tls.peer_verified)
        self.assertIn("the MX records are not secure", outcome.tls.outgoing_description)

    def test_where_it_is_demanded_its_absence_defers(self) -> None:
        self.demand("dane")
        for signed, records, text in (
            ((), [], "DNSSEC does not prove the address of mx1.example"),
            (("example", "net"), [], f"it has no TLSA record that DNSSEC proves: {NAME}"),
            (
                ("example", "net"),
                [record(0, 0, 1, self.certificate)],
                "none of its TLSA records is usable",
            ),
            (
                ("example",),
                [record(3, 1, 1, self.certificate)],
                "DNSSEC does not prove the MX records of example.net",
            ),
        ):
            self.dns.signed = signed
            self.publish(*records)
            self.assert_deferred(self.send_one(), "4.7.5", f"DANE is required, and {text}")
        self.assertEqual(self.network.sources, [])

    def test_an_explicit_level_beats_what_is_published(self) -> None:
        self.publish(record(3, 1, 1, self_signed("another")))
        for level in ("may", "encrypt"):
            self.demand(level)
            self.secured(self.certificate)
            self.assertTrue(self.send_one().delivered, level)
        self.demand("none")
        self.server(*IN_CLEAR, *TAKEN)
        self.assertTrue(self.send_one().delivered)
        self.assertEqual(self.lookups("TLSA"), [])

    def test_the_memory_is_for_hosts_without_it(self) -> None:
        self.demand("auto", tls_memory="require")
        self.memory.remember("mx1.example", 25)
        peer = self.server(*IN_CLEAR, *PARTING)
        text = "TLS was used with it before, and tls_memory requires it"
        self.assert_deferred(self.send_one(), "4.7.4", text)
        self.assertNotIn(b"MAIL", peer.received)

    def test_with_an_account_auto_is_at_least_encrypt(self) -> None:
        password = self.file("password", b"secret\n")
        destination = Destination(domain="*", username="us", password_file=password)
        self.begin(Config(destinations=(destination,)))
        self.reconfigure(destination)
        peer = self.server(*IN_CLEAR, *PARTING)
        self.assert_deferred(self.send_one(), "4.7.4", "STARTTLS is not offered")
        self.assertNotIn(b"AUTH", peer.received)


class Aliases(DANETestCase):
    """RFC 7671 §7, RFC 7672 §2.2.2, §2.2.3."""

    def alias(self, target: str) -> None:
        self.dns._aliases["mx1.example"] = target
        self.dns._addresses[target] = [FIRST.address]

    def test_the_end_of_the_aliases_comes_first(self) -> None:
        self.alias("real.example")
        self.publish(record(3, 1, 1, self.certificate), name="_25._tcp.real.example")
        self.publish(record(3, 1, 1, self_signed("another")))
        _, tls = self.secured(self.certificate)
        self.assertTrue(self.send_one().delivered)
        self.assertEqual(tls.server_names, ["real.example"])
        self.assertEqual(self.lookups("TLSA"), ["_25._tcp.real.example"])

    def test_then_the_name_before_them(self) -> None:
        self.alias("real.example")
        self.publish(record(3, 1, 1, self.certificate))
        _, tls = self.secured(self.certificate)
        self.assertTrue(self.send_one().delivered)
        self.assertEqual(tls.server_names, ["mx1.example"])
        self.assertEqual(self.lookups("TLSA"), ["_25._tcp.real.example", NAME])

    def test_an_alias_into_a_zone_that_is_not_signed_has_its_own_records(self) -> None:
        self.alias("mx.unsigned.test")
        self.publish(record(3, 1, 1, self.certificate))
        self.secured(self.certificate)
        outcome = self.send_one()
        assert outcome.tls is not None
        self.assertTrue(outcome.tls.peer_verified)
        self.assertEqual(self.lookups("TLSA"), [NAME])

    def test_a_failure_at_the_first_name_does_not_lead_to_the_second(self) -> None:
        self.alias("real.example")
        self.publish(record(3, 1, 1, self.certificate))
        self.dns.fail("_25._tcp.real.example")
        self.assert_deferred(self.send_one(), "4.7.5", "cannot be looked up")

    def test_the_end_of_the_aliases_of_a_domain_is_a_name_for_certificates(self) -> None:
        self.dns._aliases["example.org"] = "example.net"
        self.dns.signed = ("example", "net", "org")
        authority = Authority()
        self.publish(record(2, 0, 0, authority.issued))
        for name in ("example.org", "example.net"):
            self.secured(authority.issue("x", names=[name], for_clients=False), *PARTING)
            [outcome] = self.send(hop=NextHop("smtp", domain="example.org"))
            self.assertTrue(outcome.delivered, outcome)
            self.relay.connections.renew()
            self.network.settle()
