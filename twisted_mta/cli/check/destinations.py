"""Files for deliveries: passwords, client certificates, authorities."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from attrs import evolve
from OpenSSL import SSL

from ...config import Config, ConfigError
from ...delivery.terms import load_terms
from ...mail.printable import printable
from ...system.work import finished
from ...tls.certificates import CertificateError, read_certificates
from ...tls.client import ClientContexts
from .certificates import certified_key, secret
from .finding import Finding
from .machine import Machine


def destinations(config: Config, machine: Machine) -> Iterator[Finding]:
    """Yield findings about the files that deliveries read."""
    contexts = ClientContexts()
    for destination in config.all_destinations:
        # Each kind of file alone: an error in one says nothing of the others.
        without = evolve(destination, client_certificate=None, client_key=None)
        for part in (
            evolve(without, authorities=None),
            without.without_account(),
        ):
            try:
                prepared = finished(load_terms(contexts, [part]))
            except (CertificateError, ConfigError) as error:
                yield Finding.from_error("error", str(error))
            else:
                for warning in prepared.warnings:
                    yield Finding.from_error("warning", warning)
        command = destination.token_command
        if command is not None and shutil.which(command[0]) is None:
            yield Finding(
                "error",
                f"[[destination]] {printable(destination.name)}, token_command",
                f"{printable(command[0])} cannot be run",
                "expected the path of a program, and its arguments",
            )
    if config.mta_sts.authorities is not None:
        try:
            read_certificates(config.mta_sts.authorities)
        except CertificateError as error:
            yield Finding.from_error("error", str(error))
    pairs = ((each.client_certificate, each.client_key) for each in config.destinations)
    for certificate, key in dict.fromkeys(pairs):
        if certificate is None or key is None:
            continue
        loaded = yield from certified_key(certificate, key)
        if loaded is None:
            continue
        try:
            loaded.load_into(SSL.Context(SSL.TLS_METHOD))
        except CertificateError as error:
            yield Finding.from_error("error", str(error))
        for warning in loaded.warnings(machine.wall_time()):
            yield Finding.from_error("warning", warning, printable(certificate))
        yield from secret(key)
