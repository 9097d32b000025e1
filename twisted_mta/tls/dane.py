"""DANE for SMTP: does the chain of a server fit its TLSA records (RFC 6698, 7671, 7672); pure.

The records come from DNSSEC, the chain from anyone. Whatever is in it, its check takes time that
grows with its size alone: at most `_MOST_CERTIFICATES` of it are looked at.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Sequence

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import crypto

from ..mail.printable import printable
from ..mail.tlsa import TLSA
from .certificates import MOST_ABOVE, chain_error, costly, too_large
from .public_keys import read_public_key

TRUST_ANCHOR, END_ENTITY = 2, 3  # certificate usages DANE-TA and DANE-EE
CERTIFICATE, PUBLIC_KEY = 0, 1  # selectors
FULL, SHA256, SHA512 = 0, 1, 2  # matching types

_LENGTHS = {SHA256: 32, SHA512: 64}
_MOST_CERTIFICATES = 1 + MOST_ABOVE  # of a chain
# Checks of signatures take most time: 0.3 ms for each with such a key.
_MOST_KEYS = 3  # records with a key alone
_MOST_SIGNED = 3  # certificates of a chain that such a key may have signed, the last ones
_MOST_WHOLE = 10  # records with an authority's whole certificate
_LONGEST_ALONE = 4096  # the same of a record with a key alone
_MOST_NAMES = 3  # in a reason
_LONGEST_NAME = 100

_DATES = (9, 10)  # errors of OpenSSL: not valid yet, expired


class Malformed(ValueError):
    """Octets that are no certificate."""


def usable(records: Iterable[TLSA]) -> tuple[TLSA, ...]:
    """Return the records that a client of SMTP can use, the strongest of each kind.

    Usages 0 and 1 are not usable with SMTP (RFC 7672 §3.1.3), nor is what is not understood or
    malformed (RFC 6698 §4.1).
    """
    known = dict.fromkeys(each for each in records if _is_usable(each))
    for selector, most in ((PUBLIC_KEY, _MOST_KEYS), (CERTIFICATE, _MOST_WHOLE)):
        full = (TRUST_ANCHOR, selector, FULL)
        alike = [each for each in known if (each.usage, each.selector, each.matching) == full]
        for each in alike[most:]:
            del known[each]
    strongest: dict[tuple[int, int], int] = {}
    for each in known:
        kind = each.usage, each.selector
        strongest[kind] = max(strongest.get(kind, FULL), each.matching)
    # RFC 7671 §9: of the digests that a usage and selector have, only the strongest counts; full
    # values count beside it.
    return tuple(
        each for each in known if each.matching in (FULL, strongest[each.usage, each.selector])
    )


def _is_usable(record: TLSA) -> bool:
    if record.usage not in (TRUST_ANCHOR, END_ENTITY):
        return False
    if record.selector not in (CERTIFICATE, PUBLIC_KEY):
        return False
    if record.matching != FULL:
        return len(record.data) == _LENGTHS.get(record.matching)
    try:
        if record.selector == CERTIFICATE:
            x509.load_der_x509_certificate(record.data)
        else:
            key = read_public_key(record.data)
            if isinstance(key, rsa.RSAPublicKey):
                pkey = crypto.PKey.from_cryptography_key(key)
                return pkey.bits() <= _LONGEST_ALONE and not costly(pkey)
    except Exception:  # whatever `cryptography` raises: it cannot be used
        return False
    return True


@frozen
class Verdict:
    """Whether a chain fits.

    Attributes:
        record: the record that it fits, None where it fits none.
        problem: why it fits none, for people; empty where it fits one.
    """

    record: TLSA | None
    problem: str = ""


def verify(chain: Sequence[bytes], records: Sequence[TLSA], names: Sequence[str]) -> Verdict:
    """Return whether the chain of a server fits one of its TLSA records.

    Args:
        chain: certificates in DER form as the server sent them, its own first.
        records: those that are `usable`.
        names: one of which the certificate must have, with usage DANE-TA: A-labels, lower case.
    """
    if not chain:
        return Verdict(None, "it has no certificate")
    chain = chain[:_MOST_CERTIFICATES]
    try:
        own = _Forms(chain[0])
        above = [_Forms(each) for each in chain[1:]]
    except Malformed as error:
        return Verdict(None, f"its certificate cannot be read: {error}")
    # RFC 7671 §5.1, RFC 7672 §3.1.1: neither names nor dates count with DANE-EE.
    for record in records:
        if record.usage == END_ENTITY and own.fits(record):
            return Verdict(record)
    anchors = [
        (record, anchor)
        for record in records
        if record.usage == TRUST_ANCHOR
        for anchor in _anchors(record, own, above)
    ]
    if not anchors:
        return Verdict(None, f"its certificates fit none of its {_counted(records)}")
    problem = _chain_problem(chain, [anchor for _, anchor in anchors])
    if not problem:
        problem = name_problem(chain[0], names)
    return Verdict(None, problem) if problem else Verdict(anchors[0][0])


def _counted(records: Sequence[TLSA]) -> str:
    shown = ", ".join(map(str, records[:2]))
    more = f" and {len(records) - 2} more" if len(records) > 2 else ""
    return f"TLSA records ({shown}{more})"


class _Forms:
    """A certificate in the forms that TLSA records may have (RFC 6698 §2.1)."""

    def __init__(self, der: bytes) -> None:
        self.der = der
        self._octets = (der, public_key_info(der))
        self._found: dict[tuple[int, int], bytes] = {}

    def fits(self, record: TLSA) -> bool:
        key = record.selector, record.matching
        form = self._found.get(key)
        if form is None:
            form = self._found[key] = _matched(self._octets[record.selector], record.matching)
        return form == record.data


def _matched(octets: bytes, matching: int) -> bytes:
    if matching == FULL:
        return octets
    return (hashlib.sha256 if matching == SHA256 else hashlib.sha512)(octets).digest()


def _anchors(record: TLSA, own: _Forms, above: Sequence[_Forms]) -> Iterator[bytes]:
    """Yield the certificates that a record of usage DANE-TA makes trust anchors.

    They have to be in the chain, above the server's own (RFC 7671 §5.2.2), unless the record holds
    the whole certificate, or the key that has signed one of the chain (§5.2.3).
    """
    for each in above:
        if each.fits(record):
            yield each.der
    if record.matching != FULL:
        return
    if record.selector == CERTIFICATE:
        if record.data != own.der:
            yield record.data
        return
    # It is that of the authority above the top of the chain, which may be in any order.
    for each in (own, *above)[-_MOST_SIGNED:]:
        if _is_signed_by(each.der, record.data):
            yield each.der


def _is_signed_by(der: bytes, key: bytes) -> bool:
    """Whether a certificate is signed by a key (SubjectPublicKeyInfo in DER form)."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        public = read_public_key(key)
        signature, signed = certificate.signature, certificate.tbs_certificate_bytes
        parameters = certificate.signature_algorithm_parameters
        if isinstance(public, rsa.RSAPublicKey):
            digest = certificate.signature_hash_algorithm
            public.verify(signature, signed, parameters, digest)  # type: ignore[arg-type]
        elif isinstance(public, ec.EllipticCurvePublicKey):
            public.verify(signature, signed, parameters)  # type: ignore[arg-type]
        elif isinstance(public, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
            public.verify(signature, signed)
        else:
            return False
    except Exception:  # InvalidSignature, or an algorithm that is not that of the key
        return False
    return True


def _chain_problem(chain: Sequence[bytes], anchors: Sequence[bytes]) -> str:
    """Return why a chain leads to none of its anchors now; empty where it does (RFC 7671 §5.2)."""
    store = crypto.X509Store()
    try:
        for anchor in dict.fromkeys(anchors):
            store.add_cert(_loaded(anchor))
        # A trust anchor need not be the top of its own chain.
        store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
        own, *above = map(_loaded, chain)
        for each in (own, *above, *map(_loaded, anchors)):
            if found := costly(each.get_pubkey()):
                return f"its chain has {found}"
        crypto.X509StoreContext(store, own, above).verify_certificate()
    except crypto.X509StoreContextError as error:
        number = error.errors[0]
        if number in _DATES:
            return chain_error(number)
        return f"its chain leads to no certificate of its TLSA records: {printable(str(error))}"
    except Exception as error:
        return f"its chain cannot be verified: {printable(str(error))[:200]}"
    return _purpose_problem(chain[0])


def _loaded(der: bytes) -> crypto.X509:
    return crypto.load_certificate(crypto.FILETYPE_ASN1, der)


def _purpose_problem(der: bytes) -> str:
    try:
        certificate = x509.load_der_x509_certificate(der)
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return ""
    except Exception as error:
        return f"its certificate cannot be read: {printable(str(error))[:200]}"
    for_servers = (
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    )
    if any(each in usage for each in for_servers):
        return ""
    return "its certificate is not for servers"


# Names.


def name_problem(der: bytes, names: Sequence[str]) -> str:
    """Return why a certificate has none of some names; empty where it has one (RFC 7672 §3.2.3).

    Common names count where there is no DNS name in the subjectAltName. A wildcard is a whole
    first label.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        if size := too_large(certificate):
            return f"its certificate has {size}"
        with warnings.catch_warnings():  # `cryptography` warns about names of the wrong length
            warnings.simplefilter("ignore")
            presented = _presented(certificate)
    except Exception as error:
        return f"its certificate cannot be read: {printable(str(error))[:200]}"
    allowed = {variant for name in names for variant in _variants(name.lower())}
    if any(each.lower() in allowed for each in presented):
        return ""
    shown = ", ".join(printable(each)[:_LONGEST_NAME] for each in presented[:_MOST_NAMES])
    more = len(presented) - _MOST_NAMES
    shown += f" and {more} more" if more > 0 else ""
    return f"its certificate is not for {' or '.join(names)}, but for {shown or 'no name'}"


def _variants(name: str) -> tuple[str, ...]:
    _, dot, parent = name.partition(".")
    return (name, f"*.{parent}") if dot and parent else (name,)


def _presented(certificate: x509.Certificate) -> Sequence[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        names: Sequence[str] = ()
    else:
        names = extension.value.get_values_for_type(x509.DNSName)
    if names:
        return names
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return [each.value for each in common if isinstance(each.value, str)]


# The key within a certificate, with its octets as they are.


def public_key_info(der: bytes) -> bytes:
    """Return the SubjectPublicKeyInfo of a certificate in DER form (RFC 5280 §4.1).

    Raises:
        Malformed: it is no certificate.
    """
    try:
        certificate, _ = _content(der, 0, 0x30)
        at, end = _content(der, certificate, 0x30)  # TBSCertificate
        if der[at] == 0xA0:  # the version, which may be missing
            at = _content(der, at, 0xA0)[1]
        for tag in (0x02, 0x30, 0x30, 0x30, 0x30):  # serial number … subject
            at = _content(der, at, tag)[1]
        behind = _content(der, at, 0x30)[1]
    except IndexError:
        raise Malformed("it ends too early") from None
    if behind > end:
        raise Malformed("its key is longer than itself")
    return der[at:behind]


def _content(der: bytes, at: int, tag: int) -> tuple[int, int]:
    """Return where the content of an element begins, and where it ends (X.690 §8.1)."""
    if der[at] != tag:
        raise Malformed(f"found tag {der[at]:#x}, expected {tag:#x}")
    length = der[at + 1]
    begin = at + 2
    if length & 0x80:
        octets = length & 0x7F
        if not 0 < octets <= 4:
            raise Malformed("an element of unlimited length")
        begin += octets
        length = int.from_bytes(der[at + 2 : begin], "big")
    end = begin + length
    if end > len(der):
        raise Malformed("an element longer than itself")
    return begin, end
