"""The certificate request, and whether what was issued for it can be used."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from OpenSSL import crypto

from ...mail.printable import printable
from ..certificates import belong, costly
from .jws import base64url
from .messages import ACMEError

_MOST_CERTIFICATES = 10
_RSA_BITS = 2048
_BEGIN = re.compile(rb"-----BEGIN ([^-\r\n]{0,60})-----")


def new_key(key_type: str) -> PrivateKeyTypes:
    """Make the key of a certificate. Blocks: RSA takes a second.

    Args:
        key_type: ``ecdsa`` or ``rsa``.
    """
    if key_type == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
    return ec.generate_private_key(ec.SECP256R1())


def is_of(key: PrivateKeyTypes, key_type: str) -> bool:
    """Whether a key is of a type, and long enough to be used again."""
    if key_type == "rsa":
        return isinstance(key, rsa.RSAPrivateKey) and key.key_size >= _RSA_BITS
    return isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in (
        "secp256r1",
        "secp384r1",
    )


def certificate_request(names: Sequence[str], key: PrivateKeyTypes) -> bytes:
    """Return the request of a certificate for names (RFC 8555 §7.4), DER."""
    san = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.add_extension(san, critical=False).sign(key, SHA256())  # type: ignore[arg-type]
    return request.public_bytes(Encoding.DER)


def key_pem(key: PrivateKeyTypes) -> bytes:
    """Return a private key in PEM form."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def checked_chain(
    pem: bytes, *, key: PrivateKeyTypes, names: Sequence[str], now: float
) -> Sequence[x509.Certificate]:
    """Return the certificates that an authority has issued, ours first. Blocks.

    Args:
        pem: what it has sent.
        key: that was asked for.
        names: likewise.
        now: wall time, seconds since the epoch.

    Raises:
        ACMEError: the certificate cannot be used, and why.
    """
    try:
        return _checked(pem, key, names, datetime.fromtimestamp(now, UTC))
    except ACMEError as error:
        raise ACMEError(f"the certificate that was issued: {error.reason}", spent=True) from None


def _checked(
    pem: bytes, key: PrivateKeyTypes, names: Sequence[str], now: datetime
) -> Sequence[x509.Certificate]:
    # RFC 8555 §11.4: what goes into a file of the server holds certificates and nothing else.
    labels = _BEGIN.findall(pem)
    if any(label != b"CERTIFICATE" for label in labels):
        raise ACMEError("the chain has something else than certificates in it")
    if not 0 < len(labels) <= _MOST_CERTIFICATES:
        raise ACMEError(
            f"the chain has {len(labels)} certificates, expected 1 to {_MOST_CERTIFICATES}"
        )
    try:
        chain = x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ACMEError("the chain is no PEM that can be read") from None
    leaf = chain[0]
    if not belong(leaf, key):
        raise ACMEError("it is for another key than ours")
    missing = [name for name in names if name not in _names(leaf)]
    if missing:
        raise ACMEError(f"it is not for {printable(', '.join(missing[:3]))}")
    for number, each in enumerate(chain, 1):
        start, end = each.not_valid_before_utc, each.not_valid_after_utc
        which = "it" if number == 1 else f"certificate {number} of its chain"
        if start > now:
            raise ACMEError(
                f"{which} is not valid before {start:%Y-%m-%d %H:%M} UTC, and the clock of this"
                f" machine says {now:%Y-%m-%d %H:%M}"
            )
        if end <= now:
            raise ACMEError(
                f"{which} has expired on {end:%Y-%m-%d %H:%M} UTC, and the clock of this machine"
                f" says {now:%Y-%m-%d %H:%M}"
            )
    for number, (below, above) in enumerate(pairwise(chain), 1):
        if not _signed(below, above):
            raise ACMEError(f"certificate {number} of the chain is not signed by the next one")
    return chain


def _names(leaf: x509.Certificate) -> set[str]:
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return set()
    return {name.lower() for name in found.get_values_for_type(x509.DNSName)}


def _signed(below: x509.Certificate, above: x509.Certificate) -> bool:
    try:
        if costly(crypto.PKey.from_cryptography_key(above.public_key())):  # type: ignore[arg-type]
            return False
        below.verify_directly_issued_by(above)
    except (InvalidSignature, UnsupportedAlgorithm, TypeError, ValueError):
        return False
    return True


def certificate_id(certificate: x509.Certificate) -> str | None:
    """Return the identifier of a certificate in questions about its renewal (RFC 9773 §4.1).

    None: it names no key of its issuer.
    """
    try:
        found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except (x509.ExtensionNotFound, ValueError):
        return None
    if found.key_identifier is None:
        return None
    number = certificate.serial_number
    # The content of the DER form: two's complement, so that a leading bit of 1 needs a zero octet.
    serial = number.to_bytes(number.bit_length() // 8 + 1, "big")
    return f"{base64url(found.key_identifier)}.{base64url(serial)}"
