"""Where our own certificate is: the files of the settings, of an authority, or self-signed."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..config import Config
from ..mail.printable import printable

CERTIFICATE = "certificate.pem"
"""The name of the certificate from the authority."""


def acme_directory(state_dir: str) -> str:
    """Return the path of the directory of all files of ACME."""
    return os.path.join(state_dir, "acme")


def certificate_file(state_dir: str) -> str:
    """Return the path of the certificate from the authority; it has the key, too."""
    return os.path.join(acme_directory(state_dir), CERTIFICATE)


def certificate_files(config: Config, self_signed: str) -> tuple[str, str]:
    """Return the paths of our certificate and its key, for listeners without others. Blocks.

    They are those of the settings; those of the authority, once it has issued one; or the
    self-signed ones.

    Args:
        config: the settings.
        self_signed: the name of the self-signed certificate in the state directory.
    """
    if config.tls_certificate is not None:
        return config.tls_certificate, config.tls_key or config.tls_certificate
    issued = certificate_file(config.state_dir)
    if config.acme is not None and os.path.exists(issued):
        return issued, issued
    own = os.path.join(config.state_dir, self_signed)
    return own, own


def names_of(names: Sequence[str]) -> str:
    """Return the names of a certificate for a line, the first few of many."""
    shown = ", ".join(map(printable, names[:3]))
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
