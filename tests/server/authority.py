"""A certificate authority for tests, its certificates, and self-signed ones."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from twisted_mta.system.real_world import wall_time


def name(common_name: str) -> x509.Name:
    with warnings.catch_warnings():  # names may be too long on purpose
        warnings.simplefilter("ignore")
        attribute = x509.NameAttribute(NameOID.COMMON_NAME, common_name, _validate=False)
    return x509.Name([attribute])


def general_name(text: str) -> x509.GeneralName:
    """Return a DNS name or an address for a subjectAltName."""
    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        return x509.DNSName(text)


@frozen
class Issued:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes

    @property
    def pem(self) -> bytes:
        return self.key_pem + self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    def save(self, directory: str, file: str) -> str:
        """Write certificate and key into one file; return its path."""
        path = os.path.join(directory, file)
        with open(path, "wb") as written:
            written.write(self.pem)
        return path


class Authority:
    """Signs certificates.

    Attributes:
        common_name: in its subject.
        issued: its own certificate and key.
    """

    def __init__(self, common_name: str = "Example CA") -> None:
        self.common_name = common_name
        self.issued = self_signed(common_name, authority=True)

    def issue(
        self,
        common_name: str,
        *,
        names: Sequence[str] = (),
        days: tuple[int, int] = (-1, 30),
        for_clients: bool = True,
        key: CertificateIssuerPrivateKeyTypes | None = None,
    ) -> Issued:
        """Return a certificate valid for some ``days`` from now, for clients or for servers."""
        return _sign(common_name, self.issued, names, days, for_clients, False, key)

    def subordinate(self, other: Authority) -> x509.Certificate:
        """Return a certificate that makes ``other`` an authority under this one."""
        key, common_name = other.issued.key, other.common_name
        return _sign(common_name, self.issued, (), (-1, 30), None, True, key).certificate


def self_signed(common_name: str, *, names: Sequence[str] = (), authority: bool = False) -> Issued:
    """Return a self-signed certificate."""
    return _sign(common_name, None, names, (-1, 30), None, authority, None)


def subordinates(authority: Authority, count: int) -> list[tuple[Authority, x509.Certificate]]:
    """Return authorities one below the other, each with its certificate, the highest first."""
    made: list[tuple[Authority, x509.Certificate]] = []
    for number in range(count):
        by, authority = authority, Authority(f"Below {number}")
        made.append((authority, by.subordinate(authority)))
    return made


@cache
def costly_key() -> rsa.RSAPrivateKey:
    """Return a key whose signatures take long to verify: its exponent has about 2000 bits."""
    usual = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_numbers()
    # With the public and the private exponent of the usual key exchanged, it is a key too.
    public = rsa.RSAPublicNumbers(usual.d, usual.p * usual.q)
    d = usual.public_numbers.e
    exponents = rsa.rsa_crt_dmp1(d, usual.p), rsa.rsa_crt_dmq1(d, usual.q), usual.iqmp
    numbers = rsa.RSAPrivateNumbers(usual.p, usual.q, d, *exponents, public)
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


def _sign(
    common_name: str,
    by: Issued | None,
    names: Sequence[str],
    days: tuple[int, int],
    for_clients: bool | None,
    authority: bool,
    key: CertificateIssuerPrivateKeyTypes | None,
) -> Issued:
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject, now = name(common_name), datetime.fromtimestamp(wall_time(), UTC)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        issuer = by.certificate.subject if by else subject
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if names:
        san = x509.SubjectAlternativeName([general_name(one) for one in names])
        builder = builder.add_extension(san, critical=False)
    if for_clients is not None:
        use = ExtendedKeyUsageOID.CLIENT_AUTH if for_clients else ExtendedKeyUsageOID.SERVER_AUTH
        builder = builder.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
    return Issued(builder.sign(by.key if by else key, hashes.SHA256()), key)
