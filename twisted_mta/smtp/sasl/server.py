"""SASL mechanisms (RFC 4422) of a server: responses in; challenges and evidence out, on octets.

Theory of operation. A mechanism is an object for one exchange. It takes the initial response, then
the response to each challenge, and returns either the next challenge or *evidence* (`evidence`):
the user name that the client claims, and what proves it. Nothing is judged here. The keeper of the
accounts judges, and then the mechanism has its last challenge, if it has one: in SCRAM it proves
that the server has the keys of the password, in OAuth it says why the token was refused.

The keeper of the accounts also judges an authorization identity that differs from the user name.
User names and passwords are compared as SASLprep prepares them (`saslprep.prepared`).
"""

from __future__ import annotations

import hmac
import json
import re
from base64 import b64encode
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from attrs import field, frozen

from ...mail.tls_facts import TLSFacts
from .evidence import (
    Certificate,
    CramProof,
    Evidence,
    Foreign,
    Password,
    ScramLookup,
    ScramProof,
    ScramSalt,
    Token,
)
from .exchange import Nonce, SASLError
from .saslprep import prepared
from .scram import from_base64

_LONGEST_NAME = 255  # characters; names that failed are kept in memory by the throttle
_LONGEST_NONCE = 256  # octets
_CHANNEL_BINDINGS = ("tls-exporter", "tls-server-end-point")  # RFC 9266, RFC 5929

ChallengeOrEvidence = bytes | Evidence
"""The next challenge, or evidence."""


@frozen(kw_only=True)
class Circumstances:
    """The circumstances of an exchange: all that a mechanism needs of the session.

    Attributes:
        hostname: our name.
        nonce: returns a new nonce.
        tls: what the TLS handshake achieved; None in clear.
        binding: returns the channel binding of a name, None where there is none (RFC 5929).
        plus: whether a mechanism with channel binding is offered here and now.
    """

    hostname: str
    nonce: Nonce
    tls: TLSFacts | None = None
    binding: Callable[[str], bytes | None] = field(default=lambda name: None)
    plus: bool = False


class ServerMechanism(Protocol):
    """The server of one exchange.

    Its methods raise `SASLError` where the exchange fails.
    """

    def begin(self, initial: bytes | None) -> ChallengeOrEvidence:
        """Take the initial response; None if the client sent none."""
        ...

    def respond(self, response: bytes) -> ChallengeOrEvidence:
        """Take the response to a challenge."""
        ...

    def salted(self, salt: ScramSalt) -> bytes:
        """Return the challenge that follows a `ScramLookup`."""
        ...

    def last_word(self, granted: bool) -> bytes | None:
        """Return the last challenge before success or failure; None if there is none."""
        ...


NewMechanism = Callable[[Circumstances], ServerMechanism]
"""Begins an exchange."""


class _Mechanism:
    """The common part of most mechanisms."""

    def __init__(self, circumstances: Circumstances) -> None:
        self._circumstances = circumstances

    def begin(self, initial: bytes | None) -> ChallengeOrEvidence:
        """Take the initial response; without one, return an empty challenge."""
        return b"" if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> ChallengeOrEvidence:
        """Take the response to a challenge."""
        raise SASLError("no response was expected")

    def salted(self, salt: ScramSalt) -> bytes:
        """Fail: only SCRAM looks up a salt."""
        raise SASLError("no salt was requested")

    def last_word(self, granted: bool) -> bytes | None:
        """Return None: there is no last challenge."""
        return None


class PlainServer(_Mechanism):
    """PLAIN (RFC 4616)."""

    def respond(self, response: bytes) -> Password:
        """Return the password of the one message: ``[authzid] NUL authcid NUL passwd`` (§2)."""
        parts = response.split(b"\0")
        if len(parts) != 3:
            raise SASLError("the message of PLAIN has three parts")
        username = _name(parts[1])
        return Password(username, _password(parts[2]), _authzid(parts[0], username))


class LoginServer(_Mechanism):
    """LOGIN, which no standard defines: two challenges, in the words that clients expect."""

    _username: str | None = None

    def begin(self, initial: bytes | None) -> ChallengeOrEvidence:
        """Ask for the user name, unless it is the initial response."""
        return b"Username:" if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> ChallengeOrEvidence:
        """Take the user name, then the password."""
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
        nonce, hostname = self._circumstances.nonce(), self._circumstances.hostname
        self._challenge = f"<{nonce}@{hostname}>".encode()
        return self._challenge

    def respond(self, response: bytes) -> CramProof:
        """Return the proof of the response: the user name, a space, 32 hexadecimal digits."""
        name, _, digest = response.rpartition(b" ")
        return CramProof(_name(name), self._challenge, digest)


# RFC 5802 §7, without the reserved "m=", which is to be refused (§5.1), and with extensions, which
# may be ignored:
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
        self._username = self._authzid = ""
        self._first_bare = self._nonce = self._first = b""
        self._bound = b""  # expected in "c="
        self._salt: ScramSalt | None = None
        self._proof: ScramProof | None = None

    def respond(self, response: bytes) -> ChallengeOrEvidence:
        """Take the client-first-message, then the client-final-message."""
        return (
            self._lookup(response) if self._salt is None else self._proof_of(response, self._salt)
        )

    def _lookup(self, message: bytes) -> ScramLookup:
        match = _CLIENT_FIRST.fullmatch(message)
        if match is None:
            raise SASLError("the first message of SCRAM cannot be read")
        header, _, supported, binding, authzid, bare, name, nonce = match.groups()
        if len(nonce) > _LONGEST_NONCE:
            raise SASLError("the nonce is too long")
        self._bound = header + self._binding(binding, supported is not None)
        self._username = _name(_unescaped(name))
        if authzid is not None:
            self._authzid = _authzid(_unescaped(authzid), self._username)
        self._first_bare, self._nonce = bare, nonce
        return ScramLookup(self._username, self._algorithm)

    def _binding(self, name: bytes | None, supported: bool) -> bytes:
        if not self._plus:
            if name is not None:
                raise SASLError("channel binding needs a mechanism with -PLUS")
            if supported and self._circumstances.plus:
                # RFC 5802 §6: the client believes that we offer no channel binding, and we do: an
                # attacker on the way has changed the list of mechanisms.
                raise SASLError("channel binding is offered: the list was changed on the way")
            return b""
        if name is None:
            raise SASLError("mechanisms with -PLUS need channel binding")
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

    def _proof_of(self, message: bytes, salt: ScramSalt) -> ScramProof:
        match = _CLIENT_FINAL.fullmatch(message)
        if match is None:
            raise SASLError("the final message of SCRAM cannot be read")
        without_proof, bound, nonce, proof = match.groups()
        if not hmac.compare_digest(from_base64(bound), self._bound):
            raise SASLError("the client is bound to another channel")
        if nonce != self._nonce:
            raise SASLError("the nonce is not ours")
        signed = b",".join((self._first_bare, self._first, without_proof))
        self._proof = ScramProof(
            self._username,
            self._algorithm,
            salt,
            message=signed,
            proof=from_base64(proof),
            authzid=self._authzid,
        )
        return self._proof

    def last_word(self, granted: bool) -> bytes | None:
        """Return the proof that we have the keys of the password (RFC 5802 §3)."""
        return b"v=" + b64encode(self._proof.signature) if granted and self._proof else None


class ExternalServer(_Mechanism):
    """EXTERNAL (RFC 4422 appendix A): the certificate that TLS has verified."""

    def respond(self, response: bytes) -> Certificate:
        """Return the certificate, and the user name that the client claims, if any."""
        tls = self._circumstances.tls
        if tls is None or not tls.peer_verified:
            raise SASLError("TLS has verified no client certificate")
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
        match = _OAUTH.fullmatch(response)
        if match is None or match[1].startswith(b"p="):
            raise SASLError("the message of OAUTHBEARER cannot be read")
        pairs = [each.partition(b"=") for each in match[3].split(b"\x01") if each]
        given = [value for key, _, value in pairs if key.lower() == b"auth"]
        if len(given) != 1:
            raise SASLError(f"OAUTHBEARER with auth= {len(given)} times, expected once")
        name = _name(_unescaped(match[2])) if match[2] else ""
        return Token(name, _bearer(given[0]))

    def last_word(self, granted: bool) -> bytes | None:
        """Return why the token was refused (RFC 7628 §3.2.2)."""
        return None if granted else json.dumps({"status": "invalid_token"}).encode()


class XOAuth2Server(_Mechanism):
    """XOAUTH2, Google's forerunner of OAUTHBEARER."""

    def respond(self, response: bytes) -> Token:
        """Return the token."""
        match = _XOAUTH2.fullmatch(response)
        if match is None:
            raise SASLError("the message of XOAUTH2 cannot be read")
        return Token(_name(match[1]), _bearer(match[2]))

    def last_word(self, granted: bool) -> bytes | None:
        """Return why the token was refused, as Google does."""
        if granted:
            return None
        return json.dumps({"status": "401", "schemes": "bearer"}).encode()


class Challenger(_Mechanism):
    """A challenger of `twisted.mail` (`twisted.cred.credentials.CramMD5Credentials`, …).

    Args:
        circumstances: of the session.
        challenger: has ``getChallenge``, ``setResponse`` and ``moreChallenges``; after the exchange
            it is the credentials.
    """

    def __init__(self, circumstances: Circumstances, challenger: Any) -> None:
        super().__init__(circumstances)
        self._challenger = challenger

    def begin(self, initial: bytes | None) -> ChallengeOrEvidence:
        """Return the first challenge, unless there is an initial response."""
        challenge: bytes = self._challenger.getChallenge()
        return challenge if initial is None else self.respond(initial)

    def respond(self, response: bytes) -> ChallengeOrEvidence:
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
    "SCRAM-SHA-256-PLUS": partial(ScramServer, algorithm="sha256", plus=True),
    "SCRAM-SHA-256": partial(ScramServer, algorithm="sha256"),
    "SCRAM-SHA-1": partial(ScramServer, algorithm="sha1"),
    "OAUTHBEARER": OAuthBearerServer,
    "XOAUTH2": XOAuth2Server,
    "CRAM-MD5": CramMD5Server,
    "PLAIN": PlainServer,
    "LOGIN": LoginServer,
    "EXTERNAL": ExternalServer,
}
"""The mechanisms of our server, in the order in which they are announced."""


def _name(octets: bytes) -> str:
    name = prepared(_text(octets))
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise SASLError("the user name is too long, or not printable")
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


def _authzid(octets: bytes, username: str) -> str:
    """Return the authorization identity; empty if the client sent none, or its user name again."""
    authzid = _name(octets) if octets else ""
    return "" if authzid == username else authzid


def _unescaped(name: bytes) -> bytes:
    def one(escape: re.Match[bytes]) -> bytes:
        if escape[1] is None:
            raise SASLError("an equals sign in a name is written =3D")
        return b"," if escape[1] == b"2C" else b"="

    return _ESCAPE.sub(one, name)


def _bearer(value: bytes) -> str:
    match = _BEARER.fullmatch(value)
    if match is None:
        raise SASLError("no bearer token")
    return match[1].decode("ascii")
