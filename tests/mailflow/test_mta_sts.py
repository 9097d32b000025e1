"""MTA-STS from end to end: a domain publishes a policy, and a sender obeys it (RFC 8461)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

from attrs import evolve
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.defer import Deferred

from tests.logs import logged_lines
from tests.server.authority import Authority, Issued, self_signed
from tests.tls.mta_sts.policy_host import PolicyHosts, response
from twisted_mta.admin.explanation_text import lines
from twisted_mta.admin.http import Request
from twisted_mta.config import (
    DeliverySettings,
    Destination,
    Listener,
    MTASTSSettings,
    SNICertificate,
)
from twisted_mta.mail.tlsa import TLSA
from twisted_mta.testing import MemoryMTA

from .there import MX, ThereTestCase

HOUR = 3_600.0
RECORD = "_mta-sts.there.example"
HOST = "mta-sts.there.example"


class MTASTSTestCase(ThereTestCase):
    zone = f"""
        {RECORD}. TXT "v=STSv1; id=1;"
        {HOST}.   A   192.0.2.1
    """

    def setUp(self) -> None:
        super().setUp()
        self.authority = Authority()
        self.lines = logged_lines(self)

    def ours(self, *destinations: Destination, **delivery: Any) -> MemoryMTA:
        return self.started(
            "ours",
            local_domains=("ours.example",),
            destinations=destinations,
            delivery=DeliverySettings(**delivery),
            mta_sts=MTASTSSettings(authorities=self.save("authorities", self.authority.issued)),
        )

    def save(self, name: str, issued: Issued) -> str:
        return issued.save(self.directory, f"{name}.pem")

    def issued(self, *names: str, **kinds: Any) -> Issued:
        return self.authority.issue("x", names=names, for_clients=False, **kinds)

    def there(
        self,
        shown: Issued | None = None,
        *,
        mode: str = "enforce",
        mx: Sequence[str] = ("*.there.example",),
        **listener: Any,
    ) -> MemoryMTA:
        policy_host = SNICertificate(names=[HOST], certificate=self.save("host", self.issued(HOST)))
        return self.started_there(
            tls_certificate=self.save("shown", shown or self.issued(MX)),
            listeners=(
                Listener(endpoint="tcp:25:interface=192.0.2.1", **listener),
                Listener(
                    kind="submission", endpoint="tcp:587:interface=192.0.2.1", sni=[policy_host]
                ),
            ),
            mta_sts=MTASTSSettings(
                publish="tcp:443:interface=192.0.2.1",
                mode=mode,  # type: ignore[arg-type]
                mx=mx,
            ),
        )

    def last(self, text: str) -> str:
        """Return the last line of the log with a text."""
        return next((line for line in reversed(self.lines) if text in line), "")

    def assert_waits(self, there: MemoryMTA, reason: str) -> None:
        self.assertEqual(self.arrived(there), 0)
        line = self.last(" deferred: ")
        self.assertIn("4.7.5", line)
        self.assertIn(reason, line)


class Enforced(MTASTSTestCase):
    def test_mail_goes_to_a_host_that_fulfills_the_policy(self) -> None:
        ours, there = self.ours(), self.there()
        self.send(ours)
        self.assertEqual(self.arrived(there), 1)
        self.assertIn(
            "there.example has an MTA-STS policy: enforce, id 1, for 604800 s: *.there.example",
            self.lines,
        )

    def test_a_certificate_for_another_name(self) -> None:
        ours, there = self.ours(), self.there(self.issued("mx.other.example"))
        self.send(ours)
        self.assert_waits(there, "is not for mx.there.example, but for mx.other.example")

    def test_a_certificate_without_names(self) -> None:
        ours, there = self.ours(), self.there(self.issued())
        self.send(ours)
        self.assert_waits(there, "cannot be compared with mx.there.example")

    def test_a_certificate_that_has_expired(self) -> None:
        ours, there = self.ours(), self.there(self.issued(MX, days=(-9, -1)))
        self.send(ours)
        self.assert_waits(there, "has expired")

    def test_a_self_signed_certificate(self) -> None:
        ours, there = self.ours(), self.there(self_signed(MX, names=[MX]))
        self.send(ours)
        self.assert_waits(there, "self-signed")

    def test_a_host_without_tls(self) -> None:
        ours, there = self.ours(), self.there(tls="none")
        self.send(ours)
        self.assertEqual(self.arrived(there), 0)
        self.assertIn("STARTTLS", self.last(" deferred: "))

    def test_a_host_that_is_none_of_the_policy_is_not_connected_to(self) -> None:
        ours, there = self.ours(), self.there(mx=["mx.good.example"])
        self.send(ours)
        self.assert_waits(
            there,
            "found mx.there.example as a mail exchanger, expected one that the MTA-STS policy of"
            " there.example allows: mx.good.example",
        )
        self.assertEqual({end.getPeer().port for end, _ in self.reactor.connections}, {443})

    def test_the_next_exchanger_that_fulfills_it_gets_the_mail(self) -> None:
        self.resolver.add_zone(f"""
            there.example.   MX 5  mx.evil.example.
            there.example.   MX 10 {MX}.
            mx.evil.example. A  192.0.2.66
        """)
        ours, there = self.ours(), self.there()
        self.send(ours)
        self.assertEqual(self.arrived(there), 1)
        self.assertNotIn("192.0.2.66", {end.getPeer().host for end, _ in self.reactor.connections})

    def test_the_mail_goes_once_the_host_is_mended(self) -> None:
        ours, there = self.ours(), self.there(self.issued("mx.other.example"))
        self.send(ours)
        self.assertEqual(self.arrived(there), 0)
        self.save("shown", self.issued(MX))
        there.mta.reload()
        self.reactor.pump([60.0] * 30)
        self.assertEqual(self.arrived(there), 1)

    def test_a_policy_survives_a_restart_and_hidden_records(self) -> None:
        ours, there = self.ours(), self.there()
        self.send(ours)
        ours.stop()
        there.stop()
        self.resolver.texts.clear()
        # The attacker in the middle has no certificate for the exchanger.
        middle = self.started_there(
            "middle", listeners=(Listener(endpoint="tcp:25:interface=192.0.2.1"),)
        )
        ours = self.ours()
        self.send(ours)
        self.assert_waits(middle, "self-signed")

    def test_a_policy_is_asked_for_again_in_time(self) -> None:
        ours, there = self.ours(), self.there()
        self.send(ours)
        for _ in range(20 * 24):
            self.reactor.jump(HOUR)
        self.resolver.texts.clear()
        there.stop()
        middle = self.started_there(
            "middle", listeners=(Listener(endpoint="tcp:25:interface=192.0.2.1", tls="none"),)
        )
        self.send(ours)
        self.assertEqual(self.arrived(middle), 0)
        self.assertIn("STARTTLS is not offered", self.last(" deferred: "))


class NotEnforced(MTASTSTestCase):
    def test_in_testing_mode_mail_goes_and_the_fault_is_told(self) -> None:
        ours = self.ours()
        there = self.there(self.issued("mx.other.example"), mode="testing")
        self.send(ours)
        self.assertEqual(self.arrived(there), 1)
        self.assertEqual(
            self.last("all the same"),
            "mx.there.example[192.0.2.1]:25 gets mail all the same: the policy is MTA-STS of"
            " there.example (policy 1, testing), and not fulfilled: its certificate is not for"
            " mx.there.example, but for mx.other.example",
        )

    def test_in_testing_mode_other_hosts_and_clear_text_are_told_too(self) -> None:
        ours, there = self.ours(), self.there(mode="testing", mx=["mx.good.example"], tls="none")
        self.send(ours)
        self.assertEqual(self.arrived(there), 1)
        self.assertIn("found mx.there.example as a mail exchanger", self.last("all the same"))
        there.stop()
        ours.stop()
        self.lines.clear()
        self.resolver.texts[RECORD] = ["v=STSv1; id=2;"]
        self.reactor.advance(120)
        ours, there = self.ours(), self.there(mode="testing", tls="none")
        self.send(ours)
        self.assertIn("not fulfilled: it has no TLS", self.last("all the same"))

    def test_in_testing_mode_nothing_is_told_of_a_good_host(self) -> None:
        ours, there = self.ours(), self.there(mode="testing")
        self.send(ours)
        self.assertEqual(self.arrived(there), 1)
        self.assertEqual(self.last("all the same"), "")

    def test_mode_none_and_no_policy(self) -> None:
        ours, there = self.ours(), self.there(self_signed(MX, names=[MX]), mode="none")
        self.send(ours)
        self.resolver.texts.clear()
        self.send(ours)
        self.assertEqual(self.arrived(there), 2)

    def test_a_policy_that_cannot_be_had_is_none(self) -> None:
        self.resolver.add_zone(f"{HOST}. A 192.0.2.9")
        ours, there = self.ours(), self.there(self_signed(MX, names=[MX]))
        self.send(ours)
        self.assertEqual(self.arrived(there), 1)
        self.assertIn("no policy can be had", self.last("has a record of MTA-STS"))


class Hanging(MTASTSTestCase):
    """A policy host that takes connections and never answers."""

    def setUp(self) -> None:
        super().setUp()
        self.resolver.add_zone(f"{HOST}. A 192.0.2.9")
        host = PolicyHosts(self.reactor, self.issued(HOST))
        port = self.reactor.listenTCP(443, host, interface="192.0.2.9")
        self.addCleanup(port.stopListening)

    def test_mail_waits_for_a_minute_and_other_mail_does_not(self) -> None:
        ours, there = self.ours(), self.there()
        self.send(ours)
        self.send(ours, "ann@ours.example")
        self.assertEqual(len(ours.inbox_of("ann@ours.example")), 1)
        self.reactor.advance(57)
        self.assertEqual(self.arrived(there), 0)
        self.reactor.pump([1.0] * 3)
        self.assertEqual(self.arrived(there), 1)
        self.assertIn("no answer within 60 s", self.last("has a record of MTA-STS"))
        self.send(ours)  # which does not wait again
        self.assertEqual(self.arrived(there), 2)

    def test_a_stop_does_not_wait(self) -> None:
        ours, there = self.ours(), self.there()
        self.send(ours)
        began = self.reactor.seconds()
        ours.stop()
        self.assertLess(self.reactor.seconds() - began, 15)
        there.stop()
        self.assertEqual(self.arrived(there), 0)


class Demanded(MTASTSTestCase):
    def demanding(self) -> MemoryMTA:
        return self.ours(Destination(domain="there.example", tls="mta-sts"))

    def test_an_enforced_policy_fulfills_it(self) -> None:
        ours, there = self.demanding(), self.there()
        self.send(ours)
        self.assertEqual(self.arrived(there), 1)

    def test_anything_less_makes_the_mail_wait(self) -> None:
        ours, there = self.demanding(), self.there(mode="testing")
        self.send(ours)
        self.assert_waits(there, "expected mode enforce")

    def test_without_a_record_the_mail_waits(self) -> None:
        self.resolver.texts.clear()
        ours, there = self.demanding(), self.there()
        self.send(ours)
        self.assert_waits(there, "MTA-STS is required, and TXT of _mta-sts.there.example")

    def test_without_a_policy_the_mail_waits(self) -> None:
        self.resolver.add_zone(f"{HOST}. A 192.0.2.9")
        ours, there = self.demanding(), self.there()
        self.send(ours)
        self.assert_waits(there, "MTA-STS is required, and mta-sts.there.example")

    def test_an_explicit_level_needs_no_policy(self) -> None:
        ours = self.ours(tls="encrypt")
        there = self.there(self_signed(MX, names=[MX]))
        self.send(ours)
        self.assertEqual(self.arrived(there), 1)
        self.assertNotIn(("TXT", RECORD), self.resolver.lookups)


class Reloaded(MTASTSTestCase):
    def test_other_authorities_hold_for_hosts_at_once(self) -> None:
        ours, there = self.ours(), self.there()
        self.send(ours)
        self.save("authorities", Authority("Other CA").issued)
        reloading = ours.mta.reload()
        self.reactor.settle()
        self.assertIn("authorities for next hops", "".join(self.successResultOf(reloading)))
        self.send(ours)
        self.assertEqual(self.arrived(there), 1)
        self.assertIn("leads to no trusted authority", self.last(" deferred: "))

    def test_another_file_of_authorities(self) -> None:
        ours, there = self.ours(), self.there()
        other = self.save("others", Authority("Other CA").issued)
        config = ours.mta.config
        ours.mta.reload(evolve(config, mta_sts=evolve(config.mta_sts, authorities=other)))
        self.reactor.settle()
        self.send(ours)
        self.assertIn("no policy can be had", self.last("has a record of MTA-STS"))
        self.assertEqual(self.arrived(there), 1)


class BesideDANE(MTASTSTestCase):
    """DANE wins (RFC 8461 §2)."""

    def setUp(self) -> None:
        super().setUp()
        self.resolver.signed = ("there.example",)

    def fits(self, issued: Issued, *, host: str = MX) -> Issued:
        """Publish a TLSA record that fits a certificate."""
        digest = sha256(issued.certificate.public_bytes(Encoding.DER)).digest()
        self.resolver.tlsa_records[f"_25._tcp.{host}"] = [TLSA(3, 0, 1, digest)]
        return issued

    def test_a_host_that_fits_its_records_needs_no_policy(self) -> None:
        shown = self.fits(self_signed("x"))
        ours, there = self.ours(), self.there(shown, mx=["mx.good.example"])
        self.send(ours)
        self.assertEqual(self.arrived(there), 1)
        self.assertNotIn(("TXT", RECORD), self.resolver.lookups)

    def test_a_host_that_does_not_is_not_saved_by_the_policy(self) -> None:
        self.fits(self_signed("x"))
        ours, there = self.ours(), self.there()
        self.send(ours)
        self.assert_waits(there, "TLSA")

    def test_records_that_cannot_be_looked_up_are_not_replaced_by_the_policy(self) -> None:
        self.fits(self.issued(MX))
        self.resolver.fail(f"_25._tcp.{MX}")
        ours, there = self.ours(), self.there()
        self.send(ours)
        self.assert_waits(there, "its TLSA records cannot be looked up")

    def test_without_signed_mx_records_both_have_to_be_fulfilled(self) -> None:
        self.resolver.signed = (MX,)
        ours, there = self.ours(), self.there(self.fits(self.issued(MX)))
        self.send(ours)
        self.assertEqual(self.arrived(there), 1)
        self.assertIn(", verified by DANE, ", self.last(" delivered: "))

    def test_without_signed_mx_records_a_certificate_that_fits_its_record_alone(self) -> None:
        self.resolver.signed = (MX,)
        ours, there = self.ours(), self.there(self.fits(self_signed("x")))
        self.send(ours)
        self.assert_waits(there, "self-signed")

    def test_without_signed_mx_records_a_certificate_that_is_valid_alone(self) -> None:
        self.resolver.signed = (MX,)
        self.fits(self_signed("x"))
        ours, there = self.ours(), self.there()
        self.send(ours)
        self.assert_waits(there, "TLSA")

    def test_without_signed_mx_records_the_policy_names_the_hosts(self) -> None:
        self.resolver.signed = (MX,)
        ours, there = self.ours(), self.there(self.fits(self.issued(MX)), mx=["mx.good.example"])
        self.send(ours)
        self.assert_waits(there, "found mx.there.example as a mail exchanger")

    def test_where_a_policy_is_demanded_both_have_to_be_fulfilled(self) -> None:
        ours = self.ours(Destination(domain="there.example", tls="mta-sts"))
        self.fits(self_signed("x"))
        there = self.there()
        self.send(ours)
        self.assert_waits(there, "TLSA")
        there.stop()
        ours.stop()
        ours = self.ours(Destination(domain="there.example", tls="mta-sts"))
        there = self.there(self.fits(self.issued(MX)))
        self.send(ours)
        self.assertEqual(self.arrived(there), 1)

    def test_where_a_policy_is_demanded_dane_alone_is_not_enough(self) -> None:
        ours = self.ours(Destination(domain="there.example", tls="mta-sts"))
        there = self.there(self.fits(self_signed("x")))
        self.send(ours)
        self.assert_waits(there, "self-signed")

    def test_records_that_are_of_no_use_leave_the_host_to_the_policy(self) -> None:
        self.resolver.tlsa_records[f"_25._tcp.{MX}"] = [TLSA(0, 0, 1, bytes(32))]
        ours, there = self.ours(), self.there(self.issued("mx.other.example"))
        self.send(ours)
        self.assert_waits(there, "is not for mx.there.example")


class Wished(MTASTSTestCase):
    """What the sender demands (RFC 8689)."""

    def test_the_sender_may_set_the_policy_aside(self) -> None:
        ours, there = self.ours(), self.there(self_signed(MX, names=[MX]))
        ours.submit(
            b"TLS-Required: No\r\nSubject: x\r\n\r\nx\r\n",
            sender="ann@ours.example",
            recipients=["bob@there.example"],
        )
        ours.advance(1)
        self.assertEqual(self.arrived(there), 1)

    def protected(self, mta: MemoryMTA) -> None:
        client = mta.connect()
        client.start_tls()
        client.say("EHLO client.example")
        client.say("MAIL FROM:<ann@ours.example> REQUIRETLS")
        client.say("RCPT TO:<bob@there.example>")
        client.say("DATA")
        self.assertTrue(client.send(b"Subject: x\r\n\r\nx\r\n.\r\n")[0].startswith("250 "))
        mta.advance(1)

    def test_an_enforced_policy_proves_the_name_of_an_exchanger(self) -> None:
        ours, there = self.ours(), self.there()
        self.protected(ours)
        self.assertEqual(self.arrived(there), 1)

    def test_a_policy_that_is_tested_changes_no_authorities(self) -> None:
        self.resolver.signed = ("there.example",)
        ours = self.ours(authorities=self.save("others", Authority("Other CA").issued))
        there = self.there(mode="testing")
        self.protected(ours)
        self.assertEqual(self.arrived(there), 0)
        self.assertIn("leads to no trusted authority", self.last(" to=<bob@there.example>"))

    def test_a_policy_that_is_tested_proves_nothing(self) -> None:
        ours, there = self.ours(), self.there(mode="testing")
        self.protected(ours)
        self.assertEqual(self.arrived(there), 0)
        self.assertIn("neither DNSSEC nor MTA-STS proves", self.last(" to=<bob@there.example>"))


class SmartHosts(MTASTSTestCase):
    """A host that a route names is a domain of its own (RFC 8461 §3.4)."""

    def routed(self) -> MemoryMTA:
        return self.started(
            "ours",
            local_domains=("ours.example",),
            routes=(("*", f"smtp://{MX}"),),
            mta_sts=MTASTSSettings(authorities=self.save("authorities", self.authority.issued)),
        )

    def test_the_policy_of_the_domain_of_the_mail_is_none_of_its(self) -> None:
        ours, there = self.routed(), self.there(self_signed(MX, names=[MX]))
        self.send(ours)
        self.assertEqual(self.arrived(there), 1)
        self.assertIn(("TXT", f"_mta-sts.{MX}"), self.resolver.lookups)
        self.assertNotIn(("TXT", RECORD), self.resolver.lookups)

    def test_its_own_policy_is(self) -> None:
        self.resolver.add_zone(f"""
            _mta-sts.{MX}. TXT "v=STSv1; id=1;"
            mta-sts.{MX}.  A   192.0.2.9
        """)
        host = PolicyHosts(
            self.reactor,
            self.issued(f"mta-sts.{MX}"),
            response(f"version: STSv1\nmode: enforce\nmx: {MX}\nmax_age: 86400\n".encode()),
        )
        self.reactor.listenTCP(443, host, interface="192.0.2.9")
        ours, there = self.routed(), self.there(self_signed(MX, names=[MX]))
        self.send(ours)
        self.assert_waits(there, "self-signed")
        self.reactor.ports["192.0.2.9", 443].stopListening()


class Explained(MTASTSTestCase):
    def explained(self, mta: MemoryMTA) -> str:
        """Return what the operator's tool shows of the exchanger."""
        answer = mta.mta.admin.answer(Request(method="GET", path="/v1/explain/bob@there.example"))
        assert isinstance(answer, Deferred)
        self.reactor.settle()
        shown = lines(json.loads(self.successResultOf(answer).body))
        return next(line for line in shown if MX in line and "TLS" in line)

    def test_the_policy_is_shown_with_its_id_its_mode_and_since_when(self) -> None:
        ours, _ = self.ours(), self.there()
        self.reactor.jump(HOUR)
        self.assertIn(
            "TLS verify (MTA-STS of there.example (policy 1, enforce), since 2027-01-15",
            self.explained(ours),
        )

    def test_a_host_that_is_none_of_it(self) -> None:
        ours, _ = self.ours(), self.there(mx=["mx.good.example"])
        self.assertIn("not now: found mx.there.example as a mail exchanger", self.explained(ours))

    def test_the_demand_of_a_policy_that_is_not_there(self) -> None:
        self.resolver.texts.clear()
        self.there()
        for level, shown in (("mta-sts", "TLS verify"), ("dane", "TLS dane")):
            ours = self.ours(Destination(domain="there.example", tls=level))
            text = self.explained(ours)
            self.assertIn(f"{shown} ([[destination]] there.example); not now: ", text)
            ours.stop()

    def test_a_policy_that_is_tested(self) -> None:
        ours, _ = self.ours(), self.there(mode="testing")
        self.assertIn("TLS may (MTA-STS of there.example (policy 1, testing)", self.explained(ours))
