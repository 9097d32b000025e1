"""What deliveries need: accounts, certificates to show, authorities to believe."""

from __future__ import annotations

from collections.abc import Iterator

from ...config import Config, ConfigError
from ...delivery.terms import load_terms
from ...mail.printable import printable
from ...system.slices import finished
from ...tls.certificates import CertificateError, CertifiedKey
from ...tls.client import ClientContexts
from .certificates import secret
from .finding import Finding
from .machine import Machine


def destinations(config: Config, machine: Machine) -> Iterator[Finding]:
    """Yield what is wrong with the files that are read for deliveries."""
    contexts = ClientContexts()
    for destination in config.all_destinations:
        try:
            prepared = finished(load_terms(contexts, [destination]))
        except (CertificateError, ConfigError) as error:
            yield Finding.said("error", str(error))
        else:
            for warning in prepared.warnings:
                yield Finding.said("warning", warning)
    shown = ((each.client_certificate, each.client_key) for each in config.destinations)
    for certificate, key in dict.fromkeys(shown):
        if certificate is None or key is None:
            continue
        try:
            loaded = CertifiedKey.read(certificate, key)
        except CertificateError:
            continue  # said above
        for warning in loaded.warnings(machine.wall_time()):
            yield Finding.said("warning", warning, printable(certificate))
        yield from secret(key)
