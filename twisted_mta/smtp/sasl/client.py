"""Authentication mechanisms as challenge and response (SASL, RFC 4422), on octets.

Theory of operation. A mechanism is an object for one exchange: it is asked once for what the client
may say unasked, then for the response to each challenge, and in the end whether a success that the
server now announces may be believed. How the octets travel (base64, one line each) is the affair of
the protocol around it: `client_auth` for a client of SMTP.

Stronger mechanisms come first in `CLIENT_MECHANISMS`. In all of them the server learns, or can find
out by trying, what the password is: none of them is a reason to do without TLS.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import stringprep
import unicodedata
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable
from typing import Protocol, TypeAlias

from attrs import field, frozen

from ...mail.printable import printable

# RFC 7677 §4 asks servers for 4,096 iterations at least; fewer make it cheap to guess the password
# from what an impostor has heard. 100,000 of them take 20 ms; the most that is recommended anywhere
# at present is 600,000.
ITERATIONS_MINIMUM = 4_096
ITERATIONS_MAXIMUM = 600_000
_AT_ONCE = 20_000  # iterations that are made while nothing else happens; more are a `Derivation`

# Characters of a user name or a password outside ASCII, each of which is looked up in nine tables,
# and put in order beside those that combine with it: quadratic in the number of those. RFC 4616 §2
# has servers take 255 octets at least.
_LONGEST_PREPARED = 1_024

Nonce: TypeAlias = Callable[[], str]
"""A new nonce with at least 128 bits of chance in it: printable ASCII without commas."""


class SASLError(Exception):
    """The exchange cannot go on; says why, without a word of what is secret."""


def _is_name(credentials: Credentials, attribute: object, value: str) -> None:
    if not value or "\0" in value:  # RFC 4616 §2: at least one character, and NUL ends it
        raise ValueError("a user name and a password have at least one character, and no NUL")


@frozen
class Credentials:
    """Who we are to a server.

    Attributes:
        username: the authentication identity; we act as nobody else.
        password: shown nowhere.

    Raises:
        ValueError: one of them is empty or has a NUL inside.
    """

    username: str = field(validator=_is_name)
    password: str = field(repr=False, validator=_is_name)


@frozen
class Derivation:
    """A response that takes long to be made.

    Attributes:
        respond: makes it. Blocks for about 0.2 µs for each iteration, and may be called in a thread
            as long as nothing is asked of the mechanism meanwhile.
    """

    respond: Callable[[], bytes]


class ClientMechanism(Protocol):
    """The client's side of one exchange."""

    @property
    def complete(self) -> bool:
        """Whether all is said and, where the server has to prove something, that is proved."""
        ...

    def initial(self) -> bytes | None:
        """Return what the client says unasked, None where the server speaks first."""
        ...

    def respond(self, challenge: bytes) -> bytes | Derivation:
        """Return the response to a challenge.

        Raises:
            SASLError: it is no challenge of this mechanism, or the server fails to prove itself.
        """
        ...


class PlainClient:
    """PLAIN (RFC 4616): user name and password, as they are."""

    def __init__(self, credentials: Credentials) -> None:
        self._message = f"\0{credentials.username}\0{credentials.password}".encode()
        self.complete = True

    def initial(self) -> bytes:
        """Return the one message of the exchange (RFC 4616 §2)."""
        return self._message

    def respond(self, challenge: bytes) -> bytes:
        """Fail: there is nothing more to say."""
        raise SASLError("PLAIN knows no challenge")


class LoginClient:
    """LOGIN, which no standard defines: two questions, whose words mean nothing, two answers."""

    def __init__(self, credentials: Credentials) -> None:
        self._answers = [credentials.username.encode(), credentials.password.encode()]

    @property
    def complete(self) -> bool:
        """Whether both questions were put."""
        return not self._answers

    def initial(self) -> None:
        """Say nothing: the server asks first."""
        return

    def respond(self, challenge: bytes) -> bytes:
        """Return the user name, then the password."""
        if not self._answers:
            raise SASLError("LOGIN asks no third question")
        return self._answers.pop(0)


class CramMD5Client:
    """CRAM-MD5 (RFC 2195): proves the password without saying it, and the server nothing."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self.complete = False

    def initial(self) -> None:
        """Say nothing: the server begins with a challenge."""
        return

    def respond(self, challenge: bytes) -> bytes:
        """Return the user name, and the challenge keyed with the password (RFC 2195 §2)."""
        if self.complete:
            raise SASLError("CRAM-MD5 has one challenge only")
        self.complete = True
        key = self._credentials.password.encode()
        digest = hmac.new(key, challenge, "md5").hexdigest()
        return f"{self._credentials.username} {digest}".encode()


@frozen
class ScramKeys:
    """What is derived from a password (RFC 5802 §3); a server keeps the last two of them."""

    client: bytes = field(repr=False)
    stored: bytes = field(repr=False)
    server: bytes = field(repr=False)


def scram_keys(algorithm: str, password: str, salt: bytes, iterations: int) -> ScramKeys:
    """Derive the keys of SCRAM from a password that is ``prepared`` (RFC 5802 §3).

    Args:
        algorithm: as `hashlib` names it: ``sha256``.
        password: after `prepared`.
        salt: the server's, for this user.
        iterations: blocks for about 0.2 µs each.
    """
    salted = hashlib.pbkdf2_hmac(algorithm, password.encode(), salt, iterations)
    client = hmac.digest(salted, b"Client Key", algorithm)
    return ScramKeys(
        client,
        hashlib.new(algorithm, client).digest(),
        hmac.digest(salted, b"Server Key", algorithm),
    )


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
    """SCRAM (RFC 5802, RFC 7677): both sides prove that they know the password or came from it.

    Without channel binding: the certificate of the server is judged by the rules for TLS.

    Args:
        credentials: who we are.
        nonce: one of its own for this exchange.
        algorithm: as `hashlib` names it: ``sha256``, ``sha1``.

    Raises:
        SASLError: user name or password cannot be prepared.
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
        """Return the client-first-message: no channel binding, no other identity to act as."""
        return b"n,," + self._first_bare

    def respond(self, challenge: bytes) -> bytes | Derivation:
        """Return our proof to the server-first-message, nothing to a true server-final-message."""
        if self.complete:
            raise SASLError("SCRAM has two challenges only")
        if self._signature is None:
            return self._proof(challenge)
        self._verify(challenge, self._signature)
        return b""

    def _proof(self, challenge: bytes) -> bytes | Derivation:
        found = _SERVER_FIRST.fullmatch(challenge)
        if found is None:
            raise SASLError("the first message of SCRAM cannot be read")
        nonce, salt, count = found.groups()
        if not nonce.startswith(self._nonce) or nonce == self._nonce:  # RFC 5802 §5.1
            raise SASLError("the server's nonce does not go on from ours")
        iterations = int(count)
        if not ITERATIONS_MINIMUM <= iterations <= ITERATIONS_MAXIMUM:
            raise SASLError(
                f"the server asks for {iterations} iterations, which is not between"
                f" {ITERATIONS_MINIMUM} and {ITERATIONS_MAXIMUM}"
            )
        octets = _decoded(salt)

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
        found = _SERVER_FINAL.fullmatch(challenge)
        if found is None:
            raise SASLError("the final message of SCRAM cannot be read")
        verifier, error = found.groups()
        if verifier is None:
            raise SASLError(f"the server says {printable(error.decode('latin-1'))!r}")
        if not hmac.compare_digest(_decoded(verifier), signature):  # RFC 5802 §5
            raise SASLError("the server does not know what comes of the password")
        self.complete = True


CLIENT_MECHANISMS = ("SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5", "PLAIN", "LOGIN")
"""Those that we know as a client, the strongest first."""


def client_mechanism(
    name: str, credentials: Credentials, nonce: Nonce | None
) -> ClientMechanism | None:
    """Return a mechanism of `CLIENT_MECHANISMS` for one exchange.

    Args:
        name: in upper case.
        credentials: who we are.
        nonce: without it there is no SCRAM.

    Returns:
        None where the mechanism is not known, or would need a nonce.

    Raises:
        SASLError: the credentials cannot be used with it.
    """
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


# RFC 4013 §2.3
_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def prepared(text: str) -> str:
    """Return a user name or password as SASLprep has it (RFC 4013), so that spellings meet.

    Raises:
        SASLError: it has characters that are prohibited, or more than 1,024 and some of them not in
            ASCII, or comes to nothing.
    """
    if text.isascii() and text.isprintable():
        return text
    if len(text) > _LONGEST_PREPARED:
        raise SASLError("the user name or the password is too long")
    mapped = "".join(
        " " if stringprep.in_table_c12(each) else each
        for each in text
        if not stringprep.in_table_b1(each)
    )
    normal = unicodedata.normalize("NFKC", mapped)
    if len(normal) > _LONGEST_PREPARED:
        raise SASLError("the user name or the password is too long")
    if not normal:
        raise SASLError("the user name or the password comes to nothing")
    if any(prohibits(each) for each in normal for prohibits in _PROHIBITED):
        raise SASLError("the user name or the password has a character that is prohibited")
    right_to_left = [stringprep.in_table_d1(each) for each in normal]  # RFC 4013 §2.4
    if any(right_to_left) and (
        not (right_to_left[0] and right_to_left[-1]) or any(map(stringprep.in_table_d2, normal))
    ):
        raise SASLError("the user name or the password mixes directions of writing")
    return normal


def _decoded(octets: bytes) -> bytes:
    try:
        return b64decode(octets, validate=True)
    except Base64Error:
        raise SASLError("not base64") from None
