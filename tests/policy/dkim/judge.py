"""dkimpy, an implementation by others, as a judge of signatures."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from twisted_mta.policy.dkim.signing_keys import SigningKey


def verdicts(message: bytes, records: dict[str, bytes], *, at: float | None = None) -> list[bool]:
    """Return what dkimpy says of each signature of a message, from the top.

    Args:
        message: header and body.
        records: the texts of the key records by domain name.
        at: wall time, since it refuses signatures of the future; None: now.
    """
    import dkim

    def look_up(name: bytes, timeout: int = 5) -> bytes | None:
        return records.get(name.decode("ascii").removesuffix("."))

    count = dkim.DKIM(message).headers
    signatures = sum(name.lower() == b"dkim-signature" for name, _ in count)
    clock = SimpleNamespace(time=lambda: at) if at is not None else dkim.time
    with patch.object(dkim, "time", clock):
        return [
            _quietly(dkim.DKIM(message).verify, idx=number, dnsfunc=look_up)
            for number in range(signatures)
        ]


def signature(
    message: bytes,
    key: SigningKey,
    *,
    canonicalization: tuple[bytes, bytes] = (b"relaxed", b"relaxed"),
    include: Sequence[bytes] | None = None,
    length: bool = False,
    identity: bytes | None = None,
) -> bytes:
    """Return the DKIM-Signature field that dkimpy makes for a message."""
    import dkim
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    if key.algorithm == "rsa":
        pem = key.private.private_bytes(
            Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
        )
    else:
        import base64

        pem = base64.b64encode(
            key.private.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        )
    made: bytes = dkim.DKIM(message).sign(
        key.selector.encode("ascii"),
        key.domain.encode("ascii"),
        pem,
        signature_algorithm=f"{key.algorithm}-sha256".encode("ascii"),
        canonicalize=canonicalization,
        include_headers=include,
        length=length,
        identity=identity,
    )
    return made


def _quietly(verify: Any, **arguments: Any) -> bool:
    import dkim

    try:
        return bool(verify(**arguments))
    except dkim.DKIMException:
        return False
