"""Settings about certificates and ciphers: which a listener shows, and which may relay."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
from attrs import frozen

from ..mail.printable import printable
from ..mail.tls_facts import TLSFacts
from . import readers as read
from .setting import about, mistyped, quoted, settings


def _name(value: Any) -> str:
    written: str = read.text("a domain such as mail.example.net or *.example.net")(value)
    wildcard = written.startswith("*.")
    name = read.domain(written[2:] if wildcard else written)
    if name.startswith("["):  # RFC 6066 §3: literal addresses are not permitted
        raise ValueError("SNI has no address literals; expected a domain such as mail.example.net")
    return f"*.{name}" if wildcard else name


def _names(value: Iterable[str]) -> tuple[str, ...]:
    names: tuple[str, ...] = read.several(_name, "domains")(value)
    if not names:
        raise ValueError('expected at least one domain, such as ["mail.example.net"]')
    return names


@frozen(kw_only=True, field_transformer=settings)
class SNICertificate:
    """A certificate for the server names in clients' handshakes; ``[[listener.sni]]``.

    Raises:
        ConfigError: a value is refused.
    """

    names: tuple[str, ...] = attrs.field(
        converter=_names,
        metadata=about(
            "domains that clients ask for; *.example.net covers one label below example.net"
        ),
    )
    certificate: str = attrs.field(
        converter=read.file,
        metadata=about("PEM file with the certificate and its chain"),
    )
    key: str = attrs.field(
        default=attrs.Factory(lambda self: self.certificate, takes_self=True),
        converter=read.file,
        metadata=about("PEM file with the private key", default_text="the file of the certificate"),
    )


_SNI_TABLES = "tables, each under a line [[listener.sni]]"


def sni(value: Iterable[SNICertificate | Mapping[str, Any]]) -> tuple[SNICertificate, ...]:
    """Read a list of tables with certificates; no name may have two."""
    if isinstance(value, str | Mapping):
        raise mistyped(value, _SNI_TABLES)
    certificates: tuple[SNICertificate, ...] = read.several(
        read.table(SNICertificate), _SNI_TABLES
    )(value)
    names: set[str] = set()
    for certificate in certificates:
        for name in certificate.names:
            if name in names:
                raise ValueError(f"{quoted(name)} has two certificates; expected one")
            names.add(name)
    return certificates


@frozen
class RelayCertificate:
    """A client certificate that grants relaying; an entry of ``relay_certificates``.

    Attributes:
        fingerprint: SHA-256 of its DER form, in lower-case hex; no signature is needed.
        issuer: with ``subject``, as `TLSFacts` shows them; both count only if the certificate is
            verified.
        subject: see ``issuer``.
    """

    fingerprint: str | None = None
    issuer: str | None = None
    subject: str | None = None

    def covers(self, facts: TLSFacts) -> bool:
        """Whether this certificate was shown in a handshake."""
        if self.fingerprint is not None:
            # The client has proved that it holds the key (RFC 8446 §4.4.3), and the operator has
            # named this certificate: an authority's signature adds nothing.
            return facts.peer_fingerprint == self.fingerprint
        return (
            self.subject is not None
            and facts.peer_verified
            and (facts.peer_issuer, facts.peer_subject) == (self.issuer, self.subject)
        )

    def __str__(self) -> str:
        return self.fingerprint or f"issuer {self.issuer}, subject {self.subject}"


_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_RELAY_CERTIFICATE = (
    'expected a SHA-256 fingerprint, or {issuer = "CN=...", subject = "CN=..."} as in the log'
)


def relay_certificate(value: Any) -> RelayCertificate:
    """Read a certificate that grants relaying, from a fingerprint or a table."""
    if isinstance(value, RelayCertificate):
        return value
    if isinstance(value, str):
        digits = value.strip().lower()
        if not _FINGERPRINT.fullmatch(digits.replace(":", "")) or not _has_pairs(digits):
            raise ValueError(f"not a SHA-256 fingerprint of 64 hex digits; {_RELAY_CERTIFICATE}")
        return RelayCertificate(digits.replace(":", ""))
    if not isinstance(value, Mapping):
        raise mistyped(value, _RELAY_CERTIFICATE.removeprefix("expected "))
    if sorted(value) != ["issuer", "subject"]:
        raise ValueError(_RELAY_CERTIFICATE)
    return RelayCertificate(
        None, *(_distinguished_name(key, value[key]) for key in ("issuer", "subject"))
    )


def relay_certificates(
    value: Iterable[RelayCertificate | str | Mapping[str, str]],
) -> tuple[RelayCertificate, ...]:
    """Read certificates that grant relaying."""
    kind = "fingerprints, or tables with issuer and subject"
    return read.several(relay_certificate, kind)(value)  # type: ignore[no-any-return]


def _has_pairs(digits: str) -> bool:
    """Whether colons, if there are any, separate pairs of digits."""
    return ":" not in digits or all(len(pair) == 2 for pair in digits.split(":"))


def _distinguished_name(key: str, value: Any) -> str:
    problem = (
        f"{key}: not a distinguished name (RFC 4514); expected one such as"
        ' "CN=mail.example.net,O=Example"'
    )
    if not isinstance(value, str) or not value:
        raise ValueError(problem)
    from cryptography import x509

    try:
        return printable(x509.Name.from_rfc4514_string(value).rfc4514_string())
    except ValueError:
        raise ValueError(problem) from None


def ciphers(value: Any) -> str:
    """Read a cipher list of OpenSSL that names at least one suite."""
    from OpenSSL import SSL

    written: str = read.text("a cipher list of OpenSSL such as ECDHE+AESGCM")(value)
    try:
        SSL.Context(SSL.TLS_SERVER_METHOD).set_cipher_list(written.encode("ascii"))
    except (SSL.Error, UnicodeEncodeError):
        raise ValueError(
            "OpenSSL finds no suite of TLS 1.2 in it; expected a list such as ECDHE+AESGCM"
        ) from None
    return written
