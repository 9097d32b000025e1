"""STARTTLS as a client (RFC 3207), with real TLS in memory and hostile servers."""

import re

from cryptography.hazmat.primitives.hashes import SHA256
from OpenSSL import SSL

from tests.tidy import TidyTestCase
from twisted_mta.mail.next_hop import Target
from twisted_mta.testing.peer import ScriptedPeer, ScriptStep
from twisted_mta.testing.tls import PeerTLS, certificate
from twisted_mta.tls.client import server_name
from twisted_mta.tls.small_hello import POSSIBLE

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
HYBRID = SSL.OPENSSL_VERSION_NUMBER >= 0x30500000 and hasattr(SSL.Connection, "get_group_name")
"""Whether OpenSSL's first choice for the key exchange is X25519MLKEM768, and it can be seen."""

HELLO: ScriptStep = ("expect", re.compile(rb"\x16\x03.*", re.DOTALL))
"""The first octets of a ClientHello, received by a server without TLS."""


class StartTLSTests(RelayTestCase):
    def server_with(self, tls: PeerTLS, *script: ScriptStep) -> ScriptedPeer:
        peer = ScriptedPeer(list(script), tls=tls)
        self.network.listen(FIRST.address, FIRST.port, peer)
        return peer

    def test_a_message_is_delivered_under_tls(self) -> None:
        """C1, C3, §4.2: EHLO is sent again, and the SIZE announced in clear is dropped."""
        tls = PeerTLS()
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
                if HYBRID:
                    self.assertEqual(facts.key_exchange, "X25519MLKEM768")
                    self.assertIn(", key exchange X25519MLKEM768, ", facts.outgoing_description)
                self.assertEqual(facts.server_name, "mx1.example")
                self.assertEqual(facts.peer_subject, "CN=mx.example")
                fingerprint = certificate()[0].fingerprint(SHA256()).hex()
                self.assertEqual(facts.peer_fingerprint, fingerprint)
                self.assertFalse(facts.peer_verified)
            self.network.advance(5)
            self.assertTrue(peer.finished, peer.problems)
            self.assertTrue(peer.lost)
        self.assertEqual(tls.server_names, ["mx1.example"] * 2)

    def test_a_large_content_is_delivered_under_tls(self) -> None:
        """Back-pressure works through TLS."""
        peer = self.server(*TLS_OPENING, *SECURED, *TAKEN)
        body = PatternBody(size=4_000_000)
        delivering = self.relay.deliver(HOP, message(body))
        most_ahead = 0
        while self.network.step():
            most_ahead = max(most_ahead, body.read - len(peer.received))
        self.assertTrue(self.outcome(delivering).delivered)
        self.assertLess(most_ahead, 400 * 1024)
        self.assertEqual(len(peer.contents[0]), 4_000_000 + 100_000 + 13 + 3)

    def test_c2_octets_behind_220_end_the_session(self) -> None:
        """C2, §6: they are not used, and nothing is sent any more, under TLS or in clear."""
        for behind in (b"250 mx.example\r\n", b"2"):
            for level in ("may", "encrypt"):
                self.relay = self.make_relay(tls_level=level)
                peer = self.server(*TLS_OPENING, ("send", b"220 Go\r\n" + behind))
                outcome = self.outcome(self.deliver())  # there is no second connection at ``may``
                self.assertEqual(outcome.reply.enhanced, "4.7.0")
                self.assertTrue(peer.lost)
                self.assertTrue(peer.received.endswith(b"STARTTLS\r\n"))

    def test_c4_a_refused_starttls_is_handled_by_level(self) -> None:
        """C4, §4: in clear where TLS is optional; QUIT, and deferred, where it is required."""
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
        self.assertEqual(str(self.outcome(self.deliver()).reply), "454 4.7.0 Not now")
        self.assertTrue(peer.finished, peer.problems)

    def test_c4_required_tls_leads_to_the_next_target(self) -> None:
        self.relay = self.make_relay(tls_level="encrypt")
        self.targets = [FIRST, SECOND]
        self.server(*OPENING, *PARTING)
        self.server(*TLS_OPENING, *SECURED, *TAKEN, target=SECOND)
        outcome = self.outcome(self.deliver())
        self.assertTrue(outcome.delivered)
        self.assertIsNotNone(outcome.tls)

    def test_c8_a_failed_handshake_is_retried_once_in_clear(self) -> None:
        """C8, §6: on a new connection, without STARTTLS."""
        failures: list[list[ScriptStep]] = [
            [("send", b"220 Go\r\n"), ("close",)],
            [("send", b"220 Go\r\n"), HELLO, ("abort",)],
            [("send", b"220 Go\r\n"), HELLO, ("send", b"\x15\x03\x03\x00\x02\x02\x28")],
            [("send", b"220 Go\r\n"), HELLO, ("send", b"250 not TLS at all\r\n")],
        ]
        for failure in failures:
            self.relay.connections.small_hellos.clear()
            broken = self.server(*TLS_OPENING, *failure)
            if failure in failures[:2] and POSSIBLE:
                self.server(*TLS_OPENING, *failure)  # at a small ClientHello
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

    def test_c8_required_tls_never_falls_back_to_clear(self) -> None:
        self.relay = self.make_relay(tls_level="encrypt")
        self.server(*TLS_OPENING, ("send", b"220 Go\r\n"), ("close",))
        outcome = self.outcome(self.deliver())
        self.assertEqual(outcome.reply.enhanced, "4.7.5")
        self.assertEqual(len(self.network.connections), 1)

    def test_c8_a_failure_in_clear_is_not_retried(self) -> None:
        """There is one retry only."""
        self.server(*TLS_OPENING, ("send", b"220 Go\r\n250 early\r\n"))
        self.server(("abort",))
        self.assertEqual(self.outcome(self.deliver()).reply.code // 100, 4)
        self.assertEqual(len(self.network.connections), 2)

    def test_a_stalled_handshake_times_out(self) -> None:
        """After 30 seconds the connection is dropped, and the mail goes in clear."""
        self.relay.connections.small_hellos.note("mx1.example", 25, helped=False)
        stalled = self.server(*TLS_OPENING, ("send", b"220 Go\r\n"), HELLO)
        self.server(*OPENING, *TAKEN)
        delivering = self.deliver()
        self.network.advance(29.9)
        self.assertNoResult(delivering)
        self.network.advance(0.1)
        self.assertTrue(stalled.lost)
        self.assertTrue(self.outcome(delivering).delivered)

    def test_a_stalled_close_times_out(self) -> None:
        """A peer that never finishes the TLS shutdown is dropped."""
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
        self.server_with(PeerTLS(maximum=SSL.TLS1_1_VERSION), *TLS_OPENING, *SECURED)
        self.assertEqual(self.outcome(self.deliver()).reply.enhanced, "4.7.5")

    def test_a_connection_lost_after_the_final_dot_is_uncertain(self) -> None:
        for end in ("close", "abort"):
            peer = self.server(*TLS_OPENING, *SECURED, *TAKEN[:-1])
            peer.script.append((end,))  # type: ignore[arg-type]
            outcome = self.outcome(self.deliver())
            self.assertTrue(outcome.uncertain)
            self.assertEqual(outcome.reply.enhanced, "4.4.2")


class ServerNameTests(TidyTestCase):
    def test_sni_has_names_and_no_addresses(self) -> None:
        """RFC 6066 §3."""
        for name, expected in (
            ("mx.example", "mx.example"),
            ("192.0.2.1", None),
            ("2001:db8::1", None),
        ):
            self.assertEqual(server_name(Target(name, "192.0.2.1", 25)), expected)
