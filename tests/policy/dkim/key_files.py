"""Files of private keys for tests."""

from __future__ import annotations

import os
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)


@lru_cache
def private_key(kind: str, number: int = 0) -> PrivateKeyTypes:
    """Return a key: always the same for the same arguments within a run.

    Args:
        kind: ``ed25519``, ``p256``, or the bits of an RSA key such as ``rsa-2048``.
        number: tells keys of one kind apart.
    """
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "p256":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(65537, int(kind.removeprefix("rsa-")))


def rsa_key(first: int, second: int) -> rsa.RSAPrivateKey:
    """Return the RSA key of two Mersenne primes, whose exponents are given.

    Making a key of primes that are not known takes seconds for a long one, and is refused for a
    short one.
    """
    p, q, e = 2**first - 1, 2**second - 1, 65537
    d = pow(e, -1, (p - 1) * (q - 1))
    return rsa.RSAPrivateNumbers(
        *(p, q, d, rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q)),
        rsa.RSAPublicNumbers(e, p * q),
    ).private_key(unsafe_skip_rsa_key_validation=True)


def pem(key: PrivateKeyTypes, passphrase: bytes = b"") -> bytes:
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def write_key(path: str, kind: str = "ed25519", number: int = 0, *, mode: int = 0o600) -> str:
    """Write a key; return the path."""
    with open(path, "wb") as file:
        file.write(pem(private_key(kind, number)))
    os.chmod(path, mode)
    return path
