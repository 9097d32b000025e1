"""TLS of a listener: its certificates, by server name, and those that it requests from clients.

A `ServerContext` is made from a value, `TLSSettings`, without touching a file.
`ServerContext.load` reads the files that the settings name, and `ServerContext.use` puts them in
force for the handshakes that follow; open connections keep the context that they began with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, cast

from attrs import frozen
from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from ..config import SNICertificate
from ..mail.printable import printable
from ..mail.tls_facts import TLSFacts
from ..system.work import Work, finished
from .certificates import (
    MOST_ABOVE,
    CertificateError,
    CertificateFault,
    CertificateFiles,
    CertifiedKey,
    ChainCheck,
    described,
    openssl_error,
    refuse_costly,
)
from .handshake import TLSConnection, server_facts

_VERSIONS = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}

# Suites of TLS 1.2, by our preference; those of 1.3 are OpenSSL's. RSA key exchange is last and
# still offered: a client without anything better would send the mail in clear. Groups are OpenSSL's
# too (X25519 before P-256): pyOpenSSL has no call that sets several.
_SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES:RSA+AESGCM:RSA+AES:!aNULL:!eNULL:!MD5:!DSS"

# From OpenSSL's ssl.h; pyOpenSSL does not export it.
_OP_NO_RENEGOTIATION = 1 << 30


@frozen(kw_only=True)
class TLSSettings:
    """The TLS settings of one listener.

    Attributes:
        certificate_file: the path of the PEM file with our certificate and its chain.
        key_file: the path of the PEM file with its key, without a passphrase; may be the same.
        minimum_tls: ``"1.2"`` or ``"1.3"``, the oldest version that completes a handshake. To
            complete one with 1.2 and refuse the mail by a reply (RFC 3207 §4.1), use ``"1.2"``
            here, and `handshake.suffices` for the session.
        ciphers: suites of TLS 1.2 in OpenSSL's cipher list format; None for ours.
        tickets: whether clients may resume sessions. Where clients are asked for certificates, no
            session is resumed in any case.
        client_certificates: whether clients are asked for one. The handshake completes in any
            case; the session decides afterwards, by `handshake.suffices`.
        authorities_file: the path of the PEM file with the authorities of client certificates.
        sni: certificates by server name (RFC 6066 §3).
    """

    certificate_file: str
    key_file: str
    minimum_tls: str = "1.2"
    ciphers: str | None = None
    tickets: bool = True
    client_certificates: Literal["none", "ask", "require"] = "none"
    authorities_file: str | None = None
    sni: tuple[SNICertificate, ...] = ()


@frozen(eq=False)
class LoadedContexts:
    """The contexts made from the files of a `TLSSettings`.

    Attributes:
        settings: that name the files.
        default: the context for clients without SNI, or with an unknown server name.
        keys: the certificates with their keys, the default first.
        authorities: of client certificates.
    """

    settings: TLSSettings
    default: SSL.Context
    keys: tuple[CertifiedKey, ...]
    authorities: tuple[x509.Certificate, ...]


@implementer(IOpenSSLServerConnectionCreator)
class ServerContext:
    """Makes the server's side of TLS connections, from files that can be reloaded.

    Attributes:
        settings: in force.
    """

    def __init__(self, settings: TLSSettings) -> None:
        self.settings = settings
        self._contexts: LoadedContexts | None = None

    @property
    def ready(self) -> bool:
        """Whether a certificate is loaded, so that a handshake could begin now."""
        return self._contexts is not None

    @property
    def creator(self) -> ServerContext:
        """The argument for `startTLS`: this object, which uses the certificate in force."""
        return self

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate for clients without SNI.

        Raises:
            RuntimeError: nothing is loaded.
        """
        return self._loaded().keys[0].certificate

    @property
    def keys(self) -> tuple[CertifiedKey, ...]:
        """The certificates with their keys, the default first; none before they are loaded."""
        return () if self._contexts is None else self._contexts.keys

    @property
    def expires_at(self) -> float:
        """When the first of its certificates expires, in seconds since the epoch.

        Raises:
            RuntimeError: nothing is loaded.
        """
        keys = self._loaded().keys
        return min(key.certificate.not_valid_after_utc.timestamp() for key in keys)

    def load(self, settings: TLSSettings, files: CertificateFiles) -> Work[LoadedContexts]:
        """Read all files; nothing is in force before `use`.

        Args:
            settings: that name the files.
            files: those that were read already, for other listeners.

        Raises:
            CertificateError: a file cannot be used.
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
            default.set_tlsext_servername_callback(_context_chooser(by_name))
        return LoadedContexts(settings, default, tuple(keys), authorities)

    def use(self, loaded: LoadedContexts) -> list[str]:
        """Put files that were loaded in force; return lines that describe changes, printable."""
        before, self._contexts = self._contexts, loaded
        self.settings = loaded.settings
        return [] if before is None else _changes(before, loaded)

    def reload(self) -> list[str]:
        """Read all files again, and put them in force for new connections. Blocks.

        Raises:
            CertificateError: a file cannot be used; the contexts of before stay in force.
        """
        return self.use(finished(self.load(self.settings, CertificateFiles())))

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Return a connection with the certificates in force (called by Twisted)."""
        contexts = self._loaded()
        connection = TLSConnection(contexts.default, None)
        connection.contexts = contexts
        if contexts.settings.client_certificates != "none":
            connection.chain = ChainCheck()
        return connection

    def warnings(self, now: float) -> list[str]:
        """Return warnings about the dates of the certificates at ``now`` (seconds since the epoch).

        They are used all the same: most clients do not verify them.
        """
        return [warning for key in self._loaded().keys for warning in key.warnings(now)]

    def faults(self, now: float) -> list[CertificateFault]:
        """Return the faults in the dates of the certificates at ``now``."""
        found = (key.fault(now) for key in self._loaded().keys)
        return [fault for fault in found if fault is not None]

    def facts(self, connection: SSL.Connection) -> TLSFacts:
        """Return the facts of a completed handshake, with the result of verifying the client."""
        chain = connection.chain if isinstance(connection, TLSConnection) else None
        if chain is None or not chain.checked:
            # Nothing was verified: the client has no certificate, or was not asked for one.
            return server_facts(connection)
        return server_facts(connection, verified=not chain.errors, problem=", ".join(chain.errors))

    def _loaded(self) -> LoadedContexts:
        if self._contexts is None:
            raise RuntimeError("no certificate is loaded")
        return self._contexts

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
        # Without VERIFY_FAIL_IF_NO_PEER_CERT, and with a callback that accepts everything: any
        # certificate, or none, is good enough for local delivery (RFC 3207 §4.1). The names of our
        # authorities are not sent: a client with a certificate of another authority would then
        # send none, and that one may be known by its fingerprint.
        context.set_verify(SSL.VERIFY_PEER, self._remember)
        context.set_verify_depth(MOST_ABOVE)
        # A resumed session verifies no certificate: its facts would be those of another connection,
        # perhaps from before a reload. So no session is resumed.
        _refuse_resumption(context)
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
        """Record the verification of one certificate of a chain; the handshake goes on.

        Raises:
            SSL.Error: see `refuse_costly`; the handshake ends.
        """
        refuse_costly(certificate)
        assert isinstance(connection, TLSConnection) and connection.chain is not None
        connection.chain.note(openssl_error(error), ok=ok)
        return True


class ServerTLS(Protocol):
    """The TLS of a listener, as its protocol uses it: `ServerContext` or `ForeignContext`."""

    @property
    def ready(self) -> bool:
        """Whether a certificate is loaded, so that a handshake could begin now."""
        ...

    @property
    def creator(self) -> Any:
        """The argument for `startTLS`."""
        ...

    def facts(self, connection: SSL.Connection) -> TLSFacts:
        """Return the facts of a completed handshake."""
        ...


class ContextFactory(Protocol):
    """A context factory of an application, such as Twisted's `CertificateOptions`."""

    def getContext(self) -> SSL.Context:
        """Return the context of all connections."""
        ...


@frozen
class ForeignContext:
    """A context factory of an application, as a `ServerTLS`; it decides on client certificates.

    Attributes:
        creator: the factory.
    """

    creator: Any

    @property
    def ready(self) -> bool:
        """Always true: the factory has its certificate."""
        return True

    def facts(self, connection: SSL.Connection) -> TLSFacts:
        """Return the facts of a completed handshake; a client certificate counts as verified."""
        verified = connection.get_peer_certificate() is not None
        return server_facts(connection, verified=verified)


def server_tls(tls: ServerTLS | ContextFactory | None) -> ServerTLS | None:
    """Return ``tls`` as a `ServerTLS`.

    Raises:
        TypeError: it is not a context factory.
    """
    if tls is None or isinstance(tls, ServerContext | ForeignContext):
        return tls
    if hasattr(tls, "creator") and hasattr(tls, "facts"):
        return cast(ServerTLS, tls)
    if hasattr(tls, "getContext") or IOpenSSLServerConnectionCreator.providedBy(tls):
        return ForeignContext(tls)
    raise TypeError(
        f"found {tls!r}, expected a context factory, such as CertificateOptions or tls.server.load"
    )


def load(certificate_file: str, key_file: str, minimum_tls: str = "1.2") -> ServerContext:
    """Return a context with the certificate and key of two PEM files, or of one. Blocks.

    Args:
        certificate_file: see `TLSSettings`, as for the others.
        key_file: the path of its key.
        minimum_tls: ``"1.2"`` or ``"1.3"``.

    Raises:
        CertificateError: a file cannot be used.
    """
    context = ServerContext(
        TLSSettings(certificate_file=certificate_file, key_file=key_file, minimum_tls=minimum_tls)
    )
    context.reload()
    return context


def _context(settings: TLSSettings, key: CertifiedKey) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(_VERSIONS[settings.minimum_tls])
    # Compression leaks lengths (CRIME), renegotiation costs a server more than a client, and mail
    # needs neither.
    context.set_options(
        SSL.OP_NO_COMPRESSION | _OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE
    )
    # An idle connection frees its two buffers (34 KiB).
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    try:
        context.set_cipher_list((settings.ciphers or _SUITES).encode("ascii"))
    except (SSL.Error, UnicodeEncodeError):
        raise CertificateError(
            f'ciphers "{printable(settings.ciphers or "")}": OpenSSL finds no suite of TLS 1.2'
            " in it; expected a list such as ECDHE+AESGCM"
        ) from None
    # Sessions are resumed by tickets, which need no memory here. The keys of the tickets are those
    # of the context: random, never written, and renewed by each reload.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(b"twisted-mta")
    if not settings.tickets:
        _refuse_resumption(context)
    # SMTP has no name in ALPN. RFC 7301 §3.2 permits to end the handshake with a client that
    # offers other protocols; mail ignores ALPN, whatever OpenSSL's default becomes.
    context.set_alpn_select_callback(lambda connection, offered: SSL.NO_OVERLAPPING_PROTOCOLS)
    key.load_into(context)
    return context


def _refuse_resumption(context: SSL.Context) -> None:
    # TLS 1.2 has no tickets then. Under TLS 1.3 OpenSSL sends short ones all the same, whose
    # session is in no cache: pyOpenSSL has no SSL_CTX_set_num_tickets.
    context.set_options(SSL.OP_NO_TICKET)


def _context_chooser(by_name: Mapping[str, SSL.Context]) -> Callable[[SSL.Connection], None]:
    """Return the SNI callback, which selects a context by the server name."""

    def choose(connection: SSL.Connection) -> None:
        # RFC 6066 §3: A-labels, without a trailing dot, compared without regard to case.
        requested = (connection.get_servername() or b"").decode("ascii", "replace").lower()
        name = requested.removesuffix(".")
        _, _, parent = name.partition(".")
        # RFC 9525 §6.3: a wildcard matches exactly one label, the leftmost.
        context = by_name.get(name) or by_name.get(f"*.{parent}")
        if context is not None:
            connection.set_context(context)

    return choose


def _changes(before: LoadedContexts, after: LoadedContexts) -> list[str]:
    old_keys = {key.certificate_file: key for key in before.keys}
    lines = []
    for new in after.keys:
        file, old = printable(new.certificate_file), old_keys.get(new.certificate_file)
        if old is None:
            lines.append(f"{file}: {new.description}")
        elif new.certificate != old.certificate:
            lines.append(f"{file}: {new.description}; before: {old.description}")
        elif new.chain != old.chain:
            lines.append(f"{file}: another chain behind the same certificate")
    if before.authorities != after.authorities:
        file = printable(after.settings.authorities_file or before.settings.authorities_file or "")
        lines.append(
            f"{file}: authorities for client certificates: {described(after.authorities)};"
            f" before: {described(before.authorities)}"
        )
    return lines
