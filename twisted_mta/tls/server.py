"""TLS for those who connect to us: contexts, certificates by name, client certificates, facts.

A `ServerContext` belongs to one listener. It is made from one value, `TLSSettings`, without
touching a file; `ServerContext.prepare` reads what that names, and `ServerContext.use` puts it in
force for the handshakes that follow. Connections that exist keep what they began with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, cast
from weakref import WeakKeyDictionary

from attrs import define, evolve, field, frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from ..config import SNICertificate
from ..mail.printable import printable
from ..mail.tls_facts import TLSFacts
from ..system.slices import Work, finished
from .certificates import (
    CertificateError,
    CertificateFiles,
    CertifiedKey,
    ChainCheck,
    fingerprint,
    issuer,
    openssl_error,
    subject,
)

_VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
_NAMES = {"1.2": ("TLSv1.2", "TLSv1.3"), "1.3": ("TLSv1.3",)}

# Suites of TLS 1.2, ours first; those of 1.3 are OpenSSL's. Key exchange by RSA alone comes last
# and is still offered: who has nothing better would send the mail in clear. Groups are OpenSSL's
# too (X25519 before P-256), since pyOpenSSL has no call that sets several.
_SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES:RSA+AESGCM:RSA+AES:!aNULL:!eNULL:!MD5:!DSS"

# The number that OpenSSL's ssl.h has for it; pyOpenSSL does not export the name.
_OP_NO_RENEGOTIATION = 1 << 30


@frozen(kw_only=True)
class TLSSettings:
    """All that decides how the TLS of one listener is.

    Attributes:
        certificate_file: the path of the PEM file with our certificate and its chain.
        key_file: the path of the PEM file with its key, without a passphrase; may be the same.
        minimum_tls: ``"1.2"`` or ``"1.3"``, the oldest with which a handshake succeeds. To let a
            peer below it finish, and refuse its mail with a reply (RFC 3207 §4.1), give ``"1.2"``
            here and `suffices` to the session.
        ciphers: suites of TLS 1.2, as OpenSSL's cipher list format has them; None for ours.
        client_certificates: whether clients are asked for one. The handshake succeeds whatever
            they show; what is required is for the session to say, by `suffices`.
        authorities_file: the path of the PEM file with those who may have signed them.
        sni: certificates for names that a client may ask for (RFC 6066 §3).
    """

    certificate_file: str
    key_file: str
    minimum_tls: str = "1.2"
    ciphers: str | None = None
    client_certificates: Literal["none", "ask", "require"] = "none"
    authorities_file: str | None = None
    sni: tuple[SNICertificate, ...] = ()


@frozen(eq=False)
class Prepared:
    """What the files of a `TLSSettings` held, made into contexts.

    Attributes:
        settings: see there.
        default: for who asks for no name, or for one that we have no certificate for.
        keys: what was read, the default first.
        authorities: those who may have signed client certificates.
    """

    settings: TLSSettings
    default: SSL.Context
    keys: tuple[CertifiedKey, ...]
    authorities: tuple[x509.Certificate, ...]


@define(eq=False)
class _Handshake:
    """What is remembered of one connection (Twisted takes its application data for itself).

    Attributes:
        prepared: kept alive with the connection. OpenSSL calls back into the context that a
            handshake began with, after SNI has chosen another one, and after a reload.
        chain: what OpenSSL thinks of the peer's certificates.
    """

    prepared: Prepared
    chain: ChainCheck = field(factory=ChainCheck)


@implementer(IOpenSSLServerConnectionCreator)
class ServerContext:
    """Makes the server's side of TLS connections, from files that can be read again.

    Attributes:
        settings: see there.
    """

    def __init__(self, settings: TLSSettings) -> None:
        self.settings = settings
        self._prepared: Prepared | None = None
        self._handshakes: WeakKeyDictionary[SSL.Connection, _Handshake] = WeakKeyDictionary()

    @property
    def ready(self) -> bool:
        """Whether a certificate is loaded, so that a handshake could begin now."""
        return self._prepared is not None

    @property
    def creator(self) -> ServerContext:
        """What `startTLS` takes: this object, which looks at the certificate of the moment."""
        return self

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate that is shown to who asks for no name.

        Raises:
            RuntimeError: nothing is loaded.
        """
        return self._loaded().keys[0].certificate

    @property
    def expires_at(self) -> float:
        """When the first of its certificates expires; seconds since the epoch.

        Raises:
            RuntimeError: nothing is loaded.
        """
        keys = self._loaded().keys
        return min(key.certificate.not_valid_after_utc.timestamp() for key in keys)

    def prepare(self, settings: TLSSettings | None = None) -> Prepared:
        """Read all files, without any effect on connections. Blocks.

        Args:
            settings: what is to be in force; None is what is.

        Raises:
            CertificateError: something in them cannot be used.
        """
        return finished(self.preparing(settings or self.settings, CertificateFiles()))

    def preparing(self, settings: TLSSettings, files: CertificateFiles) -> Work[Prepared]:
        """Do the same in slices.

        Args:
            settings: what is to be in force.
            files: those that were read already, for other listeners.
        """
        key = files.key(settings.certificate_file, settings.key_file)
        authorities: tuple[x509.Certificate, ...] = ()
        if settings.client_certificates != "none" and settings.authorities_file is not None:
            yield
            authorities = files.authorities(settings.authorities_file)
        yield
        default = self._context(settings, key, authorities)
        keys = [key]
        by_name: dict[str, SSL.Context] = {}
        for named in settings.sni:
            yield
            keys.append(files.key(named.certificate, named.key))
            by_name.update(
                dict.fromkeys(named.names, self._context(settings, keys[-1], authorities))
            )
        if by_name:
            default.set_tlsext_servername_callback(_chooser(by_name))
        return Prepared(settings, default, tuple(keys), authorities)

    def use(self, prepared: Prepared) -> list[str]:
        """Put in force what was prepared; return lines that say what changed, printable."""
        before, self._prepared = self._prepared, prepared
        self.settings = prepared.settings
        return [] if before is None else _changes(before, prepared)

    def reload(self) -> list[str]:
        """Read all files again; connections from now on see what they hold. Blocks.

        Raises:
            CertificateError: they cannot be used; what was loaded before stays in force.
        """
        return self.use(self.prepare())

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Return a connection with the certificate of now (called by Twisted)."""
        prepared = self._loaded()
        connection = SSL.Connection(prepared.default, None)
        self._handshakes[connection] = _Handshake(prepared)
        return connection

    def warnings(self, now: float) -> list[str]:
        """Return what is wrong with the certificates' dates at ``now`` (seconds since the epoch).

        They are used all the same: most senders do not look, and the others say so.
        """
        return [warning for key in self._loaded().keys for warning in key.warnings(now)]

    def faults(self, now: float) -> list[str]:
        """Return the warnings for certificates that are not valid at ``now``."""
        keys = [key for key in self._loaded().keys if not key.is_valid(now)]
        return [warning for key in keys for warning in key.warnings(now)]

    def facts(self, connection: SSL.Connection) -> TLSFacts:
        """Return what a handshake of ours achieved, and what its client certificate came to."""
        handshake = self._handshakes.get(connection)
        if handshake is None or not handshake.chain.checked:
            # Nobody looked: no certificate was asked for or shown, or a session was resumed.
            return facts(connection)
        errors = handshake.chain.errors
        return facts(connection, verified=not errors, problem=", ".join(errors))

    def _loaded(self) -> Prepared:
        if self._prepared is None:
            raise RuntimeError("no certificate is loaded")
        return self._prepared

    def _context(
        self, settings: TLSSettings, key: CertifiedKey, authorities: tuple[x509.Certificate, ...]
    ) -> SSL.Context:
        context = _context(settings, key)
        if settings.client_certificates != "none":
            self._ask_for_certificates(context, authorities)
        return context

    def _ask_for_certificates(
        self, context: SSL.Context, authorities: tuple[x509.Certificate, ...]
    ) -> None:
        # Not VERIFY_FAIL_IF_NO_PEER_CERT, and a callback that forgives everything: any certificate,
        # or none, is good enough for local delivery (RFC 3207 §4.1). The names of our authorities
        # are not sent: clients that have a certificate from elsewhere would then show none at all,
        # and such a one may still be known by its fingerprint.
        context.set_verify(SSL.VERIFY_PEER, self._remember)
        # A resumed session shows no certificate and has none verified: its facts would be those of
        # another connection, of before a reload perhaps. So none is resumed.
        context.set_options(SSL.OP_NO_TICKET)
        store = context.get_cert_store()
        assert store is not None
        for authority in authorities:
            store.add_cert(crypto.X509.from_cryptography(authority))

    def _remember(
        self,
        connection: SSL.Connection,
        certificate: crypto.X509,
        error: int,
        depth: int,
        ok: int,
    ) -> bool:
        """Note what OpenSSL thinks of one certificate of a chain, and let the handshake go on."""
        self._handshakes[connection].chain.note(openssl_error(error), ok=ok)
        return True


class ServerTLS(Protocol):
    """What the protocol needs for handshakes: `ServerContext`, or `ForeignContext`."""

    @property
    def ready(self) -> bool:
        """Whether a certificate is loaded, so that a handshake could begin now."""
        ...

    @property
    def creator(self) -> Any:
        """What `startTLS` takes; makes the connection's side with the certificate of now."""
        ...

    def facts(self, connection: SSL.Connection) -> TLSFacts:
        """Say what a handshake achieved."""
        ...


class ContextFactory(Protocol):
    """A context factory as applications have them, such as Twisted's `CertificateOptions`."""

    def getContext(self) -> SSL.Context:
        """Return the context of all connections."""
        ...


@frozen
class ForeignContext:
    """A context factory that is not ours, as a `ServerTLS`; what it demands, it demands.

    Attributes:
        creator: that factory.
    """

    creator: Any

    @property
    def ready(self) -> bool:
        """Always: it was made with its certificate."""
        return True

    def facts(self, connection: SSL.Connection) -> TLSFacts:
        """Say what a handshake achieved; a certificate that it let pass, it has verified."""
        verified = connection.get_peer_certificate() is not None
        return facts(connection, verified=verified)


def server_tls(tls: ServerTLS | ContextFactory | None) -> ServerTLS | None:
    """Return ``tls`` as what the protocol needs.

    Raises:
        TypeError: it is no context factory.
    """
    if tls is None or isinstance(tls, ServerContext | ForeignContext):
        return tls
    if hasattr(tls, "creator") and hasattr(tls, "facts"):
        return cast(ServerTLS, tls)
    if hasattr(tls, "getContext") or IOpenSSLServerConnectionCreator.providedBy(tls):
        return ForeignContext(tls)
    raise TypeError(
        f"{tls!r} is no context factory; CertificateOptions or server.tls.load would do"
    )


def load(certificate_file: str, key_file: str, minimum_tls: str = "1.2") -> ServerContext:
    """Return a context with the certificate and key of two PEM files, or of one. Blocks.

    Args:
        certificate_file: see `TLSSettings`.
        key_file: likewise.
        minimum_tls: likewise.

    Raises:
        CertificateError: a file cannot be read or used.
    """
    context = ServerContext(
        TLSSettings(certificate_file=certificate_file, key_file=key_file, minimum_tls=minimum_tls)
    )
    context.reload()
    return context


def suffices(
    minimum_tls: str = "1.2",
    *,
    cipher_bits: int = 0,
    client_certificate: bool = False,
) -> Callable[[TLSFacts], bool]:
    """Return what decides, after a handshake, whether to go on (RFC 3207 §4.1).

    Args:
        minimum_tls: the oldest version that will do.
        cipher_bits: the least strength of the cipher's key.
        client_certificate: whether one is demanded whose chain leads to an authority of ours.
    """
    good = _NAMES[minimum_tls]

    def decide(facts: TLSFacts) -> bool:
        return (
            facts.version in good
            and facts.bits >= cipher_bits
            and (facts.peer_verified or not client_certificate)
        )

    return decide


def facts(
    connection: SSL.Connection, *, verified: bool = False, problem: str | None = None
) -> TLSFacts:
    """Return what a handshake achieved; to be called once it is complete.

    What the peer says of itself comes out printable.

    Args:
        connection: either side's end.
        verified: whether the peer's chain was found to lead to an authority that we trust.
        problem: what was found wrong with it.
    """
    server_name = connection.get_servername()
    achieved = TLSFacts(
        version=connection.get_protocol_version_name(),
        cipher=connection.get_cipher_name() or "",
        bits=connection.get_cipher_bits() or 0,
        key_exchange=_group(connection),
        server_name=None if server_name is None else printable(server_name.decode("latin-1")),
    )
    certificate = _peer_certificate(connection)
    if certificate is None:
        return achieved
    return evolve(
        achieved,
        peer_subject=subject(certificate),
        peer_issuer=issuer(certificate),
        peer_fingerprint=fingerprint(certificate),
        peer_verified=verified,
        peer_problem=problem or None,
    )


def channel_binding(connection: SSL.Connection, facts: TLSFacts) -> Callable[[str], bytes | None]:
    """Return what returns the channel binding of that name (RFC 5056), None where there is none.

    Args:
        connection: the server's end.
        facts: of its handshake.
    """

    def binding(name: str) -> bytes | None:
        # RFC 9266 §4.2: with TLS 1.2 it is not unique unless extended master secrets were agreed
        # on, which pyOpenSSL does not tell.
        if name == "tls-exporter" and facts.version == "TLSv1.3":
            return connection.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
        if name == "tls-server-end-point":
            ours = connection.get_certificate()
            return None if ours is None else _end_point(ours.to_cryptography())
        return None

    return binding


def _end_point(certificate: x509.Certificate) -> bytes | None:
    """Return the hash of a certificate that RFC 5929 §4.1 asks for; None where it names none."""
    try:
        used = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None
    if used is None:  # Ed25519, and whatever else has its hash inside
        return None
    weak = isinstance(used, hashes.MD5 | hashes.SHA1)
    return certificate.fingerprint(hashes.SHA256() if weak else used)


def _group(connection: SSL.Connection) -> str | None:
    name = getattr(connection, "get_group_name", None)  # pyOpenSSL 25.2, OpenSSL 3.0
    return None if name is None else name()


def _context(settings: TLSSettings, key: CertifiedKey) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(_VERSIONS[settings.minimum_tls])
    # Compression leaks lengths (CRIME), renegotiation costs us more than them, and neither is
    # of use to mail.
    context.set_options(
        SSL.OP_NO_COMPRESSION | _OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE
    )
    # An idle connection gives its two buffers (34 KiB) back.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    try:
        context.set_cipher_list((settings.ciphers or _SUITES).encode("ascii"))
    except (SSL.Error, UnicodeEncodeError):
        raise CertificateError(
            f'ciphers "{printable(settings.ciphers or "")}": OpenSSL knows no suite of TLS 1.2'
            " by it; ECDHE+AESGCM would do"
        ) from None
    # Tickets resume sessions without memory of ours.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(b"twisted-mta")
    # No protocol of ours has a name in ALPN. RFC 7301 §3.2 lets a server end the handshake with
    # a client that offers others; mail goes on without, whatever OpenSSL's default becomes.
    context.set_alpn_select_callback(lambda connection, offered: SSL.NO_OVERLAPPING_PROTOCOLS)
    key.load_into(context)
    return context


def _chooser(by_name: Mapping[str, SSL.Context]) -> Callable[[SSL.Connection], None]:
    """Return what chooses a context by the name that a client asks for."""

    def choose(connection: SSL.Connection) -> None:
        # RFC 6066 §3: A-labels, without a trailing dot, compared without regard to case.
        asked = (connection.get_servername() or b"").decode("ascii", "replace").lower()
        name = asked.removesuffix(".")
        _, _, parent = name.partition(".")
        # RFC 9525 §6.3: an asterisk stands for one whole label, the leftmost.
        context = by_name.get(name) or by_name.get(f"*.{parent}")
        if context is not None:
            connection.set_context(context)

    return choose


def _changes(before: Prepared, after: Prepared) -> list[str]:
    was = {key.certificate_file: key for key in before.keys}
    lines = []
    for new in after.keys:
        file, old = printable(new.certificate_file), was.get(new.certificate_file)
        if old is None:
            lines.append(f"{file}: {new.description}")
        elif new.certificate != old.certificate:
            lines.append(f"{file}: {new.description}; before: {old.description}")
        elif new.chain != old.chain:
            lines.append(f"{file}: another chain behind the same certificate")
    if before.authorities != after.authorities:
        file = printable(after.settings.authorities_file or before.settings.authorities_file or "")
        lines.append(
            f"{file}: {len(after.authorities)} authorities"
            f" for client certificates; before: {len(before.authorities)}"
        )
    return lines


def _peer_certificate(connection: SSL.Connection) -> x509.Certificate | None:
    try:
        return connection.get_peer_certificate(as_cryptography=True)
    except ValueError:  # OpenSSL is content with more than `cryptography` is
        return None
