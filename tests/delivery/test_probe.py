"""Sessions with a host that carry no mail, and what came of the last handshakes."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred

from tests.delivery.hops import HopTestCase
from tests.delivery.test_relay import FIRST, HOP, OPENING, PARTING, TAKEN
from tests.server.authority import Authority, self_signed
from tests.tls.test_client import HELLO, SECURED, TLS_OPENING
from twisted_mta.config import Destination
from twisted_mta.delivery.probe import Probed, probe
from twisted_mta.delivery.terms import terms_for
from twisted_mta.mail.tls_policy import TLSPolicy
from twisted_mta.testing.peer import ScriptedPeer, ScriptStep
from twisted_mta.testing.tls import PeerTLS
from twisted_mta.tls.small_hello import POSSIBLE

QUIT: list[ScriptStep] = [*PARTING, ("close",)]


class ProbeTestCase(HopTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.authority = Authority()
        self.authorities = self.file("ca.pem", self.authority.issued.pem)
        self.use(tls="verify", authorities=self.authorities)

    def shown(self, *names: str) -> PeerTLS:
        issued = self.authority.issue("mx", names=names, for_clients=False)
        return PeerTLS(shown=(issued.certificate, issued.key))

    def probed(self, policy: TLSPolicy) -> Probed:
        terms = terms_for(FIRST, HOP, self.relay.terms.host_terms(HOP, "example.net"))
        probing = Deferred.fromCoroutine(probe(self.relay.connections, FIRST, terms, policy))
        self.network.settle()
        self.network.advance(5)
        return self.successResultOf(probing)

    def assertPlayed(self, peer: ScriptedPeer) -> None:
        self.assertTrue(peer.finished, (peer.problems, peer.script))


class Probes(ProbeTestCase):
    def test_a_verified_server_would_get_mail(self) -> None:
        peer = self.server_with(self.shown("mx1.example"), *TLS_OPENING, *SECURED, *QUIT)
        found = self.probed(TLSPolicy(level="verify"))
        self.assertPlayed(peer)
        self.assertTrue(found.usable)
        self.assertEqual(found.verdict, "mail would go under TLS, verified")
        lines = [str(line) for line in found.conversation]
        self.assertEqual(lines[:2], ["S: 220 mx.example", "C: EHLO client.example"])
        self.assertEqual(lines[-2:], ["C: QUIT", "S: 221 Bye"])
        self.assertTrue(any(line.startswith("* TLSv1.3 ") for line in lines), lines)

    def test_a_server_that_is_not_verified_would_get_none(self) -> None:
        peer = self.server_with(
            self.shown("mx2.example"), *TLS_OPENING, SECURED[0], ("starttls",), *QUIT
        )
        found = self.probed(TLSPolicy(level="verify"))
        self.assertPlayed(peer)
        self.assertFalse(found.usable)
        self.assertRegex(found.verdict, "mail would not go there: .* not for mx1.example, but for")
        assert found.tls is not None

    def test_the_server_has_to_prove_itself_each_time(self) -> None:
        tls = self.shown("mx1.example")
        for _ in range(2):
            self.server_with(tls, *TLS_OPENING, *SECURED, *QUIT)
            found = self.probed(TLSPolicy(level="verify"))
            assert found.tls is not None
            self.assertFalse(found.tls.resumed)

    def test_the_level_decides(self) -> None:
        peer = self.server(*OPENING, *QUIT)
        found = self.probed(TLSPolicy(level="may"))
        self.assertPlayed(peer)
        self.assertEqual(
            (found.usable, found.verdict),
            (True, "mail would go in clear: STARTTLS is of no use, as level may allows"),
        )
        peer = self.server(*OPENING, *QUIT)
        found = self.probed(TLSPolicy(level="encrypt"))
        self.assertPlayed(peer)
        self.assertFalse(found.usable)
        self.assertIn("STARTTLS is not offered", found.verdict)
        found = self.probed(TLSPolicy(level="dane", problem="its TLSA records are bogus"))
        self.assertEqual((found.usable, found.verdict), (False, "its TLSA records are bogus"))

    def test_a_host_that_cannot_be_connected_to(self) -> None:
        found = self.probed(TLSPolicy(level="may"))
        self.assertFalse(found.usable)
        self.assertIn("no connection: ", found.verdict)

    def test_a_silent_host_is_waited_for_half_a_minute(self) -> None:
        """And not for the 5 minutes that a delivery waits (RFC 5321 §4.5.3.2.1)."""
        self.server()
        terms = terms_for(FIRST, HOP, self.relay.terms.host_terms(HOP, "example.net"))
        policy = TLSPolicy(level="verify")
        probing = Deferred.fromCoroutine(probe(self.relay.connections, FIRST, terms, policy))
        self.network.settle()
        self.network.advance(31)
        self.assertNoResult(probing)
        self.network.advance(2)
        found = self.successResultOf(probing)
        self.assertFalse(found.usable)
        self.assertIn("before the greeting: a probe takes 32 s at the most", found.verdict)

    def test_a_probe_that_is_canceled_ends_its_connection(self) -> None:
        self.server()
        terms = terms_for(FIRST, HOP, self.relay.terms.host_terms(HOP, "example.net"))
        policy = TLSPolicy(level="verify")
        probing = Deferred.fromCoroutine(probe(self.relay.connections, FIRST, terms, policy))
        self.network.settle()
        probing.cancel()
        self.network.settle()
        self.failureResultOf(probing, CancelledError)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_an_account_is_not_used(self) -> None:
        file = self.file("password", b"secret")
        self.use(Destination(domain="*", username="us", password_file=file))
        peer = self.server_with(PeerTLS(), *TLS_OPENING, *SECURED, *QUIT)
        found = self.probed(TLSPolicy(level="may"))
        self.assertPlayed(peer)
        self.assertTrue(found.usable)
        self.server(*OPENING, *QUIT)
        self.assertFalse(self.probed(TLSPolicy(level="may")).usable)

    def test_a_small_hello_follows_one_without_an_answer(self) -> None:
        self.use(tls="encrypt")
        self.server(*TLS_OPENING, SECURED[0], HELLO, ("close",))
        peer = self.server_with(PeerTLS(), *TLS_OPENING, *SECURED, *QUIT)
        found = self.probed(TLSPolicy(level="encrypt"))
        self.assertEqual(found.usable, POSSIBLE)
        if POSSIBLE:
            self.assertPlayed(peer)
            self.assertIn(
                "* once more, with a small ClientHello", [str(line) for line in found.conversation]
            )


class LastHandshakes(ProbeTestCase):
    def last(self) -> tuple[str, str | None, bool | None]:
        """Return level, problem and verdict of the last handshake."""
        [entry] = self.relay.connections.handshakes.entries()
        self.assertEqual((entry["host"], entry["port"]), ("mx1.example", 25))
        tls = entry["tls"]
        return entry["level"], entry["problem"], None if tls is None else tls["peer_verified"]

    def test_they_are_kept_by_host(self) -> None:
        self.server_with(self.shown("mx1.example"), *TLS_OPENING, *SECURED, *TAKEN)
        self.assertTrue(self.send_one().delivered)
        self.assertEqual(self.last(), ("verify", None, True))
        self.relay.abort()
        fake = self_signed("mx1.example", names=["mx1.example"])
        self.server_with(
            PeerTLS(shown=(fake.certificate, fake.key)),
            *TLS_OPENING,
            SECURED[0],
            ("starttls",),
            *QUIT,
        )
        self.assertTrue(self.send_one().deferred)
        level, problem, verified = self.last()
        self.assertEqual((level, verified), ("verify", False))
        self.assertIn("self-signed", problem or "")

    def test_a_session_in_clear_is_one(self) -> None:
        self.use(tls="may")
        self.server(*OPENING, *TAKEN)
        self.assertTrue(self.send_one().delivered)
        self.assertEqual(self.last(), ("may", None, None))

    def test_so_is_one_without_the_tls_that_it_needs(self) -> None:
        self.server(*OPENING, *QUIT)
        self.send_one()
        level, problem, verified = self.last()
        self.assertEqual((level, verified), ("verify", None))
        self.assertIn("STARTTLS is not offered", problem or "")
