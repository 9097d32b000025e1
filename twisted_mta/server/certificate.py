"""Certificates and keys in PEM files: reading them, their dates, and one of our own."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Literal

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..interfaces import Files, WallTime
from ..smtp.address import domain_name, literal_address
from ..smtp.reply import printable

# What is said this long before a certificate expires still leaves time to renew it.
_SOON = timedelta(days=14)


class CertificateError(Exception):
    """A certificate or key that cannot be used: names the file, and says what is wrong."""


@frozen
class CertifiedKey:
    """A certificate with its chain and its private key, as two PEM files (or one) held them.

    Attributes:
        certificate_file: the path of the certificates.
        key_file: the path of the key; may be the same.
        chain: ours first, then its issuers as far as they are to be sent.
        key: the private key of the first.
    """

    certificate_file: str
    key_file: str
    chain: tuple[x509.Certificate, ...]
    key: PrivateKeyTypes = field(repr=False, eq=False)

    @classmethod
    def read(cls, certificate_file: str, key_file: str) -> CertifiedKey:
        """Read both files. Blocks.

        Raises:
            CertificateError: they cannot be read, or do not belong together.
        """
        chain = read_certificates(certificate_file)
        key = _read_key(key_file)
        if not _belong(chain[0], key):
            others = [number for number, one in enumerate(chain, 1) if _belong(one, key)]
            hint = (
                f"it belongs to certificate {others[0]} of the file, which has to come first"
                if others
                else "the key that the certificate was made for would do"
            )
            raise CertificateError(
                f"{printable(key_file)}: the key does not match the certificate in"
                f" {printable(certificate_file)}; {hint}"
            )
        return cls(certificate_file, key_file, tuple(chain), key)

    @property
    def certificate(self) -> x509.Certificate:
        """Our certificate."""
        return self.chain[0]

    @property
    def description(self) -> str:
        """What an operator would know it by: whose it is, until when, and its fingerprint."""
        certificate = self.certificate
        return (
            f"{subject(certificate) or 'a certificate without a subject'},"
            f" valid until {certificate.not_valid_after_utc:%Y-%m-%d},"
            f" SHA-256 {fingerprint(certificate)}"
        )

    def warnings(self, now: float) -> list[str]:
        """Return what is wrong with the certificate's dates at ``now`` (seconds since the epoch).

        It is used all the same: most senders do not look, and the others say so.
        """
        moment = datetime.fromtimestamp(now, UTC)
        name, certificate = printable(self.certificate_file), self.certificate
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if end < moment:
            return [f"{name}: the certificate expired on {end:%Y-%m-%d}; renew it"]
        if start > moment:
            return [f"{name}: the certificate is not valid before {start:%Y-%m-%d %H:%M} UTC"]
        if end < moment + _SOON:
            return [f"{name}: the certificate expires on {end:%Y-%m-%d}; renew it"]
        return []


def fingerprint(certificate: x509.Certificate) -> str:
    """Return SHA-256 of the certificate's DER form, in lower-case hex without colons."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def subject(certificate: x509.Certificate) -> str:
    """Return the subject as printable RFC 4514 text, empty where it has none."""
    return _name(certificate, "subject")


def issuer(certificate: x509.Certificate) -> str:
    """Return the issuer, likewise."""
    return _name(certificate, "issuer")


def _name(certificate: x509.Certificate, which: Literal["subject", "issuer"]) -> str:
    try:
        # `cryptography` reads names only now, and warns of attributes that are longer than
        # RFC 5280 allows: a warning for each handshake of whoever sends one is nothing we want.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            name = certificate.subject if which == "subject" else certificate.issuer
            return printable(name.rfc4514_string())
    except ValueError as error:
        return f"unreadable: {printable(str(error))}"


def _read(file: str) -> bytes:
    try:
        with open(file, "rb") as opened:
            return opened.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CertificateError(f"{printable(file)}: cannot be read: {reason}") from None


def read_certificates(file: str) -> Sequence[x509.Certificate]:
    """Return the certificates of a PEM file, in their order, at least one. Blocks.

    Raises:
        CertificateError: the file cannot be read, or holds none.
    """
    try:
        return x509.load_pem_x509_certificates(_read(file))
    except ValueError:
        raise CertificateError(
            f"{printable(file)}: holds no certificate in PEM form;"
            " a file with -----BEGIN CERTIFICATE----- would do"
        ) from None


def _read_key(file: str) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(_read(file), None)
    except TypeError:
        raise CertificateError(
            f"{printable(file)}: the key has a passphrase; one without would do"
        ) from None
    except Exception:  # ValueError, UnsupportedAlgorithm, and whatever a broken key brings up
        raise CertificateError(
            f"{printable(file)}: holds no private key in PEM form;"
            " a file with -----BEGIN PRIVATE KEY----- would do"
        ) from None


def _belong(certificate: x509.Certificate, key: PrivateKeyTypes) -> bool:
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    try:
        return certificate.public_key().public_bytes(*form) == key.public_key().public_bytes(*form)
    except Exception:  # a kind of key that `cryptography` does not know: OpenSSL will say
        return True


SELF_SIGNED = "self-signed.pem"
"""The name of the file with our own certificate and its key."""

_LIFETIME = timedelta(days=3650)


def self_signed(
    directory: str, hostname: str, *, files: Files, wall_time: WallTime
) -> tuple[str, str]:
    """Return the paths of a certificate of our own and of its key, made if not there yet. Blocks.

    Both are in one file, of mode 0600, so that no crash can leave one without the other. A file
    that cannot be used, or has expired, is made anew. Encrypts against those who listen; proves
    nothing about who we are.

    Args:
        directory: where it is kept; exists.
        hostname: whom it is for, a domain or an address literal; localhost is in it too.
        files: where it is written.
        wall_time: when it begins to be valid.

    Raises:
        OSError: it cannot be written.
    """
    path = os.path.join(directory, SELF_SIGNED)
    now = datetime.fromtimestamp(wall_time(), UTC)
    if not _usable(path, now, files):
        new = f"{path}.new"
        files.unlink(new)  # of a crash in between
        writing = files.create(new)
        try:
            writing.write(_new_pair(hostname, now))
            writing.sync()
        finally:
            writing.close()
        files.unlink(path)
        files.rename(new, path)
        files.sync_directory(directory)
    return path, path


def _usable(path: str, now: datetime, files: Files) -> bool:
    try:
        with files.open(path) as opened:
            content = opened.read()
    except FileNotFoundError:
        return False
    try:
        certificate = x509.load_pem_x509_certificate(content)
        key = load_pem_private_key(content, None)
    except (ValueError, TypeError):
        return False
    return _belong(certificate, key) and certificate.not_valid_after_utc > now


def _new_pair(hostname: str, now: datetime) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    canonical = domain_name(hostname)
    names: list[x509.GeneralName] = []
    for name in dict.fromkeys((canonical, "localhost", "[127.0.0.1]", "[IPv6:::1]")):
        address = literal_address(name)
        names.append(x509.IPAddress(ip_address(address)) if address else x509.DNSName(name))
    # A common name has 64 characters at most (RFC 5280, ub-common-name); all are in the SAN.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, canonical[:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # for clocks behind ours
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    ) + certificate.public_bytes(Encoding.PEM)
