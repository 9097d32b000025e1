"""TLS contexts of listeners, in handshakes with real clients in memory."""

import contextlib
import os
import shutil
import ssl
import tempfile

from attrs import evolve
from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface.verify import verifyObject

from tests.server import authority
from tests.server.authority import Authority
from tests.tidy import TidyTestCase
from twisted_mta.config import SNICertificate
from twisted_mta.mail.tls_facts import TLSFacts
from twisted_mta.system.files import DiskFiles
from twisted_mta.system.real_world import wall_time
from twisted_mta.tls.certificates import CertificateError, openssl_reason
from twisted_mta.tls.handshake import server_facts, suffices
from twisted_mta.tls.self_signed import self_signed
from twisted_mta.tls.server import ServerContext, TLSSettings, load

OURS = authority.self_signed("mail.example.net")
NEW = authority.self_signed("new.example.net")


def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def shake_hands(
    server: ServerContext,
    client: ssl.SSLContext,
    name: str | None = None,
    *,
    session: ssl.SSLSession | None = None,
) -> tuple[ssl.SSLObject, SSL.Connection]:
    """Return both ends of a completed handshake in memory; the client may resume a session."""
    protocol = TLSMemoryBIOFactory(server, False, Factory.forProtocol(Protocol)).buildProtocol(None)
    protocol.makeConnection(transport := StringTransport())
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    end = client.wrap_bio(to_client, to_server, server_hostname=name, session=session)
    for _ in range(4):
        to_client.write(transport.value())
        transport.clear()
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
        if to_server.pending:
            protocol.dataReceived(to_server.read())
    to_client.write(transport.value())
    with contextlib.suppress(ssl.SSLWantReadError):
        end.read(1)  # takes the tickets
    return end, protocol.getHandle()


class FilesTestCase(TidyTestCase):
    def setUp(self) -> None:
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)

    def file(self, name: str, content: bytes) -> str:
        path = os.path.join(self.directory, name)
        with open(path, "wb") as written:
            written.write(content)
        return path

    def context(self, minimum_tls: str = "1.2") -> ServerContext:
        pem = OURS.save(self.directory, "pair.pem")
        return load(pem, pem, minimum_tls)


class Handshakes(FilesTestCase):
    def test_twisted_uses_the_context_for_a_server(self) -> None:
        verifyObject(IOpenSSLServerConnectionCreator, self.context())

    def test_the_newest_version_is_negotiated_with_its_facts(self) -> None:
        context = self.context()
        client, server = shake_hands(context, client_context(), "mail.example.net")
        self.assertEqual(client.version(), "TLSv1.3")
        achieved = context.facts(server)
        self.assertEqual((achieved.version, achieved.bits), ("TLSv1.3", 256))
        self.assertEqual(client.cipher(), (achieved.cipher, "TLSv1.3", 256))
        self.assertEqual(achieved.server_name, "mail.example.net")
        self.assertEqual((achieved.peer_subject, achieved.peer_verified), (None, False))

    def test_tls_1_2_has_forward_secrecy_by_our_preference(self) -> None:
        client = client_context()
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        client.set_ciphers("AES128-SHA:ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-GCM-SHA384")
        _, server = shake_hands(self.context(), client)
        self.assertEqual(
            (server_facts(server).version, server_facts(server).cipher),
            ("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384"),
        )

    def test_versions_before_1_2_fail(self) -> None:
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

    def test_the_version_is_decided_on_after_the_handshake(self) -> None:
        client = client_context()
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        _, server = shake_hands(self.context(), client)
        self.assertEqual(
            [suffices(least)(server_facts(server)) for least in ("1.2", "1.3")], [True, False]
        )

    def test_version_strength_and_certificate_may_be_required(self) -> None:
        good = TLSFacts("TLSv1.3", "TLS_AES_128_GCM_SHA256", 128, peer_verified=True)
        for decide, decision in (
            (suffices(), True),
            (suffices("1.3", cipher_bits=128, client_certificate=True), True),
            (suffices(cipher_bits=256), False),
        ):
            self.assertEqual(decide(good), decision)
        self.assertFalse(suffices(client_certificate=True)(TLSFacts("TLSv1.3", "", 256)))

    def test_alpn_of_a_client_is_ignored(self) -> None:
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
        by = Authority("issuer")
        ours = by.issue("mail.example.net", for_clients=False)
        both = self.file("both.pem", ours.pem + by.issued.pem)
        context = load(both, both)
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
        pem = authority.self_signed("a\r\nBcc: b\x00é").save(self.directory, "evil.pem")
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
        achieved = server_facts(client, verified=True)
        self.assertTrue(achieved.peer_verified)
        subject = achieved.peer_subject or ""
        self.assertTrue(subject.isascii() and subject.isprintable(), subject)
        self.assertEqual(subject, achieved.peer_issuer)
        self.assertEqual(
            achieved.peer_fingerprint, authority.Issued(context.certificate, OURS.key).fingerprint
        )


class Reloading(FilesTestCase):
    def served(self, context: ServerContext) -> bytes | None:
        end, _ = shake_hands(context, client_context())
        return end.getpeercert(binary_form=True)

    def test_later_connections_use_the_new_certificate(self) -> None:
        context = self.context()
        before = self.served(context)
        NEW.save(self.directory, "pair.pem")
        self.assertEqual(self.served(context), before)
        context.reload()
        self.assertEqual(self.served(context), NEW.der)
        self.assertNotEqual(self.served(context), before)

    def test_an_unusable_file_leaves_the_old_context_in_force(self) -> None:
        context = self.context()
        before = self.served(context)
        self.file("pair.pem", NEW.key_pem + OURS.pem.removeprefix(OURS.key_pem))
        self.assertRaises(CertificateError, context.reload)
        self.assertEqual(self.served(context), before)
        self.assertTrue(context.ready)

    def test_a_reload_says_what_has_changed(self) -> None:
        pem = OURS.save(self.directory, "pair.pem")
        settings = TLSSettings(certificate_file=pem, key_file=pem)
        context = ServerContext(settings)
        self.assertEqual(context.reload(), [])
        self.assertEqual(context.reload(), [])

        NEW.save(self.directory, "pair.pem")
        [line] = context.reload()
        self.assertRegex(line, r"/pair\.pem: .*new\.example\.net.*; before: .*mail\.example\.net")

        self.file("pair.pem", NEW.pem + OURS.pem.removeprefix(OURS.key_pem))
        self.assertEqual(context.reload(), [f"{pem}: another chain behind the same certificate"])

        other = authority.self_signed("a.example").save(self.directory, "a.pem")
        context.settings = evolve(
            settings, sni=(SNICertificate(names=["a.example"], certificate=other),)
        )
        [line] = context.reload()
        self.assertRegex(line, r"^[^:]*/a\.pem: .*CN=a\.example")
        self.assertNotIn("before", line)

    def test_a_reload_says_which_authorities_for_clients_have_changed(self) -> None:
        pem = OURS.save(self.directory, "pair.pem")
        first, second = Authority("One").issued, Authority("Two").issued
        path = self.file("ca.pem", first.pem)
        settings = TLSSettings(certificate_file=pem, key_file=pem)
        context = ServerContext(evolve(settings, client_certificates="ask", authorities_file=path))
        context.reload()
        self.file("ca.pem", second.pem)
        self.assertEqual(
            context.reload(),
            [f"{path}: authorities for client certificates: 1 (CN=Two); before: 1 (CN=One)"],
        )
        context.settings = settings
        [line] = context.reload()
        self.assertTrue(line.startswith(f"{path}: authorities for client certificates: "), line)
        self.assertTrue(line.endswith("; before: 1 (CN=Two)"), line)


class Settings(FilesTestCase):
    def context_of(self, **settings: object) -> ServerContext:
        pem = OURS.save(self.directory, "pair.pem")
        context = ServerContext(
            TLSSettings(**{"certificate_file": pem, "key_file": pem, **settings})  # type: ignore[arg-type]
        )
        context.reload()
        return context

    def test_a_context_is_created_without_reading_files(self) -> None:
        context = ServerContext(TLSSettings(certificate_file="/none.pem", key_file="/none.pem"))
        self.assertFalse(context.ready)
        self.assertRaises(CertificateError, context.reload)
        self.assertFalse(context.ready)
        self.assertRaises(RuntimeError, context.serverConnectionForTLS, None)

    def test_the_ciphers_of_the_settings_are_used(self) -> None:
        context = self.context_of(ciphers="ECDHE-ECDSA-AES128-GCM-SHA256")
        client = client_context()
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        end, _ = shake_hands(context, client)
        self.assertEqual((end.cipher() or ("",))[0], "ECDHE-ECDSA-AES128-GCM-SHA256")
        client.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
        self.assertRaises(ssl.SSLError, shake_hands, context, client)
        error = self.assertRaises(CertificateError, self.context_of, ciphers="RC4-FOO")
        self.assertIn('ciphers "RC4-FOO": OpenSSL finds no suite of TLS 1.2 in it;', str(error))

    def resumes(self, context: ServerContext, client: ssl.SSLContext) -> bool:
        """Whether a client resumes the session of its first handshake, as both ends see it."""
        first, _ = shake_hands(context, client)
        second, server = shake_hands(context, client, session=first.session)
        resumed = context.facts(server).resumed
        self.assertEqual(second.session_reused, resumed)
        self.assertEqual(", resumed" in context.facts(server).description, resumed)
        return resumed

    def test_sessions_are_resumed_unless_tickets_are_off(self) -> None:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            client = client_context()
            client.minimum_version = client.maximum_version = version
            self.assertTrue(self.resumes(self.context_of(), client), version)
            self.assertFalse(self.resumes(self.context_of(tickets=False), client), version)

    def test_no_session_is_resumed_where_clients_are_asked_for_a_certificate(self) -> None:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            client = client_context()
            client.minimum_version = client.maximum_version = version
            self.assertFalse(self.resumes(self.context_of(client_certificates="ask"), client))

    def test_a_reload_ends_the_sessions_of_before(self) -> None:
        context, client = self.context_of(), client_context()
        first, _ = shake_hands(context, client)
        context.reload()
        _, server = shake_hands(context, client, session=first.session)
        self.assertFalse(context.facts(server).resumed)

    def test_contexts_by_server_name_have_the_settings_of_the_listener(self) -> None:
        other = authority.self_signed("a.example").save(self.directory, "a.pem")
        context = self.context_of(
            ciphers="ECDHE-ECDSA-AES128-GCM-SHA256",
            sni=(SNICertificate(names=["a.example"], certificate=other),),
        )
        client = client_context()
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        client.set_alpn_protocols(["smtp"])
        end, _ = shake_hands(context, client, "a.example")
        self.assertEqual((end.cipher() or ("",))[0], "ECDHE-ECDSA-AES128-GCM-SHA256")
        with open(other, "rb") as opened:
            self.assertIn(
                ssl.DER_cert_to_PEM_cert(end.getpeercert(binary_form=True) or b"").encode(),
                opened.read(),
            )

    def test_an_unusable_file_for_a_server_name_is_refused(self) -> None:
        named = SNICertificate(names=["a.example"], certificate=self.file("a.pem", b""))
        error = self.assertRaises(CertificateError, self.context_of, sni=(named,))
        self.assertIn("a.pem: holds no certificate in PEM form;", str(error))
        error = self.assertRaises(
            CertificateError,
            self.context_of,
            client_certificates="ask",
            authorities_file="/nowhere.pem",
        )
        self.assertIn("/nowhere.pem: cannot be read: No such file", str(error))

    def test_a_certificate_that_openssl_finds_too_weak_is_refused(self) -> None:
        weak = Authority().issue(
            "a.example", key=rsa.generate_private_key(public_exponent=65537, key_size=1024)
        )
        error = self.assertRaises(
            CertificateError, load, *[weak.save(self.directory, "weak.pem")] * 2
        )
        self.assertIn("/weak.pem: OpenSSL refuses it: ee key too small;", str(error))

    def test_the_self_signed_certificate_verifies_where_it_is_trusted(self) -> None:
        path, _ = self_signed(
            self.directory, "mail.example.net", files=DiskFiles(), wall_time=wall_time
        )
        client = ssl.create_default_context(cafile=path)
        end, _ = shake_hands(load(path, path), client, "mail.example.net")
        self.assertEqual(end.version(), "TLSv1.3")

    def test_compression_is_off(self) -> None:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            client = client_context()
            client.options &= ~ssl.OP_NO_COMPRESSION
            client.minimum_version = client.maximum_version = version
            end, _ = shake_hands(self.context_of(), client)
            self.assertIsNone(end.compression())


class Reasons(TidyTestCase):
    def test_reasons_are_in_openssls_words(self) -> None:
        for error, text in (
            (SSL.Error([("SSL routines", "", "unsupported protocol")]), "unsupported protocol"),
            (SSL.Error([("a", "", "one"), ("b", "", "t\x00o")]), "one, t\\x00o"),
            (SSL.Error([]), "OpenSSL gives no reason"),
            (SSL.SysCallError(-1, "Unexpected EOF"), "(-1, 'Unexpected EOF')"),
            (ValueError("a\nb"), "a\\nb"),
            (None, "None"),
        ):
            self.assertEqual(openssl_reason(error), text)
