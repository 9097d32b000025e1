"""Servers that fail at a large ClientHello get a small one, before any mail goes in clear."""

from __future__ import annotations

from typing import Any

from tests.delivery.hops import HopTestCase
from tests.delivery.test_relay import FIRST, OPENING, PARTING, TAKEN
from tests.tls.test_client import SECURED, TLS_OPENING
from twisted_mta.mail.outcome import Outcome
from twisted_mta.testing.peer import ScriptedPeer, ScriptStep
from twisted_mta.testing.tls import PeerTLS
from twisted_mta.tls.small_hello import POSSIBLE

HOURS = 3600.0
LARGE = 1000  # octets; a segment has about 1400


class SmallReader(ScriptedPeer):
    """A server that takes the first octets of a handshake, and fails at a large ClientHello."""

    def __init__(self, script: list[ScriptStep], *, fails: str = "close") -> None:
        super().__init__(script, tls=PeerTLS())
        self.hello = 0
        self._fails = fails

    def _step(self, step: ScriptStep) -> bool:
        if step[0] != "starttls":
            return super()._step(step)
        if not self._buffer:
            return False
        self.hello = len(self._buffer)
        if self.hello <= LARGE:
            octets, self._buffer = bytes(self._buffer), bytearray()
            self.transport.startTLS(self._tls)
            self.transport.protocol.dataReceived(octets)
            return True
        if self._fails == "wait":
            return False
        return super()._step(("close",) if self._fails == "close" else ("abort",))


class SmallHellosTests(HopTestCase):
    def setUp(self) -> None:
        super().setUp()
        if not POSSIBLE:
            self.skipTest("this OpenSSL has no large ClientHello")
        self.peers: list[SmallReader] = []

    def listens(self, times: int, **options: Any) -> None:
        for _ in range(times):
            self.peers.append(peer := SmallReader([*TLS_OPENING, *SECURED, *TAKEN], **options))
            self.network.listen(FIRST.address, FIRST.port, peer)

    def delivered(self, seconds: float = 0) -> Outcome:
        """Deliver a message; return its outcome when the connection is closed."""
        delivering = self.deliver()
        self.network.advance(seconds)
        outcome = self.outcome(delivering)
        self.assertTrue(outcome.delivered, outcome)
        self.network.advance(5)
        self.network.advance(5)
        return outcome

    def test_a_server_that_fails_at_a_large_hello_gets_mail_under_tls(self) -> None:
        for fails, seconds in (("close", 0), ("abort", 0), ("wait", 30)):
            for level in ("may", "encrypt"):
                self.use(tls=level)
                self.peers.clear()
                self.listens(2, fails=fails)
                outcome = self.delivered(seconds)
                assert outcome.tls is not None
                self.assertEqual(outcome.tls.key_exchange, "x25519")
                large, small = (peer.hello for peer in self.peers)
                self.assertGreater(large, LARGE)
                self.assertLess(small, LARGE)
                self.assertEqual(self.relay.connections.traffic.clear_retries, 0)
                self.assertEqual(self.relay.connections.traffic.handshake_retries, 1)

    def test_it_gets_small_ones_at_once_for_half_a_day(self) -> None:
        self.use()
        self.listens(2)
        self.delivered()
        self.network.advance(11 * HOURS)
        self.listens(1)
        self.delivered()
        self.assertLess(self.peers[-1].hello, LARGE)
        self.network.advance(2 * HOURS)
        self.listens(2)
        self.delivered()
        self.assertGreater(self.peers[-2].hello, LARGE)
        self.assertLess(self.peers[-1].hello, LARGE)

    def test_a_server_that_fails_at_a_small_hello_too_is_not_tried_with_it_again(self) -> None:
        self.use()
        for _ in range(2):
            self.server(*TLS_OPENING, ("send", b"220 Go\r\n"), ("close",))
        self.server(*OPENING, *TAKEN, *PARTING)
        self.assertIsNone(self.delivered().tls)
        self.server(*TLS_OPENING, ("send", b"220 Go\r\n"), ("close",))
        self.server(*OPENING, *TAKEN, *PARTING)
        self.assertIsNone(self.delivered().tls)
        self.assertEqual(self.relay.connections.traffic.handshake_retries, 1)

    def test_a_server_that_is_gone_then_leaves_the_reason_of_the_first_handshake(self) -> None:
        self.use(tls="encrypt")
        self.listens(1)
        outcome = self.outcome(self.deliver())
        self.assertEqual(outcome.reply.enhanced, "4.7.5")
        self.assertIn("during the TLS handshake", outcome.reply.text)

    def test_the_log_says_so(self) -> None:
        self.use()
        self.listens(2)
        self.delivered()
        (line,) = [line for line in self.log if "small ClientHello, and none" in line]
        self.assertIn("mx1.example[192.0.2.1]:25 completes a TLS handshake", line)
