"""Webhooks: their secrets, and the authorities of their certificates."""

from __future__ import annotations

from collections.abc import Iterator

from ...config import Config, ConfigError
from ...config.webhook import webhook_name
from ...mail.printable import printable
from ...tls.certificates import CertificateError, read_certificates
from ...webhooks.signature import read_secrets
from .finding import Finding


def webhooks(config: Config) -> Iterator[Finding]:
    """Yield findings about the files of ``[[webhook]]`` tables; no URL is asked."""
    for table in config.webhooks:
        where = f"[[webhook]] {printable(webhook_name(table.url))}"
        try:
            read_secrets(table.secret_file)
        except ConfigError as error:
            yield Finding.from_error("error", f"{where}: {error}", where)
        if table.authorities is not None:
            try:
                read_certificates(table.authorities)
            except CertificateError as error:
                yield Finding.from_error("error", f"{where}: {error}", where)
