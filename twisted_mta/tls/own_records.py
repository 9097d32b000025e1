"""What to publish about the TLS of our own domains: records of DANE, MTA-STS and TLS-RPT."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ..config import Config, Listener
from ..config.endpoint import Endpoint
from ..mail.tlsa import TLSA
from .certificate_files import certificate_files
from .certificates import read_certificates
from .dane import END_ENTITY, PUBLIC_KEY, SHA256, public_key_info
from .mta_sts.own import own_domains, own_policy, record
from .self_signed import SELF_SIGNED

_SMTP = 25


@frozen
class Shown:
    """A certificate that a listener shows to other hosts that ask for our host name.

    Attributes:
        port: where other hosts connect.
        file: the path of the chain.
        chain: the certificate first, then those above it.
    """

    port: int
    file: str
    chain: tuple[x509.Certificate, ...]

    @property
    def tlsa(self) -> TLSA:
        """The record that fits it as long as its key stays: ``3 1 1`` (RFC 7672 §3.1)."""
        key = public_key_info(self.chain[0].public_bytes(Encoding.DER))
        return TLSA(END_ENTITY, PUBLIC_KEY, SHA256, hashlib.sha256(key).digest())


def shown_certificates(config: Config) -> Sequence[Shown]:
    """Return the certificates of all listeners for mail from other hosts. Blocks.

    Raises:
        CertificateError: a file cannot be read.
    """
    listeners = [each for each in config.listeners if each.kind == "smtp" and each.tls != "none"]
    # Other hosts connect to port 25 (RFC 5321 §4.5.4.2): where no listener has it, it is forwarded.
    forwarded = _SMTP not in map(_port, listeners)
    found: dict[tuple[int, str], Shown] = {}
    for listener in listeners:
        file = _certificate_file(config, listener)
        key = _SMTP if forwarded else _port(listener), file
        if key not in found:
            found[key] = Shown(*key, tuple(read_certificates(file)))
    return list(found.values())


def _certificate_file(config: Config, listener: Listener) -> str:
    name = config.hostname.lower()
    parent = f"*.{name.partition('.')[2]}"
    for wanted in (name, parent):
        for each in listener.sni:
            if wanted in each.names:
                return each.certificate
    return certificate_files(config, SELF_SIGNED)[0]


def _port(listener: Listener) -> int:
    """Return the port of a listener; 25 where the string does not say it."""
    endpoint = Endpoint.parse(listener.endpoint)
    port = endpoint.port or ""
    is_tcp = endpoint.kind in ("tcp", "tcp6", "ssl")
    return (int(port) or _SMTP) if is_tcp and port.isdecimal() else _SMTP


def tlsa_lines(config: Config, shown: Sequence[Shown]) -> Sequence[str]:
    """Return the TLSA records of our host as lines of a zone file."""
    lines = (f"_{each.port}._tcp.{config.hostname}. IN TLSA {each.tlsa.text}" for each in shown)
    return list(dict.fromkeys(lines))


def mta_sts_line(config: Config, domain: str) -> str:
    """Return the record that announces the MTA-STS policy of a domain."""
    return f'_mta-sts.{domain}. IN TXT "{record(own_policy(config))}"'


def tls_report_line(config: Config, domain: str) -> str:
    """Return the record that asks for reports on TLS with the exchangers of a domain."""
    return f'_smtp._tls.{domain}. IN TXT "v=TLSRPTv1; rua=mailto:{config.report_from}"'


def own_records(config: Config) -> dict[str, object]:
    """Return what to publish, in plain types. Blocks.

    Returns:
        The lines of a zone file (``records``), the MTA-STS ``policy``, and the ``urls`` where it
        has to be.

    Raises:
        CertificateError: a certificate cannot be read.
    """
    domains = own_domains(config)
    lines = [
        f"; the key of {config.hostname}; of use where its zone is signed (DNSSEC)",
        *tlsa_lines(config, shown_certificates(config)),
    ]
    for domain in domains:
        lines += [
            f"; {domain}",
            mta_sts_line(config, domain),
            f"mta-sts.{domain}. IN CNAME {config.hostname}.",
            tls_report_line(config, domain),
        ]
    return {
        "records": lines,
        "policy": own_policy(config).body.decode("ascii"),
        "urls": [f"https://mta-sts.{domain}/.well-known/mta-sts.txt" for domain in domains],
    }
