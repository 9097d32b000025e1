"""Certificates of listeners: loading, names, expiry, keys and chains."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from ipaddress import ip_address
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import MD5, SHA1
from cryptography.x509.oid import ExtendedKeyUsageOID

from ...config import ACMESettings, Config
from ...config.endpoint import Endpoint
from ...config.unreadable import unreadable
from ...mail.address import AddressError, domain_name, literal_address
from ...mail.printable import printable
from ...tls.certificate_files import certificate_file, names_of
from ...tls.certificates import CertificateError, CertifiedKey, read_certificates, read_key
from ...tls.self_signed import SELF_SIGNED
from .finding import Finding
from .machine import Machine

_LEAST_RSA = 2048  # bits; OpenSSL refuses shorter keys at its default security level
_RENEW = "renew it"


def certificates(config: Config, machine: Machine) -> Iterator[Finding]:
    """Yield findings about certificates, keys and authorities of listeners."""
    broken = bool((yield from _authorities(config)))
    if all(listener.tls == "none" for listener in config.listeners):
        return
    for (certificate, key), names in _files(config).items():
        loaded = yield from certified_key(certificate, key)
        if loaded is None:
            broken = True
            continue
        yield from _judge(loaded, names, machine.wall_time())
        yield from secret(key)
    if config.acme is not None:
        yield from _renewal(config, config.acme)
        yield from _self_signed(config)
    elif config.tls_certificate is None:
        yield Finding(
            "note",
            "[mta] tls_certificate",
            "none is given: the self-signed certificate protects against eavesdropping alone, and"
            " proves nothing to clients that verify",
            "name a certificate of an authority, before other hosts send mail",
        )
        yield from _self_signed(config)
    elif not broken:
        yield from _contexts(config)


def certified_key(certificate: str, key: str) -> Generator[Finding, None, CertifiedKey | None]:
    """Yield errors of both files; return the certificate with its key, None if there are any."""
    errors: dict[str, None] = {}  # one file for both has the same error twice
    for read, file in ((read_certificates, certificate), (read_key, key)):
        try:
            read(file)
        except CertificateError as error:
            errors[str(error)] = None
    loaded = None
    if not errors:
        try:
            loaded = CertifiedKey.read(certificate, key)
        except CertificateError as error:
            errors[str(error)] = None
    for text in errors:
        yield Finding.from_error("error", text)
    return loaded


def _files(config: Config) -> dict[tuple[str, str], list[str]]:
    """Return the names of each pair of certificate and key."""
    pairs: dict[tuple[str, str], list[str]] = {}
    if config.tls_certificate and config.tls_key:
        pairs[config.tls_certificate, config.tls_key] = [config.hostname]
    issued = certificate_file(config.state_dir)
    if config.acme is not None and os.path.exists(issued):
        pairs[issued, issued] = [config.hostname, *config.certificate_names]
    for listener in config.listeners:
        for named in listener.sni:
            pairs.setdefault((named.certificate, named.key), []).extend(named.names)
    return {files: list(dict.fromkeys(names)) for files, names in pairs.items()}


def _renewal(config: Config, acme: ACMESettings) -> Iterator[Finding]:
    """Yield how the renewal of the certificate stands, and what would keep it from starting."""
    from ...tls.acme.renewer import describe
    from ...tls.acme.store import read_status

    for file, read in (
        (acme.authorities, read_certificates),
        (acme.eab_key_file, _read_binding),
    ):
        if file is not None:
            try:
                read(file)
            except CertificateError as error:
                yield Finding.from_error("error", str(error))
    status, issued = read_status(config.state_dir), certificate_file(config.state_dir)
    current = None
    with suppress(CertificateError):
        current = CertifiedKey.read(issued, issued)
    if status.problem:
        names = names_of(config.certificate_names)
        text = describe(status, current, names, acme.directory)
        yield Finding("warning", "[acme]", text, "mend that, and run twisted-mta reload")
    elif current is None:
        yield Finding(
            "note",
            "[acme]",
            "there is no certificate yet; the self-signed one serves until the authority has issued"
            " one",
            "start the MTA",
        )
    port = Endpoint.parse(acme.endpoint).port
    if port not in (None, "80"):
        yield Finding(
            "note",
            "[acme] endpoint",
            f"authorities fetch the answers to challenges from port 80, and this is port {port}",
            "forward port 80 to it",
        )


def _read_binding(file: str) -> object:
    """Read the key of an account binding.

    Raises:
        CertificateError: it cannot be used.
    """
    from ...tls.acme.jws import from_base64url
    from ...tls.acme.store import read_binding_key

    try:
        return from_base64url(read_binding_key(file))
    except ValueError:
        raise CertificateError(
            f"{printable(file)}: found no base64url; expected the key alone"
        ) from None


def _authorities(config: Config) -> Generator[Finding, None, int]:
    """Yield errors of files of authorities; return their number."""
    broken = 0
    files = (listener.client_certificate_authorities for listener in config.listeners)
    for authorities in dict.fromkeys(files):
        if authorities is not None:
            try:
                read_certificates(authorities)
            except CertificateError as error:
                broken += 1
                yield Finding.from_error("error", str(error))
    return broken


def _self_signed(config: Config) -> Iterator[Finding]:
    """Yield why an existing self-signed certificate cannot be read."""
    path = os.path.join(config.state_dir, SELF_SIGNED)
    try:
        with open(path, "rb"):
            pass
    except FileNotFoundError:
        pass
    except OSError as error:
        yield Finding(
            "error",
            printable(path),
            unreadable(path, error),
            "give it to the user that runs the MTA, or remove it",
        )


def _contexts(config: Config) -> Iterator[Finding]:
    """Yield what OpenSSL refuses of files that could be read."""
    from ...tls.server import ServerContext, TLSSettings

    certificate, key = config.tls_certificate, config.tls_key
    assert certificate is not None and key is not None
    problems: dict[str, None] = {}
    for listener in config.listeners:
        if listener.tls == "none":
            continue
        try:
            ServerContext(
                TLSSettings(
                    certificate_file=certificate,
                    key_file=key,
                    ciphers=listener.ciphers,
                    client_certificates=listener.client_certificates,
                    authorities_file=listener.client_certificate_authorities,
                    sni=listener.sni,
                )
            ).reload()
        except CertificateError as error:
            problems[str(error)] = None
    for text in problems:
        yield Finding.from_error("error", text)


def _judge(loaded: CertifiedKey, names: Sequence[str], now: float) -> Iterator[Finding]:
    where, leaf = printable(loaded.certificate_file), loaded.certificate
    for warning in loaded.warnings(now):
        yield Finding.from_error("warning", warning, where)
    missing = [name for name in names if not covers(leaf, name)]
    if missing:
        yield Finding(
            "warning",
            where,
            f"the certificate is not for {printable(', '.join(missing))}, but for"
            f" {printable(', '.join(_shown_names(leaf)) or 'no host')}: clients that verify do not"
            " send",
            "get one for that name too",
        )
    yield from _kind(where, leaf)
    yield from _chain(where, loaded.chain, now)


def covers(certificate: x509.Certificate, name: str) -> bool:
    """Whether a certificate is for a host: a domain, or an address literal (RFC 9525 §6.3)."""
    domains, addresses = _names(certificate)
    try:
        canonical = domain_name(name.removeprefix("*."))
    except AddressError:
        return False
    literal = literal_address(canonical)
    if literal is not None:
        return str(ip_address(literal)) in addresses
    wanted = f"*.{canonical}" if name.startswith("*.") else canonical
    # An asterisk stands for one whole label, the leftmost.
    _, _, parent = canonical.partition(".")
    return wanted in domains or (not name.startswith("*.") and f"*.{parent}" in domains)


def _names(certificate: x509.Certificate) -> tuple[list[str], list[str]]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return [], []  # the common name no longer counts
    domains = [each.lower().removesuffix(".") for each in names.get_values_for_type(x509.DNSName)]
    return domains, [str(each) for each in names.get_values_for_type(x509.IPAddress)]


def _shown_names(certificate: x509.Certificate) -> Iterable[str]:
    domains, addresses = _names(certificate)
    return (*domains, *addresses)


def _kind(where: str, leaf: x509.Certificate) -> Iterator[Finding]:
    """Yield why clients may refuse a certificate, apart from names and dates."""
    try:
        key = leaf.public_key()
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _LEAST_RSA:
        yield Finding(
            "warning",
            where,
            f"an RSA key of {key.key_size} bits, which many clients refuse",
            f"expected {_LEAST_RSA} bits, or ECDSA P-256",
        )
    elif not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        yield Finding(
            "warning",
            where,
            "a key of a kind that few mail programs support",
            "expected ECDSA P-256 or RSA 2048",
        )
    if isinstance(leaf.signature_hash_algorithm, SHA1 | MD5):
        yield Finding(
            "warning",
            where,
            f"signed with {leaf.signature_hash_algorithm.name}, which clients do not trust",
            _RENEW,
        )
    try:
        uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (x509.ExtensionNotFound, ValueError):
        return
    if not any(
        use in uses
        for use in (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE)
    ):
        yield Finding(
            "warning", where, "not for servers", "expected the extended key usage serverAuth"
        )


def _chain(where: str, chain: Sequence[x509.Certificate], now: float) -> Iterator[Finding]:
    moment = datetime.fromtimestamp(now, UTC)
    for number, (below, above) in enumerate(pairwise(chain), 1):
        if not _signed(below, above):
            # RFC 8446 §4.4.2: each certifies the one that precedes it.
            yield Finding(
                "warning",
                where,
                f"certificate {number} is not signed by certificate {number + 1} of the file",
                "expected our certificate first, each further one the issuer of the one before",
            )
            return
        if above.not_valid_after_utc < moment:
            yield Finding(
                "warning",
                where,
                f"certificate {number + 1} of the file, of an authority, expired on"
                f" {above.not_valid_after_utc:%Y-%m-%d}",
                "replace it by its successor",
            )
    if len(chain) == 1 and chain[0].issuer == chain[0].subject:
        yield Finding(
            "warning",
            where,
            "self-signed: clients that verify refuse it",
            "use one of an authority",
        )
    elif len(chain) == 1:
        yield Finding(
            "warning",
            where,
            "without intermediate certificates: unless a root has signed it, clients cannot verify"
            " it",
            "append the certificates of its issuers (the full chain)",
        )


def _signed(below: x509.Certificate, above: x509.Certificate) -> bool:
    try:
        below.verify_directly_issued_by(above)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def secret(file: str) -> Iterator[Finding]:
    """Yield a warning if all users can read a key."""
    mode = os.stat(file).st_mode
    if mode & 0o007:
        yield Finding(
            "warning",
            printable(file),
            f"all users can read the key (mode {mode & 0o777:04o})",
            "chmod 0600",
        )
