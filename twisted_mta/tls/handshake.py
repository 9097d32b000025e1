"""Facts of a completed TLS handshake, and whether they suffice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL
from OpenSSL._util import ffi, lib

from ..mail.printable import printable
from ..mail.tls_facts import TLSFacts
from .certificates import (
    ChainCheck,
    fingerprint,
    issuer,
    subject,
)

_VERSIONS = {"1.2": ("TLSv1.2", "TLSv1.3"), "1.3": ("TLSv1.3",)}


_GATHERED = 131_072  # octets of records that are handed on together, in either direction
_ALONE = 1024  # octets of a record up to which it is handed on alone: commands
_READ = 32_768  # octets of a content read from OpenSSL at a time, at the most
_BUFFER = ffi.new("char[]", _GATHERED)  # of all connections: pyOpenSSL allocates one for each read
_UNREAD = ffi.new("char**")


class TLSConnection(SSL.Connection):
    """A connection whose peer may close TLS during the handshake, and that reads many records.

    All connections of a process share a buffer, so they are for one thread.

    Attributes:
        chain: the verification of the peer's chain; None: it is not verified.
        contexts: to be kept alive with the connection: OpenSSL calls back into the context that a
            handshake began with, even after SNI has selected another one, or after a reload.
        drained: whether OpenSSL has read all that has come, and would only say so.
    """

    chain: ChainCheck | None = None
    contexts: object = None
    drained = False
    _failure: SSL.Error | None = None  # that ended the records of the last `recv`

    def recv(self, bufsiz: int, flags: int | None = None) -> bytes:
        """Return the octets of all records that have arrived, up to 128 KiB and one record.

        A record has 16 KiB at most (RFC 8446 §5.1), and a content many: a turn for each is most of
        the cost of receiving it.

        Raises:
            SSL.Error: see `SSL.Connection.recv`.
        """
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        if flags is not None:
            return super().recv(bufsiz, flags)
        if self.drained:
            raise SSL.WantReadError
        bufsiz = min(bufsiz, _READ)
        size = lib.SSL_read(self._ssl, _BUFFER, bufsiz)
        if size <= 0:
            self._raise_ssl_error(self._ssl, size)
        first: bytes = ffi.buffer(_BUFFER, size)[:]
        self.drained = size < bufsiz and not lib.BIO_get_mem_data(self._into_ssl, _UNREAD)
        if self.drained or size <= _ALONE:
            return first
        records, gathered = [first], size
        while gathered < _GATHERED:
            size = lib.SSL_read(self._ssl, _BUFFER, bufsiz)
            if size <= 0:
                try:
                    self._raise_ssl_error(self._ssl, size)
                except SSL.WantReadError:
                    pass
                except SSL.Error as error:
                    self._failure = error
                break
            records.append(ffi.buffer(_BUFFER, size)[:])
            gathered += size
        return b"".join(records)

    def bio_read(self, bufsiz: int) -> bytes:
        """Return the octets to send; b"" where pyOpenSSL raises `SSL.WantReadError`: none."""
        if bufsiz > _GATHERED:
            bufsiz = _GATHERED
        size = lib.BIO_read(self._from_ssl, _BUFFER, bufsiz)
        return ffi.buffer(_BUFFER, size)[:] if size > 0 else b""

    def bio_write(self, buf: Any) -> int:
        """Take octets that have come.

        Args:
            buf: only `bytes`, unlike that of pyOpenSSL, which prepares for more kinds.
        """
        self.drained = False
        return int(lib.BIO_write(self._into_ssl, buf, len(buf)))

    def bio_shutdown(self) -> None:
        """Take note that no more octets come: that is what OpenSSL says next."""
        self.drained = False
        super().bio_shutdown()

    def send(self, buf: Any, flags: int = 0) -> int:
        """Encrypt octets, and return how many.

        Args:
            buf: only `bytes`, as above.
            flags: of no use.

        Raises:
            SSL.Error: see `SSL.Connection.send`.
        """
        sent: int = lib.SSL_write(self._ssl, buf, len(buf))
        if sent <= 0:
            self._raise_ssl_error(self._ssl, sent)
        return sent

    def set_accept_state(self) -> None:
        """Wait for a client, which begins the handshake."""
        self.drained = True
        super().set_accept_state()

    def do_handshake(self) -> None:
        """Go on with the handshake.

        Raises:
            SSL.Error: with a reason: pyOpenSSL's error for ``close_notify`` has none, which Twisted
                does not expect.
        """
        if self.drained:
            raise SSL.WantReadError
        try:
            super().do_handshake()
        except SSL.ZeroReturnError:
            raise SSL.Error([("", "", "the peer has closed TLS")]) from None


def suffices(
    minimum_tls: str = "1.2",
    *,
    cipher_bits: int = 0,
    client_certificate: bool = False,
) -> Callable[[TLSFacts], bool]:
    """Return a function that decides whether a handshake suffices (RFC 3207 §4.1).

    Args:
        minimum_tls: ``"1.2"`` or ``"1.3"``, the oldest version that suffices.
        cipher_bits: the least strength of the cipher's key.
        client_certificate: whether a certificate of a trusted authority is required.
    """
    versions = _VERSIONS[minimum_tls]

    def decide(facts: TLSFacts) -> bool:
        return (
            facts.version in versions
            and facts.bits >= cipher_bits
            and (facts.peer_verified or not client_certificate)
        )

    return decide


def server_facts(
    connection: SSL.Connection, *, verified: bool = False, problem: str | None = None
) -> TLSFacts:
    """Return the facts of a completed handshake of a server; all texts are printable.

    Args:
        connection: of either side.
        verified: whether the chain of the client's certificate leads to a trusted authority.
        problem: what is wrong with that chain, None where nothing is.
    """
    server_name = connection.get_servername()
    facts = TLSFacts(
        version=connection.get_protocol_version_name(),
        cipher=connection.get_cipher_name() or "",
        bits=connection.get_cipher_bits() or 0,
        key_exchange=group(connection),
        resumed=resumed(connection),
        server_name=None if server_name is None else printable(server_name.decode("latin-1")),
    )
    certificate = _peer_certificate(connection)
    if certificate is None:
        return facts
    return evolve(
        facts,
        peer_subject=subject(certificate),
        peer_issuer=issuer(certificate),
        peer_fingerprint=fingerprint(certificate),
        peer_verified=verified,
        peer_problem=problem or None,
    )


def channel_binding(connection: SSL.Connection, facts: TLSFacts) -> Callable[[str], bytes | None]:
    """Return a function from the name of a channel binding (RFC 5056) to its data.

    Its result is None for names that this connection has no binding for.

    Args:
        connection: of the server.
        facts: of its handshake.
    """

    def binding(name: str) -> bytes | None:
        # RFC 9266 §4.2: with TLS 1.2 it is unique only with extended master secrets, and pyOpenSSL
        # does not tell whether there are.
        if name == "tls-exporter" and facts.version == "TLSv1.3":
            return connection.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
        if name == "tls-server-end-point":
            ours = connection.get_certificate()
            return None if ours is None else _end_point(ours.to_cryptography())
        return None

    return binding


def _end_point(certificate: x509.Certificate) -> bytes | None:
    """Return the hash of a certificate (RFC 5929 §4.1), None where the RFC defines none."""
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None
    if algorithm is None:  # Ed25519 and others with a built-in hash
        return None
    weak = isinstance(algorithm, hashes.MD5 | hashes.SHA1)
    return certificate.fingerprint(hashes.SHA256() if weak else algorithm)


def group(connection: SSL.Connection) -> str | None:
    """Return OpenSSL's name of the key exchange group; None: unknown."""
    name = getattr(connection, "get_group_name", None)  # pyOpenSSL 25.2, OpenSSL 3.0
    return None if name is None else name()


def resumed(connection: SSL.Connection) -> bool:
    """Whether a completed handshake has resumed a session, instead of beginning a new one."""
    # pyOpenSSL has no method for it; Twisted uses this module of it too.
    return bool(lib.SSL_session_reused(connection._ssl))


def _peer_certificate(connection: SSL.Connection) -> x509.Certificate | None:
    try:
        return connection.get_peer_certificate(as_cryptography=True)
    except ValueError:  # OpenSSL accepts certificates that `cryptography` cannot read
        return None


def client_facts(connection: SSL.Connection, server_name: str | None) -> TLSFacts:
    """Return the facts of a completed handshake of a client.

    Args:
        connection: to the server.
        server_name: that was requested by SNI, None where none was.
    """
    facts = TLSFacts(
        version=connection.get_protocol_version_name(),
        cipher=connection.get_cipher_name() or "",
        bits=connection.get_cipher_bits() or 0,
        key_exchange=group(connection),
        resumed=resumed(connection),
        server_name=server_name,
    )
    try:
        certificate = connection.get_peer_certificate(as_cryptography=True)
    except ValueError:
        return facts  # OpenSSL accepts certificates that `cryptography` cannot read
    if certificate is None:
        return facts
    return evolve(
        facts,
        peer_subject=subject(certificate),
        peer_issuer=issuer(certificate),
        peer_fingerprint=fingerprint(certificate),
    )
