"""SCRAM (RFC 5802): the keys that client and server derive from a password."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode
from binascii import Error as Base64Error

from attrs import field, frozen

from .exchange import SASLError

ITERATIONS_MINIMUM = 4_096
"""RFC 7677 §4 asks servers for as many; fewer make it cheap for an impostor to guess passwords."""

ITERATIONS_MAXIMUM = 600_000
"""The largest number that is recommended anywhere at present; 100,000 take 20 ms."""


@frozen
class ScramKeys:
    """The keys that are derived from a password (RFC 5802 §3); a server stores the last two."""

    client: bytes = field(repr=False)
    stored: bytes = field(repr=False)
    server: bytes = field(repr=False)


def scram_keys(algorithm: str, password: str, salt: bytes, iterations: int) -> ScramKeys:
    """Derive the keys from a password (RFC 5802 §3); blocks for about 0.2 µs per iteration.

    Args:
        algorithm: as `hashlib` names it: ``sha256``.
        password: after `saslprep.prepared`.
        salt: the server's, for this user.
        iterations: of PBKDF2.
    """
    salted = hashlib.pbkdf2_hmac(algorithm, password.encode(), salt, iterations)
    client = hmac.digest(salted, b"Client Key", algorithm)
    return ScramKeys(
        client,
        hashlib.new(algorithm, client).digest(),
        hmac.digest(salted, b"Server Key", algorithm),
    )


def from_base64(octets: bytes) -> bytes:
    """Return what an attribute of a message has in base64.

    Raises:
        SASLError: it is not base64.
    """
    try:
        return b64decode(octets, validate=True)
    except Base64Error:
        raise SASLError("not base64") from None
