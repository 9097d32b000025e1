"""The self-signed certificate, created where the configuration has none."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..mail.address import domain_name, literal_address
from .certificates import belong

if TYPE_CHECKING:
    from ..interfaces import Files, WallTime

SELF_SIGNED = "self-signed.pem"
"""The name of the file with the self-signed certificate and its key."""

_LIFETIME = timedelta(days=3650)


def self_signed(
    directory: str, hostname: str, *, files: Files, wall_time: WallTime
) -> tuple[str, str]:
    """Return the paths of the self-signed certificate and its key; create them if needed. Blocks.

    Both are in one file, of mode 0600, so that no crash can leave one without the other. A file
    that is unusable or expired is replaced. Such a certificate protects against eavesdropping, and
    does not prove our name.

    Args:
        directory: of the file; exists.
        hostname: the subject, a domain or an address literal; localhost is in it too.
        files: the disk.
        wall_time: seconds since the epoch.

    Raises:
        OSError: the file cannot be written.
    """
    path = os.path.join(directory, SELF_SIGNED)
    now = datetime.fromtimestamp(wall_time(), UTC)
    if not _usable(path, now, files):
        new = f"{path}.new"
        files.unlink(new)  # left by a crash
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
    return belong(certificate, key) and certificate.not_valid_after_utc > now


def _new_pair(hostname: str, now: datetime) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    canonical = domain_name(hostname)
    names: list[x509.GeneralName] = []
    for name in dict.fromkeys((canonical, "localhost", "[127.0.0.1]", "[IPv6:::1]")):
        address = literal_address(name)
        names.append(x509.IPAddress(ip_address(address)) if address else x509.DNSName(name))
    # RFC 5280, ub-common-name: 64 characters at most; the SAN has the whole name.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, canonical[:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # for peers whose clocks are late
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
