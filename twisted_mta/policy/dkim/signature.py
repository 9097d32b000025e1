"""One signature of a message: the DKIM-Signature field (RFC 6376 §3.5, §6.1.1)."""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Literal, cast

from attrs import frozen

from ...mail.address import AddressError, domain_name
from .canonicalization import Canonicalization
from .key_record import KeyType
from .tags import TagError, names, parse_tags, without_white_space

Algorithm = Literal["rsa-sha256", "ed25519-sha256"]

KeyId = tuple[str, KeyType]
"""The domain name of a key record, and the type of the key."""

_KEY_TYPES: Mapping[str, KeyType] = {"rsa-sha256": "rsa", "ed25519-sha256": "ed25519"}
# RFC 6376 §3.5: sig-l-tag has at most 76 digits, sig-t-tag and sig-x-tag at most 12.
_DIGITS = re.compile(r"[0-9]{1,76}")
_TIME = re.compile(r"[0-9]{1,12}")
# RFC 6376 §3.5: sig-h-tag = %x68 [FWS] "=" [FWS] hdr-name *( [FWS] ":" [FWS] hdr-name )
# RFC 5322 §3.6.8: field-name = 1*ftext; a semicolon would end the tag.
_FIELD_NAMES = re.compile(r"[!-9<-~]++(?:[ \t\r\n]*+:[ \t\r\n]*+[!-9<-~]++)*+")
_LONGEST_NAME = 253  # octets of a domain name
_MOST_FIELDS = 1_000  # names in h=
_LONGEST_REMEMBERED = 1_024  # characters of h=; most signers have a few hundred

_CANONICALIZATIONS: Mapping[str, tuple[Canonicalization, Canonicalization]] = {
    "relaxed/relaxed": ("relaxed", "relaxed"),
    "relaxed/simple": ("relaxed", "simple"),
    "simple/simple": ("simple", "simple"),
}
"""The usual values of ``c=``."""


class SignatureError(ValueError):
    """A signature that cannot be verified.

    Attributes:
        result: ``neutral`` for errors of the syntax, ``permerror`` for what the standard demands
            and the signature has not (RFC 8601 §2.7.1).
    """

    def __init__(self, result: Literal["neutral", "permerror"], reason: str) -> None:
        super().__init__(reason)
        self.result: Literal["neutral", "permerror"] = result


@frozen
class DomainSignature:
    """The signature of a domain: the tags that signatures of all kinds have.

    Attributes:
        algorithm: of the signature (``a=``).
        signature: its octets (``b=``).
        domain: the signing domain (``d=``), in A-labels and lower case.
        selector: of the key (``s=``), in A-labels and lower case.
        key_id: of the key.
    """

    algorithm: Algorithm
    signature: bytes
    domain: str
    selector: str
    key_id: KeyId

    @classmethod
    def of(cls, tags: Mapping[str, str]) -> DomainSignature:
        """Return the signature that tags describe.

        Raises:
            SignatureError: a tag is missing, or has a syntax error.
        """
        require(tags, "a", "b", "d", "s")
        algorithm = tags["a"]
        if algorithm not in _KEY_TYPES:
            # RFC 8301 §3.1: a signature by rsa-sha1 has permanently failed.
            raise SignatureError(
                "permerror", f"found a={algorithm[:40]!a}, expected rsa-sha256 or ed25519-sha256"
            )
        domain = _domain(tags, "d")
        selector = _selector(tags["s"], domain)
        key_id = _key_name(selector, domain), _KEY_TYPES[algorithm]
        return cls(cast(Algorithm, algorithm), _base64(tags, "b"), domain, selector, key_id)


@frozen(kw_only=True)
class Signature:
    """A signature of a message, as its tags state it.

    Attributes:
        signer: the domain that signs, and how.
        body_hash: the hash of the body (``bh=``).
        header_canonicalization: of the header (``c=``).
        body_canonicalization: of the body (``c=``).
        fields: names of the signed fields (``h=``) in lower case, in their order.
        identity_domain: the domain of the identity (``i=``), in A-labels and lower case.
        length: octets of the canonical body that are signed (``l=``); None: all.
        expires: seconds since the epoch (``x=``); None: never.
    """

    signer: DomainSignature
    body_hash: bytes
    header_canonicalization: Canonicalization
    body_canonicalization: Canonicalization
    fields: tuple[bytes, ...]
    identity_domain: str
    length: int | None
    expires: int | None

    @classmethod
    def of(cls, tags: Mapping[str, str]) -> Signature:
        """Return the signature that tags describe; their version is for the caller to check.

        Raises:
            SignatureError: it has a syntax error, or breaks a rule of RFC 6376 §6.1.1.
        """
        require(tags, "a", "b", "bh", "d", "h", "s")
        signer = DomainSignature.of(tags)
        named = tags["h"]
        fields = (_known_names if len(named) <= _LONGEST_REMEMBERED else _field_names)(named)
        if len(fields) > _MOST_FIELDS:
            raise SignatureError(
                "permerror", f"found {len(fields)} names in h=, expected {_MOST_FIELDS} at most"
            )
        if b"from" not in fields:
            raise SignatureError("permerror", "the field From is not signed")
        if "q" in tags and "dns/txt" not in names(tags["q"]):
            raise SignatureError("permerror", f"found q={tags['q'][:40]!a}, expected dns/txt")
        header_canonicalization, body_canonicalization = _canonicalizations(tags.get("c", "simple"))
        return cls(
            signer=signer,
            body_hash=_base64(tags, "bh"),
            header_canonicalization=header_canonicalization,
            body_canonicalization=body_canonicalization,
            fields=fields,
            identity_domain=_identity_domain(tags, signer.domain),
            length=_number(tags, "l", _DIGITS),
            expires=_expiration(tags),
        )


def require(tags: Mapping[str, str], *needed: str) -> None:
    """Check that tags are there, and not empty.

    Raises:
        SignatureError: one of them is not.
    """
    for name in needed:
        if not tags.get(name):
            raise SignatureError("permerror", f"found no {name}=, expected one")


def _syntax_error(name: str, value: str, expected: str) -> SignatureError:
    return SignatureError("neutral", f"found {name}={value[:40]!a}, expected {expected}")


def _base64(tags: Mapping[str, str], name: str) -> bytes:
    try:
        return binascii.a2b_base64(without_white_space(tags[name]), strict_mode=True)
    except ValueError:
        raise _syntax_error(name, tags[name], "base64") from None


def _domain(tags: Mapping[str, str], name: str) -> str:
    """Return a domain in A-labels (RFC 8616 §5)."""
    domain = _a_labels(tags[name])
    if domain is None or "." not in domain:
        raise _syntax_error(name, tags[name], "a domain")
    return domain


def _selector(text: str, domain: str) -> str:
    selector = _a_labels(text)
    if selector is None or len(_key_name(selector, domain)) > _LONGEST_NAME:
        raise _syntax_error("s", text, "a selector")
    return selector


def _key_name(selector: str, domain: str) -> str:
    return f"{selector}._domainkey.{domain}"  # RFC 6376 §3.6.2.1


def _a_labels(text: str) -> str | None:
    if len(text) > _LONGEST_NAME or text.startswith("["):
        return None
    try:
        return domain_name(text)
    except AddressError:
        return None


def _field_names(value: str) -> tuple[bytes, ...]:
    if not _FIELD_NAMES.fullmatch(value):
        raise _syntax_error("h", value, "names of fields")
    return tuple(name.strip() for name in value.lower().encode("ascii").split(b":"))


@lru_cache(maxsize=256)  # all mail of one signer has the same
def _known_names(value: str) -> tuple[bytes, ...]:
    return _field_names(value)


def _canonicalizations(value: str) -> tuple[Canonicalization, Canonicalization]:
    # "If only one algorithm is named, that algorithm is used for the header and 'simple' is used
    # for the body."
    if value in _CANONICALIZATIONS:
        return _CANONICALIZATIONS[value]
    parts = (*value.split("/"), "simple")[:2] if value.count("/") < 2 else ("", "")
    header, body = (part.strip() for part in parts)
    if header not in ("simple", "relaxed") or body not in ("simple", "relaxed"):
        raise SignatureError(
            "permerror", f"found c={value[:40]!a}, expected simple or relaxed for header and body"
        )
    return cast(Canonicalization, header), cast(Canonicalization, body)


def _identity_domain(tags: Mapping[str, str], domain: str) -> str:
    if "i" not in tags:
        return domain
    _, at, text = tags["i"].rpartition("@")
    identity_domain = _a_labels(text)
    if not at or identity_domain is None:
        raise _syntax_error("i", tags["i"], "an address")
    if identity_domain != domain and not identity_domain.endswith(f".{domain}"):
        # RFC 6376 §6.1.1: "domain mismatch"
        raise SignatureError("permerror", "the domain of i= is not d=, nor below it")
    return identity_domain


def _number(tags: Mapping[str, str], name: str, pattern: re.Pattern[str]) -> int | None:
    if name not in tags:
        return None
    if not pattern.fullmatch(tags[name]):
        raise _syntax_error(name, tags[name], "a number")
    return int(tags[name])


def _expiration(tags: Mapping[str, str]) -> int | None:
    made, expires = _number(tags, "t", _TIME), _number(tags, "x", _TIME)
    if made is not None and expires is not None and expires <= made:
        raise SignatureError("permerror", "x= is not later than t=")
    return expires


def parse_signature(value: bytes) -> tuple[Mapping[str, str], Signature | SignatureError]:
    """Return the tags in the value of a DKIM-Signature field, and the signature or its error."""
    try:
        tags = parse_tags(value)
    except TagError as error:
        return {}, SignatureError("neutral", str(error))
    try:
        if tags.get("v") != "1":
            raise SignatureError("permerror", f"found v={tags.get('v', '')[:40]!a}, expected v=1")
        return tags, Signature.of(tags)
    except SignatureError as error:
        return tags, error
