"""Deliveries over real sockets: Twisted's own transports and TLS."""

import os
import shutil
import tempfile
from collections.abc import Generator
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.internet.protocol import Factory
from twisted.trial.unittest import TestCase

from tests.delivery.test_relay import GROUP, OPENING, TAKEN, message
from tests.server.authority import Authority
from tests.tls.test_client import SECURED, TLS_OPENING
from tests.waiting import until
from twisted_mta.config import Config, DeliverySettings
from twisted_mta.delivery.relay import Relay
from twisted_mta.mail.next_hop import Host, NextHop, Target
from twisted_mta.mail.outcome import Outcome
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.mail.tls_policy import TLSLevel
from twisted_mta.queue.store.spool import DotlessFileBody
from twisted_mta.system.files import DiskFiles
from twisted_mta.system.work import finished
from twisted_mta.testing.peer import ScriptedPeer, ScriptStep
from twisted_mta.testing.tls import PeerTLS


class OverSocketsCase(TestCase):
    """A relay to a server on a loopback port."""

    level: TLSLevel = "verify"

    def setUp(self) -> None:
        from twisted.internet import reactor  # noqa: TID251

        self.reactor: Any = reactor
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        authority = Authority()
        self.issued = authority.issue("mx.example", names=["mx.example"], for_clients=False)
        file = authority.issued.save(self.folder, "ca.pem")
        config = Config(delivery=DeliverySettings(tls=self.level, authorities=file))
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


class OverSocketsTests(OverSocketsCase):
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


class LargeBodies(OverSocketsCase):
    level = "may"

    @inlineCallbacks
    def test_a_large_body_goes_as_a_file_on_a_plain_connection(
        self,
    ) -> Generator["Deferred[Any]", Any, None]:
        offsets: list[int] = []

        def sendfile(socket: int, file: int, offset: int, count: int) -> int:
            offsets.append(offset)
            return really(socket, file, offset, count)

        really = os.sendfile
        self.patch(os, "sendfile", sendfile)
        content = b"Subject: x\r\n\r\n" + b"%078d\r\n" * 20_000 % tuple(range(20_000))
        peer = self.serve(*OPENING, *TAKEN)
        body = self.dotless(content)
        [outcome] = yield self.relay.deliver(NextHop("smtp", domain="example.net"), message(body))
        self.assertTrue(outcome.delivered, outcome)
        self.assertEqual(peer.contents, [b"Received: x\r\n" + content + b".\r\n"])
        self.assertGreater(len(offsets), 1)
        # Under TLS its octets have to be encrypted here.
        offsets.clear()
        peer = self.serve(("starttls",), *OPENING, *TAKEN)
        hop = NextHop("smtp", hosts=(Host("mx.example", 465),), implicit_tls=True)
        [outcome] = yield self.relay.deliver(hop, message(body))
        self.assertTrue(outcome.delivered, outcome)
        self.assertEqual(peer.contents, [b"Received: x\r\n" + content + b".\r\n"])
        self.assertEqual(offsets, [])

    @inlineCallbacks
    def test_a_file_that_became_shorter_has_no_final_dot(
        self,
    ) -> Generator["Deferred[Any]", Any, None]:
        peer = self.serve(*OPENING, *TAKEN)
        body = self.dotless(b"Subject: x\r\n\r\n" + b"x\r\n" * 100_000)
        os.truncate(body.path, 200_000)
        [outcome] = yield self.relay.deliver(NextHop("smtp", domain="example.net"), message(body))
        self.assertEqual(outcome.reply.code, 451)
        self.assertIn("shorter", str(outcome.reply))
        yield Deferred.fromCoroutine(until(lambda: peer.lost))
        self.assertEqual(peer.contents, [])
        self.assertFalse(peer.received.endswith(b".\r\n"))

    @inlineCallbacks
    def test_a_server_may_refuse_while_a_file_is_sent(
        self,
    ) -> Generator["Deferred[Any]", Any, None]:
        refusing: list[ScriptStep] = [
            *GROUP,
            ("send", b"250 Ok\r\n250 Ok\r\n354 Go on\r\n"),
            ("expect", b"Received: x\r\n"),
            ("send", b"552 5.3.4 Too large\r\n"),
        ]
        opened: list[Any] = []
        body = self.dotless(b"Subject: x\r\n\r\n" + b"x\r\n" * 10_000_000)
        open_file = DotlessFileBody.open
        self.patch(
            DotlessFileBody, "open", lambda body: opened.append(open_file(body)) or opened[-1]
        )
        peer = self.serve(*OPENING, *refusing)
        [outcome] = yield self.relay.deliver(NextHop("smtp", domain="example.net"), message(body))
        self.assertEqual(str(outcome.reply), "552 5.3.4 Too large")
        yield Deferred.fromCoroutine(until(lambda: peer.lost))
        self.assertEqual([file.closed for file in opened], [True])

    def dotless(self, content: bytes) -> DotlessFileBody:
        """Return a body in a file that was used again, after a longer one."""
        path = os.path.join(self.folder, f"body{len(os.listdir(self.folder))}")
        id = QueueId(1)
        with open(path, "wb") as file:
            file.write(b"%s\r\n%sof another message" % (str(id).encode(), content))
        return DotlessFileBody(DiskFiles(), path, len(content), id, QueueId(9))
