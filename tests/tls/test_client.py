"""STARTTLS as a client, with real TLS in memory and servers that mean harm (RFC 3207)."""

import re

from cryptography.hazmat.primitives.hashes import SHA256
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.mail.next_hop import Target
from twisted_mta.testing.peer import ScriptedPeer, ScriptStep, ServerTLS, certificate
from twisted_mta.tls.client import server_name

from ..delivery.test_relay import (
    FIRST,
    HOP,
    OPENING,
    PARTING,
    SECOND,
    TAKEN,
    PatternBody,
    RelayTestCase,
    message,
)

TLS_OPENING: list[ScriptStep] = [
    ("send", b"220 mx.example\r\n"),
    ("expect", b"EHLO client.example\r\n"),
    ("send", b"250-mx.example\r\n250-SIZE 5\r\n250 STARTTLS\r\n"),
    ("expect", b"STARTTLS\r\n"),
]
SECURED: list[ScriptStep] = [
    ("send", b"220 Go\r\n"),
    ("starttls",),
    *OPENING[1:],
]
HELLO: ScriptStep = ("expect", re.compile(rb"\x16\x03.*", re.DOTALL))
"""A ClientHello, seen by a server that does not speak TLS."""


class StartTLSTests(RelayTestCase):
    def server_with(self, tls: ServerTLS, *script: ScriptStep) -> ScriptedPeer:
        peer = ScriptedPeer(list(script), tls=tls)
        self.network.listen(FIRST.address, FIRST.port, peer)
        return peer

    def test_delivered_under_tls(self) -> None:
        """C1, C3, §4.2: EHLO again, the SIZE learnt in clear forgotten; SNI and facts."""
        tls = ServerTLS()
        for level in ("may", "encrypt"):
            self.relay = self.make_relay(tls_level=level)
            peer = self.server_with(tls, *TLS_OPENING, *SECURED, *TAKEN, *TAKEN, *PARTING)
            for _ in range(2):
                outcome = self.outcome(self.deliver())
                self.assertTrue(outcome.delivered, outcome)
                facts = outcome.tls
                assert facts is not None
                self.assertEqual(facts.version, "TLSv1.3")
                self.assertGreaterEqual(facts.bits, 128)
                self.assertTrue(facts.cipher.startswith("TLS_"))
                self.assertEqual(facts.server_name, "mx1.example")
                self.assertEqual(facts.peer_subject, "CN=mx.example")
                fingerprint = certificate()[0].fingerprint(SHA256()).hex()
                self.assertEqual(facts.peer_fingerprint, fingerprint)
                self.assertFalse(facts.peer_verified)
            self.network.advance(5)
            self.assertTrue(peer.finished, peer.problems)
            self.assertTrue(peer.lost)
        self.assertEqual(tls.server_names, ["mx1.example"] * 2)

    def test_large_content_under_tls(self) -> None:
        """Back-pressure reaches through TLS."""
        peer = self.server(*TLS_OPENING, *SECURED, *TAKEN)
        body = PatternBody(size=4_000_000)
        delivering = self.relay.deliver(HOP, message(body))
        most_ahead = 0
        while self.network.step():
            most_ahead = max(most_ahead, body.read - len(peer.received))
        self.assertTrue(self.outcome(delivering).delivered)
        self.assertLess(most_ahead, 400 * 1024)
        self.assertEqual(len(peer.contents[0]), 4_000_000 + 100_000 + 13 + 3)

    def test_c2_octets_behind_220(self) -> None:
        """C2, §6: nothing of them is used, nothing of ours is sent, by TLS or in clear."""
        for behind in (b"250 mx.example\r\n", b"2"):
            for level in ("may", "encrypt"):
                self.relay = self.make_relay(tls_level=level)
                peer = self.server(*TLS_OPENING, ("send", b"220 Go\r\n" + behind))
                outcome = self.outcome(self.deliver())
                self.assertEqual(outcome.reply.enhanced, "4.7.0")
                self.assertTrue(peer.lost)
                self.assertTrue(peer.received.endswith(b"STARTTLS\r\n"))

    def test_c4_refused(self) -> None:
        """C4, §4: in clear where TLS is only wished for; QUIT and deferred where demanded."""
        refusal: ScriptStep = ("send", b"454 4.7.0 Not now\r\n")
        peer = self.server(
            *OPENING[:2],
            ("send", b"250-mx.example\r\n250-PIPELINING\r\n250 STARTTLS\r\n"),
            ("expect", b"STARTTLS\r\n"),
            refusal,
            *TAKEN,
        )
        outcome = self.outcome(self.deliver())
        self.assertTrue(outcome.delivered)
        self.assertIsNone(outcome.tls)
        self.assertTrue(peer.finished, peer.problems)
        self.relay = self.make_relay(tls_level="encrypt")
        peer = self.server(*TLS_OPENING, refusal, *PARTING)
        self.assertEqual(self.outcome(self.deliver()).reply.enhanced, "4.7.4")
        self.assertTrue(peer.finished, peer.problems)

    def test_c4_mandatory_tls_where_the_next_target_has_it(self) -> None:
        self.relay = self.make_relay(tls_level="encrypt")
        self.targets = [FIRST, SECOND]
        self.server(*OPENING, *PARTING)
        self.server(*TLS_OPENING, *SECURED, *TAKEN, target=SECOND)
        outcome = self.outcome(self.deliver())
        self.assertTrue(outcome.delivered)
        self.assertIsNotNone(outcome.tls)

    def test_c8_a_failed_handshake_is_retried_once_in_clear(self) -> None:
        """C8, §6: on a new connection, which does not try TLS again."""
        failures: list[list[ScriptStep]] = [
            [("send", b"220 Go\r\n"), ("close",)],
            [("send", b"220 Go\r\n"), HELLO, ("abort",)],
            [("send", b"220 Go\r\n"), HELLO, ("send", b"\x15\x03\x03\x00\x02\x02\x28")],
            [("send", b"220 Go\r\n"), HELLO, ("send", b"250 not TLS at all\r\n")],
        ]
        for failure in failures:
            broken = self.server(*TLS_OPENING, *failure)
            clear = self.server(
                *OPENING[:2],
                ("send", b"250-mx.example\r\n250-PIPELINING\r\n250 STARTTLS\r\n"),
                *TAKEN,
                *PARTING,
            )
            outcome = self.outcome(self.deliver())
            self.assertTrue(outcome.delivered, outcome)
            self.assertIsNone(outcome.tls)
            self.assertTrue(broken.lost)
            self.network.advance(5)
            self.assertTrue(clear.finished, clear.problems)
            self.assertEqual(self.network.getDelayedCalls(), [])

    def test_c8_never_in_clear_where_tls_is_demanded(self) -> None:
        self.relay = self.make_relay(tls_level="encrypt")
        self.server(*TLS_OPENING, ("send", b"220 Go\r\n"), ("close",))
        outcome = self.outcome(self.deliver())
        self.assertEqual(outcome.reply.enhanced, "4.7.5")
        self.assertEqual(len(self.network.connections), 1)

    def test_c8_the_clear_connection_fails_too(self) -> None:
        """One retry, not more."""
        self.server(*TLS_OPENING, ("send", b"220 Go\r\n"), ("close",))
        self.server(("abort",))
        self.assertEqual(self.outcome(self.deliver()).reply.code // 100, 4)
        self.assertEqual(len(self.network.connections), 2)

    def test_a_handshake_that_stalls_is_broken_off(self) -> None:
        """After 30 seconds, and really closed; then in clear."""
        stalled = self.server(*TLS_OPENING, ("send", b"220 Go\r\n"), HELLO)
        self.server(*OPENING, *TAKEN)
        delivering = self.deliver()
        self.network.advance(29.9)
        self.assertNoResult(delivering)
        self.network.advance(0.1)
        self.assertTrue(stalled.lost)
        self.assertTrue(self.outcome(delivering).delivered)

    def test_a_close_that_stalls_is_broken_off(self) -> None:
        """A peer that never answers the end of TLS is left behind."""
        peer = self.server(*TLS_OPENING, *SECURED, *TAKEN, *PARTING[:2])
        self.outcome(self.deliver())
        closing = self.relay.close()
        while b"QUIT" not in peer.received:
            self.assertTrue(self.network.step())
        self.network.connections[0][1].pauseProducing()
        self.network.settle()
        self.network.advance(4.9)
        self.assertNoResult(closing)
        self.network.advance(0.2)
        self.successResultOf(closing)

    def test_below_tls_1_2_the_handshake_fails(self) -> None:
        """RFC 8996."""
        self.relay = self.make_relay(tls_level="encrypt")
        self.server_with(ServerTLS(maximum=SSL.TLS1_1_VERSION), *TLS_OPENING, *SECURED)
        self.assertEqual(self.outcome(self.deliver()).reply.enhanced, "4.7.5")

    def test_lost_under_tls_after_the_final_dot(self) -> None:
        for end in ("close", "abort"):
            peer = self.server(*TLS_OPENING, *SECURED, *TAKEN[:-1])
            peer.script.append((end,))  # type: ignore[arg-type]
            outcome = self.outcome(self.deliver())
            self.assertTrue(outcome.uncertain)
            self.assertEqual(outcome.reply.enhanced, "4.4.2")


class ServerNameTests(SynchronousTestCase):
    def test_names_and_not_addresses(self) -> None:
        """RFC 6066 §3."""
        for name, expected in (
            ("mx.example", "mx.example"),
            ("192.0.2.1", None),
            ("2001:db8::1", None),
        ):
            self.assertEqual(server_name(Target(name, "192.0.2.1", 25)), expected)
