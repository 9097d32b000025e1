"""The server's side of authentication mechanisms (SASL, RFC 4422), on octets.

Theory of operation. A mechanism is an object for one exchange. It is given what the client said
unasked, then its response to each challenge, and returns either the next challenge or *evidence*:
who the client says it is, and what is to be judged to believe it. Nothing is judged here. Whoever
keeps the accounts does that, and the mechanism then says its last word, if it has one: SCRAM proves
in it that the server knew the password too, OAuth says in it what was wrong.

An authorization identity other than the authentication identity is refused: nobody acts as
somebody else here. Names and passwords are compared as SASLprep has them (`sasl.client.prepared`).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable
from typing import Any, Protocol

from attrs import define, field, frozen

from ...mail.tls_facts import TLSFacts
from .client import Nonce, SASLError, prepared, scram_keys

_LONGEST_NAME = 255  # characters; whoever tries names has to be remembered by them
_LONGEST_NONCE = 256  # octets
_CHANNEL_BINDINGS = ("tls-exporter", "tls-server-end-point")  # RFC 9266, RFC 5929

# Evidence.


@frozen
class Password:
    """A password as it is; shown nowhere."""

    username: str
    password: str = field(repr=False)


@frozen
class CramProof:
    """A challenge keyed with the password (RFC 2195)."""

    username: str
    challenge: bytes
    digest: bytes = field(repr=False)

    def check_password(self, password: bytes) -> bool:
        """Whether it was made with ``password``."""
        made = hmac.new(password, self.challenge, "md5").hexdigest().encode()
        return hmac.compare_digest(made, self.digest.lower())


@frozen
class ScramSalt:
    """What a client has to know to make its proof; unknown names have one too, always the same."""

    salt: bytes
    iterations: int


@frozen
class ScramLookup:
    """No evidence yet: the salt of a name is asked for."""

    username: str
    algorithm: str


@define
class ScramProof:
    """The proof of SCRAM (RFC 5802 §3), and how to check it.

    Attributes:
        username: prepared.
        algorithm: as `hashlib` names it.
        salt: what the client was told.
    """

    username: str
    algorithm: str
    salt: ScramSalt
    _message: bytes = field(repr=False, alias="message")
    _proof: bytes = field(repr=False, alias="proof")
    _server_key: bytes | None = field(default=None, repr=False, init=False)

    def check(self, stored_key: bytes, server_key: bytes) -> bool:
        """Whether it was made with the password that two keys came from."""
        mask = hmac.digest(stored_key, self._message, self.algorithm)
        if len(self._proof) != len(mask):
            return False
        key = bytes(one ^ other for one, other in zip(self._proof, mask, strict=True))
        if not hmac.compare_digest(hashlib.new(self.algorithm, key).digest(), stored_key):
            return False
        self._server_key = server_key
        return True

    def check_password(self, password: bytes) -> bool:
        """Whether it was made with ``password``; blocks for about 0.2 µs for each iteration."""
        try:
            text = prepared(password.decode())
        except (UnicodeDecodeError, SASLError):
            return False
        keys = scram_keys(self.algorithm, text, self.salt.salt, self.salt.iterations)
        return self.check(keys.stored, keys.server)

    @property
    def signature(self) -> bytes:
        """What shows the client that we know its password; after a check that was good."""
        assert self._server_key is not None
        return hmac.digest(self._server_key, self._message, self.algorithm)


@frozen
class Certificate:
    """A client certificate that has verified; ``username`` is who it is to be, empty: whoever."""

    username: str
    facts: TLSFacts


@frozen
class Token:
    """An OAuth 2.0 access token (RFC 6750); ``username`` may be empty with OAUTHBEARER."""

    username: str
    token: str = field(repr=False)


@frozen
class Foreign:
    """What a challenger of an application's has gathered: credentials of cred's."""

    username: str
    credentials: Any = field(repr=False)


Evidence = Password | CramProof | ScramLookup | ScramProof | Certificate | Token | Foreign
"""What is to be judged."""

Said = bytes | Evidence
"""A challenge, or evidence."""


@frozen(kw_only=True)
class Circumstances:
    """What a mechanism has to know of the session.

    Attributes:
        hostname: our name.
        nonce: makes one of its own for each exchange.
        tls: what the handshake achieved, None in clear.
        binding: returns the channel binding of that name, None where there is none.
        plus: whether a mechanism with channel binding is offered here and now.
    """

    hostname: str
    nonce: Nonce
    tls: TLSFacts | None = None
    binding: Callable[[str], bytes | None] = field(default=lambda name: None)
    plus: bool = False


class ServerMechanism(Protocol):
    """The server's side of one exchange. What it raises is `SASLError`: the exchange fails."""

    def begin(self, initial: bytes | None) -> Said:
        """Take what the client said unasked; None: nothing."""
        ...

    def respond(self, response: bytes) -> Said:
        """Take the response to a challenge."""
        ...

    def salted(self, salt: ScramSalt) -> bytes:
        """Return the challenge that follows a `ScramLookup`."""
        ...

    def last_word(self, granted: bool) -> bytes | None:
        """Return what is said before success or failure, None for nothing."""
        ...


NewMechanism = Callable[[Circumstances], ServerMechanism]
"""Begins an exchange."""


class _Mechanism:
    """What most of them have in common."""

    def __init__(self, circumstances: Circumstances) -> None:
        self._circumstances = circumstances

    def begin(self, initial: bytes | None) -> Said:
        """Take what the client said unasked, or let it speak."""
        return b"" if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Said:
        """Take the response to a challenge."""
        raise SASLError("no response was expected")

    def salted(self, salt: ScramSalt) -> bytes:
        """Return the challenge that follows a lookup."""
        raise SASLError("no salt was asked for")

    def last_word(self, granted: bool) -> bytes | None:
        """Say nothing."""
        return None


class PlainServer(_Mechanism):
    """PLAIN (RFC 4616)."""

    def respond(self, response: bytes) -> Password:
        """Return the password of the one message: ``[authzid] NUL authcid NUL passwd`` (§2)."""
        parts = response.split(b"\0")
        if len(parts) != 3:
            raise SASLError("the message of PLAIN has three parts")
        username = _name(parts[1])
        _same(parts[0], username)
        return Password(username, _password(parts[2]))


class LoginServer(_Mechanism):
    """LOGIN, which no standard defines: two questions, in the words that clients know."""

    _username: str | None = None

    def begin(self, initial: bytes | None) -> Said:
        """Ask for the name, unless the client has said it."""
        return b"Username:" if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Said:
        """Take the name, then the password."""
        if self._username is None:
            self._username = _name(response)
            return b"Password:"
        return Password(self._username, _password(response))


class CramMD5Server(_Mechanism):
    """CRAM-MD5 (RFC 2195)."""

    _challenge = b""

    def begin(self, initial: bytes | None) -> bytes:
        """Return the challenge (§2)."""
        if initial is not None:
            raise SASLError("the server begins CRAM-MD5")
        here = self._circumstances
        self._challenge = f"<{here.nonce()}@{here.hostname}>".encode()
        return self._challenge

    def respond(self, response: bytes) -> CramProof:
        """Return the proof: the name, a space, 32 hexadecimal digits."""
        name, _, digest = response.rpartition(b" ")
        return CramProof(_name(name), self._challenge, digest)


# RFC 5802 §7, without the reserved "m=", which is to be refused (§5.1), with extensions, which may
# be ignored:
#
#   gs2-cbind-flag       = ("p=" cb-name) / "n" / "y"
#   gs2-header           = gs2-cbind-flag "," [ "a=" saslname ] ","
#   client-first-message = gs2-header "n=" saslname ",r=" c-nonce ["," extensions]
#   client-final-message = "c=" base64 ",r=" nonce ["," extensions] ",p=" base64
_CLIENT_FIRST = re.compile(
    rb"((?:(n)|(y)|p=([A-Za-z0-9.-]+)),(?:a=([^,]+))?,)"
    rb"(n=([^,]+),r=([\x21-\x2b\x2d-\x7e]+)(?:,.*)?)",
    re.DOTALL,
)
_CLIENT_FINAL = re.compile(
    rb"(c=([A-Za-z0-9+/]+={0,2}),r=([\x21-\x2b\x2d-\x7e]+)(?:,.*)?),p=([A-Za-z0-9+/]+={0,2})",
    re.DOTALL,
)
_ESCAPE = re.compile(rb"=(2C|3D)?")  # RFC 5802 §5.1


class ScramServer(_Mechanism):
    """SCRAM (RFC 5802, RFC 7677), with channel binding where ``plus``."""

    def __init__(self, circumstances: Circumstances, algorithm: str, *, plus: bool = False) -> None:
        super().__init__(circumstances)
        self._algorithm = algorithm
        self._plus = plus
        self._username = ""
        self._first_bare = self._nonce = self._first = b""
        self._bound = b""  # what c= has to say
        self._salt: ScramSalt | None = None
        self._proof: ScramProof | None = None

    def respond(self, response: bytes) -> Said:
        """Take the client-first-message, then the client-final-message."""
        return self._begun(response) if self._salt is None else self._proven(response, self._salt)

    def _begun(self, message: bytes) -> ScramLookup:
        found = _CLIENT_FIRST.fullmatch(message)
        if found is None:
            raise SASLError("the first message of SCRAM cannot be read")
        header, _, could, binding, authzid, bare, name, nonce = found.groups()
        if len(nonce) > _LONGEST_NONCE:
            raise SASLError("the nonce is too long")
        self._bound = header + self._binding(binding, could is not None)
        self._username = _name(_unescaped(name))
        if authzid is not None:
            _same(_unescaped(authzid), self._username)
        self._first_bare, self._nonce = bare, nonce
        return ScramLookup(self._username, self._algorithm)

    def _binding(self, name: bytes | None, could: bool) -> bytes:
        if not self._plus:
            if name is not None:
                raise SASLError("channel binding is for the mechanisms with -PLUS")
            if could and self._circumstances.plus:
                # RFC 5802 §6: the client believes that we offer no channel binding, and we do:
                # somebody on the way has changed what we offer.
                raise SASLError("channel binding was on offer: the list was changed on the way")
            return b""
        if name is None:
            raise SASLError("the mechanisms with -PLUS bind a channel")
        known = name.decode("ascii")
        bound = self._circumstances.binding(known) if known in _CHANNEL_BINDINGS else None
        if bound is None:
            raise SASLError("no such channel binding")
        return bound

    def salted(self, salt: ScramSalt) -> bytes:
        """Return the server-first-message."""
        self._salt = salt
        self._nonce += self._circumstances.nonce().encode("ascii")
        self._first = b"r=%s,s=%s,i=%d" % (self._nonce, b64encode(salt.salt), salt.iterations)
        return self._first

    def _proven(self, message: bytes, salt: ScramSalt) -> ScramProof:
        found = _CLIENT_FINAL.fullmatch(message)
        if found is None:
            raise SASLError("the final message of SCRAM cannot be read")
        without_proof, bound, nonce, proof = found.groups()
        if not hmac.compare_digest(_decoded(bound), self._bound):
            raise SASLError("the channel is not the one that the client is bound to")
        if nonce != self._nonce:
            raise SASLError("the nonce is not ours")
        signed = b",".join((self._first_bare, self._first, without_proof))
        self._proof = ScramProof(
            self._username, self._algorithm, salt, message=signed, proof=_decoded(proof)
        )
        return self._proof

    def last_word(self, granted: bool) -> bytes | None:
        """Prove that we know the password too (RFC 5802 §3)."""
        return b"v=" + b64encode(self._proof.signature) if granted and self._proof else None


class ExternalServer(_Mechanism):
    """EXTERNAL (RFC 4422 appendix A): who it is, TLS has shown."""

    def respond(self, response: bytes) -> Certificate:
        """Return the certificate, and who the client wants to be; nothing: whoever it is."""
        tls = self._circumstances.tls
        if tls is None or not tls.peer_verified:
            raise SASLError("no certificate of the client's has verified")
        return Certificate(_name(response) if response else "", tls)


# RFC 7628 §3.1, RFC 6750 §2.1:
#   client-resp = gs2-header kvsep *( key "=" value kvsep ) kvsep
#   b64token    = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="
_OAUTH = re.compile(rb"(n|y|p=[A-Za-z0-9.-]+),(?:a=([^,]*))?,\x01((?:[A-Za-z]+=[^\x01]*\x01)*)\x01")
_XOAUTH2 = re.compile(rb"user=([^\x01]+)\x01auth=([^\x01]*)\x01\x01")
_BEARER = re.compile(rb"Bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)


class OAuthBearerServer(_Mechanism):
    """OAUTHBEARER (RFC 7628)."""

    def respond(self, response: bytes) -> Token:
        """Return the token."""
        found = _OAUTH.fullmatch(response)
        if found is None or found[1].startswith(b"p="):
            raise SASLError("the message of OAUTHBEARER cannot be read")
        pairs = [each.partition(b"=") for each in found[3].split(b"\x01") if each]
        given = [value for key, _, value in pairs if key.lower() == b"auth"]
        if len(given) != 1:
            raise SASLError("OAUTHBEARER says auth= once")
        name = _name(_unescaped(found[2])) if found[2] else ""
        return Token(name, _bearer(given[0]))

    def last_word(self, granted: bool) -> bytes | None:
        """Say what was wrong (RFC 7628 §3.2.2)."""
        return None if granted else json.dumps({"status": "invalid_token"}).encode()


class XOAuth2Server(_Mechanism):
    """XOAUTH2, Google's forerunner of it."""

    def respond(self, response: bytes) -> Token:
        """Return the token."""
        found = _XOAUTH2.fullmatch(response)
        if found is None:
            raise SASLError("the message of XOAUTH2 cannot be read")
        return Token(_name(found[1]), _bearer(found[2]))

    def last_word(self, granted: bool) -> bytes | None:
        """Say what was wrong, as Google does."""
        if granted:
            return None
        return json.dumps({"status": "401", "schemes": "bearer"}).encode()


class Challenger(_Mechanism):
    """A challenger of twisted.mail's (`twisted.cred.credentials.CramMD5Credentials`, …).

    Args:
        circumstances: not asked for.
        challenger: has ``getChallenge``, ``setResponse`` and ``moreChallenges``, and is, in the
            end, the credentials.
    """

    def __init__(self, circumstances: Circumstances, challenger: Any) -> None:
        super().__init__(circumstances)
        self._challenger = challenger

    def begin(self, initial: bytes | None) -> Said:
        """Return the first challenge; to who has spoken already, it is not told."""
        challenge: bytes = self._challenger.getChallenge()
        return challenge if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> Said:
        """Return the next challenge, or the credentials."""
        try:
            self._challenger.setResponse(response)
        except (ValueError, IndexError):
            raise SASLError("the response cannot be read") from None
        if self._challenger.moreChallenges():
            challenge: bytes = self._challenger.getChallenge()
            return challenge
        name = getattr(self._challenger, "username", None) or b""
        text = name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)
        return Foreign(text[:_LONGEST_NAME], self._challenger)


MECHANISMS: dict[str, NewMechanism] = {
    "SCRAM-SHA-256-PLUS": lambda here: ScramServer(here, "sha256", plus=True),
    "SCRAM-SHA-256": lambda here: ScramServer(here, "sha256"),
    "SCRAM-SHA-1": lambda here: ScramServer(here, "sha1"),
    "OAUTHBEARER": OAuthBearerServer,
    "XOAUTH2": XOAuth2Server,
    "CRAM-MD5": CramMD5Server,
    "PLAIN": PlainServer,
    "LOGIN": LoginServer,
    "EXTERNAL": ExternalServer,
}
"""Those that we know as a server, in the order in which they are announced."""


def _name(octets: bytes) -> str:
    name = prepared(_text(octets))
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise SASLError("no user name")
    return name


def _password(octets: bytes) -> str:
    return prepared(_text(octets))


def _text(octets: bytes) -> str:
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        raise SASLError("not UTF-8") from None
    if not text or "\0" in text:
        raise SASLError("a user name and a password have at least one character, and no NUL")
    return text


def _same(authzid: bytes, username: str) -> None:
    if authzid and _name(authzid) != username:
        raise SASLError("nobody acts as somebody else here")


def _unescaped(name: bytes) -> bytes:
    def one(found: re.Match[bytes]) -> bytes:
        if found[1] is None:
            raise SASLError("an equals sign in a name is written =3D")
        return b"," if found[1] == b"2C" else b"="

    return _ESCAPE.sub(one, name)


def _bearer(value: bytes) -> str:
    found = _BEARER.fullmatch(value)
    if found is None:
        raise SASLError("no bearer token")
    return found[1].decode("ascii")


def _decoded(octets: bytes) -> bytes:
    try:
        return b64decode(octets, validate=True)
    except Base64Error:
        raise SASLError("not base64") from None
