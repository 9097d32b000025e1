"""SASL mechanisms (RFC 4422) of a client: challenges in, responses out, on octets.

Theory of operation. A mechanism is an object for one exchange. It returns the initial response,
then the response to each challenge, and in the end whether a success that the server announces may
be believed. How the octets travel (base64, one line each) is defined by the protocol around it: see
`client.auth` for SMTP.

Stronger mechanisms come first in `CLIENT_MECHANISMS`. In all of them the server learns the password
or can guess it by trials, so none of them makes TLS needless.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64encode
from collections.abc import Callable
from typing import Protocol

from attrs import field, frozen

from ...mail.printable import printable
from .exchange import Nonce, SASLError
from .saslprep import prepared
from .scram import ITERATIONS_MAXIMUM, ITERATIONS_MINIMUM, ScramKeys, from_base64, scram_keys

_AT_ONCE = 20_000  # iterations (4 ms) that may block the reactor; more of them are a `Derivation`


def _is_name(credentials: Credentials, attribute: object, value: str) -> None:
    if not value or "\0" in value:  # RFC 4616 §2: at least one character, and NUL ends it
        raise ValueError("a user name and a password have at least one character, and no NUL")


@frozen
class Credentials:
    """Our credentials at a server.

    Attributes:
        username: the authentication identity; an authorization identity is never sent.
        password: never logged.

    Raises:
        ValueError: one of them is empty or has a NUL inside.
    """

    username: str = field(validator=_is_name)
    password: str = field(repr=False, validator=_is_name)

    @property
    def secret(self) -> str:
        """What no log may show."""
        return self.password


def _is_token(credentials: TokenCredentials, attribute: object, value: str) -> None:
    if not _TOKEN.fullmatch(value):
        raise ValueError("a token has at least one character, and only letters, digits and -._~+/=")


# RFC 6750 §2.1: b64token.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


@frozen
class TokenCredentials:
    """Our credentials at a server that takes OAuth 2.0 access tokens (RFC 6750).

    Attributes:
        username: the account that the token is for.
        token: never logged.

    Raises:
        ValueError: the user name is empty or has a control character inside; the token is none.
    """

    username: str = field()
    token: str = field(repr=False, validator=_is_token)

    @username.validator
    def _is_user(self, attribute: object, value: str) -> None:
        if not value or not value.isprintable():  # control-A separates the fields
            raise ValueError("a user name has at least one character, and no control character")

    @property
    def secret(self) -> str:
        """What no log may show."""
        return self.token


@frozen
class Derivation:
    """A response that takes long to compute.

    Attributes:
        respond: returns it. Blocks for about 0.2 µs per iteration. It may be called in a thread, if
            the mechanism is not used meanwhile.
    """

    respond: Callable[[], bytes]


class ClientMechanism(Protocol):
    """The client of one exchange."""

    @property
    def complete(self) -> bool:
        """Whether the exchange is complete, and the server has proved itself where it has to."""
        ...

    def initial(self) -> bytes | None:
        """Return the initial response; None where the server speaks first."""
        ...

    def respond(self, challenge: bytes) -> bytes | Derivation:
        """Return the response to a challenge.

        Raises:
            SASLError: the challenge is malformed, or the server has not proved itself.
        """
        ...


class PlainClient:
    """PLAIN (RFC 4616): user name and password in one message."""

    def __init__(self, credentials: Credentials) -> None:
        self._message = f"\0{credentials.username}\0{credentials.password}".encode()
        self.complete = True

    def initial(self) -> bytes:
        """Return the one message of the exchange (RFC 4616 §2)."""
        return self._message

    def respond(self, challenge: bytes) -> bytes:
        """Fail: PLAIN has no challenge."""
        raise SASLError("PLAIN has no challenge")


class LoginClient:
    """LOGIN, which no standard defines: two challenges of any text, two responses."""

    def __init__(self, credentials: Credentials) -> None:
        self._answers = [credentials.username.encode(), credentials.password.encode()]

    @property
    def complete(self) -> bool:
        """Whether both challenges were answered."""
        return not self._answers

    def initial(self) -> None:
        """Return None: the server speaks first."""
        return

    def respond(self, challenge: bytes) -> bytes:
        """Return the user name, then the password."""
        if not self._answers:
            raise SASLError("LOGIN has two challenges only")
        return self._answers.pop(0)


class CramMD5Client:
    """CRAM-MD5 (RFC 2195): a proof that we have the password; the server proves nothing."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self.complete = False

    def initial(self) -> None:
        """Return None: the server begins with a challenge."""
        return

    def respond(self, challenge: bytes) -> bytes:
        """Return the user name, and the challenge keyed with the password (RFC 2195 §2)."""
        if self.complete:
            raise SASLError("CRAM-MD5 has one challenge only")
        self.complete = True
        key = self._credentials.password.encode()
        digest = hmac.new(key, challenge, "md5").hexdigest()
        return f"{self._credentials.username} {digest}".encode()


# RFC 5802 §7, without the reserved "m=", which we would have to refuse (§5.1), and with extensions,
# which we may ignore:
#
#   server-first-message = nonce "," salt "," iteration-count ["," extensions]
#   server-final-message = (server-error / verifier) ["," extensions]
_SERVER_FIRST = re.compile(
    rb"r=([\x21-\x2b\x2d-\x7e]+),s=([A-Za-z0-9+/]+={0,2}),i=([1-9][0-9]{0,8})(?:,.*)?"
)
_SERVER_FINAL = re.compile(rb"(?:v=([A-Za-z0-9+/]+={0,2})|e=([^,]*))(?:,.*)?", re.DOTALL)


class ScramClient:
    """SCRAM (RFC 5802, RFC 7677): client and server prove that they have keys of the password.

    Without channel binding: the certificate of the server is judged by the rules for TLS.

    Args:
        credentials: ours at the server.
        nonce: a new one for this exchange.
        algorithm: as `hashlib` names it: ``sha256``, ``sha1``.

    Raises:
        SASLError: user name or password cannot be prepared (RFC 4013).
    """

    def __init__(self, credentials: Credentials, nonce: str, algorithm: str) -> None:
        name = prepared(credentials.username).replace("=", "=3D").replace(",", "=2C")
        self._password = prepared(credentials.password)
        self._algorithm = algorithm
        self._nonce = nonce.encode("ascii")
        self._first_bare = b"n=%s,r=%s" % (name.encode(), self._nonce)
        self._signature: bytes | None = None
        self.complete = False

    def initial(self) -> bytes:
        """Return the client-first-message: no channel binding, no authorization identity."""
        return b"n,," + self._first_bare

    def respond(self, challenge: bytes) -> bytes | Derivation:
        """Return our proof, then no octets after the server's proof (RFC 5802 §3)."""
        if self.complete:
            raise SASLError("SCRAM has two challenges only")
        if self._signature is None:
            return self._proof(challenge)
        self._verify(challenge, self._signature)
        return b""

    def _proof(self, challenge: bytes) -> bytes | Derivation:
        match = _SERVER_FIRST.fullmatch(challenge)
        if match is None:
            raise SASLError("the first message of SCRAM cannot be read")
        nonce, salt, count = match.groups()
        if not nonce.startswith(self._nonce) or nonce == self._nonce:  # RFC 5802 §5.1
            raise SASLError("the server's nonce does not begin with ours")
        iterations = int(count)
        if not ITERATIONS_MINIMUM <= iterations <= ITERATIONS_MAXIMUM:
            raise SASLError(
                f"the server asks for {iterations} iterations, expected"
                f" {ITERATIONS_MINIMUM} to {ITERATIONS_MAXIMUM}"
            )
        octets = from_base64(salt)

        def respond() -> bytes:
            keys = scram_keys(self._algorithm, self._password, octets, iterations)
            return self._proven(keys, challenge, nonce)

        return respond() if iterations <= _AT_ONCE else Derivation(respond)

    def _proven(self, keys: ScramKeys, challenge: bytes, nonce: bytes) -> bytes:
        final = b"c=biws,r=" + nonce  # "biws" is "n,,"
        message = b",".join((self._first_bare, challenge, final))
        self._signature = hmac.digest(keys.server, message, self._algorithm)
        mask = hmac.digest(keys.stored, message, self._algorithm)
        proof = bytes(one ^ other for one, other in zip(keys.client, mask, strict=True))
        return final + b",p=" + b64encode(proof)

    def _verify(self, challenge: bytes, signature: bytes) -> None:
        match = _SERVER_FINAL.fullmatch(challenge)
        if match is None:
            raise SASLError("the final message of SCRAM cannot be read")
        verifier, error = match.groups()
        if verifier is None:
            raise SASLError(f"the server refuses: {printable(error.decode('latin-1'))!r}")
        if not hmac.compare_digest(from_base64(verifier), signature):  # RFC 5802 §5
            raise SASLError("the server does not have the keys of the password")
        self.complete = True


class _TokenClient:
    """One message with a token; a server that refuses it says why in a challenge first."""

    _answer = b""

    def __init__(self, message: bytes) -> None:
        self._message = message
        self.complete = True

    def initial(self) -> bytes:
        """Return the one message of the exchange."""
        return self._message

    def respond(self, challenge: bytes) -> bytes:
        """Return the response to a refusal; the server's reply follows it."""
        if not self.complete:
            raise SASLError("the server has refused the token, and goes on")
        self.complete = False  # a success after a refusal is none
        return self._answer


class OAuthBearerClient(_TokenClient):
    """OAUTHBEARER (RFC 7628): a bearer token, and the account that it is for."""

    _answer = b"\x01"  # RFC 7628 §3.2.3

    def __init__(self, credentials: TokenCredentials) -> None:
        # RFC 5801 §4: the name stands in the GS2 header.
        name = credentials.username.replace("=", "=3D").replace(",", "=2C")
        super().__init__(f"n,a={name},\x01auth=Bearer {credentials.token}\x01\x01".encode())


class XOAuth2Client(_TokenClient):
    """XOAUTH2, which large providers defined before OAUTHBEARER, and still ask for."""

    def __init__(self, credentials: TokenCredentials) -> None:
        message = f"user={credentials.username}\x01auth=Bearer {credentials.token}\x01\x01"
        super().__init__(message.encode())


TOKEN_MECHANISMS = ("OAUTHBEARER", "XOAUTH2")
"""The mechanisms of our client for tokens, the standard one first."""

CLIENT_MECHANISMS = ("SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN")
"""The mechanisms of our client for passwords, the strongest first."""


def client_mechanism(
    name: str, credentials: Credentials | TokenCredentials, nonce: Nonce | None
) -> ClientMechanism | None:
    """Return a mechanism for one exchange.

    Args:
        name: in upper case.
        credentials: ours at the server.
        nonce: None rules out SCRAM.

    Returns:
        None where the mechanism is not one of ours for such credentials, or needs a nonce.

    Raises:
        SASLError: the credentials cannot be used with the mechanism.
    """
    if isinstance(credentials, TokenCredentials):
        token_clients = {"OAUTHBEARER": OAuthBearerClient, "XOAUTH2": XOAuth2Client}
        return token_clients[name](credentials) if name in token_clients else None
    if name == "PLAIN":
        return PlainClient(credentials)
    if name == "LOGIN":
        return LoginClient(credentials)
    if name == "CRAM-MD5":
        return CramMD5Client(credentials)
    if nonce is not None and name == "SCRAM-SHA-256":
        return ScramClient(credentials, nonce(), "sha256")
    if nonce is not None and name == "SCRAM-SHA-1":
        return ScramClient(credentials, nonce(), "sha1")
    return None
