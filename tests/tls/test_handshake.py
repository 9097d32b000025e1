"""A TLS connection: records that have arrived together are read together."""

from __future__ import annotations

import contextlib

from OpenSSL import SSL
from OpenSSL._util import lib
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.testing.tls import certificate
from twisted_mta.tls.certificates import ChainCheck
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

    def test_a_peer_that_is_gone_without_the_end_of_tls_is_an_error(self) -> None:
        self.send(CONTENT[:50_000])
        self.ours.bio_shutdown()
        self.assertEqual(self.ours.recv(32_768), CONTENT[:50_000])
        error = self.assertRaises(SSL.SysCallError, self.ours.recv, 32_768)
        self.assertEqual(error.args, (-1, "Unexpected EOF"))
        self.assertRaises(SSL.Error, self.ours.recv, 32_768)

    def test_octets_behind_our_end_of_tls_are_an_error(self) -> None:
        self.ours.shutdown()
        error = self.assertRaises(SSL.Error, self.ours.send, b"late")
        self.assertIn("protocol is shutdown", str(error))
        self.send(b"still read")
        self.assertEqual(self.received(), [b"still read"])

    def test_the_end_is_reported_after_all_commands_were_read(self) -> None:
        self.send(b"NOOP\r\n")
        self.assertEqual(self.received(), [b"NOOP\r\n"])
        self.assertEqual(self.received(), [])
        self.ours.bio_shutdown()
        self.assertRaises(SSL.SysCallError, self.ours.recv, 32_768)
        self.setUp()
        self.send(b"NOOP\r\n")
        self.assertEqual(self.received(), [b"NOOP\r\n"])
        self.theirs.shutdown()
        self.pass_on()
        self.assertRaises(SSL.ZeroReturnError, self.ours.recv, 32_768)

    def test_a_part_of_a_record_and_a_part_of_a_command_are_waited_for(self) -> None:
        for octets in (b"NOOP\r\n", b"QUIT\r\n"):
            self.theirs.send(octets)
        records = self.theirs.bio_read(1 << 20)
        received = b""
        for at in range(len(records)):
            self.ours.bio_write(records[at : at + 1])
            received += b"".join(self.received())
        self.assertEqual(received, b"NOOP\r\nQUIT\r\n")
        self.send(b"0123456789")
        pieces = [self.ours.recv(4), self.ours.recv(4), self.ours.recv(4)]
        self.assertEqual(pieces, [b"0123", b"4567", b"89"])

    def test_an_error_of_one_connection_is_not_that_of_the_next(self) -> None:
        """OpenSSL has one queue of errors for each thread."""
        broken = self.ours
        self.setUp()
        broken.bio_write(b"no record")
        self.assertRaises(SSL.Error, broken.recv, 32_768)
        self.assertRaises(SSL.Error, broken.send, b"x")
        self.assertRaises(SSL.WantReadError, self.ours.recv, 32_768)
        self.send(CONTENT[:50_000])
        self.assertEqual(self.received(), [CONTENT[:50_000]])

    def test_an_error_of_a_chain_that_was_accepted_is_not_that_of_the_next_read(self) -> None:
        lib.BIO_new_file(b"/missing", b"r")  # leaves an error, as the check of a signature does
        self.assertTrue(lib.ERR_peek_error())
        ChainCheck().note("certificate signature failure", ok=0)
        self.assertRaises(SSL.WantReadError, self.ours.recv, 32_768)

    def test_a_large_answer_is_encrypted_whole(self) -> None:
        sent = 0
        while sent < len(CONTENT):
            sent += self.ours.send(CONTENT[sent:])
        answer = b""
        while len(answer) < len(CONTENT):
            octets = self.ours.bio_read(1 << 15)
            self.assertNotEqual(octets, b"")
            self.theirs.bio_write(octets)
            with contextlib.suppress(SSL.WantReadError):
                while True:
                    answer += self.theirs.recv(1 << 15)
        self.assertEqual(answer, CONTENT)
        self.assertEqual(self.ours.bio_read(1 << 15), b"")

    def test_a_broken_record_is_reported_behind_those_before_it(self) -> None:
        self.send(CONTENT[:50_000])
        self.theirs.send(b"x" * 2000)
        record = bytearray(self.theirs.bio_read(1 << 20))
        record[-1] ^= 1
        self.ours.bio_write(bytes(record))
        self.assertEqual(self.ours.recv(32_768), CONTENT[:50_000])
        error = self.assertRaises(SSL.Error, self.ours.recv, 32_768)
        self.assertIn("bad record mac", str(error))
