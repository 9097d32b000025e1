"""`sendmail` over real sockets: names, several addresses, TLS, large files, and cancellation."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory
from twisted.trial.unittest import TestCase

from tests.sending.test_sendmail import PARTING, opening, secured, transaction
from tests.server.authority import Authority
from tests.waiting import until
from twisted_mta import ConnectionFailed, SendResult, TLSFailed, sendmail
from twisted_mta.testing.peer import ScriptedPeer, ScriptStep
from twisted_mta.testing.reactor import MemoryNames
from twisted_mta.testing.tls import PeerTLS

PLAIN = b"Subject: Hi\r\n\r\nHello.\r\n"


class OverSockets(TestCase):
    timeout = 60  # seconds

    def setUp(self) -> None:
        from twisted.internet import reactor  # noqa: TID251

        self.reactor: Any = reactor
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def serve(self, *script: ScriptStep, tls: PeerTLS | None = None) -> ScriptedPeer:
        peer = ScriptedPeer(list(script), tls=tls)
        factory = Factory.forProtocol(lambda: peer)  # type: ignore[arg-type]
        listening = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        self.port = listening.getHost().port
        return peer

    def send(
        self, host: str = "127.0.0.1", message: Any = PLAIN, **arguments: Any
    ) -> Deferred[SendResult]:
        arguments = {"helo": "app.example", "port": self.port, **arguments}
        return sendmail(host, "ann@app.example", ["bob@x.example"], message, **arguments)

    def use_names(self, **names: Sequence[str]) -> None:
        before = self.reactor.installNameResolver(
            MemoryNames({name.replace("_", "."): addresses for name, addresses in names.items()})
        )
        self.addCleanup(self.reactor.installNameResolver, before)

    async def test_the_addresses_of_a_name_are_tried_and_no_socket_is_left(self) -> None:
        peer = self.serve(*opening(b"PIPELINING"), *transaction())
        self.use_names(mail_example=["::1", "127.0.0.1"])
        result = await self.send("mail.example")
        self.assertEqual(result.server, f"mail.example[127.0.0.1]:{self.port}")
        self.assertEqual((peer.problems, peer.script), ([], []))

    async def test_a_name_without_an_address_is_an_error(self) -> None:
        self.serve()
        self.use_names()
        with self.assertRaises(ConnectionFailed) as caught:
            await self.send("mail.example")
        self.assertEqual(str(caught.exception), "mail.example: it has no address")

    async def test_the_system_resolves_localhost_and_starttls_is_verified(self) -> None:
        authority = Authority()
        issued = authority.issue("localhost", names=["localhost"], for_clients=False)
        tls = PeerTLS(shown=(issued.certificate, issued.key))
        authorities = authority.issued.save(self.folder, "ca.pem")
        self.serve(*secured(b"PIPELINING"), *transaction(), tls=tls)
        result = await self.send("localhost", authorities=authorities)
        assert result.tls is not None
        self.assertTrue(result.tls.peer_verified)
        self.serve(*secured()[:6], *PARTING, tls=tls)
        with self.assertRaises(TLSFailed):
            await self.send("127.0.0.1", authorities=authorities)

    async def test_a_large_file_arrives_whole(self) -> None:
        path = Path(self.folder, "message")
        with path.open("wb") as file:
            file.writelines(lines(400_000))
        server = Counting()
        factory = Factory.forProtocol(lambda: server)  # type: ignore[arg-type]
        listening = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        self.port = listening.getHost().port
        with path.open("rb") as file:
            result = await self.send(message=file)
        self.assertEqual(result.accepted, ["bob@x.example"])
        wanted = hashlib.sha256(b"".join(lines(400_000)).replace(b"\n", b"\r\n") + b".\r\n")
        self.assertEqual(server.digest.hexdigest(), wanted.hexdigest())

    async def test_to_cancel_closes_the_connection(self) -> None:
        peer = self.serve(*opening(b"PIPELINING"), *transaction()[:2])
        sending = self.send(message=b"x" * 10_000_000)
        await until(lambda: len(peer.received) > 1000)
        sending.cancel()
        with self.assertRaises(CancelledError):
            await sending
        await until(lambda: peer.lost)

    async def test_without_a_reactor_the_installed_one_is_used(self) -> None:
        peer = self.serve(*opening(b"PIPELINING"), *transaction())
        program = (
            "import sys\n"
            "from twisted_mta import sendmail\n"
            "assert 'twisted.internet.reactor' not in sys.modules\n"
            "assert 'dns' not in sys.modules\n"
            "from twisted.internet import task\n"
            "def main(reactor):\n"
            f"    return sendmail('127.0.0.1', 'ann@app.example', ['bob@x.example'], {PLAIN!r},\n"
            f"        port={self.port}, helo='app.example').addCallback(print)\n"
            "task.react(main)\n"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with tempfile.TemporaryFile() as output:
            running = subprocess.Popen(
                [sys.executable, "-c", program],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                await until(lambda: running.poll() is not None)
            finally:
                running.kill()
                running.wait()
            output.seek(0)
            text = output.read().decode()
        self.assertEqual(running.returncode, 0, text)
        self.assertIn("Taken", text)
        self.assertEqual(peer.problems, [])


def lines(count: int) -> Iterator[bytes]:
    yield b"Subject: large\n\n"
    for number in range(count):
        yield b"%060d\n" % number


class Counting(ScriptedPeer):
    """A server that keeps a digest of the content, and not the content."""

    def __init__(self) -> None:
        super().__init__([*opening(b"PIPELINING"), *transaction()[:2]])
        self.digest = hashlib.sha256()
        self._tail = b""

    def dataReceived(self, data: bytes) -> None:
        if self.script:
            super().dataReceived(data)
            data = b""
        if data == b"QUIT\r\n":
            self.transport.write(b"221 Bye\r\n")
            self.transport.loseConnection()
            return
        self.digest.update(data)
        self._tail = (self._tail + data)[-5:]
        if self._tail == b"\r\n.\r\n":
            self.transport.write(b"250 2.0.0 Taken\r\n")
