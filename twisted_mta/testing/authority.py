"""A certificate authority that is made for one test server, and the server's certificate."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from ..system.real_world import wall_time


@implementer(IOpenSSLServerConnectionCreator)
@frozen
class ServerCertificate:
    """TLS of a test server.

    Attributes:
        authority: PEM, the certificate of the authority that clients trust.
        context: of the server; its certificate is for ``localhost``, ``127.0.0.1`` and ``::1``.
    """

    authority: bytes
    context: SSL.Context

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Return a new connection (called by Twisted)."""
        return SSL.Connection(self.context, None)


def make_server_certificate() -> ServerCertificate:
    """Make an authority, whose key is forgotten at once, and a certificate for this host."""
    now = datetime.fromtimestamp(wall_time(), UTC)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _builder("Test authority", "Test authority", authority_key, now)
    authority = authority.add_extension(x509.BasicConstraints(True, 0), critical=True)
    signs = {name: name in ("key_cert_sign", "crl_sign") for name in _USES}
    authority = authority.add_extension(x509.KeyUsage(**signs), critical=True)
    identifier = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
    trusted = authority.add_extension(identifier, critical=False).sign(authority_key, SHA256())
    key = ec.generate_private_key(ec.SECP256R1())
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    names += [x509.IPAddress(ip_address(each)) for each in ("127.0.0.1", "::1")]
    issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    certificate = (
        _builder("localhost", "Test authority", key, now)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(False, None), critical=True)
        .add_extension(issuer, critical=False)
        .sign(authority_key, SHA256())
    )
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate(certificate)
    context.use_privatekey(key)
    return ServerCertificate(trusted.public_bytes(Encoding.PEM), context)


_USES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
    *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


def _builder(subject: str, issuer: str, key: Any, now: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
