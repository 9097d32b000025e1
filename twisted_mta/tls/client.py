"""TLS to next hops: contexts, server names, and the verification of certificates.

A context serves all connections with the same files; the server name of SNI belongs to the
connection. Contexts are made from a value, `ClientTLS`. `ClientContexts.load`
reads the files that some of these name, `ClientContexts.use` puts them in force for the handshakes
that follow.

Whether a handshake is good enough is decided in one place, `ClientContexts.verify`, when it has
completed and before a command is sent (RFC 3207 §4.1). No certificate breaks a handshake off, but
for keys that take too long: the server gets QUIT, and the log has the names of its certificate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address

from attrs import evolve, frozen
from cryptography import x509
from OpenSSL import SSL, crypto
from service_identity import VerificationError
from service_identity.pyopenssl import extract_patterns, verify_hostname, verify_ip_address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from ..mail.address import AddressError, domain_name
from ..mail.next_hop import Target
from ..mail.printable import printable
from ..mail.tls_facts import TLSFacts
from ..mail.tls_policy import TLSPolicy
from ..system.work import Work
from . import dane
from .certificates import (
    MOST_ABOVE,
    CertifiedKey,
    ChainCheck,
    chain_error,
    described,
    read_certificates,
    refuse_costly,
    too_large,
)
from .handshake import TLSConnection, client_facts
from .sessions import KeptSession
from .small_hello import make_small

# An unverified certificate may have a short key: otherwise the message would be sent in clear
# (RFC 7435 §3). So OpenSSL's minimum for keys and digests, which depends on its build, is lifted;
# the minimum for the protocol version stays.
_OPPORTUNISTIC_CIPHERS = b"DEFAULT:@SECLEVEL=0"

_MOST_NAMES = 3  # of a certificate, in a reason
_LONGEST_NAME = 100


@frozen(kw_only=True)
class ClientTLS:
    """The TLS settings of a connection to a next hop.

    Attributes:
        verify: whether the server's certificate must be valid for its name.
        noted: whether a certificate that is not valid is only noted, and may have a short key.
        authorities: the path of the PEM file with the trusted authorities; None: those of the
            system.
        certificate: the path of the PEM file with our client certificate and its chain, for
            servers that request one; None: there is none.
        key: the path of the PEM file with its key.
    """

    verify: bool = False
    noted: bool = False
    authorities: str | None = None
    certificate: str | None = None
    key: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of all files, each once."""
        named = (self.authorities, self.certificate, self.key)
        return tuple(dict.fromkeys(file for file in named if file is not None))


def under_mta_sts(tls: ClientTLS, authorities: str | None, *, testing: bool) -> ClientTLS:
    """Return the settings of a connection under an MTA-STS policy (RFC 8461 §4.2).

    Args:
        tls: those without it.
        authorities: the path of the PEM file with the trusted authorities; None: those of the
            system.
        testing: whether the policy is tested.
    """
    return evolve(tls, verify=True, noted=testing, authorities=authorities)


@frozen(eq=False)
class LoadedContext:
    """The context made from the files of a `ClientTLS`."""

    context: SSL.Context
    key: CertifiedKey | None = None
    authorities: tuple[x509.Certificate, ...] = ()


@implementer(IOpenSSLClientConnectionCreator)
class ClientCreator:
    """Makes the TLS side of connections to one target.

    Args:
        context: for the connections.
        server_name: for SNI; None: no SNI.
        verifies: whether the verification of the chain is recorded.

    Attributes:
        context: for the connections.
        resume: the session to resume; None: a new one.
        small: whether the ClientHello is to be small (`small_hello`).
    """

    def __init__(
        self,
        context: SSL.Context,
        server_name: str | None,
        verifies: bool = False,
    ) -> None:
        self.context = context
        self.resume: KeptSession | None = None
        self.small = False
        self._verifies = verifies
        self.server_name = server_name

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Return a connection with the target's name in SNI (called by Twisted)."""
        connection = TLSConnection(self.context, None)
        if self._verifies:
            connection.chain = ChainCheck()
        if self.resume is not None:
            connection.set_session(self.resume.session)
        if self.small:
            make_small(connection)
        if self.server_name is not None:
            connection.set_tlsext_host_name(self.server_name.encode("ascii"))
        return connection


class ClientContexts:
    """The TLS contexts of connections to next hops."""

    def __init__(self) -> None:
        self._loaded: dict[ClientTLS, LoadedContext] = {}
        self._made: dict[ClientTLS, None] = {}  # without a file; made again by each `load`

    def load(self, settings: Iterable[ClientTLS]) -> Work[Mapping[ClientTLS, LoadedContext]]:
        """Read all files; nothing is in force before `use`.

        Raises:
            CertificateError: a file cannot be used.
        """
        loaded = {}
        for tls in dict.fromkeys((*settings, *self._made)):
            yield
            loaded[tls] = self._load(tls)
        return loaded

    def use(self, loaded: Mapping[ClientTLS, LoadedContext]) -> list[str]:
        """Put files that were loaded in force; return lines that describe changes, printable."""
        before = self._loaded
        # A delivery under way may still need a context of before.
        self._loaded = {**before, **loaded}
        lines: dict[str, None] = {}
        for tls, new in loaded.items():
            old = before.get(tls)
            if old is not None:
                lines.update(dict.fromkeys(_changes(tls, old, new)))
        return list(lines)

    def contents(self, tls: ClientTLS) -> object:
        """Return the content of the files of ``tls`` as they are in force; to be compared."""
        loaded = self._loaded.get(tls)
        if loaded is None:
            return None
        return loaded.authorities, None if loaded.key is None else loaded.key.chain

    def has(self, tls: ClientTLS) -> bool:
        """Whether there is a context for ``tls``."""
        return tls in self._loaded

    def make(self, tls: ClientTLS) -> None:
        """Make the context for ``tls``, if there is none; may be called in a thread.

        Blocks: it takes 30 ms to read the system's authorities.

        Raises:
            CertificateError: a file cannot be used.
        """
        if tls not in self._loaded:
            self._loaded[tls] = self._load(tls)
            if not tls.files:
                self._made[tls] = None

    def creator(
        self, target: Target, tls: ClientTLS, policy: TLSPolicy | None = None
    ) -> ClientCreator:
        """Return the argument of `startTLS` for a connection to ``target``.

        Args:
            target: the address and port.
            tls: the files and checks.
            policy: the TLS that the connection must have; None: as ``tls`` says.

        Raises:
            RuntimeError: its files were not loaded.
        """
        tls = _in_force(tls, policy)
        if tls not in self._loaded:
            if tls.files:
                raise RuntimeError(f"not loaded: {tls}")
            self.make(tls)
        loaded = self._loaded[tls]
        return ClientCreator(loaded.context, server_name(target, policy), tls.verify)

    def verify(
        self,
        connection: SSL.Connection,
        target: Target,
        tls: ClientTLS,
        policy: TLSPolicy | None = None,
    ) -> tuple[TLSFacts, str | None]:
        """Return the facts of a completed handshake, and why the server is not verified.

        The second is None where it is verified, and where the settings do not require it.
        """
        facts = client_facts(connection, server_name(target, policy))
        tls = _in_force(tls, policy)
        if policy is not None and policy.level == "dane":
            facts, problem = self._verified_by_dane(connection, facts, policy)
            if problem is not None or not policy.patterns:
                return facts, problem
        if not tls.verify:
            return facts, None
        # Any error during verification means that the server is not verified.
        try:
            problems = self._problems(connection, target)
        except Exception as error:
            problems = [f"its certificate cannot be verified: {_text(error)}"]
        if not problems:
            return evolve(facts, peer_verified=True), None
        problem = "; ".join(problems)
        facts = evolve(facts, peer_verified=False, verified_by=None, peer_problem=problem)
        return facts, None if tls.noted else problem

    def _verified_by_dane(
        self, connection: SSL.Connection, facts: TLSFacts, policy: TLSPolicy
    ) -> tuple[TLSFacts, str | None]:
        """Return the facts of a handshake whose server must fit its TLSA records."""
        try:
            shown = connection.get_peer_cert_chain() or []
            chain = [crypto.dump_certificate(crypto.FILETYPE_ASN1, each) for each in shown]
            verdict = dane.verify(chain, policy.tlsa, policy.names)
        except Exception as error:
            verdict = dane.Verdict(None, f"its certificate cannot be verified: {_text(error)}")
        if verdict.record is None:
            return evolve(facts, peer_problem=verdict.problem), verdict.problem
        if policy.unproven_host:
            # RFC 7672 §2.2.1: forged MX records may have led to another host.
            problem = f"it fits TLSA {verdict.record}, and the MX records are not secure"
            return evolve(facts, peer_problem=problem), None
        by = f"DANE, TLSA {verdict.record}"
        return evolve(facts, peer_verified=True, verified_by=by), None

    def _problems(self, connection: SSL.Connection, target: Target) -> list[str]:
        chain = connection.chain if isinstance(connection, TLSConnection) else None
        if chain is None or not chain.checked:
            return ["it has no certificate"]
        problem = name_problem(connection, target.name)
        return [*chain.errors, *([problem] if problem else [])]

    def _load(self, tls: ClientTLS) -> LoadedContext:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)  # RFC 8996
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        authorities: tuple[x509.Certificate, ...] = ()
        if tls.verify:
            context.set_verify(SSL.VERIFY_PEER, self._remember)
            context.set_verify_depth(MOST_ABOVE)
            if tls.authorities is None:
                context.set_default_verify_paths()
            else:
                authorities = tuple(read_certificates(tls.authorities))
                _trust(context, authorities)
        else:
            context.set_verify(SSL.VERIFY_NONE)
        if tls.noted or not tls.verify:
            context.set_cipher_list(_OPPORTUNISTIC_CIPHERS)
        key = None
        if tls.certificate is not None:
            key = CertifiedKey.read(tls.certificate, tls.key or tls.certificate)
            key.load_into(context)
        return LoadedContext(context, key, authorities)

    def _remember(
        self, connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, ok: int
    ) -> bool:
        """Record the verification of one certificate of a chain; the handshake goes on.

        Raises:
            SSL.Error: see `refuse_costly`; the handshake ends.
        """
        refuse_costly(certificate)
        assert isinstance(connection, TLSConnection) and connection.chain is not None
        connection.chain.note(chain_error(error), ok=ok)
        return True


def _in_force(tls: ClientTLS, policy: TLSPolicy | None) -> ClientTLS:
    """Return the settings of a connection under a policy."""
    if policy is None or not policy.patterns:
        return tls
    return under_mta_sts(tls, policy.authorities, testing=policy.testing)


def server_name(target: Target, policy: TLSPolicy | None = None) -> str | None:
    """Return the server name for SNI: that of the policy, or the name of ``target``.

    None: the name is an address.
    """
    if policy is not None and policy.server_name is not None:
        return policy.server_name
    if _is_address(target.name) or target.name.startswith("/"):
        return None  # RFC 6066 §3: literal addresses are not permitted
    return _a_labels(target.name)


def name_problem(connection: SSL.Connection, name: str) -> str | None:
    """Return why the server's certificate is not valid for ``name``, None where it is (RFC 9525).

    Only its subjectAltName counts, never a common name: a DNS-ID for a domain, an IP-ID for an
    address. Any exception is a reason.
    """
    try:
        certificate = connection.get_peer_certificate(as_cryptography=True)
        if certificate is not None and (size := too_large(certificate)):
            return f"its certificate has {size}"
        if _is_address(name):
            verify_ip_address(connection, name)
        else:
            verify_hostname(connection, _a_labels(name))
    except VerificationError:
        return f"its certificate is not for {printable(name)}, but for {_names(connection)}"
    except Exception as error:
        return f"its certificate cannot be compared with {printable(name)}: {_text(error)}"
    return None


def _names(connection: SSL.Connection) -> str:
    certificate = connection.get_peer_certificate()
    assert certificate is not None
    shown = []
    for pattern in extract_patterns(certificate):
        value = getattr(pattern, "pattern", None) or getattr(pattern, "name_pattern", b"?")
        text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
        shown.append(printable(text)[:_LONGEST_NAME])
    more = len(shown) - _MOST_NAMES
    return ", ".join(shown[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _text(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return printable(text.replace("`", ""))[:200].rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _a_labels(name: str) -> str:
    if name.isascii():
        return name
    try:
        return domain_name(name)
    except AddressError:
        return name.encode("ascii", "replace").decode("ascii")  # matches no certificate


def _trust(context: SSL.Context, authorities: Iterable[x509.Certificate]) -> None:
    store = context.get_cert_store()
    assert store is not None
    for authority in authorities:
        store.add_cert(crypto.X509.from_cryptography(authority))
    # A certificate that the operator names is trusted, even without the authority above it.
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)


def _changes(tls: ClientTLS, before: LoadedContext, after: LoadedContext) -> list[str]:
    lines = []
    if before.authorities != after.authorities:
        lines.append(
            f"{printable(tls.authorities or '')}: authorities for next hops:"
            f" {described(after.authorities)}; before: {described(before.authorities)}"
        )
    if before.key and after.key and before.key.chain != after.key.chain:
        lines.append(
            f"{printable(after.key.certificate_file)}: {after.key.description};"
            f" before: {before.key.description}"
        )
    return lines
