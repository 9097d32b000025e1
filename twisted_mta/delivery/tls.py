"""What TLS a next hop must show, and what it did show.

One OpenSSL context serves every connection of a level; the name that goes out by SNI belongs to
the connection, not to the context. Whether what the handshake achieved is good enough is decided in
one place, `ClientContexts.judge`, when it has completed and before a command is sent (RFC 3207
§4.1).
"""

from __future__ import annotations

from ipaddress import ip_address

from cryptography.hazmat.primitives.hashes import SHA256
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from ..envelope import Target, TLSFacts
from ..smtp.client_step import TLSLevel
from ..smtp.reply import printable

# Where a certificate proves nothing, a short key in it costs nothing: refused, the message would go
# in clear instead (RFC 7435 §3). So OpenSSL's own floor for keys and digests, whose height depends
# on who built it, is taken away; the one for the protocol stays.
_OPPORTUNISTIC_CIPHERS = b"DEFAULT:@SECLEVEL=0"


@implementer(IOpenSSLClientConnectionCreator)
class ClientCreator:
    """Makes the TLS side of a connection to one target."""

    def __init__(self, context: SSL.Context, server_name: str | None) -> None:
        self._context = context
        self.server_name = server_name

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Return a connection that asks for the target's certificate by its name."""
        connection = SSL.Connection(self._context, None)
        if self.server_name is not None:
            connection.set_tlsext_host_name(self.server_name.encode("ascii"))
        return connection


class ClientContexts:
    """The TLS contexts of the sending side, made once."""

    def __init__(self) -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)  # RFC 8996
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.set_cipher_list(_OPPORTUNISTIC_CIPHERS)
        context.set_verify(SSL.VERIFY_NONE)
        self._unverified = context

    def creator(self, target: Target, level: TLSLevel) -> ClientCreator:
        """Return what to start TLS with on a connection to ``target``."""
        return ClientCreator(self._unverified, server_name(target))

    def judge(
        self, connection: SSL.Connection, target: Target, level: TLSLevel
    ) -> tuple[TLSFacts, str | None]:
        """Return what a completed handshake achieved, and what it lacks for ``level``, if anything.

        ``may`` and ``encrypt`` ask for nothing more than that it completed. The levels that ask who
        is there compare the certificate with the next hop's names here.
        """
        return tls_facts(connection, server_name(target)), None


def server_name(target: Target) -> str | None:
    """Return what to ask ``target`` for by SNI: its name; None where that is an address."""
    try:
        ip_address(target.name)
    except ValueError:
        return target.name
    return None  # RFC 6066 §3: literal addresses are not permitted


def tls_facts(connection: SSL.Connection, server_name: str | None) -> TLSFacts:
    """Return what the handshake on ``connection`` achieved."""
    subject = issuer = fingerprint = None
    try:
        certificate = connection.get_peer_certificate(as_cryptography=True)
        if certificate is not None:
            fingerprint = certificate.fingerprint(SHA256()).hex()
            subject = printable(certificate.subject.rfc4514_string())
            issuer = printable(certificate.issuer.rfc4514_string())
    except ValueError:
        pass  # what OpenSSL takes, cryptography may not; nothing depends on it at these levels
    return TLSFacts(
        version=connection.get_protocol_version_name(),
        cipher=connection.get_cipher_name() or "",
        bits=connection.get_cipher_bits() or 0,
        server_name=server_name,
        peer_subject=subject,
        peer_issuer=issuer,
        peer_fingerprint=fingerprint,
    )
