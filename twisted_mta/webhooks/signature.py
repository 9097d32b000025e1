"""Signatures of requests, and the secrets that make them.

The scheme is that of Standard Webhooks: HMAC-SHA256 with a secret that both sides know, of the id,
the time and the body.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
from base64 import b64decode, b64encode
from collections.abc import Sequence

from ..auth.private_file import read_private
from ..config import ConfigError
from ..config.text_file import without_mark
from ..mail.printable import printable

PREFIX = "whsec_"
"""The beginning of a secret as people write it."""

LENGTH = 32
"""Octets of a new secret."""

_SHORTEST, _LONGEST = 24, 64  # octets of a secret, as Standard Webhooks has it
_MOST = 8  # secrets of one webhook
_EXPECTED = f"a line of {PREFIX} and the base64 of {_SHORTEST} to {_LONGEST} octets"


def written(secret: bytes) -> str:
    """Return a secret as people write it."""
    return PREFIX + b64encode(secret).decode("ascii")


def read_secrets(path: str) -> tuple[bytes, ...]:
    """Return the secrets in a file, in its order. Blocks.

    Empty lines, and those that begin with ``#``, are left out.

    Raises:
        ConfigError: it cannot be read, others can read it, or it has another content; the text
            repeats nothing of the content.
    """
    content = read_private(path, ConfigError, "twisted-mta webhooks secret")
    secrets = []
    for number, line in enumerate(without_mark(content).splitlines(), 1):
        line = line.strip()
        if line and not line.startswith(b"#"):
            try:
                secrets.append(_secret(line))
            except ValueError as error:
                raise ConfigError(
                    f"{printable(path)}: line {number}: {error}; expected {_EXPECTED}"
                ) from None
    if not secrets:
        raise ConfigError(f"{printable(path)}: found no secret; expected {_EXPECTED}")
    if len(secrets) > _MOST:
        raise ConfigError(
            f"{printable(path)}: found {len(secrets)} secrets; expected {_MOST} at most"
        )
    return tuple(secrets)


def _secret(line: bytes) -> bytes:
    if not line.startswith(PREFIX.encode("ascii")):
        raise ValueError(f"it does not begin with {PREFIX}")
    try:
        secret = b64decode(line.removeprefix(PREFIX.encode("ascii")), validate=True)
    except binascii.Error:
        raise ValueError("it is not base64") from None
    if not _SHORTEST <= len(secret) <= _LONGEST:
        raise ValueError(f"found {len(secret)} octets")
    return secret


def signature(secrets: Sequence[bytes], name: str, timestamp: int, body: bytes) -> str:
    """Return the ``webhook-signature`` field: one signature by each secret.

    Args:
        secrets: of the webhook.
        name: the ``webhook-id``.
        timestamp: the ``webhook-timestamp``, seconds since the epoch.
        body: the octets that are posted.
    """
    signed = f"{name}.{timestamp}.".encode("ascii") + body
    return " ".join(
        "v1," + b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode("ascii")
        for secret in secrets
    )
