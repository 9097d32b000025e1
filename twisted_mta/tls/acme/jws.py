"""Signed requests of ACME: JSON Web Signatures by ES256, and account binding by HS256.

RFC 8555 §6.2 takes one form alone of RFC 7515: the flattened one, with a protected header.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

CONTENT_TYPE = "application/jose+json"
"""The media type of a signed request (RFC 8555 §6.2)."""

_COORDINATE = 32  # octets of a number of P-256 (RFC 7518 §3.4)
_BASE64URL = re.compile(r"[0-9A-Za-z_-]+=*")


def base64url(octets: bytes) -> str:
    """Return octets in base64url without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")


def from_base64url(text: str) -> bytes:
    """Return the octets of a text in base64url, or in base64, with or without padding.

    Raises:
        ValueError: it is neither.
    """
    text = text.strip().replace("+", "-").replace("/", "_")
    bare = text.rstrip("=")
    if not _BASE64URL.fullmatch(text) or len(bare) % 4 == 1:
        raise ValueError("not base64url")
    return base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))


class AccountKey:
    """The key of an account, which signs all requests: ECDSA P-256.

    Args:
        key: the private key.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        numbers = key.public_key().public_numbers()
        self.jwk: Mapping[str, str] = {
            "crv": "P-256",
            "kty": "EC",
            "x": base64url(numbers.x.to_bytes(_COORDINATE, "big")),
            "y": base64url(numbers.y.to_bytes(_COORDINATE, "big")),
        }

    @classmethod
    def new(cls) -> AccountKey:
        """Make a key."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_pem(cls, pem: str) -> AccountKey:
        """Read what `pem` returned.

        Raises:
            ValueError: it holds no key of P-256.
        """
        try:
            key = load_pem_private_key(pem.encode("ascii"), None)
        except Exception:  # ValueError, TypeError for a passphrase, UnsupportedAlgorithm
            raise ValueError("found no private key in PEM form") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
            raise ValueError("found a private key of another kind, expected ECDSA P-256")
        return cls(key)

    def pem(self) -> str:
        """Return the private key."""
        form = Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        return self._key.private_bytes(*form).decode("ascii")

    @property
    def thumbprint(self) -> str:
        """SHA-256 of the public key in its canonical form (RFC 7638 §3), in base64url."""
        canonical = json.dumps(self.jwk, sort_keys=True, separators=(",", ":"))
        return base64url(hashlib.sha256(canonical.encode("ascii")).digest())

    def key_authorization(self, token: str) -> str:
        """Return the answer to a challenge (RFC 8555 §8.1)."""
        return f"{token}.{self.thumbprint}"

    def sign(
        self, payload: Mapping[str, object] | None, *, url: str, nonce: str, account: str | None
    ) -> bytes:
        """Return a signed request.

        Args:
            payload: its content; None: a request that reads (POST-as-GET, RFC 8555 §6.3).
            url: where it goes.
            nonce: one that the server has given, and that was not used.
            account: the URL of the account; None: the public key itself, to make an account.
        """
        key: dict[str, object] = {"jwk": self.jwk} if account is None else {"kid": account}
        header = _json({"alg": "ES256", "nonce": nonce, "url": url, **key})
        content = "" if payload is None else _json(payload)
        r, s = decode_dss_signature(
            self._key.sign(f"{header}.{content}".encode("ascii"), ec.ECDSA(SHA256()))
        )
        signature = r.to_bytes(_COORDINATE, "big") + s.to_bytes(_COORDINATE, "big")
        return _flattened(header, content, signature)

    def bound(self, binding: Binding, url: str) -> object:
        """Return the proof that a customer of the authority agrees (RFC 8555 §7.3.4).

        Args:
            binding: of the customer.
            url: of newAccount.
        """
        header = _json({"alg": "HS256", "kid": binding.key_id, "url": url})
        content = _json(self.jwk)
        signature = hmac.digest(binding.key, f"{header}.{content}".encode("ascii"), "sha256")
        return json.loads(_flattened(header, content, signature))


class Binding:
    """A key that the authority has given to a customer, for external account binding.

    Args:
        key_id: its identifier.
        key: its octets; never shown.
    """

    def __init__(self, key_id: str, key: bytes) -> None:
        self.key_id = key_id
        self.key = key


def _json(value: Mapping[str, object]) -> str:
    return base64url(json.dumps(value, separators=(",", ":")).encode("ascii"))


def _flattened(header: str, payload: str, signature: bytes) -> bytes:
    return json.dumps(
        {"protected": header, "payload": payload, "signature": base64url(signature)}
    ).encode("ascii")
