"""A TLS connection: records that have arrived together are read together."""

from __future__ import annotations

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.testing.tls import certificate
from twisted_mta.tls.handshake import TLSConnection

CONTENT = b"".join(b"%07d\n" % number for number in range(131_072))  # 1 MiB


class Reading(SynchronousTestCase):
    def setUp(self) -> None:
        made, key = certificate()
        context = SSL.Context(SSL.TLS_METHOD)
        context.use_certificate(made)
        context.use_privatekey(key)
        self.ours = TLSConnection(context, None)
        self.ours.set_accept_state()
        self.theirs = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
        self.theirs.set_connect_state()
        for _ in range(3):
            for end in (self.theirs, self.ours):
                try:
                    end.do_handshake()
                except SSL.WantReadError:
                    self.pass_on()

    def pass_on(self) -> None:
        """Pass octets on, in both directions."""
        for source, target in ((self.theirs, self.ours), (self.ours, self.theirs)):
            try:
                while octets := source.bio_read(1 << 20):
                    target.bio_write(octets)
            except SSL.WantReadError:
                pass

    def send(self, octets: bytes, record: int = 16_384) -> None:
        for start in range(0, len(octets), record):
            self.theirs.send(octets[start : start + record])
        self.pass_on()

    def received(self) -> list[bytes]:
        pieces = []
        while True:
            try:
                pieces.append(self.ours.recv(32_768))
            except SSL.WantReadError:
                return pieces

    def test_the_records_of_a_content_come_in_pieces_of_128_kib(self) -> None:
        for record in (16_384, 4096):
            self.send(CONTENT, record)
            pieces = self.received()
            self.assertEqual(b"".join(pieces), CONTENT)
            self.assertEqual([len(piece) for piece in pieces], [131_072] * 8)

    def test_commands_come_as_they_were_sent(self) -> None:
        self.send(b"MAIL FROM:<a@client.example>\r\nRCPT TO:<b@mx.example>\r\n", 30)
        self.assertEqual(
            self.received(), [b"MAIL FROM:<a@client.example>\r\n", b"RCPT TO:<b@mx.example>\r\n"]
        )

    def test_the_end_of_tls_is_reported_behind_the_records(self) -> None:
        self.send(CONTENT[:50_000])
        self.theirs.shutdown()
        self.pass_on()
        self.assertEqual(self.ours.recv(32_768), CONTENT[:50_000])
        for _ in range(2):
            self.assertRaises(SSL.ZeroReturnError, self.ours.recv, 32_768)

    def test_a_broken_record_is_reported_behind_those_before_it(self) -> None:
        self.send(CONTENT[:50_000])
        self.theirs.send(b"x" * 2000)
        record = bytearray(self.theirs.bio_read(1 << 20))
        record[-1] ^= 1
        self.ours.bio_write(bytes(record))
        self.assertEqual(self.ours.recv(32_768), CONTENT[:50_000])
        error = self.assertRaises(SSL.Error, self.ours.recv, 32_768)
        self.assertIn("bad record mac", str(error))
