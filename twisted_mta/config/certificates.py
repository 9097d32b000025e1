"""Settings that speak of certificates and ciphers: which are shown, which may relay."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import attrs
from attrs import frozen
from cryptography import x509
from OpenSSL import SSL

from ..mail.printable import printable
from ..mail.tls_facts import TLSFacts
from . import setting as read
from .setting import quoted, setting

_FILE = read.path("file")


def _name(value: Any) -> str:
    written: str = read.text("a domain such as mail.example.net or *.example.net")(value)
    wildcard = written.startswith("*.")
    name = read.domain(written[2:] if wildcard else written)
    if name.startswith("["):  # RFC 6066 §3: literal addresses are not permitted
        raise ValueError("clients ask for no address literal; a domain would do")
    return f"*.{name}" if wildcard else name


def _names(value: Any) -> tuple[str, ...]:
    names: tuple[str, ...] = read.several(_name, "domains")(value)
    if not names:
        raise ValueError('at least one, such as ["mail.example.net"], would do')
    return names


@frozen(kw_only=True)
class SNICertificate:
    """A certificate for some names; ``[[listener.sni]]``.

    Raises:
        ConfigError: a value cannot be.
    """

    names: tuple[str, ...] = setting(
        _names, "domains that clients ask for; *.example.net is for one label below it"
    )
    certificate: str = setting(_FILE, "PEM file with the certificate and its chain")
    key: str = setting(
        _FILE,
        "PEM file with its private key",
        default=attrs.Factory(lambda self: self.certificate, takes_self=True),
        said="the file of the certificate",
    )


def sni(value: Any) -> tuple[SNICertificate, ...]:
    """Return certificates by name, of a list of tables; no name has two."""
    if isinstance(value, str | Mapping):
        raise ValueError("tables, each under a line [[listener.sni]], would do")
    certificates: tuple[SNICertificate, ...] = read.several(
        read.table(SNICertificate), "tables, each under a line [[listener.sni]],"
    )(value)
    seen: dict[str, SNICertificate] = {}
    for certificate in certificates:
        for name in certificate.names:
            if name in seen:
                raise ValueError(f"{quoted(name)} has two certificates; one would do")
            seen[name] = certificate
    return certificates


@frozen
class RelayCertificate:
    """A client certificate whose owner may send through us; an entry of ``relay_certificates``.

    Attributes:
        fingerprint: SHA-256 of its DER form, in lower-case hex; counts whoever signed it.
        issuer: with ``subject``, as `TLSFacts` shows it; the two count only if it verified.
        subject: see ``issuer``.
    """

    fingerprint: str | None = None
    issuer: str | None = None
    subject: str | None = None

    def covers(self, facts: TLSFacts) -> bool:
        """Whether this is the certificate that was shown in a handshake."""
        if self.fingerprint is not None:
            # Who showed it has the key (RFC 8446 §4.4.3), and was named by the operator: there is
            # nobody whose signature could add to that.
            return facts.peer_fingerprint == self.fingerprint
        return (
            self.subject is not None
            and facts.peer_verified
            and (facts.peer_issuer, facts.peer_subject) == (self.issuer, self.subject)
        )

    def __str__(self) -> str:
        return self.fingerprint or f"issuer {self.issuer}, subject {self.subject}"


_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_RELAY_EXAMPLE = (
    'a SHA-256 fingerprint, or {issuer = "CN=…", subject = "CN=…"}, as the log shows them, would do'
).replace("…", "...")


def relay_certificate(value: Any) -> RelayCertificate:
    """Return a certificate that may relay, of a fingerprint or of a table."""
    if isinstance(value, RelayCertificate):
        return value
    if isinstance(value, str):
        digits = value.strip().lower()
        if not _FINGERPRINT.fullmatch(digits.replace(":", "")) or not _colons_are_even(digits):
            raise ValueError(f"no SHA-256 fingerprint, which has 64 hex digits; {_RELAY_EXAMPLE}")
        return RelayCertificate(digits.replace(":", ""))
    if not isinstance(value, Mapping) or sorted(value) != ["issuer", "subject"]:
        raise ValueError(_RELAY_EXAMPLE)
    return RelayCertificate(
        None, *(_distinguished_name(key, value[key]) for key in ("issuer", "subject"))
    )


def _colons_are_even(digits: str) -> bool:
    return ":" not in digits or all(len(pair) == 2 for pair in digits.split(":"))


def _distinguished_name(key: str, value: Any) -> str:
    problem = f'{key}: not a name as RFC 4514 writes it; "CN=mail.example.net,O=Example" would do'
    if not isinstance(value, str) or not value:
        raise ValueError(problem)
    try:
        return printable(x509.Name.from_rfc4514_string(value).rfc4514_string())
    except ValueError:
        raise ValueError(problem) from None


def ciphers(value: Any) -> str:
    """Return a cipher list that OpenSSL understands."""
    written: str = read.text("a cipher list of OpenSSL such as ECDHE+AESGCM")(value)
    try:
        SSL.Context(SSL.TLS_SERVER_METHOD).set_cipher_list(written.encode("ascii"))
    except (SSL.Error, UnicodeEncodeError):
        raise ValueError("OpenSSL knows no suite of TLS 1.2 by it; ECDHE+AESGCM would do") from None
    return written
