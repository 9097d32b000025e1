"""Certificates and keys in PEM files: read them, describe them, and check their dates."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from attrs import define, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from OpenSSL import SSL, crypto
from OpenSSL._util import lib

from ..config.unreadable import unreadable
from ..mail.printable import printable
from ..system.ownership import others_may_write

# A warning this long before the expiry leaves time to renew a certificate; one that is valid for a
# few weeks or days has it in the last quarter of its life.
_SOON = timedelta(days=14)
_SOON_OF_LIFE = 4

_NAMED = 3  # authorities in a line
_MOST_ERRORS = 4  # of one chain: the peer decides how many there are


class CertificateError(Exception):
    """A certificate or key that cannot be used; the text has the file and the reason."""


@frozen
class CertificateFault:
    """A fault in the dates of a certificate.

    Attributes:
        file: its name, printable.
        text: the fault; for operators.
        invalid: whether the certificate is not valid now; else it soon will not be.
    """

    file: str
    text: str
    invalid: bool


@frozen
class CertifiedKey:
    """A certificate with its chain and private key, from one or two PEM files.

    Attributes:
        certificate_file: the path of the certificates.
        key_file: the path of the key; may be the same.
        chain: the certificate first, then the issuers that are sent with it.
        key: the private key of the certificate.
    """

    certificate_file: str
    key_file: str
    chain: tuple[x509.Certificate, ...]
    key: PrivateKeyTypes = field(repr=False, eq=False)

    @classmethod
    def read(cls, certificate_file: str, key_file: str) -> CertifiedKey:
        """Read both files. Blocks.

        Raises:
            CertificateError: a file cannot be read, or the key is not that of the certificate.
        """
        chain = read_certificates(certificate_file)
        key = read_key(key_file)
        if not belong(chain[0], key):
            others = [place for place, each in enumerate(chain, 1) if belong(each, key)]
            hint = (
                f"expected certificate {others[0]} of the file, whose key it is, to be the first"
                if others
                else "expected the key that the certificate was made for"
            )
            raise CertificateError(
                f"{printable(key_file)}: the key does not match the certificate in"
                f" {printable(certificate_file)}; {hint}"
            )
        return cls(certificate_file, key_file, tuple(chain), key)

    def load_into(self, context: SSL.Context) -> None:
        """Use the certificate for connections of ``context``.

        Raises:
            CertificateError: OpenSSL refuses it.
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
                " expected an ECDSA P-256 or RSA 2048 certificate"
            ) from None

    @property
    def certificate(self) -> x509.Certificate:
        """The first certificate of the chain."""
        return self.chain[0]

    @property
    def description(self) -> str:
        """A line for operators: the subject, the last day of validity, and the fingerprint."""
        certificate = self.certificate
        return (
            f"{subject(certificate) or 'a certificate without a subject'},"
            f" valid until {certificate.not_valid_after_utc:%Y-%m-%d},"
            f" SHA-256 {fingerprint(certificate)}"
        )

    def fault(self, now: float) -> CertificateFault | None:
        """Return what is wrong with the certificate's dates at ``now`` (seconds since the epoch).

        It is used all the same: most peers do not verify it.
        """
        moment = datetime.fromtimestamp(now, UTC)
        name, certificate = printable(self.certificate_file), self.certificate
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        invalid = not start <= moment <= end
        if end < moment:
            text = f"{name}: the certificate expired on {end:%Y-%m-%d}; renew it"
        elif start > moment:
            text = f"{name}: the certificate is not valid before {start:%Y-%m-%d %H:%M} UTC"
        elif end < moment + _soon(end - start):
            text = f"{name}: the certificate expires on {end:%Y-%m-%d}; renew it"
        else:
            return None
        return CertificateFault(file=name, text=text, invalid=invalid)

    def warnings(self, now: float) -> list[str]:
        """Return warnings about the certificate's dates (`fault`)."""
        fault = self.fault(now)
        return [] if fault is None else [fault.text]


def _soon(life: timedelta) -> timedelta:
    """Return how long before its expiry a certificate is warned about."""
    return _SOON if life > 2 * _SOON else life / _SOON_OF_LIFE


def fingerprint(certificate: x509.Certificate) -> str:
    """Return SHA-256 of the certificate's DER form, in lower-case hex without colons."""
    return certificate.fingerprint(hashes.SHA256()).hex()


LARGEST = 16_384
"""Octets of a peer's certificate up to which its names are read: about a thousand names, in 10 ms.
Usual certificates have a tenth of that."""


def too_large(certificate: x509.Certificate) -> str:
    """Return the size of a certificate whose names are not read because of it; empty for others."""
    octets = len(certificate.public_bytes(Encoding.DER))
    return f"{octets} octets, and no more than {LARGEST} are read" if octets > LARGEST else ""


MOST_ABOVE = 9
"""Certificates of a peer's chain, above its own, that are verified at the most. With the limits of
`costly` that takes a few milliseconds; a hundred certificates could take a second."""

_LONGEST_RSA = 8192  # bits: 0.5 ms for a signature; with 16,384 it takes 5 ms
_LONGEST_EXPONENT = 64  # bits; usual are 17. With 3,072, a signature takes 10 ms
_LONGEST_DSA = 3072  # bits


def costly(pkey: crypto.PKey) -> str:
    """Return why a signature of a public key takes too long to verify; empty for other keys."""
    if pkey.type() not in (crypto.TYPE_RSA, crypto.TYPE_DSA):
        return ""  # `cryptography` checks keys for Diffie-Hellman for seconds
    key = pkey.to_cryptography_key()
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size > _LONGEST_RSA:
            return f"a key of {key.key_size} bits; expected {_LONGEST_RSA} at most"
        exponent = key.public_numbers().e.bit_length()
        if exponent > _LONGEST_EXPONENT:
            return (
                f"a key with an exponent of {exponent} bits; expected {_LONGEST_EXPONENT} at most"
            )
    elif isinstance(key, dsa.DSAPublicKey) and key.key_size > _LONGEST_DSA:
        return f"a DSA key of {key.key_size} bits; expected {_LONGEST_DSA} at most"
    return ""


def refuse_costly(certificate: crypto.X509) -> None:
    """Raise for a certificate whose key must not be used, to verify another one of its chain.

    OpenSSL shows each certificate to the callback of a context before it uses the key.

    Raises:
        SSL.Error: ends the handshake.
    """
    try:
        found = costly(certificate.get_pubkey())
    except Exception:  # a key that cannot be read verifies nothing
        return
    if found:
        raise SSL.Error([("", "", f"its chain has {found}")])


def subject(certificate: x509.Certificate) -> str:
    """Return the subject as printable RFC 4514 text, empty where it has none."""
    return _name(certificate, "subject")


def issuer(certificate: x509.Certificate) -> str:
    """Return the issuer as printable RFC 4514 text, empty where it has none."""
    return _name(certificate, "issuer")


def _name(certificate: x509.Certificate, which: Literal["subject", "issuer"]) -> str:
    if size := too_large(certificate):
        return f"unreadable: it has {size}"
    try:
        # `cryptography` parses names only now, and warns about attributes longer than RFC 5280
        # allows; a peer with such a certificate must not write to our log at each handshake.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            name = certificate.subject if which == "subject" else certificate.issuer
            return printable(name.rfc4514_string())
    except ValueError as error:
        return f"unreadable: {printable(str(error))}"


# OpenSSL's verification errors by number; x509_vfy.h has more than pyOpenSSL exports.
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

# Words for operators, for the errors that they meet.
_CHAIN_ERRORS: Mapping[int, str] = {
    **_ERRORS,
    2: "its certificate leads to no trusted authority",
    7: "its certificate is not signed by the authority that it names",
    9: "its certificate, or one above it, is not valid yet",
    10: "its certificate, or one above it, has expired",
    18: "its certificate is self-signed",
    19: "its certificate leads to no trusted authority",
    20: "its certificate leads to no trusted authority",
    21: "its certificate leads to no trusted authority",
    26: "its certificate is not for servers",
    66: "the key of its certificate is too short",
    67: "the key of an authority above its certificate is too short",
    68: "an authority above its certificate has signed with a weak digest",
}


def chain_error(number: int) -> str:
    """Return the reason, for operators, why a chain failed with a verification error of OpenSSL."""
    return _CHAIN_ERRORS.get(number, f"error {number} in its certificate")


@define(eq=False)
class ChainCheck:
    """The verification of one peer's chain by OpenSSL.

    Attributes:
        checked: whether a certificate was verified in this very connection.
        errors: of the chain.
    """

    checked: bool = False
    errors: list[str] = field(factory=list)

    def note(self, error: str, *, ok: int) -> None:
        """Record the verification of one certificate; ``error`` counts where ``ok`` is 0.

        The handshake goes on, so OpenSSL has to forget an error: 3.4 would report it at the next
        read of any connection of this thread.
        """
        self.checked = True
        if not ok:
            lib.ERR_clear_error()
        if not ok and error not in self.errors and len(self.errors) < _MOST_ERRORS:
            self.errors.append(error)


def openssl_error(number: int) -> str:
    """Return a verification error of OpenSSL in its own words."""
    return _ERRORS.get(number, f"error {number}")


def openssl_reason(error: BaseException | None) -> str:
    """Return the reason that OpenSSL gives for an error, or the error's own text; printable."""
    if isinstance(error, SSL.Error) and error.args and isinstance(error.args[0], list | tuple):
        texts = ", ".join(str(each[-1]) for each in error.args[0] if each)
        return printable(texts) or "OpenSSL gives no reason"
    return printable(str(error)) or type(error).__name__


def _read(file: str, *, secret: bool = False) -> bytes:
    try:
        with open(file, "rb") as opened:
            if secret and (written := others_may_write(os.fstat(opened.fileno()))):
                raise CertificateError(f"{printable(file)}: {written}; expected chmod 0640")
            return opened.read()
    except (OSError, ValueError) as error:
        raise CertificateError(f"{printable(file)}: {unreadable(file, error)}") from None


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
            " expected a file with -----BEGIN CERTIFICATE-----"
        ) from None


def described(authorities: Sequence[x509.Certificate]) -> str:
    """Return the number of authorities with the subjects of the first few, printable."""
    names = ", ".join(map(subject, authorities[:_NAMED]))
    more = f" and {len(authorities) - _NAMED} more" if len(authorities) > _NAMED else ""
    return f"{len(authorities)} ({names}{more})" if authorities else "0"


class CertificateFiles:
    """Reads each file of certificates and keys once, for all listeners of a configuration.

    Args:
        known: certificates that were read already.
    """

    def __init__(self, known: Sequence[CertifiedKey] = ()) -> None:
        self._keys = {(key.certificate_file, key.key_file): key for key in known}
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


def read_key(file: str) -> PrivateKeyTypes:
    """Return the private key of a PEM file. Blocks.

    Raises:
        CertificateError: the file cannot be read, or holds none that can be used.
    """
    try:
        # Testing the factors of an RSA key for primality blocks for 36 ms with 2,048 bits and 250
        # with 4,096. A trial signature takes 3 ms.
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
            f"{printable(file)}: the key has a passphrase; expected one without"
        ) from None
    except Exception:  # ValueError, UnsupportedAlgorithm, and others for broken keys
        raise CertificateError(
            f"{printable(file)}: holds no private key in PEM form;"
            " expected a file with -----BEGIN PRIVATE KEY-----"
        ) from None


def belong(certificate: x509.Certificate, key: PrivateKeyTypes) -> bool:
    """Whether a certificate is that of a key; true where `cryptography` cannot tell."""
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    try:
        return certificate.public_key().public_bytes(*form) == key.public_key().public_bytes(*form)
    except Exception:  # a kind of key unknown to `cryptography`: OpenSSL decides
        return True
