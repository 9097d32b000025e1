"""TLS for those who connect to us: contexts from PEM files, a certificate of our own, and facts."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from attrs import evolve
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
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from ..envelope import TLSFacts
from ..interfaces import Files, WallTime
from ..smtp.address import domain_name, literal_address
from ..smtp.reply import printable

_VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
_NAMES = {"1.2": ("TLSv1.2", "TLSv1.3"), "1.3": ("TLSv1.3",)}

# Suites of TLS 1.2, ours first; those of 1.3 are OpenSSL's. Key exchange by RSA alone comes last
# and is still offered: who has nothing better would send the mail in clear. Groups are OpenSSL's
# too (X25519 before P-256), since pyOpenSSL has no call that sets several.
_SUITES = b"ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES:RSA+AESGCM:RSA+AES:!aNULL:!eNULL:!MD5:!DSS"

# The number that OpenSSL's ssl.h has for it; pyOpenSSL does not export the name.
_OP_NO_RENEGOTIATION = 1 << 30

# A reload for a certificate that is about to expire still leaves time for the mail in the queue.
_SOON = timedelta(days=14)


class CertificateError(Exception):
    """A certificate or key that cannot be used: names the file, and says what is wrong."""


@implementer(IOpenSSLServerConnectionCreator)
class ServerContext:
    """Makes the server's side of TLS connections, from files that can be read again.

    Attributes:
        certificate_file: the path of the PEM file with our certificate and its chain.
        key_file: the path of the PEM file with its key; may be the same.
        minimum_tls: the oldest version with which a handshake succeeds.
    """

    def __init__(self, certificate_file: str, key_file: str, minimum_tls: str = "1.2") -> None:
        self.certificate_file = certificate_file
        self.key_file = key_file
        self.minimum_tls = minimum_tls
        self._chain: Sequence[x509.Certificate] = ()
        self._context: SSL.Context | None = None

    @property
    def ready(self) -> bool:
        """Whether a certificate is loaded, so that a handshake could begin now."""
        return self._context is not None

    @property
    def creator(self) -> ServerContext:
        """What `startTLS` takes: this object, which looks at the certificate of the moment."""
        return self

    @property
    def certificate(self) -> x509.Certificate:
        """Our certificate."""
        return self._chain[0]

    def reload(self) -> None:
        """Read both files again; connections from now on see what they hold. Blocks.

        Raises:
            CertificateError: they cannot be used; what was loaded before stays in force.
        """
        chain = _read_chain(self.certificate_file)
        key = _read_key(self.key_file)
        if not _belong(chain[0], key):
            others = [number for number, one in enumerate(chain, 1) if _belong(one, key)]
            hint = (
                f"it belongs to certificate {others[0]} of the file, which has to come first"
                if others
                else "the key that the certificate was made for would do"
            )
            raise CertificateError(
                f"{printable(self.key_file)}: the key does not match the certificate in"
                f" {printable(self.certificate_file)}; {hint}"
            )
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(_VERSIONS[self.minimum_tls])
        # Compression leaks lengths (CRIME), renegotiation costs us more than them, and neither is
        # of use to mail.
        context.set_options(
            SSL.OP_NO_COMPRESSION | _OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE
        )
        # An idle connection gives its two buffers (34 KiB) back.
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.set_cipher_list(_SUITES)
        # Tickets resume sessions without memory of ours.
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_session_id(b"twisted-mta")
        # No protocol of ours has a name in ALPN. RFC 7301 §3.2 lets a server end the handshake with
        # a client that offers others; mail goes on without, whatever OpenSSL's default becomes.
        context.set_alpn_select_callback(lambda connection, offered: SSL.NO_OVERLAPPING_PROTOCOLS)
        try:
            context.use_certificate(chain[0])
            for issuer in chain[1:]:
                context.add_extra_chain_cert(issuer)
            context.use_privatekey(key)  # type: ignore[arg-type]
            context.check_privatekey()
        except (SSL.Error, TypeError, ValueError) as error:
            raise CertificateError(
                f"{printable(self.certificate_file)}: OpenSSL refuses it: {_reason(error)};"
                " an ECDSA P-256 or RSA 2048 certificate would do"
            ) from None
        self._chain, self._context = chain, context

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Return a connection with the certificate of now (called by Twisted)."""
        assert self._context is not None, "nothing is loaded"
        return SSL.Connection(self._context, None)

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

    def facts(self, connection: SSL.Connection) -> TLSFacts:
        """Return what a handshake achieved; see the function of the same name."""
        return facts(connection)


def load(certificate_file: str, key_file: str, minimum_tls: str = "1.2") -> ServerContext:
    """Return a context with the certificate and key of two PEM files, or of one. Blocks.

    Args:
        certificate_file: ours first, then its issuers as far as they are to be sent.
        key_file: its private key, without a passphrase.
        minimum_tls: ``"1.2"`` or ``"1.3"``. Peers below it fail in the handshake; to let them
            finish it and refuse their mail with a reply (RFC 3207 §4.1), give ``"1.2"`` here and
            `suffices` to the session.

    Raises:
        CertificateError: a file cannot be read or used.
    """
    context = ServerContext(certificate_file, key_file, minimum_tls)
    context.reload()
    return context


def suffices(minimum_tls: str) -> Callable[[TLSFacts], bool]:
    """Return what says whether a handshake came to ``minimum_tls`` (``"1.2"``, ``"1.3"``)."""
    good = _NAMES[minimum_tls]
    return lambda facts: facts.version in good


def facts(connection: SSL.Connection, *, verified: bool = False) -> TLSFacts:
    """Return what a handshake achieved; to be called once it is complete.

    What the peer says of itself comes out printable.

    Args:
        connection: either side's end.
        verified: whether the peer's chain was found to lead to an authority that we trust.
    """
    server_name = connection.get_servername()
    achieved = TLSFacts(
        version=connection.get_protocol_version_name(),
        cipher=connection.get_cipher_name() or "",
        bits=connection.get_cipher_bits() or 0,
        server_name=None if server_name is None else printable(server_name.decode("latin-1")),
    )
    certificate = _peer_certificate(connection)
    if certificate is None:
        return achieved
    return evolve(
        achieved,
        peer_subject=_name(lambda: certificate.subject),
        peer_issuer=_name(lambda: certificate.issuer),
        peer_fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        peer_verified=verified,
    )


def _peer_certificate(connection: SSL.Connection) -> x509.Certificate | None:
    try:
        return connection.get_peer_certificate(as_cryptography=True)
    except ValueError:  # OpenSSL is content with more than `cryptography` is
        return None


def _name(get: Callable[[], x509.Name]) -> str:
    try:
        return printable(get().rfc4514_string())
    except ValueError as error:  # read only now, and the peer may have written anything
        return f"unreadable: {printable(str(error))}"


def _read(file: str) -> bytes:
    try:
        with open(file, "rb") as opened:
            return opened.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CertificateError(f"{printable(file)}: cannot be read: {reason}") from None


def _read_chain(file: str) -> Sequence[x509.Certificate]:
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


def _reason(error: Exception) -> str:
    if isinstance(error, SSL.Error) and error.args and error.args[0]:
        return printable(str(error.args[0][0][-1]))
    return printable(str(error))


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
