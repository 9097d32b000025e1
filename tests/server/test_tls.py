"""TLS on our side: contexts that real clients shake hands with, and files that cannot be used."""

import contextlib
import os
import shutil
import ssl
import tempfile
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from twisted_mta.entropy import wall_time
from twisted_mta.files import DiskFiles
from twisted_mta.server.tls import (
    CertificateError,
    ServerContext,
    facts,
    load,
    self_signed,
    suffices,
)
from twisted_mta.testing.files import PowerCut, UnsyncedFiles

NOW = 1_790_000_000.0


def key_pem(
    key: CertificateIssuerPrivateKeyTypes, encryption: KeySerializationEncryption | None = None
) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def certificate_pem(key: CertificateIssuerPrivateKeyTypes, name: str, days: int = 30) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    moment = datetime.fromtimestamp(NOW, UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(moment - timedelta(days=60))
    builder = builder.not_valid_after(moment + timedelta(days=days))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())


def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def shake_hands(
    server: ServerContext, client: ssl.SSLContext, name: str | None = None
) -> tuple[ssl.SSLObject, SSL.Connection]:
    """Return both ends of a handshake in memory."""
    protocol = TLSMemoryBIOFactory(server, False, Factory.forProtocol(Protocol)).buildProtocol(None)
    protocol.makeConnection(transport := StringTransport())
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    end = client.wrap_bio(to_client, to_server, server_hostname=name)
    for _ in range(4):
        to_client.write(transport.value())
        transport.clear()
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
        if to_server.pending:
            protocol.dataReceived(to_server.read())
    return end, protocol.getHandle()


class FilesTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)

    def file(self, name: str, content: bytes) -> str:
        path = os.path.join(self.directory, name)
        with open(path, "wb") as written:
            written.write(content)
        return path

    def context(self, minimum_tls: str = "1.2") -> ServerContext:
        pem = self.file("pair.pem", key_pem(KEY) + certificate_pem(KEY, "mail.example.net"))
        return load(pem, pem, minimum_tls)


class Handshakes(FilesTestCase):
    def test_twisted_takes_it_for_a_server(self) -> None:
        verifyObject(IOpenSSLServerConnectionCreator, self.context())

    def test_the_newest_version_and_its_facts(self) -> None:
        context = self.context()
        client, server = shake_hands(context, client_context(), "mail.example.net")
        self.assertEqual(client.version(), "TLSv1.3")
        achieved = context.facts(server)
        self.assertEqual((achieved.version, achieved.bits), ("TLSv1.3", 256))
        self.assertEqual(client.cipher(), (achieved.cipher, "TLSv1.3", 256))
        self.assertEqual(achieved.server_name, "mail.example.net")
        self.assertEqual((achieved.peer_subject, achieved.peer_verified), (None, False))

    def test_tls_1_2_with_forward_secrecy_as_we_prefer(self) -> None:
        client = client_context()
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        client.set_ciphers("AES128-SHA:ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-GCM-SHA384")
        _, server = shake_hands(self.context(), client)
        self.assertEqual(
            (facts(server).version, facts(server).cipher),
            ("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384"),
        )

    def test_older_versions_fail(self) -> None:
        client = SSL.Context(SSL.TLS_CLIENT_METHOD)
        client.set_cipher_list(b"ALL@SECLEVEL=0")
        client.set_min_proto_version(SSL.TLS1_1_VERSION)
        client.set_max_proto_version(SSL.TLS1_1_VERSION)
        connection = SSL.Connection(client, None)
        connection.set_connect_state()
        self.assertRaises(SSL.WantReadError, connection.do_handshake)
        server = self.context().serverConnectionForTLS(None)
        server.set_accept_state()
        server.bio_write(connection.bio_read(65536))
        error = self.assertRaises(SSL.Error, server.do_handshake)
        self.assertIn("unsupported protocol", str(error))

    def test_minimum_tls_1_3_refuses_1_2(self) -> None:
        client = client_context()
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        self.assertRaises(ssl.SSLError, shake_hands, self.context("1.3"), client)

    def test_what_suffices_is_said_after_the_handshake(self) -> None:
        client = client_context()
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        _, server = shake_hands(self.context(), client)
        self.assertEqual(
            [suffices(least)(facts(server)) for least in ("1.2", "1.3")], [True, False]
        )

    def test_a_client_that_offers_alpn_is_welcome_all_the_same(self) -> None:
        client = client_context()
        client.set_alpn_protocols(["h2", "smtp"])
        end, _ = shake_hands(self.context(), client)
        self.assertEqual((end.version(), end.selected_alpn_protocol()), ("TLSv1.3", None))

    def test_a_client_that_renegotiates_is_refused(self) -> None:
        context = self.context()
        client = SSL.Context(SSL.TLS_CLIENT_METHOD)
        client.set_max_proto_version(SSL.TLS1_2_VERSION)
        ends = [SSL.Connection(client, None), context.serverConnectionForTLS(None)]
        ends[0].set_connect_state()
        ends[1].set_accept_state()

        def exchange() -> None:
            for _ in range(3):
                for one, other in (ends, ends[::-1]):
                    with contextlib.suppress(SSL.WantReadError):
                        one.do_handshake()
                    with contextlib.suppress(SSL.WantReadError):
                        one.recv(1)
                    with contextlib.suppress(SSL.WantReadError):
                        other.bio_write(one.bio_read(65536))

        exchange()
        ends[0].renegotiate()
        error = self.assertRaises(SSL.Error, exchange)
        self.assertIn("no renegotiation", str(error))

    def test_the_chain_is_sent(self) -> None:
        both = certificate_pem(KEY, "mail.example.net") + certificate_pem(OTHER_KEY, "issuer")
        context = load(self.file("chain.pem", both), self.file("key.pem", key_pem(KEY)))
        client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        client.set_connect_state()
        server = context.serverConnectionForTLS(None)
        server.set_accept_state()
        self.assertRaises(SSL.WantReadError, client.do_handshake)
        server.bio_write(client.bio_read(65536))
        self.assertRaises(SSL.WantReadError, server.do_handshake)
        client.bio_write(server.bio_read(65536))
        client.do_handshake()
        chain = client.get_peer_cert_chain(as_cryptography=True) or []
        names = [one.subject.rfc4514_string() for one in chain]
        self.assertEqual(names, ["CN=mail.example.net", "CN=issuer"])

    def test_the_facts_of_a_peers_certificate_are_printable(self) -> None:
        pem = self.file("evil.pem", key_pem(KEY) + certificate_pem(KEY, "a\r\nBcc: b\x00é"))
        context = load(pem, pem)
        client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        client.set_connect_state()
        server = context.serverConnectionForTLS(None)
        server.set_accept_state()
        self.assertRaises(SSL.WantReadError, client.do_handshake)
        server.bio_write(client.bio_read(65536))
        self.assertRaises(SSL.WantReadError, server.do_handshake)
        client.bio_write(server.bio_read(65536))
        client.do_handshake()
        achieved = facts(client, verified=True)
        self.assertTrue(achieved.peer_verified)
        subject = achieved.peer_subject or ""
        self.assertTrue(subject.isascii() and subject.isprintable(), subject)
        self.assertEqual(subject, achieved.peer_issuer)
        self.assertEqual(
            achieved.peer_fingerprint, context.certificate.fingerprint(hashes.SHA256()).hex()
        )


class Reloading(FilesTestCase):
    def served(self, context: ServerContext) -> bytes | None:
        end, _ = shake_hands(context, client_context())
        return end.getpeercert(binary_form=True)

    def test_later_connections_see_the_new_certificate(self) -> None:
        context = self.context()
        before = self.served(context)
        self.file("pair.pem", key_pem(OTHER_KEY) + certificate_pem(OTHER_KEY, "new.example.net"))
        self.assertEqual(self.served(context), before)
        context.reload()
        self.assertEqual(self.served(context), context.certificate.public_bytes(Encoding.DER))
        self.assertNotEqual(self.served(context), before)

    def test_what_cannot_be_used_leaves_the_old_in_force(self) -> None:
        context = self.context()
        before = self.served(context)
        self.file("pair.pem", key_pem(OTHER_KEY) + certificate_pem(KEY, "new.example.net"))
        self.assertRaises(CertificateError, context.reload)
        self.assertEqual(self.served(context), before)
        self.assertTrue(context.ready)


class Files(FilesTestCase):
    def refusal(self, certificate: str, key: str) -> str:
        return str(self.assertRaises(CertificateError, load, certificate, key)).replace(
            self.directory, "DIR"
        )

    def test_errors_name_the_file_and_what_is_wrong(self) -> None:
        certificate = self.file("c.pem", certificate_pem(KEY, "mail.example.net"))
        key = self.file("k.pem", key_pem(KEY))
        locked = self.file("locked.pem", key_pem(KEY, BestAvailableEncryption(b"secret")))
        for files, text in (
            (("/nowhere.pem", key), "/nowhere.pem: cannot be read: No such file or directory"),
            ((key, key), "DIR/k.pem: holds no certificate in PEM form;"),
            ((certificate, certificate), "DIR/c.pem: holds no private key in PEM form;"),
            ((certificate, locked), "DIR/locked.pem: the key has a passphrase; one without"),
            (
                (certificate, self.file("other.pem", key_pem(OTHER_KEY))),
                "DIR/other.pem: the key does not match the certificate in DIR/c.pem;",
            ),
        ):
            self.assertIn(text, self.refusal(*files))

    def test_a_chain_in_the_wrong_order_is_told_so(self) -> None:
        chain = certificate_pem(OTHER_KEY, "issuer") + certificate_pem(KEY, "mail.example.net")
        self.assertIn(
            "it belongs to certificate 2 of the file, which has to come first",
            self.refusal(self.file("chain.pem", chain), self.file("k.pem", key_pem(KEY))),
        )

    def test_what_openssl_finds_too_weak_is_said(self) -> None:
        weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
        pem = self.file("weak.pem", key_pem(weak) + certificate_pem(weak, "mail.example.net"))
        self.assertIn("DIR/weak.pem: OpenSSL refuses it: ee key too small;", self.refusal(pem, pem))

    def test_dates_are_warned_of_and_no_more(self) -> None:
        context = self.context()
        day = 86400.0
        for moment, text in (
            (NOW, ""),
            (NOW + 20 * day, "the certificate expires on 2026-10-21; renew it"),
            (NOW + 31 * day, "the certificate expired on 2026-10-21; renew it"),
            (NOW - 61 * day, "the certificate is not valid before 2026-07-23 14:13 UTC"),
        ):
            self.assertEqual(
                [warning.partition(": ")[2] for warning in context.warnings(moment)],
                [text] if text else [],
            )


class SelfSigned(FilesTestCase):
    def make(self, hostname: str = "mail.example.net", *, now: float = NOW) -> str:
        certificate, key = self_signed(
            self.directory, hostname, files=DiskFiles(), wall_time=lambda: now
        )
        self.assertEqual(certificate, key)
        return certificate

    def content(self) -> bytes:
        with open(self.make(), "rb") as opened:
            return opened.read()

    def test_it_is_for_the_hostname_and_for_localhost(self) -> None:
        path = self.make()
        certificate = load(path, path).certificate
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(names.get_values_for_type(x509.DNSName), ["mail.example.net", "localhost"])
        self.assertEqual(
            [str(address) for address in names.get_values_for_type(x509.IPAddress)],
            ["127.0.0.1", "::1"],
        )
        years = (certificate.not_valid_after_utc.timestamp() - NOW) / 86400 / 365
        self.assertEqual(round(years, 1), 10.0)
        key = certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        self.assertEqual(key.curve.name, "secp256r1")

    def test_a_client_that_is_given_it_believes_it(self) -> None:
        path = self.make(now=wall_time())
        client = ssl.create_default_context(cafile=path)
        end, _ = shake_hands(load(path, path), client, "mail.example.net")
        self.assertEqual(end.version(), "TLSv1.3")

    def test_names_of_every_kind_can_be_had(self) -> None:
        for hostname in (
            "[192.0.2.1]",
            "[IPv6:2001:db8::1]",
            "bücher.example",
            "a" * 60 + ".b" * 9,
        ):
            path = self.make(hostname)
            self.assertTrue(load(path, path).ready, hostname)
            os.unlink(path)

    def test_it_is_made_once_and_nobody_else_can_read_it(self) -> None:
        self.assertEqual(self.content(), self.content())
        self.assertEqual(os.stat(self.make()).st_mode & 0o777, 0o600)
        self.assertEqual(os.listdir(self.directory), ["self-signed.pem"])

    def test_what_is_broken_or_expired_is_made_anew(self) -> None:
        whole = self.content()
        for broken in (
            b"",
            whole[: len(whole) // 2],
            key_pem(OTHER_KEY) + whole[whole.index(b"--\n-") + 3 :],
        ):
            self.file("self-signed.pem", broken)
            self.assertNotEqual(self.content(), broken)
            load(self.make(), self.make())
        path = self.make(now=NOW + 11 * 365 * 86400)
        self.assertEqual(load(path, path).warnings(NOW + 11 * 365 * 86400), [])

    def test_what_a_kill_left_half_written_is_no_obstacle(self) -> None:
        self.file("self-signed.pem.new", b"-----BEGIN")
        load(self.make(), self.make())
        self.assertEqual(os.listdir(self.directory), ["self-signed.pem"])

    def test_a_power_cut_at_any_moment_leaves_all_or_nothing(self) -> None:
        for old in (False, True):
            operations = 0
            while True:
                files = UnsyncedFiles()
                files.make_directories("/state")
                if old:
                    self_signed("/state", "a.example", files=files, wall_time=lambda: 0.0)
                files.cut_power_in(operations)
                try:
                    self_signed("/state", "a.example", files=files, wall_time=lambda: NOW)
                except PowerCut:
                    files.crash()
                else:
                    break
                path, _ = self_signed("/state", "a.example", files=files, wall_time=lambda: NOW)
                files.crash()
                copy = self.file("copy.pem", files.content(path))
                self.assertEqual(load(copy, copy).warnings(NOW), [], operations)
                operations += 1
            self.assertGreater(operations, 4)
