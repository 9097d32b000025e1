"""Deliveries over real sockets: Twisted's own transports, endpoints and TLS."""

import os
import shutil
import tempfile
from collections.abc import Generator
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.internet.protocol import Factory
from twisted.trial.unittest import TestCase

from tests.delivery.test_relay import OPENING, TAKEN, message
from tests.server.authority import Authority
from tests.tls.test_client import SECURED, TLS_OPENING
from twisted_mta.config import Config, DeliverySettings
from twisted_mta.delivery.relay import Relay
from twisted_mta.mail.next_hop import Host, NextHop, Target
from twisted_mta.mail.outcome import Outcome
from twisted_mta.system.slices import finished
from twisted_mta.testing.peer import ScriptedPeer, ScriptStep
from twisted_mta.testing.tls import PeerTLS


class OverSocketsTests(TestCase):
    def setUp(self) -> None:
        from twisted.internet import reactor  # noqa: TID251

        self.reactor: Any = reactor
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        authority = Authority()
        self.issued = authority.issue("mx.example", names=["mx.example"], for_clients=False)
        file = authority.issued.save(self.folder, "ca.pem")
        config = Config(delivery=DeliverySettings(tls="verify", authorities=file))
        self.targets: list[Target] = []
        self.relay = Relay(
            reactor=self.reactor,
            locate=lambda hop: succeed(self.targets),
            helo="client.example",
            destination_for=config.destination_for,
        )
        self.relay.update(finished(self.relay.load_terms(config.all_destinations)))
        self.addCleanup(self.relay.close)
        self.addCleanup(self.relay.abort)

    def serve(self, *script: ScriptStep, path: str | None = None) -> ScriptedPeer:
        tls = PeerTLS(shown=(self.issued.certificate, self.issued.key))
        peer = ScriptedPeer(list(script), tls=tls)
        factory = Factory.forProtocol(lambda: peer)  # type: ignore[arg-type]
        if path is not None:
            port = self.reactor.listenUNIX(path, factory)
        else:
            port = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
            self.targets = [
                Target("mx.example", address, port.getHost().port)
                for address in ("::1", "127.0.0.1")  # the first has no listener
            ]
        self.addCleanup(port.stopListening)
        return peer

    @inlineCallbacks
    def send(self, hop: NextHop) -> Generator["Deferred[Any]", Any, Outcome]:
        [outcome] = yield self.relay.deliver(hop, message())
        self.assertTrue(outcome.delivered, outcome)
        return outcome  # type: ignore[no-any-return]

    @inlineCallbacks
    def test_starttls_delivers_a_message(self) -> Generator["Deferred[Any]", Any, None]:
        peer = self.serve(*TLS_OPENING, *SECURED, *TAKEN)
        outcome = yield self.send(NextHop("smtp", domain="example.net"))
        self.assertTrue(outcome.tls.peer_verified)
        self.assertEqual(peer.problems, [])

    @inlineCallbacks
    def test_implicit_tls_delivers_a_message(
        self,
    ) -> Generator["Deferred[Any]", Any, None]:
        peer = self.serve(("starttls",), *OPENING, *TAKEN)
        hop = NextHop("smtp", hosts=(Host("mx.example", 465),), implicit_tls=True)
        outcome = yield self.send(hop)
        self.assertTrue(outcome.tls.peer_verified)
        self.assertEqual(peer.problems, [])

    @inlineCallbacks
    def test_a_delivery_by_lmtp_over_a_unix_socket(self) -> Generator["Deferred[Any]", Any, None]:
        path = os.path.join(self.folder, "lmtp")
        lhlo: ScriptStep = ("expect", b"LHLO client.example\r\n")
        peer = self.serve(OPENING[0], lhlo, *OPENING[2:], *TAKEN, path=path)
        outcome = yield self.send(NextHop("lmtp", hosts=(Host(path),)))
        self.assertEqual(outcome.remote, path)
        self.assertEqual(peer.problems, [])
