"""What AUTH proves, as credentials of cred's: which a checker takes decides what is offered.

==========================  ====================================================================
interface of a checker      mechanisms that it brings
==========================  ====================================================================
`IUsernamePassword`         PLAIN, LOGIN
`IUsernameHashedPassword`   CRAM-MD5, SCRAM-SHA-256, SCRAM-SHA-256-PLUS, SCRAM-SHA-1: the checker
                            has the password itself
`IScramProof`               the SCRAM ones: the checker has keys that came from the password, and
                            provides `IScramSalts`
`IVerifiedCertificate`      EXTERNAL
`IBearerToken`              OAUTHBEARER, XOAUTH2
==========================  ====================================================================

`IUsernamePassword` and `IUsernameHashedPassword` are Twisted's: names and passwords are octets
there, as ``twisted.mail`` has them. In ours a name is text.
"""

from __future__ import annotations

from attrs import field, frozen
from twisted.cred.credentials import ICredentials, IUsernameHashedPassword
from zope.interface import Attribute, Interface, implementer

from ..smtp.sasl.evidence import CramProof, ScramProof, ScramSalt


class IScramProof(ICredentials):
    """The proof of SCRAM (RFC 5802)."""

    username = Attribute("Whose it is said to be: text.")
    algorithm = Attribute("``sha256`` or ``sha1``: text.")

    def check(stored_key: bytes, server_key: bytes) -> bool:
        """Whether it was made with the password that these keys (RFC 5802 §3) came from."""


class IScramSalts(Interface):
    """What a checker of `IScramProof` provides besides."""

    def scram_salt(username: str, algorithm: str) -> ScramSalt | None:
        """Return the salt of an account, or its Deferred; None where there is no such account."""


class IVerifiedCertificate(ICredentials):
    """A client certificate whose chain has led to an authority that we trust."""

    username = Attribute("Who the client wants to be: text, empty for whoever it is.")
    fingerprint = Attribute("SHA-256 of its DER form, lower-case hex: text.")
    subject = Attribute("Its subject, RFC 4514 text, printable.")
    issuer = Attribute("Its issuer, likewise.")


class IBearerToken(ICredentials):
    """An OAuth 2.0 access token (RFC 6750)."""

    username = Attribute("Who the client wants to be: text, empty for whoever the token names.")
    token = Attribute("It: text; to be kept secret.")


@implementer(IUsernameHashedPassword)
@frozen
class CramCredentials:
    """A `CramProof` for a checker that has passwords."""

    _proof: CramProof

    @property
    def username(self) -> bytes:
        """Whose it is said to be."""
        return self._proof.username.encode()

    def checkPassword(self, password: bytes | str) -> bool:
        """Whether it was made with ``password``."""
        return self._proof.check_password(_octets(password))


@implementer(IUsernameHashedPassword)
@frozen
class ScramPassword:
    """A `ScramProof` for a checker that has passwords."""

    _proof: ScramProof

    @property
    def username(self) -> bytes:
        """Whose it is said to be."""
        return self._proof.username.encode()

    def checkPassword(self, password: bytes | str) -> bool:
        """Whether it was made with ``password``."""
        return self._proof.check_password(_octets(password))


@implementer(IScramProof)
@frozen
class ScramCredentials:
    """A `ScramProof` for a checker that has keys."""

    _proof: ScramProof

    @property
    def username(self) -> str:
        """Whose it is said to be."""
        return self._proof.username

    @property
    def algorithm(self) -> str:
        """Which keys are meant."""
        return self._proof.algorithm

    def check(self, stored_key: bytes, server_key: bytes) -> bool:
        """Whether it was made with the password that these keys came from."""
        return self._proof.check(stored_key, server_key)


@implementer(IVerifiedCertificate)
@frozen
class CertificateCredentials:
    """See `IVerifiedCertificate`."""

    username: str
    fingerprint: str
    subject: str
    issuer: str


@implementer(IBearerToken)
@frozen
class TokenCredentials:
    """See `IBearerToken`."""

    username: str
    token: str = field(repr=False)


def _octets(password: bytes | str) -> bytes:
    return password.encode() if isinstance(password, str) else password
