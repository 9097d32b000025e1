"""Certificates and keys in files: mistakes, dates, and the self-signed certificate."""

import os
import shutil
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

from tests.server import authority
from tests.tidy import TidyTestCase
from twisted_mta.system.files import DiskFiles
from twisted_mta.testing.files import PowerCut, UnsyncedFiles
from twisted_mta.tls.certificates import (
    CertificateError,
    CertifiedKey,
    fingerprint,
    issuer,
    read_certificates,
    subject,
)
from twisted_mta.tls.self_signed import self_signed

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


class FilesTestCase(TidyTestCase):
    def setUp(self) -> None:
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)

    def file(self, name: str, content: bytes) -> str:
        path = os.path.join(self.directory, name)
        with open(path, "wb") as written:
            written.write(content)
        return path


class Files(FilesTestCase):
    def refusal(self, certificate: str, key: str) -> str:
        return str(
            self.assertRaises(CertificateError, CertifiedKey.read, certificate, key)
        ).replace(self.directory, "DIR")

    def test_errors_name_the_file_and_the_mistake(self) -> None:
        certificate = self.file("c.pem", certificate_pem(KEY, "mail.example.net"))
        key = self.file("k.pem", key_pem(KEY))
        locked = self.file("locked.pem", key_pem(KEY, BestAvailableEncryption(b"secret")))
        for files, text in (
            (("/nowhere.pem", key), "/nowhere.pem: cannot be read: No such file or directory"),
            ((key, key), "DIR/k.pem: holds no certificate in PEM form;"),
            ((certificate, certificate), "DIR/c.pem: holds no private key in PEM form;"),
            ((certificate, locked), "DIR/locked.pem: the key has a passphrase; expected"),
            (
                (certificate, self.file("other.pem", key_pem(OTHER_KEY))),
                "DIR/other.pem: the key does not match the certificate in DIR/c.pem;",
            ),
        ):
            self.assertIn(text, self.refusal(*files))

    def test_a_chain_in_the_wrong_order_is_refused_with_a_hint(self) -> None:
        chain = certificate_pem(OTHER_KEY, "issuer") + certificate_pem(KEY, "mail.example.net")
        self.assertIn(
            "expected certificate 2 of the file, whose key it is, to be the first",
            self.refusal(self.file("chain.pem", chain), self.file("k.pem", key_pem(KEY))),
        )

    def test_an_rsa_key_must_sign(self) -> None:
        good = rsa.generate_private_key(65537, 2048)
        pem = self.file("rsa.pem", key_pem(good) + certificate_pem(good, "mail.example.net"))
        self.assertEqual(CertifiedKey.read(pem, pem).key.key_size, 2048)  # type: ignore[union-attr]
        numbers = good.private_numbers()
        wrong = numbers.d + 2, numbers.dmp1 + 2, numbers.dmq1 + 2, numbers.iqmp
        bad = rsa.RSAPrivateNumbers(numbers.p, numbers.q, *wrong, numbers.public_numbers)
        file = self.file("bad.pem", key_pem(bad.private_key(unsafe_skip_rsa_key_validation=True)))
        self.assertIn("holds no private key", self.refusal(pem, file))

    def test_dates_lead_to_warnings_only(self) -> None:
        pem = self.file("pair.pem", key_pem(KEY) + certificate_pem(KEY, "mail.example.net"))
        pair = CertifiedKey.read(pem, pem)
        day = 86400.0
        for moment, text in (
            (NOW, ""),
            (NOW + 20 * day, "the certificate expires on 2026-10-21; renew it"),
            (NOW + 31 * day, "the certificate expired on 2026-10-21; renew it"),
            (NOW - 61 * day, "the certificate is not valid before 2026-07-23 14:13 UTC"),
        ):
            self.assertEqual(
                [warning.partition(": ")[2] for warning in pair.warnings(moment)],
                [text] if text else [],
            )

    def test_a_chain_is_read_completely(self) -> None:
        both = certificate_pem(KEY, "mail.example.net") + certificate_pem(OTHER_KEY, "issuer")
        file = self.file("chain.pem", both)
        pair = CertifiedKey.read(file, self.file("k.pem", key_pem(KEY)))
        self.assertEqual(
            [subject(each) for each in pair.chain], ["CN=mail.example.net", "CN=issuer"]
        )
        self.assertEqual(pair.certificate, pair.chain[0])
        self.assertEqual(tuple(read_certificates(file)), pair.chain)

    def test_the_description_has_subject_last_day_and_fingerprint(self) -> None:
        pem = self.file("pair.pem", key_pem(KEY) + certificate_pem(KEY, "mail.example.net"))
        pair = CertifiedKey.read(pem, pem)
        self.assertEqual(
            pair.description,
            f"CN=mail.example.net, valid until 2026-10-21, SHA-256 {fingerprint(pair.certificate)}",
        )
        self.assertNotIn("PRIVATE", repr(pair))

    def test_names_are_printable(self) -> None:
        for name, text in (
            ("a\r\nb\0c", "CN=a\\r\\nb\\00c"),
            ("é\u202e", "CN=\\xe9\\u202e"),
            ("x" * 2000, "CN=" + "x" * 2000),
        ):
            certificate = authority.self_signed(name).certificate
            self.assertEqual((subject(certificate), issuer(certificate)), (text, text))
        self.assertEqual(self.flushWarnings(), [])


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

    def test_the_certificate_is_for_the_hostname_and_localhost(self) -> None:
        path = self.make()
        certificate = CertifiedKey.read(path, path).certificate
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

    def test_every_kind_of_hostname_has_a_certificate(self) -> None:
        for hostname in (
            "[192.0.2.1]",
            "[IPv6:2001:db8::1]",
            "bücher.example",
            "a" * 60 + ".b" * 9,
        ):
            path = self.make(hostname)
            CertifiedKey.read(path, path)
            os.unlink(path)

    def test_the_file_is_created_once_with_mode_0600(self) -> None:
        self.assertEqual(self.content(), self.content())
        self.assertEqual(os.stat(self.make()).st_mode & 0o777, 0o600)
        self.assertEqual(os.listdir(self.directory), ["self-signed.pem"])

    def test_a_broken_or_expired_certificate_is_replaced(self) -> None:
        whole = self.content()
        for broken in (
            b"",
            whole[: len(whole) // 2],
            key_pem(OTHER_KEY) + whole[whole.index(b"--\n-") + 3 :],
        ):
            self.file("self-signed.pem", broken)
            self.assertNotEqual(self.content(), broken)
            CertifiedKey.read(self.make(), self.make())
        path = self.make(now=NOW + 11 * 365 * 86400)
        self.assertEqual(CertifiedKey.read(path, path).warnings(NOW + 11 * 365 * 86400), [])

    def test_a_half_written_file_is_no_obstacle(self) -> None:
        self.file("self-signed.pem.new", b"-----BEGIN")
        CertifiedKey.read(self.make(), self.make())
        self.assertEqual(os.listdir(self.directory), ["self-signed.pem"])

    def test_a_power_cut_leaves_the_whole_file_or_none(self) -> None:
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
                self.assertEqual(CertifiedKey.read(copy, copy).warnings(NOW), [], operations)
                operations += 1
            self.assertGreater(operations, 4)
