"""Certificates and keys in PEM files: reading them, and their dates."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from attrs import define, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from OpenSSL import SSL

from ..mail.printable import printable
from ..system.ownership import others_may_write

# What is said this long before a certificate expires still leaves time to renew it.
_SOON = timedelta(days=14)

_MOST_ERRORS = 4  # of one handshake; a peer chooses how many there are


class CertificateError(Exception):
    """A certificate or key that cannot be used: names the file, and says what is wrong."""


@frozen
class CertifiedKey:
    """A certificate with its chain and its private key, as two PEM files (or one) held them.

    Attributes:
        certificate_file: the path of the certificates.
        key_file: the path of the key; may be the same.
        chain: ours first, then its issuers as far as they are to be sent.
        key: the private key of the first.
    """

    certificate_file: str
    key_file: str
    chain: tuple[x509.Certificate, ...]
    key: PrivateKeyTypes = field(repr=False, eq=False)

    @classmethod
    def read(cls, certificate_file: str, key_file: str) -> CertifiedKey:
        """Read both files. Blocks.

        Raises:
            CertificateError: they cannot be read, or do not belong together.
        """
        chain = read_certificates(certificate_file)
        key = _read_key(key_file)
        if not belong(chain[0], key):
            others = [number for number, one in enumerate(chain, 1) if belong(one, key)]
            hint = (
                f"it belongs to certificate {others[0]} of the file, which has to come first"
                if others
                else "the key that the certificate was made for would do"
            )
            raise CertificateError(
                f"{printable(key_file)}: the key does not match the certificate in"
                f" {printable(certificate_file)}; {hint}"
            )
        return cls(certificate_file, key_file, tuple(chain), key)

    def load_into(self, context: SSL.Context) -> None:
        """Have connections of ``context`` show the certificate.

        Raises:
            CertificateError: OpenSSL does not take it.
        """
        try:
            context.use_certificate(self.chain[0])
            for above in self.chain[1:]:
                context.add_extra_chain_cert(above)
            context.use_privatekey(self.key)  # type: ignore[arg-type]
            context.check_privatekey()
        except (SSL.Error, TypeError, ValueError) as error:
            raise CertificateError(
                f"{printable(self.certificate_file)}: OpenSSL refuses it: {openssl_reason(error)};"
                " an ECDSA P-256 or RSA 2048 certificate would do"
            ) from None

    @property
    def certificate(self) -> x509.Certificate:
        """Our certificate."""
        return self.chain[0]

    @property
    def description(self) -> str:
        """What an operator would know it by: whose it is, until when, and its fingerprint."""
        certificate = self.certificate
        return (
            f"{subject(certificate) or 'a certificate without a subject'},"
            f" valid until {certificate.not_valid_after_utc:%Y-%m-%d},"
            f" SHA-256 {fingerprint(certificate)}"
        )

    def warnings(self, now: float) -> list[str]:
        """Return what is wrong with the certificate's dates at ``now`` (seconds since the epoch).

        It is used all the same: most senders do not look, and the others say so.
        """
        moment = datetime.fromtimestamp(now, UTC)
        name, certificate = printable(self.certificate_file), self.certificate
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if end < moment:
            return [f"{name}: the certificate expired on {end:%Y-%m-%d}; renew it"]
        if start > moment:
            return [f"{name}: the certificate is not valid before {start:%Y-%m-%d %H:%M} UTC"]
        if end < moment + _SOON:
            return [f"{name}: the certificate expires on {end:%Y-%m-%d}; renew it"]
        return []

    def is_valid(self, now: float) -> bool:
        """Whether the certificate's dates cover ``now``."""
        certificate, moment = self.certificate, datetime.fromtimestamp(now, UTC)
        return certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc


def fingerprint(certificate: x509.Certificate) -> str:
    """Return SHA-256 of the certificate's DER form, in lower-case hex without colons."""
    return certificate.fingerprint(hashes.SHA256()).hex()


LARGEST = 16_384
"""Octets of a peer's certificate up to which its names are read: some thousand of them, in 10 ms.
Those that people have are a tenth of that."""


def too_large(certificate: x509.Certificate) -> str:
    """Return how large a certificate is, if its names are not read for that; else nothing."""
    octets = len(certificate.public_bytes(Encoding.DER))
    return f"{octets} octets, and no more than {LARGEST} are read" if octets > LARGEST else ""


def subject(certificate: x509.Certificate) -> str:
    """Return the subject as printable RFC 4514 text, empty where it has none."""
    return _name(certificate, "subject")


def issuer(certificate: x509.Certificate) -> str:
    """Return the issuer, likewise."""
    return _name(certificate, "issuer")


def _name(certificate: x509.Certificate, which: Literal["subject", "issuer"]) -> str:
    if size := too_large(certificate):
        return f"unreadable: it has {size}"
    try:
        # `cryptography` reads names only now, and warns of attributes that are longer than
        # RFC 5280 allows: a warning for each handshake of whoever sends one is nothing we want.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            name = certificate.subject if which == "subject" else certificate.issuer
            return printable(name.rfc4514_string())
    except ValueError as error:
        return f"unreadable: {printable(str(error))}"


# What OpenSSL found wrong with a certificate, by its number; x509_vfy.h has more than pyOpenSSL.
_ERRORS: Mapping[int, str] = {
    **{
        number: name.removeprefix("ERR_").replace("_", " ").lower()
        for name, number in vars(SSL.X509VerificationCodes).items()
        if name.startswith("ERR_") and isinstance(number, int)
    },
    66: "ee key too small",
    67: "ca key too small",
    68: "ca md too weak",
}

# For those that operators meet, words that say what to mend.
_CHAIN_ERRORS: Mapping[int, str] = {
    **_ERRORS,
    2: "its certificate leads to no authority that we trust",
    7: "its certificate is not signed by the authority that it names",
    9: "its certificate, or one above it, is not valid yet",
    10: "its certificate, or one above it, has expired",
    18: "its certificate is self-signed",
    19: "its certificate leads to no authority that we trust",
    20: "its certificate leads to no authority that we trust",
    21: "its certificate leads to no authority that we trust",
    26: "its certificate is not for servers",
    66: "the key of its certificate is too short",
    67: "the key of an authority above its certificate is too short",
    68: "an authority above its certificate has signed with a weak digest",
}


def chain_error(number: int) -> str:
    """Return what is wrong with a peer's certificate where OpenSSL says ``number``."""
    return _CHAIN_ERRORS.get(number, f"error {number} in its certificate")


@define(eq=False)
class ChainCheck:
    """What OpenSSL thinks of the certificates of one peer.

    Attributes:
        checked: whether it looked at one in this very connection.
        errors: what it found wrong with their chain.
    """

    checked: bool = False
    errors: list[str] = field(factory=list)

    def note(self, error: str, *, ok: int) -> None:
        """Take in what it said of one certificate; ``error`` means something where it is not ok."""
        self.checked = True
        if not ok and error not in self.errors and len(self.errors) < _MOST_ERRORS:
            self.errors.append(error)


def openssl_error(number: int) -> str:
    """Return what OpenSSL means by an error of verification, in its own words."""
    return _ERRORS.get(number, f"error {number}")


def openssl_reason(error: BaseException | None) -> str:
    """Return what OpenSSL said of an error, or the error's own text; printable."""
    if isinstance(error, SSL.Error) and error.args and isinstance(error.args[0], list | tuple):
        texts = ", ".join(str(each[-1]) for each in error.args[0] if each)
        return printable(texts) or "OpenSSL gives no reason"
    return printable(str(error)) or type(error).__name__


def _read(file: str, *, secret: bool = False) -> bytes:
    try:
        with open(file, "rb") as opened:
            if secret and (written := others_may_write(os.fstat(opened.fileno()))):
                raise CertificateError(f"{printable(file)}: {written}; chmod 0640 would do")
            return opened.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CertificateError(f"{printable(file)}: cannot be read: {reason}") from None


def read_certificates(file: str) -> Sequence[x509.Certificate]:
    """Return the certificates of a PEM file, in their order, at least one. Blocks.

    Raises:
        CertificateError: the file cannot be read, or holds none.
    """
    try:
        return x509.load_pem_x509_certificates(_read(file))
    except ValueError:
        raise CertificateError(
            f"{printable(file)}: holds no certificate in PEM form;"
            " a file with -----BEGIN CERTIFICATE----- would do"
        ) from None


class CertificateFiles:
    """Certificates and keys, each file of which is read once."""

    def __init__(self) -> None:
        self._keys: dict[tuple[str, str], CertifiedKey] = {}
        self._authorities: dict[str, tuple[x509.Certificate, ...]] = {}

    def key(self, certificate_file: str, key_file: str) -> CertifiedKey:
        """Return a certificate with its key (`CertifiedKey.read`)."""
        files = certificate_file, key_file
        if files not in self._keys:
            self._keys[files] = CertifiedKey.read(*files)
        return self._keys[files]

    def authorities(self, file: str) -> tuple[x509.Certificate, ...]:
        """Return the certificates of a file (`read_certificates`)."""
        if file not in self._authorities:
            self._authorities[file] = tuple(read_certificates(file))
        return self._authorities[file]


def _read_key(file: str) -> PrivateKeyTypes:
    try:
        # To look whether the factors of an RSA key are primes takes 36 ms for 2,048 bits and 250
        # for 4,096, in which nothing else happens. That it signs takes 3.
        key = load_pem_private_key(
            _read(file, secret=True), None, unsafe_skip_rsa_key_validation=True
        )
        if isinstance(key, rsa.RSAPrivateKey):
            scheme = padding.PKCS1v15(), hashes.SHA256()
            key.public_key().verify(key.sign(b"", *scheme), b"", *scheme)
        return key
    except CertificateError:
        raise
    except TypeError:
        raise CertificateError(
            f"{printable(file)}: the key has a passphrase; one without would do"
        ) from None
    except Exception:  # ValueError, UnsupportedAlgorithm, and whatever a broken key brings up
        raise CertificateError(
            f"{printable(file)}: holds no private key in PEM form;"
            " a file with -----BEGIN PRIVATE KEY----- would do"
        ) from None


def belong(certificate: x509.Certificate, key: PrivateKeyTypes) -> bool:
    """Whether a certificate was made for a key, as far as can be told."""
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    try:
        return certificate.public_key().public_bytes(*form) == key.public_key().public_bytes(*form)
    except Exception:  # a kind of key that `cryptography` does not know: OpenSSL will say
        return True
