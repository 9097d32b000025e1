"""Signing: the DKIM-Signature fields of our own mail (RFC 6376 §5)."""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from .canonicalization import relaxed_field
from .signed_header import SignedHeader
from .signing_keys import SigningKey

# Each of these is named once more than it is there. A field of that name which is added later, and
# which a reader might show instead of the signed one, makes the signature fail (RFC 6376 §8.15).
_OVERSIGNED: Mapping[bytes, bytes] = {
    name: name.lower()
    for name in (
        b"From",
        b"To",
        b"Cc",
        b"Reply-To",
        b"Subject",
        b"Date",
        b"Message-ID",
        b"In-Reply-To",
        b"References",
        b"MIME-Version",
        b"Content-Type",
        b"Content-Transfer-Encoding",
        b"Content-Disposition",
    )
}
_KNOWN = frozenset(_OVERSIGNED.values())
_OVERSIGNED_PREFIX = b"content-"
# These are signed as often as they are there: a forwarder or mailing list may add one of its own.
# RFC 8058 §4 wants List-Unsubscribe and List-Unsubscribe-Post to be signed, RFC 9477 the CFBL
# fields.
_SIGNED = (b"sender", b"feedback-id")
_SIGNED_PREFIXES = (b"resent-", b"list-", b"cfbl-")

# Others could end the tag h= or the list.
_PLAIN_NAME = re.compile(rb"[a-z0-9_-]+")
_MOST_FIELDS = 500  # named in one signature, which some thousand octets hold
_WIDTH = 76


def sign(header: bytes, body_hash: bytes, key: SigningKey, *, time: int) -> bytes:
    """Return the DKIM-Signature field of a message, folded, with CR LF.

    Header and body are signed in relaxed form.

    Args:
        header: the header section, each field with its CR LF, without the empty line.
        body_hash: of the body in relaxed form (`body_hashes.body_hash`).
        key: to sign with.
        time: seconds since the epoch (``t=``).
    """
    return sign_all(header, body_hash, (key,), time=time)


def sign_all(header: bytes, body_hash: bytes, keys: Iterable[SigningKey], *, time: int) -> bytes:
    """Return a DKIM-Signature field for each key, one after the other; see `sign`.

    No signature signs another.
    """
    names, signed = _selected(SignedHeader(header))
    return b"".join(_signature(signed, names, body_hash, key, time) for key in keys)


def _selected(header: SignedHeader) -> tuple[tuple[bytes, ...], bytes]:
    """Return the names of the fields to sign, repeated where a name is, and the relaxed fields."""
    names: list[bytes] = []
    numbers: list[int] = []
    for name, lowered in _OVERSIGNED.items():
        found = header.numbers(lowered)
        names += [name] * (len(found) + 1)
        numbers += reversed(found)  # RFC 6376 §5.4.2: from the bottom up
    for lowered in header.names:
        if lowered in _KNOWN or not _PLAIN_NAME.fullmatch(lowered):
            continue
        oversigned = lowered.startswith(_OVERSIGNED_PREFIX)
        if oversigned or lowered in _SIGNED or lowered.startswith(_SIGNED_PREFIXES):
            found = header.numbers(lowered)
            names += [lowered.title()] * (len(found) + oversigned)
            numbers += reversed(found)
    if len(names) <= _MOST_FIELDS:
        return tuple(names), b"".join([header.field(number, "relaxed") for number in numbers])
    names = names[:_MOST_FIELDS]
    return tuple(names), b"".join(header.select(map(bytes.lower, names), "relaxed"))


def _signature(
    signed: bytes, names: tuple[bytes, ...], body_hash: bytes, key: SigningKey, time: int
) -> bytes:
    field = (
        b"DKIM-Signature: v=1; a=%b-sha256; c=relaxed/relaxed;\r\n d=%b; s=%b; t=%d;\r\n"
        b"%b\r\n bh=%b;\r\n b="
    ) % (
        key.algorithm.encode("ascii"),
        key.domain.encode("ascii"),
        key.selector.encode("ascii"),
        time,
        _listed(names),
        b2a_base64(body_hash, newline=False),
    )
    # RFC 6376 §3.7: the field itself is signed with an empty b= and without its CR LF.
    data = signed + relaxed_field(field).removesuffix(b"\r\n")
    signature = b2a_base64(_signature_of(data, key), newline=False)
    lines = [signature[at : at + _WIDTH - 4] for at in range(0, len(signature), _WIDTH - 4)]
    return field + b"\r\n ".join(lines) + b"\r\n"


@lru_cache(maxsize=256)  # most mail of one client has the same fields
def _listed(names: tuple[bytes, ...]) -> bytes:
    """Return the tag ``h=``, folded, without the last line end."""
    lines = [b" h="]
    for number, name in enumerate(names, start=1):
        word = name + (b":" if number < len(names) else b";")
        if len(lines[-1]) + len(word) > _WIDTH:
            lines.append(b" ")
        lines[-1] += word
    return b"\r\n".join(lines)


def _signature_of(data: bytes, key: SigningKey) -> bytes:
    if isinstance(key.private, RSAPrivateKey):
        return key.private.sign(data, PKCS1v15(), SHA256())
    return key.private.sign(sha256(data).digest())  # RFC 8463 §3: of the hash
