"""The evidence of AUTH as credentials for Twisted's cred.

The credentials that the checkers of a portal take decide which mechanisms are offered:

==========================  ====================================================================
interface of a checker      mechanisms that it brings
==========================  ====================================================================
`IUsernamePassword`         PLAIN, LOGIN
`IUsernameHashedPassword`   CRAM-MD5, SCRAM-SHA-256, SCRAM-SHA-256-PLUS, SCRAM-SHA-1: the checker
                            has the password itself
`IScramProof`               the SCRAM ones: the checker has keys derived from the password, and
                            provides `IScramSalts`
`IVerifiedCertificate`      EXTERNAL
`IBearerToken`              OAUTHBEARER, XOAUTH2
==========================  ====================================================================

`IUsernamePassword` and `IUsernameHashedPassword` are Twisted's: names and passwords are octets
there, as in ``twisted.mail``. In ours a name is text.
"""

from __future__ import annotations

from attrs import field, frozen
from twisted.cred.credentials import ICredentials, IUsernameHashedPassword
from zope.interface import Attribute, Interface, implementer

from ..smtp.sasl.evidence import CramProof, ScramProof, ScramSalt


class IScramProof(ICredentials):
    """The proof of SCRAM (RFC 5802)."""

    username = Attribute("The name that the client claims: text.")
    algorithm = Attribute("``sha256`` or ``sha1``: text.")

    def check(stored_key: bytes, server_key: bytes) -> bool:
        """Whether it was made with the password of these keys (RFC 5802 §3)."""


class IScramSalts(Interface):
    """What a checker of `IScramProof` provides besides."""

    def scram_salt(username: str, algorithm: str) -> ScramSalt | None:
        """Return the salt of an account, or its Deferred; None if there is no such account."""


class IVerifiedCertificate(ICredentials):
    """A client certificate whose chain leads to a trusted authority."""

    username = Attribute("The name that the client claims: text, empty for the certificate's.")
    fingerprint = Attribute("SHA-256 of its DER form, lower-case hex: text.")
    subject = Attribute("Its subject, RFC 4514 text, printable.")
    issuer = Attribute("Its issuer, likewise.")


class IBearerToken(ICredentials):
    """An OAuth 2.0 access token (RFC 6750)."""

    username = Attribute("The name that the client claims: text, empty for the token's.")
    token = Attribute("The token: text; secret.")


@implementer(IUsernameHashedPassword)
@frozen
class CramCredentials:
    """A `CramProof` for a checker that has passwords."""

    _proof: CramProof

    @property
    def username(self) -> bytes:
        """The name that the client claims."""
        return self._proof.username.encode()

    def checkPassword(self, password: bytes | str) -> bool:
        """Whether the proof was made with ``password``."""
        return self._proof.check_password(_octets(password))


@implementer(IUsernameHashedPassword)
@frozen
class ScramPassword:
    """A `ScramProof` for a checker that has passwords."""

    _proof: ScramProof

    @property
    def username(self) -> bytes:
        """The name that the client claims."""
        return self._proof.username.encode()

    def checkPassword(self, password: bytes | str) -> bool:
        """Whether the proof was made with ``password``."""
        return self._proof.check_password(_octets(password))


@implementer(IScramProof)
@frozen
class ScramCredentials:
    """A `ScramProof` for a checker that has keys."""

    _proof: ScramProof

    @property
    def username(self) -> str:
        """The name that the client claims."""
        return self._proof.username

    @property
    def algorithm(self) -> str:
        """``sha256`` or ``sha1``."""
        return self._proof.algorithm

    def check(self, stored_key: bytes, server_key: bytes) -> bool:
        """Whether the proof was made with the password of these keys."""
        return self._proof.check(stored_key, server_key)


@implementer(IVerifiedCertificate)
@frozen
class CertificateCredentials:
    """A verified certificate (`IVerifiedCertificate`)."""

    username: str
    fingerprint: str
    subject: str
    issuer: str


@implementer(IBearerToken)
@frozen
class TokenCredentials:
    """An access token (`IBearerToken`)."""

    username: str
    token: str = field(repr=False)


def _octets(password: bytes | str) -> bytes:
    return password.encode() if isinstance(password, str) else password
