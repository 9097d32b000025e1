"""Signing: the DKIM-Signature fields of our own mail (RFC 6376 §5)."""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Iterable, Sequence
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from .signed_header import SignedHeader, unsigned_field
from .signing_keys import SigningKey

# Each of these is named once more than it is there. A field of that name which is added later, and
# which a reader might show instead of the signed one, makes the signature fail (RFC 6376 §8.15).
_OVERSIGNED = (
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
_OVERSIGNED_IN_LOWER_CASE = frozenset(name.lower() for name in _OVERSIGNED)
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
    fields = SignedHeader(header)
    names = signed_names(fields)
    signed = b"".join(fields.select(map(bytes.lower, names), "relaxed"))
    return b"".join(_signature(signed, names, body_hash, key, time) for key in keys)


def signed_names(header: SignedHeader) -> Sequence[bytes]:
    """Return the names of the fields to sign (``h=``), repeated where a name is."""
    listed: list[bytes] = []
    for name in _OVERSIGNED:
        listed += [name] * (len(header.numbers(name.lower())) + 1)
    for name in header.names:
        count = len(header.numbers(name))
        if name in _OVERSIGNED_IN_LOWER_CASE or not _PLAIN_NAME.fullmatch(name):
            continue
        if name in _SIGNED or name.startswith(_SIGNED_PREFIXES):
            listed += [name.title()] * count
        elif name.startswith(_OVERSIGNED_PREFIX):
            listed += [name.title()] * (count + 1)
    return listed[:_MOST_FIELDS]


def _signature(
    signed: bytes, names: Sequence[bytes], body_hash: bytes, key: SigningKey, time: int
) -> bytes:
    *first, last = names
    field = _folded(
        [
            b"DKIM-Signature:",
            b" v=1;",
            b" a=%b-sha256;" % key.algorithm.encode("ascii"),
            b" c=relaxed/relaxed;",
            b" d=%b;" % key.domain.encode("ascii"),
            b" s=%b;" % key.selector.encode("ascii"),
            b" t=%d;" % time,
            b" h=",
            *(b"%b:" % name for name in first),
            b"%b;" % last,
            b" bh=%b;" % b2a_base64(body_hash, newline=False),
        ]
    )
    field += b"\r\n b="
    signature = b2a_base64(
        _signature_of(signed + unsigned_field(field, "relaxed"), key), newline=False
    )
    lines = [signature[at : at + _WIDTH - 4] for at in range(0, len(signature), _WIDTH - 4)]
    return field + b"\r\n ".join(lines) + b"\r\n"


def _signature_of(data: bytes, key: SigningKey) -> bytes:
    if isinstance(key.private, RSAPrivateKey):
        return key.private.sign(data, PKCS1v15(), SHA256())
    return key.private.sign(sha256(data).digest())  # RFC 8463 §3: of the hash


def _folded(words: Iterable[bytes]) -> bytes:
    """Return words as lines; white space may stand before each of them, also where it has none."""
    lines = [b""]
    for word in words:
        if len(lines[-1]) + len(word) > _WIDTH:
            lines.append(b" " + word.lstrip(b" "))
        else:
            lines[-1] += word
    return b"\r\n".join(lines)
