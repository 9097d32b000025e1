"""Evidence: the claims and proofs of a client, for the keeper of the accounts to judge."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from attrs import define, field, frozen

from ...mail.tls_facts import TLSFacts
from .exchange import SASLError
from .saslprep import prepared
from .scram import scram_keys


@frozen
class Password:
    """A user name with its password; never logged.

    Attributes:
        username: after `saslprep.prepared`.
        password: likewise.
        authzid: the authorization identity (RFC 4422 §2), if it differs from the user name; empty
            otherwise.
    """

    username: str
    password: str = field(repr=False)
    authzid: str = ""


@frozen
class CramProof:
    """The response of CRAM-MD5: the challenge, keyed with the password (RFC 2195)."""

    username: str
    challenge: bytes
    digest: bytes = field(repr=False)

    def check_password(self, password: bytes) -> bool:
        """Return whether the response was made with ``password``."""
        made = hmac.new(password, self.challenge, "md5").hexdigest().encode()
        return hmac.compare_digest(made, self.digest.lower())


@frozen
class ScramSalt:
    """The salt that a client needs for its proof; an unknown name always has the same one."""

    salt: bytes
    iterations: int


@frozen
class ScramLookup:
    """No evidence yet, but a request for the salt of a user name."""

    username: str
    algorithm: str


@define
class ScramProof:
    """The proof of SCRAM (RFC 5802 §3), with the means to check it.

    Attributes:
        username: after `saslprep.prepared`.
        algorithm: as `hashlib` names it.
        salt: the salt that was sent to the client.
        authzid: as in `Password`.
    """

    username: str
    algorithm: str
    salt: ScramSalt
    _message: bytes = field(repr=False, alias="message")
    _proof: bytes = field(repr=False, alias="proof")
    authzid: str = ""
    _server_key: bytes | None = field(default=None, repr=False, init=False)

    def check(self, stored_key: bytes, server_key: bytes) -> bool:
        """Return whether the proof was made with the password that these keys were derived from."""
        mask = hmac.digest(stored_key, self._message, self.algorithm)
        if len(self._proof) != len(mask):
            return False
        key = bytes(one ^ other for one, other in zip(self._proof, mask, strict=True))
        if not hmac.compare_digest(hashlib.new(self.algorithm, key).digest(), stored_key):
            return False
        self._server_key = server_key
        return True

    def check_password(self, password: bytes) -> bool:
        """Return whether the proof was made with ``password``; blocks for 0.2 µs per iteration."""
        try:
            text = prepared(password.decode())
        except (UnicodeDecodeError, SASLError):
            return False
        keys = scram_keys(self.algorithm, text, self.salt.salt, self.salt.iterations)
        return self.check(keys.stored, keys.server)

    @property
    def signature(self) -> bytes:
        """The server's signature, which proves that we have the keys; after a successful check."""
        assert self._server_key is not None
        return hmac.digest(self._server_key, self._message, self.algorithm)


@frozen
class Certificate:
    """A client certificate that TLS has verified; ``username`` is empty where none was named."""

    username: str
    facts: TLSFacts


@frozen
class Token:
    """An OAuth 2.0 access token (RFC 6750); ``username`` may be empty with OAUTHBEARER."""

    username: str
    token: str = field(repr=False)


@frozen
class Foreign:
    """Credentials of `twisted.cred` that an application's challenger has gathered."""

    username: str
    credentials: Any = field(repr=False)


Evidence = Password | CramProof | ScramLookup | ScramProof | Certificate | Token | Foreign
"""What a mechanism returns for judgment."""
