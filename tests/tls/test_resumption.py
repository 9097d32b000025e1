"""TLS sessions with next hops are resumed, under the terms that they were made with."""

from __future__ import annotations

from attrs import evolve
from OpenSSL import SSL

from tests.delivery.hops import HopTestCase
from tests.delivery.test_relay import FIRST, PARTING, SECOND, TAKEN
from tests.server.authority import Authority
from tests.tls.test_client import HELLO, SECURED, TLS_OPENING
from twisted_mta.config import Destination
from twisted_mta.mail.next_hop import NextHop, Target
from twisted_mta.mail.tls_facts import TLSFacts
from twisted_mta.mail.tls_policy import TLSPolicy, TLSTerms
from twisted_mta.testing.peer import ScriptedPeer
from twisted_mta.testing.tls import PeerTLS

QUIT = [*PARTING, ("close",)]


class GivenPolicies:
    """Policies that a test sets (`interfaces.TLSPolicies`)."""

    def __init__(self, policy: TLSPolicy) -> None:
        self.given = policy

    def policy(self, next_hop: NextHop, target: Target, terms: TLSTerms) -> TLSPolicy:
        return self.given


class ResumptionTests(HopTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.authority = Authority()
        self.authorities = self.file("ca.pem", self.authority.issued.pem)
        issued = self.authority.issue("mx", names=["mx1.example", "mx2.example"], for_clients=False)
        self.tls = PeerTLS(shown=(issued.certificate, issued.key))

    def facts(self, target: Target = FIRST) -> TLSFacts:
        """Deliver a message on a new connection; return the facts of its handshake."""
        self.targets = [target]
        peer = self.server_with(self.tls, *TLS_OPENING, *SECURED, *TAKEN, *QUIT, target=target)
        outcome = self.send_one()
        self.assertTrue(outcome.delivered, outcome)
        self.network.advance(5)
        self.network.advance(5)
        self.assertTrue(peer.finished, peer.problems)
        assert outcome.tls is not None
        return outcome.tls

    def resumed(self, *targets: Target) -> list[bool]:
        return [self.facts(target).resumed for target in targets]

    def verify(self) -> None:
        self.use(tls="verify", authorities=self.authorities)

    def test_the_next_connection_resumes_the_session(self) -> None:
        for tls, verified in (("may", False), ("verify", True)):
            self.use(tls=tls, authorities=self.authorities)
            first, second, third = self.facts(), self.facts(), self.facts()
            self.assertEqual(
                (first.resumed, second.resumed, third.resumed), (False, True, True), tls
            )
            self.assertEqual(second.peer_verified, verified)
            self.assertEqual(evolve(second, resumed=False), first)
            self.assertIn(", resumed", second.outgoing_description)
            self.assertEqual(self.relay.connections.traffic.resumed, 2)

    def test_under_tls_1_2_too(self) -> None:
        issued = self.authority.issue("mx", names=["mx1.example"], for_clients=False)
        self.tls = PeerTLS(maximum=SSL.TLS1_2_VERSION, shown=(issued.certificate, issued.key))
        self.verify()
        self.assertEqual(self.resumed(FIRST, FIRST), [False, True])

    def test_each_address_of_each_host_has_its_own(self) -> None:
        self.verify()
        other = Target(FIRST.name, "192.0.2.77", FIRST.port)
        self.assertEqual(self.resumed(FIRST, SECOND, other, FIRST), [False, False, False, True])

    def test_a_session_that_proved_nothing_serves_no_level_that_demands_a_proof(self) -> None:
        self.use(tls="may", authorities=None)
        self.assertEqual(self.resumed(FIRST, FIRST), [False, True])
        self.reconfigure(Destination(domain="*", tls="verify", authorities=self.authorities))
        self.assertFalse(self.facts().resumed)
        self.reconfigure(Destination(domain="*", tls="encrypt"))
        self.assertFalse(self.facts().resumed)

    def test_other_authorities_end_it(self) -> None:
        self.verify()
        self.assertEqual(self.resumed(FIRST, FIRST), [False, True])
        self.reconfigure(tls="verify", authorities=self.authorities)
        self.assertFalse(self.facts().resumed)

    def test_a_policy_with_another_trust_ends_it(self) -> None:
        policies = GivenPolicies(TLSPolicy(level="encrypt"))
        self.use(tls="encrypt")
        self.relay.connections.policies = policies
        policy = policies.given
        for changed in (
            policy,
            evolve(policy, names=("mx1.example",)),
            evolve(policy, patterns=("mx1.example",), testing=True),
            evolve(policy, source="MTA-STS of example.net (policy 2)"),
            evolve(policy, server_name="mx2.example"),
            evolve(policy, level="may"),
        ):
            policies.given = changed
            self.assertEqual(self.resumed(FIRST, FIRST), [False, True], changed)

    def test_a_server_has_to_prove_itself_again_after_an_hour(self) -> None:
        self.verify()
        for _ in range(2):
            self.assertFalse(self.facts().resumed)
            for _ in range(3):
                self.network.advance(1150)
                self.assertTrue(self.facts().resumed)
            self.network.advance(150)

    def test_a_server_that_fails_at_it_gets_a_whole_handshake(self) -> None:
        self.verify()
        self.assertFalse(self.facts().resumed)
        for end in ("close", "abort"):
            broken = ScriptedPeer([*TLS_OPENING, SECURED[0], HELLO, (end,)])  # type: ignore[list-item]
            self.network.listen(FIRST.address, FIRST.port, broken)
            self.assertFalse(self.facts().resumed)
            self.assertTrue(self.facts().resumed)
        traffic = self.relay.connections.traffic
        self.assertEqual((traffic.handshake_retries, traffic.clear_retries), (2, 0))
