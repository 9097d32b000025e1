"""Keys that mail is signed with: loading, and whether receivers accept them."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import chain

from ...config import Config
from ...config.endpoint import Endpoint
from ...mail.printable import printable
from ...tls.certificates import CertificateError
from .finding import Finding


def signing(config: Config) -> Iterator[Finding]:
    """Yield findings about the keys of ``[[dkim]]`` tables."""
    author = config.report_from.domain
    signs = (yield from _keys(config, author)) if config.dkim_keys else False
    for where, wanted, receivers in (
        ("[policy] dmarc_reports", config.policy.dmarc_reports, "receivers may refuse"),
        # RFC 8460 §3
        ("[tls_report]", config.tls_report is not None, "receivers ignore"),
    ):
        if wanted and not signs:
            yield Finding(
                "warning",
                where,
                f"no key signs for {printable(author)}, the domain of report_from: {receivers}"
                " reports that are not signed",
                f"make one by twisted-mta dkim new --domain {printable(author)}",
            )
    if not config.dkim_keys and not _is_local(config):
        yield Finding(
            "note",
            "[[dkim]]",
            "no key is given, so that mail is not signed, and large receivers refuse it or file it"
            " as spam",
            "make one by twisted-mta dkim new",
        )


def _keys(config: Config, author: str) -> Generator[Finding, None, bool]:
    """Yield findings about the files and kinds of keys; return whether one signs for a domain."""
    from ...policy.dkim.signing_keys import SigningKey, SigningKeys

    loaded: dict[str, list[SigningKey]] = {}
    for table in config.dkim_keys:
        try:
            key = SigningKey.read(table)
        except CertificateError as error:
            yield Finding.from_error("error", str(error))
            continue
        loaded.setdefault(table.domain, []).append(key)
        for warning in key.warnings:
            yield Finding.from_error("warning", warning)
    for domain, keys in loaded.items():
        if all(key.algorithm == "ed25519" for key in keys):
            # RFC 8463 §1: verifiers learn Ed25519 later than signers; RSA serves the others.
            yield Finding(
                "warning",
                f"[[dkim]] {printable(domain)}",
                "no key is RSA: to receivers that do not know Ed25519, its mail is not signed",
                "add one made by twisted-mta dkim new",
            )
    return bool(SigningKeys(chain(*loaded.values())).of(author))


def _is_local(config: Config) -> bool:
    """Whether no other machine can reach a listener."""
    return all(Endpoint.parse(each.endpoint).on_loopback for each in config.listeners)
