"""Key records: the public keys of signers, as they stand in the DNS (RFC 6376 §3.6.1)."""

from __future__ import annotations

import binascii
from typing import Literal

from attrs import frozen
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
)

from ...tls.public_keys import read_public_key
from .tags import TagError, names, parse_tags, without_white_space

KeyType = Literal["rsa", "ed25519"]
PublicKey = RSAPublicKey | Ed25519PublicKey

LEAST_BITS = 1024
"""The shortest RSA key that is accepted (RFC 8301 §3.2)."""

_PADDING, _HASH = PKCS1v15(), Prehashed(SHA256())
_MOST_BITS = 8192  # RFC 8301 §3.2 demands 4096; the time of a verification grows with the square
_MOST_EXPONENT_BITS = 64  # nearly all keys have 65537; a long one takes as long as signing


class KeyRecordError(ValueError):
    """A key record with which no signature can be verified."""


@frozen
class KeyRecord:
    """A key record.

    Attributes:
        key: the public key.
        type: its type.
        testing: whether the domain is testing DKIM (``t=y``).
        strict: whether the identity (``i=``) has to be of the domain itself, not below it
            (``t=s``).
    """

    key: PublicKey
    type: KeyType
    testing: bool = False
    strict: bool = False

    @classmethod
    def parse(cls, text: bytes) -> KeyRecord:
        """Read the text of a TXT record.

        Raises:
            KeyRecordError: it is no key record, is for another service or other hashes, has a key
                that was revoked or is too short, or cannot be read.
        """
        try:
            tags = parse_tags(text)
        except TagError as error:
            raise KeyRecordError(str(error)) from None
        # "This tag MUST be the first tag in the record."
        if "v" in tags and (tags["v"] != "DKIM1" or next(iter(tags)) != "v"):
            raise KeyRecordError(f"found v={tags['v'][:40]!a}, expected v=DKIM1 at the beginning")
        type = tags.get("k", "rsa")
        if "h" in tags and "sha256" not in names(tags["h"]):
            raise KeyRecordError(f"found h={tags['h'][:40]!a}, expected sha256 among the hashes")
        services = names(tags.get("s", "*"))
        if "*" not in services and "email" not in services:
            raise KeyRecordError(f"found s={tags['s'][:40]!a}, expected the service email")
        if "p" not in tags:
            raise KeyRecordError("found no p=, expected a public key")
        try:
            der = binascii.a2b_base64(without_white_space(tags["p"]), strict_mode=True)
        except ValueError:
            raise KeyRecordError("found a p= that is not base64, expected a public key") from None
        if not der:
            raise KeyRecordError("found an empty p=: the key was revoked")
        flags = names(tags.get("t", ""))
        testing, strict = "y" in flags, "s" in flags
        if type == "rsa":
            return cls(_rsa_key(der), "rsa", testing, strict)
        if type == "ed25519":
            return cls(_ed25519_key(der), "ed25519", testing, strict)
        raise KeyRecordError(f"found k={type[:40]!a}, expected rsa or ed25519")

    @property
    def bits(self) -> int:
        """The length of the key in bits."""
        return self.key.key_size if isinstance(self.key, RSAPublicKey) else 256

    def verifies(self, signature: bytes, digest: bytes) -> bool:
        """Whether ``signature`` was made with the private key.

        Args:
            signature: the decoded ``b=``.
            digest: the SHA-256 hash of what was signed.
        """
        try:
            if isinstance(self.key, RSAPublicKey):
                self.key.verify(signature, digest, _PADDING, _HASH)
            else:
                self.key.verify(signature, digest)  # RFC 8463 §3
        except InvalidSignature:
            return False
        return True


def _rsa_key(der: bytes) -> RSAPublicKey:
    # RFC 6376 §3.6.1 speaks of RSAPublicKey, and shows a SubjectPublicKeyInfo; both are read.
    try:
        key = read_public_key(der)
    except (ValueError, UnsupportedAlgorithm):
        raise KeyRecordError("found a p= that cannot be read, expected an RSA key") from None
    if not isinstance(key, RSAPublicKey):
        raise KeyRecordError("found a key of another type in p=, expected an RSA key")
    if not LEAST_BITS <= key.key_size <= _MOST_BITS:
        raise KeyRecordError(
            f"found {key.key_size} bits, expected {LEAST_BITS} to {_MOST_BITS}"  # RFC 8301 §3.2
        )
    if key.public_numbers().e.bit_length() > _MOST_EXPONENT_BITS:
        raise KeyRecordError(
            f"found an exponent of more than {_MOST_EXPONENT_BITS} bits, expected a shorter one"
        )
    return key


def _ed25519_key(raw: bytes) -> Ed25519PublicKey:
    # RFC 8463 §4: 32 octets as they are, without a structure around them.
    try:
        return Ed25519PublicKey.from_public_bytes(raw)
    except ValueError:
        raise KeyRecordError(f"found {len(raw)} octets in p=, expected 32") from None


def record_text(key: PublicKey) -> str:
    """Return the text of the key record for a public key."""
    if isinstance(key, RSAPublicKey):
        type, octets = (
            "rsa",
            key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        )
    else:
        type, octets = "ed25519", key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return f"v=DKIM1; k={type}; p={binascii.b2a_base64(octets, newline=False).decode('ascii')}"
