"""Public keys that strangers publish: read without checks that take seconds."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_public_key

# The object identifiers of dhKeyAgreement (PKCS #3) and dhpublicnumber (X9.42), within the first
# octets of a SubjectPublicKeyInfo.
_DIFFIE_HELLMAN = (bytes.fromhex("06092a864886f70d010301"), bytes.fromhex("06072a8648ce3e0201"))
_HEAD = 32


def read_public_key(der: bytes) -> PublicKeyTypes:
    """Return the key of a SubjectPublicKeyInfo in DER form (RFC 5280 §4.1), or of an RSAPublicKey.

    Keys for Diffie-Hellman sign nothing, and `cryptography` proves that their numbers are prime:
    with 4,096 bits that takes four seconds.

    Raises:
        ValueError: it is no key, or one for Diffie-Hellman.
        UnsupportedAlgorithm: OpenSSL does not know the kind of key.
    """
    if any(each in der[:_HEAD] for each in _DIFFIE_HELLMAN):
        raise ValueError("found a key for Diffie-Hellman, expected one that signs")
    return load_der_public_key(der)
