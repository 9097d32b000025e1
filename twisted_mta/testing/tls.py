"""TLS for both ends of a connection in tests, and a certificate for ``mx.example``."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from OpenSSL import SSL
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
)
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer


@lru_cache(maxsize=1)
def certificate() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Return a self-signed certificate for ``mx.example`` and its key, made by the first call."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mx.example")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2099, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("mx.example")]), critical=False)
        .sign(key, SHA256())
    )
    return made, key


@implementer(IOpenSSLServerConnectionCreator)
class PeerTLS:
    """TLS for the server's end.

    Args:
        maximum: the newest protocol version, as pyOpenSSL numbers them; 0: no limit.
        shown: the server's certificate and its key; None: `certificate`.
        ask: Whether clients are asked for a certificate; any is accepted.

    Attributes:
        server_names: the SNI of each handshake; None: the client sent none.
        client_subjects: the subjects of client certificates (RFC 4514 text).
    """

    def __init__(
        self,
        *,
        maximum: int = 0,
        shown: tuple[x509.Certificate, Any] | None = None,
        ask: bool = False,
    ) -> None:
        made, key = shown or certificate()
        self._context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self._context.use_certificate(made)
        self._context.use_privatekey(key)
        self._context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")  # allows old protocol versions
        self._context.set_min_proto_version(SSL.TLS1_VERSION)
        self._context.set_max_proto_version(maximum)
        self._context.set_tlsext_servername_callback(self._named)
        self.server_names: list[str | None] = []
        self.client_subjects: list[str] = []
        if ask:
            self._context.set_verify(SSL.VERIFY_PEER, self._take)

    def _take(
        self, connection: SSL.Connection, shown: Any, error: int, depth: int, ok: int
    ) -> bool:
        subject = shown.to_cryptography().subject.rfc4514_string()
        if depth == 0 and subject not in self.client_subjects:
            self.client_subjects.append(subject)
        return True

    def _named(self, connection: SSL.Connection) -> None:
        name = connection.get_servername()
        self.server_names.append(name.decode("ascii") if name is not None else None)

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Return a new connection."""
        return SSL.Connection(self._context, None)


_VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}


@implementer(IOpenSSLClientConnectionCreator)
class ClientContext:
    """TLS for the client's end, of one ``version``; any certificate of the server is accepted."""

    def __init__(self, version: str) -> None:
        self._context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self._context.set_min_proto_version(_VERSIONS[version])
        self._context.set_max_proto_version(_VERSIONS[version])

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Return a new connection (called by Twisted)."""
        return SSL.Connection(self._context, None)
