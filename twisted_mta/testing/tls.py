"""TLS for both ends of a connection in tests, and a certificate for ``mx.example``."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
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
    return _issued("mx.example", None)


Shown = Literal["trusted", "untrusted", "expired", "wrong name"]
"""Which certificate a `HopTLS` shows."""

_Pair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]
_AUTHORITY = "Authority of tests"


@lru_cache(maxsize=1)
def _authority() -> _Pair:
    return _issued(_AUTHORITY, None, is_authority=True)


def authority_file(path: str) -> str:
    """Write the certificate of the authority that `HopTLS` is trusted by; return ``path``.

    For the settings ``authorities`` of a `Config`.
    """
    with open(path, "wb") as file:
        file.write(_authority()[0].public_bytes(Encoding.PEM))
    return path


def _issued(
    name: str, issuer: _Pair | None, *, is_authority: bool = False, last_year: int = 2099
) -> _Pair:
    """Return a certificate for a name, and its key; without an issuer it is self-signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name[:64])])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer[0].subject)
        .public_key(key.public_key())
        .serial_number(1 if issuer is None else x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(last_year, 1, 1, tzinfo=UTC))
    )
    if is_authority:
        builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
    else:
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key if issuer is None else issuer[1], SHA256()), key


@lru_cache(maxsize=64)
def _shown_certificate(shown: Shown, name: str) -> _Pair:
    if shown == "untrusted":
        return _issued(name, None)
    if shown == "wrong name":
        name = "another.example"
    return _issued(name, _authority(), last_year=2021 if shown == "expired" else 2099)


@implementer(IOpenSSLServerConnectionCreator)
class HopTLS:
    """TLS of a `FakeHop`: a certificate for whatever name the client asks for.

    Attributes:
        shown: which certificate it is; may be changed at any time. One that is trusted is of the
            authority of `authority_file`.
        server_names: the SNI of each handshake; None: the client sent none.
    """

    def __init__(self) -> None:
        self.shown: Shown = "trusted"
        self.server_names: list[str | None] = []

    def _context(self, name: str) -> SSL.Context:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        made, key = _shown_certificate(self.shown, name)
        context.use_certificate(made)
        context.use_privatekey(key)
        context.set_tlsext_servername_callback(self._named)
        return context

    def _named(self, connection: SSL.Connection) -> None:
        octets = connection.get_servername()
        name = octets.decode("ascii") if octets is not None else None
        self.server_names.append(name)
        if name is not None:
            connection.set_context(self._context(name))

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Return a new connection (called by Twisted)."""
        return SSL.Connection(self._context("mx.example"), None)


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
